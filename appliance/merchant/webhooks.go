package merchant

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/finterra/finpay/appliance/store"
)

// webhookSecretSize is that of a webhook secret, in bytes: the whole of HMAC-SHA256's key. Standard Webhooks wants 24 to 64.
const webhookSecretSize = 32

// NewWebhookSecret makes a secret for an endpoint: secret is for its merchant, in the form of Standard Webhooks (whsec_ and
// base64), and sealed for its row.
func (s *Service) NewWebhookSecret(e store.Endpoint) (secret string, sealed []byte, err error) {
	raw := make([]byte, webhookSecretSize)
	defer clear(raw)
	_, _ = rand.Read(raw)
	if sealed, err = s.cfg.KEK.Encrypt(raw, webhookContext(e)); err != nil {
		return "", nil, fmt.Errorf("webhook endpoint %s: seal the secret: %w", e.ID, err)
	}
	return webhookSecretText(raw), sealed, nil
}

// WebhookSecrets opens the secrets under which what is sent to an endpoint at a time is signed, the newest first.
func (s *Service) WebhookSecrets(e store.Endpoint, at time.Time) ([]string, error) {
	sealed := [][]byte{e.Secret}
	if at.Before(e.OldUntil) {
		sealed = append(sealed, e.OldSecret)
	}
	secrets := make([]string, len(sealed))
	for i := range sealed {
		raw, err := s.cfg.KEK.Decrypt(sealed[i], webhookContext(e))
		if err != nil {
			return nil, fmt.Errorf("webhook endpoint %s: open the secret: %w", e.ID, err)
		}
		secrets[i] = webhookSecretText(raw)
		clear(raw)
	}
	return secrets, nil
}

func webhookSecretText(raw []byte) string { return "whsec_" + base64.StdEncoding.EncodeToString(raw) }

// webhookContext binds a sealed secret to its endpoint: moved to another row, it does not open.
func webhookContext(e store.Endpoint) []byte {
	return []byte("webhook secret v1\x00" + e.MerchantID + "\x00" + e.ID)
}

// Opens reports whether an endpoint's secrets can be opened under a key encryption key.
func Opens(kek tink.AEAD, e store.Endpoint) bool {
	for _, sealed := range [][]byte{e.Secret, e.OldSecret} {
		if len(sealed) == 0 {
			continue
		}
		if _, err := kek.Decrypt(sealed, webhookContext(e)); err != nil {
			return false
		}
	}
	return true
}

// Reseal returns an endpoint whose secrets are sealed under the active version of a key encryption key.
func Reseal(kek tink.AEAD, e store.Endpoint) (store.Endpoint, error) {
	for _, sealed := range []*[]byte{&e.Secret, &e.OldSecret} {
		if len(*sealed) == 0 {
			continue
		}
		raw, err := kek.Decrypt(*sealed, webhookContext(e))
		if err != nil {
			return e, fmt.Errorf("webhook endpoint %s: open the secret: %w", e.ID, err)
		}
		*sealed, err = kek.Encrypt(raw, webhookContext(e))
		clear(raw)
		if err != nil {
			return e, fmt.Errorf("webhook endpoint %s: seal the secret: %w", e.ID, err)
		}
	}
	return e, nil
}
