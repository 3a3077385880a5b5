package hsm

import (
	"fmt"
	"sync/atomic"
)

// AbandonedError means that the caller's context ended while the module was at work on the call. What the call does
// cannot be known, and buffers that were handed over with it must not be touched until [AbandonedError.Returned].
type AbandonedError struct {
	returned chan struct{}
	cause    error
}

func (e *AbandonedError) Error() string {
	return fmt.Sprintf("hsm: the call did not return in time: %v", e.cause)
}

// Unwrap returns the context's error.
func (e *AbandonedError) Unwrap() error { return e.cause }

// Returned is closed when the module has let go of the call's buffers.
func (e *AbandonedError) Returned() <-chan struct{} { return e.returned }

// work is what a worker does with its session. It may be done twice: see [remedy.repeats].
type work interface{ run(*session) error }

type workFunc func(*session) error

func (f workFunc) run(s *session) error { return f(s) }

// undoer is work that must not stand when nobody is there to take its result.
type undoer interface{ undo(*session) }

// call is work on its way through a worker. A finished one may be used again: the block path allocates nothing.
type call struct {
	work  work
	done  chan error // buffered: the worker never waits
	state atomic.Int32
	left  atomic.Pointer[AbandonedError] // of an abandoned call
}

// States of a call.
const (
	queued    int32 = iota
	withdrawn       // its caller has left before a worker took it
	running
	finished
	abandoned // its caller has left while it was running
)

func newCall(w work) *call { return &call{work: w, done: make(chan error, 1)} }

// finish hands the call's error to its caller.
func (c *call) finish(from int32, err error) bool {
	if !c.state.CompareAndSwap(from, finished) {
		return false
	}
	c.done <- err
	return true
}

// abandon gives a running call up to its worker, unless it has just come back.
func (c *call) abandon(p *pool, cause error) bool {
	left := &AbandonedError{returned: make(chan struct{}), cause: cause}
	if !c.left.CompareAndSwap(nil, left) {
		return false
	}
	p.abandoned.Add(1)
	if c.state.CompareAndSwap(running, abandoned) {
		return true
	}
	p.abandoned.Add(-1)
	return false
}
