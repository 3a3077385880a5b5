package ledger

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/store"
)

// together commits units as one group and returns what each was answered.
func together(t *testing.T, l *Ledger, changes ...func(*Tx) error) []result {
	t.Helper()
	running, gate := make(chan struct{}), make(chan struct{})
	var holder sync.WaitGroup
	holder.Go(func() { // holds the committer, so that the others form one group
		_, _ = l.Commit(t.Context(), func(*Tx) error { close(running); <-gate; return nil })
	})
	<-running
	units := make([]*unit, len(changes))
	for i, change := range changes {
		units[i] = &unit{result: make(chan result, 1), apply: change}
		l.queue <- units[i]
	}
	close(gate)
	holder.Wait()
	results := make([]result, len(units))
	for i, u := range units {
		results[i] = <-u.result
	}
	return results
}

// pay writes a row of SQLite and records several entries about it.
func pay(n, entries int, end error) func(*Tx) error {
	return func(tx *Tx) error {
		id := fmt.Sprintf("mer_%d", n)
		if err := tx.PutMerchant(store.Merchant{ID: id}); err != nil {
			return err
		}
		for range entries {
			tx.Record(Entry{Type: "merchant.created", Actor: "system", Origin: "local", Outcome: Success, Resource: id})
		}
		return end
	}
}

// Units that fail before, between and behind others leave neither rows nor entries, wherever these are kept until the end of
// the group, and the others' entries stand without a gap.
func TestEntriesOfAGroupHaveNoGaps(t *testing.T) {
	l := open(t, t.TempDir(), newKey(t))
	sour := errors.New("sour")
	too := func(tx *Tx) error { // too long to be an entry, which shows only when the unit has run
		tx.Record(Entry{Type: "t", Resource: "fits"})
		tx.Record(Entry{Type: "t", Resource: string(make([]byte, maxEntry))})
		return tx.PutCustomer("nobody", store.Customer{})
	}
	results := together(t, l, pay(0, 1, sour), pay(1, 3, nil), issue(2), pay(3, 2, sour), pay(4, 1, nil), too, func(*Tx) error { panic("a bug") }, issue(7), issue(2), pay(9, 300, nil))
	var indexes []int64
	for i, r := range results {
		fails := i == 0 || i == 3 || i == 5 || i == 6
		if (r.err != nil) != fails || (len(r.receipt.Indexes) > 0) == fails {
			t.Errorf("unit %d: %v, %v", i, r.receipt.Indexes, r.err)
		}
		indexes = append(indexes, r.receipt.Indexes...)
	}
	read := l.store.Read(t.Context())
	entries, err := read.LedgerEntries(0, 1000)
	if err != nil || len(entries) != 307 || len(indexes) != 307 || !slices.IsSorted(indexes) || indexes[306] != 306 {
		t.Fatalf("%d entries, %d indexes: %v", len(entries), len(indexes), err)
	}
	for n, there := range map[int]bool{0: false, 1: true, 3: false, 4: true, 9: true} {
		if _, err := read.Merchant(fmt.Sprintf("mer_%d", n)); (err == nil) != there {
			t.Errorf("row of unit %d: %v", n, err)
		}
	}
	proven, err := l.EntriesOf(t.Context(), "mer_9")
	if err != nil || len(proven) != 300 {
		t.Fatalf("%d proofs: %v", len(proven), err)
	}
	for _, p := range proven {
		if err := logproof.Verify(p.Index, p.Entry, p.Proof, origin, l.VerifierKey()); err != nil {
			t.Fatal(err)
		}
	}
}

// Where a unit that failed cannot be undone, its neighbours must not be committed with what it left.
func TestAUnitThatCannotBeUndoneSinksItsGroup(t *testing.T) {
	l := open(t, t.TempDir(), newKey(t))
	results := together(t, l, issue(1), func(tx *Tx) error {
		return errors.Join(pay(2, 1, nil)(tx), tx.Exec("RELEASE unit"), errors.New("sour"))
	}, issue(3))
	for i, r := range results {
		if !errors.Is(r.err, ErrUnavailable) {
			t.Errorf("unit %d: %v", i, r.err)
		}
	}
	if size, err := l.store.Read(t.Context()).LedgerSize(); err != nil || size != 0 {
		t.Errorf("%d entries: %v", size, err)
	}
	if _, err := l.Commit(t.Context(), issue(1)); err != nil {
		t.Errorf("the group after it: %v", err)
	}
}

// What a unit writes is its neighbours' to read, whether it is in SQLite yet or not.
func TestAUnitReadsWhatItsNeighboursWrote(t *testing.T) {
	l := open(t, t.TempDir(), newKey(t))
	results := together(t, l, issue(1), pay(2, 1, nil), issue(3), func(tx *Tx) error {
		n, err := tx.CountTokensOfVersion(1)
		if err != nil || n != 2 {
			return fmt.Errorf("%d tokens: %w", n, err)
		}
		_, first := tx.Token("d", token(1).Token)
		return first
	})
	for i, r := range results {
		if r.err != nil {
			t.Errorf("unit %d: %v", i, r.err)
		}
	}
}
