// Package threeds is the 3DS Server of EMV 3-D Secure 2.2.0 and 2.3.1: browser channel (deviceChannel 02), payment
// authentication (messageCategory 01). What is spoken about a card is the newest version that its range, the directory server and
// [Config.Versions] share, in every message of the authentication.
//
// [Server.Method] says what the browser shows before, where the card's range has a 3DS Method. [Server.Authenticate] asks the directory server (AReq/ARes) and says what may follow. Where the issuer wants to
// see the shopper, it returns a [pci.Challenge] for the browser, and the verdict comes later from the directory
// server as an RReq, to [Server.ResultsHandler]. [Server.Run] keeps the card ranges of the directory server
// (PReq/PRes). Messages carry the standard's names; section and table numbers in this package are those of "EMV 3-D
// Secure Protocol and Core Functions Specification" 2.2.0, where nothing else is said.
//
// # What is promised
//
// The PAN goes from custody to the wire through locked memory: it is in no string, in no buffer of the JSON
// encoder, and, with [wire.Transport], in none of net/http. A CVV goes the same way, to ranges of 2.3.1 and where
// [Config.CardSecurityCode] says so; else it is never read. An answer that echoes them is masked
// before it is parsed. What cannot be understood never authenticates anybody: the outcome is
// [pci.AuthenticationDown] or [pci.AuthenticationNo]. What comes through the browser (CRes) is evidence only.
//
// # What is not
//
// Open challenges are in memory: after a restart the directory server's RReq is answered with error 301, and the
// payment has to expire or be authenticated again.
// The app channel, 3RI, decoupled authentication and Secure Payment Confirmation are not spoken: an issuer that answers with one
// of them is told of its error, and the cardholder is refused.
package threeds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/pci/tokenization"
)

// Policy says what to do with a card that is in no range of the directory server.
type Policy string

// Policies for unknown ranges.
const (
	Proceed Policy = "proceed" // the outcome is [pci.NotEnrolled]: authorize without 3-D Secure
	Refuse  Policy = "refuse"  // the outcome is [pci.AuthenticationNo]
)

// Defaults of [Config].
const (
	DefaultAuthenticationTimeout = 10 * time.Second
	DefaultRangesTimeout         = time.Minute
	DefaultChallengeTimeout      = 15 * time.Minute
	DefaultRefresh               = time.Hour
	DefaultChallenges            = 10_000
)

// Timeouts bounds how long the server waits. Zero means the default.
type Timeouts struct {
	Authentication time.Duration // for an ARes, connection included
	Ranges         time.Duration // for a PRes, which may be large
	Challenge      time.Duration // for the RReq after an ARes with transStatus C
	Refresh        time.Duration // between two refreshes of the card ranges
}

// Config is what a [Server] needs to know.
type Config struct {
	// DirectoryServer is the https URL that AReq, PReq and Erro messages are posted to.
	DirectoryServer string
	// Client speaks mutual TLS with the directory server. Its transport should be a [wire.Transport]: the one of
	// net/http keeps the last request, digits included, in its write buffer. Redirects are not followed.
	Client *http.Client
	// ResultsURL is threeDSServerURL: where the directory server reaches [Server.ResultsHandler]. https.
	ResultsURL string
	// ServerRefNumber is threeDSServerRefNumber, given by EMVCo; 1 to 32 characters.
	ServerRefNumber string
	// OperatorID is threeDSServerOperatorID, given by the directory server; at most 32 characters, may be empty.
	OperatorID string
	Timeouts   Timeouts
	// UnknownRange is [Proceed] when empty.
	UnknownRange Policy
	// ChallengeWindowSize is 01 (250x400) to 05 (full screen), as in table A.1. Empty: 03 (500x600), the frame of the
	// checkout page, where its script runs on a screen that has the room, else 05.
	ChallengeWindowSize string
	// Challenges is how many challenges may be open at once; more get [pci.ErrFull].
	Challenges int
	// Versions are those to speak, of [Versions]. Empty means all.
	Versions []string
	// CardSecurityCode sends the CVV to ranges of 2.3.1, which leave it to the directory server whether they want it.
	CardSecurityCode bool
	// AcquirerCountry is acquirerCountryCode, ISO 3166-1 numeric: 2.3.1 wants it where that is not the merchant's. May be empty.
	AcquirerCountry string
	// AllowHTTP lets a trial's ACS have an http URL. Never set it where real cards are.
	AllowHTTP bool
	Now       func() time.Time // nil means [time.Now]
}

// Server is a 3DS Server. It is safe for concurrent use.
type Server struct {
	cfg        Config
	client     *http.Client
	versions   versionSet
	cards      lend.Custody
	tokens     lend.Tokens                // nil where stored credentials cannot be authenticated
	ranges     atomic.Pointer[rangeTable] // nil until a first PRes was accepted
	refreshing sync.Mutex
	challenges *challenges
}

// New checks cfg and returns a server that takes cards that were just entered from cards and stored ones from tokens,
// which may be nil where there are none. Its owner runs [Server.Run].
func New(cfg Config, cards *custody.Store, tokens *tokenization.Service) (*Server, error) {
	if cards == nil {
		return nil, errors.New("threeds: no custody to take cards from")
	}
	var stored lend.Tokens
	if tokens != nil {
		stored = lend.OfTokens(tokens)
	}
	return newServer(cfg, lend.OfCustody(cards), stored)
}

func newServer(cfg Config, cards lend.Custody, tokens lend.Tokens) (*Server, error) {
	cfg.applyDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	versions, err := parseVersions(cfg.Versions)
	if err != nil {
		return nil, err
	}
	// A redirect would make the client repeat the message elsewhere, or turn it into a GET.
	client := *cfg.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Server{cfg: cfg, client: &client, versions: versions, cards: cards, tokens: tokens, challenges: newChallenges(cfg.Challenges, cfg.Now)}, nil
}

func (c *Config) applyDefaults() {
	orDuration := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	orDuration(&c.Timeouts.Authentication, DefaultAuthenticationTimeout)
	orDuration(&c.Timeouts.Ranges, DefaultRangesTimeout)
	orDuration(&c.Timeouts.Challenge, DefaultChallengeTimeout)
	orDuration(&c.Timeouts.Refresh, DefaultRefresh)
	if c.UnknownRange == "" {
		c.UnknownRange = Proceed
	}
	if c.Challenges == 0 {
		c.Challenges = DefaultChallenges
	}
	if len(c.Versions) == 0 {
		c.Versions = Versions
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

func (c *Config) check() error {
	if c.Client == nil {
		return errors.New("threeds: an HTTP client for the directory server is missing")
	}
	if err := checkURL(c.DirectoryServer, false); err != nil {
		return fmt.Errorf("threeds: directory server URL: %w", err)
	}
	if err := checkURL(c.ResultsURL, false); err != nil {
		return fmt.Errorf("threeds: results URL: %w", err)
	}
	if n := len(c.ServerRefNumber); n < 1 || n > 32 {
		return errors.New("threeds: the 3DS Server reference number has 1 to 32 characters")
	}
	if len(c.OperatorID) > 32 {
		return errors.New("threeds: the 3DS Server operator id has at most 32 characters")
	}
	if c.UnknownRange != Proceed && c.UnknownRange != Refuse {
		return fmt.Errorf("threeds: unknown range policy %q is neither %q nor %q", c.UnknownRange, Proceed, Refuse)
	}
	if c.AcquirerCountry != "" && !isDigits(c.AcquirerCountry, 3, 3) {
		return fmt.Errorf("threeds: acquirer country %q is not three digits", c.AcquirerCountry)
	}
	if s := c.ChallengeWindowSize; s != "" && (len(s) != 2 || s < "01" || s > "05") {
		return fmt.Errorf("threeds: challenge window size %q is not 01 to 05", s)
	}
	return nil
}

// checkURL wants an absolute https URL of at most 2,048 characters.
func checkURL(s string, allowHTTP bool) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || len(s) > 2048 {
		return errors.New("not an absolute URL")
	}
	if u.Scheme != "https" && (!allowHTTP || u.Scheme != "http") {
		return errors.New("not an https URL")
	}
	return nil
}

// Authenticate asks for a payment authentication. Whatever the directory server does gives an outcome and no
// error; errors are [pci.ErrGone], [pci.ErrNotIssued], [pci.ErrUnavailable], [pci.ErrFull], [ErrCard] and [*IncompleteError],
// and then nothing was sent.
func (s *Server) Authenticate(ctx context.Context, req pci.AuthenticationRequest) (pci.Authentication, error) {
	if !s.challenges.reserve() {
		return pci.Authentication{}, fmt.Errorf("threeds: too many open challenges: %w", pci.ErrFull)
	}
	defer s.challenges.unreserve()

	areq, err := s.newAReq(req)
	if err != nil {
		return pci.Authentication{}, err
	}
	message, found, err := s.compose(ctx, req, areq)
	if err != nil {
		return pci.Authentication{}, fmt.Errorf("threeds: authenticate %s: %w", req.Payment, err)
	}
	if message == nil {
		return s.withoutDirectory(ctx, req.Payment, found), nil
	}
	defer message.Wipe()
	return s.ask(ctx, req, areq.ThreeDSServerTransID, found.version, message), nil
}

// compose borrows the card, looks its range up and writes the AReq. The message is nil where none is to be sent.
func (s *Server) compose(ctx context.Context, req pci.AuthenticationRequest, areq *areq) (*pan.Message, enrolment, error) {
	var (
		m     *pan.Message
		found enrolment
	)
	err := s.lend(ctx, req, func(card *pan.Card) error {
		found = s.lookUp(card)
		if found.status == outsideRanges || found.status == otherVersion {
			return nil
		}
		areq.speak(found.version, req, s.cfg.AcquirerCountry, s.cfg.Now())
		areq.ThreeDSCompInd = found.compInd(req.MethodDone)
		areq.CardExpiryDate = card.Expiry().YYMM()
		var err error
		m, err = newMessage(areq, card, s.cfg.CardSecurityCode && found.version >= v231)
		return err
	})
	if err != nil && m != nil {
		m.Wipe()
		m = nil
	}
	return m, found, err
}

func (s *Server) withoutDirectory(ctx context.Context, payment string, found enrolment) pci.Authentication {
	if found.status == otherVersion {
		slog.WarnContext(ctx, "the card's range speaks no version of EMV 3DS that is spoken here", "payment", payment)
		return pci.Authentication{Outcome: pci.AuthenticationDown}
	}
	if s.cfg.UnknownRange == Refuse {
		return pci.Authentication{Outcome: pci.AuthenticationNo}
	}
	return pci.Authentication{Outcome: pci.NotEnrolled}
}

// ask sends the AReq and judges the answer.
func (s *Server) ask(ctx context.Context, req pci.AuthenticationRequest, serverTransID string, v version, m *pan.Message) pci.Authentication {
	payment := req.Payment
	down := pci.Authentication{Outcome: pci.AuthenticationDown, Version: v.String(), ServerTransID: serverTransID}
	sending, cancel := context.WithTimeout(ctx, s.cfg.Timeouts.Authentication)
	defer cancel()
	answer := make([]byte, maxAnswer)
	defer clear(answer)
	n, err := s.post(sending, m.Body(), int64(m.Len()), answer)
	m.Mask(answer) // even a failed answer, before anyone reads it
	if err != nil {
		slog.ErrorContext(ctx, "the directory server gave no usable answer to an AReq", "payment", payment, "error", err)
		return down
	}
	result, err := s.versions.parseARes(answer[:n], serverTransID, v)
	if err != nil {
		slog.ErrorContext(ctx, "the directory server's ARes is not usable", "payment", payment, "error", err)
		s.reportFault(ctx, err, messageARes, result.identifiers, v)
		if refuses(answer[:n]) {
			down.Outcome = pci.AuthenticationNo
		}
		return down
	}
	return s.conclude(ctx, req, result, v)
}

// conclude turns a valid ARes into an outcome, and remembers a challenge.
func (s *Server) conclude(ctx context.Context, req pci.AuthenticationRequest, a ares, v version) pci.Authentication {
	payment := req.Payment
	auth := a.verdict(ctx, payment, req.Exempt())
	if auth.Outcome != pci.ChallengeRequired {
		return auth
	}
	if err := checkURL(a.ACSURL, s.cfg.AllowHTTP); err != nil {
		slog.ErrorContext(ctx, "the ACS's URL is refused", "payment", payment, "error", err)
		s.reportFault(ctx, &fault{code: codeFormat, detail: "acsURL"}, messageARes, a.identifiers, v)
		auth.Outcome = pci.AuthenticationDown
		return auth
	}
	auth.Challenge = &pci.Challenge{ACSURL: a.ACSURL, CReq: encodeCReq(a, s.windowSize(req.Browser))}
	s.challenges.open(payment, a.identifiers, v, s.cfg.Now().Add(s.cfg.Timeouts.Challenge))
	return auth
}

// frameWidth is the width of the challenge's frame on the checkout page, and 03's, with what stands around it, in pixels.
const frameWidth = 600

// windowSize is challengeWindowSize for a browser.
func (s *Server) windowSize(b pci.Browser) string {
	if s.cfg.ChallengeWindowSize != "" {
		return s.cfg.ChallengeWindowSize
	}
	if width, err := strconv.Atoi(b.ScreenWidth); err == nil && b.JavaScript && width >= frameWidth {
		return "03"
	}
	return "05"
}

// newTransID returns an id in the canonical form of RFC 4122, as table A.1 asks for.
func newTransID() string { return uuid.NewString() }
