package settlement

import (
	"context"
	"time"
)

// Cutover says that the acquirer of a connector has closed its day: its books are compared soon. It does not wait.
func (s *Service) Cutover(connector string) {
	select {
	case s.due <- connector:
	default: // it is due already, and others too
	}
}

// Run compares each connector's books at its time, and when its acquirer has closed its day. What could not be done is tried
// again until it is.
func (s *Service) Run(ctx context.Context) {
	wake := make(map[string]time.Time) // when it is due next, by connector
	for _, c := range s.cfg.Connectors {
		if next, ok := s.next(c); ok {
			wake[c.Name] = next
		}
		if pending, err := s.cfg.Store.Read(ctx).PendingSettlements(c.Name); err == nil && len(pending) > 0 {
			wake[c.Name] = s.cfg.Now().Add(retryAfter) // of an earlier process
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-s.due:
			wake[name] = s.cfg.Now()
		case <-tick.C:
		}
		for _, c := range s.cfg.Connectors {
			if at, ok := wake[c.Name]; ok && !s.cfg.Now().Before(at) {
				s.settleOnce(ctx, c, wake)
			}
		}
	}
}

// settleOnce compares a connector's books and says when it is due again.
func (s *Service) settleOnce(ctx context.Context, c Connector, wake map[string]time.Time) {
	ended, err := s.Settle(ctx, c.Name)
	for _, p := range ended {
		s.cfg.Log.InfoContext(ctx, "books were compared", "connector", c.Name, "settlement", p.ID, "terminal", p.Terminal, "currency", string(p.Currency), "status", p.Status)
	}
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "books could not be compared yet", "connector", c.Name, "error", err)
		wake[c.Name] = s.cfg.Now().Add(retryAfter)
		return
	}
	delete(wake, c.Name)
	if next, ok := s.next(c); ok {
		wake[c.Name] = next
	}
}

// next is the next time of day at which a connector's books are compared.
func (s *Service) next(c Connector) (time.Time, bool) {
	if c.At < 0 {
		return time.Time{}, false
	}
	now := s.cfg.Now().UTC()
	at := now.Truncate(24 * time.Hour).Add(c.At)
	if !at.After(now) {
		at = at.Add(24 * time.Hour)
	}
	return at, true
}
