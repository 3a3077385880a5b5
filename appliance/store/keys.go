package store

import (
	"fmt"
	"time"
)

// Key is one row of keys: what the books say of a key in the HSM.
type Key struct {
	Role        string
	Version     uint32
	Kind        string
	Class       string // "bound" or "recoverable"
	State       string // see the constants
	CheckValue  string
	Origin      string // see the constants
	CreatedAt   time.Time
	RetiredAt   time.Time
	DestroyedAt time.Time
}

// States of a [Key]. A role has at most one active version; retired ones only decrypt, verify and reverse.
const (
	KeyActive    = "active"
	KeyRetired   = "retired"
	KeyDestroyed = "destroyed"
)

// Origins of a [Key].
const (
	KeyGenerated = "generated"
	KeyRestored  = "restored" // brought from a backup: the HSM says LOCAL=false
)

// Name returns the row's key as entries name it, say "tls v2".
func (k Key) Name() string { return fmt.Sprintf("%s v%d", k.Role, k.Version) }

// Keys returns all rows, by role and version.
func (q Queries) Keys() ([]Key, error) {
	rows, err := q.q.QueryContext(q.ctx, "SELECT role, version, kind, class, state, check_value, origin, created_at, retired_at, destroyed_at FROM keys ORDER BY role, version")
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var list []Key
	for rows.Next() {
		var k Key
		if err := rows.Scan(&k.Role, &k.Version, &k.Kind, &k.Class, &k.State, &k.CheckValue, &k.Origin,
			scanTime{&k.CreatedAt}, scanTime{&k.RetiredAt}, scanTime{&k.DestroyedAt}); err != nil {
			return nil, translate(err)
		}
		list = append(list, k)
	}
	return list, translate(rows.Err())
}

// PutKey writes a row. What a key is cannot change; its state, its origin and their times can.
func (tx *Tx) PutKey(k Key) error {
	inUTC(&k.CreatedAt, &k.RetiredAt, &k.DestroyedAt)
	rows, err := tx.Keys()
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Name() == k.Name() && (row.Kind != k.Kind || row.Class != k.Class || row.CheckValue != k.CheckValue || !row.CreatedAt.Equal(k.CreatedAt)) {
			return fmt.Errorf("store: %s is another key in the books", k.Name())
		}
	}
	return tx.write("keys", k.Name(), k, `INSERT INTO keys (role, version, kind, class, state, check_value, origin, created_at, retired_at, destroyed_at)
		VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (role, version) DO UPDATE SET state = excluded.state, origin = excluded.origin,
		retired_at = excluded.retired_at, destroyed_at = excluded.destroyed_at`,
		k.Role, k.Version, k.Kind, k.Class, k.State, k.CheckValue, k.Origin, formatTime(k.CreatedAt), formatTime(k.RetiredAt), formatTime(k.DestroyedAt))
}
