//go:build peers

package stripe

import (
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/softhsm-test/fakestripe"
)

// Each request is held against Stripe's own OpenAPI document by stripe-mock, which refuses parameters that it does not know; its
// answers are fixtures without state, so those that count are fakestripe's.
func TestStripeMockTakesEveryRequest(t *testing.T) {
	a := open(t, good, nil)
	a.peer.Validator = fakestripe.StartMock(t)

	r := saleRequest()
	reference := a.authorized(r).Reference
	if done, err := a.Capture(t.Context(), captureOf(r, reference, 1000, false)); !done || err != nil {
		t.Errorf("capture: %t, %v", done, err)
	}
	if done, err := a.Capture(t.Context(), captureOf(r, reference, 1000, true)); !done || err != nil {
		t.Errorf("capture again: %t, %v", done, err)
	}
	for _, repeat := range []bool{false, true} {
		if result, err := a.Refund(t.Context(), refundOf(r, reference, 250, repeat)); result.Outcome != pci.Approved || err != nil {
			t.Errorf("refund: %+v, %v", result, err)
		}
	}
	voided := saleRequest()
	voided.Payment, voided.Trace = "pay_voided", trace(10)
	if done, err := a.Reverse(t.Context(), reversalOf(voided, a.authorized(voided).Reference)); !done || err != nil {
		t.Errorf("void: %t, %v", done, err)
	}
	stored := saleRequest()
	stored.Payment, stored.Trace, stored.Card, stored.Token, stored.Initiator = "pay_stored", trace(11), pci.CardRef{}, "9000000000000000", pci.ByMerchant
	a.sold(stored)
	for _, payment := range []string{"pay_stored", "pay_never_came"} {
		unknown := stored
		unknown.Payment = payment
		if done, err := a.Reverse(t.Context(), reversalOf(unknown, "")); !done || err != nil {
			t.Errorf("reversal of %s: %t, %v", payment, done, err)
		}
	}
	if err := a.probe(t.Context()); err != nil {
		t.Error(err)
	}
	for _, said := range a.peer.Invalid() {
		t.Error(said)
	}
	if len(a.peer.Requests()) < 19 || a.peer.Moved() != 750 || a.peer.Held() != 0 {
		t.Errorf("%d requests, %d moved, %d held", len(a.peer.Requests()), a.peer.Moved(), a.peer.Held())
	}
}

// The mock must be able to refuse, or the test above shows nothing.
func TestStripeMockRefusesWhatStripeDoesNotKnow(t *testing.T) {
	a := open(t, good, nil)
	a.peer.Validator = fakestripe.StartMock(t)
	f, err := newForm()
	if err != nil {
		t.Fatal(err)
	}
	defer f.wipe()
	f.number("amount", 100)
	f.text("currency", "eur")
	f.text("payment_method_options[card][three_d_secure][eci]", "05") // it is electronic_commerce_indicator
	var made intent
	if err := a.post(t.Context(), pathIntents, f, "", &made); err == nil || len(a.peer.Invalid()) != 1 {
		t.Errorf("it was taken: %v, %v", err, a.peer.Invalid())
	}
}

// Without the state of fakestripe the mock's own answers are not those of a sale that was made: they must settle nothing.
func TestFixturesOfStripeMockSettleNothing(t *testing.T) {
	mock := fakestripe.StartMock(t)
	a := open(t, good, nil)
	a.peer.Proxy(mock)
	result, err := a.Sale(t.Context(), saleRequest())
	if result.Outcome != pci.Unknown || err == nil {
		t.Errorf("%+v, %v", result, err)
	}
	t.Logf("the mock's answer to a sale: %v", err)
}
