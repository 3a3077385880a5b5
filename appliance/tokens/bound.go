package tokens

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/finterra/finpay/pci"
)

// bound limits how many different cards of one first six and last four digits an API key may have tokenized in a domain
// and day: whoever may tokenize can try all 100,000 cards behind a truncation and watch for a known token. Only cards
// that are new to the registry count: one that has its token already tells the caller nothing that it could not look up.
//
// Most cards share their truncation with none, so counting each exactly would cost memory for nothing. The counts are a
// sketch of fixed size (count-min with conservative update: G. Cormode, S. Muthukrishnan, 2005), which never counts too
// little; one four times as wide is added when it fills. Counts that have come near the limit are kept in the database as
// well: a restart forgives less than a quarter of the limit.
type bound struct {
	limit int
	now   func() time.Time
	seed  maphash.Seed

	mu       sync.Mutex
	day      string
	sketches []*sketch
	refused  map[series]bool // those of today whose refusal was entered
}

// series is what a limit is for.
type series struct {
	domain, key string
	truncated   pci.Truncated
}

func newBound(limit int, now func() time.Time) *bound {
	return &bound{limit: limit, now: now, seed: maphash.MakeSeed(), refused: make(map[series]bool)}
}

// today is the day of a time, in UTC.
func today(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// keepFrom is the count from which one is kept in the database.
func (b *bound) keepFrom() int { return max(2, b.limit/4) }

// take counts a new card. n is how many there are of its series today, at most; ok is false, and nothing is counted, where
// the limit is reached.
func (b *bound) take(s series) (n int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn()
	hash := maphash.Comparable(b.seed, s)
	if n = b.count(hash); n >= b.limit {
		return n, false
	}
	last := b.sketches[len(b.sketches)-1]
	if last.full() {
		last = newSketch(4 * last.width)
		b.sketches = append(b.sketches, last)
	}
	last.add(hash, 1)
	return n + 1, true
}

// giveBack takes back what take has counted for a card that was not issued after all.
func (b *bound) giveBack(s series) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn()
	hash := maphash.Comparable(b.seed, s)
	for i := len(b.sketches) - 1; i >= 0; i-- {
		if b.sketches[i].count(hash) > 0 {
			b.sketches[i].remove(hash)
			return
		}
	}
}

// restore counts what an earlier process has kept of today.
func (b *bound) restore(s series, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn()
	hash := maphash.Comparable(b.seed, s)
	b.sketches[0].add(hash, min(n, b.limit)-min(n, b.count(hash)))
}

// firstRefusal reports whether a refusal is the first of its series today: later ones are not entered, so that a caller
// cannot make the log grow.
func (b *bound) firstRefusal(s series) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn()
	if b.refused[s] || len(b.refused) >= maxRefused {
		return false
	}
	b.refused[s] = true
	return true
}

// maxRefused bounds the refusals that are entered in a day.
const maxRefused = 10_000

// untilTomorrow is when a refused caller may come again.
func (b *bound) untilTomorrow() time.Duration {
	now := b.now().UTC()
	return now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
}

// turn begins a new day. The lock is held.
func (b *bound) turn() {
	if day := today(b.now()); day != b.day {
		b.day, b.sketches = day, []*sketch{newSketch(firstWidth)}
		clear(b.refused)
	}
}

func (b *bound) count(hash uint64) (n int) {
	for _, s := range b.sketches {
		n += s.count(hash)
	}
	return n
}

const (
	sketchRows = 4
	// firstWidth is enough for two million new cards a day, in 4 MiB.
	firstWidth = 1 << 20
)

// sketch counts by hash: each has a place in every row, and its count is the least of them.
type sketch struct {
	width int // a power of two
	rows  [sketchRows][]uint8
	n     int // counted in all
}

func newSketch(width int) *sketch {
	s := &sketch{width: width}
	for i := range s.rows {
		s.rows[i] = make([]uint8, width)
	}
	return s
}

// full reports whether counts would begin to be too large: with twice as many cards as places, of which most are alone
// in their series, the least of four rows is above the truth by one or two.
func (s *sketch) full() bool { return s.n >= 2*s.width }

// places returns the hash's place in each row (double hashing: A. Kirsch, M. Mitzenmacher, 2006).
func (s *sketch) places(hash uint64) (at [sketchRows]int) {
	step := hash>>32 | 1
	for i := range at {
		at[i] = int((hash + uint64(i)*step) & uint64(s.width-1))
	}
	return at
}

func (s *sketch) count(hash uint64) int {
	least := uint8(255)
	for i, at := range s.places(hash) {
		least = min(least, s.rows[i][at])
	}
	return int(least)
}

// add raises the count by by, and no place further than that needs.
func (s *sketch) add(hash uint64, by int) {
	if by <= 0 {
		return
	}
	want := uint8(min(255, s.count(hash)+by))
	for i, at := range s.places(hash) {
		s.rows[i][at] = max(s.rows[i][at], want)
	}
	s.n++
}

// remove lowers the places that make up the count. One that stood there with others may be counted too little by it: that
// takes a card that could not be entered and two series with the same four places of a million.
func (s *sketch) remove(hash uint64) {
	count := uint8(s.count(hash))
	for i, at := range s.places(hash) {
		if s.rows[i][at] == count {
			s.rows[i][at]--
		}
	}
	s.n--
}
