package payment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// How often what is not answered is repeated, and how often payments are looked at for their time.
const (
	reversalMin = time.Second
	reversalMax = time.Minute
	// reversalsAtOnce bounds what a queue of them asks of the acquirer.
	reversalsAtOnce = 8
	expiryPeriod    = 5 * time.Second
	expiryBatch     = 100
	closeTimeout    = 20 * time.Second
)

// uncertain enters that a sale left and its outcome is not known; its reversal is due from the same commit on.
func (s *Service) uncertain(ctx context.Context, p store.Payment, a store.Attempt, m store.Merchant) {
	a.Status, a.Reason = attemptIndeterminate, string(api.ReasonUnknownOutcome)
	s.finishWith(ctx, p, a, "payment.indeterminate", ledger.Failure, func(a *store.Attempt) func(*ledger.Tx) error {
		return func(tx *ledger.Tx) (err error) {
			a.Reversal, err = s.Trace(tx, m)
			return err
		}
	})
	wake(s.reversals)
}

// wake lets a queue look again.
func wake(queue chan<- struct{}) {
	select {
	case queue <- struct{}{}:
	default: // it will
	}
}

// Recover resolves what an earlier process left unfinished. It runs before anything is served.
func (s *Service) Recover(ctx context.Context) error {
	read := s.cfg.Store.Read(ctx)
	for status, resolve := range map[string]func(context.Context, store.Payment, store.Attempt) error{
		attemptAuthenticating: s.recoverUnsent,
		attemptAuthorizing:    s.recoverSent,
	} {
		attempts, err := read.AttemptsInStatus(status)
		if err != nil {
			return fmt.Errorf("find unfinished attempts: %w", err)
		}
		for _, a := range attempts {
			p, err := read.Payment(a.PaymentID)
			if err == nil {
				err = resolve(ctx, p, a)
			}
			if err != nil {
				return fmt.Errorf("resolve payment %s: %w", a.PaymentID, err)
			}
		}
	}
	return s.recoverRefunds(ctx)
}

// recoverUnsent: the card died with the process, and no sale was announced, or the one that was is declined for good.
func (s *Service) recoverUnsent(ctx context.Context, p store.Payment, a store.Attempt) error {
	if a.SoftDecline != "" {
		a.Status, a.Reason, a.ResponseCode = attemptDeclined, string(declineReason(a.SoftDecline)), a.SoftDecline
		return s.step(ctx, &p, &a, "payment.declined", ledger.Failure, nil)
	}
	a.Status, a.Reason = attemptAbandoned, string(api.ReasonTryAgain)
	return s.step(ctx, &p, &a, unsent(a, "payment.card_lost"), ledger.Failure, nil)
}

// recoverSent: a sale was announced; whether it left, and what became of it, nobody here knows.
func (s *Service) recoverSent(ctx context.Context, p store.Payment, a store.Attempt) error {
	m, err := s.cfg.Store.Read(ctx).Merchant(p.MerchantID)
	if err != nil {
		return err
	}
	a.Status, a.Reason = attemptIndeterminate, string(api.ReasonUnknownOutcome)
	return s.step(ctx, &p, &a, "payment.indeterminate", ledger.Failure, func(tx *ledger.Tx) (err error) {
		a.Reversal, err = s.Trace(tx, m)
		return err
	})
}

// Run reverses what is of unknown outcome and repeats captures and voids until the acquirer has answered, and ends payments at their time. When ctx
// ends it waits for the attempts under way; what cannot finish by then is resolved by the next process.
func (s *Service) Run(ctx context.Context) {
	var queues sync.WaitGroup
	tried := make(map[string]bool) // by this process
	queues.Go(func() { work(ctx, s.reversals, func(ctx context.Context) int { return s.reverseOnce(ctx, tried) }) })
	queues.Go(func() { work(ctx, s.repeats, s.repeatOnce) })
	tick := time.NewTicker(expiryPeriod)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			if err := s.expire(ctx); err != nil {
				s.cfg.Log.ErrorContext(ctx, "payments could not be ended at their time", "error", err)
			}
			if err := s.lapse(ctx); err != nil {
				s.cfg.Log.ErrorContext(ctx, "authorizations could not be voided at their time", "error", err)
			}
		case <-ctx.Done():
		}
	}
	queues.Wait()
	s.close()
}

// close lets no new attempt begin, gives up open challenges (shoppers take minutes), and waits for the attempts
// under way: they end by their own deadlines, or are cut off and left to the next process.
func (s *Service) close() {
	s.mu.Lock()
	close(s.closing)
	s.mu.Unlock()
	cut := time.AfterFunc(closeTimeout, s.cancel)
	defer cut.Stop()
	s.work.Wait()
	s.cancel()
}

// work goes through a durable queue, at once and when it is woken, and again after a while as long as something is left.
func work(ctx context.Context, wake <-chan struct{}, once func(context.Context) (left int)) {
	wait := reversalMin
	for {
		left := once(ctx)
		if left == 0 {
			wait = reversalMin
		} else {
			wait = min(2*wait, reversalMax)
		}
		retry := (<-chan time.Time)(nil)
		if left > 0 {
			retry = time.After(wait)
		}
		select {
		case <-wake:
			wait = reversalMin
		case <-retry:
		case <-ctx.Done():
			return
		}
	}
}

// reverseOnce tries each attempt in status indeterminate once and returns how many are left. Several are under way at once: one that
// the acquirer does not answer must not keep the others waiting.
func (s *Service) reverseOnce(ctx context.Context, tried map[string]bool) (left int) {
	attempts, err := s.cfg.Store.Read(ctx).AttemptsInStatus(attemptIndeterminate)
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "the reversal queue could not be read", "error", err)
		return 1
	}
	var group errgroup.Group
	group.SetLimit(reversalsAtOnce)
	faults := make([]error, len(attempts))
	for i, a := range attempts {
		// What an earlier process has sent is not known: a repeat is right for a host that has seen the first, and
		// good for one that has not.
		repeat := tried[a.PaymentID] || a.UpdatedAt.Before(s.started)
		tried[a.PaymentID] = true
		group.Go(func() error {
			if faults[i] = ctx.Err(); faults[i] == nil {
				faults[i] = s.reverse(ctx, a, repeat)
			}
			return nil
		})
	}
	_ = group.Wait()
	var last error
	for i, a := range attempts {
		if faults[i] == nil {
			delete(tried, a.PaymentID)
			continue
		}
		left, last = left+1, fmt.Errorf("payment %s: %w", a.PaymentID, faults[i])
	}
	if left > 0 && ctx.Err() == nil {
		s.cfg.Log.WarnContext(ctx, "reversals were not acknowledged yet", "count", left, "error", last)
	}
	return left
}

func (s *Service) reverse(ctx context.Context, a store.Attempt, repeat bool) error {
	read := s.cfg.Store.Read(ctx)
	p, err := read.Payment(a.PaymentID)
	if err != nil {
		return err
	}
	m, err := read.Merchant(p.MerchantID)
	if err != nil {
		return err
	}
	connector, err := s.cfg.Connectors.Named(a.Connector)
	if err != nil {
		return err // and is due again: nobody else may be told
	}
	leave, err := s.gates.enter(ctx, a.Connector)
	if err != nil {
		return err
	}
	defer leave()
	failpoint.Here("before reversal")
	acknowledged, err := connector.Reverse(ctx, pci.ReversalRequest{Payment: p.ID, Domain: a.Domain, Token: a.Token, Amount: p.Amount,
		Merchant: m.Profile, Original: a.Trace, Stored: a.Initiator != "", OriginalMTI: mti(p), Reference: a.Reference, Trace: a.Reversal, Repeat: repeat})
	failpoint.Here("after reversal")
	if err != nil {
		return err
	}
	if !acknowledged {
		return errors.New("the acquirer refused the reversal")
	}
	a.Status = attemptReversed
	return s.step(ctx, &p, &a, "payment.reversed", ledger.Success, nil)
}

// expire ends payments for which no card came in time.
func (s *Service) expire(ctx context.Context) error {
	late, err := s.cfg.Store.Read(ctx).PaymentsInStatus(string(api.StatusCreated), s.cfg.Now(), expiryBatch)
	if err != nil {
		return err
	}
	for _, p := range late {
		failpoint.Here("before payment.expired")
		_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
			now := s.cfg.Now()
			current, err := tx.Payment(p.ID)
			if err != nil || current.Status != string(api.StatusCreated) {
				return err
			}
			current.UpdatedAt = now
			if err := putPayment(tx, &current, "payment.expired"); err != nil {
				return err
			}
			if err := putEvent(tx, "payment.expired", current, nil, now); err != nil {
				return err
			}
			tx.Record(entryOf("payment.expired", "system", "local", ledger.Failure, current, nil))
			return nil
		})
		if err != nil {
			return err
		}
		failpoint.Here("after payment.expired")
		s.notify(p.ID)
	}
	return nil
}

// Pending returns how many sales wait for their reversal to be acknowledged.
func (s *Service) Pending(ctx context.Context) (int, error) {
	attempts, err := s.cfg.Store.Read(ctx).AttemptsInStatus(attemptIndeterminate)
	return len(attempts), err
}

// putEvent puts what merchants are told into the outbox, in the transition's own commit.
func putEvent(tx *ledger.Tx, event string, p store.Payment, a *store.Attempt, now time.Time) error {
	if !eventTypes[event] {
		return nil
	}
	modifications, err := tx.Modifications(p.ID)
	if err != nil {
		return err
	}
	body, err := json.Marshal(struct {
		Type      string      `json:"type"`
		Timestamp time.Time   `json:"timestamp"`
		Data      api.Payment `json:"data"`
	}{eventName(event), now.UTC(), shown(p, a, modifications)})
	if err != nil {
		return fmt.Errorf("event of payment %s: %w", p.ID, err)
	}
	return tx.PutEvent(store.Event{ID: store.NewID("evt"), MerchantID: p.MerchantID, PaymentID: p.ID, Type: eventName(event), Body: body, CreatedAt: now})
}
