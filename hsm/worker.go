package hsm

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// worker makes calls into the module, one at a time. It is used by whoever took it from the pool: a caller, or its own
// goroutine.
type worker struct {
	pool      *pool
	hand      chan *call // for its own goroutine; nil means the queue
	session   *session
	stopwatch stopwatch
	current   atomic.Pointer[call]
}

func (w *worker) loop() {
	for c := range w.hand {
		w.pool.retire(w, w.serveAll(c, -1))
	}
}

// serveAll makes the call, and up to more of those that wait after it; all, where more is negative.
func (w *worker) serveAll(c *call, more int) remedy {
	for ; ; more-- {
		if c != nil && w.serve(c) == rest {
			return rest
		}
		if more == 0 {
			return nothing
		}
		select {
		case c = <-w.pool.queue:
		default:
			return nothing
		}
	}
}

// serve makes the call, and returns what it led to.
func (w *worker) serve(c *call) remedy {
	if !c.state.CompareAndSwap(queued, running) {
		return nothing // withdrawn
	}
	e := w.pool.e
	w.current.Store(c)
	e.turns.take()
	w.stopwatch.start(&e.clock)
	then, err := w.try(c)
	w.stopwatch.stop()
	e.turns.give()
	w.current.Store(nil)
	if !c.finish(running, err) {
		w.takeBack(c, err)
	}
	return then
}

// takeBack ends a call whose caller has left.
func (w *worker) takeBack(c *call, err error) {
	w.pool.abandoned.Add(-1)
	if u, ok := c.work.(undoer); ok && err == nil {
		w.undo(u)
	}
	close(c.left.Load().returned)
}

// undo is a call as well: it may hang. What was made under an earlier generation ended with it, and its numbers are
// somebody else's by now.
func (w *worker) undo(u undoer) {
	e := w.pool.e
	e.turns.take()
	defer e.turns.give()
	generation, inside := e.gate.enter()
	if !inside {
		return
	}
	defer e.gate.leave()
	if w.session.generation != generation {
		return
	}
	w.stopwatch.start(&e.clock)
	defer w.stopwatch.stop()
	_ = w.session.use(func(s *session) error { u.undo(s); return nil })
}

// try does the work, and once more after each remedy that allows it.
func (w *worker) try(c *call) (remedy, error) {
	var tried [end + 1]bool
	for {
		r, err := w.attempt(c.work)
		if err == nil || !r.repeats() || c.state.Load() == abandoned {
			return r, err
		}
		if tried[r] {
			return r, w.stillRefused(r, err)
		}
		tried[r] = true
	}
}

func (w *worker) attempt(work work) (remedy, error) {
	e := w.pool.e
	generation, ok := e.gate.enter()
	if !ok {
		if e.Err() != nil {
			return nothing, e.whyOver()
		}
		return nothing, ErrUnavailable
	}
	defer e.gate.leave()
	epoch := e.login.epoch.Load()
	err := w.equip(generation)
	if err == nil {
		err = w.session.use(work.run)
	}
	if err == nil {
		e.faults.inARow.Store(0)
		w.pool.struck.Store(0)
		return nothing, nil
	}
	w.drop(err)
	return w.treat(err, epoch)
}

// stillRefused is what callers see of an error that its remedy did not mend.
func (w *worker) stillRefused(r remedy, err error) error {
	if !w.pool.kind.keeps || r != newHandles { // else an object is gone, and nothing is wrong with the device
		w.pool.e.trip(false)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// equip sees to it that the worker has a session of this generation.
func (w *worker) equip(generation uint64) error {
	if w.session != nil && w.session.generation == generation {
		return nil
	}
	s, err := w.pool.e.openSession(generation)
	if err != nil {
		w.session = nil
		return err
	}
	w.session = s
	if w.pool.kind.prepare == nil {
		return nil
	}
	return s.use(w.pool.kind.prepare)
}

// drop gives up the session after an error, or what in it is at fault.
func (w *worker) drop(err error) {
	if w.session == nil {
		return
	}
	r := remedyFor(err)
	switch {
	case w.pool.kind.operates && isCode(err, pkcs11.CKR_OPERATION_ACTIVE):
	case w.pool.kind.keeps && !isCode(err, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED):
		return // its objects live as long as it does
	case r == newHandles && w.pool.kind.prepare == nil:
		clear(w.session.keys)
		return
	case r == newLogin && w.pool.kind.prepare == nil, errors.Is(err, ErrNoKey):
		return
	}
	w.pool.e.closeSession(w.session)
	w.session = nil
}

// giveUp closes the worker's session at its end.
func (w *worker) giveUp() {
	e := w.pool.e
	e.turns.take()
	defer e.turns.give()
	generation, ok := e.gate.enter()
	if !ok {
		return // finalizing closes it
	}
	defer e.gate.leave()
	if w.session != nil && w.session.generation == generation {
		w.stopwatch.start(&e.clock)
		defer w.stopwatch.stop()
		e.closeSession(w.session)
	}
}
