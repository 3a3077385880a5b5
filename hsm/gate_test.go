package hsm

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Callers come and go without end, most of them turned away, while the gate shuts and opens: whoever is told that it is
// empty finds nobody inside.
func TestAnEmptyGateHasNobodyInside(t *testing.T) {
	var g gate
	g.shut()
	g.reopen()
	var inside atomic.Int64
	var running sync.WaitGroup
	stop := make(chan struct{})
	for range 16 {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, ok := g.enter(); ok {
					inside.Add(1)
					for range 100 { // long enough to be met
						_ = g.state.Load()
					}
					inside.Add(-1)
					g.leave()
				}
			}
		})
	}
	end := time.After(2 * time.Second)
	for rounds := 0; ; rounds++ {
		<-g.shut()
		if n := inside.Load(); n != 0 {
			t.Errorf("round %d: %d are inside an empty gate", rounds, n)
		}
		g.reopen()
		select {
		case <-end:
			close(stop)
			running.Wait()
			return
		default:
		}
	}
}

// The last to leave may be held up between leaving and saying so, while the gate opens and shuts again: what it says
// then is not about those who have come in since.
func TestALateLeaverDoesNotSpeakForThoseInside(t *testing.T) {
	var g gate
	g.shut()
	g.reopen()
	g.enter()
	g.mu.Lock() // holds the leaver up
	g.state.Or(isShut)
	left := make(chan struct{})
	go func() { defer close(left); g.leave() }()
	for g.state.Load() != isShut {
		runtime.Gosched()
	}
	g.state.And(^isShut) // it opens again, somebody comes in, and it shuts
	if _, ok := g.enter(); !ok {
		t.Fatal("the gate is open")
	}
	empty := make(chan struct{})
	g.opened, g.empty, g.once = false, empty, new(sync.Once)
	g.state.Or(isShut)
	g.mu.Unlock()
	<-left
	select {
	case <-empty:
		t.Error("the gate is said to be empty, and somebody is inside")
	default:
	}
	g.leave()
	<-empty
}
