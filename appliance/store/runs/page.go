package runs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"sort"
)

// run is a sorted, immutable set of records in pages. Its chunks are what is kept of it in memory.
type run struct {
	id      int64
	level   int
	records int
	through int64 // tail segments up to this one are in this run or an older one
	chunks  []*chunk
	busy    bool // being merged; of the writer alone
}

// slots returns where its pages are.
func (r *run) slots() []uint32 {
	var all []uint32
	for _, c := range r.chunks {
		all = append(all, c.slots...)
	}
	return all
}

// chunk is a part of a run, in key order: where its pages are, with which key each begins, and a filter of its keys.
type chunk struct {
	slots  []uint32
	keys   []byte // the pages' first keys, one after the other
	ends   []uint32
	filter filter
}

func (c *chunk) first(page int) []byte {
	begin := uint32(0)
	if page > 0 {
		begin = c.ends[page-1]
	}
	return c.keys[begin:c.ends[page]]
}

func (c *chunk) addPage(slot uint32, first []byte) {
	c.slots = append(c.slots, slot)
	c.keys = append(c.keys, first...)
	c.ends = append(c.ends, uint32(len(c.keys)))
}

// page returns which page would hold a key.
func (c *chunk) page(key []byte) int {
	return max(0, sort.Search(len(c.slots), func(i int) bool { return bytes.Compare(c.first(i), key) > 0 })-1)
}

// index is the chunk's list of pages as the database keeps it.
func (c *chunk) index() []byte {
	var b []byte
	for i, slot := range c.slots {
		b = binary.AppendUvarint(b, uint64(slot))
		b = binary.AppendUvarint(b, uint64(len(c.first(i))))
		b = append(b, c.first(i)...)
	}
	return b
}

func parseChunk(index []byte, f filter) (*chunk, error) {
	c := &chunk{filter: f}
	for len(index) > 0 {
		slot, n := binary.Uvarint(index)
		if n <= 0 || slot > 1<<32-1 {
			return nil, fmt.Errorf("%w: a list of pages", ErrDamaged)
		}
		length, m := binary.Uvarint(index[n:])
		if index = index[n:]; m <= 0 || length == 0 || length > uint64(len(index)-m) {
			return nil, fmt.Errorf("%w: a list of pages", ErrDamaged)
		}
		index = index[m:]
		c.addPage(uint32(slot), index[:length])
		index = index[length:]
	}
	if len(c.slots) == 0 || len(f)%blockBytes != 0 || len(f) == 0 {
		return nil, fmt.Errorf("%w: a chunk without pages or filter", ErrDamaged)
	}
	return c, nil
}

// filter is a blocked Bloom filter (Putze, Sanders, Singler, 2007): all bits of a key lie in one cache line, so that a
// look-up costs one miss of the cache at most.
type filter []byte

const (
	blockBytes = 64
	probes     = 6
)

func newFilter(hashes []uint64, bitsPerKey int) filter {
	f := make(filter, blockBytes*max(1, (len(hashes)*bitsPerKey+8*blockBytes-1)/(8*blockBytes)))
	for _, hash := range hashes {
		block, pattern := f.place(hash)
		for range probes {
			f[block+int(pattern>>3&63)] |= 1 << (pattern & 7)
			pattern >>= 9
		}
	}
	return f
}

func (f filter) has(hash uint64) bool {
	block, pattern := f.place(hash)
	for range probes {
		if f[block+int(pattern>>3&63)]&(1<<(pattern&7)) == 0 {
			return false
		}
		pattern >>= 9
	}
	return true
}

// place takes the block from the hash's upper half and the bits within it from the lower one.
func (f filter) place(hash uint64) (block int, pattern uint64) {
	high, _ := bits.Mul64(hash&^(1<<32-1), uint64(len(f)/blockBytes))
	return int(high) * blockBytes, (hash & (1<<32 - 1)) * 0x9e3779b97f4a7c15 >> 10
}

// appendToPage adds a record after one whose key is previous: only where the key differs is written.
func appendToPage(page, previous, key, value []byte) []byte {
	shared := 0
	for shared < min(len(previous), len(key)) && previous[shared] == key[shared] {
		shared++
	}
	page = binary.AppendUvarint(page, uint64(shared))
	return appendRecord(page, key[shared:], value) // keys ascend: there is always something left
}

// pageReader goes through the records of a page. It is valid until the next one.
type pageReader struct {
	rest []byte
	key  []byte
}

func (p *pageReader) next() (key, value []byte, err error) {
	if len(p.rest) == 0 {
		return nil, nil, nil
	}
	shared, n := binary.Uvarint(p.rest)
	if n <= 0 || shared > uint64(len(p.key)) {
		return nil, nil, fmt.Errorf("%w: a page", ErrDamaged)
	}
	suffix, value, rest := cutRecord(p.rest[n:])
	if suffix == nil {
		return nil, nil, fmt.Errorf("%w: a page", ErrDamaged)
	}
	p.key, p.rest = append(p.key[:shared], suffix...), rest
	return p.key, value, nil
}

// findInPage returns the value of a key, or nil.
func findInPage(page, key []byte) ([]byte, error) {
	p := pageReader{rest: page}
	for {
		k, value, err := p.next()
		if k == nil || err != nil {
			return nil, err
		}
		if c := bytes.Compare(k, key); c == 0 {
			return value, nil
		} else if c > 0 {
			return nil, nil
		}
	}
}
