package store

import (
	"fmt"
	"strings"
	"time"
)

// Event is something a merchant is told of.
type Event struct {
	ID         string
	MerchantID string
	PaymentID  string
	Sequence   int64 // rises within a payment
	Type       string
	Body       []byte // JSON, the body of the webhook
	CreatedAt  time.Time
}

const eventColumns = "e.id, e.merchant_id, e.payment_id, e.sequence, e.type, e.body, e.created_at"

func scanEvent(row scanner) (Event, error) {
	var e Event
	err := row.Scan(&e.ID, &e.MerchantID, &e.PaymentID, &e.Sequence, &e.Type, &e.Body, scanTime{&e.CreatedAt})
	return e, translate(err)
}

// perLog is how many events a payment can have in one log before their numbers reach those of the next.
const perLog = 1 << 20

// PutEvent puts an event into the outbox, due at once at each of the merchant's endpoints that takes its type. It gives the
// event its number and writes it into the body, a JSON object, as its first member. Numbers of a log begin above those of the
// logs before: a restored database has a new log, and must not give again what the lost one gave.
func (tx *Tx) PutEvent(e Event) error {
	if len(e.Body) < len(`{"":0}`) || e.Body[0] != '{' {
		return fmt.Errorf("event %s: the body is no JSON object with members", e.ID)
	}
	if err := tx.q.QueryRowContext(tx.ctx, "SELECT max(coalesce(max(sequence), 0), ?) + 1 FROM events WHERE payment_id = ?",
		tx.Log()*perLog, e.PaymentID).Scan(&e.Sequence); err != nil {
		return translate(err)
	}
	e.Body = append(fmt.Appendf(nil, `{"sequence":%d,`, e.Sequence), e.Body[1:]...)
	inUTC(&e.CreatedAt)
	if err := tx.write("events", e.ID, e, "INSERT INTO events (id, merchant_id, payment_id, sequence, type, body, created_at) VALUES (?,?,?,?,?,?,?)",
		e.ID, e.MerchantID, e.PaymentID, e.Sequence, e.Type, e.Body, formatTime(e.CreatedAt)); err != nil {
		return err
	}
	return tx.Exec(`INSERT INTO deliveries (event_id, endpoint_id, status, next_at) SELECT ?, id, 'pending', ? FROM webhook_endpoints
		WHERE merchant_id = ? AND status = 'enabled' AND (types = '[]' OR EXISTS (SELECT 1 FROM json_each(types) WHERE value = ?))`,
		e.ID, formatTime(e.CreatedAt), e.MerchantID, e.Type)
}

// Event returns one event.
func (q Queries) Event(id string) (Event, error) {
	return scanEvent(q.q.QueryRowContext(q.ctx, "SELECT "+eventColumns+" FROM events e WHERE e.id = ?", id))
}

// EventFilter narrows a list of events. Empty fields do not.
type EventFilter struct {
	MerchantID string
	PaymentID  string
	Type       string
	From, To   time.Time // To is not included
	Before     string    // events older than this id
	Limit      int
}

// Events returns events, newest first.
func (q Queries) Events(f EventFilter) (list []Event, err error) {
	where, args := []string{"e.merchant_id = ?"}, []any{f.MerchantID}
	for _, c := range []struct{ condition, value string }{
		{"e.payment_id = ?", f.PaymentID}, {"e.type = ?", f.Type}, {"e.created_at >= ?", formatTime(f.From)},
		{"e.created_at < ?", formatTime(f.To)}, {"e.id < ?", f.Before},
	} {
		if c.value != "" {
			where, args = append(where, c.condition), append(args, c.value)
		}
	}
	err = each(q, scanEvent, func(e Event) error { list = append(list, e); return nil },
		"SELECT "+eventColumns+" FROM events e WHERE "+strings.Join(where, " AND ")+" ORDER BY e.id DESC LIMIT ?", append(args, f.Limit)...)
	return list, err
}
