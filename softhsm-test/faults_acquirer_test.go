package softhsmtest_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/simulator"
)

// fate is what may become of what was under way while a fault was on.
type fate struct {
	sale, authorization, own []api.Status // own is the merchant's, with a stored card
	refunded                 []api.Status // of a captured payment that is refunded
}

// In the end a capture is captured and a void is voided, whatever happened on the way: both are repeated.
var (
	answered = fate{[]api.Status{api.StatusCaptured}, []api.Status{api.StatusAuthorized}, []api.Status{api.StatusCaptured}, []api.Status{api.StatusRefunded}}
	lost     = fate{[]api.Status{api.StatusFailed}, []api.Status{api.StatusFailed}, []api.Status{api.StatusFailed}, []api.Status{api.StatusCaptured}}
	unsent   = fate{[]api.Status{api.StatusCreated}, []api.Status{api.StatusCreated}, []api.Status{api.StatusFailed}, []api.Status{api.StatusCaptured}}
	// What shares a connection with an answer that ends it is lost with it, or was not sent for want of one, or had its answer.
	cutOff = fate{
		[]api.Status{api.StatusFailed, api.StatusCreated},
		[]api.Status{api.StatusFailed, api.StatusCreated},
		[]api.Status{api.StatusFailed},
		[]api.Status{api.StatusCaptured},
	}
	// An echo test that is not answered ends a connection on which others may have had theirs.
	either = fate{
		append(slices.Clone(answered.sale), cutOff.sale...), append(slices.Clone(answered.authorization), cutOff.authorization...),
		append(slices.Clone(answered.own), cutOff.own...), append(slices.Clone(answered.refunded), cutOff.refunded...),
	}
)

// acquirerFault is a fault of the acquirer, and how often it must have struck before it ends.
type acquirerFault struct {
	fault simulator.Fault
	times int
	fate  fate
}

// perRound is how many requests to the acquirer a round makes.
const perRound = 6

func TestWhateverBecomesOfAnAcquirersAnswersTheBooksAgreeInTheEnd(t *testing.T) {
	t.Parallel()
	suffers(t, []acquirerFault{
		{simulator.Slow, perRound, answered},
		{simulator.AnswersTwice, perRound, answered},
		{simulator.Mute, perRound, lost},
		{simulator.Deaf, perRound, lost},
		{simulator.TooLate, perRound, lost},
		{simulator.OtherSTAN, perRound, lost},
		{simulator.OtherAmount, perRound, lost},
		{simulator.OtherCurrency, perRound, lost},
		{simulator.GarbledMessage, perRound, lost},
	})
}

func TestWhateverBecomesOfTheAcquirersConnectionTheBooksAgreeInTheEnd(t *testing.T) {
	t.Parallel()
	suffers(t, []acquirerFault{
		{simulator.HalfFrame, 1, cutOff},
		{simulator.GarbledLength, 1, cutOff},
		{simulator.WrongLength, 1, cutOff},
		{simulator.NoEcho, 1, either},
		{simulator.Refusing, 1, unsent},
	}, setting{"echo_interval: 60s ", "echo_interval: 1s  "})
}

// suffers goes through faults: under each, payments of all kinds are made, and when it is over all of them end.
func suffers(t *testing.T, faults []acquirerFault, settings ...setting) {
	s := newSystem(t, append(settings, unlimited...)...)
	agreed := s.paidNow("EUR", "", approvedCard)
	for i, f := range faults {
		t.Run(string(f.fault), func(t *testing.T) {
			s.t = t
			s.suffer(f, []string{"EUR", "MYR"}[i%2], agreed)
		})
		s.t = t
	}
	s.closesBooks(t)
}

func (s *system) suffer(f acquirerFault, currency string, agreed api.Payment) {
	s.t.Helper()
	const manual = `,"capture":"manual"`
	toCapture, toVoid, toRefund := s.paidNow(currency, manual, approvedCard), s.paidNow(currency, manual, approvedCard), s.paidNow(currency, "", approvedCard)
	sale, authorization := s.made(anotherAmount(), currency, ""), s.made(anotherAmount(), currency, manual)
	own := fmt.Sprintf(`{"amount":%d,"currency":%q,"reference":"order-2","token":%q,"initiator":"merchant","original":%q}`, anotherAmount(), currency, agreed.Token, agreed.ID)

	s.behave("/acquirer", f.fault)
	if f.fault == simulator.Refusing || f.fault == simulator.NoEcho {
		s.until("the fault has struck", func() bool { return s.struck("/acquirer") >= f.times })
	}
	pays := func(p api.Payment) func() {
		return func() { _, _, _ = s.shop.Pay(s.t.Context(), p.CheckoutURL, typed(approvedCard)) } // ends as the fault has it
	}
	asks := func(path, body string) func() {
		return func() { _, _, _ = s.try(s.client, "POST", path, body) }
	}
	wait := atOnce(pays(sale), pays(authorization), asks("/v1/payments", own),
		asks("/v1/payments/"+toCapture.ID+"/capture", `{}`), asks("/v1/payments/"+toVoid.ID+"/void", ``), asks("/v1/payments/"+toRefund.ID+"/refunds", `{}`))
	s.until("the fault has struck all", func() bool { return s.struck("/acquirer") >= f.times })
	if f.times < perRound { // then all have to be under way before it ends
		s.until("all are under way, or ended", func() bool { return s.begun(sale, authorization) })
	}
	s.behave("/acquirer", "")
	wait()

	s.wants("sale", s.settled(sale.ID), f.fate.sale)
	s.wants("authorization", s.settled(authorization.ID), f.fate.authorization)
	s.wants("payment of the merchant's own", s.settled(s.payments()[0].ID), f.fate.own)
	for what, p := range map[string]struct {
		id   string
		want []api.Status
	}{
		"capture": {toCapture.ID, []api.Status{api.StatusCaptured}},
		"void":    {toVoid.ID, []api.Status{api.StatusVoided}},
		"refund":  {toRefund.ID, f.fate.refunded},
	} {
		got, _ := s.modified(p.id)
		s.wants(what, got, p.want)
	}
	s.trueToTheBooks()
}

// begun reports whether cards were entered for payments, and taken further than that.
func (s *system) begun(all ...api.Payment) bool {
	s.t.Helper()
	for _, p := range all {
		if now := s.payment(p.ID); now.Attempts == 0 || now.Status == api.StatusAuthenticating {
			return false
		}
	}
	return true
}

func (s *system) wants(what string, p api.Payment, among []api.Status) {
	s.t.Helper()
	if !slices.Contains(among, p.Status) {
		s.t.Errorf("%s: the payment is %s, want one of %v", what, p.Status, among)
	}
}
