package hsm

import (
	"sync"
	"sync/atomic"
)

// turns lets one caller at a time into a module that cannot take two, see [Profile.OneCall]; any number into others.
// A turn is taken outside the gate, and before the time of the call is measured: who waits for it is not in the module.
type turns struct{ mu *sync.Mutex } // nil where calls need not wait for each other

func (t turns) take() {
	if t.mu != nil {
		t.mu.Lock()
	}
}

func (t turns) give() {
	if t.mu != nil {
		t.mu.Unlock()
	}
}

// gate lets calls into the module while it is open. Shut, it turns new ones away at once and tells when the last one
// has come out: finalizing a module under load crashes some.
type gate struct {
	state      atomic.Int64  // how many are inside, and isShut
	generation atomic.Uint64 // grows each time the gate opens: sessions of an earlier one are dead

	mu     sync.Mutex
	opened bool
	barred bool // never to open again
	empty  chan struct{}
	once   *sync.Once // closes empty
}

// isShut is the bit of a shut gate.
const isShut int64 = 1 << 62

// enter returns the generation, or false while the gate is shut. Who has entered leaves. Who is turned away is never
// counted: under load somebody always is, and the gate would not be seen empty.
func (g *gate) enter() (generation uint64, ok bool) {
	for {
		inside := g.state.Load()
		if inside&isShut != 0 {
			return 0, false
		}
		if g.state.CompareAndSwap(inside, inside+1) {
			return g.generation.Load(), true
		}
	}
}

func (g *gate) leave() {
	if g.state.Add(-1) == isShut {
		g.mu.Lock()
		defer g.mu.Unlock()
		// Who is held up here may find that the gate has opened meanwhile, and shut upon others.
		if once, empty := g.once, g.empty; once != nil && g.state.Load() == isShut {
			once.Do(func() { close(empty) })
		}
	}
}

// shut turns callers away. The channel is closed once nobody is inside.
func (g *gate) shut() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.empty != nil && !g.opened {
		return g.empty
	}
	g.opened = false
	empty, once := make(chan struct{}), new(sync.Once)
	g.empty, g.once = empty, once
	if g.state.Or(isShut)&^isShut == 0 {
		once.Do(func() { close(empty) })
	}
	return empty
}

func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.barred {
		g.opened = true
		g.generation.Add(1)
		g.state.And(^isShut)
	}
}

// bar shuts the gate for good.
func (g *gate) bar() <-chan struct{} {
	g.mu.Lock()
	g.barred = true
	g.mu.Unlock()
	return g.shut()
}

func (g *gate) isOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened
}
