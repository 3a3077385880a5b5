package main

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/appliance/tokens"
	"github.com/finterra/finpay/hsm"
)

type apiKeyCommand struct {
	Create createKeyCommand    `cmd:"" help:"Make an API key and show it once."`
	Rotate rotateAPIKeyCommand `cmd:"" help:"Make an API key that may do what another one may, and show it once. The other one works on for a while."`
	Revoke revokeKeyCommand    `cmd:"" help:"End an API key at once."`
	List   listAPIKeysCommand  `cmd:"" help:"List API keys: what they may do, from where, when they were last used."`

	Recipient recipientCommand `cmd:"" help:"Register to whom the cards of an API key are detokenized."`
}

type createKeyCommand struct {
	Merchant     string         `default:"mer_first" help:"Whose key it is."`
	Live         bool           `help:"Say so where the merchant is live: under its keys real cards are charged. It needs a hardware HSM whose PIN is kept elsewhere."`
	Scopes       []api.Scope    `help:"What the key may do: payments, tokens, detokenize; admin changes webhook endpoints; audit reads the whole log, every merchant's part." default:"payments" enum:"payments,tokens,detokenize,audit,admin"`
	Allow        []netip.Prefix `help:"Addresses that may use the key; without it, all." placeholder:"203.0.113.0/24"`
	ForSimulator bool           `help:"Hand the key to the simulated shop instead of showing it."`
}

// Run makes a key.
func (c createKeyCommand) Run(ctx context.Context, g globals) error {
	if c.ForSimulator {
		cfg, err := g.load()
		if err != nil {
			return err
		}
		return equipShop(ctx, cfg)
	}
	key, err := operate[string](ctx, g, "api-key create", createAPIKey{c.Merchant, c.Live, c.Scopes, c.Allow})
	if err != nil {
		return err
	}
	fmt.Println(key)
	return nil
}

type createAPIKey struct {
	Merchant string
	Live     bool
	Scopes   []api.Scope
	Allow    []netip.Prefix
}

func (o *operations) createAPIKey(ctx context.Context, by ledger.Operator, q createAPIKey) (string, error) {
	m, err := o.node.store.Read(ctx).Merchant(q.Merchant)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "", fmt.Errorf("there is no merchant %q", q.Merchant)
	case err != nil:
		return "", err
	case q.Live && m.Profile.Sandbox:
		return "", fmt.Errorf("%s is a merchant of the sandbox, and has test keys: make a live one with finpay merchant put", m.ID)
	case !q.Live && !m.Profile.Sandbox:
		return "", fmt.Errorf("%s is a live merchant: real cards are charged under its keys. Say so with --live", m.ID)
	}
	if q.Live {
		if err := mayServeLive(ctx, o.cfg, o.node.engine); err != nil {
			return "", err
		}
	}
	return o.node.merchants.CreateKey(ctx, by, m.ID, merchant.KeyTerms{Scopes: q.Scopes, Allow: q.Allow})
}

type rotateAPIKeyCommand struct {
	Key     string        `arg:"" help:"The key, or the part of it between the second and the third underscore."`
	Overlap time.Duration `default:"24h" help:"How long the old key works on."`
}

// Run rotates a key.
func (c rotateAPIKeyCommand) Run(ctx context.Context, g globals) error {
	rotated, err := operate[rotatedAPIKey](ctx, g, "api-key rotate", rotateAPIKey{merchant.KeyID(c.Key), c.Overlap})
	if err != nil {
		return err
	}
	fmt.Println(rotated.Key)
	fmt.Fprintf(os.Stderr, "The old key works until %s.\n", rotated.EndsAt.UTC().Format(time.RFC3339))
	return nil
}

type rotateAPIKey struct {
	KeyID   string
	Overlap time.Duration
}

type rotatedAPIKey struct {
	Key    string
	EndsAt time.Time // of the old one
}

func (o *operations) rotateAPIKey(ctx context.Context, by ledger.Operator, q rotateAPIKey) (rotatedAPIKey, error) {
	if q.Overlap < 0 {
		return rotatedAPIKey{}, errors.New("an overlap is no negative time")
	}
	next, endsAt, err := o.node.merchants.RotateKey(ctx, by, q.KeyID, q.Overlap)
	return rotatedAPIKey{next, endsAt}, err
}

type listAPIKeysCommand struct {
	JSON bool `help:"Print JSON."`
}

// apiKeyRow is what is shown of an API key; its JSON form is documented in docs/operations.md.
type apiKeyRow struct {
	ID        string     `json:"id"`
	Merchant  string     `json:"merchant"`
	Mode      string     `json:"mode"`
	Scopes    []string   `json:"scopes"`
	Allow     []string   `json:"allow,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	UsedAt    *time.Time `json:"used_at,omitempty"` // to the minute
	EndsAt    *time.Time `json:"ends_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
}

// Run lists keys.
func (c listAPIKeysCommand) Run(ctx context.Context, g globals) error {
	keys, err := operate[[]apiKeyRow](ctx, g, "api-key list", nothing{})
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(keys)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tMERCHANT\tMODE\tSCOPES\tFROM\tCREATED\tLAST USED\tSTATE")
	for _, k := range keys {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Merchant, k.Mode, strings.Join(k.Scopes, ","), cmp.Or(strings.Join(k.Allow, ","), "anywhere"),
			day(&k.CreatedAt, ""), day(k.UsedAt, "never"), k.state(time.Now()))
	}
	return table.Flush()
}

func day(at *time.Time, never string) string {
	if at == nil {
		return never
	}
	return at.UTC().Format("2006-01-02 15:04")
}

func (k apiKeyRow) state(now time.Time) string {
	switch {
	case k.RevokedAt != nil:
		return "revoked " + day(k.RevokedAt, "")
	case k.EndsAt != nil && !now.Before(*k.EndsAt):
		return "ended " + day(k.EndsAt, "")
	case k.EndsAt != nil:
		return "ends " + day(k.EndsAt, "")
	default:
		return "in force"
	}
}

func (o *operations) listAPIKeys(ctx context.Context, _ ledger.Operator, _ nothing) ([]apiKeyRow, error) {
	if err := o.node.merchants.KeepUses(ctx); err != nil {
		return nil, err
	}
	keys := []apiKeyRow{}
	err := o.node.store.Read(ctx).APIKeys(func(k store.APIKey, usedAt time.Time) error {
		keys = append(keys, apiKeyRow{ID: k.ID, Merchant: k.MerchantID, Mode: k.Mode, Scopes: strings.Fields(k.Scopes), Allow: strings.Fields(k.Allow),
			CreatedAt: k.CreatedAt, UsedAt: timeOrNil(usedAt), EndsAt: timeOrNil(k.EndsAt), RevokedAt: timeOrNil(k.RevokedAt)})
		return nil
	})
	return keys, err
}

func timeOrNil(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

type revokeKeyCommand struct {
	Key string `arg:"" help:"The key, or the part of it between the second and the third underscore."`
}

// Run ends a key.
func (c revokeKeyCommand) Run(ctx context.Context, g globals) error {
	if _, err := operate[nothing](ctx, g, "api-key revoke", merchant.KeyID(c.Key)); err != nil {
		return err
	}
	fmt.Println("The key is revoked.")
	return nil
}

func (o *operations) revokeAPIKey(ctx context.Context, by ledger.Operator, keyID string) (nothing, error) {
	return nothing{}, o.node.merchants.RevokeKey(ctx, by, keyID)
}

type recipientCommand struct {
	Key       string `arg:"" help:"The API key, or the part of it between the second and the third underscore."`
	PublicKey string `required:"" type:"existingfile" help:"The recipient's public key on P-256, in PEM (openssl ec -pubout)." placeholder:"FILE"`
	Quota     int    `default:"100" help:"Cards that may be detokenized for this API key in a day."`
}

// Run registers a recipient.
func (c recipientCommand) Run(ctx context.Context, g globals) error {
	public, err := readRecipient(c.PublicKey)
	if err != nil {
		return err
	}
	if c.Quota < 1 {
		return errors.New("--quota: at least 1 is wanted")
	}
	r, err := operate[store.Recipient](ctx, g, "api-key recipient", registerRecipient{merchant.KeyID(c.Key), public.Bytes(), c.Quota})
	if err != nil {
		return err
	}
	fmt.Printf("Recipient %s of API key %s: %d cards a day, from %s on.\n", tokens.RecipientName(r.PublicKey), r.KeyID, r.Quota, r.UsableAt.UTC().Format(time.RFC3339))
	return nil
}

type registerRecipient struct {
	KeyID     string
	PublicKey []byte // P-256, uncompressed point
	Quota     int    // cards a day
}

func (o *operations) registerRecipient(ctx context.Context, by ledger.Operator, q registerRecipient) (store.Recipient, error) {
	public, err := ecdh.P256().NewPublicKey(q.PublicKey)
	if err != nil {
		return store.Recipient{}, err
	}
	return tokens.Register(ctx, o.node.ledger, by, q.KeyID, public, q.Quota, o.cfg.Tokens.RecipientDelay)
}

// readRecipient reads a public key on P-256.
func readRecipient(path string) (*ecdh.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s is no public key in PEM (-----BEGIN PUBLIC KEY-----)", path)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	public, ok := parsed.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%s: a key on P-256 is wanted", path)
	}
	return public.ECDH()
}

// errSoftwareHSM says why live keys are not served.
var errSoftwareHSM = errors.New("live API keys are not served from a software HSM, nor with the PIN in the state directory: " +
	"whoever copies the disk would have the keys (allow_software_hsm: true overrules this)")

// mayServeLive refuses real cards where a copy of the disk is a copy of the keys.
func mayServeLive(ctx context.Context, cfg config.Config, engine *hsm.Engine) error {
	if cfg.AllowSoftwareHSM {
		return nil
	}
	software, err := engine.Software(ctx)
	if err != nil {
		return err
	}
	if software || cfg.PINInState() {
		return errSoftwareHSM
	}
	return nil
}
