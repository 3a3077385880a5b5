package payment

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
)

// soon lets what is not answered at once be answered as it stands.
func soon(c *Config) { c.Patience = time.Millisecond }

func TestACaptureMovesWhatItSays(t *testing.T) {
	for name, tt := range map[string]struct{ ask, want int64 }{"a part": {1000, 1000}, "all": {0, 1250}, "all in figures": {1250, 1250}} {
		t.Run(name, func(t *testing.T) {
			w := in(t, nil)
			id := w.authorized()
			if moved := w.acquirer.moved(id); moved != 0 {
				t.Fatalf("%d moved by the authorization", moved)
			}
			p, err := w.service.Capture(t.Context(), own, id, api.ModifyPayment{Amount: tt.ask}, "")
			if err != nil || p.Status != api.StatusCaptured || p.Captured != tt.want || len(p.Captures) != 1 || p.Captures[0].Status != api.ModificationSucceeded || p.Captures[0].Amount != tt.want {
				t.Fatalf("%+v, %v", p, err)
			}
			if moved := w.acquirer.moved(id); moved != tt.want {
				t.Errorf("%d moved, want %d", moved, tt.want)
			}
			first := w.acquirer.captures[0]
			if first.ApprovalCode != "123456" || first.Authorized.Minor != 1250 || first.Original.STAN != w.attempt(id, 1).Trace.STAN || first.Repeat {
				t.Errorf("asked for %+v", first)
			}
			if got := w.events(id); got["payment.authorized"] != 1 || got["payment.captured"] != 1 {
				t.Errorf("told %v", got)
			}
			w.agree(id)
		})
	}
}

func TestAVoidGivesTheAuthorizationUp(t *testing.T) {
	w := in(t, nil)
	w.acquirer.ack = true
	id := w.authorized()
	p, err := w.service.Void(t.Context(), own, id, "")
	if err != nil || p.Status != api.StatusVoided || p.Void == nil || p.Void.Status != api.ModificationSucceeded || p.Captured != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	if n := w.acquirer.charged(id); n != 0 {
		t.Errorf("%d authorizations are left", n)
	}
	if r := w.acquirer.reversals[0]; r.OriginalMTI != "0100" || r.ApprovalCode != "123456" || r.Refund {
		t.Errorf("reversed %+v", r)
	}
	w.agree(id)
}

func TestWhatHasNoPlaceIsRefusedAndNothingIsSent(t *testing.T) {
	w := in(t, nil)
	w.acquirer.ack = true
	created, _ := w.create()
	sold, secret := w.create()
	w.paid(secret, card{})
	voided := w.authorized()
	if _, err := w.service.Void(t.Context(), own, voided, ""); err != nil {
		t.Fatal(err)
	}
	held := w.authorized()
	other := own
	other.MerchantID = otherShop
	capture := func(caller api.Caller, id string, amount int64) error {
		_, err := w.service.Capture(context.Background(), caller, id, api.ModifyPayment{Amount: amount}, "")
		return err
	}
	for name, tt := range map[string]struct {
		err  error
		want *api.Problem
	}{
		"nothing is authorized": {capture(own, created, 0), api.ErrNotPossible},
		"it was a sale":         {capture(own, sold, 0), api.ErrNotPossible},
		"it is voided":          {capture(own, voided, 0), api.ErrNotPossible},
		"more than authorized":  {capture(own, held, 1251), api.ErrAmount},
		"another shop's":        {capture(other, held, 0), api.ErrNotFound},
		"no payment":            {capture(own, "pay_none", 0), api.ErrNotFound},
	} {
		if tt.err == nil || api.ProblemOf(tt.err).Code != tt.want.Code {
			t.Errorf("%s: %v, want %v", name, tt.err, tt.want)
		}
	}
	if len(w.acquirer.captures) != 0 || len(w.modifications(held)) != 0 {
		t.Errorf("%d captures were sent", len(w.acquirer.captures))
	}
}

func TestACaptureWithoutAnAnswerIsPendingAndRepeatedWithItsTrace(t *testing.T) {
	w := in(t, soon)
	id := w.authorized()
	w.acquirer.set(func(a *acquirer) { a.capture = "lost" })
	p, err := w.service.Capture(t.Context(), own, id, api.ModifyPayment{}, "")
	if err != nil || p.Status != api.StatusAuthorized || p.Captured != 0 || p.Captures[0].Status != api.ModificationPending {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := w.service.Void(t.Context(), own, id, ""); !errors.Is(err, api.ErrNotPossible) {
		t.Errorf("a void beside it: %v", err)
	}
	if n, err := w.service.Unanswered(t.Context()); err != nil || n != 1 {
		t.Errorf("%d are unanswered, %v", n, err)
	}
	w.until("the first try is over", func() bool { return !w.service.flying() })
	if left := w.service.repeatOnce(t.Context()); left != 1 {
		t.Errorf("%d are left while answers are lost", left)
	}
	w.acquirer.set(func(a *acquirer) { a.capture = "" })
	if left := w.service.repeatOnce(t.Context()); left != 0 {
		t.Errorf("%d are left", left)
	}
	w.wantStatus(id, api.StatusCaptured)
	if moved := w.acquirer.moved(id); moved != 1250 {
		t.Errorf("%d moved", moved)
	}
	for i, c := range w.acquirer.captures {
		if c.Trace != w.acquirer.captures[0].Trace || c.Repeat != (i > 0) {
			t.Errorf("try %d: %+v", i, c.Trace)
		}
	}
	w.agree(id)
}

func TestARefusedCaptureIsShownAndAnotherCanBeTried(t *testing.T) {
	w := in(t, nil)
	id := w.authorized()
	w.acquirer.set(func(a *acquirer) { a.capture = "refused" })
	p, err := w.service.Capture(t.Context(), own, id, api.ModifyPayment{}, "")
	if err != nil || p.Status != api.StatusAuthorized || p.Captures[0].Status != api.ModificationFailed || p.Captures[0].Reason != api.ModificationRefused {
		t.Fatalf("%+v, %v", p, err)
	}
	w.acquirer.set(func(a *acquirer) { a.capture = "" })
	p, err = w.service.Capture(t.Context(), own, id, api.ModifyPayment{Amount: 600}, "")
	if err != nil || p.Status != api.StatusCaptured || len(p.Captures) != 2 || w.acquirer.moved(id) != 600 {
		t.Fatalf("%+v, %v", p, err)
	}
	w.agree(id)
}

func TestAnAnnouncedCaptureOutlivesTheProcess(t *testing.T) {
	w := in(t, soon)
	id := w.authorized()
	w.acquirer.set(func(a *acquirer) { a.capture = "lost" })
	if _, err := w.service.Capture(t.Context(), own, id, api.ModifyPayment{Amount: 700}, ""); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.acquirer.set(func(a *acquirer) { a.capture = "" })
	if left := w.service.repeatOnce(t.Context()); left != 0 {
		t.Errorf("%d are left", left)
	}
	w.wantStatus(id, api.StatusCaptured)
	if moved := w.acquirer.moved(id); moved != 700 {
		t.Errorf("%d moved", moved)
	}
	w.agree(id)
}

func TestOfACaptureAndAVoidAtOnceOneWins(t *testing.T) {
	w := in(t, nil)
	w.acquirer.ack = true
	for range 10 {
		id := w.authorized()
		var capture, void error
		var both sync.WaitGroup
		both.Go(func() { _, capture = w.service.Capture(context.Background(), own, id, api.ModifyPayment{}, "") })
		both.Go(func() { _, void = w.service.Void(context.Background(), own, id, "") })
		both.Wait()
		if (capture == nil) == (void == nil) {
			t.Fatalf("capture: %v, void: %v", capture, void)
		}
		want := map[bool]int64{true: 1250, false: 0}[capture == nil]
		if moved := w.acquirer.moved(id); moved != want || w.payment(id).Captured != want {
			t.Errorf("%d moved, want %d", moved, want)
		}
		w.agree(id)
	}
}

func TestAPaymentIsShownAsItIsAtOneMoment(t *testing.T) {
	w := in(t, nil)
	for range 10 {
		id := w.authorized()
		captured := make(chan error, 1)
		go func() { captured <- second(w.service.Capture(context.Background(), own, id, api.ModifyPayment{}, "")) }()
		for p := (api.Payment{}); p.Status != api.StatusCaptured; {
			var err error
			if p, err = w.service.Get(t.Context(), own, id); err != nil {
				t.Fatal(err)
			}
			done := len(p.Captures) == 1 && p.Captures[0].Status == api.ModificationSucceeded
			if done != (p.Status == api.StatusCaptured) || done != (p.Captured == 1250) {
				t.Fatalf("shown as %+v", p)
			}
		}
		if err := <-captured; err != nil {
			t.Fatal(err)
		}
	}
}

func TestARepeatedCaptureIsOneCapture(t *testing.T) {
	w := in(t, nil)
	id := w.authorized()
	for range 2 {
		p, err := w.service.Capture(t.Context(), own, id, api.ModifyPayment{Amount: 500}, "key-1")
		if err != nil || p.Captured != 500 {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	if len(w.acquirer.captures) != 1 {
		t.Errorf("%d captures were sent", len(w.acquirer.captures))
	}
	for name, err := range map[string]error{
		"another amount": second(w.service.Capture(t.Context(), own, id, api.ModifyPayment{Amount: 501}, "key-1")),
		"another route":  second(w.service.Void(t.Context(), own, id, "key-1")),
	} {
		if !errors.Is(err, api.ErrIdempotency) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAnAuthorizationWithoutAnAnswerIsReversedAsOne(t *testing.T) {
	w := in(t, nil)
	w.acquirer.ack = true
	request := order()
	request.Capture = captureManual
	p, err := w.service.Create(t.Context(), own, request, "")
	if err != nil {
		t.Fatal(err)
	}
	w.paid(w.session(p.ID), card{acquirer: "unknown", booked: true})
	if left := w.service.reverseOnce(t.Context(), map[string]bool{}); left != 0 {
		t.Fatalf("%d are left", left)
	}
	w.wantStatus(p.ID, api.StatusFailed)
	if r := w.acquirer.reversals[0]; r.OriginalMTI != "0100" || w.acquirer.charged(p.ID) != 0 {
		t.Errorf("reversed %+v", r)
	}
}

func TestWhatCannotBeSignedIsNotSent(t *testing.T) {
	w := in(t, nil)
	id := w.authorized()
	w.key.fail(1)
	if _, err := w.service.Capture(t.Context(), own, id, api.ModifyPayment{}, "key-1"); !errors.Is(err, api.ErrUnavailable) {
		t.Fatalf("a capture without a signature: %v", err)
	}
	if len(w.acquirer.captures) != 0 || len(w.modifications(id)) != 0 {
		t.Error("it was sent")
	}
	if p, err := w.service.Capture(t.Context(), own, id, api.ModifyPayment{}, "key-1"); err != nil || p.Status != api.StatusCaptured {
		t.Errorf("afterwards: %+v, %v", p, err)
	}
}

func TestAfterARestoreAnAuthorizedPaymentWaitsForPeople(t *testing.T) {
	w := in(t, nil)
	id, pending := w.authorized(), w.authorized()
	w.acquirer.set(func(a *acquirer) { a.capture = "lost" })
	w.service.cfg.Patience = time.Millisecond
	if _, err := w.service.Capture(t.Context(), own, pending, api.ModifyPayment{}, ""); err != nil {
		t.Fatal(err)
	}
	w.crash()
	w.open()
	if _, err := Restored(t.Context(), w.ledger, w.store, w.clock.Now(), maxTries); err != nil {
		t.Fatal(err)
	}
	w.wantStatus(id, api.StatusIndeterminate)
	w.wantStatus(pending, api.StatusAuthorized) // its capture says what becomes of it
	if m := w.modifications(pending)[0]; m.Status != store.ModificationPending {
		t.Errorf("its capture is %s", m.Status)
	}
}

// flying reports whether somebody is sending a modification.
func (s *Service) flying() bool { return s.inFlight() > 0 }

func (s *Service) inFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flights)
}
