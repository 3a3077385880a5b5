package simulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"
)

// Shopper does what a person with a browser does, without script: it fills in forms and follows links. It types card
// numbers, so it runs in the process of a demo or a test, never in that of the appliance.
type Shopper struct {
	// Client trusts the sites that the shopper visits, and follows no redirect by itself: the shopper does.
	Client *http.Client
	// Seal is what the page's script would make of the card form behind a link: nil sends it as it is.
	Seal func(link string, form url.Values) (url.Values, error)
}

// Page is what a browser shows.
type Page struct {
	URL    *url.URL
	Status int    // HTTP status
	Text   string // all that stands on it
	forms  []htmlForm
	links  []*url.URL
}

// Typed is what a shopper types into a card form.
type Typed struct{ Number, Expiry, CVV, Name string }

type htmlForm struct {
	action *url.URL
	values url.Values
}

const maxPage = 1 << 20

// patience is how many pages a shopper looks at before giving up.
const patience = 10

// Buy presses the shop's first button and returns the checkout link that the shop redirects to.
func (s *Shopper) Buy(ctx context.Context, shop string) (string, error) {
	p, err := s.Open(ctx, shop+"/")
	if err != nil {
		return "", err
	}
	if len(p.forms) == 0 {
		return "", fmt.Errorf("the shop sells nothing (HTTP %d)", p.Status)
	}
	response, err := s.send(ctx, p.forms[0], nil)
	if err != nil {
		return "", err
	}
	_ = response.Body.Close()
	link := response.Header.Get("Location")
	if response.StatusCode != http.StatusSeeOther || link == "" {
		return "", fmt.Errorf("the shop could not create a payment (HTTP %d)", response.StatusCode)
	}
	return link, nil
}

// Pay takes a checkout link to its end, over the issuer's page where there is one, and returns the shop's last page.
// challenged says that the issuer asked.
func (s *Shopper) Pay(ctx context.Context, link string, card Typed) (last Page, challenged bool, err error) {
	p, err := s.Enter(ctx, link, card)
	return s.goOn(ctx, p, err)
}

// PayStored does the same with the stored card that the checkout page offers.
func (s *Shopper) PayStored(ctx context.Context, link string) (last Page, challenged bool, err error) {
	p, err := s.Open(ctx, link)
	if err != nil {
		return p, false, err
	}
	button, ok := p.form("form")
	if !ok || p.has("number") {
		return p, false, fmt.Errorf("the checkout page offers no stored card (HTTP %d)", p.Status)
	}
	p, err = s.submit(ctx, button, nil)
	return s.goOn(ctx, p, err)
}

// goOn follows what comes after the checkout page.
func (s *Shopper) goOn(ctx context.Context, p Page, err error) (last Page, challenged bool, _ error) {
	for range patience {
		if err != nil {
			return p, challenged, err
		}
		switch {
		case p.has("creq"):
			challenged = true
			issuer, _ := p.form("creq")
			p, err = s.submit(ctx, issuer, nil)
		case p.has("password"):
			issuer, _ := p.form("password")
			p, err = s.submit(ctx, issuer, url.Values{"password": {ChallengePassword}})
		case p.has("cres"):
			back, _ := p.form("cres")
			p, err = s.submit(ctx, back, nil)
		default:
			return s.leave(ctx, p, challenged)
		}
	}
	return p, challenged, errors.Join(err, fmt.Errorf("after %d pages the shopper is not back at the shop", patience))
}

// Enter fills in the card form behind a checkout link and returns the page that follows.
func (s *Shopper) Enter(ctx context.Context, link string, card Typed) (Page, error) {
	p, err := s.Open(ctx, link)
	if err != nil {
		return p, err
	}
	empty, ok := p.form("number")
	if !ok {
		return p, fmt.Errorf("the checkout page has no card form (HTTP %d)", p.Status)
	}
	filled := url.Values{"number": {card.Number}, "expiry": {card.Expiry}, "cvv": {card.CVV}, "name": {card.Name}}
	if s.Seal == nil {
		return s.submit(ctx, empty, filled)
	}
	form := maps.Clone(empty.values)
	maps.Copy(form, filled)
	sealed, err := s.Seal(link, form)
	if err != nil {
		return p, err
	}
	return s.submit(ctx, htmlForm{action: empty.action}, sealed)
}

// leave follows the link back to the shop, unless the shopper is there already.
func (s *Shopper) leave(ctx context.Context, p Page, challenged bool) (Page, bool, error) {
	for _, link := range p.links {
		if link.Query().Get("signature") != "" {
			back, err := s.Open(ctx, link.String())
			return back, challenged, err
		}
	}
	if p.URL.Query().Get("signature") == "" {
		return p, challenged, fmt.Errorf("the page shows no way back to the shop (HTTP %d)", p.Status)
	}
	return p, challenged, nil
}

// Open goes to an address, and on to where it redirects.
func (s *Shopper) Open(ctx context.Context, address string) (Page, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return Page{}, err
	}
	return s.follow(ctx, request)
}

func (s *Shopper) submit(ctx context.Context, f htmlForm, typed url.Values) (Page, error) {
	response, err := s.send(ctx, f, typed)
	if err != nil {
		return Page{}, err
	}
	return s.read(ctx, response)
}

func (s *Shopper) send(ctx context.Context, f htmlForm, typed url.Values) (*http.Response, error) {
	values := url.Values{}
	maps.Copy(values, f.values)
	maps.Copy(values, typed)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.action.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return s.do(request)
}

func (s *Shopper) follow(ctx context.Context, request *http.Request) (Page, error) {
	response, err := s.do(request)
	if err != nil {
		return Page{}, err
	}
	return s.read(ctx, response)
}

func (s *Shopper) do(request *http.Request) (*http.Response, error) {
	request.Header.Set("Accept", "text/html")
	request.Header.Set("Accept-Language", "en")
	request.Header.Set("User-Agent", "FINPay-demo")
	response, err := s.Client.Do(request)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the address holds the session's secret
		}
		return nil, fmt.Errorf("%s %s: %w", request.Method, request.URL.Host, err)
	}
	return response, nil
}

// read parses a page, or goes where it redirects to.
func (s *Shopper) read(ctx context.Context, response *http.Response) (Page, error) {
	defer func() { _ = response.Body.Close() }()
	if location, err := response.Location(); err == nil {
		return s.Open(ctx, location.String())
	}
	root, err := html.Parse(io.LimitReader(response.Body, maxPage))
	if err != nil {
		return Page{}, err
	}
	p := Page{URL: response.Request.URL, Status: response.StatusCode}
	for n := range root.Descendants() {
		switch {
		case n.Type == html.TextNode:
			p.Text += strings.TrimSpace(n.Data) + "\n"
		case n.Type != html.ElementNode:
		case n.Data == "a":
			if link, err := p.URL.Parse(attribute(n, "href")); err == nil {
				p.links = append(p.links, link)
			}
		case n.Data == "form":
			action, err := p.URL.Parse(attribute(n, "action"))
			if err != nil {
				return p, err
			}
			p.forms = append(p.forms, htmlForm{action, inputs(n)})
		}
	}
	return p, nil
}

func inputs(n *html.Node) url.Values {
	values := url.Values{}
	for input := range n.Descendants() {
		disabled := slices.ContainsFunc(input.Attr, func(a html.Attribute) bool { return a.Key == "disabled" })
		if name := attribute(input, "name"); name != "" && input.Data == "input" && !disabled {
			values.Set(name, attribute(input, "value"))
		}
	}
	return values
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// form returns the first form that has an input of this name.
func (p Page) form(input string) (htmlForm, bool) {
	for _, f := range p.forms {
		if f.values.Has(input) {
			return f, true
		}
	}
	return htmlForm{}, false
}

func (p Page) has(input string) bool {
	_, ok := p.form(input)
	return ok
}
