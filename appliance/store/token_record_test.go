package store

import (
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/finterra/finpay/appliance/store/runs"
	"github.com/finterra/finpay/pci"
)

func TestARecordGivesItsRowBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Token{
			Domain: "shop", Token: pci.Token(rapid.StringMatching(`[0-9]{12,19}|tok_[0-9a-v]{26}|[ -~]{1,40}`).Draw(t, "token")),
			Format: rapid.SampledFrom(append(formats[1:], "next")).Draw(t, "format"), KeyVersion: rapid.Uint32().Draw(t, "version"), Steps: rapid.Uint16().Draw(t, "steps"),
			Image: pci.TokenImage(rapid.StringMatching(`([0-9]{11,18})?`).Draw(t, "image")), Status: TokenActive, Batch: rapid.Int64Min(0).Draw(t, "batch"),
			Card: pci.Card{
				Brand:     rapid.SampledFrom(append(brands[1:], "mada", "")).Draw(t, "brand"),
				Truncated: pci.Truncated(rapid.StringMatching(`[0-9]{6}\*{5,9}[0-9]{4}|\*{8,10}[0-9]{4}|[0-9*x]{0,20}`).Draw(t, "truncated")),
				Expiry:    pci.Expiry{Year: rapid.IntRange(0, 9999).Draw(t, "year"), Month: rapid.IntRange(0, 12).Draw(t, "month")},
			},
			CreatedAt: time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "created")).UTC(),
		}
		got, err := readRow(tokenKey(keyOfToken, 7, string(want.Token)), appendTokenRecord(nil, &want), "shop")
		if err != nil || got != want {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
	})
}

func TestARecordIsShort(t *testing.T) {
	row := Token{Token: "9123456789011111", Format: pci.TokenLast4, KeyVersion: 3, Batch: 2500, CreatedAt: issuedAt,
		Card: pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2031, Month: 1}}}
	if n := len(appendTokenRecord(nil, &row)); n > 17 {
		t.Errorf("%d bytes", n)
	}
}

func FuzzADamagedRecordIsAnError(f *testing.F) {
	row := numbered("shop", 3)
	f.Add(tokenKey(keyOfToken, 1, string(row.Token)), appendTokenRecord(nil, &row))
	row = numbered("shop", 1)
	f.Add(tokenKey(keyOfToken, 1, string(row.Token)), appendTokenRecord(nil, &row))
	f.Add([]byte("t"), []byte{0x91})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if _, err := readRow(key, value, "shop"); err != nil && !errors.Is(err, runs.ErrDamaged) {
			t.Error(err)
		}
	})
}

// The form is fixed: an auditor's tool makes it from an export, byte by byte.
func TestTheCanonicalFormOfARow(t *testing.T) {
	row := Token{Domain: "shop", Token: "9123456789011111", Format: pci.TokenLast4, KeyVersion: 3, Steps: 1, CreatedAt: issuedAt,
		Card: pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2031, Month: 1}}}
	want := "finpay token v1\x04shop\x109123456789011111\x05last4\x00\x04visa\x10411111******1111\x072031-01" +
		"\x00\x00\x00\x03\x00\x01\x00\x00\x01\xb8\xe0\x94\x98\x8e"
	got := row.Canonical()
	if string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
	if row.Hash() != sha256.Sum256(append([]byte{0}, got...)) {
		t.Error("the hash is not that of an RFC 6962 leaf")
	}
}

func TestTheRootIsThatOfRFC6962(t *testing.T) {
	var hashes [][32]byte
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for n := range int64(200) {
		want, err := tlog.TreeHash(n, read)
		if err != nil {
			t.Fatal(err)
		}
		if got := merkleRoot(append([][32]byte(nil), hashes...)); got != want {
			t.Fatalf("%d leaves: %x, want %x", n, got, want)
		}
		row := numbered("shop", int(n))
		hashes = append(hashes, row.Hash())
		more, err := tlog.StoredHashes(n, append([]byte(nil), row.Canonical()...), read)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
	}
}

func TestReplacementsAreFollowedInOrder(t *testing.T) {
	tx := begin(t)
	replace := func(domain string, numbers ...int) (first, last int64) {
		t.Helper()
		var old, rows []Token
		var by []pci.Token
		for _, n := range numbers {
			row, next := numbered(domain, n), numbered(domain, n+1000)
			next.KeyVersion = 2
			old, by, rows = append(old, row), append(by, next.Token), append(rows, row, next)
		}
		if _, _, taken, err := tx.PutTokens(rows); err != nil || len(taken) > 0 {
			t.Fatal(taken, err)
		}
		_ = tx.Touched()
		first, last, err := tx.ReplaceTokens(old, by, issuedAt)
		if err != nil {
			t.Fatal(err)
		}
		return first, last
	}
	if first, last := replace("a", 1); first != 1 || last != 1 {
		t.Fatalf("%d to %d", first, last)
	}
	replace("b", 3)
	if first, last := replace("a", 2, 4); first != 3 || last != 4 {
		t.Fatalf("%d to %d", first, last)
	}
	if touched := tx.Touched(); len(touched) != 1 || touched["token_changes/3-4"] == "" {
		t.Errorf("covered: %v", touched)
	}
	list, err := tx.TokenChanges("a", 1, 10)
	if err != nil || len(list) != 2 || list[0].Seq != 3 || list[1].Seq != 4 || list[1].New != numbered("a", 1004).Token || list[1].Expiry != numbered("a", 4).Card.Expiry {
		t.Errorf("%+v, %v", list, err)
	}
	for through, want := range []int64{0, 1, 1, 3, 4, 4} {
		if last, err := tx.LastTokenChange("a", int64(through)); err != nil || last != want {
			t.Errorf("the newest up to %d is %d, want %d, %v", through, last, want, err)
		}
	}
	if newest, err := tx.NewestTokenChange(); err != nil || newest != 4 {
		t.Errorf("the newest of all is %d, %v", newest, err)
	}
	old, err := tx.Token("a", numbered("a", 4).Token)
	if err != nil || old.Status != TokenReplaced || old.ReplacedBy != numbered("a", 1004).Token {
		t.Errorf("%+v, %v", old, err)
	}
	if err := tx.SetTokenState("a", old.Token, TokenState{Status: TokenActive, Expiry: old.Card.Expiry, UpdatedAt: issuedAt}); !errors.Is(err, ErrTokenReplaced) {
		t.Errorf("a replaced token was made active: %v", err)
	}
	if err := tx.PutDomainAck(DomainAck{Domain: "a", Seq: 4, At: issuedAt}); err != nil {
		t.Fatal(err)
	}
	if err := tx.PutDomainAck(DomainAck{Domain: "a", Seq: 2, At: issuedAt}); err == nil {
		t.Error("a domain has gone back")
	}
	if ack, err := tx.DomainAck("a"); err != nil || ack.Seq != 4 {
		t.Errorf("%+v, %v", ack, err)
	}
	if _, err := tx.DomainAck("b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a domain that acknowledged nothing: %v", err)
	}
}

func TestTokensOfAVersionAreFoundToReplaceThem(t *testing.T) {
	tx := begin(t)
	var rows []Token
	for n := range 30 {
		row := numbered("a", n+1)
		row.KeyVersion = uint32(1 + n%2)
		rows = append(rows, row)
	}
	if _, _, taken, err := tx.PutTokens(rows); err != nil || len(taken) > 0 {
		t.Fatalf("%v, %v", taken, err)
	}
	replaced := 0
	for after := pci.Token(""); ; {
		page, err := tx.TokensOfVersion("a", 1, after, 4)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, row := range page {
			after = row.Token
			if _, _, err := tx.ReplaceTokens([]Token{row}, []pci.Token{"9000000000000000"}, issuedAt); err != nil || row.KeyVersion != 1 {
				t.Fatalf("%+v, %v", row, err)
			}
			replaced++
		}
	}
	if n, err := tx.CountTokensOfVersion(1); err != nil || n != 0 || replaced != 15 {
		t.Errorf("%d rows are left after %d were replaced: %v", n, replaced, err)
	}
	if err := tx.PutToken(rows[0]); err != nil {
		t.Errorf("the same card again: %v", err)
	}
	other := rows[0]
	other.KeyVersion = 2
	if err := tx.PutToken(other); !errors.Is(err, ErrTokenTaken) {
		t.Errorf("a replaced value was given to another card: %v", err)
	}
	if domains, err := tx.TokenDomains(); err != nil || len(domains) != 1 || domains[0] != "a" {
		t.Errorf("%v, %v", domains, err)
	}
}

func TestARowThatMakesNoSenseIsRefused(t *testing.T) {
	tx := begin(t)
	for what, spoil := range map[string]func(*Token){
		"no token":               func(t *Token) { t.Token = "" },
		"inactive when issued":   func(t *Token) { t.Status = TokenInactive },
		"opaque, without image":  func(t *Token) { t.Format = pci.TokenOpaque },
		"image, but not opaque":  func(t *Token) { t.Image = "123456789012345" },
		"an expiry out of range": func(t *Token) { t.Card.Expiry.Month = 13 },
	} {
		row := numbered("a", 1)
		spoil(&row)
		if err := tx.PutToken(row); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if len(tx.Touched()) > 0 || tx.Mark() != (Mark{}) {
		t.Error("something was written")
	}
	if err := tx.SetTokenState("a", "9000000000000000", TokenState{Status: TokenActive, Expiry: pci.Expiry{Year: 2030, Month: 1}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("the state of a token that was never issued: %v", err)
	}
}

func TestNoTokenIsIssuedUnderARetiringVersion(t *testing.T) {
	tx := begin(t)
	if err := tx.PutToken(numbered("a", 1)); err != nil {
		t.Fatal(err)
	}
	r := Retirement{KeyVersion: 1, Window: time.Hour, StartedAt: issuedAt}
	if err := tx.PutRetirement(r); err != nil {
		t.Fatal(err)
	}
	if err := tx.PutToken(numbered("a", 2)); !errors.Is(err, ErrVersionRetired) {
		t.Errorf("one: %v", err)
	}
	if _, _, _, err := tx.PutTokens([]Token{numbered("a", 3), numbered("a", 4)}); !errors.Is(err, ErrVersionRetired) {
		t.Errorf("many: %v", err)
	}
	if err := tx.PutToken(numbered("a", 1)); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	r.ReplacedAt, r.Changes = issuedAt.Add(time.Hour), 7
	if err := tx.PutRetirement(r); err != nil {
		t.Fatal(err)
	}
	if got, err := tx.Retirement(1); err != nil || got != r {
		t.Errorf("%+v, %v, want %+v", got, err, r)
	}
	if _, err := tx.Retirement(2); !errors.Is(err, ErrNotFound) {
		t.Errorf("of another version: %v", err)
	}
}
