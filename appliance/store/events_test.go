package store

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"
)

// outbox is a transaction with a merchant and an endpoint.
func outbox(t *testing.T, types ...string) *Tx {
	t.Helper()
	tx := begin(t)
	if err := tx.PutMerchant(Merchant{ID: "mer_1"}); err != nil {
		t.Fatal(err)
	}
	if err := tx.PutEndpoint(Endpoint{ID: "whe_1", MerchantID: "mer_1", Types: types, Status: EndpointEnabled, Secret: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	return tx
}

func put(t *testing.T, tx *Tx, id, payment string) Event {
	t.Helper()
	e := Event{ID: id, MerchantID: "mer_1", PaymentID: payment, Type: "payment.captured", Body: []byte(`{"type":"payment.captured"}`), CreatedAt: time.Unix(1_900_000_000, 0)}
	if err := tx.PutEvent(e); err != nil {
		t.Fatal(err)
	}
	e, err := tx.Event(id)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`{"sequence":%d,"type":"payment.captured"}`, e.Sequence); string(e.Body) != want {
		t.Errorf("body %s, want %s", e.Body, want)
	}
	return e
}

func TestEventsAreNumberedWithinTheirPayment(t *testing.T) {
	tx := outbox(t)
	for i, payment := range []string{"pay_1", "pay_1", "pay_2", "pay_1"} {
		if e, want := put(t, tx, fmt.Sprintf("evt_%d", i), payment), []int64{1, 2, 1, 3}[i]; e.Sequence != want {
			t.Errorf("event %d has the number %d, want %d", i, e.Sequence, want)
		}
	}
}

// A database that is put back from a copy has a new log; what the lost one has told must stay below what this one tells.
func TestNumbersOfANewLogAreAboveThoseOfTheOneBefore(t *testing.T) {
	tx := outbox(t)
	put(t, tx, "evt_1", "pay_1")
	if err := tx.CloseLog(ClosedLog{Origin: "first", Note: []byte("note"), Successor: "second"}); err != nil {
		t.Fatal(err)
	}
	if e := put(t, tx, "evt_2", "pay_1"); e.Sequence != perLog+1 {
		t.Errorf("the first number is %d", e.Sequence)
	}
	if e := put(t, tx, "evt_3", "pay_1"); e.Sequence != perLog+2 {
		t.Errorf("the second number is %d", e.Sequence)
	}
}

func TestAnEventWithoutABodyIsRefused(t *testing.T) {
	tx := outbox(t)
	for _, body := range []string{"", "{}", "[1,2,3]", "null"} {
		if err := tx.PutEvent(Event{ID: "evt_1", MerchantID: "mer_1", Body: []byte(body)}); err == nil {
			t.Errorf("%q is taken", body)
		}
	}
}

func TestAnEndpointThatIsOffHasNoOpenDeliveries(t *testing.T) {
	for _, status := range []string{EndpointDisabled, EndpointGone, EndpointDeleted} {
		tx := outbox(t)
		put(t, tx, "evt_1", "pay_1")
		if n, err := tx.PendingAt("whe_1"); n != 1 || err != nil {
			t.Errorf("%d are pending, %v", n, err)
		}
		e, err := tx.Endpoint("whe_1")
		if err != nil {
			t.Fatal(err)
		}
		e.Status = status
		if err := tx.PutEndpoint(e); err != nil {
			t.Fatal(err)
		}
		put(t, tx, "evt_2", "pay_1")
		if d, err := tx.Delivery("evt_1", "whe_1"); err != nil || d.Status != DeliveryCancelled {
			t.Errorf("%s: %+v, %v", status, d, err)
		}
		if _, err := tx.Delivery("evt_2", "whe_1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: what came later: %v", status, err)
		}
		if queues, err := tx.Queues(); err != nil || len(queues) > 0 {
			t.Errorf("%s: %+v, %v", status, queues, err)
		}
	}
}

// The hash in the entry is that of the row as it was written; the check makes it from the row as it is read.
func TestAnEndpointIsReadAsItWasWritten(t *testing.T) {
	tx := begin(t)
	if err := tx.PutMerchant(Merchant{ID: "mer_1"}); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_900_000_000, 5).In(time.FixedZone("far", 8*3600))
	for i, e := range []Endpoint{
		{Status: EndpointDeleted, CreatedAt: at},
		{URL: "https://shop.example/", Types: []string{"a", `"b`}, Status: EndpointEnabled, Secret: []byte{1}, OldSecret: []byte{2}, OldUntil: at, CreatedAt: at, UpdatedAt: at},
	} {
		e.ID, e.MerchantID = fmt.Sprintf("whe_%d", i), "mer_1"
		if err := tx.PutEndpoint(e); err != nil {
			t.Fatal(err)
		}
		written := tx.Touched()["webhook_endpoints/"+e.ID]
		read, err := tx.Endpoint(e.ID)
		if err != nil {
			t.Fatal(err)
		}
		if hash, err := HashRow(read); err != nil || hash != written || !bytes.Equal(read.Secret, e.Secret) {
			t.Errorf("%+v was written, %+v is read", e, read)
		}
	}
}
