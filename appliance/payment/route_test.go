package payment

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/routing"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// cut is a connector of which nothing leaves.
type cut struct {
	*acquirer

	mu    sync.Mutex
	asked []pci.Trace
	err   error
}

func (c *cut) Sale(_ context.Context, request pci.SaleRequest) (pci.SaleResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, request.Trace)
	return pci.SaleResult{Outcome: pci.Unsent}, c.err
}

// between restarts a world with these connectors.
func (w *world) between(connectors ...routing.Route) {
	w.t.Helper()
	w.connectors = connectors
	w.restart()
}

func (w *world) another() *acquirer { return &acquirer{w: w, can: able} }

func TestWhereNothingLeftTheNextConnectorIsAnnouncedAndAsked(t *testing.T) {
	w := in(t, nil)
	first, second := &cut{acquirer: w.another(), err: errors.New("no line")}, w.another()
	w.between(routing.Route{Name: "first", Connector: first}, routing.Route{Name: "second", Connector: second})
	id, secret := w.create()
	w.paid(secret, card{})
	w.wantStatus(id, api.StatusCaptured)
	a := w.attempt(id, 1)
	if a.Connector != "second" || len(first.asked) != 1 || len(second.sales(id)) != 1 || second.sales(id)[0].STAN != a.Trace.STAN || first.asked[0].STAN == a.Trace.STAN {
		t.Errorf("by %s; the first was asked with %v, the second with %v", a.Connector, first.asked, second.sales(id))
	}
	var by []any
	for _, e := range w.entries(id) {
		if e.Type == "payment.authorizing" || e.Type == "payment.rerouted" {
			by = append(by, e.Data["connector"], e.Data["stan"])
		}
	}
	if want := []any{"first", first.asked[0].STAN, "second", a.Trace.STAN}; !slices.Equal(by, want) {
		t.Errorf("announced %v, want %v", by, want)
	}
	w.agree(id)
}

func TestNobodyElseIsAskedAfterAnythingButUnsent(t *testing.T) {
	for _, outcome := range []pci.SaleOutcome{pci.Refused, pci.Unknown} {
		w := in(t, nil)
		second := w.another()
		w.acquirer.set(func(a *acquirer) { a.ack = true })
		w.between(routing.Route{Name: "first", Connector: w.acquirer}, routing.Route{Name: "second", Connector: second})
		id, secret := w.create()
		w.paid(secret, card{acquirer: outcome, code: "05"})
		if n := len(second.sales(id)); n != 0 || w.attempt(id, 1).Connector != "first" {
			t.Errorf("%s: the second was asked %d times", outcome, n)
		}
		if outcome == pci.Unknown {
			w.service.reverseOnce(t.Context(), map[string]bool{})
			if len(w.acquirer.reversals) != 1 || len(second.reversals) != 0 {
				t.Errorf("reversed at %v and %v", w.acquirer.reversals, second.reversals)
			}
		}
		w.agree(id)
	}
}

func TestACardThatIsGoneIsNotCarriedFromConnectorToConnector(t *testing.T) {
	w := in(t, nil)
	first, second := &cut{acquirer: w.another(), err: pci.ErrGone}, w.another()
	w.between(routing.Route{Name: "first", Connector: first}, routing.Route{Name: "second", Connector: second})
	id, secret := w.create()
	w.paid(secret, card{})
	w.wantStatus(id, api.StatusCreated)
	if len(second.sales(id)) != 0 {
		t.Error("the second was asked for a card that is gone")
	}
	w.agree(id)
}

func TestWhatFollowsASaleGoesToItsConnector(t *testing.T) {
	w := in(t, nil)
	second := w.another()
	w.acquirer.set(func(a *acquirer) { a.ack = true })
	w.between(routing.Route{Name: "first", Connector: w.acquirer}, routing.Route{Name: "second", Connector: second})
	sold, authorized, voided := w.sold(), w.authorized(), w.authorized()
	w.acquirer.set(func(a *acquirer) { a.sick = true }) // the second would be preferred now, and is the only one for new payments
	w.between(routing.Route{Name: "second", Connector: second}, routing.Route{Name: "first", Connector: w.acquirer, Currencies: []pci.Currency{"JPY"}})
	w.refunded(sold, 0)
	if _, err := w.service.Capture(t.Context(), own, authorized, api.ModifyPayment{}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := w.service.Void(t.Context(), own, voided, ""); err != nil {
		t.Fatal(err)
	}
	if len(w.acquirer.refunds) != 1 || len(w.acquirer.captures) != 1 || len(w.acquirer.reversals) != 1 {
		t.Errorf("the first was asked for %d refunds, %d captures, %d voids", len(w.acquirer.refunds), len(w.acquirer.captures), len(w.acquirer.reversals))
	}
	if len(second.refunds)+len(second.captures)+len(second.reversals) != 0 {
		t.Error("the second was asked")
	}
	if newer := w.sold(); w.attempt(newer, 1).Connector != "second" {
		t.Errorf("a new payment went to %s", w.attempt(newer, 1).Connector)
	}
}

func TestWithoutItsConnectorWhatFollowsWaits(t *testing.T) {
	w := in(t, func(cfg *Config) { cfg.Patience = 1 })
	w.between(routing.Route{Name: "old", Connector: w.acquirer})
	unknown, secret := w.create()
	w.paid(secret, card{acquirer: pci.Unknown, booked: true})
	sold, authorized := w.sold(), w.authorized()
	w.acquirer.set(func(a *acquirer) { a.capture = "lost" })
	if _, err := w.service.Capture(t.Context(), own, w.authorized(), api.ModifyPayment{}, ""); err != nil {
		t.Fatal(err)
	}

	another := w.another()
	w.between(routing.Route{Name: "new", Connector: another})
	for what, err := range map[string]error{
		"capture": second(w.service.Capture(t.Context(), own, authorized, api.ModifyPayment{}, "")),
		"refund":  second(w.service.Refund(t.Context(), own, sold, api.ModifyPayment{}, "")),
	} {
		if !errors.Is(err, api.ErrNotPossible) {
			t.Errorf("%s: %v, want a problem that says why", what, err)
		}
	}
	if left := w.service.reverseOnce(t.Context(), map[string]bool{}); left != 1 {
		t.Errorf("%d reversals are left, want 1", left)
	}
	if left := w.service.repeatOnce(t.Context()); left != 1 {
		t.Errorf("%d modifications are left, want 1", left)
	}
	if open, err := w.store.Read(t.Context()).OpenConnectors(); err != nil || !slices.Equal(open, []string{"old"}) {
		t.Errorf("work is left for %v, %v", open, err)
	}
	if len(another.reversals)+len(another.captures)+len(another.refunds) != 0 {
		t.Error("another connector was told of it")
	}

	w.acquirer.set(func(a *acquirer) { a.ack, a.capture = true, "" })
	w.between(routing.Route{Name: "new", Connector: another}, routing.Route{Name: "old", Connector: w.acquirer})
	if left := w.service.reverseOnce(t.Context(), map[string]bool{}) + w.service.repeatOnce(t.Context()); left != 0 {
		t.Errorf("%d are left though the connector is back", left)
	}
	w.wantStatus(unknown, api.StatusFailed)
	if w.acquirer.charged(unknown) != 0 {
		t.Error("the sale is still booked")
	}
}

func TestWhatNoConnectorServesIsRefusedBeforeAnythingIsSent(t *testing.T) {
	w := in(t, nil)
	w.acquirer.set(func(a *acquirer) { a.can = pci.Capabilities{Brands: []pci.Brand{pci.Amex}} })
	w.between(routing.Route{Name: "first", Connector: w.acquirer, Currencies: []pci.Currency{"EUR"}, Max: pci.Amount{Minor: 5000, Currency: "EUR"}})
	for pointer, change := range map[string]func(*api.CreatePayment){
		"/currency": func(r *api.CreatePayment) { r.Currency = "USD" },
		"/amount":   func(r *api.CreatePayment) { r.Amount = 5001 },
		"/capture":  func(r *api.CreatePayment) { r.Capture = captureManual },
	} {
		request := order()
		change(&request)
		_, err := w.service.Create(t.Context(), own, request, "")
		problem, ok := errors.AsType[*api.Problem](err)
		if !ok || problem.Pointer != pointer {
			t.Errorf("%s: %v", pointer, err)
		}
	}
	id, secret := w.create()
	w.paid(secret, card{}) // a visa
	w.wantStatus(id, api.StatusCreated)
	a := w.attempt(id, 1)
	if a.Reason != string(api.ReasonNoConnector) || a.Status != attemptAbandoned || a.Connector != "" {
		t.Errorf("the attempt is %+v", a)
	}
	if len(w.issuer.requests()) != 0 || len(w.acquirer.sales(id)) != 0 {
		t.Error("somebody was asked")
	}
	w.agree(id)
}

func TestWhatAConnectorCannotDoIsAProblem(t *testing.T) {
	w := in(t, nil)
	authorized, sold := w.authorized(), w.sold()
	w.acquirer.set(func(a *acquirer) { a.can = pci.Capabilities{Refund: true} })
	for what, err := range map[string]error{
		"a partial capture": second(w.service.Capture(t.Context(), own, authorized, api.ModifyPayment{Amount: 1}, "")),
		"a void":            second(w.service.Void(t.Context(), own, authorized, "")),
		"a partial refund":  second(w.service.Refund(t.Context(), own, sold, api.ModifyPayment{Amount: 1}, "")),
	} {
		if !errors.Is(err, api.ErrNotPossible) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(w.modifications(authorized))+len(w.modifications(sold)) != 0 {
		t.Error("something was announced")
	}
	if _, err := w.service.Capture(t.Context(), own, authorized, api.ModifyPayment{}, ""); err != nil {
		t.Errorf("the whole: %v", err)
	}
	w.refunded(sold, 0)
}

// knower is a connector that knows repeats of refunds.
type knower struct {
	*acquirer

	mu      sync.Mutex
	answers []pci.SaleOutcome
	asked   []pci.RefundRequest
}

func (k *knower) Refund(_ context.Context, request pci.RefundRequest) (pci.SaleResult, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, request)
	outcome := k.answers[0]
	k.answers = k.answers[1:]
	if outcome == pci.Unknown {
		return pci.SaleResult{Outcome: outcome}, errors.New("no answer")
	}
	return pci.SaleResult{Outcome: outcome, ResponseCode: "00"}, nil
}

func TestARefundOfUnknownOutcomeIsRepeatedWhereRepeatsAreKnown(t *testing.T) {
	for _, c := range []struct {
		last   pci.SaleOutcome
		status string
		reason api.ModificationReason
		want   api.Status
	}{
		{pci.Approved, store.ModificationSucceeded, "", api.StatusRefunded},
		{pci.Refused, store.ModificationFailed, api.ModificationRefused, api.StatusCaptured},
		{pci.Unsent, store.ModificationFailed, api.ModificationUnsent, api.StatusCaptured},
	} {
		w := in(t, func(cfg *Config) { cfg.Patience = 1 })
		w.acquirer.set(func(a *acquirer) { a.can.RepeatRefund = true })
		k := &knower{acquirer: w.acquirer, answers: []pci.SaleOutcome{pci.Unknown, pci.Unknown, c.last}}
		w.between(routing.Route{Name: "acquirer", Connector: k})
		id := w.sold()
		w.refunded(id, 0)
		w.until("the refund is entered as of unknown outcome", func() bool {
			return w.modifications(id)[0].Status == store.ModificationIndeterminate && w.service.inFlight() == 0
		})
		if left := w.service.repeatOnce(t.Context()); left != 1 {
			t.Errorf("%d are left after an answer that says nothing", left)
		}
		if left := w.service.repeatOnce(t.Context()); left != 0 {
			t.Errorf("%d are left", left)
		}
		m := w.modifications(id)[0]
		if m.Status != c.status || m.Reason != string(c.reason) {
			t.Errorf("%s: the refund is %s, %s", c.last, m.Status, m.Reason)
		}
		w.wantStatus(id, c.want)
		if len(k.asked) != 3 || k.asked[0].Repeat || !k.asked[1].Repeat || !k.asked[2].Repeat || k.asked[0].Trace != k.asked[2].Trace || len(w.acquirer.reversals) != 0 {
			t.Errorf("asked for %+v, reversed %d", k.asked, len(w.acquirer.reversals))
		}
		w.agree(id)
	}
}
