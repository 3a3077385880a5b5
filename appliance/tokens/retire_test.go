package tokens

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// mint is a tokenization key whose second version makes the token of a card from that under the first.
type mint struct {
	away    error             // of the HSM
	refused map[pci.Token]int // cards that fail so often
	value   func(old pci.Token) pci.Token
	during  func() // called while the HSM is at work
	dead    []uint32
	ledger  *ledger.Ledger
}

func (m *mint) Retokenize(_ context.Context, domain string, tokens []pci.Token) ([]pci.Tokenized, error) {
	if m.away != nil {
		return nil, m.away
	}
	if m.during != nil {
		m.during()
	}
	out := make([]pci.Tokenized, len(tokens))
	for i, token := range tokens {
		if m.refused[token] > 0 {
			m.refused[token]--
			out[i].Err = pci.ErrUnavailable
			continue
		}
		out[i].Token = issuedUnder(domain, m.value(token), 2)
	}
	return out, nil
}

func (m *mint) Destroy(ctx context.Context, version uint32, also func(*ledger.Tx) error) error {
	m.dead = append(m.dead, version)
	_, err := m.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if err := also(tx); err != nil {
			return err
		}
		tx.Record(system("key.destroyed", keyResource(version), nil))
		return nil
	})
	return err
}

func issuedUnder(domain string, token pci.Token, version uint32) pci.IssuedToken {
	return pci.IssuedToken{Domain: domain, Token: token, Format: pci.TokenLast4, KeyVersion: version,
		Card: pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2031, Month: 12}}}
}

// office is a service over a real registry and log.
type office struct {
	*Service
	mint *mint
	now  time.Time
	t    *testing.T
}

func newOffice(t *testing.T) *office {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: "finpay.test/tokens", Node: "node", Signer: private})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		_ = s.Close()
	})
	o := &office{t: t, now: time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)}
	o.mint = &mint{ledger: l, refused: make(map[pci.Token]int), value: func(old pci.Token) pci.Token { return "92" + old[2:] }}
	o.Service, err = New(t.Context(), Config{Store: s, Ledger: l, Keys: o.mint, Bound: 20, Now: func() time.Time { return o.now }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// issue enters tokens under the first version of the key.
func (o *office) issue(domain string, count int) (tokens []pci.Token) {
	o.t.Helper()
	var rows []store.Token
	for n := range count {
		rows = append(rows, rowOf(domain, issuedUnder(domain, pci.Token(fmt.Sprintf("91%010d1111", n)), 1), o.now))
		tokens = append(tokens, rows[n].Token)
	}
	o.commit(func(tx *ledger.Tx) error {
		_, _, taken, err := tx.PutTokens(rows)
		if err == nil && len(taken) > 0 {
			err = errors.New("taken")
		}
		tx.Record(system("test.issued", "r", nil))
		return err
	})
	return tokens
}

func (o *office) commit(apply func(*ledger.Tx) error) {
	o.t.Helper()
	if _, err := o.cfg.Ledger.Commit(context.Background(), apply); err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) retire(window time.Duration) {
	o.t.Helper()
	if err := Retire(o.t.Context(), o.cfg.Ledger, ledger.Operator{Origin: "uid:0"}, 1, window); err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) status() RetirementStatus {
	o.t.Helper()
	list, err := Retirements(o.cfg.Store.Read(o.t.Context()), o.now)
	if err != nil || len(list) != 1 {
		o.t.Fatalf("%+v, %v", list, err)
	}
	return list[0]
}

func (o *office) row(domain string, token pci.Token) store.Token {
	o.t.Helper()
	row, err := o.cfg.Store.Read(o.t.Context()).Token(domain, token)
	if err != nil {
		o.t.Fatal(err)
	}
	return row
}

func (o *office) acknowledge(domain string) {
	o.t.Helper()
	newest, err := o.cfg.Store.Read(o.t.Context()).LastTokenChange(domain, everything)
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := Acknowledge(o.t.Context(), o.cfg.Ledger, ledger.Operator{Origin: "uid:0"}, domain, newest); err != nil {
		o.t.Fatal(err)
	}
}

func TestARetirementWaitsForEveryDomainAndItsWindow(t *testing.T) {
	o := newOffice(t)
	tokens := o.issue("a", 3)
	o.issue("b", 2)
	o.retire(24 * time.Hour)
	if err := o.advanceAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := o.status(); got.Left != 0 || len(got.WaitsFor) != 3 {
		t.Errorf("%+v", got)
	}
	for _, what := range []struct {
		do   func()
		left int
	}{{func() { o.acknowledge("a") }, 2}, {func() { o.now = o.now.Add(25 * time.Hour) }, 1}, {func() {}, 1}} {
		what.do()
		if err := o.advanceAll(t.Context()); err != nil || len(o.status().WaitsFor) != what.left || len(o.mint.dead) > 0 {
			t.Errorf("%+v, %v, destroyed: %v", o.status(), err, o.mint.dead)
		}
	}
	read := o.cfg.Store.Read(t.Context())
	if row, err := o.standing(read, "b", tokens[0]); err != nil || row.KeyVersion != 2 {
		t.Errorf("a token of the domain that has not acknowledged: %+v, %v", row, err)
	}
	if _, err := o.standing(read, "a", tokens[0]); !errors.Is(err, api.ErrTokenReplaced) {
		t.Errorf("a token of the domain that has: %v", err)
	}
	o.acknowledge("b")
	if err := o.advanceAll(t.Context()); err != nil || o.status().EndedAt.IsZero() || fmt.Sprint(o.mint.dead) != "[1]" {
		t.Errorf("%+v, %v, destroyed: %v", o.status(), err, o.mint.dead)
	}
	if err := o.advanceAll(t.Context()); err != nil || len(o.mint.dead) != 1 {
		t.Errorf("afterwards: %v, destroyed: %v", err, o.mint.dead)
	}
	if err := Retire(t.Context(), o.cfg.Ledger, ledger.Operator{Origin: "uid:0"}, 1, 0); err == nil {
		t.Error("a version was retired twice")
	}
}

func TestWhatCannotBeReplacedNowIsReplacedLater(t *testing.T) {
	o := newOffice(t)
	tokens := o.issue("a", 600) // two pages
	taken := rowOf("a", issuedUnder("a", "92"+tokens[4][2:], 3), o.now)
	o.commit(func(tx *ledger.Tx) error { // another card's
		err := tx.PutToken(taken)
		tx.Record(system("test.issued", "r", nil))
		return err
	})
	o.mint.refused[tokens[7]] = 1
	o.retire(0)
	o.mint.away = pci.ErrUnavailable
	if err := o.advanceAll(t.Context()); !errors.Is(err, pci.ErrUnavailable) || o.status().Left != 600 {
		t.Errorf("%+v, %v", o.status(), err)
	}
	o.mint.away = nil
	if err := o.advanceAll(t.Context()); !errors.Is(err, errNotReplaced) || o.status().Left != 2 {
		t.Errorf("%+v, %v", o.status(), err)
	}
	if o.row("a", tokens[4]).Status != store.TokenActive || o.row("a", taken.Token) != taken {
		t.Error("a token was replaced by another card's")
	}
	o.mint.value = func(old pci.Token) pci.Token { return "93" + old[2:] } // a step further
	if err := o.advanceAll(t.Context()); err != nil || o.status().Left != 0 {
		t.Errorf("%+v, %v", o.status(), err)
	}
	for i, token := range tokens {
		want := pci.Token("92" + string(token[2:]))
		if i == 4 || i == 7 {
			want = "93" + token[2:]
		}
		if row := o.row("a", token); row.Status != store.TokenReplaced || row.ReplacedBy != want || o.row("a", want).Status != store.TokenActive {
			t.Fatalf("%+v", row)
		}
	}
}

// What happens to a token while the HSM works on its card is not lost.
func TestASuccessorHasTheStateOfThatMoment(t *testing.T) {
	o := newOffice(t)
	tokens := o.issue("a", 3)
	later := pci.Expiry{Year: 2035, Month: 6}
	o.retire(0)
	o.mint.during = func() {
		o.commit(func(tx *ledger.Tx) error {
			for i, s := range []store.TokenState{{Status: store.TokenInactive, Expiry: o.row("a", tokens[0]).Card.Expiry}, {Status: store.TokenActive, Expiry: later}} {
				s.UpdatedAt = o.now
				if err := tx.SetTokenState("a", tokens[i], s); err != nil {
					return err
				}
			}
			tx.Record(system("test.changed", "r", nil))
			return nil
		})
	}
	if err := o.advanceAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		status string
		expiry pci.Expiry
	}{{store.TokenInactive, o.row("a", tokens[2]).Card.Expiry}, {store.TokenActive, later}} {
		if row := o.row("a", o.row("a", tokens[i]).ReplacedBy); row.Status != want.status || row.Card.Expiry != want.expiry {
			t.Errorf("token %d: %+v, want %+v", i, row, want)
		}
	}
	if _, err := o.cfg.Ledger.Commit(t.Context(), func(tx *ledger.Tx) error {
		return tx.PutToken(rowOf("a", issuedUnder("a", "9199999999991111", 1), o.now))
	}); !errors.Is(err, store.ErrVersionRetired) {
		t.Errorf("a token under the old version: %v", err)
	}
	if resources := strings.Join(o.types(), " "); !strings.Contains(resources, "tokens.replaced") || !strings.Contains(resources, "tokens.deactivated") {
		t.Errorf("entries about the domain: %s", resources)
	}
}

// types are the entries about domain a.
func (o *office) types() (types []string) {
	o.t.Helper()
	entries, err := o.cfg.Store.Read(o.t.Context()).LedgerEntriesOf("domain:a")
	if err != nil {
		o.t.Fatal(err)
	}
	for _, e := range entries {
		_, rest, _ := strings.Cut(string(e.Entry), `"type":"`)
		kind, _, _ := strings.Cut(rest, `"`)
		types = append(types, kind)
	}
	return types
}
