package store

import "time"

// Event is something a merchant is told of.
type Event struct {
	ID         string
	MerchantID string
	PaymentID  string
	Type       string
	Body       []byte // JSON, the body of the webhook
	CreatedAt  time.Time
}

const eventColumns = "e.id, e.merchant_id, e.payment_id, e.type, e.body, e.created_at"

func scanEvent(row scanner) (Event, error) {
	var e Event
	err := row.Scan(&e.ID, &e.MerchantID, &e.PaymentID, &e.Type, &e.Body, scanTime{&e.CreatedAt})
	return e, translate(err)
}

// Delivery is where an event stands on its way to the merchant.
type Delivery struct {
	Event  Event
	Status string
	Tries  int
	NextAt time.Time
}

// What becomes of a delivery.
const (
	DeliveryPending   = "pending"
	DeliveryDelivered = "delivered"
	DeliveryFailed    = "failed"
)

// PutEvent puts an event into the outbox, due at once.
func (tx *Tx) PutEvent(e Event) error {
	inUTC(&e.CreatedAt)
	if err := tx.write("events", e.ID, e, "INSERT INTO events (id, merchant_id, payment_id, type, body, created_at) VALUES (?,?,?,?,?,?)",
		e.ID, e.MerchantID, e.PaymentID, e.Type, e.Body, formatTime(e.CreatedAt)); err != nil {
		return err
	}
	return tx.Exec("INSERT INTO deliveries (event_id, status, next_at) VALUES (?,?,?)", e.ID, DeliveryPending, formatTime(e.CreatedAt))
}

// DueDeliveries returns pending deliveries whose time has come, oldest first.
func (q Queries) DueDeliveries(now time.Time, limit int) ([]Delivery, error) {
	rows, err := q.q.QueryContext(q.ctx, `SELECT `+eventColumns+`, d.status, d.tries, d.next_at
		FROM deliveries d JOIN events e ON e.id = d.event_id
		WHERE d.status = 'pending' AND d.next_at <= ? ORDER BY d.next_at, e.id LIMIT ?`, formatTime(now), limit)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var due []Delivery
	for rows.Next() {
		var d Delivery
		if err := rows.Scan(&d.Event.ID, &d.Event.MerchantID, &d.Event.PaymentID, &d.Event.Type, &d.Event.Body,
			scanTime{&d.Event.CreatedAt}, &d.Status, &d.Tries, scanTime{&d.NextAt}); err != nil {
			return nil, translate(err)
		}
		due = append(due, d)
	}
	return due, translate(rows.Err())
}

// NextDelivery returns when the next pending delivery is due, or [ErrNotFound].
func (q Queries) NextDelivery() (time.Time, error) {
	var at time.Time
	err := q.q.QueryRowContext(q.ctx, "SELECT next_at FROM deliveries WHERE status = 'pending' ORDER BY next_at LIMIT 1").Scan(scanTime{&at})
	return at, translate(err)
}

// PutDeliveryTry notes a try and what comes next. No entry covers it.
func (tx *Tx) PutDeliveryTry(d Delivery, at time.Time, code int, problem string) error {
	if err := tx.Exec("INSERT INTO delivery_tries (event_id, n, at, code, error) VALUES (?,?,?,?,?)", d.Event.ID, d.Tries, formatTime(at), code, problem); err != nil {
		return err
	}
	return tx.Exec("UPDATE deliveries SET status = ?, tries = ?, next_at = ? WHERE event_id = ?", d.Status, d.Tries, formatTime(d.NextAt), d.Event.ID)
}
