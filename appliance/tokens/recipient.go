package tokens

import (
	"context"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// RecipientName tells recipients' public keys apart: base64url of the first 8 bytes of the SHA-256 of the uncompressed
// point.
func RecipientName(point []byte) string {
	sum := sha256.Sum256(point)
	return base64.RawURLEncoding.EncodeToString(sum[:8])
}

// Register makes public the recipient of an API key, which must have the scope detokenize, in place of an earlier one. It
// can be used after a delay: whoever gets at an operator's rights for an hour must not get at cards within it.
func Register(ctx context.Context, l *ledger.Ledger, by ledger.Operator, keyID string, public *ecdh.PublicKey, quota int, delay time.Duration) (store.Recipient, error) {
	now := time.Now()
	r := store.Recipient{KeyID: keyID, PublicKey: public.Bytes(), Quota: quota, UsableAt: now.Add(delay), CreatedAt: now}
	if public.Curve() != ecdh.P256() {
		return r, errors.New("the recipient's key must be on P-256")
	}
	_, err := l.Commit(ctx, func(tx *ledger.Tx) error {
		key, err := tx.APIKey(keyID)
		if err != nil {
			return fmt.Errorf("API key %s: %w", keyID, err)
		}
		if !slices.Contains(strings.Fields(key.Scopes), string(api.ScopeDetokenize)) || !key.RevokedAt.IsZero() {
			return fmt.Errorf("API key %s is revoked, or has not the scope detokenize", keyID)
		}
		if err := tx.PutRecipient(r); err != nil {
			return err
		}
		tx.Record(by.Entry("recipient.registered", "key:"+keyID, map[string]any{"recipient": RecipientName(r.PublicKey), "quota": quota,
			"usable_at": r.UsableAt.UTC().Format(time.RFC3339)}))
		return nil
	})
	return r, err
}
