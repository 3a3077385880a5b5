package ff1

import (
	"context"
	"unsafe"

	"github.com/finterra/finpay/pci/internal/pan"
)

// Shares of a table.
const (
	// bulkShare is how many lanes large requests have while small ones come: what a small one waits for is the calls.
	bulkShare = 192
	// calm is for how many calls that goes on after the last small request that met a large one: some ten milliseconds.
	calm = 1000
	// smallShare is how many lanes small requests have while large ones wait.
	smallShare = MaxLanes - bulkShare
)

// table is the lanes of one goroutine at a time, its owner: its runner, or a caller that does its own work. Lanes
// 0 to n−1 are taken. What comes of digits stands in locked memory; what has pointers cannot, since the collector does
// not look there.
type table struct {
	cipher *Cipher
	hand   chan struct{} // makes the runner the owner; has room for the one ownership there is

	// Guarded by the door.
	owned   bool
	running bool // there is a runner

	// The owner's, in turn.
	sweep bool // some lanes may belong to nobody any more; anybody sets it, in turn

	// The owner's.
	n      int
	small  int // lanes of small requests
	quiet  int // calls since some met large ones
	marks  [MaxLanes]mark
	ended  []int // lanes whose string is finished, in their order
	firsts [MaxDigits + 1][MaxTweak + 1]first
	memory *pan.Area
	states []state // of the lanes, in memory
	digits []byte  // room for a string, in memory
	lent   *pan.Area
	blocks []byte // of the lanes, in lent
}

// mark is what of a lane is no secret.
type mark struct {
	request *request
	target  Target
	lane    int // its number in the request
	walks   int
	round   int8 // that is under way, 0 to 9
	step    int8 // 1 for encryption, −1 for decryption
	prelude prelude
	length  uint8
	tweak   uint8
	lost    bool // it has walked too far
}

func newTable(c *Cipher) *table {
	return &table{cipher: c, hand: make(chan struct{}, 1), ended: make([]int, 0, MaxLanes), quiet: calm}
}

// wake makes the runner the owner. The caller holds the door and has the ownership to give.
func (t *table) wake() {
	if !t.running {
		t.running = true
		t.cipher.run.Go(t.loop)
	}
	t.hand <- struct{}{}
}

func (t *table) loop() {
	for range t.hand {
		t.drive(nil)
	}
}

// drive takes lanes through their rounds until no string waits, or until own is finished: the runner goes on then.
func (t *table) drive(own *request) {
	c := t.cipher
	c.turn.Lock()
	defer c.turn.Unlock()
	for {
		t.collect()
		c.fetch()
		if own != nil && own.finished() && (t.n > 0 || c.waiting()) {
			c.door.Lock()
			t.wake()
			c.door.Unlock()
			return
		}
		t.admit()
		if t.n == 0 {
			if t.giveUp() {
				return
			}
			continue
		}
		if c.waiting() {
			c.wakeAnother()
		}
		c.turn.Unlock()
		err := t.call(own)
		c.turn.Lock()
		if err != nil {
			t.fail(err)
		}
		if c.isClosed() {
			t.collect()
			t.fail(ErrClosed)
			c.fetch()
			c.refuse(ErrClosed)
		}
	}
}

// giveUp ends an ownership, unless somebody has come.
func (t *table) giveUp() bool {
	c := t.cipher
	c.door.Lock()
	defer c.door.Unlock()
	if c.inbox.first != nil {
		return false
	}
	t.owned = false
	c.left.Broadcast()
	return true
}

// wakeAnother has an idle table take a share of what waits.
func (c *Cipher) wakeAnother() {
	c.door.Lock()
	defer c.door.Unlock()
	if t := c.idle(); t != nil && !c.closed {
		t.owned = true
		t.wake()
	}
}

func (c *Cipher) isClosed() bool {
	c.door.Lock()
	defer c.door.Unlock()
	return c.closed
}

// call takes every lane one round on. A caller that drives its own request cannot leave: it waits for the device itself,
// which saves it a thread.
func (t *table) call(own *request) error {
	ctx := t.cipher.life
	if own != nil {
		ctx = context.Background()
	}
	buf := t.blocks[:t.n*blockSize]
	if err := t.cipher.aes.EncryptBlocks(ctx, buf, buf); err != nil {
		t.blocks = nil // which may be in use still
		t.lent.ReleaseAfter(err)
		return err
	}
	t.advance()
	return nil
}

// collect writes finished strings out and frees their lanes. From the last on: the last lane moves into a free one.
func (t *table) collect() {
	for k := len(t.ended) - 1; k >= 0; k-- {
		i := t.ended[k]
		m := &t.marks[i]
		switch r := m.request; {
		case r.lanes == nil: // of a caller that has left, or whose request has failed
		case m.lost:
			r.err = ErrWalk
			r.drop()
			t.sweepAll()
		default:
			t.states[i].write(r.lanes[m.lane].Digits)
		}
		t.leave(i)
	}
	t.ended = t.ended[:0]
	if t.sweep {
		t.sweep = false
		for i := t.n - 1; i >= 0; i-- {
			if t.marks[i].request.lanes == nil {
				t.leave(i)
			}
		}
	}
}

func (t *table) sweepAll() {
	for _, one := range t.cipher.tables {
		one.sweep = true
	}
}

// leave frees a lane and wipes what it held.
func (t *table) leave(i int) {
	r := t.marks[i].request
	r.inLanes--
	if r.small {
		t.small--
	}
	t.cipher.settle(r)
	t.n--
	last := t.n
	t.marks[i], t.states[i] = t.marks[last], t.states[last]
	t.marks[last], t.states[last] = mark{}, state{}
	if t.blocks != nil {
		copy(t.block(i), t.block(last))
		clear(t.block(last))
	}
}

// fail ends all requests that have a lane.
func (t *table) fail(why error) {
	for i := range t.n {
		if r := t.marks[i].request; r.lanes != nil {
			r.err = why
			r.drop()
		}
	}
	t.ended = t.ended[:0]
	for t.n > 0 {
		t.leave(t.n - 1)
	}
	t.sweepAll() // a request may have lanes in other tables
}

// admit gives free lanes to strings that wait: small requests first, then a slice of each large one in turn.
func (t *table) admit() {
	c := t.cipher
	if !c.waiting() {
		t.quiet++
		return
	}
	if err := t.prepare(); err != nil {
		c.refuse(err)
		return
	}
	most := MaxLanes
	if c.bulk.first != nil {
		most = smallShare
	}
	for c.small.first != nil && t.small < most && t.n < MaxLanes {
		t.take(c.small.first, min(most-t.small, MaxLanes-t.n))
	}
	if t.quiet++; t.small > 0 && (c.bulk.first != nil || t.n > t.small) {
		t.quiet = 0
	}
	most = MaxLanes
	if t.quiet < calm {
		most = bulkShare
	}
	for c.bulk.first != nil && t.n-t.small < most && t.n < MaxLanes {
		r := c.bulk.first
		t.take(r, min(most-(t.n-t.small), MaxLanes-t.n))
		if r.queue != nil {
			c.bulk.remove(r)
			c.bulk.add(r)
		}
	}
}

// take gives lanes to as many strings of a request as there is room for.
func (t *table) take(r *request, room int) {
	for ; room > 0 && r.next < len(r.lanes); room-- {
		t.enter(r, r.next)
		r.next++
		r.inLanes++
		if r.small {
			t.small++
		}
	}
	if r.next == len(r.lanes) {
		r.queue.remove(r)
	}
}

// prepare sees to it that the table has its memory.
func (t *table) prepare() (err error) {
	if t.memory == nil {
		const size = MaxLanes * int(unsafe.Sizeof(state{}))
		if t.memory, err = pan.NewArea(size + MaxDigits); err != nil {
			return err
		}
		mem := t.memory.Bytes()
		// The area begins with a page, so it is aligned, and state has no pointers.
		t.states = unsafe.Slice((*state)(unsafe.Pointer(&mem[0])), MaxLanes)
		t.digits = mem[size:]
	}
	if t.blocks == nil {
		if t.lent, err = pan.NewArea(MaxLanes * blockSize); err != nil {
			return err
		}
		t.blocks = t.lent.Bytes()
	}
	return nil
}

// release gives the table's memory back.
func (t *table) release() {
	if t.memory != nil {
		t.memory.Release()
		t.memory, t.states, t.digits = nil, nil, nil
	}
	if t.blocks != nil {
		t.lent.Release()
		t.blocks = nil
	}
}
