package runs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"
)

// fetchAtOnce bounds the pages that one statement reads.
const fetchAtOnce = 256

// Reader looks records up over one connection. A [Tree.Writer] sees what its own transaction has added; a [Tree.Reader]
// sees what is committed.
type Reader struct {
	tree   *Tree
	sql    SQL
	writer bool
}

// Get looks keys up, which the caller has put in ascending order, and calls found for each that is there, in no order.
// value is valid during the call only.
func (r Reader) Get(ctx context.Context, keys [][]byte, found func(i int, value []byte) error) error {
	v := r.tree.acquire()
	defer r.tree.release(v)
	hashes := make([]uint64, len(keys))
	for i, key := range keys {
		hashes[i] = xxhash.Sum64(key)
	}
	missing, err := r.inMemory(v, keys, hashes, found)
	if err != nil {
		return err
	}
	var probes []probe
	for _, run := range v.runs {
		probes = run.candidates(probes, keys, hashes, missing)
	}
	return r.fetch(ctx, keys, probes, found)
}

// inMemory answers from the tables and returns the indexes of what is left.
func (r Reader) inMemory(v *view, keys [][]byte, hashes []uint64, found func(int, []byte) error) ([]int, error) {
	tables := v.tables
	if r.writer {
		tables = append(slices.Clip(tables), r.tree.pending)
	}
	var missing []int
	r.tree.mu.RLock()
	defer r.tree.mu.RUnlock()
next:
	for i, key := range keys {
		for _, t := range tables {
			if at := t.find(key, hashes[i]); at >= 0 {
				_, value := t.record(at)
				if err := found(i, value); err != nil {
					return nil, err
				}
				continue next
			}
		}
		missing = append(missing, i)
	}
	return missing, nil
}

// probe is a page that may hold a key.
type probe struct {
	slot uint32
	key  int
}

// candidates adds the pages of a run that may hold the missing keys. Few keys search their chunk, many walk along.
func (r *run) candidates(probes []probe, keys [][]byte, hashes []uint64, missing []int) []probe {
	few, c := 8*len(missing) < len(r.chunks), 0
	for _, i := range missing {
		if few {
			c = max(0, sort.Search(len(r.chunks), func(n int) bool { return bytes.Compare(r.chunks[n].first(0), keys[i]) > 0 })-1)
		}
		for c+1 < len(r.chunks) && bytes.Compare(r.chunks[c+1].first(0), keys[i]) <= 0 {
			c++
		}
		if chunk := r.chunks[c]; chunk.filter.has(hashes[i]) {
			probes = append(probes, probe{chunk.slots[chunk.page(keys[i])], i})
		}
	}
	return probes
}

func (r Reader) fetch(ctx context.Context, keys [][]byte, probes []probe, found func(int, []byte) error) error {
	slices.SortFunc(probes, func(a, b probe) int { return int(a.slot) - int(b.slot) })
	for len(probes) > 0 {
		some := probes[:min(len(probes), fetchAtOnce)]
		probes = probes[len(some):]
		slots := make([]uint32, 0, len(some))
		for _, p := range some {
			if len(slots) == 0 || slots[len(slots)-1] != p.slot {
				slots = append(slots, p.slot)
			}
		}
		pages, err := readPages(ctx, r.sql, slots)
		if err != nil {
			return err
		}
		for _, p := range some {
			value, err := findInPage(pages[p.slot], keys[p.key])
			if err != nil {
				return err
			}
			if value == nil {
				continue
			}
			if err := found(p.key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// readPages reads all of the pages, which are there: a view keeps them.
func readPages(ctx context.Context, sql SQL, slots []uint32) (map[uint32][]byte, error) {
	if len(slots) == 1 {
		var page []byte
		if err := sql.QueryRowContext(ctx, "SELECT page FROM token_pages WHERE id = ?", slots[0]).Scan(&page); err != nil {
			return nil, fmt.Errorf("page %d: %w", slots[0], err)
		}
		return map[uint32][]byte{slots[0]: page}, nil
	}
	list, err := json.Marshal(slots)
	if err != nil {
		return nil, err
	}
	rows, err := sql.QueryContext(ctx, "SELECT id, page FROM token_pages WHERE id IN (SELECT value FROM json_each(?))", string(list))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	pages := make(map[uint32][]byte, len(slots))
	for rows.Next() {
		var slot uint32
		var page []byte
		if err := rows.Scan(&slot, &page); err != nil {
			return nil, err
		}
		pages[slot] = page
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(pages) != len(slots) {
		return nil, fmt.Errorf("%w: %d of %d pages are missing", ErrDamaged, len(slots)-len(pages), len(slots))
	}
	return pages, nil
}

// Ascend calls each for the records from a key on, in key order, until it returns false. key and value are valid during
// the call only; each must not use the connection.
func (r Reader) Ascend(ctx context.Context, from []byte, each func(key, value []byte) (bool, error)) error {
	v := r.tree.acquire()
	defer r.tree.release(v)
	var sources []source
	r.tree.mu.RLock()
	tables := v.tables
	if r.writer {
		tables = append(slices.Clip(tables), r.tree.pending)
	}
	for _, t := range tables {
		s := t.sorted()
		s.seek(from)
		sources = append(sources, &s)
	}
	r.tree.mu.RUnlock()
	for _, run := range v.runs {
		sources = append(sources, newCursor(r.sql, run, from))
	}
	m := merger{ctx: ctx, sources: sources}
	for {
		key, value, err := m.next()
		if key == nil || err != nil {
			return err
		}
		if bytes.Compare(key, from) < 0 {
			continue // a cursor begins with its page
		}
		if more, err := each(key, value); !more || err != nil {
			return err
		}
	}
}

// source gives records in key order; a nil key ends it. They are valid until the next call.
type source interface {
	next() (key, value []byte, err error)
}

// cursor goes through a run, some pages at a time.
type cursor struct {
	ctx    context.Context //nolint:containedctx // set before each use by the merger that drives it
	sql    SQL
	run    *run
	chunk  int
	page   int
	loaded [][]byte
	reader pageReader
}

func newCursor(sql SQL, r *run, from []byte) *cursor {
	c := &cursor{sql: sql, run: r}
	c.chunk = max(0, sort.Search(len(r.chunks), func(n int) bool { return bytes.Compare(r.chunks[n].first(0), from) > 0 })-1)
	c.page = r.chunks[c.chunk].page(from)
	return c
}

func (c *cursor) next() (key, value []byte, err error) {
	for len(c.reader.rest) == 0 {
		if len(c.loaded) == 0 {
			if err := c.load(); err != nil {
				return nil, nil, err
			}
			if len(c.loaded) == 0 {
				return nil, nil, nil
			}
		}
		c.reader.rest, c.loaded = c.loaded[0], c.loaded[1:]
		c.reader.key = c.reader.key[:0]
	}
	return c.reader.next()
}

// load reads the next pages of the chunk.
func (c *cursor) load() error {
	const readAhead = 16
	if c.chunk == len(c.run.chunks) {
		return nil
	}
	slots := c.run.chunks[c.chunk].slots
	some := slots[c.page:min(len(slots), c.page+readAhead)]
	pages, err := readPages(c.ctx, c.sql, some)
	if err != nil {
		return err
	}
	for _, slot := range some {
		c.loaded = append(c.loaded, pages[slot])
	}
	if c.page += len(some); c.page == len(slots) {
		c.chunk, c.page = c.chunk+1, 0
	}
	return nil
}

// merger joins sources, whose keys are all different, into one in key order.
type merger struct {
	ctx     context.Context //nolint:containedctx // handed to the cursors; replaced for each slice of work
	sources []source
	heads   []head
	last    int // whose head was given out, and must be renewed
}

type head struct {
	key, value []byte
	source     source
}

func (m *merger) next() (key, value []byte, err error) {
	if m.heads == nil {
		m.heads, m.last = []head{}, -1
		for _, s := range m.sources {
			if h, err := m.pull(s); err != nil {
				return nil, nil, err
			} else if h.key != nil {
				m.heads = append(m.heads, h)
			}
		}
	} else if m.last >= 0 {
		h, err := m.pull(m.heads[m.last].source)
		if err != nil {
			return nil, nil, err
		}
		if m.heads[m.last] = h; h.key == nil {
			m.heads = slices.Delete(m.heads, m.last, m.last+1)
		}
	}
	m.last = -1
	for i, h := range m.heads {
		if m.last < 0 || bytes.Compare(h.key, m.heads[m.last].key) < 0 {
			m.last = i
		}
	}
	if m.last < 0 {
		return nil, nil, nil
	}
	return m.heads[m.last].key, m.heads[m.last].value, nil
}

func (m *merger) pull(s source) (head, error) {
	if c, ok := s.(*cursor); ok {
		c.ctx = m.ctx
	}
	key, value, err := s.next()
	return head{key, value, s}, err
}
