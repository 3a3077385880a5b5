package runs

import (
	"bytes"
	"context"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// tailDeletes bounds the tail segments that one commit deletes: more than one commit adds.
const tailDeletes = 2

// job makes one run, in slices: of a full table, or of the runs of one level. Jobs of different levels go on side by
// side, each at twice the pace at which records come, so that a level's inputs are merged before as many stand there again.
type job struct {
	inputs []*run
	table  *table
	out    *run
	from   merger

	page     []byte
	first    []byte // key of the page under construction
	previous []byte
	hashes   []uint64 // of the chunk under construction
	chunk    *chunk
}

// work lets each job move some records, begins the jobs that are due and clears away a part of what is left over.
func (w Writer) work(ctx context.Context, records int) error {
	t := w.tree
	t.begin(w.sql)
	for _, j := range t.jobs {
		done, err := w.advance(ctx, j, records)
		if err != nil {
			return err
		}
		if done {
			if err := w.finish(ctx, j); err != nil {
				return err
			}
		}
	}
	t.jobs = slices.DeleteFunc(t.jobs, func(j *job) bool { return slices.Contains(t.finished, j) })
	return w.clear(ctx, 1+records/t.cfg.ChunkRecords)
}

// begin starts the flush of the oldest full table, and the merge of each level that has enough runs, where none is under way.
func (t *Tree) begin(sql SQL) {
	active := make(map[int]bool) // by the level that is made
	for _, j := range t.jobs {
		active[j.out.level] = true
	}
	if full := t.current.tables[0]; len(t.current.tables) > 1 && !active[0] && (full.isSorted() || len(t.current.tables) > 2) {
		s := full.sorted()
		t.start(&job{table: full, out: &run{through: full.through}, from: merger{sources: []source{&s}}})
	}
	levels := make(map[int][]*run)
	for _, r := range t.current.runs {
		if !r.busy {
			levels[r.level] = append(levels[r.level], r)
		}
	}
	for level, inputs := range levels {
		if len(inputs) < t.cfg.FanIn || active[level+1] {
			continue
		}
		slices.SortFunc(inputs, func(a, b *run) int { return int(a.id - b.id) })
		j := &job{inputs: inputs[:t.cfg.FanIn], out: &run{level: level + 1}}
		for _, r := range j.inputs {
			r.busy = true
			j.out.through = max(j.out.through, r.through)
			j.from.sources = append(j.from.sources, newCursor(sql, r, nil))
		}
		t.start(j)
	}
}

func (t *Tree) start(j *job) {
	t.lastRun++
	j.out.id, j.chunk = t.lastRun, &chunk{}
	t.jobs = append(t.jobs, j)
}

// advance moves up to so many records and reports whether there are no more.
func (w Writer) advance(ctx context.Context, j *job, records int) (bool, error) {
	j.from.ctx = ctx
	cfg := w.tree.cfg
	for range records {
		key, value, err := j.from.next()
		if err != nil {
			return false, err
		}
		if key == nil {
			return true, w.endChunk(ctx, j)
		}
		if len(j.page) > 0 && len(j.page)+len(key)+len(value)+8 > cfg.PageBytes {
			if err := w.endPage(ctx, j); err != nil {
				return false, err
			}
			if len(j.hashes) >= cfg.ChunkRecords {
				if err := w.endChunk(ctx, j); err != nil {
					return false, err
				}
			}
		}
		if len(j.page) == 0 {
			j.first = append(j.first[:0], key...)
			j.previous = j.previous[:0]
		}
		j.page = appendToPage(j.page, j.previous, key, value)
		j.previous = append(j.previous[:0], key...)
		j.hashes = append(j.hashes, xxhash.Sum64(key))
		j.out.records++
	}
	return false, nil
}

// endPage writes the page over one that nobody uses, or behind the last.
func (w Writer) endPage(ctx context.Context, j *job) error {
	t := w.tree
	var slot uint32
	if n := len(t.free); n > 0 {
		slot, t.free = t.free[n-1], t.free[:n-1]
	} else {
		t.top++
		slot = t.top
	}
	_, err := w.writing.ExecContext(ctx, "INSERT INTO token_pages (id, page) VALUES (?,?) ON CONFLICT (id) DO UPDATE SET page = excluded.page", slot, j.page)
	j.chunk.addPage(slot, j.first)
	j.page = j.page[:0]
	return err
}

func (w Writer) endChunk(ctx context.Context, j *job) error {
	if len(j.page) > 0 {
		if err := w.endPage(ctx, j); err != nil {
			return err
		}
	}
	if len(j.hashes) == 0 {
		return nil
	}
	c := j.chunk
	c.keys, c.ends, c.slots = bytes.Clone(c.keys), slices.Clone(c.ends), slices.Clone(c.slots) // to size
	c.filter = newFilter(j.hashes, w.tree.cfg.FilterBits)
	_, err := w.writing.ExecContext(ctx, "INSERT INTO token_chunks (run, n, pages, filter) VALUES (?,?,?,?)", j.out.id, len(j.out.chunks), c.index(), []byte(c.filter))
	j.out.chunks = append(j.out.chunks, c)
	j.chunk, j.hashes = &chunk{}, j.hashes[:0]
	return err
}

// finish puts the run in the place of its inputs. Their chunks and the tail are cleared away later, piece by piece.
func (w Writer) finish(ctx context.Context, j *job) error {
	if _, err := w.writing.ExecContext(ctx, "INSERT INTO token_runs (id, level, records, through) VALUES (?,?,?,?)", j.out.id, j.out.level, j.out.records, j.out.through); err != nil {
		return err
	}
	for _, r := range j.inputs {
		if _, err := w.writing.ExecContext(ctx, "DELETE FROM token_runs WHERE id = ?", r.id); err != nil {
			return err
		}
	}
	w.tree.finished = append(w.tree.finished, j)
	return nil
}

// clear deletes some chunks of runs that are no more, and tail segments whose records are in runs.
func (w Writer) clear(ctx context.Context, chunks int) error {
	t := w.tree
	for range min(chunks, len(t.garbage)) {
		g := t.garbage[len(t.garbage)-1]
		t.garbage = t.garbage[:len(t.garbage)-1]
		if _, err := w.writing.ExecContext(ctx, "DELETE FROM token_chunks WHERE run = ? AND n = ?", g.run, g.chunk); err != nil {
			return err
		}
	}
	var through int64
	for _, r := range t.current.runs {
		through = max(through, r.through)
	}
	if t.trimmed >= through {
		return nil
	}
	upTo := min(through, t.trimmed+tailDeletes)
	_, err := w.writing.ExecContext(ctx, "DELETE FROM token_tail WHERE seq > ? AND seq <= ?", t.trimmed, upTo)
	t.trimmed = upTo
	return err
}
