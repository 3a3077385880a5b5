package payment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// model drives a world at random. It expects nothing of a single step; what must hold whatever happens is in
// [model.check].
type model struct {
	*world
	payments []string // ids
	forms    int      // shown so far
	paying   sync.WaitGroup
	tried    map[string]bool // reversals, by payment
}

func TestWhateverHappensAPaymentIsChargedAtMostOnceAndTheLogAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{world: newWorld(t, func(c *Config) {
			c.UnavailableRefuse = rapid.Bool().Draw(t, "refuse when unavailable")
			soon(c)
			c.Authorization = 6 * 24 * time.Hour
		})}
		m.tried = make(map[string]bool)
		m.acquirer.ack = true
		m.Create(t)
		t.Repeat(map[string]func(*rapid.T){
			"create":      m.Create,
			"pay":         m.Pay,
			"stored":      m.Stored,
			"pay stored":  m.PayStored,
			"pay again":   m.Pay, // twice as likely
			"tabs":        m.Tabs,
			"challenge":   m.ChallengeDone,
			"answer":      m.Answer,
			"reverse":     m.Reverse,
			"capture":     m.Capture,
			"void":        m.Void,
			"refund":      m.Refund,
			"refund more": m.Refund,
			"at once":     m.AtOnce,
			"acquirer":    m.Acquirer,
			"repeat":      m.Repeat,
			"hsm":         m.HSM,
			"restart":     m.Restart,
			"later":       m.Later,
			"days":        m.Days,
			"":            m.Check,
		})
		m.finish()
	})
}

func TestWhateverAMerchantDoesTheBooksAgreeToTheCent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{world: newWorld(t, soon), tried: make(map[string]bool)}
		m.acquirer.ack = true
		for _, capture := range []string{"automatic", captureManual} {
			request := order()
			request.Capture = capture
			p, err := m.service.Create(context.Background(), own, request, "")
			if err != nil {
				t.Fatal(err)
			}
			m.paid(m.session(p.ID), card{})
			m.payments = append(m.payments, p.ID)
		}
		t.Repeat(map[string]func(*rapid.T){
			"capture":  m.Capture,
			"void":     m.Void,
			"refund":   m.Refund,
			"at once":  m.AtOnce,
			"acquirer": m.Acquirer,
			"answer":   m.Answer,
			"repeat":   m.Repeat,
			"reverse":  m.Reverse,
			"hsm":      m.HSM,
			"restart":  m.Restart,
			"":         m.Check,
		})
		m.finish()
	})
}

func (m *model) Create(t *rapid.T) {
	if len(m.payments) == 4 {
		t.Skip("enough payments")
	}
	request := order()
	request.Capture = rapid.SampledFrom([]string{"automatic", captureManual}).Draw(t, "capture")
	p, err := m.service.Create(context.Background(), own, request, "")
	if errors.Is(err, api.ErrUnavailable) {
		return // the HSM is away
	}
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	m.payments = append(m.payments, p.ID)
}

// Stored creates a payment with the stored card of an earlier one: the customer's, or the merchant's own.
func (m *model) Stored(t *rapid.T) {
	if len(m.payments) == 4 {
		t.Skip("enough payments")
	}
	original := m.any(t)
	p := m.payment(original)
	if p.Attempts == 0 {
		t.Skip("no card yet")
	}
	request := order()
	request.Token, request.Initiator = m.attempt(original, p.Attempts).Token, pci.ByCustomer
	if rapid.Bool().Draw(t, "by the merchant") {
		request.Initiator, request.Original, request.ReturnURL = pci.ByMerchant, original, ""
	}
	m.cards.keep(request.Token, anyCard(t))
	request.Capture = rapid.SampledFrom([]string{"automatic", captureManual}).Draw(t, "capture")
	service, started := m.service, make(chan string, 1)
	m.paying.Go(func() { // an answer that is held must not stop the next step
		shown, err := service.Create(service.background, own, request, "")
		if err != nil && api.ProblemOf(err).Code != api.ErrInvalid.Code && api.ProblemOf(err).Code != api.ErrUnavailable.Code && service.background.Err() == nil {
			m.t.Errorf("create with a stored card: %v", err)
		}
		started <- shown.ID
	})
	id := ""
	m.until("the payment is decided or held", func() bool {
		select {
		case id = <-started:
			return true
		default:
		}
		rows, err := m.store.Read(context.Background()).Payments(store.PaymentFilter{MerchantID: ownShop, Limit: 10})
		if err != nil {
			m.t.Fatal(err)
		}
		if newest := rows[0].ID; !slices.Contains(m.payments, newest) && m.acquirer.holds(newest) {
			id = newest
			return true
		}
		return false
	})
	if id != "" {
		m.payments = append(m.payments, id)
	}
	m.rest()
}

// PayStored presses the button of a stored card, whether the page shows it or not.
func (m *model) PayStored(t *rapid.T) {
	id, form := m.any(t), m.anyForm(t)
	service, secret := m.service, m.session(id)
	done := make(chan struct{})
	m.paying.Go(func() {
		defer close(done)
		_, _ = service.PayStored(service.background, secret, form, pci.Browser{IP: "198.51.100.7"})
	})
	m.until("it is paid, held or challenged", func() bool {
		select {
		case <-done:
			return true
		default:
			return m.acquirer.holds(id)
		}
	})
	m.rest()
}

func (m *model) any(t *rapid.T) string {
	if len(m.payments) == 0 {
		t.Skip("no payment yet")
	}
	return m.payments[rapid.IntRange(0, len(m.payments)-1).Draw(t, "payment")] // ids differ from run to run
}

// anyCard draws what the counterparties do about a card.
func anyCard(t *rapid.T) card {
	return card{
		issuer: rapid.SampledFrom([]pci.AuthenticationOutcome{pci.Authenticated, pci.Authenticated, pci.AuthenticationTried, pci.ChallengeRequired,
			pci.ChallengeRequired, pci.AuthenticationNo, pci.AuthenticationDown, pci.NotEnrolled, pci.NotChallenged}).Draw(t, "issuer"),
		soft:     rapid.IntRange(0, 2).Draw(t, "declined softly") == 0,
		second:   rapid.SampledFrom([]pci.AuthenticationOutcome{"", "", pci.Authenticated, pci.AuthenticationNo, pci.NotEnrolled}).Draw(t, "issuer after that"),
		down:     rapid.IntRange(0, 9).Draw(t, "directory server") == 0,
		acquirer: rapid.SampledFrom([]pci.SaleOutcome{pci.Approved, pci.Approved, pci.Refused, pci.Unsent, pci.Unknown, pci.Unknown}).Draw(t, "acquirer"),
		code:     rapid.SampledFrom([]string{"05", "51", "54", "99", ""}).Draw(t, "response code"),
		booked:   rapid.Bool().Draw(t, "booked though unanswered"),
		hold:     rapid.IntRange(0, 4).Draw(t, "hold the answer") == 0,
	}
}

// anyForm draws one of the forms shown so far, or a new one.
func (m *model) anyForm(t *rapid.T) string {
	n := rapid.IntRange(0, m.forms).Draw(t, "form")
	if n == m.forms {
		m.forms++
	}
	return fmt.Sprintf("form-%d", n)
}

func (m *model) Pay(t *rapid.T) {
	id := m.any(t)
	m.submit(id, anyCard(t), m.anyForm(t))
	m.rest()
}

// Tabs is a shopper who presses the button in several tabs, or twice in one.
func (m *model) Tabs(t *rapid.T) {
	id := m.any(t)
	for range rapid.IntRange(2, 4).Draw(t, "tabs") {
		m.submit(id, anyCard(t), m.anyForm(t))
	}
	m.rest()
}

// submit pays in the background: an answer that is held must not stop the shopper's next step.
func (m *model) submit(id string, c card, form string) {
	service, secret, ref := m.service, m.session(id), m.cards.hold(c)
	m.paying.Go(func() {
		// What comes back is a page, or an error while the HSM is away or the process ends. What counts is what happened.
		_, _ = service.Pay(service.background, secret, ref, entered(form), pci.Browser{IP: "198.51.100.7"})
	})
}

// rest waits until nothing moves by itself: each payment waits for a shopper, an issuer or an acquirer.
func (m *model) rest() {
	m.until("all payments rest", func() bool {
		// First the cards: one that nobody has taken up yet is a submission that has not begun. After that each payment
		// that moves shows it. The other way round, a payment could begin and give up its card between the two looks.
		if m.cards.left() > m.inHand() {
			return false
		}
		for _, id := range m.payments {
			v, err := m.service.View(context.Background(), m.session(id))
			if err != nil {
				m.t.Fatalf("view: %v", err)
			}
			if v.State == api.CheckoutProcessing && !m.acquirer.holds(id) {
				return false
			}
		}
		return m.service.inFlight() <= m.acquirer.lingering()
	})
}

// inHand counts the payments whose attempt may still have its card. One that was declined softly has not: to count it would hide
// another card that is on its way to the payment.
func (m *model) inHand() (n int) {
	for _, id := range m.payments {
		if !m.acquirer.holds(id) && m.service.openChallenge(id) == nil {
			continue
		}
		if p := m.payment(id); p.Attempts == 0 || m.attempt(id, p.Attempts).SoftDecline == "" {
			n++
		}
	}
	return n
}

func (m *model) ChallengeDone(t *rapid.T) {
	id := m.any(t)
	result := rapid.SampledFrom([]pci.Authentication{yes, yes, no, {Outcome: pci.AuthenticationDown, TransStatus: "U", ServerTransID: "server"}}).Draw(t, "result")
	open := m.service.openChallenge(id) != nil
	for i := range rapid.IntRange(1, 2).Draw(t, "times") {
		err := m.service.ChallengeDone(context.Background(), id, result)
		if wanted := open && i == 0; wanted != (err == nil) {
			t.Fatalf("result %d with an open challenge %v: %v", i+1, open, err)
		} else if err != nil && !errors.Is(err, pci.ErrGone) {
			t.Fatalf("a result for no challenge: %v", err)
		}
	}
	m.rest()
}

// Answer lets the acquirer's held answers go.
func (m *model) Answer(*rapid.T) {
	m.acquirer.release()
	m.rest()
}

func (m *model) Reverse(t *rapid.T) {
	how := rapid.SampledFrom([]string{"acknowledged", "refused", "answer lost", "not sent"}).Draw(t, "reversal")
	m.acquirer.set(func(a *acquirer) {
		a.ack, a.lost, a.reject = how == "acknowledged", how == "answer lost", nil
		if how == "not sent" {
			a.reject = errors.New("the line is down")
		}
	})
	left := m.service.reverseOnce(context.Background(), m.tried)
	if how != "acknowledged" {
		return
	}
	pending, err := m.service.Pending(context.Background())
	if err != nil || pending != left {
		t.Fatalf("%d reversals are left, %d pending (%v)", left, pending, err)
	}
}

// anyAmount draws what a merchant asks for: too much, too, and 0 for all.
func anyAmount(t *rapid.T) api.ModifyPayment {
	return api.ModifyPayment{Amount: rapid.SampledFrom([]int64{0, 1, 250, 600, 1249, 1250, 1251}).Draw(t, "amount")}
}

// wanted fails on an error that a merchant must not see.
func wanted(t *rapid.T, what string, err error) {
	if err == nil {
		return
	}
	for _, expected := range []*api.Problem{api.ErrNotPossible, api.ErrAmount, api.ErrUnavailable} {
		if api.ProblemOf(err).Code == expected.Code {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func (m *model) Capture(t *rapid.T) {
	wanted(t, "capture", second(m.service.Capture(context.Background(), own, m.any(t), anyAmount(t), "")))
	m.rest()
}

func (m *model) Void(t *rapid.T) {
	wanted(t, "void", second(m.service.Void(context.Background(), own, m.any(t), "")))
	m.rest()
}

func (m *model) Refund(t *rapid.T) {
	wanted(t, "refund", second(m.service.Refund(context.Background(), own, m.any(t), anyAmount(t), "")))
	m.rest()
}

// AtOnce is a merchant who captures, voids and refunds one payment at the same time.
func (m *model) AtOnce(t *rapid.T) {
	id, amount := m.any(t), anyAmount(t)
	var all sync.WaitGroup
	var errs [3]error
	all.Go(func() { errs[0] = second(m.service.Capture(context.Background(), own, id, amount, "")) })
	all.Go(func() { errs[1] = second(m.service.Void(context.Background(), own, id, "")) })
	all.Go(func() { errs[2] = second(m.service.Refund(context.Background(), own, id, amount, "")) })
	all.Wait()
	for _, err := range errs {
		wanted(t, "at once", err)
	}
	m.rest()
}

// Acquirer draws what becomes of captures and refunds from now on.
func (m *model) Acquirer(t *rapid.T) {
	capture := rapid.SampledFrom([]string{"", "", "refused", "lost", "unsent"}).Draw(t, "captures are")
	refund := card{acquirer: rapid.SampledFrom([]pci.SaleOutcome{"", "", pci.Refused, pci.Unsent, pci.Unknown}).Draw(t, "refunds are"),
		booked: rapid.Bool().Draw(t, "booked though unanswered")}
	slow := rapid.IntRange(0, 3).Draw(t, "slow") == 0
	m.acquirer.set(func(a *acquirer) { a.capture, a.refund, a.slow = capture, refund, slow })
}

// Repeat goes through the queue of modifications once. The acquirer is not slow then: it would hold the test.
func (m *model) Repeat(*rapid.T) {
	m.acquirer.set(func(a *acquirer) { a.slow = false })
	m.service.repeatOnce(context.Background())
}

// HSM makes the next signatures fail.
func (m *model) HSM(t *rapid.T) { m.key.fail(rapid.IntRange(1, 2).Draw(t, "failures")) }

func (m *model) Restart(*rapid.T) {
	m.key.fail(0) // an HSM that is away keeps the next process from starting; that is another test
	m.crash()
	m.paying.Wait()
	m.acquirer.release()
	m.open()
	if err := m.service.Recover(context.Background()); err != nil {
		m.t.Fatalf("recover: %v", err)
	}
	m.rest()
}

// Later lets time pass and ends what is over.
func (m *model) Later(t *rapid.T) {
	m.clock.advance(time.Duration(rapid.IntRange(1, 40).Draw(t, "minutes")) * time.Minute)
	if err := m.service.expire(context.Background()); err != nil && !errors.Is(err, ledger.ErrUnavailable) {
		t.Fatalf("expire: %v", err)
	}
}

// Days pass, after which authorizations are given up.
func (m *model) Days(t *rapid.T) {
	m.clock.advance(time.Duration(rapid.IntRange(1, 9).Draw(t, "days")) * 24 * time.Hour)
	if err := m.service.lapse(context.Background()); err != nil && !errors.Is(err, ledger.ErrUnavailable) {
		t.Fatalf("lapse: %v", err)
	}
	m.rest()
}

// Check is what must hold whatever happened.
func (m *model) Check(t *rapid.T) {
	stans := make(map[string]string)
	for _, id := range m.payments {
		p, charged := m.payment(id), m.acquirer.charged(id)
		open := m.checkMoney(t, id, stans)
		if charged > 1 {
			t.Fatalf("payment %s is charged %d times", id, charged)
		}
		switch api.Status(p.Status) {
		case api.StatusAuthorized, api.StatusCaptured, api.StatusPartiallyRefunded, api.StatusRefunded:
			if charged != 1 && open != store.ModificationVoid {
				t.Fatalf("payment %s is %s, and charged %d times", id, p.Status, charged)
			}
		case api.StatusAuthorizing, api.StatusIndeterminate: // not known yet
		default:
			if charged != 0 {
				t.Fatalf("payment %s is %s, and charged", id, p.Status)
			}
		}
		for n := range p.Attempts {
			a := m.attempt(id, n+1)
			for _, stan := range []string{a.Trace.STAN, a.Reversal.STAN} {
				name := fmt.Sprintf("%s/%d", id, n+1)
				if other, taken := stans[stan]; taken && stan != "" {
					t.Fatalf("attempts %s and %s have the same STAN", other, name)
				}
				stans[stan] = name
			}
		}
		if n := p.Attempts; n > maxTries {
			t.Fatalf("payment %s had %d attempts", id, n)
		}
		m.agree(id)
	}
	if held, most := m.cards.left(), m.inHand(); held > most {
		t.Fatalf("%d cards are held, for %d attempts in hand", held, most)
	}
}

// checkMoney holds what the appliance says of a payment's money against the acquirer's books, to the cent. It returns the kind of
// the open modification, which may have moved its amount or not.
func (m *model) checkMoney(t rapid.TB, id string, stans map[string]string) (open string) {
	p, moved := m.payment(id), m.acquirer.moved(id)
	told := p.Captured - p.Refunded
	var captured, refunded int64
	possible := map[int64]bool{told: true}
	if s := api.Status(p.Status); s == api.StatusAuthorizing || s == api.StatusIndeterminate {
		possible[p.Amount.Minor] = p.Capture != captureManual // a sale of which nothing is known
	}
	for _, modification := range m.modifications(id) {
		amount := modification.Amount.Minor
		switch {
		case modification.Open() && open != "":
			t.Fatalf("payment %s has two open modifications", id)
		case modification.Open():
			if open = modification.Kind; open == store.ModificationRefund {
				possible[told-amount] = true
			} else if open == store.ModificationCapture {
				possible[told+amount] = true
			}
		case modification.Status == store.ModificationSucceeded && modification.Kind == store.ModificationCapture:
			captured += amount
		case modification.Status == store.ModificationSucceeded && modification.Kind == store.ModificationRefund:
			refunded += amount
		}
		for _, stan := range []string{modification.Trace.STAN, modification.Reversal.STAN} {
			if other, taken := stans[stan]; taken && stan != "" {
				t.Fatalf("%s and %s have the same STAN", other, modification.ID)
			}
			stans[stan] = modification.ID
		}
	}
	if !possible[moved] {
		t.Fatalf("payment %s is %s with %d captured and %d refunded; the acquirer has booked %d", id, p.Status, p.Captured, p.Refunded, moved)
	}
	if p.Refunded > p.Captured || p.Captured > p.Amount.Minor || refunded != p.Refunded || p.Capture == captureManual && captured != p.Captured {
		t.Fatalf("payment %s says %d captured and %d refunded, its modifications %d and %d", id, p.Captured, p.Refunded, captured, refunded)
	}
	return open
}

// finish brings everything to its end: then each payment is charged once or not at all, and is told so.
func (m *model) finish() {
	m.key.fail(0)
	m.acquirer.release()
	m.rest()
	m.acquirer.set(func(a *acquirer) { a.ack, a.lost, a.reject, a.capture, a.slow = true, false, nil, "", false })
	if left := m.service.repeatOnce(context.Background()); left != 0 {
		m.t.Errorf("%d modifications are left", left)
	}
	for _, id := range m.payments {
		if m.service.openChallenge(id) != nil {
			_ = m.service.ChallengeDone(context.Background(), id, no)
		}
	}
	m.acquirer.release()
	m.rest()
	if left := m.service.reverseOnce(context.Background(), m.tried); left != 0 {
		m.t.Errorf("%d reversals are left", left)
	}
	for _, id := range m.payments {
		p := m.payment(id)
		paid := slices.Contains([]api.Status{api.StatusAuthorized, api.StatusCaptured, api.StatusPartiallyRefunded, api.StatusRefunded}, api.Status(p.Status))
		if charged := m.acquirer.charged(id); charged > 1 || paid != (charged == 1) {
			m.t.Errorf("in the end payment %s is %s, and charged %d times", id, p.Status, charged)
		}
		if open := m.checkMoney(m.t, id, make(map[string]string)); open != "" {
			m.t.Errorf("in the end payment %s has an open %s", id, open)
		}
		m.agree(id)
	}
	m.paying.Wait()
	m.end()
}
