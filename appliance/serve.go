package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/auditor"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/control"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/payment"
	"github.com/finterra/finpay/appliance/retention"
	"github.com/finterra/finpay/appliance/routing"
	"github.com/finterra/finpay/appliance/settlement"
	"github.com/finterra/finpay/appliance/store/postings"
	"github.com/finterra/finpay/appliance/tokens"
	"github.com/finterra/finpay/appliance/webhook"
	"github.com/finterra/finpay/appliance/witness"
	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/intake"
	"github.com/finterra/finpay/pci/tokenization"
	"github.com/finterra/finpay/pci/wire"
)

type serveCommand struct{}

// Bounds of the listeners and of a graceful stop.
const (
	readHeaderTimeout = 10 * time.Second
	writeTimeout      = 60 * time.Second // a shopper's form waits for the acquirer
	idleTimeout       = 2 * time.Minute
	stopTimeout       = 30 * time.Second
	maxHeader         = 16 << 10
)

// Run serves until a signal comes, then finishes what is in flight.
func (serveCommand) Run(ctx context.Context, g globals) error {
	safe, err := harden()
	if err != nil {
		return err
	}
	cfg, err := g.load()
	if err != nil {
		return err
	}
	metrics := newMetrics()
	log := newLogger(os.Stderr, cfg.Log, metrics.redacted.Inc)
	slog.SetDefault(log) // package log's too
	logSafeguards(log, safe)
	n, err := openNode(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := n.close(); err != nil {
			log.Error("the end was not clean", "error", err)
		}
	}()
	if err := checkCapabilities(ctx, cfg, n.engine, log); err != nil {
		return err
	}
	live, err := n.store.Read(ctx).LiveKeys()
	if err == nil && live > 0 {
		err = mayServeLive(ctx, cfg, n.engine)
	}
	if err != nil {
		return err
	}
	a, err := assemble(ctx, cfg, n, log)
	if err != nil {
		return err
	}
	metrics.watch(a)
	return a.serve(ctx, metrics)
}

// appliance is everything that serves, wired.
type appliance struct {
	cfg        config.Config
	node       *node
	log        *slog.Logger
	cards      *custody.Store
	threeDS    directoryServers
	routes     *routing.Router
	lines      []line // what the routes lead to
	payments   *payment.Service
	settling   []settlement.Connector // those whose books are compared
	settlement *settlement.Service
	retention  *retention.Service
	webhooks   *webhook.Sender
	events     *webhook.Register
	cipher     *tokenization.Service       // computes tokens
	ciphers    map[uint32]*hsm.BlockCipher // of the tokenization key's versions; operations guards it
	tokens     *tokens.Service             // issues them
	sealed     *intakeKeys
	intake     *intake.Forms
	auditors   *auditor.Service
	search     *postings.Index

	operations *operations
	witnesses  *witness.Publisher // nil where none is configured
	checks     *rowChecks
}

// assemble introduces the parts to each other: pci gets what it needs of hsm in its own terms, payment gets pci.
func assemble(ctx context.Context, cfg config.Config, n *node, log *slog.Logger) (*appliance, error) {
	a := &appliance{cfg: cfg, node: n, log: log}
	a.operations = &operations{cfg: cfg, node: n, serving: a}
	a.cards = custody.New(keeper(cfg, n.engine), custody.Config{Deadline: cfg.Custody.Deadline, Capacity: cfg.Custody.Capacity})
	a.checks = &rowChecks{cfg: cfg, node: n, log: log}
	if err := a.assembleWitnesses(ctx); err != nil {
		return nil, fmt.Errorf("ledger.witnesses: %w", err)
	}
	if err := a.assembleTokens(ctx); err != nil {
		return nil, err
	}
	a.intake = intake.New(a.cards, a.sealed, cfg.Intake.Open, nil)
	if err := a.connectDirectoryServers(); err != nil {
		return nil, err
	}
	if err := a.connect(); err != nil {
		return nil, err
	}
	roots, err := systemRootsAnd(cfg.Webhooks.CA)
	if err != nil {
		return nil, fmt.Errorf("webhooks.ca: %w", err)
	}
	clock := func() time.Time { return time.Now().Add(failpoint.Ahead()) }
	a.webhooks = webhook.New(webhook.Config{Store: n.store, Ledger: n.ledger, Secrets: n.merchants, AllowPrivate: cfg.Webhooks.AllowPrivate,
		Roots: roots, Timeout: cfg.Webhooks.Timeout, Now: clock, Log: log})
	a.events = n.endpoints(cfg, a.webhooks.Wake)
	a.payments = payment.New(payment.Config{
		Store: n.store, Ledger: n.ledger, Merchants: n.merchants, Origins: mac{n.engine.MAC(n.keys.key(roleOrigin))},
		Tokens: a.cipher, ThreeDS: a.threeDS, Connectors: a.routes, Cards: a.cards, Outbox: a.webhooks.Wake,
		PublicURL: cfg.PublicURL, Session: cfg.Checkout.Session, Attempts: cfg.Checkout.Attempts, Authorization: cfg.Checkout.Authorization, Challenge: cfg.ThreeDS.Challenge,
		UnavailableRefuse: cfg.ThreeDS.Unavailable == "refuse", Log: log,
	})
	a.settlement = settlement.New(settlement.Config{Store: n.store, Ledger: n.ledger, Quiet: a.payments.Quiet, Trace: a.payments.Trace,
		Connectors: a.settling, Log: log})
	a.retention = retention.New(retention.Config{Ledger: n.ledger, Customers: cfg.Retention.Customers, WebhookDeliveries: cfg.Retention.WebhookDeliveries,
		IdempotencyKeys: cfg.Retention.IdempotencyKeys, Now: clock, Log: log})
	if a.search, err = postings.Open(ctx, cfg.State()); err != nil {
		return nil, err
	}
	a.auditors = auditor.New(auditor.Config{Store: n.store, Ledger: n.ledger, Index: a.search, Logins: n.merchants, Log: log})
	return a, nil
}

// assembleWitnesses reads the policy of those who cosign the log, if there is one.
func (a *appliance) assembleWitnesses(ctx context.Context) error {
	if a.cfg.Ledger.Witnesses == "" {
		return nil
	}
	policy, err := witness.ReadPolicy(a.cfg.Ledger.Witnesses)
	if err != nil {
		return err
	}
	a.witnesses, err = witness.New(ctx, witness.Config{Policy: policy, Store: a.node.store, Ledger: a.node.ledger, Period: a.cfg.Ledger.WitnessPeriod,
		Patience: a.cfg.Ledger.WitnessPatience, Timeout: a.cfg.Ledger.WitnessTimeout, Log: a.log})
	return err
}

// clientTLS is mutual TLS to a counterparty, with the client's key in the HSM.
func (a *appliance) clientTLS(ca string) (*tls.Config, error) {
	signer, err := a.certified(roleTLSClient, a.cfg.TLS.ClientCert)
	if err != nil {
		return nil, err
	}
	certificate, err := certificate(a.cfg.TLS.ClientCert, signer)
	if err != nil {
		return nil, err
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
	if ca != "" {
		settings.RootCAs, err = pool(x509.NewCertPool(), ca)
	}
	return settings, err
}

// certified returns the signer for a certificate. One for a retired version serves on, until the answer to its renewal is
// installed.
func (a *appliance) certified(role hsm.Role, path string) (crypto.Signer, error) {
	signer, version, err := a.node.certified(context.Background(), role, path)
	if active := a.node.keys.key(role); err == nil && version != active {
		a.log.Warn("a certificate is for a retired key", "certificate", path, "key", version.Label(), "active", active.Label())
	}
	return signer, err
}

// serverTLS is TLS 1.3 with the listener's key in the HSM, or in a file.
func (a *appliance) serverTLS() (*tls.Config, error) {
	var signer crypto.Signer
	var err error
	if a.cfg.TLS.Key == "file" {
		signer, err = readKey(a.cfg.TLS.KeyFile)
	} else {
		signer, err = a.certified(roleTLS, a.cfg.TLS.Certificate)
	}
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	own, err := certificate(a.cfg.TLS.Certificate, signer)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}}, nil
}

// serve resolves what an earlier process left, then listens until ctx ends, then stops in order: no new requests,
// requests in flight, attempts under way, lines, and last what they all stand on.
func (a *appliance) serve(ctx context.Context, metrics *metrics) error {
	if err := a.turnYear(time.Now()); err != nil {
		return err
	}
	if err := a.started(ctx); err != nil {
		return err
	}
	if err := a.payments.Recover(ctx); err != nil {
		return err
	}
	if err := a.missingConnectors(ctx); err != nil {
		return err
	}
	listeners, err := a.listen(metrics)
	if err != nil {
		return err
	}
	a.operations.ending = ctx.Done()
	commands, err := control.Listen(a.cfg.State(), a.operations.table())
	if err != nil {
		listeners.close()
		return err
	}
	deep, endDeep := context.WithCancel(context.WithoutCancel(ctx)) // outlives the listeners
	defer endDeep()
	decisions, endDecisions := context.WithCancel(deep)
	defer endDecisions()

	var under errgroup.Group
	under.Go(func() error { a.cards.Sweep(deep); return nil })
	under.Go(func() error { a.threeDS.run(deep); return nil })
	for _, l := range a.lines {
		under.Go(func() error { return l.Run(deep) })
	}
	under.Go(func() error { a.webhooks.Run(deep); return nil })
	under.Go(func() error { a.settlement.Run(decisions); return nil })
	under.Go(func() error { a.retention.Run(deep); return nil })
	under.Go(func() error { a.runYears(deep); return nil })
	under.Go(func() error { a.node.merchants.Run(deep); return nil })
	under.Go(func() error { a.runIntakeKeys(deep); return nil })
	under.Go(func() error { a.tokens.RunRetirements(deep); return nil })
	under.Go(func() error { return commands.Serve(decisions) })
	under.Go(func() error { a.checks.run(deep); return nil })
	if a.witnesses != nil {
		under.Go(func() error { a.witnesses.Run(deep); return nil })
	}
	under.Go(func() error { a.node.head.run(deep, a.node.ledger); return nil })
	under.Go(func() error { a.auditors.Run(deep); return nil })
	decided := make(chan struct{})
	go func() {
		defer close(decided)
		a.payments.Run(decisions)
	}()
	a.log.InfoContext(ctx, "ready", "api", a.cfg.PublicURL, "listen", a.cfg.Listen, "monitor", a.cfg.Monitor, "log", a.node.ledger.Origin())
	served := a.untilTheHSMFails(ctx, listeners.serve)
	a.log.InfoContext(ctx, "stopping: requests in flight are finished")
	endDecisions()
	<-decided
	endDeep()
	return errors.Join(served, under.Wait(), a.stopped(), a.search.Close())
}

// untilTheHSMFails ends serving when the HSM cannot be used any more by this process, so that its supervisor starts
// another: a call into the HSM's library that never returns cannot be ended in any other way.
func (a *appliance) untilTheHSMFails(ctx context.Context, serve func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-a.node.engine.Failed():
			stop()
		case <-ctx.Done():
		}
	}()
	err := serve(ctx)
	stop()
	<-watching
	return errors.Join(a.node.engine.Err(), err)
}

// started and stopped enter the process's life in the log (PCI DSS 10.2.1.6), with the digest of its configuration: a
// change of settings shows between two starts.
func (a *appliance) started(ctx context.Context) error { return a.record(ctx, "appliance.started") }
func (a *appliance) stopped() error                    { return a.record(context.Background(), "appliance.stopped") }

func (a *appliance) record(ctx context.Context, event string) error {
	_, err := a.node.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		tx.Record(ledger.Entry{Type: event, Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: "node:" + a.cfg.Node,
			Data: map[string]any{"version": version, "configuration": a.cfg.Digest()}})
		return nil
	})
	return err
}

// listeners are the open sockets with their servers.
type listeners struct {
	servers []*http.Server
	sockets []net.Listener
}

func (a *appliance) listen(metrics *metrics) (*listeners, error) {
	settings, err := a.serverTLS()
	if err != nil {
		return nil, err
	}
	certified := settings.Clone()
	certified.ClientAuth = tls.RequireAnyClientCert // whose key it is, the register of auditors says
	l := &listeners{}
	type listener struct {
		setting, address string
		tls              *tls.Config
		handler          http.Handler
	}
	all := []listener{
		{"listen", a.cfg.Listen, settings, a.handler(metrics)},
		{"monitor", a.cfg.Monitor, nil, a.monitor(metrics)},
		{"audit.listen", a.cfg.Audit.Listen, certified, a.handler(metrics)},
	}
	for i, d := range a.threeDS {
		setting := fmt.Sprintf("three_d_secure.directory_servers[%d].results_listen", i)
		results, err := d.results(settings)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
		all = append(all, listener{setting, d.ResultsListen, results, d.server.ResultsHandler(a.payments)})
	}
	for _, s := range all {
		if s.address == "" {
			continue
		}
		socket, err := net.Listen("tcp", s.address)
		if err != nil {
			l.close()
			return nil, fmt.Errorf("%s: %w", s.setting, err)
		}
		switch {
		case s.tls == nil:
		case s.setting == "listen" && a.cfg.Intake.Open: // a body may be an open card
			socket = wire.NewListener(socket, s.tls)
		default:
			s.tls.NextProtos = []string{"h2", "http/1.1"}
			socket = tls.NewListener(socket, s.tls)
		}
		l.sockets = append(l.sockets, socket)
		l.servers = append(l.servers, &http.Server{Handler: s.handler, TLSConfig: s.tls, ConnContext: wire.ConnContext, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: a.cfg.Limits.RequestTime,
			WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: errorLog(a.log)})
	}
	return l, nil
}

func (l *listeners) close() {
	for _, socket := range l.sockets {
		_ = socket.Close()
	}
}

// serve answers until ctx ends, then waits for the requests in flight.
func (l *listeners) serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, server := range l.servers {
		group.Go(func() error {
			if err := server.Serve(l.sockets[i]); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			if err := server.Shutdown(last); err != nil {
				return errors.Join(err, server.Close())
			}
			return nil
		})
	}
	return group.Wait()
}

func (a *appliance) handler(m *metrics) http.Handler {
	return api.New(api.Config{Keys: a.node.merchants, Payments: a.payments, Events: a.events, Tokens: a.tokens, Intake: intakeDocument{a.sealed},
		Checkout: a.payments, Cards: a.intake, Log: publicLog{a.node.ledger, a.node.store}, Audit: a.auditors, Auditors: a.auditors, Logger: a.log,
		Wipe: wire.Wipe, Breach: func(directive string) { m.breaches.WithLabelValues(directive).Inc() },
		Limits: api.Limits{
			PerKey:      api.Rate{PerSecond: a.cfg.Limits.KeyRate, Burst: a.cfg.Limits.KeyBurst},
			PerTokenKey: api.Rate{PerSecond: a.cfg.Limits.TokenRate, Burst: a.cfg.Limits.TokenBurst},
			PerAddress:  api.Rate{PerSecond: a.cfg.Limits.AddressRate, Burst: a.cfg.Limits.AddressBurst},
		}})
}
