package store

import (
	"time"

	"github.com/finterra/finpay/pci"
)

// TokenBound is how many new cards of one truncation an API key has had tokenized in a domain, within a day or an import.
type TokenBound struct {
	Period    string // a day (UTC, YYYY-MM-DD) or the id of an [Import]
	Domain    string
	KeyID     string
	Truncated pci.Truncated
	Cards     int
}

// TokenBounds returns the counts that were kept of a period.
func (q Queries) TokenBounds(period string) ([]TokenBound, error) {
	rows, err := q.q.QueryContext(q.ctx, "SELECT period, domain, key_id, truncated, cards FROM token_bounds WHERE period = ?", period)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var list []TokenBound
	for rows.Next() {
		var b TokenBound
		if err := rows.Scan(&b.Period, &b.Domain, &b.KeyID, &b.Truncated, &b.Cards); err != nil {
			return nil, translate(err)
		}
		list = append(list, b)
	}
	return list, translate(rows.Err())
}

// PutTokenBound keeps a count.
func (tx *Tx) PutTokenBound(b TokenBound) error {
	return tx.Exec(`INSERT INTO token_bounds (period, domain, key_id, truncated, cards) VALUES (?,?,?,?,?)
		ON CONFLICT DO UPDATE SET cards = max(cards, excluded.cards)`, b.Period, b.Domain, b.KeyID, b.Truncated, b.Cards)
}

// ForgetTokenBounds forgets the counts of days before one, and of imports that are over.
func (tx *Tx) ForgetTokenBounds(day string) error {
	return tx.Exec(`DELETE FROM token_bounds WHERE period <> ? AND period NOT IN (SELECT id FROM token_imports WHERE closed_at = '')`, day)
}

// Import is a time in which an API key may have more cards tokenized that begin and end alike.
type Import struct {
	ID       string
	KeyID    string
	Bound    int // new cards of one truncation, in all of it
	OpenedAt time.Time
	Until    time.Time
	ClosedAt time.Time // zero while nobody has closed it
}

// PutImport writes an import.
func (tx *Tx) PutImport(i Import) error {
	inUTC(&i.OpenedAt, &i.Until, &i.ClosedAt)
	return tx.write("token_imports", i.ID, i, `INSERT INTO token_imports (id, key_id, bound, opened_at, until, closed_at) VALUES (?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET closed_at = excluded.closed_at`,
		i.ID, i.KeyID, i.Bound, formatTime(i.OpenedAt), formatTime(i.Until), formatTime(i.ClosedAt))
}

// OpenImports returns the imports that nobody has closed, oldest first; the time of some may be over.
func (q Queries) OpenImports() ([]Import, error) {
	rows, err := q.q.QueryContext(q.ctx, "SELECT id, key_id, bound, opened_at, until FROM token_imports WHERE closed_at = '' ORDER BY opened_at, id")
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var list []Import
	for rows.Next() {
		var i Import
		if err := rows.Scan(&i.ID, &i.KeyID, &i.Bound, scanTime{&i.OpenedAt}, scanTime{&i.Until}); err != nil {
			return nil, translate(err)
		}
		list = append(list, i)
	}
	return list, translate(rows.Err())
}
