package payment

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/pci"
)

func TestAConnectorComesToRestAndGoesOn(t *testing.T) {
	w := in(t, nil)
	id, secret := w.create()
	w.paid(secret, card{})
	name := w.attempt(id, 1).Connector
	open, err := w.service.Quiet(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.service.Quiet(t.Context(), name); !errors.Is(err, ErrBusy) {
		t.Errorf("kept at rest twice: %v", err)
	}
	second, again := w.create()
	var all sync.WaitGroup
	all.Go(func() { _, _ = w.pay(again, card{}) })
	all.Go(func() { _, _ = w.service.Refund(context.Background(), own, id, api.ModifyPayment{Amount: 1}, "") })
	w.until("the second card was entered", func() bool { return w.payment(second).Attempts == 1 })
	if n := len(w.acquirer.sales(second)); n != 0 || len(w.acquirer.refunds) != 0 {
		t.Errorf("%d sales and %d refunds left while the connector was at rest", n, len(w.acquirer.refunds))
	}
	open()
	all.Wait()
	w.wantStatus(second, api.StatusCaptured)
	w.wantStatus(id, api.StatusPartiallyRefunded)
}

func TestAConnectorWithSomethingUnderWayDoesNotComeToRest(t *testing.T) {
	w := in(t, nil)
	id, secret := w.create()
	paid := make(chan struct{})
	go func() { defer close(paid); _, _ = w.pay(secret, card{hold: true}) }()
	w.until("the sale is there", func() bool { return w.acquirer.holds(id) })
	name := w.attempt(id, 1).Connector
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.service.Quiet(short, name); !errors.Is(err, ErrBusy) {
		t.Errorf("with a sale under way: %v", err)
	}
	w.acquirer.release()
	<-paid
	w.wantStatus(id, api.StatusCaptured)
	unanswered, secret := w.create()
	w.paid(secret, card{acquirer: pci.Unknown, booked: true})
	w.wantStatus(unanswered, api.StatusIndeterminate)
	if _, err := w.service.Quiet(t.Context(), name); !errors.Is(err, ErrBusy) {
		t.Errorf("with a sale of unknown outcome: %v", err)
	}
	w.acquirer.set(func(a *acquirer) { a.ack = true })
	w.service.reverseOnce(t.Context(), make(map[string]bool))
	w.acquirer.set(func(a *acquirer) { a.refund = card{acquirer: pci.Unknown} })
	if _, err := w.service.Refund(t.Context(), own, id, api.ModifyPayment{}, ""); err != nil {
		t.Fatal(err)
	}
	w.until("the refund is of unknown outcome or taken back", func() bool { return w.modifications(id)[0].Status != "pending" })
	if open, err := w.service.Quiet(t.Context(), name); w.modifications(id)[0].Open() {
		if !errors.Is(err, ErrBusy) {
			t.Errorf("with a refund of unknown outcome: %v", err)
		}
	} else if err == nil {
		open()
	}
	w.service.repeatOnce(t.Context())
	open, err := w.service.Quiet(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	open()
}
