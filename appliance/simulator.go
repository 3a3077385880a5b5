package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/simulator"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

type simulatorCommand struct{}

// Run serves the counterparties until a signal comes.
func (simulatorCommand) Run(ctx context.Context, g globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	settings, err := simulatorConfig(cfg)
	if err != nil {
		return err
	}
	return simulator.Run(ctx, settings, newLogger(os.Stderr, cfg.Log, nil))
}

func simulatorDir(cfg config.Config) string { return filepath.Join(cfg.State(), "simulator") }

// shopCredentials are what the simulated shop was given by the appliance's operator, as any merchant would be. They
// are the shop's secrets, not the appliance's: the appliance itself keeps none of them in clear.
type shopCredentials struct {
	APIKey        string `json:"api_key"`
	ReturnSecret  string `json:"return_secret"`
	WebhookSecret string `json:"webhook_secret"`
}

func shopFile(cfg config.Config) string { return filepath.Join(simulatorDir(cfg), "shop.json") }

func simulatorConfig(cfg config.Config) (simulator.Config, error) {
	text, err := os.ReadFile(shopFile(cfg))
	if errors.Is(err, os.ErrNotExist) {
		return simulator.Config{}, errors.New("the simulated shop has no API key yet: stop the appliance and run `finpay api-key create --for-simulator`")
	}
	if err != nil {
		return simulator.Config{}, err
	}
	var shop shopCredentials
	if err := json.Unmarshal(text, &shop); err != nil {
		return simulator.Config{}, fmt.Errorf("%s: %w", shopFile(cfg), err)
	}
	line := cfg.SimulatedAcquirer()
	if line == nil {
		return simulator.Config{}, errors.New("connectors: there is none of type iso8583 whose acquirer could be simulated")
	}
	spec, err := iso8583.SpecNamed(line.Spec)
	if err != nil {
		return simulator.Config{}, err
	}
	header, err := iso8583.HeaderNamed(line.Header)
	if err != nil {
		return simulator.Config{}, err
	}
	return simulator.Config{
		AcquirerAddr:        cfg.Simulator.Acquirer,
		Acquirer:            simulator.AcquirerOptions{Spec: spec, Header: header, LateAfter: line.AnswerTimeout + 3*time.Second},
		WebAddr:             cfg.Simulator.Web,
		StateDir:            simulatorDir(cfg),
		ApplianceCA:         cfg.TLS.Certificate,
		ApplianceClientCert: cfg.TLS.ClientCert,
		APIBase:             cfg.PublicURL,
		APIKey:              shop.APIKey,
		ReturnSecret:        shop.ReturnSecret,
		WebhookSecret:       shop.WebhookSecret,
	}, nil
}

// equipShop gives the simulated shop an API key, its merchant's return secret and a webhook endpoint, unless it has them.
func equipShop(ctx context.Context, cfg config.Config) error {
	if _, err := os.Stat(shopFile(cfg)); err == nil {
		return nil
	}
	n, err := openNode(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer func() { _ = n.close() }()
	apiKey, err := n.merchants.CreateKey(ctx, thisUser(), firstMerchant, merchant.KeyTerms{Scopes: []api.Scope{api.ScopePayments}})
	if err != nil {
		return err
	}
	secrets, err := n.merchants.Secrets(ctx, firstMerchant)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(cfg.Simulator.Web)
	if err != nil {
		return err
	}
	endpoint, err := n.endpoints(cfg, nil).Equip(ctx, thisUser(), firstMerchant, "https://localhost:"+port+"/webhook")
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(shopCredentials{apiKey, secrets.Return, endpoint.Secret}, "", "  ")
	if err != nil {
		return err
	}
	_, err = writeNew(shopFile(cfg), append(text, '\n'), 0o600)
	return err
}

// cardsPrinted is how many test cards a terminal has the room for.
const cardsPrinted = 23

// printCards lists the first test cards.
func printCards(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, card := range simulator.Cards[:cardsPrinted] {
		fmt.Fprintf(table, "  %s\t%s\n", card.Number, card.What)
	}
	fmt.Fprintf(table, "  and %d more\tREADME.md: 3-D Secure 2.3.1, soft declines, a directory server that fails\n", len(simulator.Cards)-cardsPrinted)
	_ = table.Flush()
}
