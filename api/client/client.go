// Package client is a Go client of the appliance's token API: it seals cards to a key in the appliance's HSM, streams
// batches, and opens detokenized cards.
//
//	c, err := client.New(client.Config{URL: "https://pay.example:8443", Key: os.Getenv("FINPAY_API_KEY")})
//	token, err := c.Tokenize(ctx, client.Card{Number: "4111111111111111", Expiry: "2031-12"})
//
// # What is promised
//
// A card leaves the process sealed (HPKE, RFC 9180), unless [Config.Open] says otherwise: nothing between here and the
// HSM sees its number, TLS ended early included. Errors of the appliance are [*Error], with its stable code.
//
// # What is not
//
// The caller's cards are ordinary strings in ordinary memory. Without [Config.LogKey] the key that cards are sealed to is as
// good as TLS: whoever ends that on the way could exchange it.
package client

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/pci"
)

// Config of a [Client]. URL and Key are required.
type Config struct {
	URL    string         // of the appliance: https://host:port
	Key    string         // API key with the scope tokens, or detokenize
	Domain string         // token space; empty: that of the key's merchant
	Roots  *x509.CertPool // authorities of the appliance's certificate; nil: the system's
	Open   bool           // send cards open inside TLS, not sealed
	LogKey string         // public key of the appliance's log (finpay ledger key), pinned: seal to keys alone that it proves; empty: trust TLS
}

// Card is a card to tokenize, or one that was detokenized.
type Card struct {
	Number string `json:"number"` // PAN, digits alone
	Expiry string `json:"expiry"` // YYYY-MM
}

// Error is a problem of the appliance's contract.
type Error struct {
	Status     int    // HTTP status; 0 for one line of a batch
	Code       string // stable; see api/openapi.yaml
	Detail     string
	Pointer    string        // to the field at fault
	RetryAfter time.Duration // 0 for none
}

func (e *Error) Error() string { return fmt.Sprintf("finpay: %s: %s", e.Code, e.Detail) }

// Client is safe for concurrent use.
type Client struct {
	cfg   Config
	base  *url.URL
	keyID string
	http  *http.Client

	mu     sync.Mutex
	intake *intakeKey
}

// New returns a client. It makes no connection yet.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, errors.New("client: URL must be https://host[:port]")
	}
	part := strings.SplitN(cfg.Key, "_", 4)
	if len(part) != 4 {
		return nil, errors.New("client: Key is no API key of the appliance: fp_test_… or fp_live_…")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: cfg.Roots}, ForceAttemptHTTP2: true,
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second}
	return &Client{cfg: cfg, base: base, keyID: part[2], http: &http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil // a card follows no redirect
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Option is something about one request.
type Option func(*http.Request)

// IdempotencyKey makes a request repeatable: the same key with the same card gets the first answer. 1 to 255 printable ASCII
// characters.
func IdempotencyKey(key string) Option {
	return func(r *http.Request) { r.Header.Set("Idempotency-Key", key) }
}

// Tokenize returns a card's token.
func (c *Client) Tokenize(ctx context.Context, card Card, options ...Option) (token api.Token, err error) {
	for again := true; ; again = false {
		body, err := c.sealed(ctx, card)
		if err != nil {
			return token, err
		}
		err = c.call(ctx, http.MethodPost, "/v1/tokens", body, &token, options...)
		if problem, ok := errors.AsType[*Error](err); !ok || problem.Code != api.ErrIntakeKey.Code || !again {
			return token, err
		}
		c.forgetIntakeKey()
	}
}

// sealed is the body of a request with one card.
func (c *Client) sealed(ctx context.Context, card Card) (any, error) {
	if c.cfg.Open {
		return card, nil
	}
	s, err := c.newSealer(ctx)
	if err != nil {
		return nil, err
	}
	ct, err := s.seal(card)
	if err != nil {
		return nil, err
	}
	return map[string]string{"key": s.key, "enc": s.enc, "ct": ct}, nil
}

// Token returns what the registry knows of a token.
func (c *Client) Token(ctx context.Context, token pci.Token) (found api.Token, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/tokens/"+url.PathEscape(string(token)), nil, &found)
	return found, err
}

// Deactivate ends a token's use until its card is tokenized again.
func (c *Client) Deactivate(ctx context.Context, token pci.Token) (ended api.Token, err error) {
	err = c.call(ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(string(token)), nil, &ended)
	return ended, err
}

// Detokenize returns the card behind a token. recipient is the private half of the key that is registered for the API key.
func (c *Client) Detokenize(ctx context.Context, token pci.Token, reason api.DetokenizeReason, recipient *ecdh.PrivateKey) (Card, error) {
	var sealed api.SealedCard
	body := map[string]api.DetokenizeReason{"reason": reason}
	if err := c.call(ctx, http.MethodPost, "/v1/tokens/"+url.PathEscape(string(token))+"/detokenize", body, &sealed); err != nil {
		return Card{}, err
	}
	return open(sealed, c.keyID, recipient)
}

// Changes returns which of the domain's tokens were replaced after a change, in order, and at most so many (1 to 1000).
func (c *Client) Changes(ctx context.Context, after int64, limit int) (changes api.TokenChanges, err error) {
	query := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(limit)}}
	err = c.call(ctx, http.MethodGet, "/v1/tokens/changes?"+query.Encode(), nil, &changes)
	return changes, err
}

// AcknowledgeChanges says that the domain uses its new tokens, through a change. It cannot be taken back.
func (c *Client) AcknowledgeChanges(ctx context.Context, through int64) (changes api.TokenChanges, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/tokens/changes/acknowledge", map[string]int64{"through": through}, &changes)
	return changes, err
}

// IntakeKey returns the key that cards are sealed to, with the log's entries about it.
func (c *Client) IntakeKey(ctx context.Context) (key api.IntakeKey, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/intake/key", nil, &key)
	return key, err
}

func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	path, text, _ := strings.Cut(path, "?")
	target := c.base.JoinPath(path)
	query, err := url.ParseQuery(text)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if c.cfg.Domain != "" && !strings.HasPrefix(path, "/v1/intake") {
		query.Set("domain", c.cfg.Domain)
	}
	target.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("client: %s", method) // the error would quote the path, and so the token
	}
	r.Header.Set("Authorization", "Bearer "+c.cfg.Key)
	return r, nil
}

// call sends a request and reads the JSON of its answer.
func (c *Client) call(ctx context.Context, method, path string, body, into any, options ...Option) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("client: %w", err)
		}
		content = bytes.NewReader(text)
	}
	r, err := c.request(ctx, method, path, content)
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, option := range options {
		option(r)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode >= http.StatusBadRequest {
		return problem(response)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(into); err != nil {
		return fmt.Errorf("client: the answer cannot be read: %w", err)
	}
	return nil
}

// withoutURL drops the request's address from an error: a token stands in it.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("client: %s: %w", e.Op, e.Err)
	}
	return err
}

// problem reads an error's document.
func problem(response *http.Response) error {
	e := &Error{Status: response.StatusCode, Code: "unknown", Detail: response.Status}
	var document struct{ Code, Detail, Pointer string }
	if json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&document) == nil && document.Code != "" {
		e.Code, e.Detail, e.Pointer = document.Code, document.Detail, document.Pointer
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}

// intakeFor is how long a key is used before the appliance is asked again: a replaced one opens for longer than that.
const intakeFor = 10 * time.Minute

// forgetIntakeKey has the appliance asked again: the key that is known is not in use there any more.
func (c *Client) forgetIntakeKey() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.intake = nil
}

type intakeKey struct {
	name   string
	public *ecdh.PublicKey
	at     time.Time
}

// intakeKey returns the key that cards are sealed to.
func (c *Client) intakeKey(ctx context.Context) (*intakeKey, error) {
	c.mu.Lock()
	known := c.intake
	c.mu.Unlock()
	if known != nil && time.Since(known.at) < intakeFor {
		return known, nil
	}
	document, err := c.IntakeKey(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(document.PublicKey)
	if err != nil {
		return nil, errors.New("client: the intake key cannot be read")
	}
	public, err := ecdh.P256().NewPublicKey(raw)
	if err != nil {
		return nil, errors.New("client: the intake key is not on P-256")
	}
	if checkValue(public) != document.CheckValue {
		return nil, errors.New("client: the intake key is not the one of its check value")
	}
	if c.cfg.LogKey != "" {
		if err := checkReceipt(document, strings.TrimSpace(c.cfg.LogKey)); err != nil {
			return nil, err
		}
	}
	known = &intakeKey{document.Key, public, time.Now()}
	c.mu.Lock()
	c.intake = known
	c.mu.Unlock()
	return known, nil
}

// checkValue is the first 8 bytes of the SHA-256 of a public key's SubjectPublicKeyInfo, in hex.
func checkValue(public *ecdh.PublicKey) string {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:8])
}
