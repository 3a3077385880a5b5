//go:build bench

// Package registry measures the registry of tokens through the ledger's commits.
package registry

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/softhsm-test/figures"
)

const (
	batchSize = 4096
	plainRows = 500_000 // the plain table is measured to here: it only becomes slower
)

// BENCH_TOKENS says how far the registry is filled.
func target(t testing.TB) int {
	text := os.Getenv("BENCH_TOKENS")
	if text == "" {
		return 1_000_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFigures(t *testing.T) {
	dir := t.TempDir()
	l, s := open(t, dir)
	total := target(t)
	list := make([]figures.Figure, 0, 16)
	source := mathrand.New(mathrand.NewPCG(1, 2))
	plain := plainRate(t, mathrand.New(mathrand.NewPCG(5, 6)))
	single := singles(t, l)
	mark, begun, cpu := 0, time.Now(), processTime(t)
	for n := 0; n < total; {
		putBatch(t, l, batch(source))
		n += batchSize
		if point := nextPoint(mark, total); n >= point {
			took, used := time.Since(begun), processTime(t)-cpu
			name := fmt.Sprintf("registry rows/s, %d to %d", mark, point)
			list = append(list, figures.Against(name, float64(n-mark)/took.Seconds(), plain, "rows/s", ">= 2"),
				figures.Alone(fmt.Sprintf("registry CPU a row, %d to %d", mark, point), float64(used.Nanoseconds())/float64(n-mark)/1000, "µs", ""))
			mark, begun, cpu = n, time.Now(), processTime(t)
		}
	}
	latencies := single()
	alone := oneByOne(t, l, source)
	stats := s.TokenStats()
	list = append(list, figures.Alone("registry in memory", float64(stats.MemoryBytes)/(1<<20), "MiB", "<= 40"),
		figures.Alone("runs", float64(stats.Runs), "", ""),
		figures.Alone("process resident", resident(t), "MiB", ""),
		figures.Alone("database a row", size(t, dir)/float64(total), "bytes", ""),
		figures.Alone("look-up of a foreign token", lookUp(t, s, func() string { return fmt.Sprintf("8%015d", source.Int64N(1e15)) }), "µs", ""),
		figures.Alone("look-up of an issued token", lookUp(t, s, issued(total)), "µs", ""),
		figures.Alone("open", opening(t, l, s, dir), "ms", ""))
	list = append(list, figures.Alone("single commit under load, p50", percentile(latencies, 50), "ms", ""),
		figures.Alone("single commit under load, p99", percentile(latencies, 99), "ms", ""),
		figures.Alone("single commit while merges go on, p50", percentile(alone, 50), "ms", ""),
		figures.Alone("single commit while merges go on, p99", percentile(alone, 99), "ms", ""))
	figures.Report(t, list...)
}

// nextPoint returns where the curve's next point is.
func nextPoint(from, total int) int {
	for _, point := range []int{1_000_000, 2_000_000, 5_000_000, 10_000_000} {
		if point > from+batchSize && point < total {
			return point
		}
	}
	return total
}

type softKey struct{ *ecdsa.PrivateKey }

func open(t testing.TB, dir string) (*ledger.Ledger, *store.Store) {
	t.Helper()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var signer crypto.Signer = softKey{private}
	l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: "finpay.test/bench/2030", Node: "bench", Signer: signer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		_ = s.Close()
	})
	return l, s
}

var now = time.Now()

func row(token string) store.Token {
	return store.Token{Domain: "shop", Token: pci.Token(token), Format: pci.TokenLast4, KeyVersion: 1, Status: store.TokenActive, CreatedAt: now,
		Card: pci.Card{Brand: pci.Visa, Truncated: pci.Truncated("411111******" + token[12:]), Expiry: pci.Expiry{Year: 2031, Month: 5}}}
}

func batch(source *mathrand.Rand) []store.Token {
	rows := make([]store.Token, batchSize)
	for i := range rows {
		rows[i] = row(fmt.Sprintf("9%015d", source.Int64N(1e15)))
	}
	return rows
}

func putBatch(t testing.TB, l *ledger.Ledger, rows []store.Token) {
	t.Helper()
	_, err := l.Commit(context.Background(), func(tx *ledger.Tx) error {
		_, _, _, err := tx.PutTokens(rows)
		tx.Record(ledger.Entry{Type: "token.issued", Actor: "bench", Origin: "local", Outcome: ledger.Success, Resource: "batch"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// singles commits one token at a time beside the bulk load; the function it returns ends that and gives the times in ms.
func singles(t testing.TB, l *ledger.Ledger) func() []float64 {
	stop, done := make(chan struct{}), make(chan []float64)
	go func() {
		source := mathrand.New(mathrand.NewPCG(3, 4))
		var times []float64
		defer func() { done <- times }()
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			begun := time.Now()
			if err := putOne(l, source); err != nil {
				t.Error(err)
				return
			}
			times = append(times, float64(time.Since(begun).Microseconds())/1000)
		}
	}()
	return func() []float64 {
		close(stop)
		return <-done
	}
}

func putOne(l *ledger.Ledger, source *mathrand.Rand) error {
	_, err := l.Commit(context.Background(), func(tx *ledger.Tx) error {
		err := tx.PutToken(row(fmt.Sprintf("9%015d", source.Int64N(1e15))))
		tx.Record(ledger.Entry{Type: "token.issued", Actor: "bench", Origin: "local", Outcome: ledger.Success, Resource: "one"})
		return err
	})
	return err
}

// oneByOne commits single tokens right after the bulk load, whose merges they carry on.
func oneByOne(t testing.TB, l *ledger.Ledger, source *mathrand.Rand) []float64 {
	t.Helper()
	times := make([]float64, 2000)
	for i := range times {
		begun := time.Now()
		if err := putOne(l, source); err != nil {
			t.Fatal(err)
		}
		times[i] = float64(time.Since(begun).Microseconds()) / 1000
	}
	return times
}

// plainRate is what a table with two unique indexes takes in the same batches, without a ledger.
func plainRate(t testing.TB, source *mathrand.Rand) float64 {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(t.TempDir(), "plain.db")+"?_journal_mode=WAL&_synchronous=FULL&_secure_delete=true")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(`CREATE TABLE tokens (domain TEXT, token TEXT, format TEXT, key_version INTEGER, brand TEXT, truncated TEXT, expiry TEXT, status TEXT,
		created_at TEXT, fingerprint BLOB, PRIMARY KEY (domain, token), UNIQUE (domain, fingerprint)) STRICT`); err != nil {
		t.Fatal(err)
	}
	var begun time.Time
	for n := 0; n < plainRows; n += batchSize {
		if n >= plainRows/2 && begun.IsZero() {
			begun = time.Now()
		}
		putPlain(t, db, batch(source), source)
	}
	return plainRows / 2 / time.Since(begun).Seconds()
}

func putPlain(t testing.TB, db *sql.DB, rows []store.Token, source *mathrand.Rand) {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	insert, err := tx.Prepare("INSERT INTO tokens VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		fingerprint := []byte(fmt.Sprintf("%016x", source.Uint64()))
		if _, err := insert.Exec(r.Domain, r.Token, r.Format, r.KeyVersion, r.Card.Brand, r.Card.Truncated, r.Card.Expiry.String(), r.Status, "2030-01-01T00:00:00Z", fingerprint); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// issued gives tokens from everywhere in the load: its source begins again.
func issued(total int) func() string {
	source, skip := mathrand.New(mathrand.NewPCG(1, 2)), total/4000
	return func() string {
		for range skip {
			source.Int64N(1e15)
		}
		return fmt.Sprintf("9%015d", source.Int64N(1e15))
	}
}

// lookUp is the time of one look-up, outside a transaction.
func lookUp(t testing.TB, s *store.Store, token func() string) float64 {
	t.Helper()
	const times = 2000
	tokens := make([]pci.Token, times)
	for i := range tokens {
		tokens[i] = pci.Token(token())
	}
	begun := time.Now()
	for _, token := range tokens {
		if _, err := s.Read(t.Context()).Token("shop", token); err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
	}
	return float64(time.Since(begun).Microseconds()) / times
}

// opening is how long a start takes, with the tail and all filters.
func opening(t testing.TB, l *ledger.Ledger, s *store.Store, dir string) float64 {
	t.Helper()
	l.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	again, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	return float64(took.Microseconds()) / 1000
}

func processTime(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func resident(t testing.TB) float64 {
	t.Helper()
	runtime.GC()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

func size(t testing.TB, dir string) float64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	return float64(info.Size())
}

func percentile(values []float64, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[(len(values)-1)*p/100]
}
