// Package settlement compares books with acquirers (ISO 8583 reconciliation, 0500): what the signed log says was cleared, and
// what the acquirer has booked, for each terminal and currency.
//
// # What is promised
//
//   - The totals are those of the signed entries, from the last comparison on which both sides agreed up to a size of the log that
//     the entry of the comparison names.
//   - They are compared while the connector is at rest: nothing is under way, and no outcome is unknown. A connector that does not
//     come to rest is tried again later.
//   - A comparison is entered before it is asked for, and its outcome when it is known. One without an answer is asked for again
//     under the same trace before any other.
//
// # What is not
//
// Nobody's books are changed. Where they differ, people look for the reason: the entry has both sides' totals, and the acquirer
// its list. After a restore the totals begin with the new log.
package settlement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// Reconciler asks an acquirer to compare. Asked again with the same trace it answers as the first time, if there was one.
type Reconciler interface {
	Reconcile(ctx context.Context, request pci.ReconciliationRequest) (agreed bool, theirs pci.Totals, err error)
}

// Connector is one whose books can be compared.
type Connector struct {
	Name string
	// At is the time of day, in UTC, after midnight, at which the books are compared; negative for never but on demand.
	At time.Duration
	Reconciler
}

// Config of a [Service].
type Config struct {
	Store  *store.Store
	Ledger *ledger.Ledger
	// Quiet keeps a connector at rest until open is called.
	Quiet func(ctx context.Context, connector string) (open func(), err error)
	// Trace gives a request to a terminal its numbers, in the commit that announces it.
	Trace func(tx *ledger.Tx, m store.Merchant) (pci.Trace, error)

	Connectors []Connector
	Now        func() time.Time
	Log        *slog.Logger
}

// Service is safe for concurrent use. Its owner calls [Service.Run].
type Service struct {
	cfg     Config
	due     chan string              // connectors whose acquirer has closed its day
	settles map[string]chan struct{} // room for one at a time, by connector
	totals  map[string]*running      // by connector; guarded by settles
}

// How long a connector is kept at rest: until it is, and until its acquirer has answered. Payments wait that long.
const (
	restPatience   = 5 * time.Second
	answerPatience = 10 * time.Second
	retryAfter     = time.Minute
)

// ErrUnknownConnector means that there is no such connector, or none that compares books.
var ErrUnknownConnector = errors.New("settlement: no connector of this name compares books")

// New returns a service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, due: make(chan string, 16), settles: make(map[string]chan struct{}), totals: make(map[string]*running)}
	for _, c := range cfg.Connectors {
		s.settles[c.Name] = make(chan struct{}, 1)
	}
	return s
}

// Connectors are the names of those whose books are compared.
func (s *Service) Connectors() (names []string) {
	for _, c := range s.cfg.Connectors {
		names = append(names, c.Name)
	}
	return names
}

func (s *Service) named(name string) (Connector, error) {
	for _, c := range s.cfg.Connectors {
		if c.Name == name {
			return c, nil
		}
	}
	return Connector{}, fmt.Errorf("%w: %q", ErrUnknownConnector, name)
}

// Settle compares the books of a connector: one settlement for each terminal and currency in which something was cleared since both
// sides agreed last. An error says why some or all of it is still to be done.
func (s *Service) Settle(ctx context.Context, name string) ([]store.Settlement, error) {
	c, err := s.named(name)
	if err != nil {
		return nil, err
	}
	select {
	case s.settles[name] <- struct{}{}:
		defer func() { <-s.settles[name] }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := s.advance(ctx, name); err != nil { // most of it while payments go on
		return nil, err
	}
	resting, cancel := context.WithTimeout(ctx, restPatience)
	defer cancel()
	open, err := s.cfg.Quiet(resting, name)
	if err != nil {
		return nil, err
	}
	defer open()
	if err := s.advance(ctx, name); err != nil {
		return nil, err
	}
	pending, err := s.cfg.Store.Read(ctx).PendingSettlements(name)
	if err != nil {
		return nil, err
	}
	ended, err := s.askAll(ctx, c, pending) // first those whose answers have not come
	if err != nil {
		return ended, err
	}
	if err := s.advance(ctx, name); err != nil {
		return ended, err
	}
	announced, err := s.announce(ctx, c)
	if err != nil {
		return ended, err
	}
	done, err := s.askAll(ctx, c, announced)
	return append(ended, done...), err
}

// announce enters the settlements that are due, all of them at once: so each terminal and currency in which something was cleared
// before has a row.
func (s *Service) announce(ctx context.Context, c Connector) (list []store.Settlement, err error) {
	batches := s.totals[c.Name].batches()
	if len(batches) == 0 {
		return nil, nil
	}
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		list = list[:0]
		now := s.cfg.Now()
		for _, b := range batches {
			p := store.Settlement{ID: store.NewID("set"), Connector: c.Name, Terminal: b.terminal, Currency: b.currency,
				Log: b.log, From: b.from, Through: b.through, Status: store.SettlementPending, Ours: b.totals, CreatedAt: now, UpdatedAt: now}
			m, err := merchantOf(tx.Queries, b.terminal)
			if err != nil {
				return err
			}
			if p.Trace, err = s.cfg.Trace(tx, m); err != nil {
				return err
			}
			p.Trace.RRN = "" // a comparison has none
			if err := put(tx, p, "settlement.requested", ledger.Success); err != nil {
				return err
			}
			list = append(list, p)
		}
		return nil
	})
	return list, err
}

// askAll asks for what is announced, and returns what is ended.
func (s *Service) askAll(ctx context.Context, c Connector, announced []store.Settlement) (ended []store.Settlement, err error) {
	for _, p := range announced {
		m, err := merchantOf(s.cfg.Store.Read(ctx), p.Terminal)
		if err != nil {
			return ended, err
		}
		done, err := s.ask(ctx, c, m, p)
		if err != nil {
			return ended, err
		}
		ended = append(ended, done)
		if done.Status == store.SettlementBalanced {
			s.totals[c.Name].agreed(done)
		}
	}
	return ended, nil
}

// ask sends what is announced, and enters the answer.
func (s *Service) ask(ctx context.Context, c Connector, m store.Merchant, p store.Settlement) (store.Settlement, error) {
	waiting, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	agreed, theirs, err := c.Reconcile(waiting, pci.ReconciliationRequest{Merchant: m.Profile, Currency: p.Currency, Date: p.CreatedAt.UTC(), Totals: p.Ours, Trace: p.Trace})
	if err != nil {
		return p, err
	}
	kind, outcome := "settlement.out_of_balance", ledger.Failure
	p.Status, p.Theirs = store.SettlementOutOfBalance, theirs
	if agreed {
		p.Status, kind, outcome = store.SettlementBalanced, "settlement.balanced", ledger.Success
	} else {
		s.cfg.Log.ErrorContext(ctx, "the acquirer's books differ from the log", "connector", c.Name, "settlement", p.ID, "terminal", p.Terminal,
			"currency", string(p.Currency), "ours", p.Ours.Net(), "theirs", theirs.Net())
	}
	p.UpdatedAt = s.cfg.Now()
	_, err = s.cfg.Ledger.Commit(context.WithoutCancel(ctx), func(tx *ledger.Tx) error { return put(tx, p, kind, outcome) })
	return p, err
}

func put(tx *ledger.Tx, p store.Settlement, kind, outcome string) error {
	if err := tx.PutSettlement(p); err != nil {
		return err
	}
	data := map[string]any{"connector": p.Connector, "terminal": p.Terminal, "currency": string(p.Currency), "from": p.From, "through": p.Through,
		"stan": p.Trace.STAN, "ours": describe(p.Ours)}
	if p.Status != store.SettlementPending {
		data["theirs"] = describe(p.Theirs)
	}
	tx.Record(ledger.Entry{Type: kind, Actor: "system", Origin: "local", Outcome: outcome, Resource: p.ID, Data: data})
	return nil
}

// describe writes totals for the record: counts, and sums in minor units.
func describe(t pci.Totals) map[string]any {
	tally := func(t pci.Tally) map[string]any { return map[string]any{"count": t.Count, "minor": t.Minor} }
	return map[string]any{"debits": tally(t.Debits), "debit_reversals": tally(t.DebitReversals), "credits": tally(t.Credits),
		"credit_reversals": tally(t.CreditReversals), "net": t.Net()}
}

// merchantOf returns a merchant of a terminal.
func merchantOf(read store.Queries, terminal string) (store.Merchant, error) {
	ids, err := read.MerchantIDs()
	if err != nil {
		return store.Merchant{}, err
	}
	for _, id := range ids {
		m, err := read.Merchant(id)
		if err != nil {
			return m, err
		}
		if m.Profile.TerminalID == terminal {
			return m, nil
		}
	}
	return store.Merchant{}, fmt.Errorf("settlement: no merchant has the terminal %q", terminal)
}
