package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/finterra/finpay/pci"
)

// Merchant is one row of merchants.
type Merchant struct {
	ID           string
	Domain       string
	Profile      pci.Merchant
	Limits       map[pci.Currency]int64 // largest amounts of a payment in minor units, by currency; empty: any
	ReturnHosts  []string               // that return URLs may name; empty: any
	WebhookHosts []string               // that webhook endpoints may be on; empty: any
	CreatedAt    time.Time
}

// APIKey is one row of api_keys.
type APIKey struct {
	ID         string
	MerchantID string
	Mode       string // "test" or "live"
	MAC        []byte
	Scopes     string // space-separated
	CreatedAt  time.Time
	Allow      string    // prefixes of addresses that may use it, space-separated; empty for all
	EndsAt     time.Time // zero for never
	RevokedAt  time.Time
}

const merchantColumns = "id, domain, profile, limits, return_hosts, webhook_hosts, created_at"

// merchantTexts are the columns of a merchant that are JSON.
type merchantTexts struct{ profile, limits, returns, webhooks string }

// merchantsParsed are the merchants that were read, by these texts: every payment reads its merchant several times, and merchants
// seldom change. Of each id the last one is kept.
type merchantsParsed struct{ byID sync.Map }

type merchantParsed struct {
	texts merchantTexts
	of    Merchant
}

// parse returns what the texts say. The maps and slices of m are the caller's own.
func (c *merchantsParsed) parse(m *Merchant, texts merchantTexts) error {
	if known, ok := c.byID.Load(m.ID); ok && known.(*merchantParsed).texts == texts {
		of := &known.(*merchantParsed).of
		m.Profile, m.Limits, m.ReturnHosts, m.WebhookHosts = of.Profile, maps.Clone(of.Limits), slices.Clone(of.ReturnHosts), slices.Clone(of.WebhookHosts)
		return nil
	}
	for _, part := range []struct {
		name, text string
		into       any
	}{
		{"profile", texts.profile, &m.Profile}, {"limits", texts.limits, &m.Limits},
		{"return hosts", texts.returns, &m.ReturnHosts}, {"webhook hosts", texts.webhooks, &m.WebhookHosts},
	} {
		if err := json.Unmarshal([]byte(part.text), part.into); err != nil {
			return fmt.Errorf("merchant %s: %s: %w", m.ID, part.name, err)
		}
	}
	kept := *m
	kept.Limits, kept.ReturnHosts, kept.WebhookHosts = maps.Clone(m.Limits), slices.Clone(m.ReturnHosts), slices.Clone(m.WebhookHosts)
	c.byID.Store(m.ID, &merchantParsed{texts, kept})
	return nil
}

func (q Queries) scanMerchant(row scanner) (Merchant, error) {
	var m Merchant
	var texts merchantTexts
	if err := row.Scan(&m.ID, &m.Domain, &texts.profile, &texts.limits, &texts.returns, &texts.webhooks, scanTime{&m.CreatedAt}); err != nil {
		return m, translate(err)
	}
	return m, q.store.merchants.parse(&m, texts)
}

// Merchant returns one merchant.
func (q Queries) Merchant(id string) (Merchant, error) {
	return q.scanMerchant(q.q.QueryRowContext(q.ctx, "SELECT "+merchantColumns+" FROM merchants WHERE id = ?", id))
}

// MerchantIDs returns the ids of all merchants.
func (q Queries) MerchantIDs() ([]string, error) {
	rows, err := q.q.QueryContext(q.ctx, "SELECT id FROM merchants ORDER BY id")
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, translate(err)
		}
		ids = append(ids, id)
	}
	return ids, translate(rows.Err())
}

// PutMerchant writes a merchant.
func (tx *Tx) PutMerchant(m Merchant) error {
	inUTC(&m.CreatedAt)
	profile, err := json.Marshal(m.Profile)
	if err != nil {
		return err
	}
	limits, err := json.Marshal(m.Limits)
	if err != nil {
		return err
	}
	returns, err := json.Marshal(m.ReturnHosts)
	if err != nil {
		return err
	}
	webhooks, err := json.Marshal(m.WebhookHosts)
	if err != nil {
		return err
	}
	return tx.write("merchants", m.ID, m, `INSERT INTO merchants (`+merchantColumns+`)
		VALUES (?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET domain = excluded.domain, profile = excluded.profile, limits = excluded.limits,
		return_hosts = excluded.return_hosts, webhook_hosts = excluded.webhook_hosts`,
		m.ID, m.Domain, string(profile), string(limits), string(returns), string(webhooks), formatTime(m.CreatedAt))
}

const apiKeyColumns = "id, merchant_id, mode, mac, scopes, created_at, allow, ends_at, revoked_at"

func scanAPIKey(row scanner) (APIKey, error) {
	var k APIKey
	err := row.Scan(&k.ID, &k.MerchantID, &k.Mode, &k.MAC, &k.Scopes, scanTime{&k.CreatedAt}, &k.Allow, scanTime{&k.EndsAt}, scanTime{&k.RevokedAt})
	return k, translate(err)
}

// APIKeys calls f with each API key, the oldest first, and when it was last used, which is zero for never.
func (q Queries) APIKeys(f func(k APIKey, usedAt time.Time) error) error {
	rows, err := q.q.QueryContext(q.ctx, "SELECT "+apiKeyColumns+", coalesce((SELECT used_at FROM api_key_uses u WHERE u.id = k.id), '') FROM api_keys k ORDER BY created_at, id")
	if err != nil {
		return translate(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var k APIKey
		var usedAt time.Time
		if err := rows.Scan(&k.ID, &k.MerchantID, &k.Mode, &k.MAC, &k.Scopes, scanTime{&k.CreatedAt}, &k.Allow, scanTime{&k.EndsAt}, scanTime{&k.RevokedAt}, scanTime{&usedAt}); err != nil {
			return translate(err)
		}
		if err := f(k, usedAt); err != nil {
			return err
		}
	}
	return translate(rows.Err())
}

// PutAPIKeyUse keeps when an API key was last used.
func (tx *Tx) PutAPIKeyUse(id string, at time.Time) error {
	return tx.Exec("INSERT INTO api_key_uses (id, used_at) VALUES (?,?) ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at", id, formatTime(at))
}

// APIKey returns one API key.
func (q Queries) APIKey(id string) (APIKey, error) {
	return scanAPIKey(q.q.QueryRowContext(q.ctx, "SELECT "+apiKeyColumns+" FROM api_keys WHERE id = ?", id))
}

// PutAPIKey writes an API key.
func (tx *Tx) PutAPIKey(k APIKey) error {
	inUTC(&k.CreatedAt, &k.EndsAt, &k.RevokedAt)
	return tx.write("api_keys", k.ID, k, `INSERT INTO api_keys (`+apiKeyColumns+`) VALUES (?,?,?,?,?,?,?,?,?)
		ON CONFLICT (id) DO UPDATE SET ends_at = excluded.ends_at, revoked_at = excluded.revoked_at`,
		k.ID, k.MerchantID, k.Mode, k.MAC, k.Scopes, formatTime(k.CreatedAt), k.Allow, formatTime(k.EndsAt), formatTime(k.RevokedAt))
}

// LiveKeys returns how many live API keys are in force.
func (q Queries) LiveKeys() (n int, err error) {
	err = q.q.QueryRowContext(q.ctx, "SELECT count(*) FROM api_keys WHERE mode = 'live' AND revoked_at = ''").Scan(&n)
	return n, translate(err)
}
