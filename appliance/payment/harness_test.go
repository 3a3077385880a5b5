package payment

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/routing"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	origin     = "finpay.test/node/2026"
	publicURL  = "https://pay.example"
	terminal   = "TERM0001"
	otherShop  = "mer_other"
	ownShop    = "mer_own"
	session    = 30 * time.Minute
	maxTries   = 3
	patience   = 20 * time.Second // of a test for what must happen
	pollPeriod = time.Millisecond
)

// world is a service over a real ledger and a real database, between counterparties that do as they are told. It
// survives the service: a restart opens another one over the same directory.
type world struct {
	t        rapid.TB
	dir      string
	key      *signer
	clock    *clock
	cards    *cards
	issuer   *issuer
	acquirer *acquirer
	// connectors are used instead of acquirer alone, from the next start on.
	connectors []routing.Route
	cfg        Config // what a test changes of it holds from the next start on

	store     *store.Store
	ledger    *ledger.Ledger
	merchants *merchant.Service
	service   *Service
}

// newWorld starts a service with two merchants. The caller ends it with [world.end].
func newWorld(t rapid.TB, change func(*Config)) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "payment-test-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, key: newSigner(t), clock: &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.FixedZone("MYT", 8*3600))},
		cards: &cards{held: make(map[pci.CardRef]card), seen: make(map[pci.CardRef]bool), tokens: make(map[pci.Token]card)}}
	w.issuer, w.acquirer = &issuer{w: w}, &acquirer{w: w, can: able}
	w.cfg = Config{PublicURL: publicURL, Session: session, Attempts: maxTries, Challenge: time.Hour}
	if change != nil {
		change(&w.cfg)
	}
	w.open()
	for _, id := range []string{ownShop, otherShop} {
		m := store.Merchant{ID: id, Domain: id, Profile: pci.Merchant{ID: id, Name: "Pelangi Tea", TerminalID: terminal}}
		if _, err := w.merchants.Enter(context.Background(), ledger.Operator{Origin: "local"}, m); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// in makes a world that ends with the test.
func in(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := newWorld(t, change)
	t.Cleanup(w.end)
	return w
}

func (w *world) open() {
	w.t.Helper()
	ctx := context.Background()
	var err error
	if w.store, err = store.Open(ctx, w.dir); err != nil {
		w.t.Fatal(err)
	}
	if w.ledger, err = ledger.Open(ctx, w.store, ledger.Config{Origin: origin, Node: "node", Signer: w.key, Now: w.clock.Now}); err != nil {
		w.t.Fatal(err)
	}
	kek, err := subtle.NewAESGCM(make([]byte, 32))
	if err != nil {
		w.t.Fatal(err)
	}
	w.merchants = merchant.New(merchant.Config{Store: w.store, Ledger: w.ledger, APIKey: mac("apikey"), Return: mac("return"), KEK: kek, Now: w.clock.Now})
	cfg := w.cfg
	cfg.Store, cfg.Ledger, cfg.Merchants, cfg.Origins = w.store, w.ledger, w.merchants, mac("origin")
	cfg.Tokens, cfg.ThreeDS, cfg.Cards = w.cards, w.issuer, w.cards
	if cfg.Connectors, err = routing.New(w.routes()...); err != nil {
		w.t.Fatal(err)
	}
	cfg.Now = w.clock.Now
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	w.service = New(cfg)
}

// restart is a crash and the next process: what the service had in hand cannot be entered any more, and cards in
// custody are gone with their HSM session.
func (w *world) restart() {
	w.t.Helper()
	w.crash()
	w.open()
	if err := w.service.Recover(context.Background()); err != nil {
		w.t.Fatalf("recover: %v", err)
	}
}

func (w *world) crash() {
	w.ledger.Close()
	w.service.cancel()
	w.stop()
	if err := w.store.Close(); err != nil {
		w.t.Errorf("close the store: %v", err)
	}
	w.cards.gone()
}

// stop closes the service, unless the test has done so.
func (w *world) stop() {
	select {
	case <-w.service.closing:
	default:
		w.service.close()
	}
}

// end stops the service in order and holds the log against its key.
func (w *world) end() {
	w.t.Helper()
	w.acquirer.release()
	w.stop()
	w.ledger.Close()
	vkey := w.ledger.VerifierKey()
	verdict, err := audit.Verify(context.Background(), audit.Database{Store: w.store}, audit.Terms{Key: vkey})
	if err != nil || !verdict.OK {
		w.t.Errorf("the log does not verify: %+v, %v", verdict, err)
	}
	if n := w.cards.left(); n > 0 {
		w.t.Errorf("%d cards were never destroyed", n)
	}
	if err := errors.Join(w.store.Close(), os.RemoveAll(w.dir)); err != nil {
		w.t.Error(err)
	}
}

// until polls for what must happen.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("never: %s", what)
		}
	}
}

// routes are the connectors that are configured: one, unless a test wants others.
func (w *world) routes() []routing.Route {
	if w.connectors != nil {
		return w.connectors
	}
	return []routing.Route{{Name: "acquirer", Type: "iso8583", Connector: w.acquirer}}
}

var own = api.Caller{KeyID: "k", MerchantID: ownShop, Origin: "192.0.2.1"}

// create makes a payment and returns its id and session.
func (w *world) create() (id, secret string) {
	w.t.Helper()
	p, err := w.service.Create(context.Background(), own, order(), "")
	if err != nil {
		w.t.Fatalf("create: %v", err)
	}
	return p.ID, w.session(p.ID)
}

func order() api.CreatePayment {
	return api.CreatePayment{Amount: 1250, Currency: "EUR", Reference: "order-1", ReturnURL: "https://shop.example/thanks?cart=7&note=a+b", Capture: "automatic"}
}

// authorized makes a payment that its merchant captures, and has a card authorized for it.
func (w *world) authorized() (id string) {
	w.t.Helper()
	request := order()
	request.Capture = captureManual
	p, err := w.service.Create(context.Background(), own, request, "")
	if err != nil {
		w.t.Fatalf("create: %v", err)
	}
	w.paid(w.session(p.ID), card{})
	w.wantStatus(p.ID, api.StatusAuthorized)
	return p.ID
}

// modifications are those of a payment, oldest first.
func (w *world) modifications(id string) []store.Modification {
	w.t.Helper()
	list, err := w.store.Read(context.Background()).Modifications(id)
	if err != nil {
		w.t.Fatalf("modifications of %s: %v", id, err)
	}
	return list
}

func (w *world) session(id string) string {
	w.t.Helper()
	secret, _, err := w.merchants.Session(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return secret
}

// pay enters a card that behaves as told.
func (w *world) pay(secret string, c card) (api.CheckoutView, error) {
	return w.service.Pay(context.Background(), secret, w.cards.hold(c), entered(""), pci.Browser{IP: "198.51.100.7"})
}

// paid enters a card and fails the test if it cannot be entered.
func (w *world) paid(secret string, c card) api.CheckoutView {
	w.t.Helper()
	v, err := w.pay(secret, c)
	if err != nil {
		w.t.Fatalf("pay: %v", err)
	}
	return v
}

func entered(form string) pci.Entered { return pci.Entered{Card: visa, Name: "Aisyah Tan", Form: form} }

var visa = pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2030, Month: 1}}

func (w *world) payment(id string) store.Payment {
	w.t.Helper()
	p, err := w.store.Read(context.Background()).Payment(id)
	if err != nil {
		w.t.Fatalf("payment %s: %v", id, err)
	}
	return p
}

func (w *world) attempt(id string, n int) store.Attempt {
	w.t.Helper()
	a, err := w.store.Read(context.Background()).Attempt(id, n)
	if err != nil {
		w.t.Fatalf("attempt %s/%d: %v", id, n, err)
	}
	return a
}

func (w *world) wantStatus(id string, want api.Status) {
	w.t.Helper()
	if got := w.payment(id).Status; got != string(want) {
		w.t.Errorf("payment %s is %s, want %s", id, got, want)
	}
}

// entries returns what the log holds of a payment.
func (w *world) entries(id string) []ledger.Entry {
	w.t.Helper()
	rows, err := w.store.Read(context.Background()).LedgerEntriesOf(id)
	if err != nil {
		w.t.Fatal(err)
	}
	list := make([]ledger.Entry, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row.Entry, &list[i]); err != nil {
			w.t.Fatal(err)
		}
	}
	return list
}

// events are what a merchant will be told of a payment, by type.
func (w *world) events(id string) map[string]int {
	w.t.Helper()
	told, err := w.store.Read(context.Background()).Events(store.EventFilter{MerchantID: w.payment(id).MerchantID, PaymentID: id, Limit: 10_000})
	if err != nil {
		w.t.Fatal(err)
	}
	n := make(map[string]int)
	for _, e := range told {
		n[e.Type]++
	}
	return n
}

// agree holds a payment's rows against the entries that cover them: each change of status has an entry, each entry
// is a transition of the table, and the last hash of each row is that of the row as it is.
func (w *world) agree(id string) {
	w.t.Helper()
	p := w.payment(id)
	rows := make(map[string]string)
	status, told := "", make(map[string]int)
	for _, e := range w.entries(id) {
		if e.Type == "customer.forgotten" {
			continue // which is no part of the payment
		}
		at := store.Payment{ID: id, Status: status}
		if err := move(&at, e.Type); err != nil {
			w.t.Errorf("the log: %v", err)
		}
		if e.Data["status"] != at.Status {
			w.t.Errorf("%s after %q is entered as %v, want %q", e.Type, status, e.Data["status"], at.Status)
		}
		status = at.Status
		if eventTypes[e.Type] {
			told[eventName(e.Type)]++
		}
		for row, hash := range e.Rows {
			rows[row] = hash
		}
	}
	if status != p.Status {
		w.t.Errorf("payment %s is %s, its last entry says %s", id, p.Status, status)
	}
	if got := w.events(id); fmt.Sprint(got) != fmt.Sprint(told) {
		w.t.Errorf("payment %s: the outbox has %v, the log %v", id, got, told)
	}
	check := func(key string, row any) {
		hash, err := store.HashRow(row)
		if err != nil || rows[key] != hash {
			w.t.Errorf("row %s is not the one that its last entry covers (%v)", key, err)
		}
	}
	check("payments/"+id, p)
	for n := range p.Attempts {
		check(fmt.Sprintf("attempts/%s/%d", id, n+1), w.attempt(id, n+1))
	}
	for _, m := range w.modifications(id) {
		check("modifications/"+m.ID, m)
	}
}

// signer is a software key that can be told to fail.
type signer struct {
	*ecdsa.PrivateKey

	mu    sync.Mutex
	fails int // so many more signatures
}

func newSigner(t rapid.TB) *signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{PrivateKey: private}
}

func (s *signer) fail(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails = n
}

func (s *signer) Sign(_ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails > 0 {
		s.fails--
		return nil, errors.New("the HSM is away")
	}
	return s.PrivateKey.Sign(rand.Reader, digest, o)
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// mac is an HMAC key in memory.
type mac string

func (m mac) Sum(_ context.Context, message []byte) ([]byte, error) {
	h := hmac.New(sha256.New, []byte(m))
	_, _ = h.Write(message)
	return h.Sum(nil), nil
}

// card is what the counterparties do about a card.
type card struct {
	issuer   pci.AuthenticationOutcome // empty: authenticated
	method   bool                      // its range has a 3DS Method
	down     bool                      // nothing can be sent to the directory server
	acquirer pci.SaleOutcome           // empty: approved
	code     string                    // DE 39
	booked   bool                      // of an unknown outcome: the acquirer has approved all the same
	hold     bool                      // the acquirer's answer waits for [acquirer.release]
	soft     bool                      // the issuer declines the first sale for want of a challenge …
	second   pci.AuthenticationOutcome // … and answers so to the request for one; empty: with a challenge
}

// cards are custody and tokenizer.
type cards struct {
	mu     sync.Mutex
	held   map[pci.CardRef]card
	seen   map[pci.CardRef]bool
	tokens map[pci.Token]card
	fail   error // of the tokenizer
	n      int
}

func (c *cards) hold(behaviour card) pci.CardRef {
	c.mu.Lock()
	defer c.mu.Unlock()
	ref := pci.NewCardRef()
	c.held[ref] = behaviour
	return ref
}

func (c *cards) get(ref pci.CardRef) (card, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	behaviour, ok := c.held[ref]
	if !ok {
		return card{}, pci.ErrGone
	}
	return behaviour, nil
}

// behind returns the behaviour of a card in custody or behind a token.
func (c *cards) behind(ref pci.CardRef, token pci.Token) (card, error) {
	if token == "" {
		return c.get(ref)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	behaviour, ok := c.tokens[token]
	if !ok || !ref.IsZero() {
		return card{}, pci.ErrNotIssued
	}
	return behaviour, nil
}

// keep says what the counterparties do about a stored card from now on.
func (c *cards) keep(token pci.Token, behaviour card) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[token] = behaviour
}

func (c *cards) has(ref pci.CardRef) bool {
	_, err := c.get(ref)
	return err == nil
}

func (c *cards) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.held)
}

func (c *cards) gone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.held)
}

func (c *cards) Destroy(_ context.Context, ref pci.CardRef) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, ref)
	return nil
}

func (c *cards) Tokenize(_ context.Context, domain string, ref pci.CardRef, _ string) (pci.IssuedToken, bool, error) {
	behaviour, err := c.get(ref)
	if err != nil {
		return pci.IssuedToken{}, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return pci.IssuedToken{}, false, c.fail
	}
	c.n++
	token := pci.Token(fmt.Sprintf("9%015d", c.n))
	c.tokens[token] = behaviour
	return pci.IssuedToken{Domain: domain, Token: token, Format: "last4", KeyVersion: 1, Card: visa}, false, nil
}

// issuer is 3-D Secure.
type issuer struct {
	w  *world
	mu sync.Mutex
	on []pci.AuthenticationRequest
}

func (i *issuer) Method(_ context.Context, request pci.AuthenticationRequest, notificationURL string) (*pci.Method, error) {
	behaviour, err := i.w.cards.behind(request.Card, request.Token)
	if err != nil || !behaviour.method {
		return nil, err
	}
	return &pci.Method{URL: "https://bank.example/method", Data: notificationURL, ServerTransID: "method"}, nil
}

func (i *issuer) MethodTransID(data string) string { return data }

func (i *issuer) Authenticate(ctx context.Context, request pci.AuthenticationRequest) (pci.Authentication, error) {
	i.mu.Lock()
	i.on = append(i.on, request)
	i.mu.Unlock()
	behaviour, err := i.w.cards.behind(request.Card, request.Token)
	if err != nil {
		return pci.Authentication{}, err
	}
	if p := i.w.payment(request.Payment); p.Attempts > 0 && i.w.attempt(p.ID, p.Attempts).SoftDecline != "" {
		if request.Preference != pci.ChallengeMandated || request.Exemption != "" || request.Method != nil {
			i.w.t.Errorf("after a soft decline the issuer was asked with %q, %q, %v", request.Preference, request.Exemption, request.Method)
		}
		if behaviour.issuer = behaviour.second; behaviour.issuer == "" {
			behaviour.issuer = pci.ChallengeRequired
		}
	}
	if err := ctx.Err(); err != nil {
		return pci.Authentication{}, err
	}
	if behaviour.down {
		return pci.Authentication{}, pci.ErrUnavailable
	}
	result := pci.Authentication{Outcome: behaviour.issuer, TransStatus: "Y", ECI: "05", ServerTransID: "server", DSTransID: "ds"}
	if result.Outcome == "" {
		result.Outcome = pci.Authenticated
	}
	if result.Outcome == pci.ChallengeRequired {
		result.TransStatus, result.Challenge = "C", &pci.Challenge{ACSURL: "https://bank.example/acs", CReq: "e30"}
	}
	return result, nil
}

func (i *issuer) requests() []pci.AuthenticationRequest {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]pci.AuthenticationRequest(nil), i.on...)
}

var (
	yes = pci.Authentication{Outcome: pci.Authenticated, TransStatus: "Y", ECI: "05", ServerTransID: "server"}
	no  = pci.Authentication{Outcome: pci.AuthenticationNo, TransStatus: "N", ServerTransID: "server"}
)

// booking is a sale or an authorization as the acquirer knows it.
type booking struct {
	payment  string
	trace    pci.Trace
	mti      string
	amount   int64
	captured int64 // by an advice
	approved bool
	reversed bool
}

// refundBooking is a refund as the acquirer knows it.
type refundBooking struct {
	request  pci.RefundRequest
	approved bool
	reversed bool
}

// networkID is the scheme's identifier of every transaction.
const networkID = "NET0001"

// able is a connector that does what ISO 8583 does.
var able = pci.Capabilities{External3DS: true, ManualCapture: true, PartialCapture: true, Void: true, Refund: true, PartialRefund: true}

// acquirer keeps books, and looks into the database whether what it is sent was announced.
type acquirer struct {
	w *world

	mu        sync.Mutex
	books     []*booking
	sold      []pci.SaleRequest        // that left
	waiting   map[string]chan struct{} // sales whose answers are held, by payment
	reversals []pci.ReversalRequest
	captures  []pci.CaptureRequest
	refunds   []*refundBooking
	refund    card              // what becomes of the next ones
	slow      bool              // answers about modifications wait for [acquirer.release]
	advised   map[string]string // what became of captures, by STAN
	capture   string            // what becomes of the next ones: "" or "refused", "lost", "unsent"
	ack       bool              // of reversals
	lost      bool              // the reversal is done, its answer is lost
	reject    error             // of reversals: nothing was sent
	can       pci.Capabilities
	sick      bool
}

func (a *acquirer) Capabilities() pci.Capabilities {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.can
}

func (a *acquirer) Healthy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.sick
}

func (a *acquirer) Sale(ctx context.Context, request pci.SaleRequest) (pci.SaleResult, error) {
	return a.sell(ctx, request, "0200")
}

func (a *acquirer) Authorize(ctx context.Context, request pci.SaleRequest) (pci.SaleResult, error) {
	return a.sell(ctx, request, "0100")
}

func (a *acquirer) sell(ctx context.Context, request pci.SaleRequest, as string) (pci.SaleResult, error) {
	behaviour, err := a.w.cards.behind(request.Card, request.Token)
	if err != nil {
		return pci.SaleResult{Outcome: pci.Unsent}, err
	}
	p, a1 := a.w.payment(request.Payment), store.Attempt{}
	if p.Attempts > 0 {
		a1 = a.w.attempt(request.Payment, p.Attempts)
	}
	if a1.Status != attemptAuthorizing || p.Status != string(api.StatusAuthorizing) || a1.Trace.STAN != request.Trace.STAN || request.Trace.STAN == "" {
		a.w.t.Errorf("a sale with STAN %q left while the database says: payment %s, attempt %s, STAN %q", request.Trace.STAN, p.Status, a1.Status, a1.Trace.STAN)
	}
	second, stored := a1.SoftDecline != "", a1.Initiator != ""
	if request.Initiator != a1.Initiator || request.Entered != (second && !stored) || (request.Token != "") != (second || stored) ||
		second && request.Authentication.Outcome != pci.Authenticated || stored && request.Token != p.Token {
		a.w.t.Errorf("a sale of token %q by %q, entered %v, %s, for an attempt by %q after soft decline %q",
			request.Token, request.Initiator, request.Entered, request.Authentication.Outcome, a1.Initiator, a1.SoftDecline)
	}
	if as != mti(p) {
		a.w.t.Errorf("a payment with captures %s was sent as %s", p.Capture, as)
	}
	outcome, soft := behaviour.acquirer, behaviour.soft && !second
	switch {
	case soft:
		outcome = pci.Refused
	case outcome == pci.Unsent:
		return pci.SaleResult{Outcome: pci.Unsent}, errors.New("the line is down")
	case outcome == "":
		outcome = pci.Approved
	}
	a.mu.Lock()
	a.sold = append(a.sold, request)
	a.books = append(a.books, &booking{payment: request.Payment, trace: request.Trace, mti: as, amount: request.Amount.Minor, approved: outcome == pci.Approved || outcome == pci.Unknown && behaviour.booked})
	held := make(chan struct{})
	if behaviour.hold {
		if a.waiting == nil {
			a.waiting = make(map[string]chan struct{})
		}
		a.waiting[request.Payment] = held
	}
	a.mu.Unlock()
	if behaviour.hold {
		select {
		case <-held:
		case <-ctx.Done():
			return pci.SaleResult{Outcome: pci.Unknown}, ctx.Err()
		}
	}
	switch outcome {
	case pci.Approved:
		return pci.SaleResult{Outcome: outcome, ResponseCode: "00", ApprovalCode: "123456", NetworkID: networkID}, nil
	case pci.Unknown:
		return pci.SaleResult{Outcome: outcome}, errors.New("no answer")
	}
	if soft {
		return pci.SaleResult{Outcome: outcome, ResponseCode: "1A", Authenticate: true}, nil
	}
	return pci.SaleResult{Outcome: outcome, ResponseCode: behaviour.code}, nil
}

// announced holds a modification that was sent against the database.
func (a *acquirer) announced(id, kind string, trace pci.Trace) {
	for _, m := range a.w.modifications(id) {
		if m.Kind == kind && m.Trace.STAN == trace.STAN && m.Open() {
			return
		}
	}
	a.w.t.Errorf("a %s with STAN %q of payment %s left, and the database does not say so", kind, trace.STAN, id)
}

func (a *acquirer) Capture(ctx context.Context, request pci.CaptureRequest) (bool, error) {
	a.announced(request.Payment, store.ModificationCapture, request.Trace)
	booked, err := a.takeCapture(request)
	if !a.linger(ctx, request.Trace) {
		return false, acquiring.ErrNoAnswer
	}
	return booked, err
}

// linger holds an answer about a modification, if the acquirer is slow, and reports whether somebody still waits for it.
func (a *acquirer) linger(ctx context.Context, trace pci.Trace) bool {
	a.mu.Lock()
	if !a.slow {
		a.mu.Unlock()
		return true
	}
	if a.waiting == nil {
		a.waiting = make(map[string]chan struct{})
	}
	held := make(chan struct{})
	a.waiting["modification "+trace.STAN] = held
	a.mu.Unlock()
	select {
	case <-held:
		return true
	case <-ctx.Done():
		return false
	}
}

// lingering counts the answers about modifications that are held.
func (a *acquirer) lingering() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range a.waiting {
		if strings.HasPrefix(name, "modification ") {
			n++
		}
	}
	return n
}

func (a *acquirer) takeCapture(request pci.CaptureRequest) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.captures = append(a.captures, request)
	if a.capture == "unsent" {
		return false, acquiring.ErrOffline
	}
	became, again := a.advised[request.Trace.STAN]
	if again && !request.Repeat {
		a.w.t.Errorf("a capture of payment %s was sent again, and not as a repeat", request.Payment)
	}
	if !again {
		became = a.bookCapture(request)
	}
	switch {
	case a.capture == "lost":
		return false, acquiring.ErrNoAnswer
	case became == "refused":
		return false, fmt.Errorf("code 13: %w", pci.ErrRefused)
	}
	return true, nil
}

// bookCapture books a capture of an authorization that stands.
func (a *acquirer) bookCapture(request pci.CaptureRequest) (became string) {
	became = "refused"
	if a.capture != "refused" {
		for _, b := range a.books {
			if b.trace.STAN == request.Original.STAN && b.mti == "0100" && b.approved && !b.reversed && b.captured+request.Amount.Minor <= b.amount {
				b.captured += request.Amount.Minor
				became = "booked"
			}
		}
		if became == "refused" {
			a.w.t.Errorf("a capture of payment %s finds nothing to capture", request.Payment)
		}
	}
	if a.advised == nil {
		a.advised = make(map[string]string)
	}
	a.advised[request.Trace.STAN] = became
	return became
}

func (a *acquirer) Refund(ctx context.Context, request pci.RefundRequest) (pci.SaleResult, error) {
	a.announced(request.Payment, store.ModificationRefund, request.Trace)
	result, err := a.takeRefund(request)
	if !a.linger(ctx, request.Trace) {
		return pci.SaleResult{Outcome: pci.Unknown}, acquiring.ErrNoAnswer
	}
	return result, err
}

func (a *acquirer) takeRefund(request pci.RefundRequest) (pci.SaleResult, error) {
	left := a.moved(request.Payment)
	a.mu.Lock()
	defer a.mu.Unlock()
	behaviour := a.refund
	if behaviour.acquirer == pci.Unsent {
		return pci.SaleResult{Outcome: pci.Unsent}, acquiring.ErrOffline
	}
	for _, r := range a.refunds {
		if r.request.Trace.STAN == request.Trace.STAN {
			a.w.t.Errorf("a refund of payment %s was sent twice", request.Payment)
		}
	}
	approved := behaviour.acquirer == "" || behaviour.acquirer == pci.Unknown && behaviour.booked
	if approved && request.Amount.Minor > left {
		a.w.t.Errorf("a refund of %d of payment %s, of which %d is left", request.Amount.Minor, request.Payment, left)
	}
	a.refunds = append(a.refunds, &refundBooking{request: request, approved: approved})
	switch {
	case behaviour.acquirer == pci.Unknown:
		return pci.SaleResult{Outcome: pci.Unknown}, acquiring.ErrNoAnswer
	case approved:
		return pci.SaleResult{Outcome: pci.Approved, ResponseCode: "00", ApprovalCode: "654321"}, nil
	}
	return pci.SaleResult{Outcome: pci.Refused, ResponseCode: "05"}, nil
}

// takeBack reverses a refund.
func (a *acquirer) takeBack(request pci.ReversalRequest) {
	for _, r := range a.refunds {
		if r.request.Trace.STAN == request.Original.STAN && r.request.Payment == request.Payment {
			r.reversed = true
		}
	}
}

func (a *acquirer) Reverse(_ context.Context, request pci.ReversalRequest) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reversals = append(a.reversals, request)
	if a.reject != nil {
		return false, a.reject
	}
	if (a.ack || a.lost) && request.Refund {
		a.takeBack(request)
	}
	if (a.ack || a.lost) && !request.Refund {
		for _, b := range a.books {
			if b.payment == request.Payment && b.trace.STAN == request.Original.STAN {
				if b.captured > 0 || request.OriginalMTI != b.mti {
					a.w.t.Errorf("a reversal of %s for a %s that is captured with %d", request.OriginalMTI, b.mti, b.captured)
				}
				b.reversed = true
			}
		}
	}
	if a.lost {
		return false, errors.New("no answer to the reversal")
	}
	return a.ack, nil
}

// release lets held answers go.
func (a *acquirer) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, held := range a.waiting {
		close(held)
		delete(a.waiting, id)
	}
}

func (a *acquirer) holds(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.waiting[id]
	return ok
}

// charged counts the sales of a payment that are approved and not reversed.
func (a *acquirer) charged(id string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.books {
		if b.payment == id && b.approved && !b.reversed {
			n++
		}
	}
	return n
}

// moved is the money of a payment that moved and was not given back.
func (a *acquirer) moved(id string) (sum int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.books {
		switch {
		case b.payment != id || !b.approved || b.reversed:
		case b.mti == "0200":
			sum += b.amount
		default:
			sum += b.captured
		}
	}
	for _, r := range a.refunds {
		if r.request.Payment == id && r.approved && !r.reversed {
			sum -= r.request.Amount.Minor
		}
	}
	return sum
}

func (a *acquirer) sales(id string) (list []pci.Trace) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.books {
		if b.payment == id {
			list = append(list, b.trace)
		}
	}
	return list
}

func (a *acquirer) set(change func(*acquirer)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}
