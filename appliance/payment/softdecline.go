package payment

import (
	"context"
	"errors"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/routing"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// A soft decline is an issuer's answer to a sale that it would approve after a challenge. The attempt is then authenticating
// again, once: a challenge is asked for, and a second sale follows. The card and its CVV are gone with the first answer, so that
// both are made from the token. Without a successful challenge the decline stands.

// soften enters a soft decline. The second sale's trace takes the place of the first one's, which its entries keep: declined, it
// has nothing to reverse. It returns whether the attempt goes on.
func (s *Service) soften(ctx context.Context, p *store.Payment, a *store.Attempt) bool {
	a.Status, a.SoftDecline = attemptAuthenticating, a.ResponseCode
	return s.insist(ctx, p.ID, "payment.soft_declined", func(ctx context.Context) error {
		return s.step(ctx, p, a, "payment.soft_declined", ledger.Failure, nil)
	})
}

// sellChallenged asks for the challenge that the issuer wants, and sells again after it. The 3DS Method has run, or not, for the
// first request; the shopper does not wait for it again.
func (s *Service) sellChallenged(ctx context.Context, p store.Payment, a store.Attempt, m store.Merchant, request pci.AuthenticationRequest) {
	request.Card, request.Domain, request.Token = pci.CardRef{}, a.Domain, a.Token
	request.Preference, request.Exemption = pci.ChallengeMandated, ""
	request.Method, request.MethodDone = nil, false
	result, challenged, err := s.authenticate(ctx, &p, &a, request)
	switch {
	case errors.Is(err, errChallengeTime):
		s.stand(ctx, p, a, api.ReasonChallengeTimedOut)
		return
	case err != nil:
		s.cfg.Log.WarnContext(ctx, "the challenge that an issuer wants cannot be had", "payment", p.ID, "error", err)
		s.stand(ctx, p, a, declineReason(a.SoftDecline))
		return
	case result.Outcome != pci.Authenticated && challenged:
		s.stand(ctx, p, a, api.ReasonNotAuthenticated)
		return
	case result.Outcome != pci.Authenticated:
		s.stand(ctx, p, a, declineReason(a.SoftDecline))
		return
	}
	s.sell(ctx, &p, &a, m, pci.SaleRequest{Payment: p.ID, Domain: a.Domain, Token: a.Token, Initiator: a.Initiator, Entered: a.Initiator == "", Amount: p.Amount,
		Merchant: m.Profile, Authentication: result}, false)
}

// stand enters that a soft decline was the last word.
func (s *Service) stand(ctx context.Context, p store.Payment, a store.Attempt, reason api.Reason) {
	a.ResponseCode = a.SoftDecline
	s.refuse(ctx, p, a, reason)
}

// giveUp ends an attempt whose sale could not be announced.
func (s *Service) giveUp(ctx context.Context, p store.Payment, a store.Attempt, cause error) {
	if a.SoftDecline == "" {
		reason := api.ReasonTryAgain
		if _, ok := errors.AsType[*routing.NotServedError](cause); ok {
			reason = api.ReasonNoConnector
		}
		s.abandon(ctx, p, a, reason, cause)
		return
	}
	s.cfg.Log.WarnContext(ctx, "a sale after a challenge could not be announced", "payment", p.ID, "error", cause)
	s.stand(ctx, p, a, declineReason(a.SoftDecline))
}
