package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// What an old copy of the database says of a payment that had not ended is a guess: a shopper may have paid since. Until
// somebody has asked the acquirer, nobody may pay it, and nothing is told of it but that.

// tracesSkipped is how far the numbers of messages to the acquirer are advanced: half of the six digits that there are (ISO 8583
// DE 11), so that those that were used since the copy are not used again on the same day, whichever they were.
const tracesSkipped = 500_000

// restoredBatch bounds the payments of one commit.
const restoredBatch = 100

// Restored makes indeterminate, in the log that l has open, what may have moved since its database was copied. Sales that
// were announced are left to [Service.Recover], which has their traces. attempts is how many cards may be tried on a payment.
func Restored(ctx context.Context, l *ledger.Ledger, s *store.Store, copied time.Time, attempts int) (marked int, err error) {
	if _, err := l.Commit(ctx, func(tx *ledger.Tx) error { return tx.Advance("stan/", tracesSkipped) }); err != nil {
		return 0, err
	}
	for {
		open, err := s.Read(ctx).PayablePayments(copied, attempts, restoredBatch)
		if err != nil || len(open) == 0 {
			return marked, err
		}
		now := time.Now()
		if _, err := l.Commit(ctx, func(tx *ledger.Tx) error {
			for _, p := range open {
				if err := markRestored(tx, p, now); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return marked, err
		}
		marked += len(open)
	}
}

func markRestored(tx *ledger.Tx, p store.Payment, now time.Time) error {
	var last *store.Attempt
	if p.Attempts > 0 {
		a, err := tx.Attempt(p.ID, p.Attempts)
		if err != nil {
			return err
		}
		last = &a
	}
	if last != nil && last.Status == attemptAuthenticating {
		last.Status, last.Reason, last.UpdatedAt = attemptUnknown, string(api.ReasonUnknownOutcome), now
		if err := tx.PutAttempt(*last); err != nil {
			return err
		}
	}
	return moved(tx, p, last, "payment.restored", "local", nil, now)
}

// moved commits a transition that an operator has caused.
func moved(tx *ledger.Tx, p store.Payment, a *store.Attempt, event, by string, data map[string]any, now time.Time) error {
	p.UpdatedAt = now
	if err := putPayment(tx, &p, event); err != nil {
		return err
	}
	if err := putEvent(tx, event, p, a, now); err != nil {
		return err
	}
	entry := entryOf(event, "operator", by, ledger.Success, p, a)
	for name, value := range data {
		entry.Data[name] = value
	}
	tx.Record(entry)
	return nil
}

// Resolve ends a payment that was [Restored], as people at the acquirer have told: it was charged, or it was not. reason goes
// into the log.
func Resolve(ctx context.Context, l *ledger.Ledger, id string, charged bool, by, reason string) (store.Payment, error) {
	event := "payment.resolved_failed"
	if charged {
		event = "payment.resolved_captured"
	}
	var p store.Payment
	_, err := l.Commit(ctx, func(tx *ledger.Tx) (err error) {
		if p, err = tx.Payment(id); errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("there is no payment %s", id)
		}
		if err != nil {
			return err
		}
		var last *store.Attempt
		if p.Attempts > 0 {
			a, err := tx.Attempt(p.ID, p.Attempts)
			if err != nil {
				return err
			}
			if a.Status == attemptIndeterminate || a.Status == attemptAuthorizing {
				return fmt.Errorf("payment %s is reversed by itself, as soon as the acquirer answers", id)
			}
			last = &a
		}
		return moved(tx, p, last, event, by, map[string]any{"why": reason}, time.Now())
	})
	return p, err
}
