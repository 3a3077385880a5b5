package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/appliance/store/runs"
	"github.com/finterra/finpay/pci"
)

// tiny makes runs and merges out of a handful of rows.
var tiny = runs.Config{TableRecords: 20, FanIn: 2, ChunkRecords: 16, PageBytes: 150, SliceRecords: 4}

var issuedAt = time.Date(2030, 1, 2, 3, 4, 5, 6_000_000, time.UTC)

// numbered returns a row in one of the formats. Rows of different numbers are different cards'.
func numbered(domain string, n int) Token {
	t := Token{Domain: domain, Token: pci.Token(fmt.Sprintf("9%011d1111", n*7919%100_000_000_000)), Format: pci.TokenLast4, KeyVersion: 1, Status: TokenActive,
		Card: pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2031, Month: 1 + n%12}}, CreatedAt: issuedAt}
	switch n % 5 {
	case 3:
		t.Format, t.Image = pci.TokenOpaque, pci.TokenImage(fmt.Sprintf("%015d", n*104729))
		t.Token = pci.Token(fmt.Sprintf("tok_%026x", n*15485863))
	case 4:
		t.Token, t.Card = pci.Token(fmt.Sprintf("9%09d0005", n)), pci.Card{Brand: "troy", Truncated: "**********0005", Expiry: pci.Expiry{Year: 2027, Month: 12}}
	}
	return t
}

// model is the registry as a plain map.
type model struct {
	rows    map[string]Token // by domain and token
	images  map[string]pci.Token
	batches map[int64][]Token
}

func (m *model) clone() *model {
	return &model{maps.Clone(m.rows), maps.Clone(m.images), maps.Clone(m.batches)}
}

func name(t Token) string { return t.Domain + "/" + string(t.Token) }

// put reports whether the row is new, or taken.
func (m *model) put(t Token, batch int64) (fresh, taken bool) {
	known, ok := m.rows[name(t)]
	if ok && known.sameCard(t) {
		if known.Status != TokenReplaced && earlier(known.Card.Expiry, t.Card.Expiry) {
			known.Card.Expiry = t.Card.Expiry
			m.rows[name(t)] = known
		}
		return false, false
	}
	if holder, held := m.images[t.Domain+"/"+string(t.Image)]; ok || (t.Image != "" && held && holder != t.Token) {
		return false, true
	}
	if t.Image != "" {
		m.images[t.Domain+"/"+string(t.Image)] = t.Token
	}
	t.Batch = batch
	m.rows[name(t)] = t
	return true, false
}

// registry drives a store and its model side by side.
type registry struct {
	dir       string
	store     *Store
	committed *model
	open      *model // of the transaction under way
	tx        *Tx
}

func (r *registry) begin(t *rapid.T) {
	if r.tx != nil {
		return
	}
	var err error
	if r.tx, err = r.store.Begin(); err != nil {
		t.Fatal(err)
	}
	r.open = r.committed.clone()
}

func (r *registry) reopen(t *rapid.T) {
	if r.tx != nil {
		if err := r.tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		r.tx = nil
	}
	if r.store != nil {
		if err := r.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if r.store, err = OpenTuned(t.Context(), r.dir, tiny); err != nil {
		t.Fatal(err)
	}
}

func drawRow(t *rapid.T) Token {
	row := numbered(rapid.SampledFrom([]string{"a", "b", "shop"}).Draw(t, "domain"), rapid.IntRange(1, 400).Draw(t, "n"))
	switch rapid.IntRange(0, 9).Draw(t, "twist") {
	case 0:
		row.KeyVersion = 2 // clashes with another card
	case 1:
		row.Card.Expiry.Year++
	case 2:
		row.Steps = 1
	}
	return row
}

func (r *registry) put(t *rapid.T) {
	r.begin(t)
	row := drawRow(t)
	_, taken := r.open.put(row, 0)
	if err := r.tx.PutToken(row); errors.Is(err, ErrTokenTaken) != taken || (err != nil && !taken) {
		t.Fatalf("put %s: %v, taken %v", name(row), err, taken)
	}
}

func (r *registry) putMany(t *rapid.T) {
	r.begin(t)
	list := rapid.SliceOfN(rapid.Custom(drawRow), 1, 60).Draw(t, "rows")
	mark, before := r.tx.Mark(), r.open.clone()
	batch, root, taken, err := r.tx.PutTokens(list)
	if err != nil {
		t.Fatal(err)
	}
	var wantTaken []int
	fresh := false
	for i, row := range list {
		isNew, isTaken := r.open.put(row, batch)
		fresh = fresh || isNew
		if isTaken {
			wantTaken = append(wantTaken, i)
		}
	}
	if !slices.Equal(taken, wantTaken) || fresh != (batch > 0) {
		t.Fatalf("taken %v, want %v; batch %d", taken, wantTaken, batch)
	}
	if rapid.IntRange(0, 3).Draw(t, "fails") == 0 { // the unit is rolled back, its neighbours are not
		if err := r.tx.Rewind(mark); err != nil {
			t.Fatal(err)
		}
		r.open = before
		return
	}
	if err := r.tx.Keep(); err != nil {
		t.Fatal(err)
	}
	if fresh {
		if rows, stored, err := r.tx.TokenBatchRoot(batch); err != nil || stored != root {
			t.Fatalf("batch %d of %d rows: %x, %v", batch, rows, stored, err)
		}
		r.open.batches[batch] = list
	}
}

func (r *registry) setState(t *rapid.T) {
	r.begin(t)
	row := drawRow(t)
	s := TokenState{Status: rapid.SampledFrom([]string{TokenActive, TokenInactive}).Draw(t, "status"), Expiry: row.Card.Expiry, UpdatedAt: issuedAt}
	known, ok := r.open.rows[name(row)]
	want := error(nil)
	if !ok {
		want = ErrNotFound
	} else if known.Status == TokenReplaced {
		want = ErrTokenReplaced
	}
	if err := r.tx.SetTokenState(row.Domain, row.Token, s); !errors.Is(err, want) {
		t.Fatalf("state of %s: %v, want %v", name(row), err, want)
	}
	if want == nil {
		known.apply(s)
		r.open.rows[name(row)] = known
	}
}

func (r *registry) replace(t *rapid.T) {
	r.begin(t)
	row := drawRow(t)
	known, ok := r.open.rows[name(row)]
	if !ok || known.Status == TokenReplaced {
		return
	}
	if _, _, err := r.tx.ReplaceTokens([]Token{known}, []pci.Token{"9000000000000000"}, issuedAt); err != nil {
		t.Fatal(err)
	}
	known.Status, known.ReplacedBy = TokenReplaced, "9000000000000000"
	r.open.rows[name(row)] = known
}

func (r *registry) commit(t *rapid.T) {
	if r.tx == nil {
		return
	}
	if err := r.tx.Commit(); err != nil {
		t.Fatal(err)
	}
	r.committed, r.tx = r.open, nil
}

func (r *registry) rollBack(t *rapid.T) {
	if r.tx == nil {
		return
	}
	if rapid.Bool().Draw(t, "at COMMIT") { // after rows were moved
		if err := r.tx.tokens.Flush(r.tx.ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	r.tx = nil
}

func (r *registry) check(t *rapid.T) {
	compare(t, r.store.Read(t.Context()), r.committed)
	if r.tx != nil {
		compare(t, r.tx.Queries, r.open)
	}
}

// compare looks every row up one by one, in bulk, by image and in order.
func compare(t *rapid.T, q Queries, m *model) {
	counts := make(map[uint32]int)
	for _, domain := range []string{"a", "b", "shop"} {
		var want []pci.Token
		for _, row := range m.rows {
			if row.Domain == domain {
				want = append(want, row.Token)
			}
			if row.Domain == domain && row.Status != TokenReplaced {
				counts[row.KeyVersion]++
			}
		}
		asked := append(slices.Clone(want), "9999999999999999", "tok_none")
		seen := 0
		if err := q.Tokens(domain, asked, func(i int, got Token) error {
			seen++
			if got != m.rows[domain+"/"+string(asked[i])] {
				return fmt.Errorf("row %d is %+v, want %+v", i, got, m.rows[domain+"/"+string(asked[i])])
			}
			return nil
		}); err != nil || seen != len(want) {
			t.Fatalf("domain %s: %d of %d rows, %v", domain, seen, len(want), err)
		}
		listed := listAll(t, q, domain)
		if slices.Sort(want); len(listed) != len(want) {
			t.Fatalf("domain %s lists %d rows, want %d", domain, len(listed), len(want))
		}
		for _, got := range listed {
			if got != m.rows[name(got)] {
				t.Fatalf("listed %+v, want %+v", got, m.rows[name(got)])
			}
		}
	}
	for image, token := range m.images {
		domain, text := image[:len(image)-16], image[len(image)-15:]
		if got, err := q.TokenByImage(domain, pci.TokenImage(text)); err != nil || got.Token != token {
			t.Fatalf("by image: %+v, %v", got, err)
		}
	}
	for version := range uint32(4) {
		if n, err := q.CountTokensOfVersion(version); err != nil || n != counts[version] {
			t.Fatalf("%d rows under version %d, want %d: %v", n, version, counts[version], err)
		}
	}
	for n := range m.batches {
		rows, root, err := q.TokenBatch(n)
		count, stored, rootErr := q.TokenBatchRoot(n)
		if err != nil || rootErr != nil || root != stored || len(rows) != count {
			t.Fatalf("batch %d: %d rows of %d, %v, %v", n, len(rows), count, err, rootErr)
		}
	}
}

// listAll pages through a domain.
func listAll(t *rapid.T, q Queries, domain string) []Token {
	var all []Token
	after := pci.Token("")
	for {
		page, err := q.ListTokens(domain, after, 13)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return all
		}
		all, after = append(all, page...), page[len(page)-1].Token
	}
}

func TestTheRegistryIsAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := &registry{dir: t.TempDir(), committed: &model{make(map[string]Token), make(map[string]pci.Token), make(map[int64][]Token)}}
		r.reopen(rt)
		defer func() {
			if r.tx != nil {
				_ = r.tx.Rollback()
			}
			_ = r.store.Close()
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"put": r.put, "put many": r.putMany, "put more": r.putMany, "set state": r.setState, "replace": r.replace, "commit": r.commit, "commit again": r.commit,
			"roll back": r.rollBack, "reopen": r.reopen, "": r.check,
		})
	})
}
