package store

import (
	"errors"
	"time"
)

// Recipient is to whom the cards of an API key are detokenized.
type Recipient struct {
	KeyID     string
	PublicKey []byte // P-256, uncompressed point (SEC 1, section 2.3.3)
	Quota     int    // cards a day
	UsableAt  time.Time
	CreatedAt time.Time
}

const recipientColumns = "key_id, public_key, quota, usable_at, created_at"

func scanRecipient(row scanner) (Recipient, error) {
	var r Recipient
	err := row.Scan(&r.KeyID, &r.PublicKey, &r.Quota, scanTime{&r.UsableAt}, scanTime{&r.CreatedAt})
	return r, translate(err)
}

// Recipient returns the recipient of an API key.
func (q Queries) Recipient(keyID string) (Recipient, error) {
	return scanRecipient(q.q.QueryRowContext(q.ctx, "SELECT "+recipientColumns+" FROM recipients WHERE key_id = ?", keyID))
}

// PutRecipient registers the recipient of an API key, in place of an earlier one.
func (tx *Tx) PutRecipient(r Recipient) error {
	inUTC(&r.UsableAt, &r.CreatedAt)
	return tx.write("recipients", r.KeyID, r, `INSERT INTO recipients (`+recipientColumns+`) VALUES (?,?,?,?,?)
		ON CONFLICT (key_id) DO UPDATE SET public_key = excluded.public_key, quota = excluded.quota, usable_at = excluded.usable_at,
		created_at = excluded.created_at`, r.KeyID, r.PublicKey, r.Quota, formatTime(r.UsableAt), formatTime(r.CreatedAt))
}

// Detokenizations returns how many cards an API key has had detokenized on a day.
func (q Queries) Detokenizations(keyID, day string) (cards int, err error) {
	err = q.q.QueryRowContext(q.ctx, "SELECT cards FROM detokenizations WHERE key_id = ? AND day = ?", keyID, day).Scan(&cards)
	if err = translate(err); errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return cards, err
}

// CountDetokenization adds one to the cards of a day. The unit's own entry tells of it.
func (tx *Tx) CountDetokenization(keyID, day string) error {
	return tx.Exec(`INSERT INTO detokenizations (key_id, day, cards) VALUES (?,?,1) ON CONFLICT (key_id) DO UPDATE SET
		cards = CASE WHEN day = excluded.day THEN cards + 1 ELSE 1 END, day = excluded.day`, keyID, day)
}
