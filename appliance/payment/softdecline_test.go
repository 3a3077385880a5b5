package payment

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// softlyDeclined enters a card whose first sale is declined for want of a challenge.
func softlyDeclined(w *world, c card) (id string) {
	w.t.Helper()
	c.soft = true
	id, secret := w.create()
	w.paid(secret, c)
	return id
}

// ended waits for the end of a payment's first attempt.
func ended(w *world, id string) {
	w.t.Helper()
	w.until("the attempt has ended", func() bool {
		status := w.attempt(id, 1).Status
		return status != attemptAuthenticating && status != attemptAuthorizing
	})
}

func TestASoftDeclineIsChallengedAndSoldAgain(t *testing.T) {
	for _, test := range []struct {
		name   string
		card   card
		answer *pci.Authentication // of the challenge; nil where there is none
		want   api.Status
		reason api.Reason
		sales  int
	}{
		{"passed", card{}, &yes, api.StatusCaptured, "", 2},
		{"failed", card{}, &no, api.StatusDeclined, api.ReasonNotAuthenticated, 1},
		{"passed, and declined all the same", card{acquirer: pci.Refused, code: "51"}, &yes, api.StatusDeclined, api.ReasonInsufficientFunds, 2},
		{"passed, and not sent", card{acquirer: pci.Unsent}, &yes, api.StatusCreated, api.ReasonTryAgain, 1},
		{"authenticated without a challenge", card{second: pci.Authenticated}, nil, api.StatusCaptured, "", 2},
		{"not enrolled", card{second: pci.NotEnrolled}, nil, api.StatusDeclined, api.ReasonCardRefused, 1},
		{"not available", card{second: pci.AuthenticationDown}, nil, api.StatusDeclined, api.ReasonCardRefused, 1},
		{"attempted", card{second: pci.AuthenticationTried}, nil, api.StatusDeclined, api.ReasonCardRefused, 1},
		{"refused", card{second: pci.AuthenticationNo}, nil, api.StatusDeclined, api.ReasonCardRefused, 1},
		{"told only", card{second: pci.NotChallenged}, nil, api.StatusDeclined, api.ReasonCardRefused, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := in(t, nil)
			id := softlyDeclined(w, test.card)
			if test.answer != nil {
				if v, err := w.service.View(context.Background(), w.session(id)); err != nil || v.State != api.CheckoutChallenge || v.Challenge == nil {
					t.Fatalf("the page shows %s, %v", v.State, err)
				}
				w.wantStatus(id, api.StatusAuthenticating)
				if w.cards.left() != 0 {
					t.Error("the card is held while the shopper is at the issuer")
				}
				if err := w.service.ChallengeDone(context.Background(), id, *test.answer); err != nil {
					t.Fatal(err)
				}
			}
			ended(w, id)
			w.wantStatus(id, test.want)
			a := w.attempt(id, 1)
			if a.SoftDecline != "1A" || a.Reason != string(test.reason) {
				t.Errorf("soft decline %q, reason %q, want %q", a.SoftDecline, a.Reason, test.reason)
			}
			if test.want == api.StatusDeclined && test.sales == 1 && a.ResponseCode != "1A" {
				t.Errorf("the decline that stands has code %q", a.ResponseCode)
			}
			sales := w.acquirer.sales(id)
			if len(sales) != test.sales {
				t.Fatalf("%d sales, want %d", len(sales), test.sales)
			}
			if test.sales == 2 && (sales[0].STAN == sales[1].STAN || a.Trace.STAN != sales[1].STAN) {
				t.Errorf("sales %v, and the attempt has %s", sales, a.Trace.STAN)
			}
			var stans []string
			for _, e := range w.entries(id) {
				if e.Type == "payment.authorizing" {
					stans = append(stans, fmt.Sprint(e.Data["stan"]))
				}
			}
			if len(stans) == 0 || stans[0] != sales[0].STAN {
				t.Errorf("the log has traces %v, the first sale %s", stans, sales[0].STAN)
			}
			w.agree(id)
		})
	}
}

func TestASaleAfterAChallengeIsNotChallengedAgain(t *testing.T) {
	w := in(t, nil)
	id := softlyDeclined(w, card{issuer: pci.ChallengeRequired})
	if err := w.service.ChallengeDone(context.Background(), id, yes); err != nil {
		t.Fatal(err)
	}
	ended(w, id)
	w.wantStatus(id, api.StatusDeclined)
	if a := w.attempt(id, 1); a.SoftDecline != "" || a.ResponseCode != "1A" || len(w.issuer.requests()) != 1 {
		t.Errorf("%+v after %d requests", a, len(w.issuer.requests()))
	}
	w.agree(id)
}

func TestASecondSaleOfUnknownOutcomeIsWhatIsReversed(t *testing.T) {
	w := in(t, nil)
	id := softlyDeclined(w, card{acquirer: pci.Unknown, booked: true})
	if err := w.service.ChallengeDone(context.Background(), id, yes); err != nil {
		t.Fatal(err)
	}
	w.until("the outcome is unknown", func() bool { return w.payment(id).Status == string(api.StatusIndeterminate) })
	w.acquirer.set(func(a *acquirer) { a.ack = true })
	if left := w.service.reverseOnce(context.Background(), make(map[string]bool)); left != 0 {
		t.Fatalf("%d reversals are left", left)
	}
	w.wantStatus(id, api.StatusFailed)
	sales := w.acquirer.sales(id)
	if got := w.acquirer.reversals[0].Original.STAN; len(sales) != 2 || got != sales[1].STAN {
		t.Errorf("reversed %s of %v", got, sales)
	}
	if w.acquirer.charged(id) != 0 {
		t.Error("charged")
	}
	w.agree(id)
}

func TestAfterACrashASoftDeclineStands(t *testing.T) {
	w := in(t, nil)
	id := softlyDeclined(w, card{})
	w.wantStatus(id, api.StatusAuthenticating)
	w.restart()
	w.wantStatus(id, api.StatusDeclined)
	if a := w.attempt(id, 1); a.ResponseCode != "1A" || a.SoftDecline != "1A" {
		t.Errorf("%+v", a)
	}
	w.paid(w.session(id), card{})
	w.wantStatus(id, api.StatusCaptured)
	w.agree(id)
}

func TestAShopperWhoLeavesAfterASoftDeclineIsDeclined(t *testing.T) {
	w := in(t, func(c *Config) { c.Challenge = 10 * time.Millisecond })
	id := softlyDeclined(w, card{})
	ended(w, id)
	w.wantStatus(id, api.StatusDeclined)
	if a := w.attempt(id, 1); a.Reason != string(api.ReasonChallengeTimedOut) || a.ResponseCode != "1A" {
		t.Errorf("%+v", a)
	}
	w.agree(id)
}

func TestWhatAMerchantWishesReachesTheIssuer(t *testing.T) {
	w := in(t, nil)
	request := order()
	request.Authentication = &api.Authentication{Challenge: pci.NoChallenge, Exemption: pci.LowValue}
	request.Setup = pci.Instalments
	request.Recurring = &api.Agreement{Expiry: "2031-05-06", FrequencyDays: 28, Instalments: 12}
	request.Customer = &api.Customer{Name: "Siti", Billing: &api.Address{Line1: "1 Jalan Ampang", City: "Kuala Lumpur", State: "14", PostalCode: "50450", Country: "MY"}}
	p, err := w.service.Create(context.Background(), own, request, "")
	if err != nil {
		t.Fatal(err)
	}
	if p.Authentication == nil || *p.Authentication != *request.Authentication || p.Setup != request.Setup || *p.Recurring != *request.Recurring {
		t.Errorf("shown as %+v", p)
	}
	w.paid(w.session(p.ID), card{issuer: pci.NotChallenged})
	w.wantStatus(p.ID, api.StatusCaptured)
	got := w.issuer.requests()[0]
	if got.Preference != pci.NoChallenge || got.Exemption != pci.LowValue ||
		got.Agreement != (pci.Agreement{Setup: pci.Instalments, Expiry: time.Date(2031, 5, 6, 0, 0, 0, 0, time.UTC), Days: 28, Instalments: 12}) {
		t.Errorf("%+v", got)
	}
	if want := (pci.Address{Lines: [3]string{"1 Jalan Ampang"}, City: "Kuala Lumpur", State: "14", PostalCode: "50450", Country: "458"}); got.Cardholder.Billing != want {
		t.Errorf("%+v", got.Cardholder.Billing)
	}
	want := store.Wishes{Challenge: pci.NoChallenge, Exemption: pci.LowValue, Setup: pci.Instalments, RecurringExpiry: "2031-05-06", RecurringDays: 28, Instalments: 12}
	if row := w.payment(p.ID).Wishes; row != want {
		t.Errorf("kept as %+v", row)
	}
	w.agree(p.ID)
}
