package payment

import (
	"context"
	"time"

	"github.com/finterra/finpay/pci"
)

// method is a 3DS Method that a shopper's browser shows. It lives in memory, like the card that it is about.
type method struct {
	shown pci.Method
	over  chan bool // room for the one word on it: whether it has run
}

// methodTimeout is how long the issuer's script may take (EMV 3DS 2.2.0, section 5.8.1: 10 s), and the pages around it.
const methodTimeout = 13 * time.Second

// runMethod has the browser run the 3DS Method of the card's range, where it has one, and says what became of it. What goes
// wrong here is no reason not to authenticate.
func (s *Service) runMethod(ctx context.Context, p *pci.AuthenticationRequest, notificationURL string) {
	found, err := s.cfg.ThreeDS.Method(ctx, *p, notificationURL)
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "the 3DS Method is left out", "payment", p.Payment, "error", err)
		return
	}
	if found == nil {
		return
	}
	m := &method{shown: *found, over: make(chan bool, 1)}
	s.mu.Lock()
	s.methods[p.Payment] = m
	s.mu.Unlock()
	s.wake(p.Payment)
	timeout := time.NewTimer(s.cfg.Method)
	defer timeout.Stop()
	p.Method = found
	select {
	case p.MethodDone = <-m.over:
	case <-timeout.C:
	case <-s.closing:
	}
	s.mu.Lock()
	delete(s.methods, p.Payment)
	s.mu.Unlock()
}

func (s *Service) openMethod(paymentID string) *method {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.methods[paymentID]
}

// MethodOver implements [api.Checkout].
func (s *Service) MethodOver(ctx context.Context, session, data string) error {
	p, err := s.bySession(ctx, session)
	if err != nil {
		return err
	}
	m := s.openMethod(p.ID)
	if m == nil {
		return nil // it took too long
	}
	done := s.cfg.ThreeDS.MethodTransID(data) == m.shown.ServerTransID
	if data != "" && !done {
		return nil // of another time: that one's end says nothing of this one
	}
	s.mu.Lock()
	delete(s.methods, p.ID) // whoever comes now waits for what follows
	s.mu.Unlock()
	select {
	case m.over <- done:
	default: // said already
	}
	return nil
}
