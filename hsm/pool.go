package hsm

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// poolKind says what a pool's sessions are for.
type poolKind struct {
	// prepare makes a new session ready; nil for nothing to do.
	prepare func(*session) error
	// keeps means that the session holds objects: it is given up only when the module says that it is gone.
	keeps bool
	// operates means that the session runs operations, too: one that cannot be ended costs the session.
	operates bool
}

// maxHelp is how many waiting calls a caller makes after its own, before it leaves them to the worker's goroutine: to
// wake that costs as much as a short call.
const maxHelp = 64

// maxQueue is how many calls may wait for a worker before callers wait to queue up.
const maxQueue = 1024

// pool is a fixed number of workers with a session each, and the calls that wait for them.
//
// A call goes to an idle worker, or into the queue; a worker that has made its call empties the queue before it is idle
// again. Between "the queue is empty" and "I am idle" a call may come in, so each side looks at the other's place once
// more after it has used its own.
type pool struct {
	e       *Engine
	kind    poolKind
	workers []*worker
	idle    chan *worker // holds those at rest
	queue   chan *call
	stopped atomic.Pointer[error]
	quit    chan struct{}
	once    sync.Once
	running sync.WaitGroup

	waiting   atomic.Int32
	abandoned atomic.Int32
	resting   atomic.Int32
	struck    atomic.Int32 // errors in a row that asked for a second opinion
}

func (e *Engine) newPool(workers int, kind poolKind) *pool {
	p := &pool{e: e, kind: kind, idle: make(chan *worker, workers), queue: make(chan *call, maxQueue), quit: make(chan struct{})}
	for range workers {
		w := &worker{pool: p, hand: make(chan *call, 1)}
		p.workers = append(p.workers, w)
		p.idle <- w
	}
	for _, w := range p.workers {
		p.running.Go(w.loop)
	}
	e.pools.add(p)
	return p
}

// close ends the workers, each after the call that it is in.
func (p *pool) close() {
	p.once.Do(func() {
		p.stop(fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed))
		close(p.quit)
		p.running.Go(func() {
			for range p.workers {
				w := <-p.idle
				w.giveUp()
				close(w.hand)
			}
		})
	})
}

// stop refuses the calls that wait, and those that come.
func (p *pool) stop(why error) {
	p.stopped.CompareAndSwap(nil, &why)
	for {
		select {
		case c := <-p.queue:
			c.finish(queued, why)
		default:
			return
		}
	}
}

// release lets the callers of calls that are inside the module go.
func (p *pool) release(why error) {
	for _, w := range p.workers {
		if c := w.current.Load(); c != nil && c.abandon(p, why) {
			c.done <- c.left.Load()
		}
	}
}

// do has the work done: by the caller itself where its context cannot end, else by a worker, so that the caller can
// leave.
func (p *pool) do(ctx context.Context, c *call) error {
	if why := p.stopped.Load(); why != nil {
		return *why
	}
	if err := ctx.Err(); err != nil {
		return notInTime(err)
	}
	w := p.take()
	switch {
	case w == nil:
		if err := p.enqueue(ctx, c); err != nil {
			return err
		}
	case ctx.Done() == nil:
		p.retire(w, w.serveAll(c, maxHelp))
	default:
		w.hand <- c
	}
	if ctx.Done() == nil {
		return <-c.done
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return p.leave(c, ctx.Err())
	}
}

// take returns an idle worker, or nil. Those that wait have precedence.
func (p *pool) take() *worker {
	if len(p.queue) > 0 {
		return nil
	}
	select {
	case w := <-p.idle:
		return w
	default:
		return nil
	}
}

// put makes a worker idle, or has it empty the queue.
func (p *pool) put(w *worker) {
	p.idle <- w
	p.wake()
}

// restTime is how long a worker does without a session after the device had no room for it.
const restTime = 5 * time.Second

// retire makes a worker idle again, after a rest where the device has no room for its session: the pool is smaller by
// one meanwhile, but never without anybody.
func (p *pool) retire(w *worker, after remedy) {
	if after != rest || p.kind.keeps {
		p.put(w)
		return
	}
	if int(p.resting.Add(1)) == len(p.workers) {
		p.resting.Add(-1)
		p.put(w)
		return
	}
	p.running.Go(func() {
		select {
		case <-time.After(restTime):
		case <-p.quit:
		}
		p.resting.Add(-1)
		p.put(w)
	})
	p.wake()
}

// wake has an idle worker empty the queue, if there is one and something in it.
func (p *pool) wake() {
	if len(p.queue) == 0 {
		return
	}
	select {
	case w := <-p.idle:
		w.hand <- nil
	default: // who is at work looks at the queue before it is idle
	}
}

func (p *pool) enqueue(ctx context.Context, c *call) error {
	select {
	case p.queue <- c:
	default:
		p.waiting.Add(1)
		defer p.waiting.Add(-1)
		select {
		case p.queue <- c:
		case <-ctx.Done():
			return notInTime(ctx.Err())
		case <-p.quit:
			return fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)
		case <-p.e.over:
			return p.e.whyOver()
		}
	}
	if why := p.stopped.Load(); why != nil {
		p.stop(*why)
	}
	p.wake()
	return nil
}

func notInTime(cause error) error { return fmt.Errorf("hsm: no session came free: %w", cause) }

// leave is what a caller does whose context has ended.
func (p *pool) leave(c *call, cause error) error {
	if c.state.CompareAndSwap(queued, withdrawn) {
		return notInTime(cause)
	}
	if c.abandon(p, cause) {
		return c.left.Load()
	}
	return <-c.done
}

// do runs f on a worker's session. Where the module refuses the session, a key's handle or the login before it did
// anything, that is mended and f is run once more. The caller may leave when ctx ends, with an [AbandonedError]; f then
// goes on, and what it writes must not be read.
func (e *Engine) do(ctx context.Context, f func(*session) error) error {
	return e.general.do(ctx, newCall(workFunc(f)))
}

// pools are all pools of an engine.
type pools struct {
	mu   sync.Mutex
	open []*pool
}

func (ps *pools) add(p *pool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.open = append(ps.open, p)
}

func (ps *pools) remove(p *pool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for i, one := range ps.open {
		if one == p {
			ps.open = append(ps.open[:i:i], ps.open[i+1:]...)
			return
		}
	}
}

func (ps *pools) all() []*pool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return append([]*pool(nil), ps.open...)
}

func (ps *pools) closeAll() {
	for _, p := range ps.all() {
		p.close()
	}
}

func (ps *pools) wait() {
	for _, p := range ps.all() {
		p.running.Wait()
	}
}
