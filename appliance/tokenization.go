package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/appliance/tokens"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/intake"
	"github.com/finterra/finpay/pci/release"
	"github.com/finterra/finpay/pci/tokenization"
)

// assembleTokens wires tokenization: the domains of the configuration, the versions of the key in the HSM, the registry in
// the database. It is never closed: the process ends after it, and a call into the HSM that hangs must not keep it.
func (a *appliance) assembleTokens(ctx context.Context) error {
	domains, described, err := compileDomains(a.cfg.Tokens.Domains)
	if err != nil {
		return err
	}
	if err := a.checkMerchantDomains(ctx, domains); err != nil {
		return err
	}
	keys, err := a.tokenizers(ctx)
	if err != nil {
		return err
	}
	if a.cipher, err = tokenization.New(keys, domains, a.cards, registry{a.node.store}); err != nil {
		return err
	}
	if a.sealed, err = openIntakeKeys(ctx, a.node, a.cfg.Intake.Rotate, a.cfg.Intake.Overlap); err != nil {
		return err
	}
	a.tokens, err = tokens.New(ctx, tokens.Config{Store: a.node.store, Ledger: a.node.ledger, Cards: intake.NewTokens(a.cipher, a.sealed, a.cfg.Intake.Open),
		Release: release.New(a.cipher), Keys: tokenKeys{a}, Requests: a.node.merchants, Domains: described, Bound: a.cfg.Tokens.Bound, Log: a.log})
	return err
}

// compileDomains reads the token spaces of the configuration, and describes them.
func compileDomains(configured []config.Domain) (*tokenization.Domains, []api.Domain, error) {
	list := make([]tokenization.Domain, len(configured))
	for i, c := range configured {
		list[i] = tokenization.Domain{ID: c.ID, Format: pci.TokenFormat(c.Format), Fallback: pci.TokenFormat(c.Fallback)}
		for _, accept := range c.Accept {
			first, last, _ := strings.Cut(accept, "-")
			list[i].Accept = append(list[i].Accept, tokenization.Range{First: first, Last: last})
		}
	}
	domains, err := tokenization.Compile(list)
	if err != nil {
		return nil, nil, fmt.Errorf("tokens.domains: %w", err)
	}
	described := make([]api.Domain, len(configured))
	for i, c := range configured {
		served, err := domains.Serves(c.ID)
		if err != nil {
			return nil, nil, err
		}
		described[i] = api.Domain{ID: c.ID, Format: pci.TokenFormat(c.Format)}
		for _, s := range served {
			length := api.DomainLength{Digits: s.Digits, Format: s.Format}
			if s.Refused != nil {
				length.Refused = s.Refused.Error()
			}
			described[i].Lengths = append(described[i].Lengths, length)
		}
	}
	return domains, described, nil
}

// checkMerchantDomains refuses to serve merchants whose cards could not be tokenized.
func (a *appliance) checkMerchantDomains(ctx context.Context, domains *tokenization.Domains) error {
	read := a.node.store.Read(ctx)
	ids, err := read.MerchantIDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		m, err := read.Merchant(id)
		if err != nil {
			return err
		}
		if _, err := domains.Serves(m.Domain); err != nil {
			return fmt.Errorf("tokens.domains: merchant %s has the domain %q, which is not among them", id, m.Domain)
		}
		if err := checkDomainOf(a.cfg.Tokens.Domains, m); err != nil {
			return err
		}
	}
	return nil
}

// checkDomainOf refuses a merchant whose token space is not of its mode: a live card's token must mean nothing in the sandbox.
func checkDomainOf(domains []config.Domain, m store.Merchant) error {
	for _, d := range domains {
		if d.ID == m.Domain && d.Sandbox == m.Profile.Sandbox {
			return nil
		}
	}
	return fmt.Errorf("tokens.domains: merchant %s (%s) has the domain %q, which is not among them or has another sandbox setting", m.ID, merchant.ModeOf(m), m.Domain)
}

// registry meets tokenization.Registry.
type registry struct{ store *store.Store }

// Find returns a token that was issued, whatever its state, or the one that has taken its place: a sale is reversed even where
// its token was deactivated or replaced. Who may have the card of such a one is decided above.
func (r registry) Find(ctx context.Context, domain string, token pci.Token) (pci.IssuedToken, error) {
	read := r.store.Read(ctx)
	t, err := read.Token(domain, token)
	for err == nil && t.Status == store.TokenReplaced {
		t, err = read.Token(domain, t.ReplacedBy)
	}
	if errors.Is(err, store.ErrNotFound) {
		return pci.IssuedToken{}, pci.ErrNotIssued
	}
	return issued(t), err
}

// Lookup finds the rows of tokens that exist, in whatever state.
func (r registry) Lookup(ctx context.Context, domain string, tokens []pci.Token, row func(int, pci.IssuedToken)) error {
	return r.store.Read(ctx).Tokens(domain, tokens, func(i int, t store.Token) error {
		row(i, issued(t))
		return nil
	})
}

// LookupImages finds the rows of opaque tokens by their images.
func (r registry) LookupImages(ctx context.Context, domain string, images []pci.TokenImage, row func(int, pci.IssuedToken)) error {
	return r.store.Read(ctx).TokensByImage(domain, images, func(i int, t store.Token) error {
		row(i, issued(t))
		return nil
	})
}

func issued(t store.Token) pci.IssuedToken {
	return pci.IssuedToken{Domain: t.Domain, Token: t.Token, Format: t.Format, KeyVersion: t.KeyVersion, Steps: t.Steps, Image: t.Image, Card: t.Card,
		Replaced: t.Status == store.TokenReplaced}
}
