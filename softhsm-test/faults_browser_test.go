//go:build browser

package softhsmtest_test

import (
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/simulator"
)

// opensTab is the same person with another tab of the same browser; closes shuts it as its cross does.
func (p *person) opensTab() (tab *person, closes func()) {
	p.t.Helper()
	ctx, cancel := chromedp.NewContext(p.ctx)
	p.t.Cleanup(cancel)
	tab = &person{system: p.system, ctx: ctx}
	tab.begins(cancel)
	return tab, cancel
}

// opensPage goes to a payment's page.
func (p *person) opensPage(payment api.Payment) {
	p.t.Helper()
	p.does("open the page", chromedp.Navigate(payment.CheckoutURL))
	p.reads("Pay by card")
}

func TestBrowserWhateverAShopperDoesThePaymentIsChargedOnce(t *testing.T) {
	s := newSystem(t, unlimited...)
	for name, test := range map[string]func(*person){
		"a double click": func(p *person) {
			payment := p.made(anotherAmount(), "EUR", "")
			p.opensPage(payment)
			card := typed(approvedCard)
			p.does("fill in the form and click twice",
				chromedp.SendKeys(chromedp.CSS("#number"), card.Number), chromedp.SendKeys(chromedp.CSS("#expiry"), card.Expiry),
				chromedp.SendKeys(chromedp.CSS("#cvv"), card.CVV),
				chromedp.Evaluate[chromedp.Void](`for (const b of [1, 2]) document.querySelector("button[type=submit]").click()`))
			p.reads("Thank you for your order")
			p.onceOnly(payment.ID, 1)
		},
		"two tabs and two cards": func(p *person) {
			payment := p.made(anotherAmount(), "EUR", "")
			other, _ := p.opensTab()
			p.opensPage(payment)
			other.opensPage(payment)
			p.pays(typed(approvedCard))
			p.reads("Thank you for your order")
			other.pays(typed("5555555555554444"))
			other.reads("Thank you for your order")
			p.onceOnly(payment.ID, 1)
		},
		"two tabs, and the other one's card during the challenge": func(p *person) {
			payment := p.made(anotherAmount(), "EUR", "")
			other, _ := p.opensTab()
			p.opensPage(payment)
			other.opensPage(payment)
			p.pays(typed(challengedCard))
			p.reads("Confirm it is you at your bank")
			other.pays(typed(approvedCard))
			other.confirms(simulator.ChallengePassword) // the challenge is shown there as well
			other.reads("Thank you for your order")
			p.onceOnly(payment.ID, 1)
			p.does("load the first tab again", chromedp.Evaluate[chromedp.Void]("location.reload()"))
			p.reads("Thank you for your order")
			p.onceOnly(payment.ID, 1)
		},
		"the challenge is loaded again": func(p *person) {
			payment := p.made(anotherAmount(), "EUR", "")
			p.opensPage(payment)
			p.pays(typed(challengedCard))
			p.reads("Confirm it is you at your bank")
			p.does("load it again", chromedp.Evaluate[chromedp.Void]("location.reload()"))
			p.confirms(simulator.ChallengePassword)
			p.reads("Thank you for your order")
			p.onceOnly(payment.ID, 1)
		},
	} {
		t.Run(name, func(t *testing.T) { test(sitDown(t, s)) })
	}
	s.closesBooks(t)
}

func TestBrowserThatIsClosedInTheChallengeLeavesNothingCharged(t *testing.T) {
	s := newSystem(t, setting{"challenge: 10m ", "challenge: 4s  "})
	p := sitDown(t, s)
	payment := p.made(anotherAmount(), "EUR", "")
	tab, closes := p.opensTab()
	tab.opensPage(payment)
	tab.pays(typed(challengedCard))
	tab.reads("Confirm it is you at your bank")
	closes()
	if got := s.settled(payment.ID); got.Status != api.StatusDeclined || got.Result.Reason != api.ReasonChallengeTimedOut {
		t.Errorf("%s, %+v", got.Status, got.Result)
	}
	s.until("no card is held", func() bool { return s.metric("finpay_custody_cards") == 0 })
	if n := len(s.books().Bookings); n != 0 {
		t.Errorf("%d bookings", n)
	}
	p.opensPage(payment)
	p.reads("Your bank")
	p.pays(typed(approvedCard))
	p.reads("Thank you for your order")
	s.onceOnly(payment.ID, 2)
	s.closesBooks(t)
}
