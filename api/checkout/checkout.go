// Package checkout renders the shopper's page: one page, made on the server, that works without a script.
//
// # What is promised
//
// [Page] has no field for card data, so that none can be shown again. The Content-Security-Policy of each page allows
// what that page needs and nothing else: this appliance's style sheet, and form targets by name. No page is stored by
// a browser, and none tells another site its address.
//
// # What is not
//
// The package knows no payment and keeps no state: what to show is decided by its caller.
package checkout

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"github.com/finterra/finpay/pci"
)

// Kind is which page is shown.
type Kind string

// The kinds of pages: where a payment stands, and what can go wrong.
const (
	Payable    Kind = "payable"    // the card form
	Challenge  Kind = "challenge"  // the way to the shopper's bank
	Processing Kind = "processing" // asks again by itself
	Paid       Kind = "paid"
	Uncertain  Kind = "uncertain"
	Failed     Kind = "failed"
	Expired    Kind = "expired"
	Unknown    Kind = "unknown"    // there is no such page
	Busy       Kind = "busy"       // try later
	Unreadable Kind = "unreadable" // the browser sent what no form here sends
	Broken     Kind = "broken"
)

// Page is what a page shows. Only Kind and Language are needed by every kind.
type Page struct {
	Kind       Kind
	Language   Language
	Path       string // of the checkout, where a shopper may try again; empty where there is none
	Merchant   string
	Reference  string // the shop's, of the order
	Amount     pci.Amount
	Decline    string         // reason code of the last attempt; empty when there was none
	Errors     pci.CardErrors // of the form that was just sent
	ReturnURL  string         // back to the shop; empty for no way back
	ReturnSite string         // scheme://host of ReturnURL: sending the card form may redirect there
	ACSURL     string         // where CReq is posted to
	ACSSite    string         // scheme://host of ACSURL
	CReq       string         // base64url

	Sealing *Sealing // what the script seals a card with; nil where no sealed cards are taken
	Open    bool     // whether the form may be sent as it is, which a browser without the script does
}

// Sealing is what a browser needs to seal the card form (HPKE, RFC 9180, base mode). The plaintext is the form's body as it
// would be sent otherwise (application/x-www-form-urlencoded); what is sent instead is a form of key, enc and ct, the latter
// two in base64url without padding.
type Sealing struct {
	Key       string // name of the key, sent along
	PublicKey string // uncompressed point on P-256 (SEC 1), base64url without padding
	Info, AAD string // of RFC 9180, as text
}

//go:embed pages/*.html
var pageFiles embed.FS

// refreshSeconds is how often a page that waits asks again.
const refreshSeconds = 2

//go:embed checkout.css
var styleSheet []byte

// styleName carries the sheet's hash, so that browsers may keep it for ever.
var styleName = func() string {
	sum := sha256.Sum256(styleSheet)
	return "checkout-" + hex.EncodeToString(sum[:6]) + ".css"
}()

// Asset returns a file of the pages and its media type.
func Asset(name string) (body []byte, mediaType string, ok bool) {
	if name != styleName {
		return nil, "", false
	}
	return styleSheet, "text/css; charset=utf-8", true
}

// templates are the layout with each kind's content.
var templates = func() map[Kind]*template.Template {
	layout := template.Must(template.ParseFS(pageFiles, "pages/layout.html"))
	with := func(file string) *template.Template {
		return template.Must(template.Must(layout.Clone()).ParseFS(pageFiles, "pages/"+file))
	}
	message := with("message.html")
	return map[Kind]*template.Template{
		Payable: with("card.html"), Challenge: with("challenge.html"), Processing: with("processing.html"),
		Paid: message, Uncertain: message, Failed: message, Expired: message,
		Unknown: message, Busy: message, Unreadable: message, Broken: message,
	}
}()

// Write answers a request with the page.
func (p Page) Write(w http.ResponseWriter, status int) error {
	t, ok := templates[p.Kind]
	if !ok {
		return fmt.Errorf("checkout: no page for %q", p.Kind)
	}
	var body bytes.Buffer
	if err := t.ExecuteTemplate(&body, "layout", showing{p}); err != nil {
		return fmt.Errorf("checkout: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Language.Code)
	h.Set("Content-Security-Policy", p.policy())
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
	return nil
}

// policy is the page's Content-Security-Policy. Browsers hold the redirects that follow a form to form-action too,
// so the shop is named where sending the card may end there.
func (p Page) policy() string {
	targets := "'none'"
	switch {
	case p.Kind == Challenge && p.ACSSite != "":
		targets = "'self' " + p.ACSSite
	case p.Kind == Payable:
		targets = strings.TrimSpace("'self' " + p.ReturnSite)
	}
	return "default-src 'none'; style-src 'self'; form-action " + targets + "; frame-ancestors 'none'; base-uri 'none'"
}

// showing is a page as the templates see it.
type showing struct{ Page }

// T returns a text in the page's language. A key that is missing is an error, which a test would meet first.
func (s showing) T(key string) (string, error) {
	text, ok := s.Language.texts[key]
	if !ok {
		return "", fmt.Errorf("no text %q in %s", key, s.Language.Code)
	}
	return strings.NewReplacer("{amount}", s.isolate(s.Money()), "{merchant}", s.isolate(s.shop())).Replace(text), nil
}

// shop names the merchant, also on pages that know none.
func (s showing) shop() string {
	if s.Merchant == "" {
		return s.Language.texts["shop"]
	}
	return s.Merchant
}

// isolate keeps a name or an amount from changing the direction of right-to-left text around it (UAX #9, FSI and PDI).
func (s showing) isolate(text string) string {
	if s.Language.Direction != "rtl" {
		return text
	}
	return "\u2068" + text + "\u2069"
}

// Money is the amount in the manner of the page's language.
func (s showing) Money() string { return s.Amount.Format(s.Language.Code) }

// Initial stands for the shop's logo.
func (s showing) Initial() string {
	for _, c := range s.Merchant {
		return strings.ToUpper(string(c))
	}
	return ""
}

// Title is the browser's title of the page.
func (s showing) Title() (string, error) {
	if s.Kind == Payable && len(s.Errors) > 0 {
		return s.T("title.error") // announced first, before the page is read (WCAG technique G199 has the like)
	}
	return s.T("title." + string(s.Kind))
}

// DeclineText says why the last card was not taken.
func (s showing) DeclineText() (string, error) {
	if _, ok := s.Language.texts["decline."+s.Decline]; ok {
		return s.T("decline." + s.Decline)
	}
	return s.T("decline.other")
}

// ErrorOf returns what is wrong with a field, or nothing.
func (s showing) ErrorOf(field string) string {
	for _, e := range s.Errors {
		if string(e.Field) == field {
			return s.errorText(e)
		}
	}
	return ""
}

// mistake is a line of the summary above the form.
type mistake struct{ Field, Text string }

// Mistakes are what is wrong, in the order of the form.
func (s showing) Mistakes() []mistake {
	var all []mistake
	for _, field := range []pci.CardField{pci.FieldNumber, pci.FieldExpiry, pci.FieldCVV, pci.FieldName} {
		if text := s.ErrorOf(string(field)); text != "" {
			all = append(all, mistake{string(field), text})
		}
	}
	return all
}

// FirstMistake reports whether field is the first one that is wrong: it takes the focus.
func (s showing) FirstMistake(field string) bool {
	all := s.Mistakes()
	return len(all) > 0 && all[0].Field == field
}

func (s showing) errorText(e *pci.CardError) string {
	if text, ok := s.Language.texts["error."+string(e.Field)+"."+string(e.Reason)]; ok {
		return text
	}
	return s.Language.texts["error."+string(e.Field)]
}

// FormID tells this showing of the form from every other, so that a second submit of it is known as one.
func (s showing) FormID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return hex.EncodeToString(id)
}

// Refresh is how often the page asks again, in seconds.
func (s showing) Refresh() int { return refreshSeconds }

// Style is the address of the style sheet.
func (s showing) Style() string { return "/assets/" + styleName }

// Languages are those that the page can be shown in.
func (s showing) Languages() []Language { return languages }
