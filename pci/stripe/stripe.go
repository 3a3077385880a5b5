// Package stripe sells through Stripe (https://docs.stripe.com/api), with cards that this appliance holds and authenticates.
//
//	Sale, Authorize  POST /v1/payment_methods, then /v1/payment_intents with confirm, and the results of 3-D Secure made here
//	Capture          POST /v1/payment_intents/{id}/capture
//	Refund           POST /v1/refunds
//	Reverse          looks for the payment intent, then cancels it or gives it back; of an authorization it is a void
//
// # What is promised
//
// A card is charged at most once for a sale. Each request that moves money has an idempotency key made from its trace. Without
// a clear answer the sale is asked for again, with the same key and the same parameters, while its payment method is known here;
// Stripe answers what became of the first. Where that ends without an answer, the outcome is [pci.Unknown], and
// [Connector.Reverse] finds out (see there). A payment method alone moves nothing: where it cannot be made, the sale is
// [pci.Unsent], or [pci.Refused] where Stripe refuses the card.
//
// An answer counts only if it is about the amount, the currency and the sale that were asked for. All else leaves the outcome
// open.
//
// Requests go to one host, by TLS, at paths that stand in this package. A redirect is a failure. PAN and security code go
// from locked memory into a form in locked memory and from there into the TLS record; what an answer echoes of the PAN is
// masked before it is parsed. The number of Stripe's that is kept of a sale ([pci.SaleResult.Reference]) has been checked, and
// is checked again before it becomes part of a path. Errors and logs carry neither card data nor anything that Stripe has
// written but its codes.
//
// # What is not
//
// The secret key is a text in this process's memory, for as long as it runs. A refund that Stripe calls pending counts as done; one that
// fails later is Stripe's to tell. Requires that the account may send raw card data.
package stripe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/tokenization"
	"github.com/finterra/finpay/pci/wire"
)

// Version is the version of Stripe's API that this package speaks (header Stripe-Version).
const Version = "2026-08-26.dahlia"

// Defaults of a [Config].
const (
	DefaultAnswerTimeout = 15 * time.Second
	DefaultProbeInterval = 30 * time.Second
	defaultRepeatAfter   = 500 * time.Millisecond
)

// Errors of requests. They say why an outcome is [pci.Unsent] or [pci.Unknown].
var (
	// ErrUnreachable means that there was no connection to Stripe. Nothing was sent.
	ErrUnreachable = errors.New("stripe: no connection to Stripe")
	// ErrNoAnswer means that a request left, or may have, and no answer that can be read came in time.
	ErrNoAnswer = errors.New("stripe: no usable answer")
	// ErrMismatch means that an answer is not about what was asked for.
	ErrMismatch = errors.New("stripe: the answer is about another amount, currency or sale")
)

// Config says how to reach Stripe. Zero durations mean the defaults.
type Config struct {
	URL string      // https://api.stripe.com
	Key Key         // of the account
	TLS *tls.Config // whom to trust; nil: the system's authorities. It is not changed.

	AnswerTimeout time.Duration // of one request, from its connection to its answer
	RepeatAfter   time.Duration // before a sale without an answer is asked for again; it doubles
	ProbeInterval time.Duration // between looks whether Stripe answers

	Now func() time.Time
}

// Connector speaks for one account. It is safe for concurrent use. Its owner runs [Connector.Run].
type Connector struct {
	cfg       Config
	base      string
	transport http.RoundTripper
	cards     lend.Custody
	tokens    lend.Tokens // nil where stored cards cannot be charged
	healthy   atomic.Bool
}

// New returns a connector that takes cards that were just entered from cards, and stored ones from tokens, which may be nil.
func New(cfg Config, cards *custody.Store, tokens *tokenization.Service) (*Connector, error) {
	if cards == nil {
		return nil, errors.New("stripe: no custody to take cards from")
	}
	c, err := newConnector(cfg)
	if err != nil {
		return nil, err
	}
	c.cards = lend.OfCustody(cards)
	if tokens != nil && lend.OfTokens != nil {
		c.tokens = lend.OfTokens(tokens)
	}
	return c, nil
}

func newConnector(cfg Config) (*Connector, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("stripe: the URL is that of an https host alone")
	}
	if cfg.Key.text == "" {
		return nil, errors.New("stripe: no secret key")
	}
	for _, d := range []struct {
		value   *time.Duration
		instead time.Duration
	}{{&cfg.AnswerTimeout, DefaultAnswerTimeout}, {&cfg.RepeatAfter, defaultRepeatAfter}, {&cfg.ProbeInterval, DefaultProbeInterval}} {
		if *d.value == 0 {
			*d.value = d.instead
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Connector{cfg: cfg, base: "https://" + u.Host, transport: &wire.Transport{TLS: cfg.TLS, DialTimeout: cfg.AnswerTimeout, MaxBody: maxAnswer + 1}}, nil
}

// Capabilities returns what Stripe does with cards. One capture ends an authorization.
func (c *Connector) Capabilities() pci.Capabilities {
	return pci.Capabilities{External3DS: true, ManualCapture: true, PartialCapture: true, Void: true, Refund: true, PartialRefund: true, RepeatRefund: true,
		Brands:     []pci.Brand{pci.Visa, pci.Mastercard, pci.Amex, pci.Discover, pci.Diners, pci.JCB, pci.UnionPay},
		Currencies: currencies, MaxMinor: 99_999_999} // eight digits: https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts
}

// Healthy reports whether Stripe has answered the last time that it was asked, and taken the key.
func (c *Connector) Healthy() bool { return c.healthy.Load() }

// Run looks at once, and again after a while, whether Stripe answers and takes the key, until ctx ends.
func (c *Connector) Run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.ProbeInterval)
	defer tick.Stop()
	for {
		before := c.Healthy()
		err := c.probe(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && !before {
			slog.InfoContext(ctx, "Stripe answers", "host", c.base)
		}
		if err != nil {
			slog.WarnContext(ctx, "Stripe does not serve", "host", c.base, "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Connector) probe(ctx context.Context) error {
	var found list[intent]
	err := c.get(ctx, pathIntents, url.Values{"limit": {"1"}}, &found)
	c.healthy.Store(err == nil)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	return nil
}
