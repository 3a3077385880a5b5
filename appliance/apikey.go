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
	"github.com/finterra/finpay/appliance/merchant"
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
	Scopes       []api.Scope `help:"What the key may do: payments, tokens, detokenize; audit reads the whole log, every merchant's part." default:"payments" enum:"payments,tokens,detokenize,audit"`
	ForSimulator bool        `help:"Hand the key to the simulated shop instead of showing it."`
}

// Run makes a key.
func (c createKeyCommand) Run(ctx context.Context, g globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if c.ForSimulator {
		return equipShop(ctx, cfg)
	}
	n, err := openNode(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer func() { _ = n.close() }()
	mode := merchant.Test
	if c.Live {
		if err := mayServeLive(ctx, cfg, n.engine); err != nil {
			return err
		}
		mode = merchant.Live
	}
	apiKey, err := n.merchants.CreateKey(ctx, firstMerchant, mode, c.Scopes...)
	if err != nil {
		return err
	}
	fmt.Println(apiKey)
	return nil
}

type revokeKeyCommand struct {
	Key string `arg:"" help:"The key, or the part of it between the second and the third underscore."`
}

// Run ends a key.
func (c revokeKeyCommand) Run(ctx context.Context, g globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	n, err := openNode(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer func() { _ = n.close() }()
	if err := n.merchants.RevokeKey(ctx, c.Key); err != nil {
		return err
	}
	fmt.Println("The key is revoked.")
	return nil
}

type recipientCommand struct {
	Key       string `arg:"" help:"The API key, or the part of it between the second and the third underscore."`
	PublicKey string `required:"" type:"existingfile" help:"The recipient's public key on P-256, in PEM (openssl ec -pubout)." placeholder:"FILE"`
	Quota     int    `default:"100" help:"Cards that may be detokenized for this API key in a day."`
}

// Run registers a recipient.
func (c recipientCommand) Run(ctx context.Context, g globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	public, err := readRecipient(c.PublicKey)
	if err != nil {
		return err
	}
	if c.Quota < 1 {
		return errors.New("--quota: at least 1 is wanted")
	}
	n, err := openNode(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer func() { _ = n.close() }()
	r, err := tokens.Register(ctx, n.store, n.ledger, merchant.KeyID(c.Key), public, c.Quota, cfg.Tokens.RecipientDelay)
	if err != nil {
		return err
	}
	fmt.Printf("Recipient %s of API key %s: %d cards a day, from %s on.\n", tokens.RecipientName(r.PublicKey), r.KeyID, r.Quota, r.UsableAt.UTC().Format(time.RFC3339))
	return nil
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
