package payment

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/finterra/finpay/appliance/store"
)

// ErrBusy means that a connector has something under way whose outcome is not known here yet.
var ErrBusy = errors.New("payment: the connector has something under way")

// gates let a connector come to rest, so that both sides' books can be compared. Whatever is sent to it, from its announcement
// to the entry of its outcome, is inside.
type gates struct {
	mu          sync.Mutex
	byConnector map[string]*gate
}

type gate struct {
	inside  int
	waiting int           // to come in
	shut    chan struct{} // closed when the gate opens again; nil while it is open
	rest    chan struct{} // closed when nothing is inside; nil where nobody waits for that
}

// of is called with mu held.
func (g *gates) of(connector string) *gate {
	if g.byConnector == nil {
		g.byConnector = make(map[string]*gate)
	}
	if g.byConnector[connector] == nil {
		g.byConnector[connector] = &gate{}
	}
	return g.byConnector[connector]
}

// enter waits while the gate is shut. The caller calls leave once.
func (g *gates) enter(ctx context.Context, connector string) (leave func(), err error) {
	for {
		g.mu.Lock()
		gate := g.of(connector)
		if gate.shut == nil {
			gate.inside++
			g.mu.Unlock()
			return sync.OnceFunc(func() { g.leave(gate) }), nil
		}
		shut := gate.shut
		gate.waiting++
		g.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
		}
		g.mu.Lock()
		gate.waiting--
		g.mu.Unlock()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (g *gates) leave(gate *gate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if gate.inside--; gate.inside == 0 && gate.rest != nil {
		close(gate.rest)
		gate.rest = nil
	}
}

// close shuts the gate and waits until nothing is inside. The caller calls open, whatever comes.
func (g *gates) close(ctx context.Context, connector string) (open func(), err error) {
	g.mu.Lock()
	gate := g.of(connector)
	if gate.shut != nil {
		g.mu.Unlock()
		return func() {}, ErrBusy // somebody else compares
	}
	gate.shut = make(chan struct{})
	rest := make(chan struct{})
	if gate.inside == 0 {
		close(rest)
	} else {
		gate.rest = rest
	}
	g.mu.Unlock()
	open = sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		close(gate.shut)
		gate.shut, gate.rest = nil, nil
	})
	select {
	case <-rest:
		return open, nil
	case <-ctx.Done():
		return open, ctx.Err()
	}
}

// Quiet keeps a connector at rest until open is called: nothing is sent to it, and the outcome of all that was is entered. Where it
// does not come to rest before ctx ends, or something sent is still of unknown outcome, it is [ErrBusy] and goes on.
func (s *Service) Quiet(ctx context.Context, connector string) (open func(), err error) {
	open, err = s.gates.close(ctx, connector)
	if err == nil {
		err = s.unknown(ctx, connector)
	}
	if err != nil {
		open()
		return nil, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return open, nil
}

// unknown returns what a connector has not answered yet.
func (s *Service) unknown(ctx context.Context, connector string) error {
	read := s.cfg.Store.Read(ctx)
	for _, status := range []string{attemptAuthorizing, attemptIndeterminate} {
		attempts, err := read.AttemptsInStatus(status)
		if err != nil {
			return err
		}
		for _, a := range attempts {
			if a.Connector == connector {
				return fmt.Errorf("payment %s is %s", a.PaymentID, a.Status)
			}
		}
	}
	open, err := read.OpenModifications()
	if err != nil {
		return err
	}
	for _, m := range open {
		_, a, err := subject(read, m.PaymentID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if a != nil && a.Connector == connector {
			return fmt.Errorf("a %s of payment %s is %s", m.Kind, m.PaymentID, m.Status)
		}
	}
	return nil
}
