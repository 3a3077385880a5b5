package softhsmtest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/simulator"
)

const challengedCard = "4539123456789017"

// tab is a page in a browser without script, as its forms go: what a shopper does twice, in another order, or not at all.
type tab struct {
	url    *url.URL
	status int
	root   *html.Node
}

// nowhere is what a browser shows when a page cannot be had.
func nowhere() tab { return tab{url: new(url.URL), root: new(html.Node)} }

// opens goes to an address, or submits a form there, and follows where it leads. It may be called by several at once.
func (s *system) opens(address string, form url.Values) tab {
	s.t.Helper()
	method, body := http.MethodGet, ""
	if form != nil {
		method, body = http.MethodPost, form.Encode()
	}
	for range 5 {
		page, next, err := s.fetch(method, address, body)
		if err != nil {
			s.t.Error(err)
			return nowhere()
		}
		if next == "" {
			return page
		}
		method, body, address = http.MethodGet, "", next
	}
	s.t.Errorf("%s leads nowhere", address)
	return nowhere()
}

// fetch returns a page, or where it redirects to.
func (s *system) fetch(method, address, body string) (page tab, next string, err error) {
	request, err := http.NewRequestWithContext(s.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		return page, "", err
	}
	request.Header.Set("Accept", "text/html")
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := s.client.Do(request)
	if err != nil {
		return page, "", err
	}
	defer func() { _ = response.Body.Close() }()
	if location, err := response.Location(); err == nil {
		return page, location.String(), nil
	}
	root, err := html.Parse(io.LimitReader(response.Body, 1<<20))
	return tab{request.URL, response.StatusCode, root}, "", err
}

// form returns where a page's form with a field is sent, and what stands in it; nil where there is none.
func (p tab) form(field string) (action string, values url.Values) {
	for n := range p.root.Descendants() {
		if n.Type != html.ElementNode || n.Data != "form" {
			continue
		}
		values := url.Values{}
		for input := range n.Descendants() {
			disabled := slices.ContainsFunc(input.Attr, func(a html.Attribute) bool { return a.Key == "disabled" })
			if input.Data == "input" && attr(input, "name") != "" && !disabled {
				values.Set(attr(input, "name"), attr(input, "value"))
			}
		}
		if values.Has(field) {
			to, err := p.url.Parse(attr(n, "action"))
			if err != nil {
				return "", nil
			}
			return to.String(), values
		}
	}
	return "", nil
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// sends submits the page's form with a field, after filling in.
func (s *system) sends(p tab, field string, filled url.Values) tab {
	s.t.Helper()
	action, values := p.form(field)
	if values == nil {
		s.t.Errorf("the page at %s (HTTP %d) has no %s", p.url.Host, p.status, field)
		return nowhere()
	}
	for name, value := range filled {
		values[name] = value
	}
	return s.opens(action, values)
}

// card is what is typed into a card form.
func card(number string) url.Values {
	c := typed(number)
	return url.Values{"number": {c.Number}, "expiry": {c.Expiry}, "cvv": {c.CVV}, "name": {c.Name}}
}

// challenged takes a payment to the issuer's page.
func (s *system) challenged(link string) (checkout, issuer tab) {
	s.t.Helper()
	checkout = s.sends(s.opens(link, nil), "number", card(challengedCard))
	return checkout, s.sends(checkout, "creq", nil)
}

var password = url.Values{"password": {simulator.ChallengePassword}}

// onceOnly wants a payment captured by one attempt, and one booking.
func (s *system) onceOnly(id string, attempts int) {
	s.t.Helper()
	if got := s.settled(id); got.Status != api.StatusCaptured || got.Attempts != attempts || got.Captured != got.Amount {
		s.t.Errorf("%s after %d attempts, want captured after %d", got.Status, got.Attempts, attempts)
	}
	s.trueToTheBooks()
}

func TestWhateverAShopperDoesThePaymentIsChargedOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t, unlimited...)
	for _, tt := range []struct {
		what string
		does func(p api.Payment)
	}{
		{"a double click", func(p api.Payment) {
			page := s.opens(p.CheckoutURL, nil)
			click := func() { s.sends(page, "number", card(approvedCard)) } // the same form, with the same mark
			atOnce(click, click, click)()
			s.onceOnly(p.ID, 1)
		}},
		{"back, and the form once more", func(p api.Payment) {
			page := s.opens(p.CheckoutURL, nil)
			s.sends(page, "number", card(approvedCard))
			again := s.sends(page, "number", card("5555555555554444"))
			if _, form := again.form("number"); form != nil {
				s.t.Error("a card form is shown for what is paid")
			}
			s.onceOnly(p.ID, 1)
		}},
		{"two tabs and two cards", func(p api.Payment) {
			one, other := s.opens(p.CheckoutURL, nil), s.opens(p.CheckoutURL, nil)
			atOnce(func() { s.sends(one, "number", card(approvedCard)) }, func() { s.sends(other, "number", card("5555555555554444")) })()
			s.onceOnly(p.ID, 1)
		}},
		{"another tab with another card during the challenge", func(p api.Payment) {
			other := s.opens(p.CheckoutURL, nil)
			_, issuer := s.challenged(p.CheckoutURL)
			if _, form := s.sends(other, "number", card(approvedCard)).form("creq"); form == nil {
				s.t.Error("the other tab does not lead to the challenge")
			}
			s.sends(s.sends(issuer, "password", password), "cres", nil)
			s.onceOnly(p.ID, 1)
		}},
		{"the challenge is loaded again, on either side", func(p api.Payment) {
			s.challenged(p.CheckoutURL)
			again := s.opens(p.CheckoutURL, nil)
			s.sends(again, "creq", nil)
			s.sends(s.sends(s.sends(again, "creq", nil), "password", password), "cres", nil)
			s.onceOnly(p.ID, 1)
		}},
		{"back from the challenge twice", func(p api.Payment) {
			_, issuer := s.challenged(p.CheckoutURL)
			back := s.sends(issuer, "password", password)
			atOnce(func() { s.sends(back, "cres", nil) }, func() { s.sends(back, "cres", nil) })()
			s.sends(back, "cres", nil)
			s.onceOnly(p.ID, 1)
		}},
		{"the issuer's page is answered twice", func(p api.Payment) {
			_, issuer := s.challenged(p.CheckoutURL)
			s.sends(issuer, "password", password)
			s.sends(s.sends(issuer, "password", password), "cres", nil)
			s.onceOnly(p.ID, 1)
		}},
		{"back from the challenge without an answer, then with one", func(p api.Payment) {
			checkout, issuer := s.challenged(p.CheckoutURL)
			if _, form := s.opens(p.CheckoutURL, nil).form("creq"); form == nil {
				s.t.Error("the challenge is not shown again")
			}
			s.sends(checkout, "creq", nil)
			s.sends(s.sends(issuer, "password", password), "cres", nil)
			s.onceOnly(p.ID, 1)
		}},
		{"gone after the issuer was answered", func(p api.Payment) { // its result comes all the same
			_, issuer := s.challenged(p.CheckoutURL)
			s.sends(issuer, "password", password)
			s.onceOnly(p.ID, 1)
		}},
		{"the session ends during the challenge", func(p api.Payment) { // what was begun in time is finished
			_, issuer := s.challenged(p.CheckoutURL)
			s.database("UPDATE payments SET expires_at = '2020-01-01T00:00:00.000000000Z' WHERE id = ?", p.ID)
			s.sends(s.sends(issuer, "password", password), "cres", nil)
			s.onceOnly(p.ID, 1)
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s.t = t
			tt.does(s.made(anotherAmount(), "EUR", ""))
		})
		s.t = t
	}
	s.closesBooks(t)
}

// A form that was shown in time and is sent too late takes no card.
func TestACardThatComesAfterTheSessionsEndIsNotCharged(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	p := s.made(anotherAmount(), "EUR", "")
	page := s.opens(p.CheckoutURL, nil)
	s.database("UPDATE payments SET expires_at = '2020-01-01T00:00:00.000000000Z' WHERE id = ?", p.ID)
	if late := s.sends(page, "number", card(approvedCard)); late.status != http.StatusGone {
		t.Errorf("HTTP %d", late.status)
	}
	s.until("it is expired", func() bool { return s.payment(p.ID).Status == api.StatusExpired })
	if n := len(s.books().Bookings); n != 0 {
		t.Errorf("%d bookings", n)
	}
}

// One who closes the browser in the challenge leaves a payment that ends by its deadline, and takes another card after that.
func TestAShopperWhoLeavesInTheChallengeIsNotCharged(t *testing.T) {
	t.Parallel()
	s := newSystem(t, setting{"challenge: 10m ", "challenge: 2s  "})
	p := s.made(anotherAmount(), "EUR", "")
	checkout := s.sends(s.opens(p.CheckoutURL, nil), "number", card(challengedCard))
	if got := s.settled(p.ID); got.Status != api.StatusDeclined || got.Result.Reason != api.ReasonChallengeTimedOut {
		t.Errorf("%s, %+v", got.Status, got.Result)
	}
	if n := len(s.books().Bookings); n != 0 {
		t.Errorf("%d bookings", n)
	}
	s.until("no card is held", func() bool { return s.metric("finpay_custody_cards") == 0 })
	// The issuer's page is still open in another tab: what is answered there comes too late, for this card and for the next.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	action, values := checkout.form("creq")
	issuer := s.opens(action, values)
	if issuer.status != http.StatusOK {
		t.Fatalf("HTTP %d", issuer.status)
	}
	if late := s.sends(issuer, "password", password); late.status != http.StatusBadGateway {
		t.Errorf("a result that nobody waits for is taken: HTTP %d", late.status)
	}
	if got := s.payment(p.ID); got.Status != api.StatusDeclined {
		t.Errorf("%s", got.Status)
	}
	if _, _, err := s.shop.Pay(ctx, p.CheckoutURL, typed(approvedCard)); err != nil {
		t.Error(fmt.Errorf("another card: %w", err))
	}
	s.onceOnly(p.ID, 2)
	s.closesBooks(t)
}
