package merchant

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
)

// Session derives the secret of a payment's checkout URL: 192 bits that nothing stores. The database keeps only
// its SHA-256, to find the payment.
func (s *Service) Session(ctx context.Context, paymentID string) (session string, hash []byte, err error) {
	sum, err := s.cfg.Return.Sum(ctx, []byte("checkout session v1\x00"+paymentID))
	if err != nil {
		return "", nil, err
	}
	session = base64.RawURLEncoding.EncodeToString(sum[:24])
	return session, SessionHash(session), nil
}

// SessionHash returns what the database keeps of a session.
func SessionHash(session string) []byte {
	sum := sha256.Sum256([]byte(session))
	return sum[:]
}

// SignReturn adds the payment's id and status, the time in Unix seconds and a signature to a merchant's return URL.
// The signature is "v1," and the unpadded base64url of HMAC-SHA256 over "id.status.timestamp" under the bytes of
// the merchant's return secret.
func (s *Service) SignReturn(ctx context.Context, merchantID, returnURL, paymentID, status string) (string, error) {
	key, err := s.returnKey(ctx, merchantID)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(returnURL)
	if err != nil {
		return "", fmt.Errorf("return URL of %s: %w", paymentID, err)
	}
	timestamp := strconv.FormatInt(s.cfg.Now().Unix(), 10)
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(paymentID + "." + status + "." + timestamp))
	query := u.Query()
	query.Set("payment_id", paymentID)
	query.Set("status", status)
	query.Set("timestamp", timestamp)
	query.Set("signature", "v1,"+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// RequestMAC is what is kept of a request to recognise its repeat: a plain hash would let a copy of the database
// be tried against guesses.
func (s *Service) RequestMAC(ctx context.Context, request []byte) ([]byte, error) {
	sum := sha256.Sum256(request)
	return s.cfg.Return.Sum(ctx, append([]byte("idempotent request v1\x00"), sum[:]...))
}
