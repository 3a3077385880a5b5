//go:build bench

package ledger_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
	"github.com/finterra/finpay/softhsm-test/figures"
)

const (
	writers = 64
	rounds  = 7
	share   = 16_000 // changes of a round
)

// TestFigures is what `make bench` runs: changes of one row and one entry, signed by SoftHSM2, against bare SQLite that
// commits the same rows in the same groups. BENCH_ENTRIES says how long the log is in which entries are proven.
func TestFigures(t *testing.T) {
	engine := softhsmtest.Open(t)
	key := softhsmtest.Key(t, engine, hsm.Spec{Role: "ledger", Kind: hsm.ECSign, Class: hsm.Bound})
	signer, err := engine.Signer(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	l := openLog(t, t.TempDir(), signer)
	bare := openBare(t)
	var rates, bares, tokens, groups []float64
	for range rounds {
		before := l.size(t)
		rates = append(rates, float64(share)/l.among(t, l.payment).Seconds())
		sizes := l.groups(t, before)
		groups = append(groups, float64(share)/float64(len(sizes)))
		bares = append(bares, float64(share)/bare.replay(t, sizes).Seconds())
		tokens = append(tokens, float64(share)/l.among(t, l.token).Seconds())
	}
	alone, bareAlone := oneByOne(t, l, bare)
	list := []figures.Figure{
		figures.Alone(fmt.Sprintf("%d writers, a payment and its entry each", writers), median(rates), "entries/s", ">= 20000"),
		figures.Against("the same, to bare SQLite with the same rows in the same groups", median(rates), median(bares), "entries/s", ">= 0.45"),
		figures.Alone("the same: changes of a group", median(groups), "", ""),
		figures.Alone(fmt.Sprintf("%d writers, a token and its entry each", writers), median(tokens), "entries/s", ">= 20000"),
		figures.Against("one writer, p50, to a bare commit of one row", alone, bareAlone, "µs", "<= 1.8"),
	}
	figures.Report(t, append(list, longLog(t, signer)...)...)
}

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// log is a ledger under measurement.
type log struct {
	*ledger.Ledger
	store *store.Store
	dir   string
	next  atomic.Int64
}

var merchant = store.Merchant{ID: "mer_1", Domain: "shop", CreatedAt: time.Unix(1_900_000_000, 0)}

func openLog(t testing.TB, dir string, signer *hsm.Signer) *log {
	t.Helper()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	l := &log{store: s, dir: dir}
	if l.Ledger, err = ledger.Open(t.Context(), s, ledger.Config{Origin: "finpay.test/bench/2030", Node: "bench", Signer: signer}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.close() })
	if _, err := l.Commit(t.Context(), func(tx *ledger.Tx) error {
		tx.Record(ledger.Entry{Type: "log.started", Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: "log"})
		if _, err := tx.Merchant(merchant.ID); err == nil {
			return nil
		}
		err := tx.PutMerchant(merchant)
		tx.Record(ledger.Entry{Type: "merchant.created", Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: merchant.ID})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *log) close() error {
	l.Close()
	return l.store.Close()
}

func (l *log) size(t testing.TB) int64 {
	t.Helper()
	n, err := l.store.Read(t.Context()).LedgerSize()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// groups returns how many entries each commit had since the log had a size.
func (l *log) groups(t testing.TB, since int64) (sizes []int) {
	t.Helper()
	checkpoints, err := l.store.Read(t.Context()).LedgerCheckpoints(since, share)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checkpoints {
		sizes, since = append(sizes, int(c.Size-since)), c.Size
	}
	return sizes
}

func (l *log) among(t testing.TB, change func() error) time.Duration {
	t.Helper()
	begun := time.Now()
	if err := figures.Among(writers, change)(share); err != nil {
		t.Fatal(err)
	}
	return time.Since(begun)
}

func paymentOf(n int64) store.Payment {
	at := time.Unix(1_900_000_000, n)
	return store.Payment{ID: fmt.Sprintf("pay_%016d", n*7_919_000_003%1e16), MerchantID: merchant.ID, SessionHash: fmt.Appendf(nil, "%032d", n*104_729_000_017%1e18),
		Status: "created", Amount: pci.Amount{Minor: n, Currency: "EUR"}, Reference: "order", ReturnURL: "https://shop.example/return", CreatedAt: at, ExpiresAt: at.Add(time.Hour), UpdatedAt: at}
}

func (l *log) payment() error {
	p := paymentOf(l.next.Add(1))
	_, err := l.Commit(context.Background(), func(tx *ledger.Tx) error {
		if err := tx.PutPayment(p); err != nil {
			return err
		}
		tx.Record(ledger.Entry{Type: "payment.created", Actor: "key:fpk_1", Origin: "192.0.2.1", Outcome: ledger.Success, Resource: p.ID,
			Data: map[string]any{"amount": p.Amount.Minor, "currency": "EUR", "merchant": merchant.ID}})
		return nil
	})
	return err
}

func (l *log) token() error {
	n := l.next.Add(1)
	token := pci.Token(fmt.Sprintf("9%015d", n*7_919_000_003%1e15))
	row := store.Token{Domain: "shop", Token: token, Format: pci.TokenLast4, KeyVersion: 1, Status: store.TokenActive, CreatedAt: time.Unix(1_900_000_000, n),
		Card: pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2031, Month: 5}}}
	_, err := l.Commit(context.Background(), func(tx *ledger.Tx) error {
		if err := tx.PutToken(row); err != nil {
			return err
		}
		tx.Record(ledger.Entry{Type: "token.issued", Actor: "key:fpk_1", Origin: "192.0.2.1", Outcome: ledger.Success, Resource: "token:shop/" + string(token),
			Data: map[string]any{"card": string(row.Card.Truncated), "brand": string(row.Card.Brand), "format": string(row.Format), "key_version": 1}})
		return nil
	})
	return err
}

// bare is SQLite with the same tables, settings and prepared statements, without ledger or HSM.
type bare struct {
	conn                  *sqlite3.SQLiteConn
	begin, insert, commit driver.Stmt
	next                  int64
}

func openBare(t testing.TB) *bare {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir) // makes the tables
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := (&sqlite3.SQLiteDriver{}).Open("file:" + filepath.Join(dir, store.FileName) + "?_journal_mode=WAL&_synchronous=FULL&_foreign_keys=true&_secure_delete=true")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	b := &bare{conn: conn.(*sqlite3.SQLiteConn)}
	if _, err := b.conn.Exec("PRAGMA temp_store = MEMORY", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.conn.Exec("INSERT INTO merchants VALUES ('mer_1','shop','{}','[]','',x'','')", nil); err != nil {
		t.Fatal(err)
	}
	for query, statement := range map[string]*driver.Stmt{"BEGIN IMMEDIATE": &b.begin, "COMMIT": &b.commit, `INSERT INTO payments (id, merchant_id, session_hash, status,
		amount, currency, reference, return_url, capture, captured, refunded, attempts, created_at, expires_at, updated_at)
		VALUES (?,?,?,?,?,?,?,?,'automatic',0,0,?,?,?,?)`: &b.insert} {
		if *statement, err = b.conn.Prepare(query); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// replay commits payments in groups of these sizes.
func (b *bare) replay(t testing.TB, sizes []int) time.Duration {
	t.Helper()
	begun := time.Now()
	for _, size := range sizes {
		if err := b.group(size); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(begun)
}

func (b *bare) group(size int) error {
	_, first := b.begin.(*sqlite3.SQLiteStmt).Exec(nil)
	err := first
	for range size {
		b.next++
		p := paymentOf(b.next)
		at := "2030-03-17T17:46:40.000000000Z"
		_, e := b.insert.(*sqlite3.SQLiteStmt).Exec([]driver.Value{p.ID, p.MerchantID, p.SessionHash, p.Status, p.Amount.Minor, string(p.Amount.Currency), p.Reference, p.ReturnURL, int64(0), at, at, at})
		err = errors.Join(err, e)
	}
	_, last := b.commit.(*sqlite3.SQLiteStmt).Exec(nil)
	return errors.Join(err, last)
}

// oneByOne returns the median times of a single change and of a bare commit, in microseconds, in turns of a hundred.
func oneByOne(t testing.TB, l *log, b *bare) (single, plain float64) {
	t.Helper()
	var singles, plains []float64
	for range 20 {
		for range 100 {
			singles = append(singles, micros(t, l.payment))
		}
		for range 100 {
			plains = append(plains, micros(t, func() error { return b.group(1) }))
		}
	}
	return median(singles), median(plains)
}

func micros(t testing.TB, operation func() error) float64 {
	t.Helper()
	begun := time.Now()
	if err := operation(); err != nil {
		t.Fatal(err)
	}
	return float64(time.Since(begun).Nanoseconds()) / 1000
}

// longLog measures proof and start with many entries.
func longLog(t testing.TB, signer *hsm.Signer) []figures.Figure {
	t.Helper()
	total := int64(1_000_000)
	if text := os.Getenv("BENCH_ENTRIES"); text != "" {
		var err error
		if total, err = strconv.ParseInt(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	l := openLog(t, dir, signer)
	begun := time.Now()
	for l.size(t) < total {
		l.fill(t, min(4096, total-l.size(t)))
	}
	filled := float64(total) / time.Since(begun).Seconds()
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	begun = time.Now()
	l = openLog(t, dir, signer)
	opened := float64(time.Since(begun).Microseconds()) / 1000
	var proofs []float64
	for n := range int64(1000) {
		proofs = append(proofs, micros(t, func() error {
			proven, err := l.EntriesOf(context.Background(), resource(n*7_919_003%total))
			if err == nil && len(proven) > 1 {
				err = fmt.Errorf("%d proofs", len(proven))
			}
			return err
		}))
	}
	slices.Sort(proofs)
	name := func(what string) string { return fmt.Sprintf("%d entries: %s", total, what) }
	return []figures.Figure{
		figures.Alone(name("written by one change after another"), filled, "entries/s", ""),
		figures.Alone(name("proof, p50"), proofs[len(proofs)/2], "µs", "<= 1000"),
		figures.Alone(name("proof, p99"), proofs[len(proofs)*99/100], "µs", ""),
		figures.Alone(name("start and first entry"), opened, "ms", "<= 2000"),
	}
}

func resource(n int64) string { return fmt.Sprintf("pay_%d", n) }

// fill records entries that cover nothing.
func (l *log) fill(t testing.TB, count int64) {
	t.Helper()
	from := l.size(t)
	if _, err := l.Commit(t.Context(), func(tx *ledger.Tx) error {
		for n := range count {
			tx.Record(ledger.Entry{Type: "payment.viewed", Actor: "key:fpk_1", Origin: "192.0.2.1", Outcome: ledger.Success, Resource: resource(from + n)})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
