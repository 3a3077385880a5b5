// Package acquiring speaks with an acquirer over ISO 8583: it authorizes, sells, captures, refunds, reverses and
// reconciles, in the editions of 1987 and 1993.
//
// A [Connector] keeps one connection to the acquirer's host: [Connector.Run] dials, signs on, tests the line when it
// is idle, and dials again when it breaks. Its other methods may be called from any number of goroutines; their requests
// share the connection and are matched with their answers by type, trace number and terminal.
//
//	Authorize  0100  1100  once; unknown outcome: Reverse
//	Sale       0200  1200  once; unknown outcome: Reverse
//	Refund     0200  1200  once; unknown outcome: Reverse
//	Capture    0220  1220  an advice, repeated (0221, 1221) until it is acknowledged or refused
//	Reverse    0400  1420  repeated (0401, 1421) until it is acknowledged; of an authorization it is a void
//	Reconcile  0500  1500  may be sent again
//
// What the host asks of its own accord is answered: sign-on, sign-off, echo test and cutover with yes, everything else with
// 40. Cutovers and refused key changes are told to [Config.Events].
//
// # What is promised
//
// A sale, an authorization or a refund is sent at most once. Its outcome is [pci.Unsent] only if not a byte of it left
// this machine; whatever happens after the first byte without an answer that fits the request is [pci.Unknown], and must be
// reversed. An answer whose reference, amount or currency is not the request's settles nothing: it is counted and
// dropped, as are late and repeated answers.
//
// PAN and security code go from locked memory into a message that is built in locked memory, leave in one write,
// and are wiped before the answer is awaited. Answers are read into locked memory, and what they may echo of
// the card is wiped before anything else looks at them. With TLS (1.2, see package wire), records are sealed from there, and
// what was opened is wiped by package wire. Errors and logs carry no card data.
//
// # What is not
//
// Requests are not queued: without a connection a sale is refused at once. Repeating captures and reversals until they
// are acknowledged, also after a crash, is the caller's. Keys are not exchanged with the host, and messages have no MAC.
package acquiring

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/tokenization"
)

// Errors of requests. They say why an outcome is [pci.Unsent] or [pci.Unknown].
var (
	// ErrOffline means that there is no signed-on connection to the acquirer. Nothing was sent.
	ErrOffline = errors.New("acquiring: no connection to the acquirer")
	// ErrInFlight means that a request with this trace number and terminal is still waiting. Nothing was sent.
	ErrInFlight = errors.New("acquiring: a request with this trace is in flight")
	// ErrNoAnswer means that no fitting answer came in time.
	ErrNoAnswer = errors.New("acquiring: the acquirer did not answer")
	// ErrBroken means that the connection ended before an answer came.
	ErrBroken = errors.New("acquiring: the connection broke")
	// ErrUnclear means that an answer came which neither approves nor declines.
	ErrUnclear = errors.New("acquiring: the answer leaves the outcome open")
)

// Defaults of a [Config].
const (
	DefaultConnectTimeout = 10 * time.Second
	DefaultAnswerTimeout  = 15 * time.Second
	DefaultEchoInterval   = time.Minute
	DefaultReconnectMin   = 200 * time.Millisecond
	DefaultReconnectMax   = 30 * time.Second
)

// Config says how to reach an acquirer and how it speaks. Zero durations mean the defaults.
type Config struct {
	Address string      // host:port
	TLS     *tls.Config // nil means plain TCP, which is for a private line only

	Spec   string // "ascii1987", "binary1987", "ascii1993" or "binary1993"
	Header string // "binary2" (also if empty), "ascii4" or "bcd2"

	ConnectTimeout time.Duration // to dial, including TLS
	AnswerTimeout  time.Duration // from a request's last byte to its answer; also bounds a write
	EchoInterval   time.Duration // silence after which the line is tested (0800); negative: never
	ReconnectMin   time.Duration // first wait after a broken connection; it doubles
	ReconnectMax   time.Duration // longest wait

	SignOn     bool   // sign on (0800) before anything else, sign off at the end
	AcquirerID string // DE 32, up to 11 digits; empty means the merchant's AcquirerBIN

	// MatchTerminal makes the terminal (DE 41) a part of what an answer is matched by, for hosts where trace
	// numbers are unique per terminal only. Such a host must echo DE 41.
	MatchTerminal bool

	Additional Additional

	// SoftDeclines are the response codes (DE 39), or action codes of the edition of 1993, by which the issuer declines because it
	// wants the cardholder authenticated. They are the schemes' own.
	SoftDeclines []string

	// EntryMode and StoredEntryMode are DE 22 of a card that was entered and of a stored credential. Empty means key entry
	// and credential on file: "010" and "100" in the edition of 1987, "000010100000" and "000040100000" in that of 1993.
	EntryMode       string
	StoredEntryMode string

	// Events is told what the acquirer says of its own accord; nil for nobody. It is called by the connection's reader,
	// and must not wait.
	Events func(Event)
}

// Stats is what a [Connector] has seen since it was made.
type Stats struct {
	Connected  bool
	InFlight   int    // requests that wait for an answer
	Reconnects uint64 // connections after the first one
	Late       uint64 // answers to requests that were given up
	Duplicate  uint64 // answers to requests that had one
	Mismatched uint64 // answers with another reference, amount or currency than their request
	Unmatched  uint64 // answers to no request that is remembered
	Garbled    uint64 // messages that are not of the spec, or lack a response code
}

// Connector speaks with one acquirer. It is safe for concurrent use.
type Connector struct {
	cfg        Config
	spec       *iso8583.Spec
	header     iso8583.Header
	additional layout
	cards      lend.Custody
	tokens     lend.Tokens // nil where reversals cannot be sent
	running    atomic.Bool

	flights    *flights
	stan       atomic.Uint32 // of network management messages
	reconnects atomic.Uint64
	garbled    atomic.Uint64

	mu   sync.Mutex
	line *line // signed on; nil when there is none
}

// New returns a connector that takes cards that were just entered from cards and all others from tokens, which may be nil
// where nothing but sales is sent. Its owner runs [Connector.Run].
func New(cfg Config, cards *custody.Store, tokens *tokenization.Service) (*Connector, error) {
	if cards == nil {
		return nil, errors.New("acquiring: no custody to take cards from")
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
	if cfg.Address == "" {
		return nil, errors.New("acquiring: no address of the acquirer")
	}
	spec, err := iso8583.SpecNamed(cfg.Spec)
	if err != nil {
		return nil, fmt.Errorf("acquiring: %w", err)
	}
	header, err := iso8583.HeaderNamed(cfg.Header)
	if err != nil {
		return nil, fmt.Errorf("acquiring: %w", err)
	}
	if len(cfg.AcquirerID) > 11 || !isDigits(cfg.AcquirerID) {
		return nil, errors.New("acquiring: the acquirer id (DE 32) is up to 11 digits")
	}
	additional, err := cfg.Additional.layout(spec)
	if err != nil {
		return nil, err
	}
	for _, code := range cfg.SoftDeclines {
		if !isDenial(code) {
			return nil, fmt.Errorf("acquiring: soft decline %q is neither a response code nor an action code of a denial", code)
		}
	}
	if !isEntryMode(spec, cfg.EntryMode) || !isEntryMode(spec, cfg.StoredEntryMode) {
		return nil, fmt.Errorf("acquiring: an entry mode (DE 22) is %d characters of kind %s in %s", spec.Fields[22].Max, spec.Fields[22].Kind, spec.Name)
	}
	c := &Connector{cfg: cfg.withDefaults(), spec: spec, header: header, additional: additional, flights: newFlights()}
	// Any start is as good; a random one keeps a restart from repeating the last numbers.
	c.stan.Store(rand.Uint32N(1_000_000))
	return c, nil
}

// isDenial reports whether a code can decline: two characters of the edition of 1987, or 1xx and 2xx of 1993. None may be one
// that leaves the outcome open.
func isDenial(code string) bool {
	switch len(code) {
	case 2:
		result, err := resultOf(sale, answer{code: code})
		return err == nil && result.Outcome == pci.Refused
	case 3:
		return isDigits(code) && (code[0] == '1' || code[0] == '2')
	}
	return false
}

// isEntryMode reports whether mode is empty or may be DE 22.
func isEntryMode(spec *iso8583.Spec, mode string) bool {
	w := iso8583.NewWriter(spec, make([]byte, 0, 64), string(spec.Version)+"200")
	optional(&w, 22, mode)
	_, err := w.Finish()
	return err == nil && (mode == "" || len(mode) == spec.Fields[22].Max)
}

func (cfg Config) withDefaults() Config {
	for _, d := range []struct {
		value   *time.Duration
		instead time.Duration
	}{
		{&cfg.ConnectTimeout, DefaultConnectTimeout},
		{&cfg.AnswerTimeout, DefaultAnswerTimeout},
		{&cfg.EchoInterval, DefaultEchoInterval},
		{&cfg.ReconnectMin, DefaultReconnectMin},
		{&cfg.ReconnectMax, DefaultReconnectMax},
	} {
		if *d.value == 0 {
			*d.value = d.instead
		}
	}
	return cfg
}

// Capabilities returns what the messages of this package can carry. Which of it the acquirer serves is a matter of its contract,
// and of the configuration's conditions.
func (c *Connector) Capabilities() pci.Capabilities {
	return pci.Capabilities{External3DS: true, ManualCapture: true, PartialCapture: true, Void: true, Refund: true, PartialRefund: true,
		Reconciliation: true, MaxMinor: maxAmount}
}

// Healthy reports whether a sale could be sent now.
func (c *Connector) Healthy() bool { return c.current() != nil }

// Stats returns the counters.
func (c *Connector) Stats() Stats {
	s := c.flights.stats()
	s.Connected = c.Healthy()
	s.Reconnects = c.reconnects.Load()
	s.Garbled = c.garbled.Load()
	return s
}

// current returns the line that requests may use, nil when there is none. One that broke is none, whether or not Run
// has seen it.
func (c *Connector) current() *line {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line != nil && c.line.broken() {
		return nil
	}
	return c.line
}

func (c *Connector) use(l *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = l
}

// exchange sends the message that build appends to its argument, and waits for the answer to q. sent is false only
// when certainly not a byte of it left.
func (c *Connector) exchange(ctx context.Context, l *line, q query, build builder) (a answer, sent bool, err error) {
	waiting, err := c.flights.begin(q)
	if err != nil {
		return answer{}, false, err
	}
	defer c.flights.giveUp(q.key)
	if sent, err = l.transmit(ctx, build); err != nil {
		return answer{}, sent, err
	}
	timeout := time.NewTimer(c.cfg.AnswerTimeout)
	defer timeout.Stop()
	select {
	case a = <-waiting:
		return a, true, nil
	case <-l.done:
		// The answer may have been the last message before the end.
		select {
		case a = <-waiting:
			return a, true, nil
		default:
			return answer{}, true, fmt.Errorf("%w: %w", ErrBroken, l.err)
		}
	case <-timeout.C:
		return answer{}, true, ErrNoAnswer
	case <-ctx.Done():
		return answer{}, true, fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx))
	}
}
