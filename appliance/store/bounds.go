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
	var list []TokenBound
	err := each(q, scanTokenBound, func(b TokenBound) error { list = append(list, b); return nil },
		"SELECT period, domain, key_id, truncated, cards FROM token_bounds WHERE period = ?", period)
	return list, err
}

func scanTokenBound(row scanner) (TokenBound, error) {
	var b TokenBound
	err := row.Scan(&b.Period, &b.Domain, &b.KeyID, &b.Truncated, &b.Cards)
	return b, translate(err)
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

const importColumns = "id, key_id, bound, opened_at, until, closed_at"

func scanImport(row scanner) (Import, error) {
	var i Import
	err := row.Scan(&i.ID, &i.KeyID, &i.Bound, scanTime{&i.OpenedAt}, scanTime{&i.Until}, scanTime{&i.ClosedAt})
	return i, translate(err)
}

// PutImport writes an import.
func (tx *Tx) PutImport(i Import) error {
	inUTC(&i.OpenedAt, &i.Until, &i.ClosedAt)
	return tx.write("token_imports", i.ID, i, `INSERT INTO token_imports (`+importColumns+`) VALUES (?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET closed_at = excluded.closed_at`,
		i.ID, i.KeyID, i.Bound, formatTime(i.OpenedAt), formatTime(i.Until), formatTime(i.ClosedAt))
}

// OpenImports returns the imports that nobody has closed, oldest first; the time of some may be over.
func (q Queries) OpenImports() ([]Import, error) {
	var list []Import
	err := each(q, scanImport, func(i Import) error { list = append(list, i); return nil },
		"SELECT "+importColumns+" FROM token_imports WHERE closed_at = '' ORDER BY opened_at, id")
	return list, err
}
