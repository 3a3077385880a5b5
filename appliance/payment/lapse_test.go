package payment

import (
	"errors"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

func TestAPaymentThatNobodyHasPaidIsWithdrawn(t *testing.T) {
	w := in(t, nil)
	fresh, secret := w.create()
	declined, again := w.create()
	w.paid(again, card{acquirer: pci.Refused, code: "05"})
	for _, id := range []string{fresh, declined} {
		for range 2 { // the second under the same key
			p, err := w.service.Void(t.Context(), own, id, "key-"+id)
			if err != nil || p.Status != api.StatusVoided || p.CheckoutURL != "" || p.Void != nil {
				t.Errorf("%+v, %v", p, err)
			}
		}
		if told := w.events(id); told["payment.voided"] != 1 {
			t.Errorf("told %v", told)
		}
		if _, err := w.service.Void(t.Context(), own, id, "another"); !errors.Is(err, api.ErrNotPossible) {
			t.Errorf("withdrawn twice: %v", err)
		}
		w.agree(id)
	}
	if v, err := w.service.View(t.Context(), secret); err != nil || v.State != api.CheckoutFailed {
		t.Errorf("the shopper sees %s, %v", v.State, err)
	}
	if v := w.paid(secret, card{}); v.State != api.CheckoutFailed || w.acquirer.charged(fresh) != 0 {
		t.Errorf("a card after that: %s, charged %d times", v.State, w.acquirer.charged(fresh))
	}
	stranger := own
	stranger.MerchantID = otherShop
	third, _ := w.create()
	if _, err := w.service.Void(t.Context(), stranger, third, ""); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("another merchant's: %v", err)
	}
}

func TestAPaymentThatIsBeingPaidIsNotWithdrawn(t *testing.T) {
	w := in(t, nil)
	id, secret := w.create()
	paid := make(chan struct{})
	go func() { defer close(paid); _, _ = w.pay(secret, card{hold: true}) }()
	w.until("the sale is there", func() bool { return w.acquirer.holds(id) })
	if _, err := w.service.Void(t.Context(), own, id, ""); !errors.Is(err, api.ErrNotPossible) {
		t.Errorf("%v", err)
	}
	w.acquirer.release()
	<-paid
	w.wantStatus(id, api.StatusCaptured)
}

func TestAnAuthorizationThatNobodyCapturesIsGivenUp(t *testing.T) {
	w := in(t, func(c *Config) { c.Authorization = 24 * time.Hour })
	w.acquirer.set(func(a *acquirer) { a.ack = true })
	id := w.authorized()
	w.clock.advance(24 * time.Hour)
	if err := w.service.lapse(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantStatus(id, api.StatusAuthorized) // the session comes before
	w.clock.advance(session + time.Second)
	kept := w.authorized()
	if err := w.service.lapse(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until("it is voided", func() bool { return w.payment(id).Status == string(api.StatusVoided) })
	w.wantStatus(kept, api.StatusAuthorized)
	if n := w.acquirer.charged(id); n != 0 {
		t.Errorf("still charged %d times", n)
	}
	for _, e := range w.entries(id) {
		if e.Type == "payment.void_requested" && e.Actor != "system" {
			t.Errorf("given up by %s", e.Actor)
		}
	}
	if m := w.modifications(id); len(m) != 1 || m[0].Kind != store.ModificationVoid {
		t.Errorf("%+v", m)
	}
	w.agree(id)
}
