// Package checkout renders the shopper's pages. They are made on the server, and one script of this appliance makes them
// better: it groups and checks what is typed, and sends the card sealed to a key in the HSM.
//
// # What is promised
//
// [Page] has no field for card data, so that none can be shown again. The Content-Security-Policy of each page allows
// what that page needs and nothing else: this appliance's style sheet and script, form targets and frames by name. The script
// fetches nothing, and pages say by hash which script and style sheet they mean. No page is stored by a browser, and none
// tells another site its address.
//
// Without a script a card can be entered where [Page.Open] is set; elsewhere the inputs have no names, so that no browser
// sends in clear what was typed. With it, where the page has a key, nothing of the card is sent in clear.
//
// # What is not
//
// The package knows no payment and keeps no state: what to show is decided by its caller. A script cannot protect a card from
// the browser that it runs in, nor wipe what the browser has copied.
package checkout

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"github.com/finterra/finpay/pci"
)

// Kind is which page is shown.
type Kind string

// The kinds of pages: where a payment stands, and what can go wrong.
const (
	Payable    Kind = "payable"    // the card form
	Stored     Kind = "stored"     // the card that the shopper has paid with before, and a way to the card form
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
	Script     Kind = "script"   // a card came open, and only sealed ones are taken
	Method     Kind = "method"   // the issuer looks at the browser (3DS Method)
	Returned   Kind = "returned" // in a frame: the issuer's page has come back
)

// Page is what a page shows. Only Kind and Language are needed by every kind.
type Page struct {
	Kind       Kind
	Language   Language
	Path       string // of the checkout, where a shopper may try again; empty where there is none
	Merchant   string
	Reference  string // the shop's, of the order
	Amount     pci.Amount
	Stored     pci.Card       // of a page of kind Stored
	Decline    string         // reason code of the last attempt; empty when there was none
	Errors     pci.CardErrors // of the form that was just sent
	ReturnURL  string         // back to the shop; empty for no way back
	ReturnSite string         // scheme://host of ReturnURL: sending the card form may redirect there
	ACSURL     string         // where CReq is posted to
	ACSSite    string         // scheme://host of ACSURL
	CReq       string         // base64url
	MethodURL  string         // where MethodData is posted to
	MethodSite string         // scheme://host of MethodURL
	MethodData string         // threeDSMethodData, base64url without padding
	Next       string         // where Method goes on to, by a POST with the field completed: "Y", or "N" after ten seconds or without a script

	Now       time.Time // of the appliance; zero for a page that checks no expiry
	ExpiresAt time.Time // when no card can be entered any more; zero for a page that does not tell
	Again     Again     // why the form is shown once more, though nothing is wrong with the card

	Sealing *Sealing // what the script seals a card with; nil where no sealed cards are taken
	Open    bool     // whether the form may be sent as it is, which a browser without the script does
}

// Again is why a form that came sealed has to be filled in once more.
type Again string

// The reasons for it.
const (
	NewKey Again = "key"  // the key that it was sealed to is not in use any more
	Twice  Again = "sent" // it was sent before
)

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

// templates are the layout with each kind's content.
var templates = func() map[Kind]*template.Template {
	layout := template.Must(template.ParseFS(pageFiles, "pages/layout.html"))
	with := func(file string) *template.Template {
		return template.Must(template.Must(layout.Clone()).ParseFS(pageFiles, "pages/"+file))
	}
	message := with("message.html")
	return map[Kind]*template.Template{
		Payable: with("card.html"), Stored: with("stored.html"), Challenge: with("challenge.html"), Processing: with("processing.html"),
		Method: with("method.html"), Returned: with("returned.html"),
		Paid: message, Uncertain: message, Failed: message, Expired: message,
		Unknown: message, Busy: message, Unreadable: message, Broken: message, Script: message,
	}
}()

// sizeExpected is more than nearly all pages have, in bytes; a longer one costs a copy.
const sizeExpected = 12 << 10

// Write answers a request with the page.
func (p Page) Write(w http.ResponseWriter, status int) error {
	t, ok := templates[p.Kind]
	if !ok {
		return fmt.Errorf("checkout: no page for %q", p.Kind)
	}
	var body bytes.Buffer
	body.Grow(sizeExpected)
	if err := t.ExecuteTemplate(&body, "layout", &showing{Page: p}); err != nil {
		return fmt.Errorf("checkout: %w", err)
	}
	p.header(w.Header())
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
	return nil
}
