package payment

import (
	"errors"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
)

func TestWhatWasToldOfACustomerIsForgottenAndThePaymentGoesOn(t *testing.T) {
	w := in(t, nil)
	request := order()
	request.Customer = &api.Customer{Name: "Siti Aminah", Email: "siti@example.com", Phone: "+60 12-345 6789"}
	p, err := w.service.Create(t.Context(), own, request, "")
	if err != nil {
		t.Fatal(err)
	}
	stranger := own
	stranger.MerchantID = otherShop
	if err := w.service.ForgetCustomer(t.Context(), stranger, p.ID); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("another merchant's: %v", err)
	}
	if c, err := w.store.Read(t.Context()).Customer(p.ID); err != nil || c.Name != "Siti Aminah" {
		t.Fatalf("%+v, %v", c, err)
	}
	without, _ := w.create()
	for _, id := range []string{p.ID, p.ID, without} { // once, again, and where nothing was told
		if err := w.service.ForgetCustomer(t.Context(), own, id); err != nil {
			t.Errorf("%v", err)
		}
		if _, err := w.store.Read(t.Context()).Customer(id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("it is still known: %v", err)
		}
	}
	for id, want := range map[string]int{p.ID: 1, without: 0} {
		n := 0
		for _, e := range w.entries(id) {
			if e.Type == "customer.forgotten" {
				n++
				if e.Actor != "key:"+own.KeyID || len(e.Data) != 1 {
					t.Errorf("%+v", e)
				}
			}
		}
		if n != want {
			t.Errorf("%d entries, want %d", n, want)
		}
	}
	if v := w.paid(w.session(p.ID), card{}); v.State != api.CheckoutPaid {
		t.Errorf("paying after that: %s", v.State)
	}
	w.agree(p.ID)
}
