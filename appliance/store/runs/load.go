package runs

import (
	"context"
	"fmt"
)

// Open reads the tree of a database: the runs' filters and first keys, and the tail.
func Open(ctx context.Context, sql SQL, cfg Config) (*Tree, error) {
	t := &Tree{cfg: cfg.withDefaults(), pending: newTable(), current: &view{}}
	known, err := t.loadRuns(ctx, sql)
	if err != nil {
		return nil, err
	}
	if err := t.loadChunks(ctx, sql, known); err != nil {
		return nil, err
	}
	if err := t.loadTail(ctx, sql); err != nil {
		return nil, err
	}
	return t, t.findFree(ctx, sql)
}

func (t *Tree) loadRuns(ctx context.Context, sql SQL) (map[int64]*run, error) {
	rows, err := sql.QueryContext(ctx, "SELECT id, level, records, through FROM token_runs ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	known := make(map[int64]*run)
	for rows.Next() {
		r := &run{}
		if err := rows.Scan(&r.id, &r.level, &r.records, &r.through); err != nil {
			return nil, err
		}
		known[r.id] = r
		t.current.runs = append(t.current.runs, r)
		t.lastRun, t.trimmed = max(t.lastRun, r.id), max(t.trimmed, r.through)
	}
	return known, rows.Err()
}

// loadChunks reads what is kept of the runs in memory. Chunks of no run are what a merge had made when the process
// ended, or inputs of one whose chunks were not deleted yet.
func (t *Tree) loadChunks(ctx context.Context, sql SQL, known map[int64]*run) error {
	rows, err := sql.QueryContext(ctx, "SELECT c.run, c.n, r.id IS NOT NULL, iif(r.id IS NULL, x'', c.pages), iif(r.id IS NULL, x'', c.filter) "+
		"FROM token_chunks c LEFT JOIN token_runs r ON r.id = c.run ORDER BY c.run, c.n")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var g garbage
		var live bool
		var index, f []byte
		if err := rows.Scan(&g.run, &g.chunk, &live, &index, &f); err != nil {
			return err
		}
		t.lastRun = max(t.lastRun, g.run)
		if !live {
			t.garbage = append(t.garbage, g)
			continue
		}
		c, err := parseChunk(index, f)
		if err != nil {
			return err
		}
		r := known[g.run]
		if g.chunk != len(r.chunks) {
			return fmt.Errorf("%w: a chunk of run %d is missing", ErrDamaged, r.id)
		}
		r.chunks = append(r.chunks, c)
	}
	for _, r := range known {
		if len(r.chunks) == 0 {
			return fmt.Errorf("%w: run %d has no chunks", ErrDamaged, r.id)
		}
	}
	return rows.Err()
}

func (t *Tree) loadTail(ctx context.Context, sql SQL) error {
	tail := newTable()
	t.segment, tail.through = t.trimmed, t.trimmed
	rows, err := sql.QueryContext(ctx, "SELECT seq, records FROM token_tail WHERE seq > ? ORDER BY seq", t.trimmed)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var segment []byte
		if err := rows.Scan(&t.segment, &segment); err != nil {
			return err
		}
		if err := tail.addAll(segment); err != nil {
			return fmt.Errorf("%w: tail segment %d", err, t.segment)
		}
		tail.through = t.segment
		if tail.len() >= t.cfg.TableRecords { // where the process before it had cut
			t.current.tables = append(t.current.tables, tail)
			tail = newTable()
			tail.through = t.segment
		}
	}
	t.current.tables = append(t.current.tables, tail)
	if err := rows.Err(); err != nil {
		return err
	}
	var first int64 // segments that runs hold already, and that were not deleted yet
	err = sql.QueryRowContext(ctx, "SELECT COALESCE(MIN(seq), 1) FROM token_tail").Scan(&first)
	t.trimmed = min(t.trimmed, first-1)
	return err
}

func (t *Tree) findFree(ctx context.Context, sql SQL) error {
	if err := sql.QueryRowContext(ctx, "SELECT COALESCE(MAX(id), 0) FROM token_pages").Scan(&t.top); err != nil {
		return err
	}
	used := make([]bool, t.top+1)
	for _, r := range t.current.runs {
		for _, slot := range r.slots() {
			if slot > t.top || used[slot] {
				return fmt.Errorf("%w: page %d is missing or has two owners", ErrDamaged, slot)
			}
			used[slot] = true
		}
	}
	for slot := uint32(1); slot <= t.top; slot++ {
		if !used[slot] {
			t.free = append(t.free, slot)
		}
	}
	return nil
}
