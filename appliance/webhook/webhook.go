// Package webhook delivers events to merchants (Standard Webhooks), from the outbox that payments fill in their own
// commits.
//
// # What is promised
//
// An event that was committed is tried until the endpoint has taken it (2xx), has switched itself off (410), or ten
// tries over three days have failed; a restart loses none. It may arrive twice: webhook-id tells. What is kept and
// logged of a failure names neither the endpoint's address, which may hold a secret of its own, nor what it answered.
//
// # What is not
//
// Events of one merchant may arrive in another order than they happened; their timestamps tell.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"golang.org/x/sync/errgroup"

	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// schedule is the time from one try to the next; the first is at once.
var schedule = []time.Duration{0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}

const (
	batch       = 64
	parallel    = 8
	maxAnswer   = 64 << 10 // of a body, and of a header
	idleRecheck = time.Minute
)

// Secrets opens a merchant's webhook secret, in the form whsec_….
type Secrets interface {
	WebhookSecret(m store.Merchant) (string, error)
}

// Config of a [Sender].
type Config struct {
	Store        *store.Store
	Ledger       *ledger.Ledger
	Secrets      Secrets
	AllowPrivate bool           // endpoints may resolve to loopback and private addresses
	Roots        *x509.CertPool // nil for the system's
	Timeout      time.Duration  // for one try
	Now          func() time.Time
	Log          *slog.Logger
}

// Sender delivers events. Its owner calls [Sender.Run].
type Sender struct {
	cfg    Config
	client *http.Client
	wake   chan struct{}
}

// New returns a sender.
func New(cfg Config) *Sender {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	dialer := &net.Dialer{Timeout: cfg.Timeout}
	if !cfg.AllowPrivate {
		dialer.Control = refusePrivate
	}
	return &Sender{cfg: cfg, wake: make(chan struct{}, 1), client: &http.Client{
		Timeout:       cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a redirect is a failure
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
			MaxIdleConnsPerHost: parallel, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: cfg.Timeout, MaxResponseHeaderBytes: maxAnswer},
	}}
}

// ErrPrivate means that an endpoint resolves to an address that no merchant on the Internet has.
var ErrPrivate = errors.New("webhook: the endpoint's address is private")

// refusePrivate looks at the address that is really connected to, after name resolution: a name that resolves to
// another address the second time gains nothing.
func refusePrivate(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := ap.Addr().Unmap().WithZone("")
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return ErrPrivate
	}
	for _, reserved := range notPublic {
		if reserved.Contains(ip) {
			return ErrPrivate
		}
	}
	return nil
}

// notPublic are the ranges beside private, loopback and link-local ones that lead to nobody on the Internet, or
// through a translator to any IPv4 address (IANA special-purpose address registries).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this network
	netip.MustParsePrefix("100.64.0.0/10"),  // shared with a carrier's NAT, RFC 6598
	netip.MustParsePrefix("192.0.0.0/24"),   // IETF protocol assignments
	netip.MustParsePrefix("198.18.0.0/15"),  // benchmarking
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved
	netip.MustParsePrefix("::/96"),          // IPv4-compatible, deprecated
	netip.MustParsePrefix("64:ff9b::/96"),   // NAT64, RFC 6052
	netip.MustParsePrefix("64:ff9b:1::/48"), // NAT64, RFC 8215
	netip.MustParsePrefix("2002::/16"),      // 6to4
	netip.MustParsePrefix("fec0::/10"),      // site-local, deprecated
}

// Wake says that there may be something to deliver.
func (s *Sender) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends, then waits for the tries under way.
func (s *Sender) Run(ctx context.Context) {
	defer s.client.CloseIdleConnections()
	for {
		next, err := s.deliverDue(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.ErrorContext(ctx, "the outbox could not be worked through", "error", err)
		}
		timer := time.NewTimer(next)
		select {
		case <-s.wake:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// deliverDue tries all that is due and returns how long to wait for the next.
func (s *Sender) deliverDue(ctx context.Context) (time.Duration, error) {
	for ctx.Err() == nil {
		due, err := s.cfg.Store.Read(ctx).DueDeliveries(s.cfg.Now(), batch)
		if err != nil {
			return time.Second, err
		}
		if len(due) == 0 {
			break
		}
		var group errgroup.Group // without a context: one try that cannot be entered must not cut its neighbours off
		group.SetLimit(parallel)
		for _, d := range due {
			group.Go(func() error { return s.deliver(context.WithoutCancel(ctx), d) })
		}
		if err := group.Wait(); err != nil {
			return time.Second, err
		}
	}
	at, err := s.cfg.Store.Read(ctx).NextDelivery()
	if errors.Is(err, store.ErrNotFound) {
		return idleRecheck, nil
	}
	return max(0, min(at.Sub(s.cfg.Now()), idleRecheck)), err
}

// deliver tries once and enters what came of it.
func (s *Sender) deliver(ctx context.Context, d store.Delivery) error {
	failpoint.Here("before webhook")
	code, problem := s.post(ctx, d.Event)
	failpoint.Here("after webhook")
	now := s.cfg.Now()
	d.Tries++
	switch {
	case problem == nil:
		d.Status = store.DeliveryDelivered
	case code == http.StatusGone || d.Tries >= len(schedule):
		d.Status = store.DeliveryFailed
	default:
		d.NextAt = now.Add(jitter(schedule[d.Tries]))
	}
	text := ""
	if problem != nil {
		text = problem.Error()
		s.cfg.Log.WarnContext(ctx, "an event was not delivered", "event", d.Event.ID, "try", d.Tries, "status", d.Status, "error", problem)
	}
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if err := tx.PutDeliveryTry(d, now, code, text); err != nil {
			return err
		}
		if code == http.StatusGone {
			if err := switchOff(tx, d.Event); err != nil {
				return err
			}
		}
		if d.Status != store.DeliveryPending {
			outcome := ledger.Success
			if d.Status == store.DeliveryFailed {
				outcome = ledger.Failure
			}
			tx.Record(ledger.Entry{Type: "webhook." + d.Status, Actor: "system", Origin: "local", Outcome: outcome, Resource: d.Event.PaymentID,
				Data: map[string]any{"event": d.Event.ID, "type": d.Event.Type, "tries": d.Tries, "code": code}})
		}
		return nil
	})
	return err
}

// switchOff takes the merchant's endpoint away: it said that it wants no more events (Standard Webhooks, 410).
func switchOff(tx *ledger.Tx, e store.Event) error {
	m, err := tx.Merchant(e.MerchantID)
	if err != nil || m.WebhookURL == "" {
		return err
	}
	m.WebhookURL = ""
	if err := tx.PutMerchant(m); err != nil {
		return err
	}
	tx.Record(ledger.Entry{Type: "webhook.switched_off", Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: m.ID,
		Data: map[string]any{"event": e.ID}})
	return nil
}

// jitter spreads tries by a tenth, so that an endpoint that comes back is not hit by all at once.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration(rand.Float64()*float64(d)/10) //nolint:gosec // spreads load, guards nothing
}

func (s *Sender) post(ctx context.Context, e store.Event) (code int, err error) {
	m, err := s.cfg.Store.Read(ctx).Merchant(e.MerchantID)
	if err != nil {
		return 0, err
	}
	if m.WebhookURL == "" {
		return http.StatusGone, errors.New("webhook: the merchant has no endpoint")
	}
	request, err := s.request(ctx, m, e)
	if err != nil {
		return 0, err
	}
	return s.send(request)
}

// send returns the status of the answer, and an error unless it is 2xx.
func (s *Sender) send(request *http.Request) (code int, err error) {
	response, err := s.client.Do(request)
	if err != nil {
		return 0, failureOf(err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return response.StatusCode, fmt.Errorf("webhook: the endpoint answered %d", response.StatusCode)
	}
	return response.StatusCode, nil
}

func (s *Sender) request(ctx context.Context, m store.Merchant, e store.Event) (*http.Request, error) {
	secret, err := s.cfg.Secrets.WebhookSecret(m)
	if err != nil {
		return nil, err
	}
	signer, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, errors.New("webhook: the merchant's secret is not usable")
	}
	now := s.cfg.Now()
	signature, err := signer.Sign(e.ID, now, e.Body)
	if err != nil {
		return nil, fmt.Errorf("webhook: sign: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, m.WebhookURL, bytes.NewReader(e.Body))
	if err != nil {
		return nil, errors.New("webhook: the endpoint's address is not usable")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "FINPay")
	request.Header.Set(standardwebhooks.HeaderWebhookID, e.ID)
	request.Header.Set(standardwebhooks.HeaderWebhookTimestamp, fmt.Sprint(now.Unix()))
	request.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	return request, nil
}
