package store

import (
	"time"

	"github.com/oklog/ulid/v2"
)

// Kept says from when on rows are kept that no entry covers and that are kept for a time only. A zero time keeps all.
type Kept struct {
	Customers         time.Time // of payments made since
	WebhookDeliveries time.Time // of events since, with their tries; those that are not over stay
	IdempotencyKeys   time.Time // used first since, with their first answers
}

// Deleted counts rows.
type Deleted struct{ Customers, WebhookDeliveries, IdempotencyKeys int }

// Deliveries and payments have no index by time: their ids sort by it.
const (
	oldCustomers  = `SELECT payment_id FROM customers WHERE payment_id < ? ORDER BY payment_id LIMIT ?`
	oldDeliveries = `SELECT event_id, endpoint_id FROM deliveries WHERE event_id < ? AND status <> 'pending' ORDER BY event_id, endpoint_id LIMIT ?`
	oldKeys       = `SELECT merchant_id, key FROM idempotency WHERE created_at < ? ORDER BY created_at LIMIT ?`
)

// DeleteOld deletes what is kept no longer, the oldest first and at most limit rows of each kind.
func (tx *Tx) DeleteOld(kept Kept, limit int) (d Deleted, err error) {
	if !kept.Customers.IsZero() {
		if d.Customers, err = tx.delete("DELETE FROM customers WHERE payment_id IN ("+oldCustomers+")", firstID("pay", kept.Customers), limit); err != nil {
			return d, err
		}
	}
	if !kept.WebhookDeliveries.IsZero() {
		first := firstID("evt", kept.WebhookDeliveries)
		if err := tx.Exec("DELETE FROM delivery_tries WHERE (event_id, endpoint_id) IN ("+oldDeliveries+")", first, limit); err != nil {
			return d, err
		}
		if d.WebhookDeliveries, err = tx.delete("DELETE FROM deliveries WHERE (event_id, endpoint_id) IN ("+oldDeliveries+")", first, limit); err != nil {
			return d, err
		}
	}
	if !kept.IdempotencyKeys.IsZero() {
		d.IdempotencyKeys, err = tx.delete("DELETE FROM idempotency WHERE (merchant_id, key) IN ("+oldKeys+")", formatTime(kept.IdempotencyKeys), limit)
	}
	return d, err
}

// DeleteCustomer deletes what a merchant told of a payment's customer, and reports whether there was something.
func (tx *Tx) DeleteCustomer(paymentID string) (bool, error) {
	n, err := tx.delete("DELETE FROM customers WHERE payment_id = ?", paymentID)
	return n > 0, err
}

// delete runs a statement and returns how many rows it has deleted.
func (tx *Tx) delete(query string, args ...any) (n int, err error) {
	if err := tx.Exec(query, args...); err != nil {
		return 0, err
	}
	err = tx.q.QueryRowContext(tx.ctx, "SELECT changes()").Scan(&n)
	return n, translate(err)
}

// firstID is below every id of a prefix that was given since (see [NewID]), and above all earlier ones.
func firstID(prefix string, since time.Time) string {
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(since)) // an error only after the year 10889
	return prefix + "_" + id.String()
}
