package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/finterra/finpay/pci"
)

// Modification is what a merchant does with a payment after its authorization. A payment has at most one that is open.
type Modification struct {
	ID           string
	PaymentID    string
	Kind         string
	Status       string
	Amount       pci.Amount
	Trace        pci.Trace
	ResponseCode string
	ApprovalCode string
	Reason       string
	Reversal     pci.Trace // set once the reversal of a refund is due
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// The kinds of a [Modification].
const (
	ModificationCapture = "capture"
	ModificationVoid    = "void"
	ModificationRefund  = "refund"
)

// The statuses of a [Modification].
const (
	ModificationPending       = "pending"       // announced; a capture or void is repeated until it is answered
	ModificationIndeterminate = "indeterminate" // a refund of which no answer is known, to be reversed
	ModificationSucceeded     = "succeeded"
	ModificationFailed        = "failed"
)

// Open reports whether the modification has not ended.
func (m Modification) Open() bool {
	return m.Status == ModificationPending || m.Status == ModificationIndeterminate
}

const modificationColumns = `id, payment_id, kind, status, amount, currency, stan, rrn, sent_at, response_code, approval_code, reason,
	reversal_stan, reversal_rrn, reversal_at, created_at, updated_at`

func scanModification(row scanner) (Modification, error) {
	var m Modification
	err := row.Scan(&m.ID, &m.PaymentID, &m.Kind, &m.Status, &m.Amount.Minor, &m.Amount.Currency, &m.Trace.STAN, &m.Trace.RRN,
		scanTime{&m.Trace.TransmittedAt}, &m.ResponseCode, &m.ApprovalCode, &m.Reason, &m.Reversal.STAN, &m.Reversal.RRN,
		scanTime{&m.Reversal.TransmittedAt}, scanTime{&m.CreatedAt}, scanTime{&m.UpdatedAt})
	return m, translate(err)
}

// Modification returns one modification.
func (q Queries) Modification(id string) (Modification, error) {
	return scanModification(q.q.QueryRowContext(q.ctx, "SELECT "+modificationColumns+" FROM modifications WHERE id = ?", id))
}

// Modifications returns those of a payment, oldest first. They are few, and each event asks for them: SQLite prepares a statement
// that orders them anew each time, which costs more than the order.
func (q Queries) Modifications(paymentID string) ([]Modification, error) {
	list, err := q.modifications("WHERE payment_id = ?", paymentID)
	slices.SortFunc(list, func(a, b Modification) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return list, err
}

// OpenModifications returns those that have not ended, oldest first.
func (q Queries) OpenModifications() ([]Modification, error) {
	return q.modifications("WHERE status IN ('pending', 'indeterminate') ORDER BY created_at, id")
}

func (q Queries) modifications(clause string, args ...any) (list []Modification, err error) {
	err = each(q, scanModification, func(m Modification) error {
		list = append(list, m)
		return nil
	}, "SELECT "+modificationColumns+" FROM modifications "+clause, args...)
	return list, err
}

// PutModification writes a modification.
func (tx *Tx) PutModification(m Modification) error {
	inUTC(&m.Trace.TransmittedAt, &m.Reversal.TransmittedAt, &m.CreatedAt, &m.UpdatedAt)
	return tx.write("modifications", m.ID, m, `INSERT INTO modifications (`+modificationColumns+`) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET status = excluded.status, response_code = excluded.response_code, approval_code = excluded.approval_code,
		reason = excluded.reason, reversal_stan = excluded.reversal_stan, reversal_rrn = excluded.reversal_rrn,
		reversal_at = excluded.reversal_at, updated_at = excluded.updated_at`,
		m.ID, m.PaymentID, m.Kind, m.Status, m.Amount.Minor, m.Amount.Currency, m.Trace.STAN, m.Trace.RRN, formatTime(m.Trace.TransmittedAt),
		m.ResponseCode, m.ApprovalCode, m.Reason, m.Reversal.STAN, m.Reversal.RRN, formatTime(m.Reversal.TransmittedAt),
		formatTime(m.CreatedAt), formatTime(m.UpdatedAt))
}
