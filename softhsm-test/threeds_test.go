package softhsmtest_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/simulator"
)

// hasty makes a directory server that does not answer cost five seconds.
var hasty = setting{"timeout: 15s                      # for AReq", "timeout: 5s                         # for AReq"}

// ask makes a payment of 1,250 cents by API, with more fields.
func (s *system) ask(more string) (id, link string) {
	s.t.Helper()
	status, body := s.call("POST", "/v1/payments", `{"amount":1250,"currency":"EUR","reference":"r","return_url":"`+s.shopURL()+`/return"`+more+`}`)
	if status != http.StatusCreated {
		s.t.Fatalf("%d %s", status, body)
	}
	p := decode[api.Payment](s.t, body)
	return p.ID, p.CheckoutURL
}

// An issuer or a directory server that says nothing useful is no authentication: where such payments are refused, none is sold.
func TestWhatIsNoAuthenticationIsNotSoldWhereThatIsRefused(t *testing.T) {
	s := newSystem(t, hasty, setting{"unavailable: proceed", "unavailable: refuse"})
	for _, card := range simulator.Cards {
		switch card.ThreeDS {
		case simulator.Unavailable, simulator.Informational, simulator.Decoupled, simulator.PaymentConfirmation, simulator.UnknownStatus,
			simulator.DSFails, simulator.DSSlow, simulator.DSMalformed, simulator.DSWrongID, simulator.DSErro:
		default:
			continue
		}
		t.Run(card.Number[:6]+"-"+card.Number[len(card.Number)-4:], func(t *testing.T) {
			s.t = t
			id, link := s.ask("")
			if _, _, err := s.shop.Pay(t.Context(), link, typed(card.Number)); err != nil {
				t.Log(err) // a declined payment has no way back but another card
			}
			if got := s.settled(id); got.Status != api.StatusDeclined || got.Result.Reason != "not_authenticated" || got.Captured != 0 {
				t.Errorf("%s, %+v", got.Status, got.Result)
			}
		})
	}
	s.t = t
	if n := len(s.books().Bookings); n != 0 {
		t.Errorf("the acquirer has %d bookings", n)
	}
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

func TestInformationIsEnoughWhereAnExemptionWasAskedFor(t *testing.T) {
	s := newSystem(t, setting{"unavailable: proceed", "unavailable: refuse"})
	id, link := s.ask(`,"authentication":{"exemption":"low_value"}`)
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4539737373737377")); err != nil {
		t.Fatal(err)
	}
	got := s.settled(id)
	if got.Status != api.StatusCaptured || got.Result.ThreeDS != "I" || got.Result.ECI != "" || got.Authentication == nil || got.Authentication.Exemption != "low_value" {
		t.Errorf("%s, %+v, %+v", got.Status, got.Result, got.Authentication)
	}
	s.agree()
}

func TestAMandatedChallengeIsHadInEachVersion(t *testing.T) {
	s := newSystem(t)
	for _, number := range []string{"4111111111111111", "4573111111111112"} {
		id, link := s.ask(`,"authentication":{"challenge":"mandated"},"setup":"recurring","recurring":{"expiry":"2031-12-31","frequency_days":28}`)
		_, challenged, err := s.shop.Pay(t.Context(), link, typed(number))
		if err != nil || !challenged {
			t.Errorf("%s: challenged %v, %v", number, challenged, err)
		}
		if got := s.settled(id); got.Status != api.StatusCaptured || got.Result.ThreeDS != "Y" || got.Setup != "recurring" || got.Recurring.FrequencyDays != 28 {
			t.Errorf("%s: %+v", number, got)
		}
	}
	s.agree()
}

func TestTheSecurityCodeGoesToIssuersOf231WhereThatIsConfigured(t *testing.T) {
	s := newSystem(t, setting{"card_security_code: false", "card_security_code: true "})
	for _, number := range []string{"4111111111111111", "4573111111111112", "4573123456789014"} {
		if got := s.pay(number); got.Status != api.StatusCaptured || got.Result.ThreeDS != "Y" { // the simulator refuses a code in 2.2.0
			t.Errorf("%s: %s, %+v", number, got.Status, got.Result)
		}
	}
	s.agree()
	s.serve.stop()
	noCardDataIn(t, s.cfg.State())
}

func TestASoftDeclineChargesOnceAfterItsChallenge(t *testing.T) {
	for _, spec := range []string{"ascii1987", "ascii1993"} {
		t.Run(spec, func(t *testing.T) {
			s := newSystem(t, setting{"spec: ascii1987 ", "spec: " + spec + " "})
			id, link := s.ask("")
			_, challenged, err := s.shop.Pay(t.Context(), link, typed("4539656565656569"))
			if err != nil || !challenged {
				t.Fatalf("challenged %v, %v", challenged, err)
			}
			if got := s.settled(id); got.Status != api.StatusCaptured || got.Attempts != 1 || got.Result.ThreeDS != "Y" || got.Captured != 1250 {
				t.Errorf("%s, %+v", got.Status, got.Result)
			}
			booked := s.books().Bookings
			if len(booked) != 2 || booked[0].State != simulator.BookedDeclined || booked[1].State != simulator.BookedApproved || booked[0].STAN == booked[1].STAN {
				t.Errorf("%+v", booked)
			}
			s.agree()
			if status, body := s.call("POST", "/v1/payments/"+id+"/refunds", `{}`); status != http.StatusCreated {
				t.Errorf("refund: %d %s", status, body)
			}
			s.until("it is refunded", func() bool { return s.payment(id).Status == api.StatusRefunded })
			s.agree()
			s.serve.stop()
			want := []string{"payment.created", "payment.card_entered", "payment.authorizing", "payment.soft_declined", "payment.challenged",
				"payment.authorizing", "payment.captured", "payment.refund_requested", "payment.refunded"}
			got := slices.DeleteFunc(s.types(id), func(kind string) bool { return kind == "webhook.delivered" }) // these come when they come
			if !slices.Equal(got, want) {
				t.Errorf("the log has %v, want %v", got, want)
			}
			s.verifyLog()
			noCardDataIn(t, s.cfg.State())
		})
	}
}

func TestASoftDeclineStandsWhereNobodyIsAskedAgain(t *testing.T) {
	s := newSystem(t, setting{`soft_declines: ["1A", "65"]`, `soft_declines: []`})
	id, link := s.ask("")
	if _, challenged, _ := s.shop.Pay(t.Context(), link, typed("4539656565656569")); challenged {
		t.Error("challenged")
	}
	if got := s.settled(id); got.Status != api.StatusDeclined || got.Result.ResponseCode != "1A" {
		t.Errorf("%s, %+v", got.Status, got.Result)
	}
	if booked := s.books().Bookings; len(booked) != 1 {
		t.Errorf("%+v", booked)
	}
}
