//go:build browser

package softhsmtest_test

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/simulator"
)

// person is somebody at a real browser, with a profile of their own.
type person struct {
	*system

	ctx context.Context //nolint:containedctx // chromedp's tab

	mu       sync.Mutex
	breaches []string // of a page's Content-Security-Policy
}

// chromium returns where the browser is.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("chromium is not installed: apt-get install chromium")
	return ""
}

// sitDown opens a browser that ends with the test.
func sitDown(t *testing.T, s *system) *person {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(chromium(t)), chromedp.WindowSize(1100, 1000)}
	for _, flag := range []string{"headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
		"disable-component-update", "disable-sync", "disable-dev-shm-usage", "ignore-certificate-errors"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	options = append(options, chromedp.Flag("accept-lang", "en"))
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...) // with a fresh user data directory
	t.Cleanup(end)
	ctx, leave := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		closing, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := chromedp.Cancel(closing); err != nil {
			t.Errorf("the browser did not end by itself: %v", err)
		}
		leave() // kills it
	})
	p := &person{system: s, ctx: ctx}
	s.t = t
	p.begins(leave)
	return p
}

// begins opens the person's browser, or another tab of it, and holds it to its pages' Content-Security-Policy.
func (p *person) begins(leave func()) {
	p.t.Helper()
	// The first call starts the browser, or the tab, which lives as long as its context: it carries no deadline.
	late := time.AfterFunc(time.Minute, leave)
	defer late.Stop()
	if err := chromedp.Listen(p.ctx, p.listen); err != nil {
		p.t.Fatalf("the browser does not start: %v", err)
	}
	tell(p, log.Enable, cdp.Empty{})
	t := p.t
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, breach := range p.breaches {
			t.Errorf("the browser refused something: %s", breach)
		}
	})
}

// listen keeps what the browser says about a page's Content-Security-Policy.
func (p *person) listen(event any) {
	e, ok := event.(*log.EventEntryAdded)
	if !ok || !strings.Contains(e.Entry.Text, "Content Security Policy") {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.breaches = append(p.breaches, e.Entry.Text)
}

// does takes steps, as long as a person would wait for them.
func (p *person) does(what string, steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("%s: %v\nthe page says: %s", what, err, p.page())
	}
}

// tell gives the browser a command of its protocol.
func tell[P, R any](p *person, command cdp.Command[P, R], params P) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	if _, err := chromedp.Call(ctx, command, params); err != nil {
		p.t.Fatalf("%s: %v", command.Method, err)
	}
}

// page is all that stands on the page, empty while another one is on its way.
func (p *person) page() (text string) {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	text, _ = chromedp.Run(ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
	return text
}

// reads waits for a text.
func (p *person) reads(text string) {
	p.t.Helper()
	last := ""
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the page at %s says: %s", js[string](p, "location.host"), last)
		}
	}()
	p.until("the page says "+text, func() bool {
		last = p.page()
		if strings.Contains(last, "ERR_") {
			p.t.Fatalf("the browser shows %s", last)
		}
		return strings.Contains(last, text)
	})
}

// js evaluates an expression in the page.
func js[T any](p *person, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// buys presses the shop's first button and returns the id of the payment whose page opens.
func (p *person) buys() (id string) {
	p.t.Helper()
	p.does("open the shop", chromedp.Navigate(p.shopURL()+"/"), chromedp.Click(chromedp.CSS("form button")))
	p.reads("Pay by card")
	status, body := p.call("GET", "/v1/payments?limit=1", "")
	if status != 200 {
		p.t.Fatalf("list: %d %s", status, body)
	}
	return decode[api.PaymentList](p.t, body).Payments[0].ID
}

// pays fills in the form and presses the button.
func (p *person) pays(card simulator.Typed) {
	p.t.Helper()
	p.does("fill in the form",
		chromedp.SendKeys(chromedp.CSS("#number"), card.Number),
		chromedp.SendKeys(chromedp.CSS("#expiry"), card.Expiry),
		chromedp.SendKeys(chromedp.CSS("#cvv"), card.CVV),
		chromedp.SendKeys(chromedp.CSS("#name"), card.Name),
		chromedp.Click(chromedp.CSS("button[type=submit]")))
}

// confirms types a password into the issuer's page, which is in a frame.
func (p *person) confirms(password string) {
	p.t.Helper()
	p.reads("Confirm it is you at your bank")
	p.until("the issuer's page is in the frame", func() bool { return strings.Contains(p.framed("document.body.innerText"), "Is it you who is paying?") })
	p.framed(`document.querySelector("#password").value = ` + strconv.Quote(password) + `; document.querySelector("button[value=submit]").click(); ""`)
}

// framed evaluates an expression in the page's first frame, empty while there is none or its page changes.
func (p *person) framed(expression string) string {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	tree, err := chromedp.Call(ctx, page.GetFrameTree, cdp.Empty{})
	if err != nil || len(tree.FrameTree.ChildFrames) == 0 {
		return ""
	}
	world, err := chromedp.Call(ctx, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{FrameID: tree.FrameTree.ChildFrames[0].Frame.ID})
	if err != nil {
		return ""
	}
	in := func(e *runtime.EvaluateParams) { e.ContextID = world.ExecutionContextID }
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](expression, in))
	return text
}

// confirmsInTheWholeWindow goes to the issuer and types a password there.
func (p *person) confirmsInTheWholeWindow(password string) {
	p.t.Helper()
	p.reads("Confirm it is you at your bank")
	// In the page itself: chromedp loses its nodes where the browser brings a page back from memory.
	p.does("go to the issuer", chromedp.Evaluate[chromedp.Void](`document.querySelector("button[type=submit]").click()`))
	p.reads("Is it you who is paying?")
	p.does("answer the issuer", chromedp.SendKeys(chromedp.CSS("#password"), password), chromedp.Click(chromedp.CSS("button[value=submit]")))
}

// thanked waits for the shop's last page and holds everybody's word against each other.
func (p *person) thanked(id string) {
	p.t.Helper()
	p.reads("Thank you for your order")
	if got := js[string](p, "location.origin"); got != p.shopURL() {
		p.t.Errorf("the thanks are at %s", got)
	}
	if got := p.payment(id); got.Status != api.StatusCaptured {
		p.t.Errorf("the payment is %s", got.Status)
	}
	p.agree()
}

// scripts lets pages run theirs, or not.
func (p *person) scripts(run bool) {
	p.t.Helper()
	tell(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !run})
}

// number checks that the number alone is marked as wrong, says why, and has the focus.
func (p *person) number(wrong string) {
	p.t.Helper()
	if got := js[string](p, `document.querySelector("#number-error").innerText`); !strings.Contains(got, wrong) {
		p.t.Errorf("%q", got)
	}
	if got := js[[]string](p, `[...document.querySelectorAll("[aria-invalid=true]")].map(i => i.id)`); !slices.Equal(got, []string{"number"}) {
		p.t.Errorf("marked: %v", got)
	}
	if got := js[bool](p, `document.activeElement.id === "number" && document.activeElement.getAttribute("aria-describedby").includes("number-error")`); !got {
		p.t.Error("the field has not the focus, or does not name its error")
	}
}

func TestBrowser(t *testing.T) {
	s := newSystem(t)
	for name, test := range map[string]func(*person){
		"a card without friction leads to the shop's thanks": func(p *person) {
			id := p.buys()
			p.pays(typed("4111111111111111"))
			p.thanked(id)
		},
		"a card typed with spaces": func(p *person) {
			id := p.buys()
			card := typed("4111111111111111")
			card.Number, card.Expiry = "4111 1111 1111 1111", strings.Replace(card.Expiry, "/", " / ", 1)
			p.pays(card)
			p.thanked(id)
		},
		"the issuer asks and is answered": func(p *person) {
			id := p.buys()
			p.pays(typed("4539123456789017"))
			p.confirms(simulator.ChallengePassword)
			p.thanked(id) // the issuer's page sends itself on
			if got := p.payment(id); got.Result == nil || got.Result.ThreeDS != "Y" || got.Attempts != 1 {
				p.t.Errorf("%+v", got)
			}
		},
		"a wrong password charges nothing, and another card may be tried": func(p *person) {
			id := p.buys()
			p.pays(typed("4539123456789017"))
			p.confirms("0000")
			p.reads("Your bank could not confirm that it was you.")
			if got := p.payment(id); got.Status != api.StatusDeclined || got.Result.Reason != "not_authenticated" {
				p.t.Errorf("%s, %+v", got.Status, got.Result)
			}
			p.agree()
			p.pays(typed("5555555555554444"))
			p.thanked(id)
		},
		"a stored card is paid with one button, or with another card": func(p *person) {
			first := p.payment(p.paidWith("automatic", "4539123456789017"))
			byCustomer := fmt.Sprintf(`"return_url":%q`, p.shopURL()+"/return")
			again := p.again(first.Token, byCustomer)
			p.does("open the page and press the button", chromedp.Navigate(again.CheckoutURL), chromedp.Click(chromedp.CSS("form#stored button")))
			p.confirms(simulator.ChallengePassword)
			p.thanked(again.ID)
			again = p.again(first.Token, byCustomer)
			p.does("open the page and take another card", chromedp.Navigate(again.CheckoutURL), chromedp.Click(chromedp.CSS(`a[href*="card=another"]`)))
			p.pays(typed("5555555555554444"))
			p.thanked(again.ID)
		},
		"a declined card, then another": func(p *person) {
			id := p.buys()
			p.pays(typed("4539515151515151"))
			p.reads("There is not enough money available on the card.")
			if left := js[string](p, `[...document.querySelectorAll("input:not([type=hidden])")].map(i => i.value).join("")`); left != "" {
				p.t.Errorf("the form still holds %d characters", len(left))
			}
			p.pays(typed("5555555555554444"))
			p.thanked(id)
			if got := p.payment(id); got.Attempts != 2 {
				p.t.Errorf("%d attempts", got.Attempts)
			}
		},
		"what is wrong stands beside its field": func(p *person) {
			id := p.buys()
			wrong := typed("4111111111111112")
			p.pays(wrong)
			p.does("see the error", chromedp.WaitVisible(chromedp.CSS("#number-error")))
			p.number("typing error")
			p.does("empty the form", chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("form#card input:not([type=hidden])").forEach(i => i.value = "")`))
			p.pays(typed("4111111111111111"))
			p.thanked(id)
		},
		"what the appliance finds wrong stands there too": func(p *person) {
			p.scripts(false)
			id := p.buys()
			wrong := typed("4111111111111112")
			p.pays(wrong)
			p.reads("Please check your card details")
			p.number("typing error")
			if strings.Contains(js[string](p, "document.documentElement.outerHTML"), wrong.Number) {
				p.t.Error("the page shows the number again")
			}
			p.pays(typed("4111111111111111"))
			p.thanked(id)
		},
		"what the browser sees for itself is not sent": func(p *person) {
			id := p.buys()
			p.does("press the button", chromedp.Click(chromedp.CSS("button[type=submit]")))
			p.reads("Enter the card number.")
			if got := js[string](p, `[...document.querySelectorAll("[aria-invalid]")].map(i => i.id).join() + " " + document.activeElement.id`); got != "number,expiry,cvv number" {
				p.t.Errorf("marked, and focused: %s", got)
			}
			if got := p.payment(id); got.Status != api.StatusCreated || got.Attempts != 0 {
				p.t.Errorf("%s after %d attempts", got.Status, got.Attempts)
			}
		},
		"Arabic runs from right to left": func(p *person) {
			id := p.buys()
			p.does("change the language", chromedp.Click(chromedp.CSS(`a[hreflang=ar]`)), chromedp.WaitVisible(chromedp.CSS(`html[lang=ar]`)))
			look := func() {
				if got := js[string](p, `document.documentElement.dir + " " + getComputedStyle(document.querySelector("h1")).direction`); got != "rtl rtl" {
					p.t.Errorf("%s", got)
				}
				if got := js[string](p, `getComputedStyle(document.querySelector("#number")).direction`); got != "ltr" {
					p.t.Errorf("a card number runs %s", got)
				}
			}
			look()
			p.pays(typed("4539515151515151"))
			p.reads("الرصيد المتاح في البطاقة غير كافٍ.")
			look()
			p.pays(typed("4111111111111111"))
			p.thanked(id)
		},
		"going back after paying charges nothing": func(p *person) {
			id := p.buys()
			p.pays(typed("4111111111111111"))
			p.thanked(id)
			before := len(p.books().Bookings)
			p.does("go back", chromedp.Evaluate[chromedp.Void]("history.back()"))
			p.reads("Thank you for your order") // the page of a paid payment leads to the shop again
			if js[bool](p, `document.querySelector("#number") !== null`) {
				p.t.Error("a card form is shown for a paid payment")
			}
			if n := len(p.books().Bookings); n != before {
				p.t.Errorf("%d bookings became %d", before, n)
			}
			p.thanked(id)
		},
		"going back after a decline shows no card": func(p *person) {
			id := p.buys()
			p.pays(typed("4539515151515151"))
			p.reads("The last card was not accepted")
			p.does("go back", chromedp.Evaluate[chromedp.Void]("history.back()"))
			p.reads("Pay by card")
			if left := js[string](p, `[...document.querySelectorAll("input:not([type=hidden])")].map(i => i.value).join("")`); left != "" {
				p.t.Errorf("the form still holds %d characters", len(left))
			}
			p.pays(typed("5555555555554444"))
			p.thanked(id)
		},
		"going back from the issuer shows no card, and the challenge can be answered": func(p *person) {
			id := p.buys()
			p.pays(typed("4539123456789017"))
			p.reads("Confirm it is you at your bank")
			p.does("go to the issuer", chromedp.Evaluate[chromedp.Void](`document.querySelector("button[type=submit]").click()`))
			p.reads("Is it you who is paying?")
			p.does("go back", chromedp.Evaluate[chromedp.Void]("history.back()"))
			p.confirms(simulator.ChallengePassword)
			p.thanked(id)
		},
		"a phone's width needs no scrolling sideways": func(p *person) {
			p.does("take a phone", chromedp.EmulateViewport(320, 640, chromedp.EmulateMobile))
			id := p.buys()
			if wide := js[int](p, "document.documentElement.scrollWidth"); wide > 320 {
				p.t.Errorf("the page is %d wide", wide)
			}
			p.pays(typed("4111111111111111"))
			p.thanked(id)
		},
		"without scripts": func(p *person) {
			p.scripts(false)
			id := p.buys()
			p.pays(typed("4539123456789017"))
			p.confirmsInTheWholeWindow(simulator.ChallengePassword)
			p.reads("Thank you, your payment is confirmed.") // no script sends the issuer's page on
			p.does("continue", chromedp.Click(chromedp.CSS("form button")))
			p.thanked(id)
		},
		"an acquirer that is silent": func(p *person) {
			id := p.buys()
			p.pays(typed("4539686868686864"))
			p.reads("Back to Pelangi Tea")
			if js[bool](p, `document.querySelector("#number") !== null`) {
				p.t.Error("a card form is shown while the outcome is unknown")
			}
			if got := p.settled(id); got.Status != api.StatusFailed {
				p.t.Errorf("the payment is %s", got.Status)
			}
			p.does("return", chromedp.Click(chromedp.CSS("a.button")))
			p.until("the person is at the shop", func() bool { return strings.Contains(p.page(), "A simulated shop") })
			p.agree()
		},
	} {
		t.Run(name, func(t *testing.T) { test(sitDown(t, s)) })
	}
	s.t = t
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}
