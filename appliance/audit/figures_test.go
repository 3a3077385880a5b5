//go:build bench

package audit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/appliance/bundle"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/softhsm-test/figures"
)

// TestFigures is what `make bench` runs: one core verifies a log that was written in groups of 64, with entries as long as
// those of a payment. What the same core hashes is the baseline: leaves and nodes, nothing else.
func TestFigures(t *testing.T) {
	const entries, group = 128_000, 64
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	dir, vkey := payments(t, entries, group)
	text := export(t, dir, bundle.Part{Key: vkey})
	path := filepath.Join(t.TempDir(), "bundle.zip")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var rates [3][]float64
	for range 5 {
		rates[0] = append(rates[0], rate(t, entries, func() (Verdict, error) {
			return Verify(t.Context(), Bundle{bytes.NewReader(text)}, Terms{Key: vkey})
		}))
		rates[1] = append(rates[1], rate(t, entries, func() (Verdict, error) { return Verify(t.Context(), Database{Store: s}, Terms{Key: vkey}) }))
		rates[2] = append(rates[2], rate(t, entries, func() (Verdict, error) { return hashed(text, entries), nil }))
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	probe := &probe{file: file, length: len(text)}
	text = nil // what is live is what verifying needs
	if v, err := Verify(t.Context(), Bundle{probe}, Terms{Key: vkey}); err != nil || !v.OK {
		t.Fatalf("%+v, %v", v, err)
	}
	figures.Report(t,
		figures.Alone("verify a bundle, groups of 64, one core", median(rates[0]), "entries/s", ">= 200000"),
		figures.Against("the same, to hashing leaves and nodes alone", median(rates[0]), median(rates[2]), "entries/s", ""),
		figures.Alone("verify a state directory, groups of 64, one core", median(rates[1]), "entries/s", ""),
		figures.Against("live heap near the end of a bundle of 128,000 entries, to that after 1,280", probe.last, probe.first, "MiB", "<= 1.1"),
	)
}

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// probe is a bundle that looks at the heap, early on and near its end, while it is read.
type probe struct {
	file        *os.File
	length, at  int
	first, last float64 // MiB
}

func (p *probe) Read(b []byte) (int, error) {
	n, err := p.file.Read(b)
	p.at += n
	switch done := float64(p.at) / float64(p.length); {
	case p.first == 0 && done > 0.01:
		p.first = live()
	case p.last == 0 && done > 0.97:
		p.last = live()
	}
	return n, err
}

func live() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

func rate(t *testing.T, entries int64, verify func() (Verdict, error)) float64 {
	t.Helper()
	begun := time.Now()
	v, err := verify()
	took := time.Since(begun)
	if err != nil || !v.OK || v.Entries != entries {
		t.Fatalf("%+v, %v", v, err)
	}
	return float64(entries) / took.Seconds()
}

// hashed computes the tree of as many bytes.
func hashed(text []byte, entries int64) Verdict {
	var e edge
	var room []byte
	length := len(text) / int(entries)
	for i := range int(entries) {
		e.push(leafHash(text[i*length:(i+1)*length], &room))
	}
	return Verdict{OK: e.root() != digest{}, Entries: entries}
}

// payments writes a log of entries like that of a sale.
func payments(t *testing.T, entries, group int) (dir, vkey string) {
	t.Helper()
	dir = t.TempDir()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: origin, Node: "finpay-1", Signer: newKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	for from := 0; from < entries; from += group {
		if _, err := l.Commit(t.Context(), func(tx *ledger.Tx) error {
			for i := range group {
				id := fmt.Sprintf("pay_01JGHW3Y8S4ZQK6V2N%08d", from+i)
				tx.Record(ledger.Entry{Type: "payment.authorizing", Actor: "shopper", Origin: strings.Repeat("5f", 16), Outcome: ledger.Success, Resource: id,
					Rows: map[string]string{"attempts/" + id + "/1": strings.Repeat("a7", 32)},
					Data: map[string]any{"amount": 1250, "currency": "EUR", "card": "411111******1111", "token": "9688077933731111", "stan": "000123", "rrn": "633000000123"}})
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, l.VerifierKey()
}
