package payment

import (
	"context"
	"fmt"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/routing"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// refund sends an announced refund, once, and enters its outcome. What certainly did not leave has failed.
func (s *Service) refund(ctx context.Context, m store.Modification) {
	result := pci.SaleResult{Outcome: pci.Unsent}
	read := s.cfg.Store.Read(ctx)
	p, a, err := subject(read, m.PaymentID)
	var merchant store.Merchant
	if err == nil {
		merchant, err = read.Merchant(p.MerchantID)
	}
	if err == nil {
		result, err = s.askRefund(ctx, p, a, merchant, m, false)
	}
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "a refund was not answered", "payment", m.PaymentID, "refund", m.ID, "outcome", string(result.Outcome), "error", err)
	}
	m.ResponseCode, m.ApprovalCode = result.ResponseCode, result.ApprovalCode
	switch result.Outcome {
	case pci.Approved:
		s.refunded(ctx, p, m)
	case pci.Refused:
		s.refundFailed(ctx, m, api.ModificationRefused)
	case pci.Unsent:
		s.refundFailed(ctx, m, api.ModificationUnsent)
	default:
		s.insist(ctx, m.PaymentID, "payment.refund_indeterminate", func(ctx context.Context) error { return s.refundUncertain(ctx, m) })
	}
}

// askRefund sends a refund to the connector of the sale. Without one it is [pci.Unsent] for a first try; a repeat is due again.
func (s *Service) askRefund(ctx context.Context, p store.Payment, a *store.Attempt, merchant store.Merchant, m store.Modification, repeat bool) (pci.SaleResult, error) {
	connector, err := s.cfg.Connectors.Named(a.Connector)
	if err != nil {
		return pci.SaleResult{Outcome: pci.Unsent}, err
	}
	failpoint.Here("before refund")
	defer failpoint.Here("after refund")
	return connector.Refund(ctx, pci.RefundRequest{Payment: p.ID, Domain: a.Domain, Token: a.Token, Amount: m.Amount, Merchant: merchant.Profile,
		Original: a.Trace, Stored: a.Initiator != "", OriginalMTI: mti(p), ApprovalCode: a.ApprovalCode, Reference: a.Reference, Trace: m.Trace, Repeat: repeat})
}

// refunded enters that money was given back. p is the payment as it was: nothing else changes it while a refund is open.
func (s *Service) refunded(ctx context.Context, p store.Payment, m store.Modification) {
	s.insist(ctx, m.PaymentID, "payment.refunded", func(ctx context.Context) error { return s.enterRefund(ctx, p, m) })
}

func (s *Service) enterRefund(ctx context.Context, p store.Payment, m store.Modification) error {
	event := "payment.partially_refunded"
	if p.Refunded+m.Amount.Minor == p.Captured {
		event = "payment.refunded"
	}
	m.Status, m.Reason = store.ModificationSucceeded, ""
	return s.amend(ctx, m, event, ledger.Success, func(p *store.Payment) { p.Refunded += m.Amount.Minor })
}

func (s *Service) refundFailed(ctx context.Context, m store.Modification, reason api.ModificationReason) {
	m.Status, m.Reason = store.ModificationFailed, string(reason)
	s.insist(ctx, m.PaymentID, "payment.refund_failed", func(ctx context.Context) error {
		return s.amend(ctx, m, "payment.refund_failed", ledger.Failure, nil)
	})
}

// refundUncertain enters that a refund left, or may have, and its outcome is not known; its reversal is due from the same
// commit on.
func (s *Service) refundUncertain(ctx context.Context, m store.Modification) error {
	m.Status, m.Reason = store.ModificationIndeterminate, string(api.ModificationUnknown)
	return s.amendWith(ctx, m, "payment.refund_indeterminate", ledger.Failure, func(tx *ledger.Tx, p *store.Payment, m *store.Modification) error {
		merchant, err := tx.Merchant(p.MerchantID)
		if err != nil {
			return err
		}
		m.Reversal, err = s.Trace(tx, merchant)
		return err
	})
}

// settleRefund finds out about a refund of unknown outcome: where the connector knows a repeat by its trace it is repeated, and
// else reversed.
func (s *Service) settleRefund(ctx context.Context, m store.Modification) error {
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
		return err
	}
	if !connector.Capabilities().RepeatRefund {
		return s.takeBack(ctx, connector, p, a, merchant, m)
	}
	result, err := s.askRefund(ctx, p, a, merchant, m, true)
	if result.Outcome == pci.Unknown {
		return fmt.Errorf("refund %s is still of unknown outcome: %w", m.ID, err)
	}
	m.ResponseCode, m.ApprovalCode = result.ResponseCode, result.ApprovalCode
	if result.Outcome == pci.Approved {
		return s.enterRefund(ctx, p, m)
	}
	m.Status, m.Reason = store.ModificationFailed, string(api.ModificationRefused)
	if result.Outcome == pci.Unsent {
		m.Reason = string(api.ModificationUnsent)
	}
	return s.amend(ctx, m, "payment.refund_failed", ledger.Failure, nil)
}

// takeBack reverses a refund of unknown outcome, which has then failed. All are repeats: what an earlier process has sent is
// not known, and a host that has not seen the first takes a repeat for it.
func (s *Service) takeBack(ctx context.Context, connector routing.Connector, p store.Payment, a *store.Attempt, merchant store.Merchant, m store.Modification) error {
	failpoint.Here("before refund reversal")
	acknowledged, err := connector.Reverse(ctx, pci.ReversalRequest{Payment: p.ID, Domain: a.Domain, Token: a.Token, Amount: m.Amount,
		Merchant: merchant.Profile, Original: m.Trace, Stored: a.Initiator != "", Refund: true, Reference: a.Reference, Trace: m.Reversal, Repeat: true})
	failpoint.Here("after refund reversal")
	if err != nil {
		return err
	}
	if !acknowledged {
		return errUnacknowledged
	}
	m.Status = store.ModificationFailed
	return s.amend(ctx, m, "payment.refund_failed", ledger.Failure, nil)
}

// recoverRefunds: a refund was announced by an earlier process; whether it left, and what became of it, nobody here knows.
func (s *Service) recoverRefunds(ctx context.Context) error {
	open, err := s.cfg.Store.Read(ctx).OpenModifications()
	if err != nil {
		return fmt.Errorf("find unfinished refunds: %w", err)
	}
	for _, m := range open {
		if m.Kind != store.ModificationRefund || m.Status != store.ModificationPending {
			continue
		}
		if err := s.refundUncertain(ctx, m); err != nil {
			return fmt.Errorf("resolve refund %s: %w", m.ID, err)
		}
	}
	return nil
}
