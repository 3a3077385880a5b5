package ledger

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// A log is followed between two groups: of those who write meanwhile nobody notices, and each entry is in one of the logs.
func TestALogIsFollowedWhileManyWrite(t *testing.T) {
	l := open(t, t.TempDir(), newKey(t))
	var next, done atomic.Int64
	if _, err := l.Commit(t.Context(), issue(0)); err != nil { // so that there is a checkpoint
		t.Fatal(err)
	}
	done.Add(1)
	var closing atomic.Bool
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for !closing.Load() {
				i := int(next.Add(1))
				if _, err := l.Commit(t.Context(), issue(i)); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
				_ = l.VerifierKey() + l.Origin()
				if _, err := l.Checkpoint(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for year := range 4 {
		for target := done.Load() + 50; done.Load() < target; {
			if _, err := l.Checkpoint(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if year == 3 { // and in the last one many have written too
			break
		}
		if err := l.Succeed(Succession{Origin: fmt.Sprintf("finpay.test/node/%d", 2027+year), Why: "the year is over"}); err != nil {
			t.Fatal(err)
		}
	}
	closing.Store(true)
	all.Wait()
	read := l.store.Read(t.Context())
	closed, err := read.ClosedLogs()
	if err != nil || len(closed) != 3 || l.Origin() != "finpay.test/node/2029" {
		t.Fatalf("%+v, %v, %s is open", closed, err, l.Origin())
	}
	total := int64(0)
	for n := range int64(4) {
		size, err := read.InLog(n).LedgerSize()
		if err != nil || size < 2 {
			t.Fatalf("log %d has %d entries, %v", n, size, err)
		}
		total += size
	}
	if total != done.Load()+3 {
		t.Errorf("%d entries of %d changes", total, done.Load())
	}
}
