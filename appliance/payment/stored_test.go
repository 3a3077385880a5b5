package payment

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// stored makes a payment with a card that stays stored, and returns its id and token.
func (w *world) stored() (id string, token pci.Token) {
	w.t.Helper()
	id, secret := w.create()
	w.paid(secret, card{})
	w.wantStatus(id, api.StatusCaptured)
	return id, w.attempt(id, 1).Token
}

// again asks for a payment with a stored card.
func (w *world) again(request api.CreatePayment, key string) api.Payment {
	w.t.Helper()
	p, err := w.service.Create(context.Background(), own, request, key)
	if err != nil {
		w.t.Fatalf("create: %v", err)
	}
	return p
}

func byCustomer(token pci.Token) api.CreatePayment {
	request := order()
	request.Token, request.Initiator = token, pci.ByCustomer
	return request
}

func byMerchant(token pci.Token, original string) api.CreatePayment {
	request := order()
	request.Token, request.Initiator, request.Original, request.ReturnURL = token, pci.ByMerchant, original, ""
	return request
}

func (a *acquirer) lastSale() pci.SaleRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sold[len(a.sold)-1]
}

func (w *world) payStored(secret, form string) api.CheckoutView {
	w.t.Helper()
	v, err := w.service.PayStored(context.Background(), secret, form, pci.Browser{IP: "198.51.100.7"})
	if err != nil {
		w.t.Fatalf("pay with the stored card: %v", err)
	}
	return v
}

func TestACustomerPaysWithTheStoredCard(t *testing.T) {
	w := in(t, nil)
	_, token := w.stored()
	p := w.again(byCustomer(token), "")
	if p.Token != token || p.Initiator != pci.ByCustomer || p.CheckoutURL == "" {
		t.Errorf("created %+v", p)
	}
	secret := w.session(p.ID)
	v, err := w.service.View(t.Context(), secret)
	if err != nil || v.State != api.CheckoutPayable || v.Stored == nil || *v.Stored != visa {
		t.Fatalf("shown %+v, %v", v, err)
	}
	if v := w.payStored(secret, "form-1"); v.State != api.CheckoutPaid {
		t.Errorf("after the button: %s", v.State)
	}
	w.wantStatus(p.ID, api.StatusCaptured)
	sale, asked := w.acquirer.lastSale(), w.issuer.requests()
	if sale.Token != token || sale.Domain != ownShop || sale.Initiator != pci.ByCustomer || !sale.Card.IsZero() || sale.Authentication.ECI != "05" {
		t.Errorf("sold with %+v", sale)
	}
	if last := asked[len(asked)-1]; last.Token != token || last.Domain != ownShop || !last.Card.IsZero() || last.Payment != p.ID {
		t.Errorf("authenticated with %+v", last)
	}
	w.payStored(secret, "form-1") // a second press
	if n := w.acquirer.charged(p.ID); n != 1 {
		t.Errorf("charged %d times", n)
	}
	w.agree(p.ID)
}

func TestAfterADeclineTheShopperEntersAnotherCard(t *testing.T) {
	w := in(t, nil)
	_, token := w.stored()
	w.cards.keep(token, card{acquirer: pci.Refused, code: "51"})
	p := w.again(byCustomer(token), "")
	secret := w.session(p.ID)
	if v := w.payStored(secret, ""); v.State != api.CheckoutPayable || v.Stored != nil || v.Decline != api.ReasonInsufficientFunds {
		t.Errorf("after a decline: %+v", v)
	}
	w.payStored(secret, "") // the page does not offer it any more
	if n := w.payment(p.ID).Attempts; n != 1 {
		t.Errorf("%d attempts", n)
	}
	w.paid(secret, card{})
	w.wantStatus(p.ID, api.StatusCaptured)
	if a := w.attempt(p.ID, 2); a.Initiator != "" {
		t.Errorf("a card that was entered is by %q", a.Initiator)
	}
	w.agree(p.ID)
}

func TestAStoredCardIsOfferedAgainWhereNothingWasSent(t *testing.T) {
	w := in(t, nil)
	_, token := w.stored()
	w.cards.keep(token, card{acquirer: pci.Unsent})
	p := w.again(byCustomer(token), "")
	secret := w.session(p.ID)
	if v := w.payStored(secret, ""); v.State != api.CheckoutPayable || v.Stored == nil || v.Decline != api.ReasonTryAgain {
		t.Errorf("after nothing was sent: %+v", v)
	}
	w.cards.keep(token, card{})
	w.payStored(secret, "")
	w.wantStatus(p.ID, api.StatusCaptured)
}

func TestATokenThatEndsMeanwhileIsNotOffered(t *testing.T) {
	w := in(t, nil)
	_, token := w.stored()
	p := w.again(byCustomer(token), "")
	secret := w.session(p.ID)
	w.deactivate(token)
	if v := w.payStored(secret, ""); v.State != api.CheckoutPayable || v.Stored != nil {
		t.Errorf("with a token that has ended: %+v", v)
	}
	if n := w.payment(p.ID).Attempts; n != 0 {
		t.Errorf("%d attempts", n)
	}
}

// deactivate ends a token, as its merchant may.
func (w *world) deactivate(token pci.Token) {
	w.t.Helper()
	_, err := w.ledger.Commit(context.Background(), func(tx *ledger.Tx) error {
		if err := tx.SetTokenState(ownShop, token, store.TokenState{Status: store.TokenInactive, Expiry: visa.Expiry, UpdatedAt: w.clock.Now()}); err != nil {
			return err
		}
		tx.Record(ledger.Entry{Type: "token.deactivated", Actor: "key:k", Origin: "local", Outcome: ledger.Success, Resource: string(token)})
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestAMerchantChargesAStoredCard(t *testing.T) {
	w := in(t, nil)
	original, token := w.stored()
	authenticated := len(w.issuer.requests())
	p := w.again(byMerchant(token, original), "key-1")
	if p.Status != api.StatusCaptured || p.Captured != p.Amount || p.Initiator != pci.ByMerchant || p.Original != original || p.CheckoutURL != "" || p.ReturnURL != "" {
		t.Errorf("charged %+v", p)
	}
	sale := w.acquirer.lastSale()
	if sale.Token != token || sale.Initiator != pci.ByMerchant || sale.NetworkID != networkID || !sale.Card.IsZero() || sale.Authentication != (pci.Authentication{}) {
		t.Errorf("sold with %+v", sale)
	}
	if n := len(w.issuer.requests()); n != authenticated {
		t.Error("a cardholder who is not there was to be authenticated")
	}
	if events := w.events(p.ID); events["payment.captured"] != 1 || len(events) != 1 {
		t.Errorf("told %v", events)
	}
	if again := w.again(byMerchant(token, original), "key-1"); again.ID != p.ID || w.acquirer.charged(p.ID) != 1 {
		t.Errorf("a repeat made %s", again.ID)
	}
	refund, err := w.service.Refund(t.Context(), own, p.ID, api.ModifyPayment{Amount: 250}, "")
	if err != nil || refund.Status != api.ModificationSucceeded {
		t.Errorf("refund: %+v, %v", refund, err)
	}
	w.agree(p.ID)
}

func TestAPaymentOfTheMerchantsOwnEnds(t *testing.T) {
	for name, c := range map[string]struct {
		card   card
		status api.Status
		reason api.Reason
		event  string
	}{
		"declined":   {card{acquirer: pci.Refused, code: "51"}, api.StatusDeclined, api.ReasonInsufficientFunds, "payment.declined"},
		"not sent":   {card{acquirer: pci.Unsent}, api.StatusFailed, api.ReasonTryAgain, "payment.failed"},
		"unanswered": {card{acquirer: pci.Unknown, booked: true}, api.StatusIndeterminate, api.ReasonUnknownOutcome, "payment.indeterminate"},
	} {
		t.Run(name, func(t *testing.T) {
			w := in(t, nil)
			original, token := w.stored()
			w.cards.keep(token, c.card)
			p := w.again(byMerchant(token, original), "")
			if p.Status != c.status || p.Result == nil || p.Result.Reason != c.reason || w.events(p.ID)[c.event] != 1 {
				t.Errorf("%+v, result %+v, told %v", p, p.Result, w.events(p.ID))
			}
			if v, err := w.service.View(t.Context(), w.session(p.ID)); err != nil || v.State == api.CheckoutPayable {
				t.Errorf("a shopper sees %s, %v", v.State, err)
			}
			w.acquirer.set(func(a *acquirer) { a.ack = true })
			w.service.reverseOnce(t.Context(), make(map[string]bool))
			if n := w.acquirer.charged(p.ID); n != 0 {
				t.Errorf("charged %d times in the end", n)
			}
			w.agree(p.ID)
		})
	}
}

func TestAMerchantsPaymentThatIsSlowIsShownAsItStands(t *testing.T) {
	w := in(t, func(c *Config) { c.Patience = 10 * time.Millisecond })
	original, token := w.stored()
	w.cards.keep(token, card{hold: true})
	p := w.again(byMerchant(token, original), "")
	if p.Status != api.StatusAuthenticating && p.Status != api.StatusAuthorizing {
		t.Errorf("shown as %s", p.Status)
	}
	w.until("the sale is there", func() bool { return w.acquirer.holds(p.ID) })
	w.acquirer.release()
	w.until("it is captured", func() bool { return w.payment(p.ID).Status == string(api.StatusCaptured) })
}

func TestAMerchantsPaymentAcrossACrash(t *testing.T) {
	w := in(t, nil)
	original, token := w.stored()
	w.cards.keep(token, card{hold: true})
	w.cfg.Patience = time.Millisecond
	w.restart()
	p := w.again(byMerchant(token, original), "")
	w.until("the sale is there", func() bool { return w.acquirer.holds(p.ID) })
	w.restart()
	w.acquirer.release()
	w.acquirer.set(func(a *acquirer) { a.ack = true })
	w.service.reverseOnce(t.Context(), make(map[string]bool))
	w.wantStatus(p.ID, api.StatusFailed)
	if n := w.acquirer.charged(p.ID); n != 0 {
		t.Errorf("charged %d times", n)
	}
	w.agree(p.ID)
}

func TestWhatCannotBePaidWithAStoredCard(t *testing.T) {
	w := in(t, nil)
	original, token := w.stored()
	declined, secret := w.create()
	w.paid(secret, card{acquirer: pci.Refused, code: "05"})
	_, another := w.stored()
	collected := w.again(byMerchant(token, original), "").ID
	unpaid, _ := w.create()
	before := w.count()
	for name, c := range map[string]struct {
		request api.CreatePayment
		pointer string
		detail  string
	}{
		"a token that was not issued": {byCustomer("9000000000009999"), "/token", "in use"},
		"no such original":            {byMerchant(token, "pay_none"), "/original", "no such"},
		"a declined original":         {byMerchant(w.attempt(declined, 1).Token, declined), "/original", "not approved"},
		"an original without a card":  {byMerchant(token, unpaid), "/original", "not approved"},
		"the merchant's own":          {byMerchant(token, collected), "/original", "the customer made"},
		"another card":                {byMerchant(another, original), "/original", "another card"},
	} {
		_, err := w.service.Create(t.Context(), own, c.request, "key "+name)
		var problem *api.Problem
		if !errors.As(err, &problem) || problem.Code != api.ErrInvalid.Code || problem.Pointer != c.pointer || !strings.Contains(problem.Detail, c.detail) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stranger := own
	stranger.MerchantID = otherShop
	if _, err := w.service.Create(t.Context(), stranger, byMerchant(token, original), ""); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("another merchant's token: %v", err)
	}
	w.deactivate(token)
	if _, err := w.service.Create(t.Context(), own, byCustomer(token), ""); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("a token that has ended: %v", err)
	}
	w.clock.advance(10 * 365 * 24 * time.Hour)
	if _, err := w.service.Create(t.Context(), own, byCustomer(another), ""); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("an expired card: %v", err)
	}
	if after := w.count(); after != before {
		t.Errorf("refusals have left %d payments", after-before)
	}
}

// count counts the payments of both shops.
func (w *world) count() (n int) {
	for _, shop := range []string{ownShop, otherShop} {
		rows, err := w.store.Read(context.Background()).Payments(store.PaymentFilter{MerchantID: shop, Limit: 1000})
		if err != nil {
			w.t.Fatal(err)
		}
		n += len(rows)
	}
	return n
}
