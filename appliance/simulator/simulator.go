package simulator

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// Config says where the counterparties listen and how they and the appliance know each other.
type Config struct {
	AcquirerAddr string          // TCP address of the acquirer's ISO 8583 host
	Acquirer     AcquirerOptions // its dialect
	// WebAddr is the TCP address of the one HTTPS listener: directory server at /ds, ACS at /acs, the acquirer's
	// books at /acquirer/books, shop at /. What goes wrong whatever the card is chosen at /acquirer/behave, /ds/behave and
	// /acs/behave: see [Behaviour].
	WebAddr  string
	WebURL   string // how browsers and the appliance reach WebAddr; https://localhost and its port when empty
	StateDir string // keeps the simulator's CA; its ca.pem is for the appliance and browsers to trust

	ApplianceCA         string // PEM file: who is trusted as the appliance; the system's authorities when empty
	ApplianceClientCert string // PEM file: whose client certificates /ds takes, besides those of the simulator's CA

	APIBase       string // the appliance's API, without /v1
	APIKey        string
	ReturnSecret  string // rsec_…
	WebhookSecret string // whsec_…

	// Ready, if set, is told the web listener's URL once it accepts connections.
	Ready func(webURL string)
}

const (
	shutdownTimeout   = 5 * time.Second
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = time.Minute
	clientTimeout     = 30 * time.Second
)

// Run serves the counterparties until ctx ends, then lets requests in flight finish.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	certs, err := OpenCertificates(cfg.StateDir)
	if err != nil {
		return err
	}
	line, err := net.Listen("tcp", cfg.AcquirerAddr)
	if err != nil {
		return fmt.Errorf("simulator: %w", err)
	}
	web, err := net.Listen("tcp", cfg.WebAddr)
	if err != nil {
		return errors.Join(fmt.Errorf("simulator: %w", err), line.Close())
	}
	if cfg.WebURL == "" {
		_, port, _ := net.SplitHostPort(web.Addr().String())
		cfg.WebURL = "https://localhost:" + port
	}
	acquirer := NewAcquirerHost(cfg.Acquirer)
	server, err := newWebServer(cfg, certs, acquirer, logger(log))
	if err != nil {
		return errors.Join(err, web.Close(), line.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return acquirer.Serve(ctx, line) })
	group.Go(func() error {
		if err := server.ServeTLS(web, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("simulator: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return shutDown(ctx, server)
	})
	logger(log).InfoContext(ctx, "simulator: ready", "shop", cfg.WebURL, "directory_server", cfg.WebURL+"/ds", "acquirer", line.Addr().String())
	if cfg.Ready != nil {
		cfg.Ready(cfg.WebURL)
	}
	return group.Wait()
}

func shutDown(ctx context.Context, server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	return err
}

// newWebServer puts directory server, ACS and shop behind one TLS configuration.
func newWebServer(cfg Config, certs *Certificates, acquirer *AcquirerHost, log *slog.Logger) (*http.Server, error) {
	handler, err := newWeb(cfg, certs, acquirer, log)
	if err != nil {
		return nil, err
	}
	certificate, err := certs.Server()
	if err != nil {
		return nil, err
	}
	clients := certs.Pool()
	if cfg.ApplianceClientCert != "" {
		if err := addPEM(clients, cfg.ApplianceClientCert); err != nil {
			return nil, err
		}
	}
	return &http.Server{
		Handler: handler,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate},
			// Shoppers have no certificate; the directory server asks for one itself.
			ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
		},
		ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}, nil
}

func newWeb(cfg Config, certs *Certificates, acquirer *AcquirerHost, log *slog.Logger) (http.Handler, error) {
	var roots *x509.CertPool // nil: the system's
	if cfg.ApplianceCA != "" {
		roots = x509.NewCertPool()
		if err := addPEM(roots, cfg.ApplianceCA); err != nil {
			return nil, err
		}
	}
	identity, err := certs.Client()
	if err != nil {
		return nil, err
	}
	shop, err := NewShop(ShopConfig{
		APIBase: cfg.APIBase, APIKey: cfg.APIKey, URL: cfg.WebURL, ReturnSecret: cfg.ReturnSecret,
		WebhookSecret: cfg.WebhookSecret, Client: clientOf(roots), Log: log,
	})
	if err != nil {
		return nil, err
	}
	acs := &ACS{Client: clientOf(roots, identity), Log: log}
	mux := http.NewServeMux()
	directory := &DirectoryServer{ACS: acs, ACSURL: cfg.WebURL + "/acs", MethodURL: cfg.WebURL + "/acs/method", Log: log}
	mux.Handle("/ds", directory)
	mux.Handle("/ds/behave", directory.BehaveHandler())
	mux.Handle("/acs", acs)
	mux.Handle("/acs/behave", acs.BehaveHandler())
	mux.HandleFunc("/acs/method", serveMethod)
	mux.Handle("/acquirer/books", acquirer.BooksHandler())
	mux.Handle("/acquirer/behave", acquirer.BehaveHandler())
	mux.Handle("/", shop)
	return mux, nil
}

func clientOf(roots *x509.CertPool, identities ...tls.Certificate) *http.Client {
	return &http.Client{Timeout: clientTimeout, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: identities},
		// One request in a while: a kept connection would only be in the way of a clean end.
		DisableKeepAlives: true,
	}}
}
