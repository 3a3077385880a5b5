// Package payment is the payment state machine: it decides, and it commits each step with a signed entry before the
// outside world is asked for the next.
//
// A payment is created by a merchant and paid by a shopper in one or more attempts, a card each. An attempt is
// authenticated (3-D Secure), then sold (acquirer). Both are reached through small interfaces that name a card by
// reference; no digit passes through here.
//
// # What is promised
//
//   - No sale leaves before the entry that announces it, and names its connector, is signed and durable. What follows a sale goes
//     to the connector of that sale, and nowhere else.
//   - A payment is charged at most once: after a sale whose outcome is unknown nothing is sent but its reversal. Another
//     connector is asked only where certainly nothing left for the one before.
//   - After a crash every unfinished attempt is resolved on start: what was never sent is abandoned and the shopper
//     asked again, what may have been sent is reversed.
//   - A card is destroyed when its attempt ends, whatever the outcome.
//
// Where captures are manual, an attempt ends authorized, and its merchant captures or voids it. A capture, void or refund is
// a modification: a row with a trace of its own, announced by a signed entry before anything leaves, one at a time for a
// payment.
//
//   - A capture is repeated, with its trace, until the acquirer has booked or refused it; a void until it is acknowledged.
//     Neither is forgotten by a crash, and neither is told as done before.
//   - A refund is sent at most once. One of unknown outcome is reversed, has then failed, and may be asked for again; or, where
//     the connector knows a repeat by its trace, it is repeated until its outcome is known. Never more is refunded than was
//     captured.
package payment

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/routing"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// Tokenizer computes the token of a card in custody, and knows whether it was issued before.
type Tokenizer interface {
	Tokenize(ctx context.Context, domain string, ref pci.CardRef, binding string) (issued pci.IssuedToken, known bool, err error)
}

// Authenticator speaks 3-D Secure.
type Authenticator interface {
	// Method returns what the browser shows before, nil for nothing.
	Method(ctx context.Context, request pci.AuthenticationRequest, notificationURL string) (*pci.Method, error)
	// MethodTransID reads the threeDSMethodData that an ACS has posted back, empty for none.
	MethodTransID(data string) string
	Authenticate(ctx context.Context, request pci.AuthenticationRequest) (pci.Authentication, error)
}

// Custody ends cards.
type Custody interface {
	Destroy(ctx context.Context, ref pci.CardRef) error
}

// Config of a [Service].
type Config struct {
	Store      *store.Store
	Ledger     *ledger.Ledger
	Merchants  *merchant.Service
	Origins    merchant.MAC // hides shoppers' addresses; the key is destroyed after a year
	Tokens     Tokenizer
	ThreeDS    Authenticator
	Connectors *routing.Router // to those who sell
	Cards      Custody
	Outbox     func() // is told after each commit that there may be something to deliver

	PublicURL         string
	Session           time.Duration // how long a shopper may take
	Attempts          int           // cards tried on one payment
	Authorization     time.Duration // how long after a shopper's session an authorization waits for its capture, and is voided then; 0: for ever
	Challenge         time.Duration // how long a shopper may take at the issuer
	Method            time.Duration // how long the 3DS Method and the pages around it may take; 0: 13 s
	Patience          time.Duration // how long a capture, void or refund waits for the acquirer before it is answered as it stands; 0: 5 s
	UnavailableRefuse bool          // refuse when the issuer cannot be asked, else go on without liability shift

	Now func() time.Time
	Log *slog.Logger
}

// Service is safe for concurrent use. Its owner calls [Service.Run].
type Service struct {
	cfg Config

	// background bounds the work that outlives the request that began it.
	started    time.Time
	background context.Context //nolint:containedctx // the service's own life, not a caller's
	cancel     context.CancelFunc
	work       sync.WaitGroup

	mu         sync.Mutex
	closing    chan struct{}         // closed when no attempt may begin any more
	challenges map[string]*challenge // by payment
	methods    map[string]*method    // by payment
	changed    map[string]*watched   // by payment, while somebody waits
	flights    map[string]bool       // modifications that somebody is sending, by id
	reversals  chan struct{}         // there is an attempt to reverse
	repeats    chan struct{}         // there is a modification to repeat

	gates gates
}

// New returns a service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Outbox == nil {
		cfg.Outbox = func() {}
	}
	if cfg.Method == 0 {
		cfg.Method = methodTimeout
	}
	if cfg.Patience == 0 {
		cfg.Patience = modificationPatience
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Service{cfg: cfg, started: cfg.Now(), background: ctx, cancel: cancel, closing: make(chan struct{}),
		challenges: make(map[string]*challenge), methods: make(map[string]*method),
		changed: make(map[string]*watched), flights: make(map[string]bool), reversals: make(chan struct{}, 1), repeats: make(chan struct{}, 1)}
}

// Create implements [api.Payments].
func (s *Service) Create(ctx context.Context, caller api.Caller, request api.CreatePayment, idempotencyKey string) (api.Payment, error) {
	m, err := s.cfg.Store.Read(ctx).Merchant(caller.MerchantID)
	if err != nil {
		return api.Payment{}, translate(err)
	}
	if request.ReturnURL != "" {
		if err := checkReturnHost(m, request.ReturnURL); err != nil {
			return api.Payment{}, err
		}
	}
	if err := checkLimits(m, request); err != nil {
		return api.Payment{}, err
	}
	if err := s.checkServed(m, request); err != nil {
		return api.Payment{}, err
	}
	first := store.Idempotent{MerchantID: m.ID, Key: idempotencyKey, CreatedAt: s.cfg.Now()}
	if idempotencyKey != "" {
		if first.RequestMAC, err = s.requestMAC(ctx, request); err != nil {
			return api.Payment{}, translate(err)
		}
		if answer, done, err := s.repeat(ctx, first); done {
			return s.getOr(ctx, caller, answer, err)
		}
	}
	var collected *store.Attempt // of a payment that the merchant makes on their own
	id := newID("pay")
	_, hash, err := s.cfg.Merchants.Session(ctx, id)
	if err != nil {
		return api.Payment{}, translate(err)
	}
	now := s.cfg.Now()
	p := store.Payment{ID: id, MerchantID: m.ID, SessionHash: hash, Amount: pci.Amount{Minor: request.Amount, Currency: request.Currency},
		Reference: request.Reference, ReturnURL: request.ReturnURL, Capture: request.Capture, Wishes: wishesOf(request),
		Token: request.Token, Initiator: request.Initiator, Original: request.Original, CreatedAt: now, ExpiresAt: now.Add(s.cfg.Session), UpdatedAt: now}
	first.Answer = id
	customer, err := customerOf(request.Customer)
	if err != nil {
		return api.Payment{}, err
	}
	failpoint.Here("before payment.created")
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if idempotencyKey != "" {
			if _, err := tx.Idempotent(m.ID, idempotencyKey); err == nil {
				return errRepeat // a neighbour was first
			}
			if err := tx.PutIdempotent(first); err != nil {
				return err
			}
		}
		var card store.Token
		if p.Token != "" {
			if card, err = s.storedCard(tx.Queries, m, p.Token); err != nil {
				return err
			}
		}
		if p.Initiator == pci.ByMerchant {
			if _, err := agreement(tx.Queries, m, p.Original, card); err != nil {
				return err
			}
		}
		if err := putPayment(tx, &p, "payment.created"); err != nil {
			return err
		}
		if request.Customer != nil {
			if err := tx.PutCustomer(id, customer); err != nil {
				return err
			}
		}
		entry := entryOf("payment.created", "key:"+caller.KeyID, caller.Origin, ledger.Success, p, nil)
		tellWishes(entry.Data, p.Wishes)
		tx.Record(entry)
		if p.Initiator == pci.ByMerchant {
			a, err := s.putStored(tx, &p, card, newID("form"), "key:"+caller.KeyID, caller.Origin)
			collected = &a
			return err
		}
		return nil
	})
	if errors.Is(err, errRepeat) {
		answer, _, err := s.repeat(ctx, first)
		return s.getOr(ctx, caller, answer, err)
	}
	if err != nil {
		return api.Payment{}, translate(err)
	}
	failpoint.Here("after payment.created")
	if collected != nil {
		s.collect(ctx, p, *collected)
	}
	return s.Get(ctx, caller, id)
}

// errRepeat means that another request with the same idempotency key committed first.
var errRepeat = errors.New("payment: the idempotency key was used in the meantime")

// repeat finds what the first request under an idempotency key is answered from.
func (s *Service) repeat(ctx context.Context, request store.Idempotent) (answer string, done bool, err error) {
	first, err := s.cfg.Store.Read(ctx).Idempotent(request.MerchantID, request.Key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "", false, nil
	case err != nil:
		return "", true, translate(err)
	case string(first.RequestMAC) != string(request.RequestMAC):
		return "", true, api.ErrIdempotency
	}
	return first.Answer, true, nil
}

// getOr shows a payment, unless there is an error already.
func (s *Service) getOr(ctx context.Context, caller api.Caller, id string, err error) (api.Payment, error) {
	if err != nil {
		return api.Payment{}, err
	}
	return s.Get(ctx, caller, id)
}

func (s *Service) requestMAC(ctx context.Context, request any) ([]byte, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	return s.cfg.Merchants.RequestMAC(ctx, text)
}

func checkReturnHost(m store.Merchant, returnURL string) error {
	u, err := url.Parse(returnURL)
	if err != nil {
		return api.ErrInvalid.At("/return_url")
	}
	if len(m.ReturnHosts) > 0 && !slices.Contains(m.ReturnHosts, u.Hostname()) {
		return api.ErrInvalid.With("The merchant's profile allows return URLs on %s only.", strings.Join(m.ReturnHosts, ", ")).At("/return_url")
	}
	return nil
}

// Get implements [api.Payments].
func (s *Service) Get(ctx context.Context, caller api.Caller, id string) (api.Payment, error) {
	p, err := s.own(ctx, caller, id)
	if err != nil {
		return api.Payment{}, err
	}
	return s.show(ctx, p)
}

// own returns a payment of the caller's merchant; another merchant's is not there.
func (s *Service) own(ctx context.Context, caller api.Caller, id string) (store.Payment, error) {
	p, err := s.cfg.Store.Read(ctx).Payment(id)
	if err == nil && p.MerchantID != caller.MerchantID {
		err = store.ErrNotFound
	}
	return p, translate(err)
}

// List implements [api.Payments].
func (s *Service) List(ctx context.Context, caller api.Caller, query api.ListPayments) (api.PaymentList, error) {
	rows, err := s.cfg.Store.Read(ctx).Payments(store.PaymentFilter{MerchantID: caller.MerchantID, Status: string(query.Status),
		Reference: query.Reference, From: query.From, To: query.To, Before: query.Cursor, Limit: query.Limit + 1})
	if err != nil {
		return api.PaymentList{}, translate(err)
	}
	list := api.PaymentList{Payments: []api.Payment{}}
	if len(rows) > query.Limit {
		rows = rows[:query.Limit]
		list.NextCursor = rows[query.Limit-1].ID
	}
	for _, p := range rows {
		shown, err := s.show(ctx, p)
		if err != nil {
			return api.PaymentList{}, err
		}
		list.Payments = append(list.Payments, shown)
	}
	return list, nil
}

// Receipt implements [api.Payments].
func (s *Service) Receipt(ctx context.Context, caller api.Caller, id string) (api.Receipt, error) {
	p, err := s.own(ctx, caller, id)
	if err != nil {
		return api.Receipt{}, err
	}
	proven, err := s.cfg.Ledger.EntriesOf(ctx, p.ID)
	if err != nil {
		return api.Receipt{}, translate(err)
	}
	receipt := api.Receipt{Payment: p.ID, Origin: s.cfg.Ledger.Origin(), VerifierKey: s.cfg.Ledger.VerifierKey(), Entries: []api.ReceiptEntry{}}
	for _, e := range proven {
		receipt.Entries = append(receipt.Entries, api.ReceiptEntry{Index: e.Index, Entry: string(e.Entry), Proof: string(e.Proof), VerifierKey: e.Key})
	}
	return receipt, nil
}

// show returns a payment as its merchant sees it.
func (s *Service) show(ctx context.Context, p store.Payment) (api.Payment, error) {
	var a *store.Attempt
	var modifications []store.Modification
	err := s.cfg.Store.Snapshot(ctx, func(read store.Queries) (err error) { // or a capture has succeeded of what is not captured
		if p, err = read.Payment(p.ID); err != nil {
			return err
		}
		if a, err = s.lastAttempt(read, p); err != nil {
			return err
		}
		modifications, err = read.Modifications(p.ID)
		return err
	})
	if err != nil {
		return api.Payment{}, translate(err)
	}
	out := shown(p, a, modifications)
	if s.payable(p) {
		session, _, err := s.cfg.Merchants.Session(ctx, p.ID)
		if err != nil {
			return api.Payment{}, translate(err)
		}
		out.CheckoutURL = s.checkoutURL(session)
	}
	return out, nil
}

func (s *Service) checkoutURL(session string) string { return s.cfg.PublicURL + "/checkout/" + session }

// shown is the part of a payment that needs no secret; events carry it too.
func shown(p store.Payment, a *store.Attempt, modifications []store.Modification) api.Payment {
	out := api.Payment{ID: p.ID, Status: api.Status(p.Status), Amount: p.Amount.Minor, Currency: p.Amount.Currency, Reference: p.Reference,
		ReturnURL: p.ReturnURL, Capture: p.Capture, Initiator: p.Initiator, Original: p.Original, Captured: p.Captured, Refunded: p.Refunded, Attempts: p.Attempts, CreatedAt: p.CreatedAt, ExpiresAt: p.ExpiresAt, UpdatedAt: p.UpdatedAt}
	out.Token = p.Token
	out.Authentication, out.Setup, out.Recurring = shownWishes(p.Wishes)
	if a != nil {
		out.Card = &api.Card{Brand: a.Card.Brand, Truncated: a.Card.Truncated, Expiry: a.Card.Expiry.String()}
		out.Token = a.Token
		if a.Status != attemptAuthenticating && a.Status != attemptAuthorizing {
			out.Result = &api.Result{Reason: api.Reason(a.Reason), ResponseCode: a.ResponseCode, ApprovalCode: a.ApprovalCode, ThreeDS: a.TransStatus, ECI: a.ECI, NetworkID: a.NetworkID}
		}
	}
	for _, m := range modifications {
		switch m.Kind {
		case store.ModificationCapture:
			out.Captures = append(out.Captures, shownModification(m))
		case store.ModificationVoid:
			v := shownModification(m)
			out.Void = &v
		}
	}
	return out
}

func (s *Service) lastAttempt(read store.Queries, p store.Payment) (*store.Attempt, error) {
	if p.Attempts == 0 {
		return nil, nil //nolint:nilnil // no attempt is no error
	}
	a, err := read.Attempt(p.ID, p.Attempts)
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// payable reports whether a card can be entered now.
func (s *Service) payable(p store.Payment) bool {
	open := p.Status == string(api.StatusCreated) || p.Status == string(api.StatusDeclined)
	return open && p.Initiator != pci.ByMerchant && p.Attempts < s.cfg.Attempts && s.cfg.Now().Before(p.ExpiresAt)
}

// entryOf describes a step of a payment for the record.
func entryOf(kind, actor, origin, outcome string, p store.Payment, a *store.Attempt) ledger.Entry {
	data := map[string]any{"merchant": p.MerchantID, "status": p.Status, "amount": p.Amount.Minor, "currency": string(p.Amount.Currency)}
	if p.Captured > 0 {
		data["captured"], data["refunded"] = p.Captured, p.Refunded
	}
	if p.Original != "" {
		data["original"] = p.Original
	}
	if a != nil {
		data["attempt"] = a.N
		data["card"] = string(a.Card.Truncated)
		data["brand"] = string(a.Card.Brand)
		data["token"] = string(a.Token)
		for name, value := range map[string]string{"trans_status": a.TransStatus, "eci": a.ECI, "stan": a.Trace.STAN, "rrn": a.Trace.RRN,
			"connector": a.Connector, "connector_reference": a.Reference, "initiator": string(a.Initiator), "soft_decline": a.SoftDecline,
			"response_code": a.ResponseCode, "approval_code": a.ApprovalCode, "reason": a.Reason, "reversal_stan": a.Reversal.STAN} {
			if value != "" {
				data[name] = value
			}
		}
	}
	return ledger.Entry{Type: kind, Actor: actor, Origin: origin, Outcome: outcome, Resource: p.ID, Data: data}
}

func putPayment(tx *ledger.Tx, p *store.Payment, event string) error {
	if err := move(p, event); err != nil {
		return err
	}
	if p.Status == string(api.StatusCaptured) && p.Captured == 0 {
		p.Captured = p.Amount.Minor // by a sale; a capture has said how much
	}
	return tx.PutPayment(*p)
}

// origin hides a shopper's address: the record must be able to tell two shoppers apart, not to name one.
func (s *Service) origin(ctx context.Context, address string) (string, error) {
	sum, err := s.cfg.Origins.Sum(ctx, []byte("shopper v1\x00"+address))
	if err != nil {
		return "", err
	}
	return "shopper:" + hex.EncodeToString(sum[:8]), nil
}

// translate turns the errors of store and ledger into those of the contract. Those of the contract and of pci pass.
func translate(err error) error {
	if problem, ok := errors.AsType[*api.Problem](err); ok {
		return problem // of a change that the ledger has undone: what it says is the answer
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return api.ErrNotFound
	case errors.Is(err, pci.ErrReplayed):
		return pci.ErrReplayed
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, ledger.ErrUnavailable):
		return fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	default:
		return err
	}
}
