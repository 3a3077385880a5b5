package softhsmtest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/pci"
)

// again asks for a payment of 990 with the stored card of an earlier one.
func (s *system) again(token pci.Token, rest string) api.Payment {
	s.t.Helper()
	status, body := s.call("POST", "/v1/payments", fmt.Sprintf(`{"amount":990,"currency":"EUR","reference":"order-2","token":%q,%s}`, token, rest))
	if status != http.StatusCreated {
		s.t.Fatalf("create: %d %s", status, body)
	}
	return decode[api.Payment](s.t, body)
}

func TestAStoredCardPays(t *testing.T) {
	s := newSystem(t)
	byCustomer := fmt.Sprintf(`"return_url":%q`, s.shopURL()+"/return")
	for _, number := range []string{"4111111111111111", "4539123456789017", "378282246310005"} {
		first := s.payment(s.paidWith("automatic", number))
		if first.Status != api.StatusCaptured || first.Result == nil || !strings.HasPrefix(first.Result.NetworkID, "SIM") {
			t.Fatalf("the first payment: %+v, %+v", first, first.Result)
		}
		p := s.again(first.Token, byCustomer)
		_, challenged, err := s.shop.PayStored(t.Context(), p.CheckoutURL)
		if err != nil || challenged != (number == "4539123456789017") {
			t.Errorf("challenged %v, %v", challenged, err)
		}
		if got := s.settled(p.ID); got.Status != api.StatusCaptured || got.Token != first.Token || got.Card.Truncated != first.Card.Truncated || got.Initiator != pci.ByCustomer {
			t.Errorf("by the customer: %+v", got)
		}
		own := s.again(first.Token, fmt.Sprintf(`"initiator":"merchant","original":%q`, first.ID))
		if own.Status != api.StatusCaptured || own.Result.ThreeDS != "" || own.CheckoutURL != "" {
			t.Errorf("by the merchant: %+v", own)
		}
		if answer := s.modify(own.ID, "refunds", `{"amount":90}`); decode[api.Modification](t, answer).Status != api.ModificationSucceeded {
			t.Errorf("refund: %s", answer)
		}
		s.agree()
	}
	declined := s.payment(s.paidWith("automatic", "4539515151515151"))
	p := s.again(declined.Token, byCustomer)
	if _, _, err := s.shop.PayStored(t.Context(), p.CheckoutURL); err != nil {
		t.Error(err)
	}
	if got := s.settled(p.ID); got.Status != api.StatusDeclined {
		t.Errorf("a declined card: %+v", got)
	}
	if _, _, err := s.shop.Pay(t.Context(), p.CheckoutURL, typed("5555555555554444")); err != nil {
		t.Error(err)
	}
	if got := s.settled(p.ID); got.Status != api.StatusCaptured || got.Attempts != 2 || got.Card.Brand != pci.Mastercard {
		t.Errorf("after another card: %+v", got)
	}
	if status, body := s.call("POST", "/v1/payments", fmt.Sprintf(`{"amount":990,"currency":"EUR","reference":"x","token":%q,"initiator":"merchant","original":%q}`, declined.Token, declined.ID)); status != 422 {
		t.Errorf("on a declined payment: %d %s", status, body)
	}
	s.agree()
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}
