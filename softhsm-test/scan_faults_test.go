package softhsmtest_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/client"
	"github.com/finterra/finpay/softhsm-test/scan"
)

// form sends the card form by itself and returns the answer's status and Retry-After.
func (r *ride) form(link, number string) (status int, retryAfter string) {
	r.t.Helper()
	card := r.typed(number)
	response, err := r.system.client.PostForm(link, url.Values{"number": {card.Number}, "expiry": {card.Expiry}, "cvv": {card.CVV}})
	if err != nil {
		r.t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode, response.Header.Get("Retry-After")
}

func TestScanWhileCustodyIsFull(t *testing.T) {
	r := newRide(t, setting{"capacity: 10000", "capacity: 1"})
	r.leftInAChallenge()
	_, link := r.buy()
	if status, retry := r.form(link, r.card()); status != http.StatusServiceUnavailable || retry == "" {
		t.Errorf("%d, Retry-After %q", status, retry)
	}
	r.checkMemory(t, route{})
	r.checkDisk(t)
}

// Cards in custody are then ciphertexts in this process; while nobody uses one there is nothing else of it.
func TestScanWithSealedCustody(t *testing.T) {
	r := newRide(t, setting{`kind: ""`, "kind: sealed"})
	report, _, code := r.doctor()
	if row := report.Roles[len(report.Roles)-2]; code != 0 || row.Role != "custody" || row.Mechanism != "CKM_AES_GCM, session key" {
		t.Errorf("exit %d, %+v", code, row)
	}
	for _, number := range []string{r.card(), r.known("4539123456789017")} {
		r.pays(number, api.StatusCaptured)
	}
	if taken, held := r.metric("finpay_custody_taken_total"), r.metric("finpay_custody_cards"); taken != 2 || held != 0 {
		t.Errorf("%v cards were taken, %v are held", taken, held)
	}
	r.leftInAChallenge()
	if held := r.metric("finpay_custody_cards"); held != 1 {
		t.Errorf("%v cards are held", held)
	}
	r.checkMemory(t, route{})
	r.checkDisk(t)
	r.agree()
	r.serve.stop()
	r.verifyLog()
}

// A process that is killed in the middle leaves nothing on the disk, and nothing that the next one picks up.
func TestScanAfterAKill(t *testing.T) {
	r := newRide(t)
	for _, place := range []string{"after payment.card_entered", "before sale", "after sale"} {
		r.serve.stop()
		r.serve = r.start("serve", "FINPAY_FAILPOINT="+place)
		r.awaitReady()
		r.system.client.CloseIdleConnections()
		_, link := r.buy()
		_, _, _ = r.shop.Pay(t.Context(), link, r.typed(r.card())) // it fails where the kill falls
		<-r.serve.done
		r.checkDisk(t)
		r.system.client.CloseIdleConnections()
		r.serve = r.start("serve")
		r.awaitReady()
		r.checkMemory(t, route{sealed: true}) // this process was never sent a card
		r.checkDisk(t)
	}
}

// TestScanUnderLoad is the long form, of `make scan`: sixteen at a time for some rounds, and a card that ends in custody at
// its deadline, which is a minute at least.
func TestScanUnderLoad(t *testing.T) {
	if scanRounds() == 0 {
		t.Log("ONLY BY make scan: rounds of load, and a card that ends in custody at its deadline")
		return
	}
	r := newRide(t, setting{"deadline: 15m", "deadline: 1m"}, setting{"challenge: 10m", "challenge: 1m"}, setting{"bound: 20", "bound: 200"})
	r.leftInAChallenge()
	sealed, plain := r.another(), r.another()
	sends := plain.sends()
	for round := range scanRounds() {
		var riders sync.WaitGroup
		for i := range 16 {
			by, c := sealed, sealed.client
			if i%2 == 1 {
				by, c = plain, sends
			}
			var cards []string
			for range 10 {
				cards = append(cards, by.card())
			}
			riders.Go(func() {
				for _, number := range cards {
					_, err := c.Tokenize(t.Context(), client.Card{Number: number, Expiry: "2031-12"})
					if by == plain && err == nil {
						err = r.payOnce(number)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		riders.Wait()
		sealed.checkMemory(t, route{sealed: true})
		plain.checkMemory(t, route{})
		t.Logf("round %d: %d sealed, %d plain", round+1, len(sealed.cards), len(plain.cards))
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ended := time.After(2 * time.Minute); r.metric("finpay_custody_cards") > 0; {
		select {
		case <-tick.C:
		case <-ended:
			t.Fatal("the card in custody has not ended at its deadline")
		}
	}
	r.checkMemory(t, route{})
	for _, all := range []*ride{r, sealed, plain} {
		all.checkDisk(t)
	}
	r.serve.stop()
	for _, all := range []*ride{r, sealed, plain} {
		all.checkDisk(t)
	}
}

// payOnce pays by the plain form, beside others.
func (r *ride) payOnce(number string) error {
	link, err := r.shop.Buy(r.t.Context(), r.shopURL())
	if err != nil {
		return err
	}
	last, _, err := r.shop.Pay(r.t.Context(), link, r.typed(number))
	if err == nil && !strings.Contains(last.URL.String(), string(api.StatusCaptured)) {
		err = errors.New("the payment was not captured")
	}
	return err
}

// The search of the real process sees what is there: a number in a header is a string of net/http's, and stays a while.
func TestScanFindsANumberThatNobodyWipes(t *testing.T) {
	r := newRide(t)
	if status, _ := r.call("GET", "/v1/payments", "", "X-Request-Id", r.card()); status != http.StatusOK {
		t.Fatal(status)
	}
	if found, searched := r.scanMemory(t); searched && len(found.Of(scan.GoHeap)) == 0 {
		t.Error("a number in a header is not found")
	}
}
