package payment

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// View implements [api.Checkout].
func (s *Service) View(ctx context.Context, session string) (api.CheckoutView, error) {
	p, err := s.bySession(ctx, session)
	if err != nil {
		return api.CheckoutView{}, err
	}
	return s.view(ctx, p)
}

func (s *Service) bySession(ctx context.Context, session string) (store.Payment, error) {
	p, err := s.cfg.Store.Read(ctx).PaymentBySession(merchant.SessionHash(session))
	if errors.Is(err, store.ErrNotFound) {
		return p, api.ErrNoSession
	}
	return p, translate(err)
}

func (s *Service) view(ctx context.Context, p store.Payment) (api.CheckoutView, error) {
	read := s.cfg.Store.Read(ctx)
	m, err := read.Merchant(p.MerchantID)
	if err != nil {
		return api.CheckoutView{}, translate(err)
	}
	a, err := s.lastAttempt(read, p)
	if err != nil {
		return api.CheckoutView{}, translate(err)
	}
	v := api.CheckoutView{PaymentID: p.ID, State: s.state(p), Amount: p.Amount, MerchantID: p.MerchantID, MerchantName: m.Profile.Name, Reference: p.Reference, ExpiresAt: p.ExpiresAt,
		ReturnOrigin: originOf(p.ReturnURL)}
	if a != nil && v.State == api.CheckoutPayable {
		v.Decline = api.Reason(a.Reason)
	}
	if s.offersStored(p) {
		card, err := s.storedCard(read, m, p.Token)
		switch {
		case err == nil:
			v.Stored = &card.Card
		case !errors.Is(err, api.ErrInvalid): // deactivated or expired since: the shopper enters another
			return api.CheckoutView{}, translate(err)
		}
	}
	if v.State == api.CheckoutProcessing {
		if m := s.openMethod(p.ID); m != nil {
			v.State, v.Method = api.CheckoutMethod, &m.shown
		}
		if c := s.openChallenge(p.ID); c != nil {
			v.State, v.Challenge = api.CheckoutChallenge, &c.issuer
		}
	}
	if p.Status != string(api.StatusCreated) || v.State != api.CheckoutPayable {
		v.ReturnURL, err = s.cfg.Merchants.SignReturn(ctx, p.MerchantID, p.ReturnURL, p.ID, returnStatus(p, v.State))
	}
	return v, err
}

// originOf returns scheme, host and port of a URL that was checked when the payment was created.
func originOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// returnStatus is what the shop is told with the shopper's return. A payment whose time is over, or whose last card was
// lost, is told as expired even before the sweeper has entered it: it can end in no other way.
func returnStatus(p store.Payment, state api.CheckoutState) string {
	if state != api.CheckoutPayable && p.Status == string(api.StatusCreated) {
		return string(api.StatusExpired)
	}
	return p.Status
}

// state says what the shopper can do; an open challenge is the caller's to find.
func (s *Service) state(p store.Payment) api.CheckoutState {
	switch api.Status(p.Status) {
	case api.StatusAuthenticating, api.StatusAuthorizing:
		return api.CheckoutProcessing
	case api.StatusAuthorized, api.StatusCaptured, api.StatusPartiallyRefunded, api.StatusRefunded:
		return api.CheckoutPaid
	case api.StatusIndeterminate:
		return api.CheckoutUncertain
	case api.StatusFailed, api.StatusVoided:
		return api.CheckoutFailed
	case api.StatusExpired:
		return api.CheckoutExpired
	case api.StatusCreated, api.StatusDeclined:
		if s.payable(p) {
			return api.CheckoutPayable
		}
		if p.Attempts >= s.cfg.Attempts {
			return api.CheckoutFailed
		}
		return api.CheckoutExpired
	default:
		return api.CheckoutFailed
	}
}

// errNotPayable means that the payment took another card, or ended, while this one was on its way.
var errNotPayable = errors.New("payment: no card is wanted now")

// Pay implements [api.Checkout].
func (s *Service) Pay(ctx context.Context, session string, card pci.CardRef, entered pci.Entered, browser pci.Browser) (api.CheckoutView, error) {
	p, err := s.bySession(ctx, session)
	if err != nil {
		s.destroy(card)
		return api.CheckoutView{}, err
	}
	a, err := s.enter(ctx, &p, card, entered, browser)
	if errors.Is(err, errNotPayable) {
		s.destroy(card)
		return s.Await(ctx, session)
	}
	if err != nil {
		s.destroy(card)
		return api.CheckoutView{}, translate(err)
	}
	failpoint.Here("after payment.card_entered")
	started := s.start(func(ctx context.Context) {
		s.run(ctx, p, a, card, entered, browser, s.checkoutURL(session))
	})
	if !started { // shutting down: what the start of the next process would do
		s.destroy(card)
		return api.CheckoutView{}, fmt.Errorf("%w: shutting down", api.ErrUnavailable)
	}
	return s.Await(ctx, session)
}

// enter tokenizes the card and commits truncation, token and attempt with their signed entry. The card goes nowhere
// before that.
func (s *Service) enter(ctx context.Context, p *store.Payment, card pci.CardRef, entered pci.Entered, browser pci.Browser) (store.Attempt, error) {
	if !s.payable(*p) {
		return store.Attempt{}, errNotPayable
	}
	m, err := s.cfg.Store.Read(ctx).Merchant(p.MerchantID)
	if err != nil {
		return store.Attempt{}, err
	}
	failpoint.Here("before payment.card_entered")
	issued, _, err := s.cfg.Tokens.Tokenize(ctx, m.Domain, card, p.ID)
	if err != nil {
		return store.Attempt{}, err
	}
	origin, err := s.origin(ctx, browser.IP)
	if err != nil {
		return store.Attempt{}, err
	}
	form := entered.Form
	if form == "" {
		form = store.NewID("form") // a client that shows no form of ours submits each card once
	}
	var a store.Attempt
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		now := s.cfg.Now()
		current, err := tx.Payment(p.ID)
		if err != nil {
			return err
		}
		if _, err := tx.AttemptByForm(p.ID, form); err == nil || !s.payable(current) {
			return errNotPayable // a second press of the button is no replay
		}
		if err := tx.TakeEnvelope(entered.Envelope); err != nil {
			return err
		}
		current.Attempts++
		current.UpdatedAt = now
		a = store.Attempt{PaymentID: p.ID, N: current.Attempts, Status: attemptAuthenticating, Form: form, Domain: issued.Domain,
			Token: issued.Token, Card: issued.Card, CreatedAt: now, UpdatedAt: now}
		if err := putPayment(tx, &current, "payment.card_entered"); err != nil {
			return err
		}
		if err := tx.PutAttempt(a); err != nil {
			return err
		}
		if err := tx.PutToken(store.Token{Domain: issued.Domain, Token: issued.Token, Format: issued.Format, KeyVersion: issued.KeyVersion,
			Steps: issued.Steps, Image: issued.Image, Card: issued.Card, Status: store.TokenActive, CreatedAt: now}); err != nil {
			return err
		}
		tx.Record(entryOf("payment.card_entered", "shopper", origin, ledger.Success, current, &a))
		*p = current
		return nil
	})
	s.wake(p.ID)
	return a, err
}

// Await implements [api.Checkout].
func (s *Service) Await(ctx context.Context, session string) (api.CheckoutView, error) {
	p, err := s.bySession(ctx, session)
	if err != nil {
		return api.CheckoutView{}, err
	}
	for {
		v, err := s.awaitChange(ctx, p.ID)
		if err != nil || v.State != api.CheckoutProcessing || ctx.Err() != nil {
			return v, err // where ctx ended it is still processing: the page asks again
		}
	}
}

// awaitChange looks at a payment, and waits for its next change if it is processing.
func (s *Service) awaitChange(ctx context.Context, paymentID string) (api.CheckoutView, error) {
	change, leave := s.watch(paymentID) // before the look, so that no change falls between
	defer leave()
	p, err := s.cfg.Store.Read(ctx).Payment(paymentID)
	if err != nil {
		return api.CheckoutView{}, translate(err)
	}
	v := api.CheckoutView{State: s.state(p)}
	if v.State != api.CheckoutProcessing || s.atIssuer(paymentID) { // else nobody needs to know more
		if v, err = s.view(ctx, p); err != nil || v.State != api.CheckoutProcessing {
			return v, err
		}
	}
	select {
	case <-change:
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // it is told as it was
		return s.view(context.WithoutCancel(ctx), p)
	}
	return v, nil
}

// atIssuer reports whether the shopper's browser has something to do at the issuer.
func (s *Service) atIssuer(paymentID string) bool {
	return s.openMethod(paymentID) != nil || s.openChallenge(paymentID) != nil
}

// watched is a payment whose next change somebody waits for.
type watched struct {
	change  chan struct{} // closed at the change
	waiting int
}

// watch returns a channel that is closed at the payment's next change. The caller calls leave in the end: what nobody
// waits for is not kept.
func (s *Service) watch(paymentID string) (change <-chan struct{}, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.changed[paymentID]
	if w == nil {
		w = &watched{change: make(chan struct{})}
		s.changed[paymentID] = w
	}
	w.waiting++
	return w.change, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if w.waiting--; w.waiting == 0 && s.changed[paymentID] == w {
			delete(s.changed, paymentID)
		}
	}
}

// wake lets those who watch a payment look again.
func (s *Service) wake(paymentID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.changed[paymentID]; w != nil {
		close(w.change)
		delete(s.changed, paymentID)
	}
}

// notify tells of a payment's change: shoppers who wait, and the outbox.
func (s *Service) notify(paymentID string) {
	s.wake(paymentID)
	s.cfg.Outbox()
}

// start runs f in the background, unless the service is closing.
func (s *Service) start(f func(context.Context)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closing:
		return false
	default:
	}
	s.work.Go(func() { f(s.background) })
	return true
}

// destroy ends a card, whatever became of the request that brought it. A stored card is none of custody's.
func (s *Service) destroy(card pci.CardRef) {
	if card.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.background), 10*time.Second)
	defer cancel()
	if err := s.cfg.Cards.Destroy(ctx, card); err != nil {
		s.cfg.Log.ErrorContext(ctx, "a card could not be destroyed; it ends at its deadline", "error", err)
	}
}

// parsePhone splits "+60 123456789" into its two parts; anything else is not sent on.
func parsePhone(s string) pci.Phone {
	rest, ok := strings.CutPrefix(s, "+")
	if !ok {
		return pci.Phone{}
	}
	cc, subscriber, ok := strings.Cut(strings.ReplaceAll(rest, "-", " "), " ")
	if !ok {
		return pci.Phone{}
	}
	return pci.Phone{CountryCode: cc, Subscriber: strings.ReplaceAll(subscriber, " ", "")}
}
