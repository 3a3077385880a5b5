package payment

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// first sends a modification for the first time.
func (s *Service) first(ctx context.Context, m store.Modification) {
	if m.Kind == store.ModificationRefund {
		s.refund(ctx, m)
		return
	}
	if err := s.advise(ctx, m, false); err != nil {
		s.cfg.Log.WarnContext(ctx, "a modification was not answered, and is repeated", "payment", m.PaymentID, "modification", m.ID, "error", err)
	}
}

// repeatOnce sends each modification of the queue once more and returns how many are left. What was announced may have been
// sent by a process that is gone: all are repeats.
func (s *Service) repeatOnce(ctx context.Context) (left int) {
	open, err := s.cfg.Store.Read(ctx).OpenModifications()
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "the queue of modifications could not be read", "error", err)
		return 1
	}
	var group errgroup.Group
	group.SetLimit(reversalsAtOnce)
	faults := make([]error, len(open))
	for i, m := range open {
		group.Go(func() error {
			if ctx.Err() != nil || !s.takeOff(m.ID) {
				return nil
			}
			defer s.land(m.ID)
			faults[i] = s.again(ctx, m.ID)
			return nil
		})
	}
	_ = group.Wait()
	var last error
	for i, m := range open {
		if faults[i] != nil {
			left, last = left+1, fmt.Errorf("payment %s: %w", m.PaymentID, faults[i])
		}
	}
	if left > 0 && ctx.Err() == nil {
		s.cfg.Log.WarnContext(ctx, "modifications were not answered yet", "count", left, "error", last)
	}
	return left
}

// Unanswered returns how many captures, voids and refunds the acquirer has not answered yet.
func (s *Service) Unanswered(ctx context.Context) (int, error) {
	open, err := s.cfg.Store.Read(ctx).OpenModifications()
	return len(open), err
}

// again repeats a modification, unless it has ended since the queue was read.
func (s *Service) again(ctx context.Context, id string) error {
	m, err := s.cfg.Store.Read(ctx).Modification(id)
	if err != nil || !m.Open() {
		return err
	}
	leave, err := s.enterFor(ctx, m.PaymentID)
	if err != nil {
		return err
	}
	defer leave()
	switch {
	case m.Status == store.ModificationIndeterminate:
		return s.settleRefund(ctx, m)
	case m.Kind == store.ModificationRefund:
		return nil // is sent once; what an earlier process has left is found by [Service.Recover]
	}
	return s.advise(ctx, m, true)
}

// advise sends a capture or a void and enters what became of it. Without an answer, or while that cannot be entered, it
// returns an error and is due again: the acquirer knows a repeat by its trace.
func (s *Service) advise(ctx context.Context, m store.Modification, repeat bool) error {
	read := s.cfg.Store.Read(ctx)
	p, a, err := subject(read, m.PaymentID)
	if err != nil {
		return err
	}
	merchant, err := read.Merchant(p.MerchantID)
	if err != nil {
		return err
	}
	connector, err := s.cfg.Connectors.Named(a.Connector)
	if err != nil {
		return err // and is due again: nobody else may be told
	}
	failpoint.Here("before " + m.Kind)
	var acknowledged bool
	event := "payment.voided"
	if m.Kind == store.ModificationCapture {
		event = "payment.captured"
		acknowledged, err = connector.Capture(ctx, pci.CaptureRequest{Payment: p.ID, Domain: a.Domain, Token: a.Token, Amount: m.Amount, Authorized: p.Amount,
			Merchant: merchant.Profile, Original: a.Trace, Stored: a.Initiator != "", ApprovalCode: a.ApprovalCode, Reference: a.Reference, Trace: m.Trace, Repeat: repeat})
	} else {
		acknowledged, err = connector.Reverse(ctx, pci.ReversalRequest{Payment: p.ID, Domain: a.Domain, Token: a.Token, Amount: p.Amount,
			Merchant: merchant.Profile, Original: a.Trace, Stored: a.Initiator != "", OriginalMTI: mti(p), ApprovalCode: a.ApprovalCode, Reference: a.Reference, Trace: m.Trace, Repeat: repeat})
	}
	failpoint.Here("after " + m.Kind)
	switch {
	case m.Kind == store.ModificationCapture && errors.Is(err, pci.ErrRefused):
		s.cfg.Log.WarnContext(ctx, "the acquirer refuses a capture", "payment", p.ID, "error", err)
		m.Status, m.Reason = store.ModificationFailed, string(api.ModificationRefused)
		return s.amend(ctx, m, "payment.capture_refused", ledger.Failure, nil)
	case err != nil:
		return err
	case !acknowledged:
		return errUnacknowledged
	}
	m.Status = store.ModificationSucceeded
	return s.amend(ctx, m, event, ledger.Success, func(p *store.Payment) {
		if m.Kind == store.ModificationCapture {
			p.Captured = m.Amount.Minor
		}
	})
}

// amend commits what became of a modification, and changes the payment with it.
func (s *Service) amend(ctx context.Context, m store.Modification, event, outcome string, change func(*store.Payment)) error {
	return s.amendWith(ctx, m, event, outcome, func(_ *ledger.Tx, p *store.Payment, _ *store.Modification) error {
		if change != nil {
			change(p)
		}
		return nil
	})
}

func (s *Service) amendWith(ctx context.Context, m store.Modification, event, outcome string, change func(*ledger.Tx, *store.Payment, *store.Modification) error) error {
	failpoint.Here("before " + event)
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		current, err := tx.Modification(m.ID)
		if err != nil {
			return err
		}
		if !current.Open() {
			return fmt.Errorf("%w: modification %s has ended", errMove, m.ID)
		}
		p, a, err := subject(tx.Queries, m.PaymentID)
		if err != nil {
			return err
		}
		if err := change(tx, &p, &m); err != nil {
			return err
		}
		return s.put(tx, &m, p, a, event, "system", "local", outcome)
	})
	if err == nil {
		failpoint.Here("after " + event)
		s.notify(m.PaymentID)
	}
	return err
}
