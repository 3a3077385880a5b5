//go:build browser

package softhsmtest_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/finterra/finpay/api/checkout"
	"github.com/finterra/finpay/pci"
)

// state is one page as a shopper can meet it.
type state struct {
	name string
	page checkout.Page
}

// states are all of them, with an issuer at acs.
func states(acs string) []state {
	key, _ := ecdh.P256().GenerateKey(rand.Reader)
	form := checkout.Page{Kind: checkout.Payable, Open: true, Now: time.Now(), ExpiresAt: time.Now().Add(20 * time.Minute), Sealing: &checkout.Sealing{
		Key: "intake-1", PublicKey: base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()), Info: "finpay checkout v1", AAD: "s mer_1 1250 EUR"}}
	with := func(change func(*checkout.Page)) checkout.Page {
		p := form
		change(&p)
		return p
	}
	stored := checkout.Page{Kind: checkout.Stored, Now: form.Now, ExpiresAt: form.ExpiresAt,
		Stored: pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2031, Month: 9}}}
	all := []state{
		{"payable", form},
		{"errors", with(func(p *checkout.Page) {
			p.Errors = pci.CardErrors{{Field: pci.FieldNumber, Reason: pci.ReasonChecksum}, {Field: pci.FieldExpiry, Reason: pci.ReasonExpired},
				{Field: pci.FieldCVV, Reason: pci.ReasonMissing}, {Field: pci.FieldName, Reason: pci.ReasonFormat}}
		})},
		{"declined", with(func(p *checkout.Page) { p.Decline = "insufficient_funds" })},
		{"again", with(func(p *checkout.Page) { p.Again = checkout.NewKey })},
		{"twice", with(func(p *checkout.Page) { p.Again = checkout.Twice })},
		{"sealed-only", with(func(p *checkout.Page) { p.Open = false })},
		{"over", with(func(p *checkout.Page) { p.ExpiresAt = p.Now })},
		{"cannot-seal", with(func(p *checkout.Page) { p.Sealing = &checkout.Sealing{Key: "intake-1", PublicKey: "AAAA"} })},
		{"stored", stored},
		{"stored-again", func() checkout.Page { p := stored; p.Decline = "try_again"; p.Stored.Brand = pci.Other; return p }()},
		{"challenge", checkout.Page{Kind: checkout.Challenge, ACSURL: acs + "/acs", ACSSite: acs, CReq: "e30"}},
		{"method", checkout.Page{Kind: checkout.Method, MethodURL: acs + "/acs", MethodSite: acs, MethodData: "e30", Next: "/next"}},
		{"returned", checkout.Page{Kind: checkout.Returned}},
		{"processing", checkout.Page{Kind: checkout.Processing}},
	}
	for _, kind := range []checkout.Kind{checkout.Paid, checkout.Uncertain, checkout.Failed, checkout.Expired} {
		all = append(all, state{string(kind), checkout.Page{Kind: kind}})
	}
	for i := range all {
		all[i].page.Merchant, all[i].page.Reference, all[i].page.Amount = "Pelangi Tea", "order-1001", pci.Amount{Minor: 125050, Currency: "MYR"}
		all[i].page.ReturnURL, all[i].page.ReturnSite = acs+"/shop", acs
	}
	for _, kind := range []checkout.Kind{checkout.Unknown, checkout.Busy, checkout.Unreadable, checkout.Broken, checkout.Script} {
		all = append(all, state{string(kind), checkout.Page{Kind: kind}})
	}
	return all
}

// pagesAlone stands for an appliance where pages are looked at without one.
func pagesAlone() *system { return &system{serve: &process{done: make(chan struct{})}} }

// exhibition serves every page without an appliance behind it.
func exhibition(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, ok := strings.CutPrefix(r.URL.Path, "/assets/"); ok {
			file, _ := checkout.Asset(name)
			w.Header().Set("Content-Type", file.MediaType)
			_, _ = w.Write(file.Body)
			return
		}
		for _, s := range states(server.URL) {
			if r.URL.Path == "/checkout/"+s.name {
				s.page.Path, s.page.Language = r.URL.Path, checkout.Choose(r)
				shown := httptest.NewRecorder()
				if err := s.page.Write(shown, http.StatusOK); err != nil {
					t.Error(err)
				}
				maps.Copy(w.Header(), shown.Header())
				body := shown.Body.String()
				if s.name == "returned" || s.name == "processing" { // their script goes on at once
					body = strings.Replace(body, "<script ", "<script type=none ", 1)
				}
				_, _ = io.WriteString(w, body)
				return
			}
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><html lang="en"><title>Bank</title><body><h1>The bank's page</h1><p>Is it you who is paying?</p>`))
	})
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// axe is the checker of accessibility that the pages are held to.
func axe(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../api/checkout/script/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatalf("axe-core is not installed; make browser does that: %v", err)
	}
	return string(text)
}

// looks is one way of looking at a page.
type looks struct {
	scheme        string
	width, height int64
}

// act does what leads from a page to its state, where showing it is not enough.
var act = map[string]string{
	"payable": `type("number", "378282246310005")`,
	"cannot-seal": `type("number", "4111111111111111"); type("expiry", "12/40"); type("cvv", "737");
		document.querySelector("button[type=submit]").click()`,
}

const typing = `function type(id, text) { const i = document.getElementById(id); i.value = text; i.dispatchEvent(new InputEvent("input")) }; `

// Nothing is found by axe-core on any page, in any language by day, and in both directions by night, at a desk or on a phone; and
// none is wider than the phone. With SCREENSHOTS=DIR a picture of each is kept.
func TestBrowserPages(t *testing.T) {
	server, checker, pictures := exhibition(t), axe(t), os.Getenv("SCREENSHOTS")
	p := sitDown(t, pagesAlone())
	tell(p, page.SetBypassCSP, page.SetBypassCSPParams{Enabled: true}) // axe-core writes markup
	for _, look := range []looks{{"light", 320, 640}, {"dark", 1100, 900}, {"light", 1100, 900}, {"dark", 360, 740}} {
		if pictures == "" && (look.width == 1100) == (look.scheme == "light") {
			continue // a phone by day and a desk by night show each colour and each width
		}
		p.does("look otherwise", chromedp.EmulateViewport(look.width, look.height, chromedp.EmulateMobile))
		media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}
		tell(p, emulation.SetEmulatedMedia, media)
		languages := []string{"en", "ms", "ar", "zh"}
		if pictures == "" && look.scheme == "dark" {
			languages = []string{"en", "ar"} // colours are the same in all, and run both ways in these
		}
		for _, language := range languages {
			for _, s := range states(server.URL) {
				p.does("open "+s.name, chromedp.Navigate(server.URL+"/checkout/"+s.name+"?lang="+language))
				if steps := act[s.name]; steps != "" {
					p.does("act", chromedp.Evaluate[chromedp.Void](typing+steps))
				}
				if s.name == "cannot-seal" {
					p.does("see that it failed", chromedp.WaitVisible(chromedp.CSS("#failed")))
				}
				where := strings.Join([]string{s.name, language, look.scheme, map[bool]string{true: "desk", false: "phone"}[look.width > 500]}, "-")
				p.does("load axe", chromedp.Evaluate[chromedp.Void](checker+";void 0"))
				found := awaited[[]string](p, `axe.run(document, {iframes: false}).then(r => r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html.slice(0, 120)).join(" | ")))`)
				for _, violation := range found {
					t.Errorf("%s: %s", where, violation)
				}
				if wide := js[int64](p, "document.documentElement.scrollWidth"); wide > look.width {
					t.Errorf("%s is %d wide", where, wide)
				}
				if pictures != "" {
					p.keeps(filepath.Join(pictures, where+".png"))
				}
			}
		}
	}
}

// awaited evaluates an expression that is a promise.
func awaited[T any](p *person, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// keeps writes a picture of the whole page.
func (p *person) keeps(file string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100)) // PNG
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		p.t.Fatal(err)
	}
}
