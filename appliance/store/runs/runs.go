// Package runs is a log-structured merge tree inside SQLite: a set of immutable records, found by key, that takes random keys
// as fast as ascending ones however many it holds.
//
// The records of a transaction are appended as one segment of the tail, and kept in a table in memory. A full table is
// written as a sorted run of pages; runs of one size are merged into one of the next. This happens in slices, each
// in a transaction that adds records anyway and in proportion to what it adds, so that no commit waits for a whole merge.
// Pages are overwritten in place: what a merge leaves behind is where the next one writes.
//
// Only the pages' first keys and a filter of each run are in memory, about two bytes a record.
//
// # What is promised
//
//   - What a transaction adds is there for readers after its COMMIT, all of it, and never before.
//   - A reader misses no committed record while pages move: pages stay until no reader's view has them.
//   - A process may end at any point. The tables agree at each commit, and [Open] needs nothing else.
//
// # What is not
//
// A key must be added once: [Writer.Add] does not look whether it is there. A key may be up to 64 KiB long, but pages
// are made for short ones.
//
// The tables token_tail, token_pages, token_chunks and token_runs move records and change none.
package runs

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// ErrDamaged means that the tables do not agree with each other.
var ErrDamaged = errors.New("runs: the registry's pages are damaged")

// SQL is a connection, or a pool of them.
type SQL interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// WritingSQL is the connection of a transaction.
type WritingSQL interface {
	SQL
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Config are a tree's thresholds. The zero value of a field means its default.
type Config struct {
	TableRecords int // records in memory before they become a run; 65,536
	FanIn        int // runs of one size that are merged into one; 8
	ChunkRecords int // records under one filter; 16,384
	PageBytes    int // of a page; 4,000, which with SQLite's header fills one of its pages
	FilterBits   int // a key; 16, which lets one foreign key in 500 pass
	SliceRecords int // moved with each commit, beside twice what it adds; 64
}

func (c Config) withDefaults() Config {
	for field, value := range map[*int]int{&c.TableRecords: 1 << 16, &c.FanIn: 8, &c.ChunkRecords: 1 << 14, &c.PageBytes: 4000, &c.FilterBits: 16, &c.SliceRecords: 64} {
		if *field == 0 {
			*field = value
		}
	}
	return c
}

// Tree is an open tree. Readers are safe for concurrent use; there is one [Writer].
type Tree struct {
	cfg Config

	mu      sync.RWMutex
	current *view
	old     []*view // older views, oldest first, that readers may still use

	// Of the writer alone:
	pending  *table // added in the open transaction
	segment  int64  // last tail segment
	jobs     []*job
	finished []*job    // in the open transaction
	free     []uint32  // slots that nobody uses
	top      uint32    // the highest slot there is
	lastRun  int64     // the highest run id there is
	garbage  []garbage // chunks of runs that are no more
	trimmed  int64     // tail segments up to this one are deleted
	moved    bool      // by the open transaction, or by a failed one since which the tree was not read again
}

// view is what the tree consists of between two commits that change its parts.
type view struct {
	tables  []*table // the last one still grows
	runs    []*run
	readers int
	dead    []uint32 // slots that only this view and older ones use
}

type garbage struct {
	run   int64
	chunk int
}

func (t *Tree) acquire() *view {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current.readers++
	return t.current
}

func (t *Tree) release(v *view) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v.readers--
}

// reclaim collects the slots of views that nobody uses any more, in order: a page that a newer view has dropped may be
// in all older ones.
func (t *Tree) reclaim() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.old) > 0 && t.old[0].readers == 0 {
		t.free = append(t.free, t.old[0].dead...)
		t.old = t.old[1:]
	}
}

// Reader returns the committed records, read over a connection outside the writer's transaction.
func (t *Tree) Reader(sql SQL) Reader { return Reader{tree: t, sql: sql} }

// Writer returns the writer. sql is the connection of its transaction.
func (t *Tree) Writer(sql WritingSQL) Writer {
	return Writer{Reader{tree: t, sql: sql, writer: true}, sql}
}

// Writer adds records within a transaction that its caller opens and ends: by BEGIN and [Writer.Begin], and
// then by [Writer.Flush], COMMIT and [Writer.Committed], or by [Writer.RolledBack].
type Writer struct {
	Reader
	writing WritingSQL
}

// Add adds a record, whose key must not be there.
func (w Writer) Add(key, value []byte) { w.tree.pending.add(key, value) }

// Mark returns how many records the transaction has added.
func (w Writer) Mark() int { return w.tree.pending.len() }

// Rewind forgets what was added since a mark.
func (w Writer) Rewind(mark int) { w.tree.pending.truncate(mark) }

// Flush writes what the transaction has added and moves older records on. It comes right before COMMIT.
func (w Writer) Flush(ctx context.Context) error {
	t := w.tree
	if t.pending.len() == 0 {
		return nil
	}
	t.moved = true
	t.segment++
	if _, err := w.writing.ExecContext(ctx, "INSERT INTO token_tail (seq, records) VALUES (?,?)", t.segment, t.pending.arena); err != nil {
		return err
	}
	t.reclaim()
	return w.work(ctx, t.cfg.SliceRecords+2*t.pending.len())
}

// Committed makes what the transaction has added visible to readers.
func (w Writer) Committed() error {
	t := w.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moved = false
	if t.pending.len() == 0 {
		return nil
	}
	active := t.current.tables[len(t.current.tables)-1]
	if err := active.addAll(t.pending.arena); err != nil {
		return err
	}
	active.through = t.segment
	t.pending = newTable()
	full := active.len() >= t.cfg.TableRecords
	if !full && len(t.finished) == 0 {
		return nil
	}
	t.publish(full)
	return nil
}

// publish replaces the view by one in which the finished jobs' results stand for their inputs.
func (t *Tree) publish(full bool) {
	old, v := t.current, &view{}
	gone := make(map[any]bool)
	for _, j := range t.finished {
		for _, r := range j.inputs {
			gone[r] = true
			old.dead = append(old.dead, r.slots()...)
			for n := range r.chunks {
				t.garbage = append(t.garbage, garbage{r.id, n})
			}
		}
		if j.table != nil {
			gone[j.table] = true
		}
		v.runs = append(v.runs, j.out)
	}
	for _, r := range old.runs {
		if !gone[r] {
			v.runs = append(v.runs, r)
		}
	}
	for _, table := range old.tables {
		if !gone[table] {
			v.tables = append(v.tables, table)
		}
	}
	if full {
		last := v.tables[len(v.tables)-1]
		last.background = make(chan struct{})
		go func() { // while the next table fills
			last.sorted()
			close(last.background)
		}()
		v.tables = append(v.tables, newTable())
	}
	t.old, t.current, t.finished = append(t.old, old), v, nil
}

// RolledBack forgets what the transaction has added. Where it had begun to move records the tree is read again: the tables
// know what became of a COMMIT that failed. If that fails too, [Writer.Begin] does it.
func (w Writer) RolledBack(ctx context.Context) error {
	w.tree.pending = newTable()
	return w.Begin(ctx)
}

// Begin readies the tree for a transaction. It comes right after BEGIN.
func (w Writer) Begin(ctx context.Context) error {
	t := w.tree
	if !t.moved {
		return nil
	}
	fresh, err := Open(ctx, w.sql, t.cfg)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.adopt(fresh)
	return nil
}

// adopt takes another tree's state. Readers' views go on: their pages are in use as long as a view is.
func (t *Tree) adopt(fresh *Tree) {
	t.old, t.current = append(t.old, t.current), fresh.current
	used := make(map[uint32]bool)
	for _, v := range t.old {
		for _, slot := range v.dead {
			used[slot] = true
		}
		for _, r := range v.runs {
			for _, slot := range r.slots() {
				used[slot] = true
			}
		}
	}
	t.free = t.free[:0]
	for _, slot := range fresh.free {
		if !used[slot] {
			t.free = append(t.free, slot)
		}
	}
	t.pending, t.segment, t.jobs, t.finished = fresh.pending, fresh.segment, nil, nil
	t.top, t.lastRun, t.garbage, t.trimmed, t.moved = fresh.top, fresh.lastRun, fresh.garbage, fresh.trimmed, false
}

// Stats says what a tree consists of.
type Stats struct {
	Runs        int
	Tables      int // in memory
	MemoryBytes int // of tables, filters and first keys
}

// Stats returns what the tree consists of now.
func (t *Tree) Stats() Stats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := Stats{Runs: len(t.current.runs), Tables: len(t.current.tables)}
	for _, table := range t.current.tables {
		table.sorting.Lock()
		s.MemoryBytes += cap(table.arena) + 4*cap(table.offsets) + 4*cap(table.slots) + 4*cap(table.order)
		table.sorting.Unlock()
	}
	for _, r := range t.current.runs {
		for _, c := range r.chunks {
			s.MemoryBytes += len(c.filter) + cap(c.keys) + 4*cap(c.ends) + 4*cap(c.slots)
		}
	}
	return s
}
