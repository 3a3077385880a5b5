// Package merchant keeps merchants, their API keys and their secrets.
//
// An API key is stored as an HMAC under the HSM's `apikey`; the secret of a webhook endpoint is sealed under the HSM's `kek`; a
// return secret and a checkout session are not stored at all, but derived in the HSM each time. A copy of the
// database grants nothing.
package merchant

import (
	"context"
	"encoding/base64"
	"fmt"
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
	uses  uses

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
