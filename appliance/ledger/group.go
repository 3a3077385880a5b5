package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/store"
)

// group is the units of one transaction. Entries are written when the last unit has run: what a unit reads of the log is
// what was committed before it.
type group struct {
	*Ledger
	rows    *store.Tx
	head    tree
	entries []store.LedgerEntry
	nodes   []store.LedgerNode
	broken  error // a unit could not be undone
}

// attempt takes the units through one transaction. Where it fails, nothing was changed.
func (l *Ledger) attempt(units []*unit) (results []result, head tree, err error) {
	rows, err := l.store.Begin()
	if err != nil {
		return nil, head, unavailable(err)
	}
	failpoint.Here("commit: begun")
	committed := false
	defer func() {
		if !committed {
			err = errors.Join(err, rows.Rollback())
		}
	}()
	g := &group{Ledger: l, rows: rows, head: l.head.clone(), entries: make([]store.LedgerEntry, 0, len(units))}
	results = make([]result, len(units))
	for i, u := range units {
		results[i].receipt, results[i].err = g.apply(u)
		failpoint.Here("commit: a unit has run")
		if !rows.Open() {
			return nil, head, fmt.Errorf("%w: SQLite rolled the transaction back: %w", ErrUnavailable, results[i].err)
		}
		if g.broken != nil {
			return nil, head, fmt.Errorf("%w: a change could not be undone: %w", ErrUnavailable, g.broken)
		}
	}
	checkpoint, err := g.write()
	if err != nil {
		return nil, head, err
	}
	failpoint.Here("commit: before COMMIT")
	if err = rows.Commit(); err != nil {
		if !l.landed(rows, g.head.size, checkpoint) {
			return nil, head, unavailable(err)
		}
		if err = rows.Committed(); err != nil {
			return nil, head, err
		}
	}
	failpoint.Here("commit: after COMMIT")
	committed = true
	for i := range results {
		results[i].receipt.Size, results[i].receipt.Checkpoint = g.head.size, checkpoint
	}
	return results, g.head, nil
}

// apply runs one unit, as if in a savepoint of its own, and makes its entries.
func (g *group) apply(u *unit) (receipt Receipt, err error) {
	mark := g.rows.Mark()
	defer func() {
		if err != nil {
			if g.broken = g.rows.Rewind(mark); g.broken != nil {
				err = errors.Join(err, g.broken)
			}
		}
	}()
	tx := &Tx{Tx: g.rows}
	if err := protect(u.apply, tx); err != nil {
		return receipt, unavailable(err)
	}
	if g.rows.Uncovered() {
		return receipt, ErrUncovered
	}
	made, err := g.made(tx.entries)
	if err != nil {
		return receipt, unavailable(err)
	}
	failpoint.Here("commit: entries made")
	if err := g.rows.Keep(); err != nil {
		return receipt, err
	}
	for i, e := range made {
		g.push(e)
		receipt.Indexes = append(receipt.Indexes, tx.entries[i].Sequence)
		receipt.Leaves = append(receipt.Leaves, tlog.Hash(e.Leaf))
	}
	return receipt, nil
}

// protect turns a panic of a unit into its error: the committer serves everybody.
func protect(apply func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("ledger: a change panicked: %v", p)
		}
	}()
	return apply(tx)
}

// made returns a unit's entries as they will stand in the log, right behind those of the units before it.
func (g *group) made(entries []Entry) ([]store.LedgerEntry, error) {
	made := make([]store.LedgerEntry, len(entries))
	for i := range entries {
		e := &entries[i]
		e.Version, e.Sequence, e.Node = entryVersion, g.head.size+int64(i), g.cfg.Node
		e.Time = g.cfg.Now().UTC().Format(time.RFC3339Nano)
		record, err := e.appendRecord(make([]byte, 0, recordSize))
		if err != nil {
			return nil, err
		}
		leaf := sha256.Sum256(record)
		made[i] = store.LedgerEntry{Index: e.Sequence, Leaf: leaf[:], Entry: record[1:]}
	}
	return made, nil
}

// push appends an entry to the tree.
func (g *group) push(e store.LedgerEntry) {
	g.entries = append(g.entries, e)
	g.head.push(tlog.Hash(e.Leaf), func(level int, index int64, hash tlog.Hash) {
		g.nodes = append(g.nodes, store.LedgerNode{Level: level, Index: index, Hash: hash[:]})
	})
}

// write brings into the transaction what is not there yet, and last the checkpoint, signed. A group without entries has
// none.
func (g *group) write() (checkpoint []byte, err error) {
	if len(g.entries) == 0 {
		return nil, nil
	}
	if err := g.writeEntries(); err != nil {
		return nil, unavailable(err)
	}
	failpoint.Here("commit: entries written")
	if checkpoint, err = g.sign(g.head); err != nil {
		return nil, fmt.Errorf("%w: sign checkpoint: %w", ErrUnavailable, err)
	}
	failpoint.Here("commit: signed")
	if err := g.rows.PutLedgerCheckpoint(g.head.size, checkpoint); err != nil {
		return nil, unavailable(err)
	}
	return checkpoint, nil
}

func (g *group) writeEntries() error {
	if err := g.rows.Flush(); err != nil {
		return err
	}
	failpoint.Here("commit: registry written")
	for _, e := range g.entries {
		if err := g.rows.PutLedgerEntry(e); err != nil {
			return err
		}
		failpoint.Here("commit: an entry written")
	}
	for _, n := range g.nodes {
		if err := g.rows.PutLedgerNode(n); err != nil {
			return err
		}
	}
	return nil
}

// landed finds out whether a COMMIT that reported an error has happened all the same: signing another tree of the
// same size would be a fork.
func (l *Ledger) landed(rows *store.Tx, size int64, checkpoint []byte) bool {
	if checkpoint == nil || rows.Open() {
		return false
	}
	got, note, err := rows.LedgerCheckpoint()
	return err == nil && got == size && string(note) == string(checkpoint)
}

// unavailable marks what went wrong between the units and the disk: nothing of the group was changed.
func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }
