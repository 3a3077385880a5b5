package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// challenge is an attempt that waits for the issuer's word. It lives in memory, like the card it is about: after
// a restart both are gone and the shopper is asked again.
type challenge struct {
	transID string // threeDSServerTransID
	issuer  pci.Challenge
	result  chan pci.Authentication // room for the one result
}

var (
	errChallengeTime = errors.New("payment: the shopper did not finish at the issuer in time")
	errClosing       = errors.New("payment: shutting down")
)

func (s *Service) openChallenge(paymentID string) *challenge {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.challenges[paymentID]
}

func (s *Service) closeChallenge(paymentID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.challenges, paymentID)
}

// ChallengeDone takes the issuer's word on an open challenge, as it came from the directory server. It returns
// once the result is with the attempt; the sale follows on its own. From then on the shopper who comes back waits.
func (s *Service) ChallengeDone(_ context.Context, paymentID string, result pci.Authentication) error {
	s.mu.Lock()
	c := s.challenges[paymentID]
	if c != nil && c.transID == result.ServerTransID { // and not that of a card whose attempt is over
		delete(s.challenges, paymentID)
	} else {
		c = nil
	}
	s.mu.Unlock()
	if c == nil {
		return fmt.Errorf("payment %s does not wait for this challenge: %w", paymentID, pci.ErrGone)
	}
	failpoint.Here("after challenge")
	c.result <- result
	return nil
}

// run takes one attempt from the card's entry to its end. page is the address of the shopper's page. The card is destroyed on
// every way out.
func (s *Service) run(ctx context.Context, p store.Payment, a store.Attempt, card pci.CardRef, entered pci.Entered, browser pci.Browser, page string) {
	defer s.destroy(card)
	m, customer, err := s.parties(ctx, p)
	if err != nil {
		s.abandon(ctx, p, a, api.ReasonTryAgain, err)
		return
	}
	if err := s.cfg.Connectors.Serves(need(p, &a, m, pci.Authentication{})); err != nil { // before anybody is asked
		s.abandon(ctx, p, a, api.ReasonNoConnector, err)
		return
	}
	request := authenticationRequest(p, a, m, customer, entered, browser, page)
	if a.Initiator == "" {
		request.Card = card
	} else {
		request.Domain, request.Token = a.Domain, a.Token
	}
	if browser.JavaScript { // which the method needs
		s.runMethod(ctx, &request, page+"/method")
	}
	result, challenged, err := s.authenticate(ctx, &p, &a, request)
	switch {
	case errors.Is(err, errChallengeTime):
		s.refuse(ctx, p, a, api.ReasonChallengeTimedOut)
		return
	case err != nil:
		s.abandon(ctx, p, a, api.ReasonTryAgain, err)
		return
	case !s.mayAuthorize(result.Outcome):
		s.refuse(ctx, p, a, api.ReasonNotAuthenticated)
		return
	}
	sale := pci.SaleRequest{Payment: p.ID, Amount: p.Amount, Merchant: m.Profile, Authentication: result, Exemption: p.Wishes.Exemption}
	if a.Initiator == "" {
		sale.Card = card
	} else {
		sale.Domain, sale.Token, sale.Initiator = a.Domain, a.Token, a.Initiator
	}
	if s.sell(ctx, &p, &a, m, sale, !challenged) {
		s.sellChallenged(ctx, p, a, m, request)
	}
}

// authenticate asks the issuer, and sends the shopper there where that is wanted. Where it returns an error, nothing may be sold.
func (s *Service) authenticate(ctx context.Context, p *store.Payment, a *store.Attempt, request pci.AuthenticationRequest) (result pci.Authentication, challenged bool, err error) {
	failpoint.Here("before authentication")
	result, err = s.cfg.ThreeDS.Authenticate(ctx, request)
	failpoint.Here("after authentication")
	if err != nil {
		return result, false, err // nothing was sent
	}
	a.TransStatus, a.ServerTransID, a.DSTransID, a.ECI = result.TransStatus, result.ServerTransID, result.DSTransID, result.ECI
	if result.Outcome != pci.ChallengeRequired {
		return result, false, nil
	}
	result, err = s.challenge(ctx, p, a, result)
	if err == nil {
		a.TransStatus, a.ECI = result.TransStatus, result.ECI
	}
	return result, true, err
}

func (s *Service) parties(ctx context.Context, p store.Payment) (store.Merchant, store.Customer, error) {
	read := s.cfg.Store.Read(ctx)
	m, err := read.Merchant(p.MerchantID)
	if err != nil {
		return m, store.Customer{}, err
	}
	customer, err := read.Customer(p.ID)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return m, customer, err
}

// mayAuthorize decides what follows 3-D Secure. What was refused is never authorized; where nobody could be asked,
// the configuration decides.
func (s *Service) mayAuthorize(outcome pci.AuthenticationOutcome) bool {
	switch outcome {
	case pci.Authenticated, pci.AuthenticationTried, pci.NotEnrolled, pci.NotChallenged:
		return true
	case pci.AuthenticationDown:
		return !s.cfg.UnavailableRefuse
	default:
		return false
	}
}

// challenge sends the shopper to the issuer and waits for the issuer's word.
func (s *Service) challenge(ctx context.Context, p *store.Payment, a *store.Attempt, result pci.Authentication) (pci.Authentication, error) {
	c := &challenge{transID: result.ServerTransID, issuer: *result.Challenge, result: make(chan pci.Authentication, 1)}
	if err := s.step(ctx, p, a, "payment.challenged", ledger.Success, nil); err != nil {
		return pci.Authentication{}, err
	}
	s.mu.Lock()
	s.challenges[p.ID] = c
	s.mu.Unlock()
	s.wake(p.ID)
	defer s.closeChallenge(p.ID)
	timeout := time.NewTimer(s.cfg.Challenge)
	defer timeout.Stop()
	select {
	case final := <-c.result:
		return final, nil
	case <-timeout.C:
		return pci.Authentication{}, errChallengeTime
	case <-s.closing:
		return pci.Authentication{}, errClosing
	}
}

// sell announces the sale, or the authorization, in a signed entry, sends it, and enters its outcome. It returns true where the
// issuer wants the cardholder challenged first: then the attempt is authenticating again. mayAsk says that it can be.
func (s *Service) sell(ctx context.Context, p *store.Payment, a *store.Attempt, m store.Merchant, sale pci.SaleRequest, mayAsk bool) (again bool) {
	approved, event := attemptCaptured, "payment.captured"
	if p.Capture == captureManual {
		approved, event = attemptAuthorized, "payment.authorized"
	}
	earlier := *a
	a.ResponseCode = ""
	answer, leave, err := s.send(ctx, p, a, m, sale)
	defer leave()
	if a.Status != attemptAuthorizing {
		s.giveUp(ctx, *p, earlier, err)
		return false
	}
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "a sale was not answered", "payment", p.ID, "outcome", string(answer.Outcome), "error", err)
	}
	s.destroy(sale.Card) // the CVV has served, whatever the answer (PCI DSS 3.3.1)
	a.ResponseCode, a.ApprovalCode, a.Reference, a.NetworkID = answer.ResponseCode, answer.ApprovalCode, answer.Reference, answer.NetworkID
	switch answer.Outcome {
	case pci.Approved:
		a.Status = approved
		s.finish(ctx, *p, *a, event, ledger.Success)
	case pci.Refused:
		if mayAsk && answer.Authenticate {
			return s.soften(ctx, p, a)
		}
		a.Status, a.Reason = attemptDeclined, string(declineReason(answer.ResponseCode))
		s.finish(ctx, *p, *a, "payment.declined", ledger.Failure)
	case pci.Unsent:
		a.Status, a.Reason = attemptAbandoned, string(api.ReasonTryAgain)
		s.finish(ctx, *p, *a, unsent(*a, "payment.not_sent"), ledger.Failure)
	default:
		s.uncertain(ctx, *p, *a, m)
	}
	return false
}

// Trace gives a sale or a reversal its numbers. Both are unique per day and terminal: the STAN comes from a sequence
// of a million per terminal, the RRN is the date in ISO 8583's manner (YDDDHH) and the STAN.
func (s *Service) Trace(tx *ledger.Tx, m store.Merchant) (pci.Trace, error) {
	n, err := tx.Next("stan/" + m.Profile.TerminalID)
	if err != nil {
		return pci.Trace{}, err
	}
	now := s.cfg.Now().UTC().Truncate(time.Second)
	stan := fmt.Sprintf("%06d", (n-1)%999999+1)
	return pci.Trace{STAN: stan, RRN: fmt.Sprintf("%d%03d%02d%s", now.Year()%10, now.YearDay(), now.Hour(), stan), TransmittedAt: now}, nil
}

// refuse ends an attempt that never reached the acquirer because the cardholder was not authenticated.
func (s *Service) refuse(ctx context.Context, p store.Payment, a store.Attempt, reason api.Reason) {
	a.Status, a.Reason = attemptDeclined, string(reason)
	s.finish(ctx, p, a, "payment.declined", ledger.Failure)
}

// abandon ends an attempt of which nothing left this machine; the shopper is asked again.
func (s *Service) abandon(ctx context.Context, p store.Payment, a store.Attempt, reason api.Reason, cause error) {
	s.cfg.Log.WarnContext(ctx, "an attempt was abandoned before anything was sent", "payment", p.ID, "error", cause)
	a.Status, a.Reason = attemptAbandoned, string(reason)
	s.finish(ctx, p, a, unsent(a, "payment.card_lost"), ledger.Failure)
}

// step commits one transition of a payment and its last attempt.
func (s *Service) step(ctx context.Context, p *store.Payment, a *store.Attempt, event, outcome string, more func(*ledger.Tx) error) error {
	_, err := s.enterStep(ctx, p, a, event, outcome, more)
	return err
}

// enterStep is step for a caller who tells others where its entry stands.
func (s *Service) enterStep(ctx context.Context, p *store.Payment, a *store.Attempt, event, outcome string, more func(*ledger.Tx) error) (ledger.Receipt, error) {
	failpoint.Here("before " + event)
	receipt, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		current, err := tx.Payment(p.ID)
		if err != nil {
			return err
		}
		if current.Attempts != a.N {
			return fmt.Errorf("%w: payment %s is at attempt %d, not %d", errMove, p.ID, current.Attempts, a.N)
		}
		if more != nil {
			if err := more(tx); err != nil {
				return err
			}
		}
		now := s.cfg.Now()
		current.UpdatedAt, a.UpdatedAt = now, now
		if err := putPayment(tx, &current, event); err != nil {
			return err
		}
		if err := tx.PutAttempt(*a); err != nil {
			return err
		}
		if err := putEvent(tx, event, current, a, now); err != nil {
			return err
		}
		tx.Record(entryOf(event, "system", "local", outcome, current, a))
		*p = current
		return nil
	})
	if err == nil {
		failpoint.Here("after " + event)
		s.wake(p.ID)
		if eventTypes[event] {
			s.cfg.Outbox()
		}
	}
	return receipt, err
}

// finish commits the end of an attempt. The outcome is a fact of the outside world, so it is committed again and
// again until it holds; when the process ends first, the next one resolves the attempt.
func (s *Service) finish(ctx context.Context, p store.Payment, a store.Attempt, event, outcome string) {
	s.finishWith(ctx, p, a, event, outcome, nil)
}

func (s *Service) finishWith(ctx context.Context, p store.Payment, a store.Attempt, event, outcome string, more func(*store.Attempt) func(*ledger.Tx) error) {
	s.insist(ctx, p.ID, event, func(ctx context.Context) error {
		var extra func(*ledger.Tx) error
		if more != nil {
			extra = more(&a)
		}
		return s.step(ctx, &p, &a, event, outcome, extra)
	})
}

// insist commits a fact of the outside world until it holds, or the process ends. It returns whether it holds.
func (s *Service) insist(ctx context.Context, paymentID, event string, commit func(context.Context) error) (holds bool) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := commit(context.WithoutCancel(ctx))
		if err == nil {
			return true
		}
		s.cfg.Log.ErrorContext(ctx, "what the acquirer has answered could not be committed yet", "payment", paymentID, "event", event, "error", err)
		if errors.Is(err, errMove) {
			return false // a retry would fail the same way
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		}
	}
}

// eventTypes are the transitions of which merchants are told.
var eventTypes = map[string]bool{
	"payment.authorized":         true,
	"payment.captured":           true,
	"payment.capture_refused":    true,
	"payment.voided":             true,
	"payment.withdrawn":          true,
	"payment.partially_refunded": true,
	"payment.refunded":           true,
	"payment.refund_failed":      true,
	"payment.declined":           true,
	"payment.indeterminate":      true,
	"payment.failed":             true,
	"payment.reversed":           true,
	"payment.expired":            true,
	"payment.restored":           true,
	"payment.resolved_captured":  true,
	"payment.resolved_failed":    true,
}

// eventName is what merchants read: where a payment stands now. For them a reversed payment has failed.
func eventName(event string) string {
	switch event {
	case "payment.reversed", "payment.resolved_failed":
		return "payment." + string(api.StatusFailed)
	case "payment.withdrawn":
		return "payment." + string(api.StatusVoided)
	case "payment.resolved_captured":
		return "payment." + string(api.StatusCaptured)
	case "payment.restored":
		return "payment." + string(api.StatusIndeterminate)
	}
	return event
}
