package tokens

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// bound limits how many different cards of one first six and last four digits an API key may have tokenized in a domain
// and day: whoever may tokenize can try all 100,000 cards behind a truncation and watch for a known token. Only cards
// that are new to the registry count: one that has its token already tells the caller nothing that it could not look up.
// While an import is open for an API key, its own limit holds instead, over the import's whole time.
//
// Counts that have come near a limit are kept in the database as well: a restart forgives less than a quarter of the limit.
type bound struct {
	limit int
	now   func() time.Time
	seed  maphash.Seed

	mu      sync.Mutex
	day     *counter
	imports map[string]*opened // by API key
	refused map[series]bool    // those of today whose refusal was entered
}

// opened is an import that is open.
type opened struct {
	*counter
	until time.Time
}

// series is what a limit is for.
type series struct {
	domain, key string
	truncated   pci.Truncated
}

// taken is how many cards of a series there are, at most, with the one that was taken.
type taken struct {
	n, limit int
	period   string
}

// kept reports whether the count has come so near the limit that it is kept in the database.
func (t taken) kept() bool { return t.n >= max(2, t.limit/4) }

func newBound(limit int, now func() time.Time) *bound {
	return &bound{limit: limit, now: now, seed: maphash.MakeSeed(), day: newCounter(today(now()), limit), imports: make(map[string]*opened),
		refused: make(map[series]bool)}
}

// today is the day of a time, in UTC.
func today(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// take counts a new card; ok is false, and nothing is counted, where the limit is reached.
func (b *bound) take(s series) (t taken, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.counterOf(s.key)
	n, ok := c.take(maphash.Comparable(b.seed, s))
	return taken{n, c.limit, c.period}, ok
}

// giveBack takes back what take has counted for a card that was not issued after all.
func (b *bound) giveBack(s series) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counterOf(s.key).giveBack(maphash.Comparable(b.seed, s))
}

// restore counts what an earlier process has kept of this day, or of an import that is open.
func (b *bound) restore(kept store.TokenBound) {
	b.mu.Lock()
	defer b.mu.Unlock()
	hash := maphash.Comparable(b.seed, series{kept.Domain, kept.KeyID, kept.Truncated})
	switch i := b.imports[kept.KeyID]; {
	case kept.Period == b.day.period:
		b.day.restore(hash, kept.Cards)
	case i != nil && kept.Period == i.period:
		i.restore(hash, kept.Cards)
	}
}

// open lets an import count for itself. One that counts already goes on.
func (b *bound) open(list []store.Import) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.imports
	b.imports = make(map[string]*opened)
	for _, i := range list {
		now := &opened{newCounter(i.ID, i.Bound), i.Until}
		if was, ok := before[i.KeyID]; ok && was.period == i.ID {
			now.counter = was.counter
		}
		b.imports[i.KeyID] = now
	}
}

// counterOf returns what counts for an API key now. The lock is held.
func (b *bound) counterOf(key string) *counter {
	now := b.now()
	if i, ok := b.imports[key]; ok {
		if now.Before(i.until) {
			return i.counter
		}
		delete(b.imports, key)
	}
	if day := today(now); day != b.day.period {
		b.day = newCounter(day, b.limit)
		clear(b.refused)
	}
	return b.day
}

// firstRefusal reports whether a refusal is the first of its series today: later ones are not entered, so that a caller
// cannot make the log grow.
func (b *bound) firstRefusal(s series) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counterOf("") // may begin a new day
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
