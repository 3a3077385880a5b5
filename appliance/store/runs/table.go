package runs

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// table holds records in memory in the order in which they came: one arena without pointers, so that the garbage collector
// has nothing to walk, and a hash index over it. The arena is also what the tail keeps on disk.
type table struct {
	arena   []byte
	offsets []uint32
	slots   []uint32 // open addressing; a record's position + 1, 0 for none
	through int64    // the last tail segment that it holds

	sorting sync.Mutex
	order   []uint32 // positions by key, of the first len(order) records

	background chan struct{} // closed when a full table was sorted aside; nil where it is sorted when it is used
}

// isSorted reports whether nobody is sorting the table aside.
func (t *table) isSorted() bool {
	select {
	case <-t.background:
		return true
	default:
		return t.background == nil
	}
}

func newTable() *table { return &table{slots: make([]uint32, 64)} }

func (t *table) len() int { return len(t.offsets) }

func (t *table) record(i int) (key, value []byte) {
	key, value, _ = cutRecord(t.arena[t.offsets[i]:])
	return key, value
}

// find returns the position of a key, or -1.
func (t *table) find(key []byte, hash uint64) int {
	mask := uint64(len(t.slots) - 1)
	for s := hash & mask; t.slots[s] != 0; s = (s + 1) & mask {
		i := int(t.slots[s] - 1)
		if k, _ := t.record(i); bytes.Equal(k, key) {
			return i
		}
	}
	return -1
}

// add appends a record whose key is not there.
func (t *table) add(key, value []byte) {
	if 2*(t.len()+1) > len(t.slots) {
		t.grow()
	}
	t.offsets = append(t.offsets, uint32(len(t.arena)))
	t.arena = appendRecord(t.arena, key, value)
	t.index(t.len()-1, xxhash.Sum64(key))
}

func (t *table) index(i int, hash uint64) {
	mask := uint64(len(t.slots) - 1)
	s := hash & mask
	for t.slots[s] != 0 {
		s = (s + 1) & mask
	}
	t.slots[s] = uint32(i + 1)
}

func (t *table) grow() {
	t.slots = make([]uint32, 2*len(t.slots))
	for i := range t.offsets {
		key, _ := t.record(i)
		t.index(i, xxhash.Sum64(key))
	}
}

// truncate forgets all but the first n records. What came last stands last in every chain of the index, so that slots
// can be emptied in reverse order.
func (t *table) truncate(n int) {
	mask := uint64(len(t.slots) - 1)
	for i := t.len() - 1; i >= n; i-- {
		key, _ := t.record(i)
		s := xxhash.Sum64(key) & mask
		for t.slots[s] != uint32(i+1) {
			s = (s + 1) & mask
		}
		t.slots[s] = 0
	}
	if n < t.len() {
		t.order = nil
		t.arena, t.offsets = t.arena[:t.offsets[n]], t.offsets[:n]
	}
}

// addAll appends the records of a tail segment.
func (t *table) addAll(segment []byte) error {
	for len(segment) > 0 {
		key, value, rest := cutRecord(segment)
		if key == nil {
			return ErrDamaged
		}
		t.add(key, value)
		segment = rest
	}
	return nil
}

// sorted returns all records by key. The caller keeps writers away; what is returned stays as it is when they come back.
func (t *table) sorted() sortedTable {
	t.sorting.Lock()
	defer t.sorting.Unlock()
	key := func(i uint32) []byte { k, _, _ := cutRecord(t.arena[t.offsets[i]:]); return k }
	if known := len(t.order); known < t.len() {
		fresh := make([]uint32, 0, t.len()-known)
		for i := known; i < t.len(); i++ {
			fresh = append(fresh, uint32(i))
		}
		less := func(a, b uint32) bool { return bytes.Compare(key(a), key(b)) < 0 }
		t.order = mergeOrders(make([]uint32, 0, t.len()), t.order, sortRuns(fresh, less), less)
	}
	return sortedTable{arena: t.arena, offsets: t.offsets, order: t.order}
}

// sortRuns sorts by merging what ascends already: bulk issues add their records in key order.
func sortRuns(list []uint32, less func(a, b uint32) bool) []uint32 {
	ends, spare := make([]int, 0, 16), make([]uint32, 0, len(list))
	for i := range list {
		if i+1 == len(list) || !less(list[i], list[i+1]) {
			ends = append(ends, i+1)
		}
	}
	for len(ends) > 1 {
		merged, kept, begin := spare[:0], ends[:0], 0
		for n := 0; n < len(ends); n += 2 {
			middle, end := ends[n], ends[min(n+1, len(ends)-1)]
			merged = mergeOrders(merged, list[begin:middle], list[middle:end], less)
			kept, begin = append(kept, end), end
		}
		list, spare, ends = merged, list, kept
	}
	return list
}

// mergeOrders appends two ascending lists to a third in order.
func mergeOrders(to, a, b []uint32, less func(a, b uint32) bool) []uint32 {
	for len(a) > 0 && len(b) > 0 {
		if less(b[0], a[0]) {
			to, b = append(to, b[0]), b[1:]
		} else {
			to, a = append(to, a[0]), a[1:]
		}
	}
	return append(append(to, a...), b...)
}

// sortedTable is a table at one moment, in key order. It is a [source].
type sortedTable struct {
	arena   []byte
	offsets []uint32
	order   []uint32
	at      int
}

// seek moves to the first key that is not below from.
func (s *sortedTable) seek(from []byte) {
	s.at, _ = slices.BinarySearchFunc(s.order, from, func(i uint32, from []byte) int {
		key, _, _ := cutRecord(s.arena[s.offsets[i]:])
		return bytes.Compare(key, from)
	})
}

func (s *sortedTable) next() (key, value []byte, err error) {
	if s.at == len(s.order) {
		return nil, nil, nil
	}
	key, value, _ = cutRecord(s.arena[s.offsets[s.order[s.at]]:])
	s.at++
	return key, value, nil
}

func appendRecord(b, key, value []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(append(b, key...), value...)
}

// cutRecord takes the first record off b; a nil key means that b does not begin with one.
func cutRecord(b []byte) (key, value, rest []byte) {
	k, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, nil, nil
	}
	v, m := binary.Uvarint(b[n:])
	if b = b[n:]; m <= 0 || k == 0 || k > uint64(len(b)-m) || v > uint64(len(b)-m)-k {
		return nil, nil, nil
	}
	b = b[m:]
	return b[:k:k], b[k : k+v : k+v], b[k+v:]
}
