package payment

import (
	"context"
	"errors"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/routing"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// need is what a payment, paid by the card of a, asks of a connector.
func need(p store.Payment, a *store.Attempt, m store.Merchant, result pci.Authentication) routing.Request {
	r := routing.Request{Merchant: m.ID, Sandbox: m.Profile.Sandbox, Need: pci.Need{Amount: p.Amount, ManualCapture: p.Capture == captureManual, External3DS: result.CAVV != ""}}
	if a != nil {
		r.Need.Brand = a.Card.Brand
	}
	return r
}

// checkLimits refuses what the merchant's profile does not allow.
func checkLimits(m store.Merchant, request api.CreatePayment) error {
	if len(m.Limits) == 0 {
		return nil
	}
	most, ok := m.Limits[request.Currency]
	if !ok {
		return api.ErrInvalid.With("The merchant's profile allows no payments in %s.", request.Currency).At("/currency")
	}
	if request.Amount > most {
		return api.ErrInvalid.With("The merchant's profile allows payments of up to %d, in the currency's minor unit.", most).At("/amount")
	}
	return nil
}

// checkServed refuses a payment that no connector would take, whatever the card.
func (s *Service) checkServed(m store.Merchant, request api.CreatePayment) error {
	p := store.Payment{Amount: pci.Amount{Minor: request.Amount, Currency: request.Currency}, Capture: request.Capture}
	err := s.cfg.Connectors.Serves(need(p, nil, m, pci.Authentication{}))
	not, ok := errors.AsType[*routing.NotServedError](err)
	if !ok {
		return err
	}
	switch not.Lacks {
	case "sandbox":
		return api.ErrInvalid.With("No connector takes payments of %s merchants.", merchant.ModeOf(m))
	case "currency":
		return api.ErrInvalid.With("No connector takes payments in %s.", request.Currency).At("/currency")
	case "amount":
		return api.ErrInvalid.With("No connector takes this amount.").At("/amount")
	case "manual_capture":
		return api.ErrInvalid.With("No connector that takes this payment authorizes first and captures later. Send capture: automatic.").At("/capture")
	default:
		return api.ErrInvalid.With("No connector is configured for this merchant.")
	}
}

// send finds the connector for a sale or an authorization, announces it in a signed entry, and sends it. Where certainly nothing
// left for one connector, the next is announced with a trace of its own, and asked. What could not be announced leaves a in its
// status: nothing was sent. The caller calls leave when the outcome is entered.
func (s *Service) send(ctx context.Context, p *store.Payment, a *store.Attempt, m store.Merchant, request pci.SaleRequest) (answer pci.SaleResult, leave func(), err error) {
	answer, leave = pci.SaleResult{Outcome: pci.Unsent}, func() {}
	routes, err := s.cfg.Connectors.Candidates(need(*p, a, m, request.Authentication))
	if err != nil {
		return answer, leave, err
	}
	event := "payment.authorizing"
	for i, route := range routes {
		leave() // the connector before
		inside, refused := s.gates.enter(ctx, route.Name)
		if refused != nil {
			return answer, func() {}, errors.Join(err, refused)
		}
		leave = inside
		before := err
		if answer, err = s.sendBy(ctx, route, event, p, a, m, request); a.Status != attemptAuthorizing || a.Connector != route.Name {
			return answer, leave, errors.Join(before, err) // of the connector before, nothing was sent either
		}
		if answer.Outcome != pci.Unsent || i == len(routes)-1 || errors.Is(err, pci.ErrGone) || ctx.Err() != nil {
			break
		}
		s.cfg.Log.WarnContext(ctx, "nothing left by a connector, the next is asked", "payment", p.ID, "connector", route.Name, "error", err)
		event = "payment.rerouted"
	}
	return answer, leave, err
}

// sendBy announces a sale by a connector and sends it. What could not be announced leaves a as it was.
func (s *Service) sendBy(ctx context.Context, route *routing.Route, event string, p *store.Payment, a *store.Attempt, m store.Merchant, request pci.SaleRequest) (pci.SaleResult, error) {
	announced := *a
	announced.Status, announced.Connector = attemptAuthorizing, route.Name
	receipt, err := s.enterStep(ctx, p, &announced, event, ledger.Success, func(tx *ledger.Tx) (err error) {
		announced.Trace, err = s.Trace(tx, m)
		return err
	})
	if err != nil {
		return pci.SaleResult{Outcome: pci.Unsent}, err
	}
	*a, request.Trace = announced, announced.Trace
	if request.Record, err = receipt.Record(); err != nil {
		return pci.SaleResult{Outcome: pci.Unsent}, err
	}
	ask := route.Sale
	if p.Capture == captureManual {
		ask = route.Authorize
	}
	failpoint.Here("before sale")
	defer failpoint.Here("after sale")
	return ask(ctx, request)
}

// checkCapable refuses what the connector of a sale cannot do.
func (s *Service) checkCapable(kind string, amount pci.Amount, p store.Payment, a *store.Attempt) error {
	connector, err := s.cfg.Connectors.Named(a.Connector)
	if err != nil {
		return api.ErrNotPossible.With("The connector %q, by which this was paid, is not configured. Tell the operator.", a.Connector)
	}
	var n pci.Need
	switch kind {
	case store.ModificationCapture:
		n.PartialCapture = amount.Minor < p.Amount.Minor
	case store.ModificationVoid:
		n.Void = true
	case store.ModificationRefund:
		n.Refund, n.PartialRefund = true, amount.Minor < p.Captured
	}
	if lacks := connector.Capabilities().Lacks(n); lacks != "" {
		return api.ErrNotPossible.With("The connector %q, by which this was paid, does not do that (%s).", a.Connector, lacks)
	}
	return nil
}
