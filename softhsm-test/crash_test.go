package softhsmtest_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
)

// softlyDeclined is sold twice, with a challenge between.
const softlyDeclined = "4539656565656569"

// places are all at which the server is killed between two steps of a payment, and the card that leads there.
var places = []struct {
	place, card string
	want        api.Status // where the payment ends after the restart
}{
	{"before payment.card_entered", "4111111111111111", api.StatusCreated},
	{"after payment.card_entered", "4111111111111111", api.StatusCreated},
	{"before authentication", "4111111111111111", api.StatusCreated},
	{"after authentication", "4111111111111111", api.StatusCreated},
	{"before payment.challenged", "4539123456789017", api.StatusCreated},
	{"after payment.challenged", "4539123456789017", api.StatusCreated},
	{"after challenge", "4539123456789017", api.StatusCreated},
	{"before payment.authorizing", "4111111111111111", api.StatusCreated},
	{"after payment.authorizing", "4111111111111111", api.StatusFailed}, // announced: reversed, though it never left
	{"before sale", "4111111111111111", api.StatusFailed},
	{"after sale", "4111111111111111", api.StatusFailed}, // approved, and nobody here remembers: reversed
	{"before payment.captured", "4111111111111111", api.StatusFailed},
	{"after payment.captured", "4111111111111111", api.StatusCaptured},
	{"before payment.declined", "4539515151515151", api.StatusFailed},
	{"after payment.declined", "4539515151515151", api.StatusDeclined},
	{"before payment.indeterminate", "4539686868686864", api.StatusFailed},
	{"after payment.indeterminate", "4539686868686864", api.StatusFailed},
	{"before reversal", "4539686868686864", api.StatusFailed},
	{"after reversal", "4539686868686864", api.StatusFailed},
	{"before payment.reversed", "4539686868686864", api.StatusFailed},
	{"after payment.reversed", "4539686868686864", api.StatusFailed},
	{"before payment.soft_declined", softlyDeclined, api.StatusFailed}, // nobody here remembers that it was declined: reversed
	{"after payment.soft_declined", softlyDeclined, api.StatusDeclined},
	{"before authentication#2", softlyDeclined, api.StatusDeclined},
	{"after authentication#2", softlyDeclined, api.StatusDeclined},
	{"before payment.challenged", softlyDeclined, api.StatusDeclined},
	{"after payment.challenged", softlyDeclined, api.StatusDeclined},
	{"after challenge", softlyDeclined, api.StatusDeclined},
	{"before payment.authorizing#2", softlyDeclined, api.StatusDeclined},
	{"after payment.authorizing#2", softlyDeclined, api.StatusFailed},
	{"before sale#2", softlyDeclined, api.StatusFailed},
	{"after sale#2", softlyDeclined, api.StatusFailed},
	{"before payment.captured", softlyDeclined, api.StatusFailed},
	{"after payment.captured", softlyDeclined, api.StatusCaptured},
	{"before webhook", "4111111111111111", api.StatusCaptured},
	{"after webhook", "4111111111111111", api.StatusCaptured},
}

func TestKilledBetweenAnyTwoStepsAPaymentEndsInATrueState(t *testing.T) {
	s := newSystem(t)
	for _, p := range places {
		t.Run(p.place, func(t *testing.T) {
			s.t = t
			s.serve.stop()
			s.serve = s.start("serve", "FINPAY_FAILPOINT="+p.place)
			s.awaitReady()
			id, link := s.buy()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			_, _, _ = s.shop.Pay(ctx, link, typed(p.card)) // fails, or not, where the kill falls
			cancel()
			select {
			case <-s.serve.done:
			case <-time.After(20 * time.Second):
				t.Fatal("the server never came to this place")
			}
			s.client.CloseIdleConnections()

			s.serve = s.start("serve")
			s.awaitReady()
			if got := s.settled(id); got.Status != p.want {
				t.Errorf("the payment is %s, want %s", got.Status, p.want)
			}
			s.agree()
			if p.want == api.StatusCreated { // nothing was charged: the shopper can pay
				if _, _, err := s.shop.Pay(t.Context(), link, typed("5555555555554444")); err != nil {
					t.Errorf("paying after the restart: %v", err)
				}
				if got := s.payment(id); got.Status != api.StatusCaptured {
					t.Errorf("paid again, the payment is %s", got.Status)
				}
				s.agree()
			}
		})
	}
	s.t = t
	s.serve.stop()
	s.verifyLog()
}

func TestKilledAtRandomWhileManyPayTheBooksAgree(t *testing.T) {
	s := newSystem(t)
	numbers := []string{"4111111111111111", "5555555555554444", "4539123456789017", "4539515151515151", "4539686868686864", "4012888888881881"}
	// Shoppers finish what they have begun: one who leaves in a challenge leaves a payment that waits for the issuer.
	var closing atomic.Bool
	defer closing.Store(true)
	var shoppers sync.WaitGroup
	for i := range 8 {
		shoppers.Go(func() {
			for n := i; !closing.Load(); n++ { // many tries fail somewhere: that is the point
				link, err := s.shop.Buy(t.Context(), s.shopURL())
				if err == nil {
					_, _, _ = s.shop.Pay(t.Context(), link, typed(numbers[n%len(numbers)]))
				}
			}
		})
	}
	for range 10 {
		select {
		case <-time.After(time.Duration(50+rand.IntN(400)) * time.Millisecond):
		case <-s.serve.done:
			t.Fatal("serve ended by itself")
		}
		_ = s.serve.cmd.Process.Kill()
		<-s.serve.done
		s.serve = s.start("serve")
		s.awaitReady()
	}
	closing.Store(true)
	shoppers.Wait()
	all := s.payments()
	for _, p := range all {
		if !isSettled(p) { // to ask for each of hundreds would meet the API's rate limit
			s.settled(p.ID)
		}
	}
	t.Logf("%d payments", len(all))
	s.agree()
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}
