package main

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
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
	Create createKeyCommand `cmd:"" help:"Make an API key and show it once."`
	Revoke revokeKeyCommand `cmd:"" help:"End an API key."`

	Recipient recipientCommand `cmd:"" help:"Register to whom the cards of an API key are detokenized."`
}

type createKeyCommand struct {
	Live         bool        `help:"Make a key under which real cards are charged. It needs a hardware HSM whose PIN is kept elsewhere."`
	Scopes       []api.Scope `help:"What the key may do: payments, tokens, detokenize; admin changes webhook endpoints; audit reads the whole log, every merchant's part." default:"payments" enum:"payments,tokens,detokenize,audit,admin"`
	ForSimulator bool        `help:"Hand the key to the simulated shop instead of showing it."`
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
	key, err := operate[string](ctx, g, "api-key create", createAPIKey{c.Live, c.Scopes})
	if err != nil {
		return err
	}
	fmt.Println(key)
	return nil
}

type createAPIKey struct {
	Live   bool
	Scopes []api.Scope
}

func (o *operations) createAPIKey(ctx context.Context, by ledger.Operator, q createAPIKey) (string, error) {
	mode := merchant.Test
	if q.Live {
		if err := mayServeLive(ctx, o.cfg, o.node.engine); err != nil {
			return "", err
		}
		mode = merchant.Live
	}
	return o.node.merchants.CreateKey(ctx, by, firstMerchant, mode, q.Scopes...)
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
