package store

import (
	"encoding/json"
	"fmt"
	"time"
)

// Endpoint is one row of webhook_endpoints: where a merchant is told of events.
type Endpoint struct {
	ID         string
	MerchantID string
	URL        string   // "" once it is deleted: it may hold a secret of its own
	Types      []string // of events; empty: all
	Status     string
	Secret     []byte    // sealed; empty once it is deleted
	OldSecret  []byte    // sealed; signs too until OldUntil; empty for none
	OldUntil   time.Time // zero for none
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// What an endpoint can be. Its row stays when it is deleted: entries cover it.
const (
	EndpointEnabled  = "enabled"
	EndpointDisabled = "disabled" // by the merchant
	EndpointGone     = "gone"     // it has answered 410
	EndpointDeleted  = "deleted"
)

const endpointColumns = "id, merchant_id, url, types, status, secret, old_secret, old_until, created_at, updated_at"

func scanEndpoint(row scanner) (Endpoint, error) {
	var e Endpoint
	var types string
	if err := row.Scan(&e.ID, &e.MerchantID, &e.URL, &types, &e.Status, &e.Secret, &e.OldSecret,
		scanTime{&e.OldUntil}, scanTime{&e.CreatedAt}, scanTime{&e.UpdatedAt}); err != nil {
		return e, translate(err)
	}
	if err := json.Unmarshal([]byte(types), &e.Types); err != nil {
		return e, fmt.Errorf("webhook endpoint %s: types: %w", e.ID, err)
	}
	return e, nil
}

// Endpoint returns one endpoint, deleted ones too.
func (q Queries) Endpoint(id string) (Endpoint, error) {
	return scanEndpoint(q.q.QueryRowContext(q.ctx, "SELECT "+endpointColumns+" FROM webhook_endpoints WHERE id = ?", id))
}

// Endpoints returns the endpoints of a merchant that are not deleted, oldest first.
func (q Queries) Endpoints(merchantID string) (list []Endpoint, err error) {
	err = each(q, scanEndpoint, func(e Endpoint) error { list = append(list, e); return nil },
		"SELECT "+endpointColumns+" FROM webhook_endpoints WHERE merchant_id = ? AND status <> 'deleted' ORDER BY created_at, id", merchantID)
	return list, err
}

// AllEndpoints returns the endpoints of all merchants that are not deleted.
func (q Queries) AllEndpoints() (list []Endpoint, err error) {
	err = each(q, scanEndpoint, func(e Endpoint) error { list = append(list, e); return nil },
		"SELECT "+endpointColumns+" FROM webhook_endpoints WHERE status <> 'deleted' ORDER BY id")
	return list, err
}

// PutEndpoint writes an endpoint. One that is off has no open deliveries: they are cancelled.
func (tx *Tx) PutEndpoint(e Endpoint) error {
	inUTC(&e.OldUntil, &e.CreatedAt, &e.UpdatedAt)
	e.Types = append([]string{}, e.Types...) // never nil: a row's hash is that of what is read again
	e.Secret, e.OldSecret = append([]byte{}, e.Secret...), append([]byte{}, e.OldSecret...)
	types, err := json.Marshal(e.Types)
	if err != nil {
		return err
	}
	if err := tx.write("webhook_endpoints", e.ID, e, `INSERT INTO webhook_endpoints (`+endpointColumns+`)
		VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET url = excluded.url, types = excluded.types, status = excluded.status,
		secret = excluded.secret, old_secret = excluded.old_secret, old_until = excluded.old_until, updated_at = excluded.updated_at`,
		e.ID, e.MerchantID, e.URL, string(types), e.Status, e.Secret, e.OldSecret, formatTime(e.OldUntil), formatTime(e.CreatedAt), formatTime(e.UpdatedAt)); err != nil {
		return err
	}
	if e.Status == EndpointEnabled {
		return nil
	}
	return tx.Exec("UPDATE deliveries SET status = ? WHERE endpoint_id = ? AND status = 'pending'", DeliveryCancelled, e.ID)
}
