package tokens

// counter counts cards by the hash of what they have in common. Most cards share their truncation with none, so counting each
// exactly would cost memory for nothing. The counts are a sketch of fixed size (count-min with conservative update: G.
// Cormode, S. Muthukrishnan, 2005), which never counts too little; one four times as wide is added when it fills.
type counter struct {
	period   string // a day, or the id of an import
	limit    int    // of each count; at most maxCount
	sketches []*sketch
}

func newCounter(period string, limit int) *counter {
	return &counter{period, limit, []*sketch{newSketch(firstWidth)}}
}

// take counts one more, unless the limit is reached. n is the count after it.
func (c *counter) take(hash uint64) (n int, ok bool) {
	if n = c.count(hash); n >= c.limit {
		return n, false
	}
	last := c.sketches[len(c.sketches)-1]
	if last.full() {
		last = newSketch(4 * last.width)
		c.sketches = append(c.sketches, last)
	}
	last.add(hash, 1)
	return n + 1, true
}

// giveBack takes back what take has counted.
func (c *counter) giveBack(hash uint64) {
	for i := len(c.sketches) - 1; i >= 0; i-- {
		if c.sketches[i].count(hash) > 0 {
			c.sketches[i].remove(hash)
			return
		}
	}
}

// restore raises a count to what an earlier process has kept.
func (c *counter) restore(hash uint64, n int) {
	c.sketches[0].add(hash, min(n, c.limit)-min(n, c.count(hash)))
}

func (c *counter) count(hash uint64) (n int) {
	for _, s := range c.sketches {
		n += s.count(hash)
	}
	return n
}

const (
	sketchRows = 4
	// firstWidth is enough for two million new cards, in 8 MiB.
	firstWidth = 1 << 20
	maxCount   = 1<<16 - 1
)

// sketch counts by hash: each has a place in every row, and its count is the least of them.
type sketch struct {
	width int // a power of two
	rows  [sketchRows][]uint16
	n     int // counted in all
}

func newSketch(width int) *sketch {
	s := &sketch{width: width}
	for i := range s.rows {
		s.rows[i] = make([]uint16, width)
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
	least := uint16(maxCount)
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
	want := uint16(min(maxCount, s.count(hash)+by))
	for i, at := range s.places(hash) {
		s.rows[i][at] = max(s.rows[i][at], want)
	}
	s.n++
}

// remove lowers the places that make up the count. One that stood there with others may be counted too little by it: that
// takes a card that could not be entered and two series with the same four places of a million.
func (s *sketch) remove(hash uint64) {
	count := uint16(s.count(hash))
	for i, at := range s.places(hash) {
		if s.rows[i][at] == count {
			s.rows[i][at]--
		}
	}
	s.n--
}
