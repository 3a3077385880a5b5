package payment

import (
	"errors"
	"sync"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// sold makes a payment that is captured.
func (w *world) sold() (id string) {
	w.t.Helper()
	id, secret := w.create()
	w.paid(secret, card{})
	w.wantStatus(id, api.StatusCaptured)
	return id
}

// refunded asks for a refund that must be taken.
func (w *world) refunded(id string, amount int64) api.Modification {
	w.t.Helper()
	m, err := w.service.Refund(w.service.background, own, id, api.ModifyPayment{Amount: amount}, "")
	if err != nil {
		w.t.Fatalf("refund %d: %v", amount, err)
	}
	return m
}

func TestRefundsGiveBackUpToWhatWasCaptured(t *testing.T) {
	w := in(t, nil)
	id := w.sold()
	if m := w.refunded(id, 250); m.Status != api.ModificationSucceeded || m.Amount != 250 || m.ResponseCode != "00" {
		t.Errorf("%+v", m)
	}
	w.wantStatus(id, api.StatusPartiallyRefunded)
	if err := second(w.service.Refund(t.Context(), own, id, api.ModifyPayment{Amount: 1001}, "")); !errors.Is(err, api.ErrAmount) {
		t.Errorf("more than is left: %v", err)
	}
	if m := w.refunded(id, 0); m.Amount != 1000 {
		t.Errorf("the rest is %+v", m)
	}
	w.wantStatus(id, api.StatusRefunded)
	if err := second(w.service.Refund(t.Context(), own, id, api.ModifyPayment{}, "")); !errors.Is(err, api.ErrNotPossible) {
		t.Errorf("of what is refunded: %v", err)
	}
	list, err := w.service.Refunds(t.Context(), own, id)
	if err != nil || len(list.Refunds) != 2 || w.acquirer.moved(id) != 0 || w.payment(id).Refunded != 1250 {
		t.Errorf("%+v, %v, %d moved", list, err, w.acquirer.moved(id))
	}
	if got := w.events(id); got["payment.partially_refunded"] != 1 || got["payment.refunded"] != 1 {
		t.Errorf("told %v", got)
	}
	if r := w.acquirer.refunds[0].request; r.OriginalMTI != "0200" || r.ApprovalCode != "123456" || r.Original.STAN != w.attempt(id, 1).Trace.STAN {
		t.Errorf("asked for %+v", r)
	}
	w.agree(id)
}

func TestOfAPartlyCapturedPaymentThePartIsRefunded(t *testing.T) {
	w := in(t, nil)
	id := w.authorized()
	if err := second(w.service.Refund(t.Context(), own, id, api.ModifyPayment{}, "")); !errors.Is(err, api.ErrNotPossible) {
		t.Errorf("before its capture: %v", err)
	}
	if _, err := w.service.Capture(t.Context(), own, id, api.ModifyPayment{Amount: 800}, ""); err != nil {
		t.Fatal(err)
	}
	if m := w.refunded(id, 0); m.Amount != 800 || w.acquirer.refunds[0].request.OriginalMTI != "0100" {
		t.Errorf("%+v", m)
	}
	w.wantStatus(id, api.StatusRefunded)
	w.agree(id)
}

func TestARefundThatFailsMovesNothingAndMayBeTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		as     pci.SaleOutcome
		reason api.ModificationReason
		code   string
	}{{pci.Refused, api.ModificationRefused, "05"}, {pci.Unsent, api.ModificationUnsent, ""}} {
		t.Run(string(tt.as), func(t *testing.T) {
			w := in(t, nil)
			id := w.sold()
			w.acquirer.set(func(a *acquirer) { a.refund = card{acquirer: tt.as} })
			if m := w.refunded(id, 0); m.Status != api.ModificationFailed || m.Reason != tt.reason || m.ResponseCode != tt.code {
				t.Errorf("%+v", m)
			}
			w.wantStatus(id, api.StatusCaptured)
			w.acquirer.set(func(a *acquirer) { a.refund = card{} })
			w.refunded(id, 0)
			w.wantStatus(id, api.StatusRefunded)
			w.agree(id)
		})
	}
}

func TestARefundOfUnknownOutcomeIsReversedAndHasFailed(t *testing.T) {
	for name, booked := range map[string]bool{"booked": true, "not booked": false} {
		t.Run(name, func(t *testing.T) {
			w := in(t, soon)
			id := w.sold()
			w.acquirer.set(func(a *acquirer) { a.refund = card{acquirer: pci.Unknown, booked: booked} })
			if m := w.refunded(id, 400); m.Status != api.ModificationPending {
				t.Errorf("%+v", m)
			}
			w.until("its outcome is known to be unknown", func() bool {
				return w.modifications(id)[0].Status == store.ModificationIndeterminate && !w.service.flying()
			})
			if left := w.service.repeatOnce(t.Context()); left != 1 {
				t.Errorf("%d are left before the reversal is acknowledged", left)
			}
			if err := second(w.service.Refund(t.Context(), own, id, api.ModifyPayment{}, "")); !errors.Is(err, api.ErrNotPossible) {
				t.Errorf("another one beside it: %v", err)
			}
			w.acquirer.set(func(a *acquirer) { a.ack, a.refund = true, card{} })
			if left := w.service.repeatOnce(t.Context()); left != 0 {
				t.Errorf("%d are left", left)
			}
			list, err := w.service.Refunds(t.Context(), own, id)
			if err != nil || list.Refunds[0].Status != api.ModificationFailed || list.Refunds[0].Reason != api.ModificationUnknown {
				t.Errorf("%+v, %v", list, err)
			}
			if r := w.acquirer.reversals[0]; !r.Refund || r.Amount.Minor != 400 || r.OriginalMTI == "0100" || w.acquirer.moved(id) != 1250 {
				t.Errorf("reversed %+v, %d moved", r, w.acquirer.moved(id))
			}
			w.service.cfg.Patience = patience
			w.refunded(id, 0)
			w.wantStatus(id, api.StatusRefunded)
			w.agree(id)
		})
	}
}

func TestAnAnnouncedRefundOfADeadProcessIsReversedNotSent(t *testing.T) {
	w := in(t, nil)
	id := w.sold()
	m, err := w.service.announce(t.Context(), party{"key:k", "local"}, change{store.ModificationRefund, id, 0}, store.Idempotent{})
	if err != nil {
		t.Fatal(err)
	}
	w.acquirer.set(func(a *acquirer) { a.ack = true })
	w.restart()
	if left := w.service.repeatOnce(t.Context()); left != 0 {
		t.Errorf("%d are left", left)
	}
	if got := w.modifications(id)[0]; got.ID != m.ID || got.Status != store.ModificationFailed || len(w.acquirer.refunds) != 0 || len(w.acquirer.reversals) != 1 {
		t.Errorf("%+v, %d sent", got, len(w.acquirer.refunds))
	}
	w.agree(id)
}

func TestManyRefundsAtOnceGiveBackNoMoreThanWasCaptured(t *testing.T) {
	w := in(t, nil)
	id := w.sold()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := second(w.service.Refund(w.service.background, own, id, api.ModifyPayment{Amount: 1250}, "")); err != nil && !errors.Is(err, api.ErrNotPossible) && !errors.Is(err, api.ErrAmount) {
				t.Errorf("refund: %v", err)
			}
		})
	}
	all.Wait()
	if w.acquirer.moved(id) != 0 || w.payment(id).Refunded != 1250 || len(w.acquirer.refunds) != 1 {
		t.Errorf("%d moved, %d refunds", w.acquirer.moved(id), len(w.acquirer.refunds))
	}
	w.agree(id)
}

func TestARepeatedRefundIsOneRefundAndAReceiptShowsIt(t *testing.T) {
	w := in(t, nil)
	id := w.sold()
	var ids [2]string
	for i := range ids {
		m, err := w.service.Refund(t.Context(), own, id, api.ModifyPayment{Amount: 100}, "key-1")
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = m.ID
	}
	if ids[0] != ids[1] || len(w.acquirer.refunds) != 1 {
		t.Errorf("refunds %v, %d sent", ids, len(w.acquirer.refunds))
	}
	if err := second(w.service.Refund(t.Context(), own, id, api.ModifyPayment{Amount: 101}, "key-1")); !errors.Is(err, api.ErrIdempotency) {
		t.Errorf("another amount: %v", err)
	}
	receipt, err := w.service.Receipt(t.Context(), own, id)
	if err != nil {
		t.Fatal(err)
	}
	types := make(map[string]bool)
	for _, e := range w.entries(id) {
		types[e.Type] = true
	}
	if len(receipt.Entries) != len(w.entries(id)) || !types["payment.refund_requested"] || !types["payment.partially_refunded"] {
		t.Errorf("the receipt has %d entries, the log %v", len(receipt.Entries), types)
	}
}
