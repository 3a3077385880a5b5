package ff1

import "context"

// smallRequest is how many strings a request has at most that has precedence.
const smallRequest = 16

// request is the strings of one caller on their way. Once it is out of the inbox it is its table's owner's, in turn.
type request struct {
	lanes     []Lane // the caller's; nil once it must not be touched any more
	next      int    // the first that has had no lane yet
	inLanes   int
	dir       direction
	small     bool
	withdrawn bool // its caller has left
	err       error
	done      chan struct{} // has one when the request is finished; unless it was withdrawn

	queue      *list // that it waits in, or nil; the door's while that is the inbox
	prev, succ *request
}

func (r *request) finished() bool { return r.inLanes == 0 && r.next == len(r.lanes) }

// drop takes the caller's strings away from the request. What of them is in lanes goes nowhere.
func (r *request) drop() {
	if r.queue != nil {
		r.queue.remove(r)
	}
	r.lanes, r.next = nil, 0
}

// enter makes a request of lanes and puts it into the inbox. The caller holds the door.
func (c *Cipher) enter(lanes []Lane, dir direction) *request {
	r := c.free
	if r == nil {
		r = &request{done: make(chan struct{}, 1)}
	} else {
		c.free = r.succ
	}
	r.lanes, r.dir, r.small = lanes, dir, len(lanes) <= smallRequest
	c.inbox.add(r)
	return r
}

// fetch moves what has come to where it waits for lanes. The caller has its turn, as in all that follows.
func (c *Cipher) fetch() {
	c.door.Lock()
	defer c.door.Unlock()
	for c.inbox.first != nil {
		r := c.inbox.first
		c.inbox.remove(r)
		if r.small {
			c.small.add(r)
		} else {
			c.bulk.add(r)
		}
	}
}

// recycle keeps a finished request to be used again.
func (c *Cipher) recycle(r *request) {
	c.door.Lock()
	defer c.door.Unlock()
	*r = request{done: r.done, succ: c.free}
	c.free = r
}

// settle tells the caller of a finished request.
func (c *Cipher) settle(r *request) {
	switch {
	case !r.finished():
	case r.withdrawn:
		c.recycle(r)
	default:
		r.done <- struct{}{}
	}
}

// refuse fails what waits. Lanes of it that are under way come to nothing.
func (c *Cipher) refuse(why error) {
	for _, queue := range []*list{&c.small, &c.bulk} {
		for queue.first != nil {
			r := queue.first
			r.err = why
			r.drop()
			c.settle(r)
		}
	}
}

// waiting reports whether fetched strings wait for lanes.
func (c *Cipher) waiting() bool { return c.small.first != nil || c.bulk.first != nil }

// await returns when the request is finished, or ctx ends.
func (c *Cipher) await(ctx context.Context, r *request) error {
	select {
	case <-r.done:
	case <-ctx.Done():
		if c.withdraw(r) {
			return ctx.Err()
		}
		<-r.done
	}
	err := r.err
	c.recycle(r)
	return err
}

// withdraw gives a request up, unless it is finished. Its lanes are emptied at the next turn of their tables.
func (c *Cipher) withdraw(r *request) bool {
	c.turn.Lock()
	defer c.turn.Unlock()
	if r.finished() {
		return false
	}
	c.fetch()
	r.withdrawn = true
	r.drop()
	for _, t := range c.tables {
		t.sweep = true
	}
	c.settle(r)
	return true
}

// list is requests in the order in which they came.
type list struct{ first, last *request }

func (l *list) add(r *request) {
	r.queue, r.prev, r.succ = l, l.last, nil
	if l.last == nil {
		l.first = r
	} else {
		l.last.succ = r
	}
	l.last = r
}

func (l *list) remove(r *request) {
	if r.prev == nil {
		l.first = r.succ
	} else {
		r.prev.succ = r.succ
	}
	if r.succ == nil {
		l.last = r.prev
	} else {
		r.succ.prev = r.prev
	}
	r.queue, r.prev, r.succ = nil, nil, nil
}
