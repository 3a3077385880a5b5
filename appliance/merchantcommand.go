package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

type merchantCommand struct {
	Put  putMerchantCommand   `cmd:"" help:"Make a merchant of a profile, or change the one of its id."`
	Show showMerchantCommand  `cmd:"" help:"Print a merchant's profile, as put takes it."`
	List listMerchantsCommand `cmd:"" help:"List the merchants."`
}

// profile is a merchant's profile as a file; firmware-config/merchant.yaml documents it.
type profile struct {
	ID       string `yaml:"id"`
	Sandbox  bool   `yaml:"sandbox"`
	Name     string `yaml:"name"`
	City     string `yaml:"city"`
	Country  string `yaml:"country"`
	MCC      string `yaml:"mcc"`
	Acquirer struct {
		BIN      string `yaml:"bin"`
		MID      string `yaml:"mid"`
		Terminal string `yaml:"terminal"`
	} `yaml:"acquirer"`
	Requestor struct {
		ID   string `yaml:"id"`
		Name string `yaml:"name"`
		URL  string `yaml:"url"`
	} `yaml:"requestor"`
	Domain       string                 `yaml:"domain"`
	Limits       map[pci.Currency]int64 `yaml:"limits"`
	ReturnHosts  []string               `yaml:"return_hosts"`
	WebhookHosts []string               `yaml:"webhook_hosts"`
}

func (p profile) merchant() store.Merchant {
	return store.Merchant{ID: p.ID, Domain: p.Domain, Limits: p.Limits, ReturnHosts: p.ReturnHosts, WebhookHosts: p.WebhookHosts, Profile: pci.Merchant{
		ID: p.ID, Sandbox: p.Sandbox, Name: p.Name, City: p.City, Country: p.Country, MCC: p.MCC, AcquirerBIN: p.Acquirer.BIN, AcquirerMID: p.Acquirer.MID,
		TerminalID: p.Acquirer.Terminal, RequestorID: p.Requestor.ID, RequestorName: p.Requestor.Name, RequestorURL: p.Requestor.URL}}
}

func profileOf(m store.Merchant) (p profile) {
	p.ID, p.Domain, p.Limits, p.ReturnHosts, p.WebhookHosts = m.ID, m.Domain, m.Limits, m.ReturnHosts, m.WebhookHosts
	p.Sandbox, p.Name, p.City, p.Country, p.MCC = m.Profile.Sandbox, m.Profile.Name, m.Profile.City, m.Profile.Country, m.Profile.MCC
	p.Acquirer.BIN, p.Acquirer.MID, p.Acquirer.Terminal = m.Profile.AcquirerBIN, m.Profile.AcquirerMID, m.Profile.TerminalID
	p.Requestor.ID, p.Requestor.Name, p.Requestor.URL = m.Profile.RequestorID, m.Profile.RequestorName, m.Profile.RequestorURL
	return p
}

type putMerchantCommand struct {
	File string `arg:"" help:"The profile (YAML), as firmware-config/merchant.yaml; - for standard input." placeholder:"FILE"`
}

// Run makes or changes a merchant.
func (c putMerchantCommand) Run(ctx context.Context, g globals) error {
	text, err := readFileOrInput(c.File)
	if err != nil {
		return err
	}
	var p profile
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&p); err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	m := p.merchant()
	if err := merchant.CheckProfile(&m); err != nil {
		return err
	}
	made, err := operate[merchantMade](ctx, g, "merchant put", m)
	if err != nil {
		return err
	}
	if !made.Created {
		fmt.Printf("%s was changed.\n", m.ID)
		return nil
	}
	fmt.Printf("%s was made (%s).\n", m.ID, merchant.ModeOf(m))
	fmt.Printf("return secret  %s\n", made.Return)
	fmt.Printf("Make its API key with: finpay api-key create --merchant %s\n", m.ID)
	return nil
}

func readFileOrInput(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(os.Stdin, 1<<20))
	}
	return os.ReadFile(name)
}

// merchantMade is what became of a profile.
type merchantMade struct {
	Created bool
	Return  string // secret of the signed return URL, of a new merchant
}

func (o *operations) putMerchant(ctx context.Context, by ledger.Operator, m store.Merchant) (made merchantMade, err error) {
	if err := merchant.CheckProfile(&m); err != nil {
		return made, err
	}
	if err := checkDomainOf(o.cfg.Tokens.Domains, m); err != nil {
		return made, err
	}
	if made.Created, err = o.node.merchants.Enter(ctx, by, m); err != nil || !made.Created {
		return made, err
	}
	secrets, err := o.node.merchants.Secrets(ctx, m.ID)
	made.Return = secrets.Return
	return made, err
}

type showMerchantCommand struct {
	Merchant string `arg:"" help:"Its id, mer_…"`
}

// Run prints a profile.
func (c showMerchantCommand) Run(ctx context.Context, g globals) error {
	list, err := operate[[]store.Merchant](ctx, g, "merchant list", nothing{})
	if err != nil {
		return err
	}
	at := slices.IndexFunc(list, func(m store.Merchant) bool { return m.ID == c.Merchant })
	if at < 0 {
		return fmt.Errorf("there is no merchant %q", c.Merchant)
	}
	encoder := yaml.NewEncoder(os.Stdout)
	encoder.SetIndent(2)
	return errors.Join(encoder.Encode(profileOf(list[at])), encoder.Close())
}

type listMerchantsCommand struct{}

// Run lists merchants.
func (listMerchantsCommand) Run(ctx context.Context, g globals) error {
	list, err := operate[[]store.Merchant](ctx, g, "merchant list", nothing{})
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tMODE\tNAME\tTERMINAL\tDOMAIN\tSINCE")
	for _, m := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", m.ID, merchant.ModeOf(m), m.Profile.Name, m.Profile.TerminalID, m.Domain, day(&m.CreatedAt, ""))
	}
	return table.Flush()
}

func (o *operations) listMerchants(ctx context.Context, _ ledger.Operator, _ nothing) ([]store.Merchant, error) {
	read := o.node.store.Read(ctx)
	ids, err := read.MerchantIDs()
	if err != nil {
		return nil, err
	}
	list := []store.Merchant{}
	for _, id := range ids {
		m, err := read.Merchant(id)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}
