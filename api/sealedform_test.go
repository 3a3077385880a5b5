package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/pci"
)

const sealedForm = "key=intake+v1&enc=BHw&ct=3q0"

func TestThePageTellsWhatToSealTo(t *testing.T) {
	d := newDesk(Limits{})
	d.view.ExpiresAt = d.now.Add(20 * time.Minute)
	w := d.send(t, browser(http.MethodGet, "/checkout/s3cret", ""))
	wantPage(t, w, 200, `data-key="intake v1"`, `data-public-key="BA"`, `data-aad="s3cret mer_01 1250 EUR"`, `data-left="1200"`, "data-open", `name="number"`)
	d.after = CheckoutView{State: CheckoutProcessing}
	wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret", sealedForm)), "/checkout/s3cret")
	if d.aad != "s3cret mer_01 1250 EUR" {
		t.Errorf("taken under %q", d.aad)
	}
	d.sealedOnly = true
	w = d.send(t, browser(http.MethodGet, "/checkout/s3cret", ""))
	if strings.Contains(w.Body.String(), `name="number"`) || strings.Contains(w.Body.String(), "data-open") {
		t.Error("the form can be sent open where it may not")
	}
	d.registry.noSealing = true
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")), 503, "<h1>")
}

func TestACardThatMustBeSealedAgain(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		text   string
	}{
		{pci.ErrIntakeKey, 422, "encryption key has been renewed"},
		{pci.ErrReplayed, 409, "arrived twice"},
	} {
		for _, late := range []bool{false, true} { // found when the card is taken, or when it is entered
			d := newDesk(Limits{})
			if late {
				d.payErr = fmt.Errorf("enter: %w", c.err)
			} else {
				d.takeErr = fmt.Errorf("take: %w", c.err)
			}
			w := d.send(t, browser(http.MethodPost, "/checkout/s3cret?lang=en", sealedForm))
			wantPage(t, w, c.status, c.text, `data-key="intake v1"`, "Pay €12.50</button>")
		}
	}
}

func TestASecondSealedFormOfAPaidPaymentLeadsToTheShop(t *testing.T) {
	d := newDesk(Limits{})
	d.takeErr = pci.ErrReplayed
	d.onTake = func() { d.view.State, d.view.ReturnURL = CheckoutPaid, "https://shop.example/return?signature=x" }
	wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret", sealedForm)), "https://shop.example/return?signature=x")
	d = newDesk(Limits{})
	d.takeErr = pci.ErrReplayed
	d.onTake = func() { d.viewErr = pci.ErrUnavailable }
	wantPage(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret", sealedForm)), 503, "<h1>")
}

func TestAnOpenCardIsRefusedKindly(t *testing.T) {
	d := newDesk(Limits{})
	d.sealedOnly, d.takeErr = true, pci.ErrOpenCard
	w := d.send(t, browser(http.MethodPost, "/checkout/s3cret?lang=en", cardForm))
	wantPage(t, w, 403, "This page needs JavaScript", "you were not charged", `href="/checkout/s3cret?lang=en"`)
}

func TestWhatTheScriptSaysOfTheBrowserGoesWithTheCard(t *testing.T) {
	d := newDesk(Limits{})
	d.after = CheckoutView{State: CheckoutProcessing}
	d.entered.Browser = pci.Browser{JavaScript: true, ScreenWidth: "390", ScreenHeight: "844", ColorDepth: "24", TZ: "-480", Language: "zh-CN", IP: "198.51.100.7"}
	d.send(t, browser(http.MethodPost, "/checkout/s3cret", sealedForm))
	want := pci.Browser{AcceptHeader: "text/html", AcceptLanguage: "en-MY;q=0.9, ms", UserAgent: "Mozilla/5.0", IP: "192.0.2.1",
		JavaScript: true, ScreenWidth: "390", ScreenHeight: "844", ColorDepth: "24", TZ: "-480", Language: "zh-CN"}
	if len(d.paid) != 1 || d.paid[0] != want {
		t.Errorf("%+v", d.paid)
	}
	d.entered.Browser.Language = ""
	d.send(t, browser(http.MethodPost, "/checkout/s3cret", sealedForm))
	if d.paid[1].Language != "en-MY" {
		t.Errorf("language %q", d.paid[1].Language)
	}
}

func TestTheWayBackBreaksOutOfTheFrame(t *testing.T) {
	for _, path := range []string{"/checkout/s3cret/3ds", "/checkout/s3cret/method"} {
		d := newDesk(Limits{})
		d.after = CheckoutView{State: CheckoutPaid, ReturnURL: "https://shop.example/return?signature=x", ReturnOrigin: "https://shop.example"}
		r := browser(http.MethodPost, path+"?lang=en", "cres=eyJ9")
		r.Header.Set("Sec-Fetch-Dest", "iframe")
		w := d.send(t, r)
		wantPage(t, w, 200, `id="returned"`, `href="/checkout/s3cret?lang=en" target="_top"`, "<script")
		if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'self'") || w.Header().Get("X-Frame-Options") != "SAMEORIGIN" {
			t.Errorf("the page may not stand in the frame: %s", csp)
		}
		if strings.Contains(w.Body.String(), "shop.example") || strings.Contains(w.Body.String(), "Kedai") {
			t.Error("a page for frames tells of the payment")
		}
		r = browser(http.MethodPost, "/checkout/other/3ds", "cres=eyJ9")
		r.Header.Set("Sec-Fetch-Dest", "iframe")
		if w := d.send(t, r); w.Code != 404 || strings.Contains(w.Header().Get("Content-Security-Policy"), "frame-ancestors 'self'") {
			t.Errorf("an unknown session: %d in a frame", w.Code)
		}
	}
}

func TestTheMethodIsShownAndComesBack(t *testing.T) {
	d := newDesk(Limits{})
	d.view.State = CheckoutMethod
	d.view.Method = &pci.Method{URL: "https://acs.bank.example/method?x=1", Data: "eyJ0", ServerTransID: "t"}
	w := d.send(t, browser(http.MethodGet, "/checkout/s3cret?lang=en", ""))
	wantPage(t, w, 200, `action="https://acs.bank.example/method?x=1"`, `value="eyJ0"`, `action="/checkout/s3cret/method?lang=en"`)
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "frame-src 'self' https://acs.bank.example") {
		t.Error(csp)
	}
	d.view.State, d.view.Method = CheckoutProcessing, nil
	d.after = CheckoutView{State: CheckoutChallenge}
	r := browser(http.MethodPost, "/checkout/s3cret/method", "threeDSMethodData=eyJ1")
	r.Header.Set("Sec-Fetch-Dest", "iframe")
	wantPage(t, d.send(t, r), 200, `id="returned"`)
	if d.methodData != "eyJ1" {
		t.Errorf("the bank's word is %q", d.methodData)
	}
	wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret/method?lang=en", "completed=N")), "/checkout/s3cret?lang=en")
	if d.methodData != "" {
		t.Errorf("the page's word is %q", d.methodData)
	}
	for _, body := range []string{"threeDSMethodData=%zz", "threeDSMethodData=" + strings.Repeat("A", 8<<10)} {
		if w := d.send(t, browser(http.MethodPost, "/checkout/s3cret/method", body)); w.Code != 400 {
			t.Errorf("%d", w.Code)
		}
	}
	d.view.State, d.view.Method = CheckoutMethod, &pci.Method{URL: "no address"}
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")), 500, "<h1>")
}

func TestACardNumberInTheAddressIsNotRepeated(t *testing.T) {
	for _, path := range []string{"/checkout/" + testPAN, "/checkout/" + testPAN + "/3ds", "/checkout/" + testPAN + "/method"} {
		d := newDesk(Limits{})
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			w := d.send(t, browser(method, path, ""))
			if w.Code < 400 || strings.Contains(w.Body.String(), testPAN) || strings.Contains(w.Header().Get("Location"), testPAN) {
				t.Errorf("%s %s: %d repeats the number", method, path, w.Code)
			}
		}
	}
}

func TestThePageWaitsForNews(t *testing.T) {
	d := newDesk(Limits{})
	d.view.State = CheckoutProcessing
	d.after = d.view
	d.after.State = CheckoutFailed
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret?lang=en", "")), 200, "being processed")
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret?lang=en&wait=1", "")), 200, "could not be made")
	d.awaitErr = pci.ErrUnavailable
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret?wait=1", "")), 503, "<h1>")
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // stands for the end of patience
	d.awaitErr = context.DeadlineExceeded
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret?lang=en&wait=1", "").WithContext(ctx)), 200, "being processed")
	d.view.State, d.awaitErr = CheckoutPayable, pci.ErrUnavailable
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret?wait=1", "")), 200, "<form")
}

func TestFilesComeCompressed(t *testing.T) {
	d := newDesk(Limits{})
	page := d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")).Body.String()
	for _, address := range regexp.MustCompile(`"(/assets/[^"]+)"`).FindAllStringSubmatch(page, -1) {
		for accept, want := range map[string]string{"": "", "br, gzip;q=0.5": "gzip", "gzip": "gzip", "gzip;q=0": "", "gzip; q=0.0": "", "identity": "", "deflate, GZIP": "gzip"} {
			r := browser(http.MethodGet, address[1], "")
			r.Header.Set("Accept-Encoding", accept)
			w := d.handle(r)
			if got := w.Header().Get("Content-Encoding"); got != want || w.Code != 200 || w.Header().Get("Vary") != "Accept-Encoding" {
				t.Errorf("%s, accepting %q: %d %q %v", address[1], accept, w.Code, got, w.Header())
			}
		}
	}
	r := browser(http.MethodGet, "/checkout/s3cret", "")
	r.Header.Set("Accept-Encoding", "gzip")
	if w := d.send(t, r); w.Header().Get("Content-Encoding") != "" {
		t.Error("a page with secrets is compressed")
	}
}

// handle answers a request without holding the answer to openapi.yaml, which knows no compression.
func (d *desk) handle(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	return w
}
