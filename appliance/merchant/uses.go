package merchant

import (
	"context"
	"sync"
	"time"

	"github.com/finterra/finpay/appliance/ledger"
)

// useKept is how often it is kept that an API key was used: a write for each request would cost more than the request.
const useKept = time.Minute

// uses are when API keys were used, as far as that is not kept yet.
type uses struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (u *uses) note(keyID string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = make(map[string]time.Time)
	}
	u.last[keyID] = at
}

func (u *uses) take() map[string]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := u.last
	u.last = nil
	return taken
}

// KeepUses keeps when API keys were last used.
func (s *Service) KeepUses(ctx context.Context) error {
	taken := s.uses.take()
	if len(taken) == 0 {
		return nil
	}
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		for id, at := range taken {
			if err := tx.PutAPIKeyUse(id, at); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// Run keeps when API keys were last used, each minute, and once more when ctx ends.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(useKept)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = s.KeepUses(ctx) // the next minute has newer ones
		case <-ctx.Done():
			_ = s.KeepUses(context.WithoutCancel(ctx))
			return
		}
	}
}
