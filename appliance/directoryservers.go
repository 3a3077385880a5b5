package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/threeds"
	"github.com/finterra/finpay/pci/wire"
)

// directoryServers are 3-D Secure: a card is authenticated by the first directory server that takes its brand, in its merchant's
// mode.
type directoryServers []directoryServer

type directoryServer struct {
	config.DirectoryServer
	server *threeds.Server
}

// directoryIdle is how long a connection to a directory server waits for the next authentication. Servers commonly end theirs
// after a minute, and a request that meets that moment is lost.
const directoryIdle = 20 * time.Second

// connectDirectoryServers makes those of the configuration.
func (a *appliance) connectDirectoryServers() error {
	for i, d := range a.cfg.ThreeDS.DirectoryServers {
		server, err := a.connectDirectoryServer(d)
		if err != nil {
			return fmt.Errorf("three_d_secure.directory_servers[%d] (%s): %w", i, d.Name, err)
		}
		a.threeDS = append(a.threeDS, directoryServer{d, server})
	}
	return nil
}

func (a *appliance) connectDirectoryServer(d config.DirectoryServer) (*threeds.Server, error) {
	client, err := a.clientTLS(d.CA)
	if err != nil {
		return nil, err
	}
	return threeds.New(threeds.Config{
		DirectoryServer: d.URL,
		Client:          &http.Client{Transport: &wire.Transport{TLS: client, MaxBody: threeds.MaxBody, Idle: directoryIdle}},
		ResultsURL:      d.ResultsURL,
		ServerRefNumber: d.ServerRefNumber,
		OperatorID:      d.OperatorID,
		Versions:        d.Versions, CardSecurityCode: d.CardSecurityCode, AcquirerCountry: d.AcquirerCountry,
		UnknownRange: threeds.Policy(d.UnknownRange),
		Timeouts:     threeds.Timeouts{Authentication: d.Timeout, Challenge: a.cfg.ThreeDS.Challenge},
		Challenges:   a.cfg.Custody.Capacity,
	}, a.cards, a.cipher)
}

// of returns who is asked about a card, nil where nobody is.
func (l directoryServers) of(request pci.AuthenticationRequest) *threeds.Server {
	for _, d := range l {
		if d.Sandbox == request.Merchant.Sandbox && (len(d.Brands) == 0 || slices.Contains(d.Brands, string(request.Brand))) {
			return d.server
		}
	}
	return nil
}

// Method implements [payment.Authenticator].
func (l directoryServers) Method(ctx context.Context, request pci.AuthenticationRequest, notificationURL string) (*pci.Method, error) {
	if server := l.of(request); server != nil {
		return server.Method(ctx, request, notificationURL)
	}
	return nil, nil //nolint:nilnil // nothing to show is no error
}

// MethodTransID implements [payment.Authenticator].
func (l directoryServers) MethodTransID(data string) string { return threeds.MethodTransID(data) }

// Authenticate implements [payment.Authenticator]. Where nobody can be asked about a card, it is as if the issuer were away: the
// configuration says whether it is sold all the same.
func (l directoryServers) Authenticate(ctx context.Context, request pci.AuthenticationRequest) (pci.Authentication, error) {
	if server := l.of(request); server != nil {
		return server.Authenticate(ctx, request)
	}
	return pci.Authentication{Outcome: pci.AuthenticationDown}, nil
}

// run keeps the card ranges of all of them.
func (l directoryServers) run(ctx context.Context) {
	var all errgroup.Group
	for _, d := range l {
		all.Go(func() error { d.server.Run(ctx); return nil })
	}
	_ = all.Wait()
}

// results is TLS for the results of one: its own authority's clients alone are let in.
func (d directoryServer) results(settings *tls.Config) (*tls.Config, error) {
	own := settings.Clone()
	own.MinVersion = tls.VersionTLS12 // directory servers still speak it
	own.ClientAuth = tls.RequireAndVerifyClientCert
	var err error
	own.ClientCAs, err = pool(x509.NewCertPool(), d.CA)
	return own, err
}
