package store

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// idAt is an id that was given at a time.
func idAt(prefix string, at time.Time, n int) string {
	id := []byte(firstID(prefix, at))
	return string(append(id[:len(id)-4], fmt.Sprintf("%04d", n)...))
}

func TestWhatIsOldIsDeletedAndNothingElse(t *testing.T) {
	tx := outbox(t)
	now := time.Now()
	for i, age := range []time.Duration{48 * time.Hour, 25 * time.Hour, 24 * time.Hour, time.Hour} {
		at := now.Add(-age)
		payment, event := idAt("pay", at, i), idAt("evt", at, i)
		if err := tx.PutPayment(Payment{ID: payment, MerchantID: "mer_1", SessionHash: []byte(payment), Status: "created", Capture: "automatic", CreatedAt: at}); err != nil {
			t.Fatal(err)
		}
		if err := tx.PutCustomer(payment, Customer{Name: "Siti", Email: "siti@example.org"}); err != nil {
			t.Fatal(err)
		}
		put(t, tx, event, payment)
		d := Delivery{EventID: event, EndpointID: "whe_1", Status: DeliveryDelivered, Tries: 1, Step: 1}
		if i == 0 {
			d.Status = DeliveryPending // it is still to be delivered, however old
		}
		if err := tx.PutDelivery(d); err != nil {
			t.Fatal(err)
		}
		if err := tx.PutTry(d, Try{N: 1, At: at, Code: 200}); err != nil {
			t.Fatal(err)
		}
		if err := tx.PutIdempotent(Idempotent{MerchantID: "mer_1", Key: fmt.Sprint(i), RequestMAC: []byte{1}, Answer: payment, CreatedAt: at}); err != nil {
			t.Fatal(err)
		}
	}
	day := now.Add(-24 * time.Hour)
	if d, err := tx.DeleteOld(Kept{}, 10); err != nil || d != (Deleted{}) {
		t.Errorf("kept for ever: %+v, %v", d, err)
	}
	if d, err := tx.DeleteOld(Kept{Customers: day, WebhookDeliveries: day, IdempotencyKeys: day}, 1); err != nil || d != (Deleted{1, 1, 1}) {
		t.Errorf("at most one of each: %+v, %v", d, err)
	}
	if d, err := tx.DeleteOld(Kept{Customers: day, WebhookDeliveries: day, IdempotencyKeys: day}, 10); err != nil || d != (Deleted{1, 0, 1}) {
		t.Errorf("the rest: %+v, %v", d, err)
	}
	for i, age := range []time.Duration{48 * time.Hour, 25 * time.Hour, 24 * time.Hour, time.Hour} {
		payment, event, old := idAt("pay", now.Add(-age), i), idAt("evt", now.Add(-age), i), i < 2
		if _, err := tx.Customer(payment); errors.Is(err, ErrNotFound) != old {
			t.Errorf("%v old: the customer: %v", age, err)
		}
		if _, err := tx.Event(event); err != nil {
			t.Errorf("%v old: the event is gone: %v", age, err)
		}
		deliveries, err := tx.Deliveries(event)
		if err != nil || (len(deliveries) == 0) != (i == 1) {
			t.Errorf("%v old: %+v, %v", age, deliveries, err)
		}
		for _, d := range deliveries {
			if tries, err := tx.Tries(d, 10); err != nil || len(tries) != 1 {
				t.Errorf("%v old: tries %+v, %v", age, tries, err)
			}
		}
		if _, err := tx.Idempotent("mer_1", fmt.Sprint(i)); (err != nil) != old {
			t.Errorf("%v old: the answer: %v", age, err)
		}
	}
	var orphans int
	if err := tx.q.QueryRowContext(tx.ctx, "SELECT count(*) FROM delivery_tries WHERE event_id NOT IN (SELECT event_id FROM deliveries)").Scan(&orphans); err != nil || orphans != 0 {
		t.Errorf("%d tries of deliveries that are gone, %v", orphans, err)
	}
}

func TestACustomerIsDeletedOnce(t *testing.T) {
	tx := outbox(t)
	if err := tx.PutPayment(Payment{ID: "pay_1", MerchantID: "mer_1", SessionHash: []byte{1}, Status: "created", Capture: "automatic"}); err != nil {
		t.Fatal(err)
	}
	if err := tx.PutCustomer("pay_1", Customer{Name: "Siti"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if there, err := tx.DeleteCustomer("pay_1"); err != nil || there != want {
			t.Errorf("%v, %v", there, err)
		}
	}
}
