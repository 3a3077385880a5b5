// Package webhook delivers events to merchants (Standard Webhooks), from the outbox that payments fill in their own
// commits, and keeps the endpoints to which they go.
//
// # What is promised
//
// An event that was committed is tried, at each endpoint that took its type then, until the endpoint has taken it (2xx), has
// switched itself off (410), is switched off or deleted by its merchant, or ten tries over three days have failed; a restart
// loses none. It may arrive twice: webhook-id tells. Within a payment the number in the body tells the order. A slow endpoint
// holds up nothing but itself: it is sent [perEndpoint] events at a time at most, and others have theirs.
//
// No connection goes to an address that nobody on the Internet has, unless the configuration allows it. What is kept and
// logged of a failure names neither the endpoint's address, which may hold a secret of its own, nor what it answered.
//
// # What is not
//
// Events may arrive in another order than they happened. Those that happen while an endpoint is off are not kept for it;
// they can be asked for again, one by one.
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
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

const (
	perEndpoint = 8        // requests under way to one endpoint
	unentered   = 64       // tries of one endpoint that are under way or whose outcome is not entered yet
	parallel    = 256      // the same of all endpoints
	maxAnswer   = 64 << 10 // of a body, and of a header
	idleRecheck = time.Minute
)

// Secrets opens the secrets under which what is sent to an endpoint at a time is signed, in the form whsec_…, the newest first.
type Secrets interface {
	WebhookSecrets(e store.Endpoint, at time.Time) ([]string, error)
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
	tries  sync.WaitGroup

	mu       sync.Mutex
	underWay map[string]*tries // by endpoint
	count    int               // of them
	failed   error             // why a try could not be entered
}

// tries are those of one endpoint, from their begin until their outcome is entered.
type tries struct {
	events map[string]bool
	posted int // of them, those whose request is over
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
	return &Sender{cfg: cfg, wake: make(chan struct{}, 1), underWay: make(map[string]*tries), client: &http.Client{
		Timeout:       cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a redirect is a failure
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
			MaxIdleConns: parallel, MaxIdleConnsPerHost: perEndpoint, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: cfg.Timeout, MaxResponseHeaderBytes: maxAnswer},
	}}
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
	defer s.tries.Wait()
	for {
		next, err := s.begin(ctx)
		wake := s.wake
		if err != nil {
			wake = nil // nobody hurries a database or an HSM that fails
			if ctx.Err() == nil {
				s.cfg.Log.ErrorContext(ctx, "the outbox could not be worked through", "error", err)
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// begin begins a try of all that is due and has room, and returns how long to wait for the next, unless [Sender.Wake] says that
// something has changed: the end of each try does.
func (s *Sender) begin(ctx context.Context) (time.Duration, error) {
	if err := s.takeFailure(); err != nil {
		return time.Second, err
	}
	read, now, next := s.cfg.Store.Read(ctx), s.cfg.Now(), idleRecheck
	queues, err := read.Queues()
	if err != nil {
		return time.Second, err
	}
	for _, queue := range queues {
		wait := queue.NextAt.Sub(now)
		if wait <= 0 {
			if wait, err = s.beginAt(ctx, read, queue.EndpointID, now); err != nil {
				return time.Second, err
			}
		}
		next = min(next, wait)
	}
	return next, nil
}

// beginAt begins what is due at one endpoint, and returns how long to wait for what is not.
func (s *Sender) beginAt(ctx context.Context, read store.Queries, endpointID string, now time.Time) (time.Duration, error) {
	endpoint, err := read.Endpoint(endpointID)
	if err != nil {
		return 0, err
	}
	pending, err := read.Pending(endpointID, s.begun(endpointID)+perEndpoint+1) // what is begun comes first
	if err != nil {
		return 0, err
	}
	for _, d := range pending {
		if wait := d.NextAt.Sub(now); wait > 0 {
			return wait, nil
		}
		room, known := s.claim(endpointID, d.EventID)
		switch {
		case known:
			continue
		case !room:
			return idleRecheck, nil
		}
		t, due, err := readTry(read, endpoint, d, now)
		if err != nil || !due {
			s.release(endpointID, d.EventID, false, nil)
		}
		if err != nil {
			return 0, err
		}
		if !due {
			continue
		}
		s.tries.Go(func() {
			err := s.deliver(context.WithoutCancel(ctx), t)
			s.release(endpointID, d.EventID, true, err)
			s.Wake()
		})
	}
	return idleRecheck, nil
}

// readTry reads what a try needs, once it has its room: the one before may have ended since the delivery was found. Then it is not
// due any more.
func readTry(read store.Queries, endpoint store.Endpoint, found store.Delivery, now time.Time) (t try, due bool, err error) {
	d, err := read.Delivery(found.EventID, found.EndpointID)
	if err != nil || d.Status != store.DeliveryPending || d.NextAt.After(now) {
		return try{}, false, err
	}
	event, err := read.Event(d.EventID)
	return try{event, endpoint, d}, true, err
}

// begun returns how many of an endpoint's tries are not entered yet.
func (s *Sender) begun(endpointID string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.underWay[endpointID]; at != nil {
		return len(at.events)
	}
	return 0
}

// claim takes room for a try, unless there is none or the try is under way.
func (s *Sender) claim(endpointID, eventID string) (room, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.underWay[endpointID]
	if at == nil {
		at = &tries{events: make(map[string]bool, perEndpoint)}
	}
	if at.events[eventID] {
		return false, true
	}
	if s.count >= parallel || len(at.events) >= unentered || len(at.events)-at.posted >= perEndpoint {
		return false, false
	}
	s.underWay[endpointID] = at
	at.events[eventID] = true
	s.count++
	return true, false
}

// posted makes room for the endpoint's next request: what came of this one is about to be entered.
func (s *Sender) posted(endpointID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.underWay[endpointID]
	if len(at.events)-at.posted >= perEndpoint { // somebody may wait for that
		defer s.Wake()
	}
	at.posted++
}

// release gives back what claim took. posted says that the request was made; err is why its outcome could not be entered.
func (s *Sender) release(endpointID, eventID string, posted bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.underWay[endpointID]
	if posted {
		at.posted--
	}
	delete(at.events, eventID)
	if len(at.events) == 0 {
		delete(s.underWay, endpointID)
	}
	s.count--
	s.failed = errors.Join(s.failed, err)
}

// takeFailure returns why tries could not be entered since the last call.
func (s *Sender) takeFailure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.failed
	s.failed = nil
	return err
}

// try is one try of a delivery, with what was read for it.
type try struct {
	event    store.Event
	endpoint store.Endpoint
	delivery store.Delivery
}

func (s *Sender) post(ctx context.Context, t try) (code int, err error) {
	request, err := s.request(ctx, t)
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

func (s *Sender) request(ctx context.Context, t try) (*http.Request, error) {
	now := s.cfg.Now()
	signatures, err := s.sign(t, now)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.endpoint.URL, bytes.NewReader(t.event.Body))
	if err != nil {
		return nil, errors.New("webhook: the endpoint's address is not usable")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "FINPay")
	request.Header.Set(standardwebhooks.HeaderWebhookID, t.event.ID)
	request.Header.Set(standardwebhooks.HeaderWebhookTimestamp, fmt.Sprint(now.Unix()))
	request.Header.Set(standardwebhooks.HeaderWebhookSignature, signatures)
	return request, nil
}

// sign returns a signature under each secret of the endpoint, with spaces between (Standard Webhooks).
func (s *Sender) sign(t try, now time.Time) (string, error) {
	secrets, err := s.cfg.Secrets.WebhookSecrets(t.endpoint, now)
	if err != nil {
		return "", err
	}
	signatures := make([]string, len(secrets))
	for i, secret := range secrets {
		signer, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return "", errors.New("webhook: the endpoint's secret is not usable")
		}
		if signatures[i], err = signer.Sign(t.event.ID, now, t.event.Body); err != nil {
			return "", fmt.Errorf("webhook: sign: %w", err)
		}
	}
	return strings.Join(signatures, " "), nil
}
