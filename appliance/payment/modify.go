package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// modificationPatience is how long a merchant waits for the acquirer's answer. Clients give up after 10 s and more.
const modificationPatience = 5 * time.Second

// captureManual is [store.Payment.Capture] where the merchant captures.
const captureManual = "manual"

// kinds are what can be done with a payment, by the kind of the modification.
var kinds = map[string]struct {
	prefix    string // of its id
	announced string // the event that lets it leave
	noun      string
}{
	store.ModificationCapture: {"cap", "payment.capture_requested", "capture"},
	store.ModificationVoid:    {"void", "payment.void_requested", "void"},
	store.ModificationRefund:  {"re", "payment.refund_requested", "refund"},
}

// change is what a merchant asks for. Its JSON is what an idempotency key stands for.
type change struct {
	Kind    string
	Payment string
	Amount  int64 // minor units; 0 for all that there is
}

// Capture implements [api.Payments].
func (s *Service) Capture(ctx context.Context, caller api.Caller, id string, request api.ModifyPayment, idempotencyKey string) (api.Payment, error) {
	_, err := s.modify(ctx, caller, change{store.ModificationCapture, id, request.Amount}, idempotencyKey)
	return s.getOr(ctx, caller, id, err)
}

// Void implements [api.Payments]. What nobody has paid yet is withdrawn, and needs no acquirer.
func (s *Service) Void(ctx context.Context, caller api.Caller, id, idempotencyKey string) (api.Payment, error) {
	p, err := s.own(ctx, caller, id)
	if err != nil {
		return api.Payment{}, err
	}
	c := change{store.ModificationVoid, id, 0}
	if unpaid(p) {
		first, err := s.firstOf(ctx, caller, c, idempotencyKey)
		if err == nil {
			err = s.withdraw(ctx, caller, id, first)
		}
		if !errors.Is(err, errBegun) && !errors.Is(err, errRepeat) {
			return s.getOr(ctx, caller, id, translate(err))
		}
	}
	_, err = s.modify(ctx, caller, c, idempotencyKey)
	return s.getOr(ctx, caller, id, err)
}

// Refund implements [api.Payments].
func (s *Service) Refund(ctx context.Context, caller api.Caller, id string, request api.ModifyPayment, idempotencyKey string) (api.Modification, error) {
	m, err := s.modify(ctx, caller, change{store.ModificationRefund, id, request.Amount}, idempotencyKey)
	if err != nil {
		return api.Modification{}, err
	}
	return shownModification(m), nil
}

// Refunds implements [api.Payments].
func (s *Service) Refunds(ctx context.Context, caller api.Caller, id string) (api.RefundList, error) {
	list := api.RefundList{Refunds: []api.Modification{}}
	if _, err := s.own(ctx, caller, id); err != nil {
		return list, err
	}
	modifications, err := s.cfg.Store.Read(ctx).Modifications(id)
	for _, m := range modifications {
		if m.Kind == store.ModificationRefund {
			list.Refunds = append(list.Refunds, shownModification(m))
		}
	}
	return list, translate(err)
}

// modify announces and sends what a merchant asks for, and returns it as it stands when it has ended or patience is over.
func (s *Service) modify(ctx context.Context, caller api.Caller, c change, idempotencyKey string) (store.Modification, error) {
	if _, err := s.own(ctx, caller, c.Payment); err != nil {
		return store.Modification{}, err
	}
	first, err := s.firstOf(ctx, caller, c, idempotencyKey)
	if err != nil {
		return store.Modification{}, translate(err)
	}
	if idempotencyKey != "" {
		if answer, done, err := s.repeat(ctx, first); done {
			return s.ended(ctx, c.Payment, answer, err)
		}
	}
	m, err := s.begin(ctx, party{"key:" + caller.KeyID, caller.Origin}, c, first)
	if errors.Is(err, errRepeat) {
		answer, _, err := s.repeat(ctx, first)
		return s.ended(ctx, c.Payment, answer, err)
	}
	if err != nil {
		return store.Modification{}, translate(err)
	}
	return s.ended(ctx, c.Payment, m.ID, nil)
}

// firstOf is what is kept of a request under an idempotency key, which may be empty.
func (s *Service) firstOf(ctx context.Context, caller api.Caller, c change, idempotencyKey string) (first store.Idempotent, err error) {
	first = store.Idempotent{MerchantID: caller.MerchantID, Key: idempotencyKey, CreatedAt: s.cfg.Now()}
	if idempotencyKey != "" {
		first.RequestMAC, err = s.requestMAC(ctx, c)
	}
	return first, err
}

// party is who asks for a change, as entries name them.
type party struct{ actor, origin string }

// begin announces a change and has it sent.
func (s *Service) begin(ctx context.Context, by party, c change, first store.Idempotent) (store.Modification, error) {
	leave, err := s.enterFor(ctx, c.Payment)
	if err != nil {
		return store.Modification{}, err
	}
	m, err := s.announce(ctx, by, c, first)
	if err != nil {
		leave()
		return m, err
	}
	failpoint.Here("after " + kinds[c.Kind].announced)
	s.notify(c.Payment)
	started := s.start(func(ctx context.Context) {
		defer wake(s.repeats) // deferred first, so that it comes last: the queue takes over what was not answered
		defer s.land(m.ID)
		defer leave()
		s.first(ctx, m)
	})
	if !started { // shutting down: the next process does what is left
		leave()
		s.land(m.ID)
	}
	return m, nil
}

// enterFor waits while the connector of a payment is kept at rest. The caller calls leave when what it sends is entered.
func (s *Service) enterFor(ctx context.Context, id string) (leave func(), err error) {
	_, a, err := subject(s.cfg.Store.Read(ctx), id)
	if err != nil {
		return nil, translate(err)
	}
	if a == nil {
		return func() {}, nil
	}
	if leave, err = s.gates.enter(ctx, a.Connector); err != nil {
		return nil, fmt.Errorf("%w: the connector's books are being compared: %w", api.ErrUnavailable, err)
	}
	return leave, nil
}

// announce commits a modification with its signed entry. The caller sends it, and lands it when that is done.
func (s *Service) announce(ctx context.Context, by party, c change, first store.Idempotent) (store.Modification, error) {
	m := store.Modification{ID: store.NewID(kinds[c.Kind].prefix), PaymentID: c.Payment, Kind: c.Kind, Status: store.ModificationPending}
	first.Answer = m.ID
	s.takeOff(m.ID) // before the queue can see it
	failpoint.Here("before " + kinds[c.Kind].announced)
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if err := once(tx, first); err != nil {
			return err
		}
		p, a, err := subject(tx.Queries, c.Payment)
		if err != nil {
			return err
		}
		if m.Amount, err = c.check(tx, p, a); err != nil {
			return err
		}
		if err := s.checkCapable(c.Kind, m.Amount, p, a); err != nil {
			return err
		}
		merchant, err := tx.Merchant(p.MerchantID)
		if err != nil {
			return err
		}
		if m.Trace, err = s.Trace(tx, merchant); err != nil {
			return err
		}
		m.CreatedAt = s.cfg.Now()
		return s.put(tx, &m, p, a, kinds[c.Kind].announced, by.actor, by.origin, ledger.Success)
	})
	if err != nil {
		s.land(m.ID)
	}
	return m, err
}

// once keeps the first request under an idempotency key; for a later one it is [errRepeat].
func once(tx *ledger.Tx, first store.Idempotent) error {
	if first.Key == "" {
		return nil
	}
	_, err := tx.Idempotent(first.MerchantID, first.Key)
	switch {
	case err == nil:
		return errRepeat // a neighbour was first
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	return tx.PutIdempotent(first)
}

// subject returns a payment with its last attempt, nil where there is none.
func subject(q store.Queries, id string) (store.Payment, *store.Attempt, error) {
	p, err := q.Payment(id)
	if err != nil || p.Attempts == 0 {
		return p, nil, err
	}
	a, err := q.Attempt(id, p.Attempts)
	return p, &a, err
}

// check says how much a change is about, or why it is not possible.
func (c change) check(tx *ledger.Tx, p store.Payment, a *store.Attempt) (pci.Amount, error) {
	earlier, err := tx.Modifications(p.ID)
	if err != nil {
		return pci.Amount{}, err
	}
	for _, m := range earlier {
		if m.Open() {
			return pci.Amount{}, api.ErrNotPossible.With("A %s of this payment is under way. Try again when it has ended.", kinds[m.Kind].noun)
		}
	}
	at := p
	if err := move(&at, kinds[c.Kind].announced); err != nil {
		return pci.Amount{}, api.ErrNotPossible.With("A %s has no place where the payment is %s.", kinds[c.Kind].noun, p.Status)
	}
	if a == nil || a.Status != attemptAuthorized && a.Status != attemptCaptured {
		return pci.Amount{}, api.ErrNotPossible.With("The database was restored, and does not know by which request this was paid. Ask the acquirer.")
	}
	most := c.most(p)
	amount := c.Amount
	if amount == 0 {
		amount = most
	}
	if amount > most {
		return pci.Amount{}, api.ErrAmount.At("/amount").With("Send at most %d, in the currency's minor unit.", most)
	}
	return pci.Amount{Minor: amount, Currency: p.Amount.Currency}, nil
}

// most is the largest amount that a change can have, in minor units.
func (c change) most(p store.Payment) int64 {
	if c.Kind == store.ModificationRefund {
		return p.Captured - p.Refunded
	}
	return p.Amount.Minor
}

// put writes a step of a modification: its row, the payment's transition, the event and the entry.
func (s *Service) put(tx *ledger.Tx, m *store.Modification, p store.Payment, a *store.Attempt, event, actor, origin, outcome string) error {
	now := s.cfg.Now()
	m.UpdatedAt, p.UpdatedAt = now, now
	if err := putPayment(tx, &p, event); err != nil {
		return err
	}
	if err := tx.PutModification(*m); err != nil {
		return err
	}
	if err := putEvent(tx, event, p, a, now); err != nil {
		return err
	}
	entry := entryOf(event, actor, origin, outcome, p, a)
	for name, value := range map[string]string{"id": m.ID, "stan": m.Trace.STAN, "rrn": m.Trace.RRN, "response_code": m.ResponseCode,
		"approval_code": m.ApprovalCode, "reason": m.Reason, "reversal_stan": m.Reversal.STAN} {
		if value != "" {
			entry.Data[m.Kind+"_"+name] = value
		}
	}
	entry.Data[m.Kind+"_amount"] = m.Amount.Minor
	tx.Record(entry)
	return nil
}

// ended returns a modification when it has, or as it stands when patience or ctx is over.
func (s *Service) ended(ctx context.Context, paymentID, id string, err error) (store.Modification, error) {
	if err != nil || id == paymentID { // which was withdrawn: there is no modification
		return store.Modification{}, err
	}
	var m store.Modification
	s.patiently(ctx, paymentID, func() (over bool) {
		m, err = s.cfg.Store.Read(context.WithoutCancel(ctx)).Modification(id)
		return err != nil || !m.Open()
	})
	return m, translate(err)
}

// patiently looks at a payment, and again at each of its changes, until what is waited for is over, or patience or ctx is.
func (s *Service) patiently(ctx context.Context, paymentID string, look func() (over bool)) {
	patience := time.NewTimer(s.cfg.Patience)
	defer patience.Stop()
	for {
		change, leave := s.watch(paymentID) // before the look, so that no change falls between
		if look() || ctx.Err() != nil {
			leave()
			return
		}
		select {
		case <-change:
			leave()
			continue
		case <-patience.C:
		case <-s.closing:
		case <-ctx.Done():
		}
		leave()
		return
	}
}

// takeOff says that somebody is sending a modification; ok is false where somebody else is.
func (s *Service) takeOff(id string) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flights[id] {
		return false
	}
	s.flights[id] = true
	return true
}

func (s *Service) land(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, id)
}

// mti is the type of the request by which a payment was paid (ISO 8583).
func mti(p store.Payment) string {
	if p.Capture == captureManual {
		return "0100"
	}
	return "0200"
}

// shownModification is what its merchant sees of a modification.
func shownModification(m store.Modification) api.Modification {
	status := api.ModificationStatus(m.Status)
	if m.Open() {
		status = api.ModificationPending // that a refund is being reversed changes nothing for them yet
	}
	return api.Modification{ID: m.ID, Payment: m.PaymentID, Status: status, Amount: m.Amount.Minor, Currency: m.Amount.Currency, Reason: api.ModificationReason(m.Reason),
		ResponseCode: m.ResponseCode, CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt}
}

var errUnacknowledged = errors.New("payment: the acquirer did not acknowledge")
