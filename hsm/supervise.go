package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// trip asks the supervisor to look after the device; certain means that no second opinion is wanted.
func (e *Engine) trip(certain bool) {
	if certain {
		e.lost.Store(true)
	}
	select {
	case e.trips <- struct{}{}:
	default: // it will look anyway
	}
}

// Bounds of the recovery.
const (
	firstPause = 100 * time.Millisecond // from one failed start of the module to the next, doubled each time
	lastPause  = 2 * time.Second
)

// supervise brings a lost device back. A device that is there when it is asked keeps its sessions, and with them the
// objects in them: one failing key must not cost everybody's.
func (e *Engine) supervise(ctx context.Context) {
	for {
		e.looking.Store(len(e.trips) > 0)
		select {
		case <-e.trips:
			e.looking.Store(true)
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		}
		if !e.lost.Load() && e.answers() {
			continue
		}
		e.bringBack(ctx)
	}
}

// answers asks the device, on the session that holds the login, whether it is there and logged in.
func (e *Engine) answers() bool {
	e.turns.take()
	defer e.turns.give()
	if _, ok := e.gate.enter(); !ok {
		return false
	}
	defer e.gate.leave()
	e.clock.supervisor.start(&e.clock)
	defer e.clock.supervisor.stop()
	e.login.mu.Lock()
	defer e.login.mu.Unlock()
	keeper := e.login.keeper
	if keeper == nil || e.opened.isDead(keeper) {
		return false
	}
	if _, err := e.module.GetTokenInfo(e.slot); err != nil {
		return false
	}
	if _, err := e.module.GenerateRandom(keeper.handle, 1); err != nil {
		return false
	}
	in, err := e.loggedIn(keeper)
	return err == nil && in
}

// bringBack starts the module again until it succeeds. No call is in flight meanwhile; one that hangs is the
// watchdog's.
func (e *Engine) bringBack(ctx context.Context) {
	e.cfg.Log.ErrorContext(ctx, "the HSM was lost; initializing it again", "label", e.cfg.Label)
	select {
	case <-e.gate.shut():
	case <-ctx.Done():
		return
	case <-e.failed:
		return
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		select { // nobody is inside: what was asked for until now is what is being done
		case <-e.trips:
		default:
		}
		e.lost.Store(false)
		err := e.restart()
		if err == nil {
			e.cfg.Log.InfoContext(ctx, "the HSM is back", "label", e.cfg.Label)
			return
		}
		if errors.Is(err, ErrPIN) {
			e.fail(err)
			return
		}
		e.cfg.Log.WarnContext(ctx, "the HSM is still away", "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		}
	}
}

func (e *Engine) restart() error {
	e.clock.supervisor.start(&e.clock)
	defer e.clock.supervisor.stop()
	e.restarts.Add(1)
	if err := e.module.Finalize(); err != nil && !isCode(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		e.cfg.Log.Debug("the module of a lost HSM is not finalized", "error", err)
		if err := e.module.CloseAllSessions(e.slot); err != nil { // else they would count against the device's limit
			e.cfg.Log.Debug("nor are its sessions closed", "error", err)
		}
	}
	return e.begin()
}

// watch ends the engine when a call into the module lasts longer than allowed.
func (e *Engine) watch(ctx context.Context) {
	tick := time.NewTicker(e.clock.beat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-e.failed:
			return
		}
		e.clock.now.Add(1)
		own, _ := e.clock.supervisor.age(&e.clock)
		if max(own, e.Health().Longest) > e.cfg.CallLimit {
			e.fail(fmt.Errorf("%w: it has lasted for more than %s", ErrStuck, e.cfg.CallLimit))
		}
	}
}

// clock counts beats: reading it costs a call nothing, which reading the time would.
type clock struct {
	now        atomic.Int64
	beat       time.Duration
	supervisor stopwatch
}

// stopwatch measures one call at a time, in beats.
type stopwatch struct{ since atomic.Int64 } // beat plus one; 0 while nothing runs

func (s *stopwatch) start(c *clock) { s.since.Store(c.now.Load() + 1) }

func (s *stopwatch) stop() { s.since.Store(0) }

func (s *stopwatch) age(c *clock) (age time.Duration, busy bool) {
	since := s.since.Load()
	if since == 0 {
		return 0, false
	}
	return time.Duration(c.now.Load()-(since-1)) * c.beat, true
}
