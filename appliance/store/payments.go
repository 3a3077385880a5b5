package store

import (
	"fmt"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
)

// Payment is one row of payments.
type Payment struct {
	ID          string
	MerchantID  string
	SessionHash []byte
	Status      string
	Amount      pci.Amount
	Reference   string
	ReturnURL   string
	Capture     string        // automatic or manual
	Token       pci.Token     // of the stored card that pays; empty where a card is entered
	Initiator   pci.Initiator // of a stored card
	Original    string        // the payment on which a merchant's own one stands
	Captured    int64         // minor units that the acquirer has booked
	Refunded    int64         // of them
	Attempts    int           // cards tried so far
	Wishes      Wishes
	CreatedAt   time.Time
	ExpiresAt   time.Time
	UpdatedAt   time.Time
}

// Wishes are what a merchant asks of 3-D Secure.
type Wishes struct {
	Challenge       pci.Preference
	Exemption       pci.Exemption
	Setup           pci.Setup
	RecurringExpiry string // YYYY-MM-DD
	RecurringDays   int
	Instalments     int
}

// Customer is what a merchant told of a person. Billing is JSON.
type Customer struct{ Name, Email, Phone, Billing string }

// Attempt is one card tried on a payment.
type Attempt struct {
	PaymentID     string
	N             int
	Status        string
	Form          string
	Initiator     pci.Initiator // of a stored card; empty for one that was entered
	Domain        string
	Token         pci.Token
	Card          pci.Card
	TransStatus   string
	ECI           string
	ServerTransID string
	DSTransID     string
	Trace         pci.Trace
	Connector     string // that it was sent by, and what follows it
	Reference     string // the processor's own name of the sale, empty where it has none
	ResponseCode  string
	ApprovalCode  string
	NetworkID     string // the scheme's, of the transaction
	SoftDecline   string // DE 39 of its first sale, after which the issuer was asked for a challenge; empty while there was none
	Reason        string
	Reversal      pci.Trace // set once a reversal is due
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

const paymentColumns = "id, merchant_id, session_hash, status, amount, currency, reference, return_url, capture, token, initiator, original, captured, refunded, attempts, " +
	"challenge, exemption, setup, recurring_expiry, recurring_days, instalments, created_at, expires_at, updated_at"

func scanPayment(row scanner) (Payment, error) {
	var p Payment
	err := row.Scan(&p.ID, &p.MerchantID, &p.SessionHash, &p.Status, &p.Amount.Minor, &p.Amount.Currency, &p.Reference,
		&p.ReturnURL, &p.Capture, &p.Token, &p.Initiator, &p.Original, &p.Captured, &p.Refunded, &p.Attempts, &p.Wishes.Challenge, &p.Wishes.Exemption, &p.Wishes.Setup,
		&p.Wishes.RecurringExpiry, &p.Wishes.RecurringDays, &p.Wishes.Instalments, scanTime{&p.CreatedAt}, scanTime{&p.ExpiresAt}, scanTime{&p.UpdatedAt})
	return p, translate(err)
}

// Payment returns one payment.
func (q Queries) Payment(id string) (Payment, error) {
	return scanPayment(q.q.QueryRowContext(q.ctx, "SELECT "+paymentColumns+" FROM payments WHERE id = ?", id))
}

// PaymentBySession returns the payment of a checkout session, by the session's SHA-256.
func (q Queries) PaymentBySession(hash []byte) (Payment, error) {
	return scanPayment(q.q.QueryRowContext(q.ctx, "SELECT "+paymentColumns+" FROM payments WHERE session_hash = ?", hash))
}

// PaymentFilter narrows a list of payments. Zero fields do not.
type PaymentFilter struct {
	MerchantID string
	Status     string
	Reference  string
	From, To   time.Time // of creation; To is not included
	Before     string    // payments older than this id
	Limit      int
}

// Payments returns payments, newest first.
func (q Queries) Payments(f PaymentFilter) ([]Payment, error) {
	where, args := []string{"merchant_id = ?"}, []any{f.MerchantID}
	add := func(condition string, value string) {
		if value != "" {
			where, args = append(where, condition), append(args, value)
		}
	}
	add("status = ?", f.Status)
	add("reference = ?", f.Reference)
	add("created_at >= ?", formatTime(f.From))
	add("created_at < ?", formatTime(f.To))
	add("id < ?", f.Before)
	return q.payments("WHERE "+strings.Join(where, " AND ")+" ORDER BY id DESC LIMIT ?", append(args, f.Limit)...)
}

// PaymentsInStatus returns payments whose session ends before a time, oldest first.
func (q Queries) PaymentsInStatus(status string, expireBefore time.Time, limit int) ([]Payment, error) {
	return q.payments("WHERE status = ? AND expires_at < ? ORDER BY expires_at LIMIT ?", status, formatTime(expireBefore), limit)
}

// PayablePayments returns payments that a shopper could still pay at a time, or was about to, and those that a merchant could
// still capture or void: oldest first. A capture or void that is pending says itself what becomes of its payment.
func (q Queries) PayablePayments(at time.Time, attempts, limit int) ([]Payment, error) {
	return q.payments("WHERE status = 'authenticating' OR (status = 'authorized' AND NOT EXISTS (SELECT 1 FROM modifications m WHERE m.payment_id = payments.id AND m.status = 'pending')) OR (expires_at > ? AND (status = 'created' OR (status = 'declined' AND attempts < ?))) ORDER BY id LIMIT ?",
		formatTime(at), attempts, limit)
}

func (q Queries) payments(clause string, args ...any) ([]Payment, error) {
	rows, err := q.q.QueryContext(q.ctx, "SELECT "+paymentColumns+" FROM payments "+clause, args...)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var list []Payment
	for rows.Next() {
		p, err := scanPayment(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, translate(rows.Err())
}

// Customer returns what is known of a payment's customer; it may be empty.
func (q Queries) Customer(paymentID string) (Customer, error) {
	var c Customer
	err := q.q.QueryRowContext(q.ctx, "SELECT name, email, phone, billing FROM customers WHERE payment_id = ?", paymentID).
		Scan(&c.Name, &c.Email, &c.Phone, &c.Billing)
	return c, translate(err)
}

const attemptColumns = `payment_id, n, status, form, initiator, domain, token, brand, truncated, expiry, trans_status, eci, server_trans_id, ds_trans_id,
	stan, rrn, sent_at, connector, connector_reference, response_code, approval_code, network_id, soft_decline, reason, reversal_stan, reversal_rrn, reversal_at,
	created_at, updated_at`

func scanAttempt(row scanner) (Attempt, error) {
	var a Attempt
	var expiry string
	err := row.Scan(&a.PaymentID, &a.N, &a.Status, &a.Form, &a.Initiator, &a.Domain, &a.Token, &a.Card.Brand, &a.Card.Truncated, &expiry,
		&a.TransStatus, &a.ECI, &a.ServerTransID, &a.DSTransID, &a.Trace.STAN, &a.Trace.RRN, scanTime{&a.Trace.TransmittedAt},
		&a.Connector, &a.Reference, &a.ResponseCode, &a.ApprovalCode, &a.NetworkID, &a.SoftDecline, &a.Reason, &a.Reversal.STAN, &a.Reversal.RRN, scanTime{&a.Reversal.TransmittedAt},
		scanTime{&a.CreatedAt}, scanTime{&a.UpdatedAt})
	if err != nil {
		return a, translate(err)
	}
	a.Card.Expiry, err = pci.ParseExpiry(expiry)
	return a, err
}

// Attempt returns one attempt of a payment.
func (q Queries) Attempt(paymentID string, n int) (Attempt, error) {
	return scanAttempt(q.q.QueryRowContext(q.ctx, "SELECT "+attemptColumns+" FROM attempts WHERE payment_id = ? AND n = ?", paymentID, n))
}

// AttemptByForm returns the attempt that a showing of the form has led to.
func (q Queries) AttemptByForm(paymentID, form string) (Attempt, error) {
	return scanAttempt(q.q.QueryRowContext(q.ctx, "SELECT "+attemptColumns+" FROM attempts WHERE payment_id = ? AND form = ?", paymentID, form))
}

// AttemptsInStatus returns attempts, oldest first.
func (q Queries) AttemptsInStatus(status string) ([]Attempt, error) {
	rows, err := q.q.QueryContext(q.ctx, "SELECT "+attemptColumns+" FROM attempts WHERE status = ? ORDER BY created_at", status)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var list []Attempt
	for rows.Next() {
		a, err := scanAttempt(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, translate(rows.Err())
}

// OpenConnectors returns the names of the connectors that have work to finish: reversals of sales, and captures, voids and
// refunds that were announced.
func (q Queries) OpenConnectors() ([]string, error) {
	var names []string
	err := each(q, func(row scanner) (name string, err error) { return name, row.Scan(&name) },
		func(name string) error { names = append(names, name); return nil },
		`SELECT connector FROM attempts WHERE status IN ('authorizing', 'indeterminate')
		UNION SELECT a.connector FROM modifications m JOIN payments p ON p.id = m.payment_id
			JOIN attempts a ON a.payment_id = p.id AND a.n = p.attempts WHERE m.status IN ('pending', 'indeterminate') ORDER BY 1`)
	return names, err
}

// PutPayment writes a payment.
func (tx *Tx) PutPayment(p Payment) error {
	inUTC(&p.CreatedAt, &p.ExpiresAt, &p.UpdatedAt)
	return tx.write("payments", p.ID, p, `INSERT INTO payments (`+paymentColumns+`) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET status = excluded.status, captured = excluded.captured, refunded = excluded.refunded, attempts = excluded.attempts, updated_at = excluded.updated_at`,
		p.ID, p.MerchantID, p.SessionHash, p.Status, p.Amount.Minor, p.Amount.Currency, p.Reference, p.ReturnURL,
		p.Capture, p.Token, p.Initiator, p.Original, p.Captured, p.Refunded, p.Attempts, p.Wishes.Challenge, p.Wishes.Exemption, p.Wishes.Setup,
		p.Wishes.RecurringExpiry, p.Wishes.RecurringDays, p.Wishes.Instalments, formatTime(p.CreatedAt), formatTime(p.ExpiresAt), formatTime(p.UpdatedAt))
}

// PutCustomer keeps what belongs to a person, which no entry covers.
func (tx *Tx) PutCustomer(paymentID string, c Customer) error {
	return tx.Exec(`INSERT INTO customers (payment_id, name, email, phone, billing) VALUES (?,?,?,?,?)
		ON CONFLICT (payment_id) DO UPDATE SET name = excluded.name, email = excluded.email, phone = excluded.phone, billing = excluded.billing`,
		paymentID, c.Name, c.Email, c.Phone, c.Billing)
}

// PutAttempt writes an attempt.
func (tx *Tx) PutAttempt(a Attempt) error {
	inUTC(&a.Trace.TransmittedAt, &a.Reversal.TransmittedAt, &a.CreatedAt, &a.UpdatedAt)
	return tx.write("attempts", fmt.Sprintf("%s/%d", a.PaymentID, a.N), a, `INSERT INTO attempts (`+attemptColumns+`)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (payment_id, n) DO UPDATE SET status = excluded.status, trans_status = excluded.trans_status, eci = excluded.eci,
		server_trans_id = excluded.server_trans_id, ds_trans_id = excluded.ds_trans_id, stan = excluded.stan, rrn = excluded.rrn,
		sent_at = excluded.sent_at, connector = excluded.connector, connector_reference = excluded.connector_reference,
		response_code = excluded.response_code, approval_code = excluded.approval_code, network_id = excluded.network_id,
		soft_decline = excluded.soft_decline, reason = excluded.reason, reversal_stan = excluded.reversal_stan, reversal_rrn = excluded.reversal_rrn,
		reversal_at = excluded.reversal_at, updated_at = excluded.updated_at`,
		a.PaymentID, a.N, a.Status, a.Form, a.Initiator, a.Domain, a.Token, a.Card.Brand, a.Card.Truncated, a.Card.Expiry.String(),
		a.TransStatus, a.ECI, a.ServerTransID, a.DSTransID, a.Trace.STAN, a.Trace.RRN, formatTime(a.Trace.TransmittedAt),
		a.Connector, a.Reference, a.ResponseCode, a.ApprovalCode, a.NetworkID, a.SoftDecline, a.Reason, a.Reversal.STAN, a.Reversal.RRN, formatTime(a.Reversal.TransmittedAt),
		formatTime(a.CreatedAt), formatTime(a.UpdatedAt))
}

// Next returns the next value of a sequence, starting at 1.
func (tx *Tx) Next(name string) (int64, error) {
	var value int64
	err := tx.insert(&value, `INSERT INTO sequences (name, value) VALUES (?, 1)
		ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value`, name)
	return value, err
}

// Advance skips values of every sequence whose name begins so.
func (tx *Tx) Advance(prefix string, by int64) error {
	return tx.Exec("UPDATE sequences SET value = value + ? WHERE substr(name, 1, ?) = ?", by, len(prefix), prefix)
}

// Idempotent is the first request under an idempotency key.
type Idempotent struct {
	MerchantID, Key string
	RequestMAC      []byte
	Answer          string // what the first answer is made from again
	CreatedAt       time.Time
}

// Idempotent returns the first request under a key.
func (q Queries) Idempotent(merchantID, key string) (Idempotent, error) {
	i := Idempotent{MerchantID: merchantID, Key: key}
	err := q.q.QueryRowContext(q.ctx, "SELECT request_mac, answer, created_at FROM idempotency WHERE merchant_id = ? AND key = ?", merchantID, key).
		Scan(&i.RequestMAC, &i.Answer, scanTime{&i.CreatedAt})
	return i, translate(err)
}

// PutIdempotent keeps the first request under a key.
func (tx *Tx) PutIdempotent(i Idempotent) error {
	return tx.Exec("INSERT INTO idempotency (merchant_id, key, request_mac, answer, created_at) VALUES (?,?,?,?,?)",
		i.MerchantID, i.Key, i.RequestMAC, i.Answer, formatTime(i.CreatedAt))
}
