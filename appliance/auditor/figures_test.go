//go:build bench

package auditor

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store/postings"
	"github.com/finterra/finpay/softhsm-test/figures"
)

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// TestFigures is what `make bench` runs: what the index costs those who commit, and how long a search takes in a long log.
// BENCH_ENTRIES says how long.
func TestFigures(t *testing.T) {
	list := commits(t)
	figures.Report(t, append(list, searches(t)...)...)
}

// commits measures 64 writers with the index beside them, and without.
func commits(t *testing.T) []figures.Figure {
	const writers, share, rounds = 64, 32_000, 5
	b := newBench(t)
	round := func() float64 {
		began := time.Now()
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				for i := range share / writers {
					if err := b.record(t.Context(), payment("payment.captured", fmt.Sprintf("pay_%d_%d", w, i), ledger.Success, "411111******1111")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		return share / time.Since(began).Seconds()
	}
	var with, without []float64
	for range rounds {
		without = append(without, round())
		stop := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			tick := time.NewTicker(indexEvery)
			defer tick.Stop()
			for {
				if _, err := b.catchUp(t.Context(), indexRest); err != nil {
					t.Error(err)
				}
				select {
				case <-tick.C:
				case <-stop:
					return
				}
			}
		}()
		with = append(with, round())
		close(stop)
		<-ended
	}
	return []figures.Figure{figures.Against("64 writers while their entries are indexed, to the same without", median(with), median(without), "entries/s", ">= 0.8")}
}

// searches measures an index of many entries, of which the log itself need not be there.
func searches(t *testing.T) []figures.Figure {
	size := int64(1_000_000)
	if n, err := strconv.ParseInt(os.Getenv("BENCH_ENTRIES"), 10, 64); err == nil {
		size = n
	}
	x, err := postings.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	began := time.Now()
	for from := int64(0); from < size; from += indexBatch {
		batch := make([]postings.Entry, min(indexBatch, size-from))
		for i := range batch {
			n := from + int64(i)
			e := indexed{Type: []string{"payment.created", "payment.card_entered", "payment.authorizing", "payment.captured"}[n%4], Actor: "system",
				Resource: fmt.Sprintf("pay_%d", n/4), Outcome: ledger.Success}
			e.Data.Card = fmt.Sprintf("411111******%04d", n/4%10_000)
			if n%1000 == 7 {
				e.Outcome = ledger.Failure
			}
			batch[i] = postings.Entry{Index: n, Leaf: []byte{1}, At: begin.Add(time.Duration(n) * time.Millisecond), Terms: e.terms()}
		}
		if err := x.Add(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	list := []figures.Figure{figures.Alone(fmt.Sprintf("index of %d entries: made", size), float64(size)/time.Since(began).Seconds(), "entries/s", ">= 20000")}
	for _, c := range []struct {
		name string
		q    api.AuditQuery
	}{
		{"one payment", api.AuditQuery{Resource: fmt.Sprintf("pay_%d", size/8)}}, {"one card's captures", api.AuditQuery{Card: "411111******0042", Type: "payment.captured"}},
		{"failures of a type", api.AuditQuery{Type: "payment.captured", Outcome: ledger.Failure}}, {"two frequent terms that never meet", api.AuditQuery{Type: "payment.created", Outcome: ledger.Failure}},
	} {
		list = append(list, figures.Alone("the same: "+c.name+", p50", search(t, x, size, c.q), "ms", "<= 100"))
	}
	return list
}

func search(t *testing.T, x *postings.Index, size int64, q api.AuditQuery) float64 {
	var times []float64
	for range 21 {
		began := time.Now()
		if _, _, err := x.Find(t.Context(), matcher{q}.terms(), postings.Scan{End: size, NewestFirst: true, Look: maxLooked, Limit: 20}); err != nil {
			t.Fatal(err)
		}
		times = append(times, float64(time.Since(began).Microseconds())/1000)
	}
	return median(times)
}
