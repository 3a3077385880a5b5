package softhsmtest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
)

const (
	approvedCard     = "4111111111111111"
	captureLostCard  = "5105105105105100"
	refundDeniedCard = "5454545454545454"
	refundSilentCard = "4444333322221111"
)

// paidWith makes a payment of 1250 with this capture, and pays it.
func (s *system) paidWith(capture, card string) (id string) {
	s.t.Helper()
	status, body := s.call("POST", "/v1/payments", fmt.Sprintf(`{"amount":1250,"currency":"EUR","reference":"order-1","return_url":%q,"capture":%q}`, s.shopURL()+"/return", capture))
	if status != http.StatusCreated {
		s.t.Fatalf("create: %d %s", status, body)
	}
	p := decode[api.Payment](s.t, body)
	if _, _, err := s.shop.Pay(s.t.Context(), p.CheckoutURL, typed(card)); err != nil {
		s.t.Fatal(err)
	}
	return p.ID
}

// modify does something with a payment, and fails the test unless it is taken.
func (s *system) modify(id, what, body string) []byte {
	s.t.Helper()
	status, answer := s.call("POST", "/v1/payments/"+id+"/"+what, body)
	if status != http.StatusOK && status != http.StatusCreated {
		s.t.Fatalf("%s: %d %s", what, status, answer)
	}
	return answer
}

func (s *system) refunds(id string) []api.Modification {
	s.t.Helper()
	status, body := s.call("GET", "/v1/payments/"+id+"/refunds", "")
	if status != http.StatusOK {
		s.t.Fatalf("refunds: %d %s", status, body)
	}
	return decode[api.RefundList](s.t, body).Refunds
}

// modified waits until nothing is pending about a payment.
func (s *system) modified(id string) (p api.Payment, refunds []api.Modification) {
	s.t.Helper()
	s.until("payment "+id+" has nothing pending", func() bool {
		p, refunds = s.payment(id), s.refunds(id)
		all := append(refunds, p.Captures...)
		if p.Void != nil {
			all = append(all, *p.Void)
		}
		for _, m := range all {
			if m.Status == api.ModificationPending {
				return false
			}
		}
		return true
	})
	return p, refunds
}

func TestWhatAMerchantDoesWithAPaymentIsInTheAcquirersBooks(t *testing.T) {
	s := newSystem(t)
	part := s.paidWith("manual", approvedCard)
	if p := s.payment(part); p.Status != api.StatusAuthorized || s.books().Net["EUR"] != 0 {
		t.Fatalf("authorized: %s, %v", p.Status, s.books().Net)
	}
	if p := decode[api.Payment](t, s.modify(part, "capture", `{"amount":1000}`)); p.Status != api.StatusCaptured || p.Captured != 1000 {
		t.Errorf("captured: %+v", p)
	}
	s.agree()
	if m := decode[api.Modification](t, s.modify(part, "refunds", `{"amount":250}`)); m.Status != api.ModificationSucceeded {
		t.Errorf("refunded: %+v", m)
	}
	if status, body := s.call("POST", "/v1/payments/"+part+"/refunds", `{"amount":751}`); status != http.StatusUnprocessableEntity || !strings.Contains(string(body), "amount_too_large") {
		t.Errorf("refunding more than is left: %d %s", status, body)
	}
	s.modify(part, "refunds", "")
	if p := s.payment(part); p.Status != api.StatusRefunded || p.Refunded != 1000 || len(s.refunds(part)) != 2 {
		t.Errorf("all refunded: %+v", p)
	}
	s.agree()

	voided := s.paidWith("manual", approvedCard)
	if p := decode[api.Payment](t, s.modify(voided, "void", "")); p.Status != api.StatusVoided {
		t.Errorf("voided: %+v", p)
	}
	if status, body := s.call("POST", "/v1/payments/"+voided+"/capture", ""); status != http.StatusConflict || !strings.Contains(string(body), "not_possible_now") {
		t.Errorf("capturing what is voided: %d %s", status, body)
	}
	lost := s.paidWith("manual", captureLostCard)
	s.modify(lost, "capture", "")
	if p, _ := s.modified(lost); p.Status != api.StatusCaptured {
		t.Errorf("a capture whose answer was lost: %+v", p)
	}
	denied := s.paidWith("automatic", refundDeniedCard)
	if m := decode[api.Modification](t, s.modify(denied, "refunds", "")); m.Status != api.ModificationFailed || m.Reason != api.ModificationRefused || m.ResponseCode != "05" {
		t.Errorf("denied: %+v", m)
	}
	silent := s.paidWith("automatic", refundSilentCard)
	s.modify(silent, "refunds", "")
	if p, refunds := s.modified(silent); p.Status != api.StatusCaptured || refunds[0].Reason != api.ModificationUnknown {
		t.Errorf("a refund without an answer: %+v, %+v", p, refunds)
	}
	s.agree()
	_, receipt := s.call("GET", "/v1/payments/"+part+"/receipt", "")
	for _, kind := range []string{"payment.authorized", "payment.capture_requested", "payment.captured", "payment.refund_requested", "payment.partially_refunded", "payment.refunded"} {
		if !strings.Contains(string(receipt), kind) {
			t.Errorf("the receipt lacks %s", kind)
		}
	}
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

func TestKilledWithinACaptureVoidOrRefundThePaymentEndsInATrueState(t *testing.T) {
	s := newSystem(t)
	for _, tt := range []struct {
		place, capture, card, what string
		want                       api.Status
	}{
		{"before payment.captured", "manual", approvedCard, "capture", api.StatusCaptured},
		{"after payment.capture_requested", "manual", approvedCard, "capture", api.StatusCaptured},
		{"before capture", "manual", approvedCard, "capture", api.StatusCaptured},
		{"after capture", "manual", approvedCard, "capture", api.StatusCaptured},
		{"after payment.captured", "manual", approvedCard, "capture", api.StatusCaptured},
		{"after payment.void_requested", "manual", approvedCard, "void", api.StatusVoided},
		{"after void", "manual", approvedCard, "void", api.StatusVoided},
		{"after payment.voided", "manual", approvedCard, "void", api.StatusVoided},
		{"after payment.refund_requested", "automatic", approvedCard, "refunds", api.StatusCaptured}, // announced: reversed, though it never left
		{"before refund", "automatic", approvedCard, "refunds", api.StatusCaptured},
		{"after refund", "automatic", approvedCard, "refunds", api.StatusCaptured}, // approved, and nobody here remembers: reversed
		{"before payment.refunded", "automatic", approvedCard, "refunds", api.StatusCaptured},
		{"after payment.refunded", "automatic", approvedCard, "refunds", api.StatusRefunded},
		{"after payment.refund_indeterminate", "automatic", refundSilentCard, "refunds", api.StatusCaptured},
		{"after refund reversal", "automatic", refundSilentCard, "refunds", api.StatusCaptured},
		{"after payment.refund_failed", "automatic", refundSilentCard, "refunds", api.StatusCaptured},
	} {
		t.Run(tt.place, func(t *testing.T) {
			s.t = t
			s.serve.stop()
			s.serve = s.start("serve", "FINPAY_FAILPOINT="+tt.place)
			s.awaitReady()
			id := s.paidWith(tt.capture, tt.card)
			_, _, _ = s.try(s.client, "POST", "/v1/payments/"+id+"/"+tt.what, "") // fails, or not, where the kill falls
			select {
			case <-s.serve.done:
			case <-time.After(20 * time.Second):
				t.Fatal("the server never came to this place")
			}
			s.client.CloseIdleConnections()
			s.serve = s.start("serve")
			s.awaitReady()
			p, refunds := s.modified(id)
			if p.Status != tt.want {
				t.Errorf("the payment is %s, want %s", p.Status, tt.want)
			}
			s.agree()
			if len(refunds) == 1 && refunds[0].Status == api.ModificationFailed && tt.card == approvedCard {
				if m := decode[api.Modification](t, s.modify(id, "refunds", "")); m.Status != api.ModificationSucceeded {
					t.Errorf("another refund: %+v", m)
				}
				s.agree()
			}
		})
	}
	s.t = t
	s.serve.stop()
	s.verifyLog()
}
