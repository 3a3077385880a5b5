package stripe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/softhsm-test/fakestripe"
)

// again is the connector of the next process: it remembers nothing.
func (a *account) again() *Connector {
	a.t.Helper()
	c, err := newConnector(a.cfg)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func TestALostAnswerIsAskedForAgainUnderItsKey(t *testing.T) {
	for what, fault := range map[string]fakestripe.Fault{"lost": fakestripe.Lost, "unheard": fakestripe.Unheard, "failed": fakestripe.Failed,
		"busy": fakestripe.Busy, "in use": fakestripe.InUse, "garbled": fakestripe.Garbled} {
		for _, number := range []string{good, "4000000000009995"} {
			a := open(t, number, nil)
			a.peer.SetFault(once("/payment_intents", fault))
			result, err := a.Sale(t.Context(), saleRequest())
			want, moved := pci.Approved, int64(1250)
			if number != good {
				want, moved = pci.Refused, 0
			}
			if err != nil || result.Outcome != want || a.peer.Moved() != moved || len(a.peer.Intents()) != 1 {
				t.Errorf("%s: %+v, %v, %d moved", what, result, err, a.peer.Moved())
			}
			q := a.peer.Requests()
			if len(q) != 3 || q[1].Key != q[2].Key || q[1].Form.Encode() != q[2].Form.Encode() {
				t.Errorf("%s: %+v", what, q)
			}
		}
	}
}

// What ends without an answer is found by the next process, whatever had happened, and charges nobody.
func TestAfterACrashASaleIsFoundAndTakenBack(t *testing.T) {
	for what, fault := range map[string]fakestripe.Fault{"lost": fakestripe.Lost, "unheard": fakestripe.Unheard, "failed": fakestripe.Failed} {
		for _, manual := range []bool{false, true} {
			a := open(t, good, func(cfg *Config) { cfg.AnswerTimeout = 50 * time.Millisecond })
			a.peer.SetFault(at1("/payment_intents", fault))
			r := saleRequest()
			ask := a.Sale
			if manual {
				ask = a.Authorize
			}
			a.cfg.AnswerTimeout = 100 * time.Millisecond
			result, err := ask(t.Context(), r)
			if result.Outcome == pci.Unsent { // on a busy machine the time may be over before the connection stands
				continue
			}
			if result.Outcome != pci.Unknown || err == nil {
				t.Fatalf("%s: %+v, %v", what, result, err)
			}
			a.peer.SetFault(nil)
			a.cfg.AnswerTimeout = 5 * time.Second
			if done, err := a.again().Reverse(t.Context(), reversalOf(r, "")); !done || err != nil {
				t.Errorf("%s: %t, %v", what, done, err)
			}
			if a.peer.Moved() != 0 || a.peer.Held() != 0 {
				t.Errorf("%s: %d moved, %d held", what, a.peer.Moved(), a.peer.Held())
			}
			if done, err := a.again().Reverse(t.Context(), reversalOf(r, "")); !done || err != nil || a.peer.Moved() != 0 {
				t.Errorf("%s: again: %t, %v", what, done, err)
			}
		}
	}
}

// A request that comes after its reversal was acknowledged meets the fence.
func TestASaleThatArrivesAfterItsReversalChargesNothing(t *testing.T) {
	a := open(t, good, nil)
	r := saleRequest()
	method, err := a.tokenize(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := a.Reverse(t.Context(), reversalOf(r, "")); !done || err != nil {
		t.Fatalf("%t, %v", done, err)
	}
	f, err := intentForm(r, method, "automatic")
	if err != nil {
		t.Fatal(err)
	}
	defer f.wipe()
	result, err := a.charge(t.Context(), r, f, intentSucceeded)
	if result.Outcome != pci.Unknown || err == nil || a.peer.Moved() != 0 {
		t.Errorf("%+v, %v, %d moved", result, err, a.peer.Moved())
	}
	intents := a.peer.Intents()
	if len(intents) != 1 || intents[0].Method != "" || intents[0].Status != intentCanceled {
		t.Errorf("%+v", intents)
	}
}

// A key that is used, by a sale that the list does not show yet, keeps the reversal open.
func TestAUsedKeyKeepsTheReversalOpen(t *testing.T) {
	a := open(t, good, nil)
	r := saleRequest()
	a.sold(r)
	a.peer.SetChange(func(path string, answer map[string]any) {
		if answer["object"] == "list" {
			answer["data"] = []any{}
		}
	})
	if done, err := a.Reverse(t.Context(), reversalOf(r, "")); done || err == nil {
		t.Errorf("%t, %v", done, err)
	}
	a.peer.SetChange(nil)
	if done, err := a.Reverse(t.Context(), reversalOf(r, "")); !done || err != nil || a.peer.Moved() != 0 {
		t.Errorf("%t, %v, %d moved", done, err, a.peer.Moved())
	}
}

func TestAClockThatIsWrongIsNoProof(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, time.Hour} {
		a := open(t, good, nil)
		a.peer.SetClock(ahead)
		r := saleRequest()
		a.sold(r)
		a.peer.ForgetKeys()
		if done, err := a.Reverse(t.Context(), reversalOf(r, "")); done || err == nil {
			t.Errorf("%s ahead: %t, %v", ahead, done, err)
		}
	}
}

func TestASaleIsFoundAmongMany(t *testing.T) {
	a := open(t, good, nil)
	r := saleRequest()
	a.sold(r)
	for i := range 230 {
		other := saleRequest()
		other.Payment, other.Trace = fmt.Sprintf("pay_other%d", i), trace(i+2)
		f, err := newForm()
		if err != nil {
			t.Fatal(err)
		}
		f.number("amount", 5)
		f.text("currency", "eur")
		f.text("metadata["+metaPayment+"]", other.Payment)
		f.text("metadata["+metaTrace+"]", nameOf(other.Trace))
		var made intent
		if err := a.post(t.Context(), pathIntents, f, "", &made); err != nil {
			t.Fatal(err)
		}
		f.wipe()
	}
	if done, err := a.Reverse(t.Context(), reversalOf(r, "")); !done || err != nil || a.peer.Moved() != 0 {
		t.Errorf("%t, %v, %d moved", done, err, a.peer.Moved())
	}
	pages := 0
	for _, q := range a.peer.Requests() {
		if q.Method == "GET" && q.Path == pathIntents {
			pages++
		}
	}
	if pages != 3 {
		t.Errorf("%d pages were read", pages)
	}
}

func TestAReversalWhoseRefundFailsGoesOn(t *testing.T) {
	a := open(t, good, nil)
	r := saleRequest()
	result := a.sold(r)
	a.peer.SetRefund("failed")
	if done, err := a.Reverse(t.Context(), reversalOf(r, result.Reference)); done || err == nil {
		t.Errorf("%t, %v", done, err)
	}
	a.peer.SetRefund("succeeded")
	if done, err := a.Reverse(t.Context(), reversalOf(r, result.Reference)); !done || err != nil || a.peer.Moved() != 0 {
		t.Errorf("%t, %v, %d moved", done, err, a.peer.Moved())
	}
}

func TestAVoidCancelsTheAuthorization(t *testing.T) {
	a := open(t, good, nil)
	r := saleRequest()
	result := a.authorized(r)
	if a.peer.Held() != 1250 {
		t.Errorf("%d held", a.peer.Held())
	}
	for range 2 {
		if done, err := a.Reverse(t.Context(), reversalOf(r, result.Reference)); !done || err != nil || a.peer.Held() != 0 {
			t.Errorf("%t, %v, %d held", done, err, a.peer.Held())
		}
	}
	other := saleRequest()
	other.Payment = "pay_2"
	if done, err := a.Reverse(t.Context(), reversalOf(other, result.Reference)); done || !errors.Is(err, ErrMismatch) {
		t.Errorf("another payment's intent: %t, %v", done, err)
	}
}

func captureOf(r pci.SaleRequest, reference string, minor int64, repeat bool) pci.CaptureRequest {
	return pci.CaptureRequest{Payment: r.Payment, Amount: pci.Amount{Minor: minor, Currency: "EUR"}, Authorized: r.Amount, Original: r.Trace, Reference: reference, Trace: trace(2), Repeat: repeat}
}

func TestACaptureIsBookedOnceHoweverOftenItIsRepeated(t *testing.T) {
	for what, fault := range map[string]fakestripe.Fault{"answered": fakestripe.None, "lost": fakestripe.Lost, "unheard": fakestripe.Unheard,
		"failed": fakestripe.Failed, "done and failed": fakestripe.FailedUp, "busy": fakestripe.Busy, "garbled": fakestripe.Garbled} {
		a := open(t, good, nil)
		r := saleRequest()
		reference := a.authorized(r).Reference
		a.peer.SetFault(once("/capture", fault))
		done, err := a.Capture(t.Context(), captureOf(r, reference, 1000, false))
		if done != (fault == fakestripe.None) || done != (err == nil) || errors.Is(err, pci.ErrRefused) {
			t.Errorf("%s: %t, %v", what, done, err)
		}
		for range 2 {
			if done, err := a.again().Capture(t.Context(), captureOf(r, reference, 1000, true)); !done || err != nil || a.peer.Moved() != 1000 {
				t.Errorf("%s: repeated: %t, %v, %d moved", what, done, err, a.peer.Moved())
			}
		}
	}
}

func TestACaptureThatCannotBeIsRefused(t *testing.T) {
	a := open(t, good, nil)
	r := saleRequest()
	reference := a.authorized(r).Reference
	if _, err := a.Reverse(t.Context(), reversalOf(r, reference)); err != nil {
		t.Fatal(err)
	}
	for _, repeat := range []bool{false, true} { // the first is told of an unexpected state, and is due again
		done, err := a.Capture(t.Context(), captureOf(r, reference, 1000, repeat))
		if done || err == nil || errors.Is(err, pci.ErrRefused) != repeat {
			t.Errorf("of what is cancelled: %t, %v", done, err)
		}
	}
	for what, c := range map[string]pci.CaptureRequest{"more than authorized": captureOf(r, reference, 1251, false), "no reference": captureOf(r, "", 1, false),
		"a path": captureOf(r, "pi_1/../../payouts", 1, false), "a card": captureOf(r, "pi_4242424242424242", 1, false)} {
		before := len(a.peer.Requests())
		if done, err := a.Capture(t.Context(), c); done || err == nil || len(a.peer.Requests()) != before {
			t.Errorf("%s: %t, %v", what, done, err)
		}
	}
}

func refundOf(r pci.SaleRequest, reference string, minor int64, repeat bool) pci.RefundRequest {
	return pci.RefundRequest{Payment: r.Payment, Amount: pci.Amount{Minor: minor, Currency: "EUR"}, Original: r.Trace, Reference: reference, Trace: trace(3), Repeat: repeat}
}

func TestARefundIsMadeOnceHoweverOftenItIsRepeated(t *testing.T) {
	for what, c := range map[string]struct {
		fault fakestripe.Fault
		want  pci.SaleOutcome
	}{
		"answered": {fakestripe.None, pci.Approved}, "lost": {fakestripe.Lost, pci.Unknown}, "unheard": {fakestripe.Unheard, pci.Unknown},
		"failed": {fakestripe.Failed, pci.Unknown}, "done and failed": {fakestripe.FailedUp, pci.Unknown}, "busy": {fakestripe.Busy, pci.Unknown},
	} {
		a := open(t, good, nil)
		r := saleRequest()
		reference := a.sold(r).Reference
		a.peer.SetFault(once("/refunds", c.fault))
		if result, err := a.Refund(t.Context(), refundOf(r, reference, 250, false)); result.Outcome != c.want || (err == nil) != (c.want == pci.Approved) {
			t.Errorf("%s: %+v, %v", what, result, err)
		}
		for range 2 {
			if result, err := a.again().Refund(t.Context(), refundOf(r, reference, 250, true)); result.Outcome != pci.Approved || err != nil || a.peer.Moved() != 1000 {
				t.Errorf("%s: repeated: %+v, %v, %d moved", what, result, err, a.peer.Moved())
			}
		}
	}
}

func TestARefundThatNeverCameIsUnsentAfterItsKey(t *testing.T) {
	a := open(t, good, nil)
	r := saleRequest()
	reference := a.sold(r).Reference
	a.peer.SetFault(at1("/refunds", fakestripe.Lost))
	if result, _ := a.Refund(t.Context(), refundOf(r, reference, 250, false)); result.Outcome != pci.Unknown {
		t.Errorf("%+v", result)
	}
	if result, err := a.Refund(t.Context(), refundOf(r, reference, 250, true)); result.Outcome != pci.Unknown || err == nil {
		t.Errorf("still lost: %+v, %v", result, err)
	}
	a.cfg.Now = func() time.Time { return at.Add(keyLife + time.Second) }
	result, err := a.Refund(t.Context(), refundOf(r, reference, 250, true))
	if result.Outcome != pci.Unsent || err == nil || len(a.peer.Refunds()) != 0 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestRefundsThatStripeRefuses(t *testing.T) {
	a := open(t, good, nil)
	r := saleRequest()
	reference := a.sold(r).Reference
	if result, err := a.Refund(t.Context(), refundOf(r, reference, 1251, false)); result.Outcome != pci.Refused || err != nil {
		t.Errorf("more than there is: %+v, %v", result, err)
	}
	a.peer.SetRefund("failed")
	if result, err := a.Refund(t.Context(), refundOf(r, reference, 100, false)); result.Outcome != pci.Refused || err != nil {
		t.Errorf("failed: %+v, %v", result, err)
	}
	if result, err := a.Refund(t.Context(), refundOf(r, "", 100, false)); result.Outcome != pci.Unsent || err == nil {
		t.Errorf("without a reference: %+v, %v", result, err)
	}
	other := refundOf(r, "pi_unknown", 100, false)
	other.Trace = trace(4)
	if result, err := a.Refund(t.Context(), other); result.Outcome != pci.Unsent || err == nil {
		t.Errorf("of what is not there: %+v, %v", result, err)
	}
	if done, err := a.Reverse(t.Context(), pci.ReversalRequest{Refund: true}); done || err == nil {
		t.Errorf("a reversal of a refund: %t, %v", done, err)
	}
}

// Whatever happens to any request: what is told is what happened, and after an acknowledged reversal nothing is charged.
func TestWhateverFailsTheBooksAgree(t *testing.T) {
	faults := []fakestripe.Fault{fakestripe.None, fakestripe.None, fakestripe.Lost, fakestripe.Unheard, fakestripe.Failed, fakestripe.FailedUp, fakestripe.Busy, fakestripe.InUse, fakestripe.Garbled, fakestripe.Moved}
	a := open(t, good, nil)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		r := saleRequest()
		r.Payment = fmt.Sprintf("pay_%d", n)
		seed, manual := rapid.Uint64().Draw(t, "seed"), rapid.Bool().Draw(t, "manual")
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // of a test
		var mu sync.Mutex
		a.peer.SetFault(func(fakestripe.Request) fakestripe.Fault {
			mu.Lock()
			defer mu.Unlock()
			return faults[random.IntN(len(faults))]
		})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		tries := 0
		a.transport = counting{a.transport, func() {
			if tries++; tries > 6 { // the shopper's time is over
				cancel()
			}
		}}
		before := a.peer.Moved() + a.peer.Held()
		ask := a.Sale
		if manual {
			ask = a.Authorize
		}
		result, err := ask(ctx, r)
		a.transport = a.transport.(counting).inner
		charged := a.peer.Moved() + a.peer.Held() - before
		switch result.Outcome {
		case pci.Approved:
			if charged != 1250 || err != nil {
				t.Fatalf("approved with %d charged, %v", charged, err)
			}
		case pci.Unsent:
			if charged != 0 || err == nil {
				t.Fatalf("unsent with %d charged, %v", charged, err)
			}
			return
		case pci.Refused:
			t.Fatal("a good card was refused")
		}
		for tries := 0; ; tries++ {
			done, err := a.Reverse(context.Background(), reversalOf(r, result.Reference))
			if done {
				break
			}
			if err == nil {
				t.Fatal("not acknowledged, and no error")
			}
			if tries > 20 {
				a.peer.SetFault(nil)
				a.peer.ForgetKeys() // answers of 500 are kept for a day
			}
			if tries > 25 {
				t.Fatalf("never reversed: %v", err)
			}
		}
		if left := a.peer.Moved() + a.peer.Held() - before; left != 0 {
			t.Fatalf("reversed, and %d is charged", left)
		}
	})
}

// counting calls before with each request.
type counting struct {
	inner  http.RoundTripper
	before func()
}

// RoundTrip implements [http.RoundTripper].
func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.before()
	return c.inner.RoundTrip(r)
}
