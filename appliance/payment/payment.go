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
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/finterra/finpay/api"
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
