package merchant

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// keyEncoding has no characters that are hard to tell apart or that break a double-click.
var keyEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// Mode tells keys of trials from those under which real cards are charged. It stands in the key itself: fp_test_…
// or fp_live_….
type Mode string

// The modes of an API key.
const (
	Test Mode = "test"
	Live Mode = "live"
)

// KeyTerms are what an API key may do, and from where.
type KeyTerms struct {
	Scopes []api.Scope
	Allow  []netip.Prefix // addresses that may use it; empty for all
}

func (t KeyTerms) row(m store.Merchant, at time.Time) store.APIKey {
	scopes, allow := make([]string, len(t.Scopes)), make([]string, len(t.Allow))
	for i, scope := range t.Scopes {
		scopes[i] = string(scope)
	}
	for i, prefix := range t.Allow {
		allow[i] = prefix.Masked().String()
	}
	return store.APIKey{MerchantID: m.ID, Mode: string(ModeOf(m)), Scopes: strings.Join(scopes, " "), Allow: strings.Join(allow, " "), CreatedAt: at}
}

// CreateKey makes an API key of the merchant's mode. It is returned once and cannot be shown again.
func (s *Service) CreateKey(ctx context.Context, by ledger.Operator, merchantID string, terms KeyTerms) (string, error) {
	m, err := s.cfg.Store.Read(ctx).Merchant(merchantID)
	if err != nil {
		return "", fmt.Errorf("merchant %q: %w", merchantID, err)
	}
	row := terms.row(m, s.cfg.Now())
	key, err := s.newKey(ctx, &row)
	if err != nil {
		return "", err
	}
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error { return enterKey(tx, by, row) })
	if err != nil {
		return "", err
	}
	return key, nil
}

// newKey gives a row its id and the MAC of a new secret, and returns the key.
func (s *Service) newKey(ctx context.Context, row *store.APIKey) (string, error) {
	random := make([]byte, 10+32)
	_, _ = rand.Read(random)
	row.ID = strings.ToLower(keyEncoding.EncodeToString(random[:10]))
	secret := base64.RawURLEncoding.EncodeToString(random[10:])
	var err error
	if row.MAC, err = s.keyMAC(ctx, Mode(row.Mode), row.ID, secret); err != nil {
		return "", err
	}
	return "fp_" + row.Mode + "_" + row.ID + "_" + secret, nil
}

func enterKey(tx *ledger.Tx, by ledger.Operator, row store.APIKey) error {
	if err := tx.PutAPIKey(row); err != nil {
		return err
	}
	data := map[string]any{"merchant": row.MerchantID, "mode": row.Mode, "scopes": row.Scopes}
	if row.Allow != "" {
		data["allow"] = row.Allow
	}
	tx.Record(by.Entry("api_key.created", "key:"+row.ID, data))
	return nil
}

// RotateKey makes an API key that may do what another one may, and ends that one after an overlap in which both work.
func (s *Service) RotateKey(ctx context.Context, by ledger.Operator, key string, overlap time.Duration) (next string, endsAt time.Time, err error) {
	id, now := KeyID(key), s.cfg.Now()
	row, err := s.cfg.Store.Read(ctx).APIKey(id)
	if err != nil {
		return "", endsAt, fmt.Errorf("API key %s: %w", id, err)
	}
	successor := row
	successor.CreatedAt, successor.EndsAt = now, time.Time{}
	if next, err = s.newKey(ctx, &successor); err != nil {
		return "", endsAt, err
	}
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if row, err = tx.APIKey(id); err != nil {
			return err
		}
		if reason := ended(row, now); reason != "" {
			return fmt.Errorf("API key %s %s: make a new one", id, reason)
		}
		if endsAt = now.Add(overlap); row.EndsAt.IsZero() || endsAt.Before(row.EndsAt) {
			row.EndsAt = endsAt
		}
		endsAt = row.EndsAt
		if err := tx.PutAPIKey(row); err != nil {
			return err
		}
		tx.Record(by.Entry("api_key.rotated", "key:"+id, map[string]any{"successor": successor.ID, "ends_at": row.EndsAt.UTC().Format(time.RFC3339)}))
		return enterKey(tx, by, successor)
	})
	s.known.forget()
	if err != nil {
		return "", endsAt, err
	}
	return next, endsAt, nil
}

// ended says of a key that does not work any more how it ended.
func ended(row store.APIKey, now time.Time) string {
	switch {
	case !row.RevokedAt.IsZero():
		return "is revoked"
	case !row.EndsAt.IsZero() && !now.Before(row.EndsAt):
		return "has ended"
	default:
		return ""
	}
}

// KeyID returns the id of an API key, given as its id or as the whole key.
func KeyID(key string) string {
	if _, id, _, err := splitKey(key); err == nil {
		return id
	}
	return key
}

// RevokeKey ends an API key, given as its id or as the whole key.
func (s *Service) RevokeKey(ctx context.Context, by ledger.Operator, key string) error {
	id := KeyID(key)
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		row, err := tx.APIKey(id)
		if err != nil {
			return fmt.Errorf("API key %s: %w", id, err)
		}
		if !row.RevokedAt.IsZero() {
			return nil
		}
		row.RevokedAt = s.cfg.Now()
		if err := tx.PutAPIKey(row); err != nil {
			return err
		}
		tx.Record(by.Entry("api_key.revoked", "key:"+id, nil))
		return nil
	})
	s.known.forget()
	return err
}

// Caller implements [api.Keys].
func (s *Service) Caller(ctx context.Context, key, origin string) (api.Caller, error) {
	now := s.cfg.Now()
	known, epoch, ok := s.known.get(key, now)
	if !ok {
		var err error
		if known, err = s.recognise(ctx, key, origin); err != nil {
			return api.Caller{}, err
		}
		s.known.put(key, known, epoch, now)
	}
	if ended(known.row, now) != "" || !known.allows(origin) {
		return api.Caller{}, s.refuse(ctx, known.row.ID, origin) // no word of why: who has the key shall not learn that it is one
	}
	s.uses.note(known.row.ID, now)
	caller := known.caller
	caller.Origin = origin
	return caller, nil
}

// recognise finds out whose key it is.
func (s *Service) recognise(ctx context.Context, key, origin string) (knownKey, error) {
	mode, id, secret, err := splitKey(key)
	if err != nil {
		return knownKey{}, s.refuse(ctx, "", origin)
	}
	row, err := s.cfg.Store.Read(ctx).APIKey(id)
	if errors.Is(err, store.ErrNotFound) {
		return knownKey{}, s.refuse(ctx, "", origin)
	}
	if err != nil {
		return knownKey{}, fmt.Errorf("%w: %w", pci.ErrUnavailable, err)
	}
	mac, err := s.keyMAC(ctx, mode, id, secret)
	if err != nil {
		return knownKey{}, err
	}
	if subtle.ConstantTimeCompare(mac, row.MAC) != 1 {
		return knownKey{}, s.refuse(ctx, id, origin)
	}
	owner, err := s.cfg.Store.Read(ctx).Merchant(row.MerchantID)
	if err != nil {
		return knownKey{}, fmt.Errorf("%w: %w", pci.ErrUnavailable, err)
	}
	k := knownKey{row: row, caller: api.Caller{KeyID: id, MerchantID: row.MerchantID, Domain: owner.Domain}}
	for scope := range strings.FieldsSeq(row.Scopes) {
		k.caller.Scopes = append(k.caller.Scopes, api.Scope(scope))
	}
	for text := range strings.FieldsSeq(row.Allow) {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return knownKey{}, fmt.Errorf("API key %s: allow: %w", id, err)
		}
		k.allow = append(k.allow, prefix)
	}
	return k, nil
}

func (s *Service) keyMAC(ctx context.Context, mode Mode, id, secret string) ([]byte, error) {
	sum := sha256.Sum256([]byte("api key v1\x00" + string(mode) + "\x00" + id + "\x00" + secret))
	return s.cfg.APIKey.Sum(ctx, sum[:])
}

func splitKey(key string) (mode Mode, id, secret string, err error) {
	part := strings.SplitN(key, "_", 4) // the secret may hold underscores
	if len(part) != 4 || part[0] != "fp" || (part[1] != string(Test) && part[1] != string(Live)) || len(part[2]) != 16 || len(part[3]) != 43 {
		return "", "", "", api.ErrUnauthorized
	}
	return Mode(part[1]), part[2], part[3], nil
}
