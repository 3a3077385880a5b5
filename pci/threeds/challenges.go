package threeds

import (
	"sync"
	"time"
)

// challenges remembers which challenges are open, and which were answered, until they expire.
type challenges struct {
	capacity int
	now      func() time.Time

	mu       sync.Mutex
	byTrans  map[string]*challenge // by threeDSServerTransID
	reserved int                   // authentications under way, each of which may open one
}

type challenge struct {
	payment string
	ids     identifiers
	version version
	expires time.Time

	// deciding lets one result through at a time.
	deciding sync.Mutex
	decided  *rreq // the accepted result, nil until then
}

func newChallenges(capacity int, now func() time.Time) *challenges {
	return &challenges{capacity: capacity, now: now, byTrans: make(map[string]*challenge)}
}

// reserve takes a place before anything is sent, so that no challenge the issuer has begun must be dropped.
func (c *challenges) reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byTrans)+c.reserved >= c.capacity {
		c.expire()
	}
	if len(c.byTrans)+c.reserved >= c.capacity {
		c.forgetDecided()
	}
	if len(c.byTrans)+c.reserved >= c.capacity {
		return false
	}
	c.reserved++
	return true
}

func (c *challenges) unreserve() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reserved--
}

func (c *challenges) open(payment string, ids identifiers, v version, expires time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byTrans[ids.ThreeDSServerTransID] = &challenge{payment: payment, ids: ids, version: v, expires: expires}
}

// find returns the challenge whose three transaction ids are ids.
func (c *challenges) find(ids identifiers) (*challenge, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, ok := c.byTrans[ids.ThreeDSServerTransID]
	if !ok || found.ids != ids {
		return nil, false
	}
	if !c.now().Before(found.expires) {
		delete(c.byTrans, ids.ThreeDSServerTransID)
		return nil, false
	}
	return found, true
}

// expire is called with mu held.
func (c *challenges) expire() {
	now := c.now()
	for id, challenge := range c.byTrans {
		if !now.Before(challenge.expires) {
			delete(c.byTrans, id)
		}
	}
}

// forgetDecided makes room where open challenges fill the store: of a decided one only repeats could still come,
// and they get error 301 then. It is called with mu held.
func (c *challenges) forgetDecided() {
	for id, challenge := range c.byTrans {
		if !challenge.deciding.TryLock() {
			continue // its result is being recorded now
		}
		if challenge.decided != nil {
			delete(c.byTrans, id)
		}
		challenge.deciding.Unlock()
	}
}
