package ledger

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/store"
)

// withRoom runs f while files may grow to so many bytes: a write beyond fails, as on a full disk.
func withRoom(t *testing.T, bytes int64, f func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(bytes), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	f()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
}

// Wherever in a group the disk is full, what was acknowledged is there afterwards, and nothing else is.
func TestADiskThatFillsUpInsideAUnitLosesNothingThatWasAcknowledged(t *testing.T) {
	dir, k := t.TempDir(), newKey(t)
	l := open(t, dir, k)
	var next atomic.Int64
	var mu sync.Mutex
	answers := make(map[int]error)
	write := func(each int) {
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				for range each {
					i := int(next.Add(1))
					_, err := l.Commit(t.Context(), issue(i))
					mu.Lock()
					answers[i] = err
					mu.Unlock()
				}
			})
		}
		writers.Wait()
	}
	for round := range 12 {
		wal, err := os.Stat(filepath.Join(dir, store.FileName+"-wal"))
		if err != nil {
			t.Fatal(err)
		}
		withRoom(t, wal.Size()+int64(round)*9_001, func() { write(6) })
		write(2)
	}
	failed := 0
	read := l.store.Read(t.Context())
	for i, answer := range answers {
		_, err := read.Token("d", token(i).Token)
		entries, entryErr := read.LedgerEntriesOf(fmt.Sprintf("tok_%d", i))
		if entryErr != nil || (err == nil) != (answer == nil) || (len(entries) == 1) != (answer == nil) {
			t.Errorf("change %d: answered %v; its row: %v; %d entries, %v", i, answer, err, len(entries), entryErr)
		}
		if answer != nil {
			failed++
			if !errors.Is(answer, ErrUnavailable) {
				t.Errorf("change %d: %v, want ErrUnavailable", i, answer)
			}
		}
	}
	if failed == 0 || failed == len(answers) {
		t.Errorf("%d of %d changes failed", failed, len(answers))
	}
	l.Close()
	_ = l.store.Close()
	open(t, dir, k) // its head is that of its entries
}

// Times are those of a clock, and no order depends on them.
func TestAClockThatGoesBackwardsChangesNothingButTimes(t *testing.T) {
	dir, k := t.TempDir(), newKey(t)
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 12, 31, 23, 0, 0, 0, time.UTC)
	l, err := Open(t.Context(), s, Config{Origin: origin, Node: "node", Signer: k, Now: func() time.Time { now = now.Add(-time.Hour); return now }})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		receipt, err := l.Commit(t.Context(), issue(i))
		if err != nil || receipt.Indexes[0] != int64(i) {
			t.Fatalf("change %d: %+v, %v", i, receipt, err)
		}
	}
	for _, i := range []int{0, 150, 299} {
		proven, err := l.EntriesOf(t.Context(), fmt.Sprintf("tok_%d", i))
		if err != nil || len(proven) != 1 {
			t.Fatalf("%d entries: %v", len(proven), err)
		}
		if err := logproof.Verify(int64(i), proven[0].Entry, proven[0].Proof, origin, l.VerifierKey()); err != nil {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	_, head, err := s.Read(t.Context()).LedgerCheckpoint()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := opens(t, dir, k, head); err != nil {
		t.Error(err)
	}
}
