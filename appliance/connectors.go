package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/routing"
	"github.com/finterra/finpay/appliance/settlement"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring"
	"github.com/finterra/finpay/pci/stripe"
)

// line is a connector that has something to do as long as the appliance serves.
type line interface {
	routing.Connector
	Run(ctx context.Context) error
}

// connect makes the connectors of the configuration, and the router over them.
func (a *appliance) connect() error {
	var routes []routing.Route
	for _, c := range a.cfg.Connectors {
		connector, err := a.connector(c)
		if err != nil {
			return fmt.Errorf("connectors (%s): %w", c.Name, err)
		}
		a.lines = append(a.lines, connector)
		routes = append(routes, routing.Route{Name: c.Name, Type: c.Type, Sandbox: c.Sandbox, Brands: named[pci.Brand](c.Brands), Currencies: named[pci.Currency](c.Currencies),
			Min: amountOf(c.MinAmount), Max: amountOf(c.MaxAmount), Merchants: c.Merchants, Connector: connector})
	}
	var err error
	a.routes, err = routing.New(routes...)
	return err
}

func named[T ~string](names []string) (list []T) {
	for _, name := range names {
		list = append(list, T(name))
	}
	return list
}

func amountOf(a config.Amount) pci.Amount {
	return pci.Amount{Minor: a.Minor, Currency: pci.Currency(a.Currency)}
}

func (a *appliance) connector(c config.Connector) (line, error) {
	if c.Type == config.StripeConnector {
		return a.stripe(c)
	}
	l := acquiring.Config{
		Address: c.ISO8583.Address, Spec: c.ISO8583.Spec, Header: c.ISO8583.Header, AnswerTimeout: c.ISO8583.AnswerTimeout,
		EchoInterval: c.ISO8583.EchoInterval, SignOn: c.ISO8583.SignOn, AcquirerID: c.ISO8583.AcquirerID,
		MatchTerminal: c.ISO8583.MatchTerminal, EntryMode: c.ISO8583.EntryMode, StoredEntryMode: c.ISO8583.StoredEntryMode,
		SoftDeclines: c.ISO8583.SoftDeclines, Additional: acquiring.Additional(c.ISO8583.Additional),
	}
	if c.ISO8583.TLS {
		client, err := a.clientTLS(c.ISO8583.CA)
		if err != nil {
			return nil, err
		}
		l.TLS = client
	}
	l.Events = func(e acquiring.Event) { a.told(c.Name, e) }
	made, err := acquiring.New(l, a.cards, a.cipher)
	if err != nil {
		return nil, err
	}
	a.settling = append(a.settling, settlement.Connector{Name: c.Name, At: c.ISO8583.SettlementTime(), Reconciler: made})
	return made, nil
}

// told takes what an acquirer says of its own accord.
func (a *appliance) told(connector string, e acquiring.Event) {
	switch e.Kind {
	case acquiring.Cutover:
		a.log.Info("the acquirer has closed its day: books are compared", "connector", connector)
		a.settlement.Cutover(connector)
	case acquiring.KeyChangeRefused:
		a.log.Warn("the acquirer wants to exchange keys, which is not done here", "connector", connector)
	}
}

// stripe shows no client certificate: Stripe knows its accounts by their keys.
func (a *appliance) stripe(c config.Connector) (line, error) {
	key, err := stripe.ReadKey(c.Stripe.KeyFile, c.Sandbox)
	if err != nil {
		return nil, err
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Stripe.CA != "" {
		if settings.RootCAs, err = pool(x509.NewCertPool(), c.Stripe.CA); err != nil {
			return nil, err
		}
	}
	return stripe.New(stripe.Config{URL: c.Stripe.URL, Key: key, TLS: settings, AnswerTimeout: c.Stripe.AnswerTimeout}, a.cards, a.cipher)
}

// connectorStanding is what doctor tells of a connector; its JSON form is documented in docs/operations.md.
type connectorStanding struct {
	Name    string `json:"name"`
	Type    string `json:"type"` // empty: it is not configured
	Sandbox bool   `json:"sandbox"`
	Health  string `json:"health"` // "ok", "not connected", "not asked" (nothing serves) or "not configured"
	Open    bool   `json:"open"`   // there is work that only it can finish
}

// The healths of a connector.
const (
	healthOK            = "ok"
	healthDown          = "not connected"
	healthNotAsked      = "not asked"
	healthNotConfigured = "not configured"
)

// listConnectors tells how the connectors stand, and which are missing though payments need them.
func (o *operations) listConnectors(ctx context.Context, _ ledger.Operator, _ nothing) ([]connectorStanding, error) {
	open, err := o.node.store.Read(ctx).OpenConnectors()
	if err != nil {
		return nil, err
	}
	list := configuredConnectors(o.cfg)
	for i := range list {
		list[i].Open = slices.Contains(open, list[i].Name)
		if o.serving == nil {
			continue
		}
		route, err := o.serving.routes.Named(list[i].Name)
		if err != nil {
			return nil, err
		}
		list[i].Health = healthOf(route)
	}
	for _, name := range open {
		if !slices.ContainsFunc(list, func(c connectorStanding) bool { return c.Name == name }) {
			list = append(list, connectorStanding{Name: name, Health: healthNotConfigured, Open: true})
		}
	}
	return list, nil
}

func configuredConnectors(cfg config.Config) []connectorStanding {
	list := []connectorStanding{}
	for _, c := range cfg.Connectors {
		list = append(list, connectorStanding{Name: c.Name, Type: c.Type, Sandbox: c.Sandbox, Health: healthNotAsked})
	}
	return list
}

func healthOf(route *routing.Route) string {
	if route.Healthy() {
		return healthOK
	}
	return healthDown
}

// missingConnectors says, once at the start, which payments wait for a connector that is not configured any more.
func (a *appliance) missingConnectors(ctx context.Context) error {
	open, err := a.node.store.Read(ctx).OpenConnectors()
	for _, name := range open {
		if _, missing := a.routes.Named(name); missing != nil {
			a.log.ErrorContext(ctx, "payments wait for a connector that is not configured: captures, voids, refunds and reversals go to it and to no other", "connector", name)
		}
	}
	return err
}
