package webhook

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// schedule is the time from one try to the next; the first is at once.
var schedule = []time.Duration{0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}

// deliver tries once and enters what came of it.
func (s *Sender) deliver(ctx context.Context, t try) error {
	failpoint.Here("before webhook")
	code, problem := s.post(ctx, t)
	failpoint.Here("after webhook")
	s.posted(t.endpoint.ID)
	row := store.Try{At: s.cfg.Now(), Code: code}
	if problem != nil {
		row.Error = problem.Error()
	}
	var d store.Delivery
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) (err error) {
		d, err = enter(tx, t, row)
		return err
	})
	if problem != nil && err == nil {
		s.cfg.Log.WarnContext(ctx, "an event was not delivered", "event", d.EventID, "endpoint", d.EndpointID, "try", d.Tries, "status", d.Status, "error", problem)
	}
	return err
}

// enter notes a try and what it makes of its delivery, which may have changed meanwhile.
func enter(tx *ledger.Tx, t try, row store.Try) (store.Delivery, error) {
	d, err := tx.Delivery(t.event.ID, t.endpoint.ID)
	if err != nil {
		return d, err
	}
	gone, err := saysGone(tx, t, row)
	if err != nil {
		return d, err
	}
	before := d.Status
	d.Tries++
	row.N = d.Tries
	d = after(d, t.delivery, row, gone)
	if err := tx.PutTry(d, row); err != nil {
		return d, err
	}
	if err := tx.PutDelivery(d); err != nil {
		return d, err
	}
	if d.Status != before && d.Status != store.DeliveryPending {
		outcome := ledger.Success
		if d.Status == store.DeliveryFailed {
			outcome = ledger.Failure
		}
		tx.Record(ledger.Entry{Type: "webhook." + d.Status, Actor: "system", Origin: "local", Outcome: outcome, Resource: t.event.PaymentID,
			Data: map[string]any{"event": d.EventID, "endpoint": d.EndpointID, "type": t.event.Type, "tries": d.Tries, "code": row.Code}})
	}
	if gone {
		return d, switchOff(tx, t, row.At)
	}
	return d, nil
}

// saysGone reports whether an endpoint has said that it wants no more events (Standard Webhooks, 410). An address that was left
// while the try was under way has not said so of the one that is there now.
func saysGone(tx *ledger.Tx, t try, row store.Try) (bool, error) {
	if row.Code != http.StatusGone {
		return false, nil
	}
	e, err := tx.Endpoint(t.endpoint.ID)
	return err == nil && e.Status == store.EndpointEnabled && e.URL == t.endpoint.URL, err
}

// after is a delivery after a try that began when it was as in begun.
func after(d, begun store.Delivery, row store.Try, gone bool) store.Delivery {
	askedAgain := !d.NextAt.Equal(begun.NextAt) || d.Step != begun.Step
	switch {
	case row.Error == "":
		d.Status = store.DeliveryDelivered
	case d.Status != store.DeliveryPending: // cancelled meanwhile
	case gone:
		d.Status = store.DeliveryFailed
	case askedAgain: // it is due, and begins its schedule anew
	case d.Step+1 >= len(schedule):
		d.Status = store.DeliveryFailed
	default:
		d.Step++
		d.NextAt = row.At.Add(jitter(schedule[d.Step]))
	}
	return d
}

// switchOff disables an endpoint that is gone.
func switchOff(tx *ledger.Tx, t try, now time.Time) error {
	e, err := tx.Endpoint(t.endpoint.ID)
	if err != nil {
		return err
	}
	cancelled, err := tx.PendingAt(e.ID)
	if err != nil {
		return err
	}
	e.Status, e.UpdatedAt = store.EndpointGone, now
	if err := tx.PutEndpoint(e); err != nil {
		return err
	}
	tx.Record(ledger.Entry{Type: "webhook.switched_off", Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: e.ID,
		Data: map[string]any{"merchant": e.MerchantID, "event": t.event.ID, "cancelled": cancelled}})
	return nil
}

// jitter spreads tries by a tenth, so that an endpoint that comes back is not hit by all at once.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration(rand.Float64()*float64(d)/10) //nolint:gosec // spreads load, guards nothing
}
