package stripe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/memory"
	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/softhsm-test/fakestripe"
)

func TestMain(m *testing.M) {
	if !memory.Serve(newPeer) {
		goleak.VerifyTestMain(m)
	}
}

const (
	good = "4242424242424242"
	cvv  = "123"
)

// wallet lends one card, as custody and as tokenization do: without a security code there.
type wallet struct{ number, cvv string }

func (w wallet) Hold(context.Context, *pan.Card, string) (pci.CardRef, error) {
	return pci.CardRef{}, pci.ErrFull
}

func (w wallet) Lend(_ context.Context, _ pci.CardRef, _ string, use func(*pan.Card) error) error {
	if w.number == "" {
		return pci.ErrGone
	}
	card, err := pan.New([]byte(w.number), []byte(w.cvv), pci.Expiry{Year: 2031, Month: 4})
	if err != nil {
		return err
	}
	defer card.Release()
	return use(card)
}

type vault struct{ wallet }

func (v vault) Lend(ctx context.Context, _ string, _ pci.Token, use func(*pan.Card) error) error {
	return v.wallet.Lend(ctx, pci.CardRef{}, "", use)
}

// account is a connector and its Stripe.
type account struct {
	*Connector
	peer *fakestripe.Server
	t    *testing.T
}

const secret = "sk_live_51Hsomething0123"

// open starts both. change may be nil.
func open(t *testing.T, number string, change func(*Config)) *account {
	t.Helper()
	peer := fakestripe.New()
	t.Cleanup(peer.Close)
	cfg := Config{URL: peer.URL, Key: Key{secret}, TLS: peer.Client().Transport.(*http.Transport).TLSClientConfig,
		AnswerTimeout: 5 * time.Second, RepeatAfter: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	c, err := newConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.cards, c.tokens = wallet{number, cvv}, vault{wallet{number, ""}}
	return &account{c, peer, t}
}

var at = time.Now().UTC().Truncate(time.Second)

func trace(n int) pci.Trace {
	return pci.Trace{STAN: fmt.Sprintf("%06d", n), RRN: fmt.Sprintf("6330%08d", n), TransmittedAt: at}
}

func saleRequest() pci.SaleRequest {
	return pci.SaleRequest{Payment: "pay_1", Card: pci.NewCardRef(), Amount: pci.Amount{Minor: 1250, Currency: "EUR"}, Trace: trace(1),
		Authentication: pci.Authentication{Outcome: pci.Authenticated, TransStatus: "Y", Version: "2.2.0", ECI: "05", CAVV: "AAABBBCCCDDDEEEFFFGGGHHHIIIJ", DSTransID: "f25084f0-5b16-4c0a-ae5d-b24808a95e4b"}}
}

func reversalOf(r pci.SaleRequest, reference string) pci.ReversalRequest {
	return pci.ReversalRequest{Payment: r.Payment, Amount: r.Amount, Original: r.Trace, Reference: reference, Trace: trace(900)}
}

// sold sells and fails the test where it is not approved.
func (a *account) sold(r pci.SaleRequest) pci.SaleResult {
	a.t.Helper()
	result, err := a.Sale(a.t.Context(), r)
	if err != nil || result.Outcome != pci.Approved {
		a.t.Fatalf("%+v, %v", result, err)
	}
	return result
}

func (a *account) authorized(r pci.SaleRequest) pci.SaleResult {
	a.t.Helper()
	result, err := a.Authorize(a.t.Context(), r)
	if err != nil || result.Outcome != pci.Approved {
		a.t.Fatalf("%+v, %v", result, err)
	}
	return result
}

func TestASaleIsAPaymentMethodAndAConfirmedIntent(t *testing.T) {
	a := open(t, good, nil)
	r := saleRequest()
	result := a.sold(r)
	if result.NetworkID != "NET"+result.Reference[3:] {
		t.Errorf("network id %q of %q", result.NetworkID, result.Reference)
	}
	if result.ResponseCode != "00" || !isID("pi", result.Reference) || a.peer.Moved() != 1250 {
		t.Errorf("%+v, %d moved", result, a.peer.Moved())
	}
	requests := a.peer.Requests()
	if len(requests) != 2 {
		t.Fatalf("%d requests", len(requests))
	}
	method, made := requests[0], requests[1]
	if method.Path != "/v1/payment_methods" || method.Number != "4242" || !method.HasCVC || method.Form.Encode() != "card%5Bexp_month%5D=4&card%5Bexp_year%5D=2031&type=card" {
		t.Errorf("%+v", method)
	}
	const ds = "payment_method_options[card][three_d_secure]"
	for name, want := range map[string]string{"amount": "1250", "currency": "eur", "confirm": "true", "capture_method": "automatic", "error_on_requires_action": "true",
		"off_session": "", "metadata[finpay_payment]": "pay_1", "metadata[finpay_trace]": nameOf(r.Trace), ds + "[version]": "2.2.0",
		ds + "[cryptogram]": r.Authentication.CAVV, ds + "[electronic_commerce_indicator]": "05", ds + "[transaction_id]": r.Authentication.DSTransID, ds + "[ares_trans_status]": "Y"} {
		if got := made.Form.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for _, q := range requests {
		if q.Version != Version || q.Authorization != "Bearer "+secret || q.Key == "" || strings.Contains(q.Key, "4242") {
			t.Errorf("%+v", q)
		}
	}
	if method.Key == made.Key {
		t.Error("two requests have one key")
	}
	if !a.Healthy() {
		t.Error("it is not healthy after an answer")
	}
}

func TestWithoutAuthenticationNothingIsSaidOfIt(t *testing.T) {
	a := open(t, good, nil)
	r := saleRequest()
	r.Authentication = pci.Authentication{Outcome: pci.NotEnrolled}
	a.sold(r)
	for name := range a.peer.Requests()[1].Form {
		if strings.Contains(name, "three_d_secure") {
			t.Errorf("sent %s", name)
		}
	}
}

func TestAStoredCardIsChargedWithoutASecurityCode(t *testing.T) {
	for initiator, want := range map[pci.Initiator]string{pci.ByMerchant: "true", pci.ByCustomer: ""} {
		a := open(t, good, nil)
		r := saleRequest()
		r.Card, r.Token, r.Domain, r.Initiator, r.Authentication = pci.CardRef{}, "9000000000000000", "shop", initiator, pci.Authentication{}
		a.sold(r)
		if q := a.peer.Requests(); q[0].HasCVC || q[1].Form.Get("off_session") != want {
			t.Errorf("%s: %+v", initiator, q)
		}
	}
	a := open(t, good, nil)
	r := saleRequest()
	r.Initiator = pci.ByMerchant
	if result, err := a.Sale(t.Context(), r); err == nil || result.Outcome != pci.Unsent {
		t.Errorf("a card that was entered, by the merchant: %+v, %v", result, err)
	}
}

func TestRefusalsHaveResponseCodes(t *testing.T) {
	for number, want := range map[string]string{
		"4000000000000002": "05", "4000000000009995": "51", "4000000000009987": "41", "4000000000009979": "43", "4000000000000069": "54",
		"4000000000000127": "N7", "4000002760003184": "1A",
	} {
		a := open(t, number, nil)
		result, err := a.Sale(t.Context(), saleRequest())
		if err != nil || result.Outcome != pci.Refused || result.ResponseCode != want || a.peer.Moved() != 0 {
			t.Errorf("%s: %+v, %v", number, result, err)
		}
	}
	if got := responseCode("card_declined", "a_code_of_next_year"); got != doNotHonour {
		t.Errorf("an unknown decline is %q", got)
	}
}

func TestWhereNothingHappenedASaleIsUnsent(t *testing.T) {
	for what, c := range map[string]struct {
		fault  func(fakestripe.Request) fakestripe.Fault
		change func(*pci.SaleRequest)
		number string
		want   error
	}{
		"the card is gone":             {number: "-", want: pci.ErrGone},
		"no method, lost":              {fault: at1("/payment_methods", fakestripe.Lost), want: ErrNoAnswer},
		"no method, unheard":           {fault: at1("/payment_methods", fakestripe.Unheard), want: ErrNoAnswer},
		"no method, failed":            {fault: at1("/payment_methods", fakestripe.Failed)},
		"no method, busy":              {fault: at1("/payment_methods", fakestripe.Busy)},
		"no method, redirected":        {fault: at1("/payment_methods", fakestripe.Moved)},
		"no method, echo in no answer": {fault: at1("/payment_methods", fakestripe.Garbled), want: ErrNoAnswer},
		"no trace":                     {change: func(r *pci.SaleRequest) { r.Trace = pci.Trace{} }},
		"no amount":                    {change: func(r *pci.SaleRequest) { r.Amount.Minor = 0 }},
	} {
		number := good
		if c.number == "-" {
			number = ""
		}
		a := open(t, number, nil)
		a.peer.SetFault(c.fault)
		r := saleRequest()
		if c.change != nil {
			c.change(&r)
		}
		result, err := a.Sale(t.Context(), r)
		if result.Outcome != pci.Unsent || err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", what, result, err)
		}
		if len(a.peer.Intents()) != 0 {
			t.Errorf("%s: a payment intent was made", what)
		}
		if strings.Contains(fmt.Sprint(err), number) && number != "" || strings.Contains(fmt.Sprint(err), "person") {
			t.Errorf("%s: the error quotes: %v", what, err)
		}
	}
}

// at1 is a fault at each POST to a path.
func at1(suffix string, fault fakestripe.Fault) func(fakestripe.Request) fakestripe.Fault {
	return func(r fakestripe.Request) fakestripe.Fault {
		if r.Is(suffix) {
			return fault
		}
		return fakestripe.None
	}
}

// once is a fault at the first POST to a path.
func once(suffix string, fault fakestripe.Fault) func(fakestripe.Request) fakestripe.Fault {
	done := false
	return func(r fakestripe.Request) fakestripe.Fault {
		if done || !r.Is(suffix) {
			return fakestripe.None
		}
		done = true
		return fault
	}
}

func TestNobodyAtTheAddressIsUnsent(t *testing.T) {
	a := open(t, good, nil)
	a.healthy.Store(true)
	a.peer.Close()
	result, err := a.Sale(t.Context(), saleRequest())
	if result.Outcome != pci.Unsent || !errors.Is(err, ErrUnreachable) || a.Healthy() {
		t.Errorf("%+v, %v, healthy %t", result, err, a.Healthy())
	}
}

func TestAnotherAuthorityIsNotTrusted(t *testing.T) {
	a := open(t, good, func(cfg *Config) { cfg.TLS = &tls.Config{} })
	if result, err := a.Sale(t.Context(), saleRequest()); result.Outcome != pci.Unsent || !errors.Is(err, ErrUnreachable) || len(a.peer.Requests()) != 0 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestAKeyThatIsNotTakenMakesItUnhealthy(t *testing.T) {
	a := open(t, good, func(cfg *Config) { cfg.Key = Key{"rk_live_restricted000"} })
	a.healthy.Store(true)
	result, err := a.Sale(t.Context(), saleRequest())
	if result.Outcome != pci.Unsent || err == nil || a.Healthy() {
		t.Errorf("%+v, %v, healthy %t", result, err, a.Healthy())
	}
}

func TestARedirectOfTheIntentIsFollowedByNobodyAndLeavesItOpen(t *testing.T) {
	a := open(t, good, nil)
	a.peer.SetFault(at1("/payment_intents", fakestripe.Moved))
	result, err := a.Sale(t.Context(), saleRequest())
	if result.Outcome != pci.Unknown || err == nil || len(a.peer.Requests()) != 2 {
		t.Errorf("%+v, %v, %d requests", result, err, len(a.peer.Requests()))
	}
}

func TestAnAnswerAboutSomethingElseSettlesNothing(t *testing.T) {
	for name, value := range map[string]any{"amount": 1, "currency": "usd", "id": "../../v1/payouts", "object": "charge", "metadata": map[string]string{},
		"status": "processing", "amount_received": 1} {
		a := open(t, good, nil)
		a.peer.SetChange(func(path string, answer map[string]any) {
			if path == pathIntents && answer["object"] != "list" {
				answer[name] = value
			}
		})
		r := saleRequest()
		result, err := a.Sale(t.Context(), r)
		if result.Outcome != pci.Unknown || err == nil || result.Reference != "" && !isID("pi", result.Reference) {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
		a.peer.SetChange(nil)
		if done, err := a.Reverse(t.Context(), reversalOf(r, result.Reference)); !done || err != nil || a.peer.Moved() != 0 {
			t.Errorf("%s: reversed %t, %v, %d moved", name, done, err, a.peer.Moved())
		}
	}
}

// until polls for what must happen.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestEveryFormIsWiped(t *testing.T) {
	a := open(t, good, nil)
	a.peer.SetFault(func(r fakestripe.Request) fakestripe.Fault {
		if r.Is("/payment_methods") && strings.Contains(r.Key, "pay_odd") {
			return fakestripe.Lost
		}
		return fakestripe.None
	})
	for i := range 300 { // more than there are slots
		r := saleRequest()
		if i%2 == 1 {
			r.Payment = "pay_odd"
		}
		r.Trace = trace(i + 1)
		if result, err := a.Sale(t.Context(), r); result.Outcome == pci.Unknown || result.Outcome == pci.Approved && err != nil {
			t.Fatalf("%+v, %v", result, err)
		}
	}
	var slots []*pan.Slot
	for {
		slot, err := pan.NewSlot()
		if err != nil {
			break
		}
		slots = append(slots, slot)
		if strings.Trim(string(slot.Bytes()), "\x00") != "" {
			t.Error("a free slot is not wiped")
		}
	}
	if len(slots) < 250 {
		t.Errorf("only %d slots came back", len(slots))
	}
	for _, slot := range slots {
		slot.Release()
	}
}
