// Package retention deletes what is kept for a time only: what belongs to people, what became of webhook events, and first answers
// under idempotency keys (PCI DSS 3.2.1; GDPR, article 5 (1) (e)).
//
// # What is promised
//
//   - What is older than its time is gone within [Period], while the appliance runs; the database overwrites it.
//   - Each deletion commits with an entry that counts the rows. It names nobody.
//   - Payments go on: rows are deleted by the thousand, with pauses that are longer than the work.
//
// # What is not
//
// Rows that entries cover stay: payments, attempts, events. Backups, and copies that others have, keep what they have.
package retention

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// Period is the time between looks.
const Period = time.Hour

// How many rows of a kind one commit deletes, and how many times as long as that took is waited before the next.
const (
	batch = 1000
	rest  = 9
)

// Config of a [Service].
type Config struct {
	Ledger *ledger.Ledger
	// How long rows are kept from when they, or what they belong to, were made; 0: for ever.
	Customers, WebhookDeliveries, IdempotencyKeys time.Duration
	Now                                           func() time.Time // nil: time.Now
	Log                                           *slog.Logger
}

// Service is used by one goroutine.
type Service struct{ cfg Config }

// New returns a service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg}
}

// Run deletes at once and then each [Period], until ctx ends. What cannot be deleted now is tried again with the next.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(Period)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "what is kept no longer could not be deleted", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// errNothing undoes a unit that had nothing to delete, so that no entry is written.
var errNothing = errors.New("retention: nothing to delete")

// Sweep deletes all that is older than its time now.
func (s *Service) Sweep(ctx context.Context) error {
	kept := store.Kept{Customers: s.since(s.cfg.Customers), WebhookDeliveries: s.since(s.cfg.WebhookDeliveries), IdempotencyKeys: s.since(s.cfg.IdempotencyKeys)}
	for {
		began := time.Now()
		deleted, err := s.delete(ctx, kept)
		if errors.Is(err, errNothing) {
			return nil
		}
		if err != nil {
			return err
		}
		if max(deleted.Customers, deleted.WebhookDeliveries, deleted.IdempotencyKeys) < batch {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest * time.Since(began)):
		}
	}
}

// since returns from when on rows are kept, and zero for ever.
func (s *Service) since(age time.Duration) time.Time {
	if age == 0 {
		return time.Time{}
	}
	return s.cfg.Now().Add(-age)
}

func (s *Service) delete(ctx context.Context, kept store.Kept) (deleted store.Deleted, err error) {
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) (err error) {
		if deleted, err = tx.DeleteOld(kept, batch); err != nil {
			return err
		}
		if deleted == (store.Deleted{}) {
			return errNothing
		}
		tx.Record(ledger.Entry{Type: "retention.applied", Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: "retention",
			Data: map[string]any{"customers": deleted.Customers, "webhook_deliveries": deleted.WebhookDeliveries, "idempotency_keys": deleted.IdempotencyKeys}})
		return nil
	})
	return deleted, err
}
