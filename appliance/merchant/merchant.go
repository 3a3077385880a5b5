// Package merchant keeps merchants, their API keys and their secrets.
//
// An API key is stored as an HMAC under the HSM's `apikey`; the secret of a webhook endpoint is sealed under the HSM's `kek`; a
// return secret and a checkout session are not stored at all, but derived in the HSM each time. A copy of the
// database grants nothing.
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
	"strings"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// MAC computes HMAC-SHA256 under one key of the HSM.
type MAC interface {
	Sum(ctx context.Context, message []byte) ([]byte, error)
}

// Config of a [Service].
type Config struct {
	Store  *store.Store
	Ledger *ledger.Ledger
	APIKey MAC       // authenticates API keys
	Return MAC       // derives return secrets and checkout sessions
	KEK    tink.AEAD // seals webhook secrets
	Now    func() time.Time
}

// Service is safe for concurrent use.
type Service struct {
	cfg   Config
	known knownKeys

	mu      sync.Mutex
	refused map[string]time.Time // client addresses whose failed login was recorded, and when
}

// New returns a service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg, refused: make(map[string]time.Time)}
}

// Secrets are what a merchant needs to trust what a shopper's browser brings back.
type Secrets struct {
	Return string // rsec_…: verifies the signed return URL
}

// Create enters a merchant.
func (s *Service) Create(ctx context.Context, m store.Merchant) error {
	m.CreatedAt = s.cfg.Now()
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if err := tx.PutMerchant(m); err != nil {
			return err
		}
		tx.Record(ledger.Entry{Type: "merchant.created", Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: m.ID,
			Data: map[string]any{"name": m.Profile.Name, "domain": m.Domain}})
		return nil
	})
	return err
}

// Secrets returns a merchant's secrets.
func (s *Service) Secrets(ctx context.Context, merchantID string) (Secrets, error) {
	if _, err := s.cfg.Store.Read(ctx).Merchant(merchantID); err != nil {
		return Secrets{}, fmt.Errorf("merchant %s: %w", merchantID, err)
	}
	key, err := s.returnKey(ctx, merchantID)
	if err != nil {
		return Secrets{}, err
	}
	return Secrets{Return: "rsec_" + base64.RawURLEncoding.EncodeToString(key)}, nil
}

// returnKey derives the key under which a merchant's return URLs are signed: the merchant can verify them, yet the
// HSM's own key never leaves and nothing is stored.
func (s *Service) returnKey(ctx context.Context, merchantID string) ([]byte, error) {
	return s.cfg.Return.Sum(ctx, []byte("return secret v1\x00"+merchantID))
}

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

// CreateKey makes an API key. It is returned once and cannot be shown again.
func (s *Service) CreateKey(ctx context.Context, by ledger.Operator, merchantID string, mode Mode, scopes ...api.Scope) (string, error) {
	random := make([]byte, 10+32)
	_, _ = rand.Read(random)
	id := strings.ToLower(keyEncoding.EncodeToString(random[:10]))
	secret := base64.RawURLEncoding.EncodeToString(random[10:])
	mac, err := s.keyMAC(ctx, mode, id, secret)
	if err != nil {
		return "", err
	}
	names := make([]string, len(scopes))
	for i, scope := range scopes {
		names[i] = string(scope)
	}
	key := store.APIKey{ID: id, MerchantID: merchantID, Mode: string(mode), MAC: mac, Scopes: strings.Join(names, " "), CreatedAt: s.cfg.Now()}
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if err := tx.PutAPIKey(key); err != nil {
			return err
		}
		tx.Record(by.Entry("api_key.created", "key:"+id, map[string]any{"merchant": merchantID, "mode": key.Mode, "scopes": key.Scopes}))
		return nil
	})
	if err != nil {
		return "", err
	}
	return "fp_" + string(mode) + "_" + id + "_" + secret, nil
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
	known, epoch, ok := s.known.get(key, s.cfg.Now())
	if ok {
		known.Origin = origin
		return known, nil
	}
	mode, id, secret, err := splitKey(key)
	if err != nil {
		return api.Caller{}, s.refuse(ctx, "", origin)
	}
	row, err := s.cfg.Store.Read(ctx).APIKey(id)
	if errors.Is(err, store.ErrNotFound) {
		return api.Caller{}, s.refuse(ctx, "", origin)
	}
	if err != nil {
		return api.Caller{}, fmt.Errorf("%w: %w", pci.ErrUnavailable, err)
	}
	mac, err := s.keyMAC(ctx, mode, id, secret)
	if err != nil {
		return api.Caller{}, err
	}
	if subtle.ConstantTimeCompare(mac, row.MAC) != 1 || !row.RevokedAt.IsZero() {
		return api.Caller{}, s.refuse(ctx, id, origin)
	}
	owner, err := s.cfg.Store.Read(ctx).Merchant(row.MerchantID)
	if err != nil {
		return api.Caller{}, fmt.Errorf("%w: %w", pci.ErrUnavailable, err)
	}
	caller := api.Caller{KeyID: id, MerchantID: row.MerchantID, Domain: owner.Domain, Origin: origin}
	for scope := range strings.FieldsSeq(row.Scopes) {
		caller.Scopes = append(caller.Scopes, api.Scope(scope))
	}
	s.known.put(key, caller, epoch, s.cfg.Now())
	return caller, nil
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

// maxRefused bounds the addresses remembered: beyond it, failed logins are answered but entered no more this minute.
const maxRefused = 1024

// refuse records a failed login with an API key.
func (s *Service) refuse(ctx context.Context, keyID, origin string) error {
	if keyID == "" {
		return s.Refused(ctx, "api", origin)
	}
	return s.Refused(ctx, "key:"+keyID, origin)
}

// Refused records a failed login, one entry a minute and address, so that strangers cannot make the log grow. It returns
// [api.ErrUnauthorized].
func (s *Service) Refused(ctx context.Context, resource, origin string) error {
	now := s.cfg.Now()
	s.mu.Lock()
	for address, at := range s.refused {
		if now.Sub(at) >= time.Minute {
			delete(s.refused, address)
		}
	}
	_, known := s.refused[origin]
	record := !known && len(s.refused) < maxRefused
	if record {
		s.refused[origin] = now
	}
	s.mu.Unlock()
	if !record {
		return api.ErrUnauthorized
	}
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		tx.Record(ledger.Entry{Type: "login.failed", Actor: "unknown", Origin: origin, Outcome: ledger.Failure, Resource: resource})
		return nil
	})
	if err != nil {
		s.mu.Lock()
		delete(s.refused, origin) // the next one is entered
		s.mu.Unlock()
		return fmt.Errorf("%w: a failed login could not be recorded: %w", pci.ErrUnavailable, err)
	}
	return api.ErrUnauthorized
}
