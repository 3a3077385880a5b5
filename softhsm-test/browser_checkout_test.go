//go:build browser

package softhsmtest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/finterra/finpay/api/checkout"
	"github.com/finterra/finpay/appliance/simulator"
)

// posts keeps the bodies of the forms that the browser sends to the appliance.
func (p *person) posts() func() []string {
	p.t.Helper()
	var mu sync.Mutex
	var bodies []string
	tell(p, network.Enable, network.EnableParams{})
	err := chromedp.Listen(p.ctx, func(event any) {
		sent, ok := event.(*network.EventRequestWillBeSent)
		if !ok || sent.Request.Method != http.MethodPost || !strings.HasPrefix(sent.Request.URL, p.cfg.PublicURL) {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, part := range sent.Request.PostDataEntries {
			bodies = append(bodies, string(part.Bytes))
		}
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), bodies...)
	}
}

// value is what an input shows, and where the caret stands in it.
func (p *person) value(id string) string {
	p.t.Helper()
	return js[string](p, `(i => i.value.slice(0, i.selectionStart) + "|" + i.value.slice(i.selectionStart))(document.getElementById("`+id+`"))`)
}

// presses sends keys to whatever has the focus.
func (p *person) presses(keys ...string) {
	p.t.Helper()
	for _, key := range keys {
		p.does("press a key", chromedp.KeyEvent(key))
	}
}

func TestBrowserSealsTheCard(t *testing.T) {
	s := newSystem(t, setting{"open: true", "open: false"})
	for name, test := range map[string]func(*person){
		"what is sent is sealed": func(p *person) {
			sent := p.posts()
			id := p.buys()
			p.pays(typed("4111111111111111"))
			p.thanked(id)
			var forms []url.Values
			for _, body := range sent() {
				form, err := url.ParseQuery(body)
				if err != nil {
					p.t.Fatal(err)
				}
				if !form.Has("threeDSMethodData") && !form.Has("completed") { // the issuer's look at the browser
					forms = append(forms, form)
				}
			}
			if len(forms) != 1 || len(forms[0]) != 3 || forms[0].Get("key") == "" || forms[0].Get("enc") == "" || forms[0].Get("ct") == "" {
				p.t.Errorf("%d forms were sent: %v", len(forms), forms)
			}
		},
		"a button pressed twice pays once": func(p *person) {
			id := p.buys()
			p.fills(typed("4111111111111111"))
			p.does("press twice", chromedp.Evaluate[chromedp.Void](`(b => { b.click(); b.click(); b.form.requestSubmit() })(document.querySelector("button[type=submit]"))`))
			p.thanked(id)
			if got := p.payment(id); got.Attempts != 1 {
				p.t.Errorf("%d attempts", got.Attempts)
			}
		},
		"without a script nothing of a card is sent": func(p *person) {
			sent := p.posts()
			p.scripts(false)
			p.does("open the shop", chromedp.Navigate(p.shopURL()+"/"), chromedp.Click(chromedp.CSS("form button")))
			p.reads("This page needs JavaScript")
			p.does("send the form all the same", chromedp.Evaluate[chromedp.Void](`document.querySelector("#number").value = "4111111111111111"; document.querySelector("form#card").submit()`))
			p.until("the form was sent", func() bool { return len(sent()) == 1 })
			if strings.Contains(sent()[0], "4111") {
				p.t.Error("the number was sent")
			}
		},
		"by keyboard alone": func(p *person) {
			p.does("open the shop", chromedp.Navigate(p.shopURL()+"/"), chromedp.Click(chromedp.CSS("form button")))
			p.reads("Pay by card")
			card := typed("4111111111111111")
			p.tabsTo("number")
			for _, text := range []string{card.Number, card.Expiry, card.CVV, card.Name} {
				p.presses(text, kb.Tab)
			}
			if got := js[string](p, "document.activeElement.type"); got != "submit" {
				p.t.Errorf("after the name comes %s", got)
			}
			p.presses(kb.Enter)
			p.reads("Thank you for your order")
		},
	} {
		t.Run(name, func(t *testing.T) { test(sitDown(t, s)) })
	}
	s.t = t
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

// fills types a card into the form.
func (p *person) fills(card simulator.Typed) {
	p.t.Helper()
	p.does("fill in the form",
		chromedp.SendKeys(chromedp.CSS("#number"), card.Number),
		chromedp.SendKeys(chromedp.CSS("#expiry"), card.Expiry),
		chromedp.SendKeys(chromedp.CSS("#cvv"), card.CVV),
		chromedp.SendKeys(chromedp.CSS("#name"), card.Name))
}

// tabsTo presses Tab until an element has the focus.
func (p *person) tabsTo(id string) {
	p.t.Helper()
	for range 20 {
		if js[string](p, "document.activeElement.id") == id {
			return
		}
		p.presses(kb.Tab)
	}
	p.t.Fatalf("Tab does not lead to %s", id)
}

func TestBrowserHelpsWithTheCard(t *testing.T) {
	server := exhibition(t)
	p := sitDown(t, pagesAlone())
	open := func(name string) {
		t.Helper()
		p.does("open", chromedp.Navigate(server.URL+"/checkout/"+name), chromedp.Focus(chromedp.CSS("#number")))
	}
	is := func(id, want string) {
		t.Helper()
		if got := p.value(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	open("declined")
	p.presses("41111")
	is("number", "4111 1|")
	if got := js[string](p, `document.querySelector("#mark").getAttribute("href") + document.querySelector("#brand").textContent + document.querySelector("#cvv-hint").textContent`); got != "#mark-visaVisa3 digits on the back" {
		t.Error(got)
	}
	p.presses("2222", kb.ArrowLeft, kb.ArrowLeft, kb.ArrowLeft, kb.ArrowLeft, "9")
	is("number", "4111 129|2 22")
	p.presses(kb.ArrowLeft, kb.ArrowLeft, kb.ArrowLeft, kb.Backspace) // over the space
	is("number", "411|1 2922 2")
	p.does("paste", chromedp.Evaluate[chromedp.Void](typing+`type("number", "3782-822463-10005 ")`))
	is("number", "3782 822463 10005|")
	if got := js[string](p, `document.querySelector("#brand").textContent + document.querySelector("#cvv-hint").textContent + document.querySelector("#cvv").maxLength`); got != "American Express4 digits on the front, above the number4" {
		t.Error(got)
	}
	p.presses(kb.Tab, "93")
	is("expiry", "09 / 3|")
	p.presses(kb.Backspace, kb.Backspace)
	is("expiry", "0|")
	p.presses("1", "2", "5", kb.Tab)
	if got := js[string](p, `document.querySelector("#expiry-error").textContent`); !strings.Contains(got, "has expired") {
		t.Error(got)
	}
	if got := js[string](p, `document.querySelector("#live").textContent`); !strings.Contains(got, "has expired") {
		t.Errorf("announced: %q", got)
	}
	p.does("repair it", chromedp.Evaluate[chromedp.Void](typing+`type("expiry", "2040-12")`))
	if js[bool](p, `document.querySelector("#expiry-error") !== null || document.querySelector("#expiry").hasAttribute("aria-invalid")`) {
		t.Error("an error is shown that is repaired")
	}
	p.does("come late", chromedp.Navigate(server.URL+"/checkout/over"))
	p.reads("The time to pay is over")
	if js[bool](p, `document.querySelector("form#card").checkVisibility()`) {
		t.Error("the form is there after its time")
	}
}

// issuer answers a 3DS Method, or keeps silent.
func issuer(t *testing.T, silent bool) (acs, shop *httptest.Server, asked, wentOn chan url.Values) {
	t.Helper()
	asked, wentOn = make(chan url.Values, 1), make(chan url.Values, 1)
	shop, acs = httptest.NewUnstartedServer(nil), httptest.NewUnstartedServer(nil)
	acs.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ParseForm() == nil && r.Method == http.MethodPost {
			asked <- r.PostForm
		}
		w.Header().Set("Content-Type", "text/html")
		if !silent {
			_, _ = w.Write([]byte(`<form method="post" action="` + shop.URL + `/checkout/s/method"></form><script>document.forms[0].submit()</script>`))
		}
	})
	shop.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := checkout.Page{Language: checkout.Choose(r), Path: "/checkout/s", Merchant: "Pelangi Tea"}
		switch name, isAsset := strings.CutPrefix(r.URL.Path, "/assets/"); {
		case isAsset:
			file, _ := checkout.Asset(name)
			w.Header().Set("Content-Type", file.MediaType)
			_, _ = w.Write(file.Body)
			return
		case r.URL.Path == "/next":
			_ = r.ParseForm()
			wentOn <- r.PostForm
			p.Kind = checkout.Processing
		case r.URL.Path == "/checkout/s/method":
			p.Kind = checkout.Returned
			if r.Header.Get("Sec-Fetch-Dest") != "iframe" {
				t.Error("the way back is not in a frame")
			}
		default:
			p.Kind, p.MethodURL, p.MethodSite, p.MethodData, p.Next = checkout.Method, acs.URL+"/method", acs.URL, "eyJ0aHJlZURT", "/next"
		}
		if err := p.Write(w, http.StatusOK); err != nil {
			t.Error(err)
		}
	})
	shop.StartTLS()
	acs.StartTLS()
	t.Cleanup(func() { shop.Close(); acs.Close() })
	return acs, shop, asked, wentOn
}

func TestBrowserLetsTheIssuerLookAtIt(t *testing.T) {
	for completed, silent := range map[string]bool{"Y": false, "N": true} {
		t.Run(completed, func(t *testing.T) {
			_, shop, asked, wentOn := issuer(t, silent)
			p := sitDown(t, pagesAlone())
			p.does("open", chromedp.Navigate(shop.URL+"/checkout/s"))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for what, form := range map[string]struct {
				sent chan url.Values
				want string
			}{"threeDSMethodData": {asked, "eyJ0aHJlZURT"}, "completed": {wentOn, completed}} {
				select {
				case got := <-form.sent:
					if got.Get(what) != form.want {
						t.Errorf("%v", got)
					}
				case <-ctx.Done():
					t.Fatalf("%s was not sent", what)
				}
			}
			p.reads("Your payment is being processed")
		})
	}
	t.Run("without a script", func(t *testing.T) {
		_, shop, _, wentOn := issuer(t, false)
		p := sitDown(t, pagesAlone())
		p.scripts(false)
		p.does("open", chromedp.Navigate(shop.URL+"/checkout/s"))
		p.until("the button is shown", func() bool {
			return js[bool](p, `getComputedStyle(document.querySelector("#next button")).visibility === "visible"`)
		})
		p.does("go on", chromedp.Click(chromedp.CSS("#next button")))
		p.reads("Your payment is being processed")
		if got := <-wentOn; got.Get("completed") != "N" {
			t.Errorf("%v", got)
		}
	})
}
