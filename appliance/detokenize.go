package main

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/client"
	"github.com/finterra/finpay/pci"
)

type detokenizeCommand struct {
	connection
	Reason       string `required:"" help:"Why: chargeback, fraud, legal, migration, processor or test. It stands in the signed log."`
	RecipientKey string `required:"" type:"existingfile" help:"Private key of the recipient that is registered for the API key, in PEM." placeholder:"FILE"`
}

// detokenized is a line of standard output.
type detokenized struct {
	Token  pci.Token `json:"token"`
	Number string    `json:"number,omitempty"`
	Expiry string    `json:"expiry,omitempty"`
	Error  string    `json:"error,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// Run reads tokens from standard input, {"token": "…"} a line, and writes their cards to standard output. It fails if a
// token led to no card.
func (c detokenizeCommand) Run(ctx context.Context, g globals) error {
	recipient, err := readPrivate(c.RecipientKey)
	if err != nil {
		return err
	}
	api, err := c.client(g, false, "")
	if err != nil {
		return err
	}
	defer api.Close()
	bar := newProgress(os.Stdin)
	defer bar.end()
	lines := bufio.NewScanner(bar.reader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	n, refused := 0, 0
	for lines.Scan() {
		n++
		var asked struct {
			Token pci.Token `json:"token"`
		}
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil || asked.Token == "" {
			return fmt.Errorf(`line %d is not {"token":"…"}`, n)
		}
		answer, err := c.one(ctx, api, asked.Token, recipient)
		if err != nil {
			return err
		}
		if answer.Error != "" {
			refused++
		}
		if err := out.Encode(answer); err != nil {
			return fmt.Errorf("standard output: %w", err)
		}
		bar.count(n)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d tokens led to no card; their lines say why", refused, n)
	}
	return nil
}

// one asks for the card of a token. What the appliance refuses of it is its line; all else ends the command.
func (c detokenizeCommand) one(ctx context.Context, appliance *client.Client, token pci.Token, recipient *ecdh.PrivateKey) (detokenized, error) {
	card, err := appliance.Detokenize(ctx, token, api.DetokenizeReason(c.Reason), recipient)
	line := detokenized{Token: token, Number: card.Number, Expiry: card.Expiry}
	problem, ok := errors.AsType[*client.Error](err)
	if !ok {
		return line, err
	}
	line.Error, line.Detail = problem.Code, problem.Detail
	return line, nil
}

// readPrivate reads a private key on P-256.
func readPrivate(path string) (*ecdh.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var parsed any
		switch block.Type {
		case "EC PRIVATE KEY":
			parsed, err = x509.ParseECPrivateKey(block.Bytes)
		case "PRIVATE KEY":
			parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		default:
			continue
		}
		private, ok := parsed.(*ecdsa.PrivateKey)
		if err != nil || !ok || private.Curve != elliptic.P256() {
			return nil, fmt.Errorf("%s: a private key on P-256 is wanted", path)
		}
		return private.ECDH()
	}
	return nil, fmt.Errorf("%s holds no private key in PEM", path)
}
