package payment

import (
	"context"
	"errors"
	"fmt"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// storedCard finds the card that a payment is to be paid with by its token. One that cannot be used is refused before there
// is a payment.
func (s *Service) storedCard(read store.Queries, m store.Merchant, token pci.Token) (store.Token, error) {
	row, err := read.Token(m.Domain, token)
	if errors.Is(err, store.ErrNotFound) || err == nil && row.Status == store.TokenInactive {
		return row, api.ErrInvalid.At("/token").With("No token that is in use has this value.")
	}
	if err != nil {
		return row, err
	}
	if !row.Card.Expiry.Valid(s.cfg.Now()) {
		return row, api.ErrInvalid.At("/token").With("The card has expired. Have the customer enter another one.")
	}
	return row, nil
}

// agreement refuses an original by which no customer has agreed to what their merchant does with a stored card: it is an approved
// payment of the customer's own, with the same card.
func agreement(read store.Queries, m store.Merchant, original string, card store.Token) error {
	no := api.ErrInvalid.At("/original")
	p, a, err := subject(read, original)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && p.MerchantID != m.ID:
		return no.With("There is no such payment.")
	case err != nil:
		return err
	case p.Initiator == pci.ByMerchant:
		return no.With("Name the payment that the customer made, not one of the merchant's own.")
	case a == nil || a.Status != attemptAuthorized && a.Status != attemptCaptured:
		return no.With("That payment was not approved.")
	case a.Token == card.Token || a.Token == card.ReplacedBy:
		return nil
	}
	earlier, err := read.Token(a.Domain, a.Token)
	if err == nil && a.Domain == m.Domain && earlier.ReplacedBy == card.Token {
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return no.With("That payment was made with another card.")
}

// PayStored implements [api.Checkout].
func (s *Service) PayStored(ctx context.Context, session, form string, browser pci.Browser) (api.CheckoutView, error) {
	p, err := s.bySession(ctx, session)
	if err != nil {
		return api.CheckoutView{}, err
	}
	a, err := s.choose(ctx, &p, form, browser)
	if errors.Is(err, errNotPayable) {
		return s.Await(ctx, session)
	}
	if err != nil {
		return api.CheckoutView{}, translate(err)
	}
	failpoint.Here("after payment.card_chosen")
	started := s.start(func(ctx context.Context) {
		s.run(ctx, p, a, pci.CardRef{}, pci.Entered{}, browser, s.checkoutURL(session))
	})
	if !started { // shutting down: the next process abandons the attempt
		return api.CheckoutView{}, fmt.Errorf("%w: shutting down", api.ErrUnavailable)
	}
	return s.Await(ctx, session)
}

// choose enters that the shopper pays with the stored card.
func (s *Service) choose(ctx context.Context, p *store.Payment, form string, browser pci.Browser) (store.Attempt, error) {
	failpoint.Here("before payment.card_chosen")
	origin, err := s.origin(ctx, browser.IP)
	if err != nil {
		return store.Attempt{}, err
	}
	if form == "" {
		form = store.NewID("form")
	}
	var a store.Attempt
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		current, err := tx.Payment(p.ID)
		if err != nil {
			return err
		}
		if _, err := tx.AttemptByForm(p.ID, form); err == nil || !s.offersStored(current) {
			return errNotPayable // a second press of the button is no replay
		}
		m, err := tx.Merchant(current.MerchantID)
		if err != nil {
			return err
		}
		card, err := s.storedCard(tx.Queries, m, current.Token)
		if errors.Is(err, api.ErrInvalid) {
			return errNotPayable // deactivated or expired since it was shown: another card is asked for
		}
		if err != nil {
			return err
		}
		a, err = s.putStored(tx, &current, card, form, "shopper", origin)
		*p = current
		return err
	})
	s.notify(p.ID)
	return a, err
}

// offersStored reports whether the shopper may pay with the payment's stored card now. After a decline it is another card's
// turn.
func (s *Service) offersStored(p store.Payment) bool {
	return p.Token != "" && p.Status == string(api.StatusCreated) && s.payable(p)
}

// putStored writes an attempt with a stored card, and its entry.
func (s *Service) putStored(tx *ledger.Tx, p *store.Payment, card store.Token, form, actor, origin string) (store.Attempt, error) {
	now := s.cfg.Now()
	p.Attempts++
	p.UpdatedAt = now
	a := store.Attempt{PaymentID: p.ID, N: p.Attempts, Status: attemptAuthenticating, Form: form, Initiator: p.Initiator,
		Domain: card.Domain, Token: card.Token, Card: card.Card, CreatedAt: now, UpdatedAt: now}
	if err := putPayment(tx, p, "payment.card_chosen"); err != nil {
		return a, err
	}
	if err := tx.PutAttempt(a); err != nil {
		return a, err
	}
	tx.Record(entryOf("payment.card_chosen", actor, origin, ledger.Success, *p, &a))
	return a, nil
}

// collect charges a payment that its merchant makes on their own, and returns when it is decided or patience is over. The
// cardholder is not there: nobody is authenticated.
func (s *Service) collect(ctx context.Context, p store.Payment, a store.Attempt) {
	failpoint.Here("after payment.card_chosen")
	id := p.ID // p is the attempt's own from now on
	s.notify(id)
	started := s.start(func(ctx context.Context) {
		m, err := s.cfg.Store.Read(ctx).Merchant(p.MerchantID)
		var earlier string
		if err == nil {
			earlier, err = s.networkID(ctx, p)
		}
		if err != nil {
			s.abandon(ctx, p, a, api.ReasonTryAgain, err)
			return
		}
		s.sell(ctx, &p, &a, m, pci.SaleRequest{Payment: p.ID, Domain: a.Domain, Token: a.Token, Initiator: a.Initiator, NetworkID: earlier,
			Amount: p.Amount, Merchant: m.Profile, Exemption: p.Wishes.Exemption}, false)
	})
	if started { // else the next process ends it
		s.patiently(ctx, id, func() bool {
			now, err := s.cfg.Store.Read(ctx).Payment(id)
			return err != nil || now.Status != string(api.StatusAuthenticating) && now.Status != string(api.StatusAuthorizing)
		})
	}
}

// unsent is the event that ends an attempt of which nothing reached the acquirer: a shopper is asked again, a payment of the
// merchant's own has failed.
func unsent(a store.Attempt, event string) string {
	if a.Initiator == pci.ByMerchant {
		return "payment.failed"
	}
	return event
}

// networkID returns the scheme's identifier of the transaction by which the customer agreed to a payment of the merchant's
// own; empty where there is none, or where the acquirer told none.
func (s *Service) networkID(ctx context.Context, p store.Payment) (string, error) {
	if p.Original == "" {
		return "", nil
	}
	_, a, err := subject(s.cfg.Store.Read(ctx), p.Original)
	if err != nil || a == nil {
		return "", err
	}
	return a.NetworkID, nil
}
