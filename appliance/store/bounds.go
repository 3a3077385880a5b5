package store

import "github.com/finterra/finpay/pci"

// TokenBound is how many new cards of one truncation an API key has had tokenized in a domain and day.
type TokenBound struct {
	Day       string // UTC, YYYY-MM-DD
	Domain    string
	KeyID     string
	Truncated pci.Truncated
	Cards     int
}

// TokenBounds returns the counts that were kept of a day.
func (q Queries) TokenBounds(day string) ([]TokenBound, error) {
	rows, err := q.q.QueryContext(q.ctx, "SELECT day, domain, key_id, truncated, cards FROM token_bounds WHERE day = ?", day)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var list []TokenBound
	for rows.Next() {
		var b TokenBound
		if err := rows.Scan(&b.Day, &b.Domain, &b.KeyID, &b.Truncated, &b.Cards); err != nil {
			return nil, translate(err)
		}
		list = append(list, b)
	}
	return list, translate(rows.Err())
}

// PutTokenBound keeps a count, and forgets those of earlier days.
func (tx *Tx) PutTokenBound(b TokenBound) error {
	if err := tx.Exec("DELETE FROM token_bounds WHERE day < ?", b.Day); err != nil {
		return err
	}
	return tx.Exec(`INSERT INTO token_bounds (day, domain, key_id, truncated, cards) VALUES (?,?,?,?,?)
		ON CONFLICT DO UPDATE SET cards = max(cards, excluded.cards)`, b.Day, b.Domain, b.KeyID, b.Truncated, b.Cards)
}
