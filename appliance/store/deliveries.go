package store

import "time"

// Delivery is where an event stands on its way to one endpoint.
type Delivery struct {
	EventID    string
	EndpointID string
	Status     string
	Tries      int       // made so far
	Step       int       // tries since it began, or was asked for again: the place in the schedule
	NextAt     time.Time // of the next try, while it is pending
}

// What becomes of a delivery.
const (
	DeliveryPending   = "pending"
	DeliveryDelivered = "delivered"
	DeliveryFailed    = "failed"
	DeliveryCancelled = "cancelled" // its endpoint was switched off or deleted
)

// Try is one try of a delivery.
type Try struct {
	N     int // from 1
	At    time.Time
	Code  int    // HTTP status, 0 for none
	Error string // in the appliance's words; "" for none
}

const deliveryColumns = "event_id, endpoint_id, status, tries, step, next_at"

func scanDelivery(row scanner) (Delivery, error) {
	var d Delivery
	err := row.Scan(&d.EventID, &d.EndpointID, &d.Status, &d.Tries, &d.Step, scanTime{&d.NextAt})
	return d, translate(err)
}

// Queue is an endpoint with pending deliveries.
type Queue struct {
	EndpointID string
	NextAt     time.Time // when the first of them is due
}

// Queues returns the endpoints that have pending deliveries; that whose first one is due first comes first. It costs one look into
// an index for each endpoint, however many deliveries are pending.
func (q Queries) Queues() (list []Queue, err error) {
	err = each(q, func(row scanner) (Queue, error) {
		var queue Queue
		err := row.Scan(&queue.EndpointID, scanTime{&queue.NextAt})
		return queue, err
	}, func(queue Queue) error { list = append(list, queue); return nil },
		`SELECT id, at FROM (SELECT id, (SELECT min(next_at) FROM deliveries WHERE endpoint_id = id AND status = 'pending') AS at
		FROM webhook_endpoints WHERE status = 'enabled') WHERE at IS NOT NULL ORDER BY at, id`)
	return list, err
}

// Pending returns an endpoint's pending deliveries, those that are due first first.
func (q Queries) Pending(endpointID string, limit int) (list []Delivery, err error) {
	err = each(q, scanDelivery, func(d Delivery) error { list = append(list, d); return nil },
		"SELECT "+deliveryColumns+" FROM deliveries WHERE endpoint_id = ? AND status = 'pending' ORDER BY next_at, event_id LIMIT ?", endpointID, limit)
	return list, err
}

// Delivery returns the delivery of an event to an endpoint.
func (q Queries) Delivery(eventID, endpointID string) (Delivery, error) {
	return scanDelivery(q.q.QueryRowContext(q.ctx, "SELECT "+deliveryColumns+" FROM deliveries WHERE event_id = ? AND endpoint_id = ?", eventID, endpointID))
}

// Deliveries returns the deliveries of an event.
func (q Queries) Deliveries(eventID string) (list []Delivery, err error) {
	err = each(q, scanDelivery, func(d Delivery) error { list = append(list, d); return nil },
		"SELECT "+deliveryColumns+" FROM deliveries WHERE event_id = ? ORDER BY endpoint_id", eventID)
	return list, err
}

// PendingAt returns how many deliveries to an endpoint are pending.
func (q Queries) PendingAt(endpointID string) (n int, err error) {
	err = q.q.QueryRowContext(q.ctx, "SELECT count(*) FROM deliveries WHERE endpoint_id = ? AND status = 'pending'", endpointID).Scan(&n)
	return n, translate(err)
}

// Tries returns the newest tries of a delivery, oldest first.
func (q Queries) Tries(d Delivery, limit int) (list []Try, err error) {
	err = each(q, func(row scanner) (Try, error) {
		var t Try
		err := row.Scan(&t.N, scanTime{&t.At}, &t.Code, &t.Error)
		return t, err
	}, func(t Try) error { list = append(list, t); return nil },
		`SELECT n, at, code, error FROM delivery_tries WHERE event_id = ? AND endpoint_id = ? AND n > ? ORDER BY n`, d.EventID, d.EndpointID, d.Tries-limit)
	return list, err
}

// PutDelivery writes where a delivery stands. No entry covers it.
func (tx *Tx) PutDelivery(d Delivery) error {
	return tx.Exec(`INSERT INTO deliveries (`+deliveryColumns+`) VALUES (?,?,?,?,?,?) ON CONFLICT (event_id, endpoint_id) DO UPDATE SET
		status = excluded.status, tries = excluded.tries, step = excluded.step, next_at = excluded.next_at`,
		d.EventID, d.EndpointID, d.Status, d.Tries, d.Step, formatTime(d.NextAt))
}

// PutTry notes a try. No entry covers it.
func (tx *Tx) PutTry(d Delivery, t Try) error {
	return tx.Exec("INSERT INTO delivery_tries (event_id, endpoint_id, n, at, code, error) VALUES (?,?,?,?,?,?)",
		d.EventID, d.EndpointID, t.N, formatTime(t.At), t.Code, t.Error)
}
