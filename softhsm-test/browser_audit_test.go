//go:build browser

package softhsmtest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// signsIn opens a fresh link.
func (p *person) signsIn() (link string) {
	p.t.Helper()
	link, _ = p.link()
	p.does("open the link", chromedp.Navigate(link), chromedp.Click(chromedp.CSS("main button")))
	p.reads("Entries of the signed log")
	return link
}

// searches fills in a field of the form and sends it.
func (p *person) searches(field, value string) {
	p.t.Helper()
	p.does("search", chromedp.Navigate(p.cfg.PublicURL+"/audit"), chromedp.SendKeys(chromedp.CSS("#"+field), value),
		chromedp.Click(chromedp.CSS(".search button")))
	p.until("the answer is there", func() bool { return strings.Contains(js[string](p, "location.search"), field+"=") })
}

// checks verifies the entry that is shown under a key.
func (p *person) checks(vkey, says string) {
	p.t.Helper()
	p.does("verify", chromedp.SetValue(chromedp.CSS("#key"), vkey), chromedp.Click(chromedp.CSS("#verify")), chromedp.WaitVisible(chromedp.CSS("#verdict")))
	p.reads(says)
}

func TestBrowserAuditor(t *testing.T) {
	s := newSystem(t)
	id := s.pay("4111111111111111").ID
	vkey := strings.TrimSpace(s.command("ledger", "key"))
	for name, test := range map[string]func(*person){
		"a link opens once": func(p *person) {
			link := p.signsIn()
			p.does("open it again", chromedp.Navigate(link), chromedp.Click(chromedp.CSS("main button")))
			p.reads("You are not signed in")
			p.does("go on with the first session", chromedp.Navigate(s.cfg.PublicURL+"/audit"))
			p.reads("Entries of the signed log")
			if got := js[string](p, "document.cookie"); got != "" {
				p.t.Errorf("a script can read %s", got)
			}
			p.does("leave", chromedp.Click(chromedp.CSS(".who button")))
			p.reads("You have left")
			p.does("come back", chromedp.Navigate(s.cfg.PublicURL+"/audit"))
			p.reads("You are not signed in")
		},
		"a search, an entry, and its proof": func(p *person) {
			p.signsIn()
			p.searches("type", "payment.captured")
			p.reads(id)
			p.does("look at it", chromedp.Click(chromedp.CSS("tbody a")))
			p.reads("Rows that it covers")
			p.checks(vkey, "is in the log of")
			p.checks(strings.Replace(vkey, s.cfg.Ledger.Origin, "finpay.example/other/2026", 1), "Does not verify")
			p.checks("nonsense", "Does not verify")
			js[bool](p, `(document.querySelector("#text").textContent = document.querySelector("#text").textContent.replace('"v":1', '"v":2')) !== ""`)
			p.checks(vkey, "do not lead to the signed root")
		},
		"a key that is kept": func(p *person) {
			p.signsIn()
			p.does("look at an entry", chromedp.Navigate(s.cfg.PublicURL+"/audit/entries/0"), chromedp.Click(chromedp.CSS("#keep")))
			p.checks(vkey, "Verified")
			p.does("look at another", chromedp.Navigate(s.cfg.PublicURL+"/audit/entries/1"))
			if got := js[string](p, `document.querySelector("#key").value`); got != vkey {
				p.t.Errorf("the key is %q", got)
			}
		},
		"what cannot be searched is said": func(p *person) {
			p.signsIn()
			p.searches("type", "payment")
			p.reads("is a type of entries, such as payment.captured")
		},
		"a phone's width needs no scrolling sideways": func(p *person) {
			p.does("take a phone", chromedp.EmulateViewport(320, 640, chromedp.EmulateMobile))
			p.signsIn()
			for _, page := range []string{"/audit", "/audit?resource=" + id, "/audit/entries/20", "/audit/log"} {
				p.does("open "+page, chromedp.Navigate(s.cfg.PublicURL+page))
				if strings.Contains(page, "entries") {
					p.checks(vkey, "Verified")
				}
				if wide := js[int](p, "document.documentElement.scrollWidth"); wide > 320 {
					p.t.Errorf("%s is %d wide", page, wide)
				}
			}
		},
		"without scripts": func(p *person) {
			p.scripts(false)
			p.signsIn()
			p.does("search", chromedp.SendKeys(chromedp.CSS("#resource"), id), chromedp.Click(chromedp.CSS(".search button")))
			p.reads("payment.captured")
			p.does("look at the newest", chromedp.Click(chromedp.CSS("tbody a")))
			p.reads("Scripts are not allowed here")
			p.reads(fmt.Sprintf(`"resource":"%s"`, id))
		},
	} {
		t.Run(name, func(t *testing.T) { test(sitDown(t, s)) })
	}
	s.t = t
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}
