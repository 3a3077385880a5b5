package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
)

const cardForm = "number=4111+1111+1111+1111&expiry=12%2F31&cvv=737&name=Siti+Aminah&form=0123456789abcdef"

// browser makes a request as a shopper's browser does.
func browser(method, target, form string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(form))
	r.Header.Set("Accept", "text/html")
	r.Header.Set("User-Agent", "Mozilla/5.0")
	r.Header.Set("Accept-Language", "en-MY;q=0.9, ms")
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r
}

// wantPage checks that an answer is a page of a status which has all parts.
func wantPage(t *testing.T, w *httptest.ResponseRecorder, status int, parts ...string) {
	t.Helper()
	if w.Code != status || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("answer %d %s, want a page with %d: %s", w.Code, w.Header().Get("Content-Type"), status, w.Body)
	}
	for _, part := range parts {
		if !strings.Contains(w.Body.String(), part) {
			t.Errorf("the page lacks %q: %s", part, w.Body)
		}
	}
}

func wantRedirect(t *testing.T, w *httptest.ResponseRecorder, target string) {
	t.Helper()
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != target || w.Body.Len() > 0 {
		t.Errorf("answer %d to %q, want 303 to %q: %s", w.Code, w.Header().Get("Location"), target, w.Body)
	}
}

func TestPageOfEachState(t *testing.T) {
	for _, c := range []struct {
		state  CheckoutState
		status int
		text   string
	}{
		{CheckoutPayable, 200, "Bayar €12.50</button>"},
		{CheckoutChallenge, 200, `action="https://acs.example/c?x=1"`},
		{CheckoutProcessing, 200, `http-equiv="refresh"`},
		{CheckoutUncertain, 200, "jangan bayar sekali lagi"},
		{CheckoutFailed, 200, `href="https://shop.example/return?payment_id=pay_01"`},
		{CheckoutExpired, 410, `href="https://shop.example/return?payment_id=pay_01"`},
	} {
		d := newDesk(Limits{})
		d.view.State, d.view.ReturnURL = c.state, "https://shop.example/return?payment_id=pay_01"
		d.view.Challenge = &pci.Challenge{ACSURL: "https://acs.example/c?x=1", CReq: "eyJ9"}
		w := d.send(t, browser(http.MethodGet, "/checkout/s3cret", ""))
		wantPage(t, w, c.status, c.text, "Kedai Kopi", `lang="ms"`)
		if c.state == CheckoutChallenge && !strings.Contains(w.Header().Get("Content-Security-Policy"), "form-action 'self' https://acs.example;") {
			t.Errorf("policy %s", w.Header().Get("Content-Security-Policy"))
		}
	}
}

func TestPaidShopperGoesToTheShop(t *testing.T) {
	d := newDesk(Limits{})
	d.view.State, d.view.ReturnURL = CheckoutPaid, "https://shop.example/return?signature=v1%2Cx"
	wantRedirect(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")), d.view.ReturnURL)
	d.view.ReturnOrigin = ""
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")), 200, `class="button" href="https://shop.example/return?signature=v1%2Cx"`)
	d.view.ReturnURL = "javascript:alert(1)"
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret?lang=en", "")), 200, "your payment is complete")
}

func TestCardFormAllowsTheShop(t *testing.T) {
	d := newDesk(Limits{})
	w := d.send(t, browser(http.MethodGet, "/checkout/s3cret", ""))
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self' https://shop.example;") {
		t.Errorf("policy %s", csp)
	}
	d.view.ReturnOrigin = "https://evil.example; script-src https:"
	if csp := d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")).Header().Get("Content-Security-Policy"); strings.Contains(csp, "evil") {
		t.Errorf("policy %s", csp)
	}
}

func TestCardIsPaid(t *testing.T) {
	d := newDesk(Limits{})
	d.after = d.view
	d.after.State, d.after.ReturnURL = CheckoutPaid, "https://shop.example/return?signature=x"
	wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret", cardForm)), d.after.ReturnURL)
	want := pci.Browser{AcceptHeader: "text/html", AcceptLanguage: "en-MY;q=0.9, ms", UserAgent: "Mozilla/5.0", Language: "en-MY", IP: "192.0.2.1"}
	if d.took != 1 || d.binding != "pay_01" || len(d.paid) != 1 || d.paid[0] != want {
		t.Errorf("took %d for %q, paid with %+v", d.took, d.binding, d.paid)
	}
}

func TestBrowserIsCutToWhatTheStandardTakes(t *testing.T) {
	r := browser(http.MethodPost, "/checkout/s3cret", cardForm)
	r.Header.Set("User-Agent", strings.Repeat("a", 5000)+"\u00e9")
	r.Header.Set("Accept-Language", "*")
	if b := browserOf(r, pci.Browser{}); len(b.UserAgent) != 2048 || b.Language != "" {
		t.Errorf("user agent of %d bytes, language %q", len(b.UserAgent), b.Language)
	}
}

func TestAfterThePostComesThePage(t *testing.T) {
	for _, state := range []CheckoutState{CheckoutPayable, CheckoutChallenge, CheckoutProcessing, CheckoutUncertain, CheckoutFailed} {
		d := newDesk(Limits{})
		d.after = CheckoutView{State: state, ReturnURL: "https://shop.example/", ReturnOrigin: "https://shop.example"}
		wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret?lang=ar-EG", cardForm)), "/checkout/s3cret?lang=ar")
		wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret/3ds", "cres=eyJ9&threeDSSessionData=")), "/checkout/s3cret")
	}
}

func TestBodyIsNotReadWhereNoCardIsTaken(t *testing.T) {
	for _, state := range []CheckoutState{CheckoutChallenge, CheckoutProcessing, CheckoutPaid, CheckoutUncertain, CheckoutFailed, CheckoutExpired} {
		d := newDesk(Limits{})
		d.view.State, d.view.ReturnURL = state, "https://shop.example/return"
		target := "/checkout/s3cret"
		if state == CheckoutPaid {
			target = "https://shop.example/return"
		}
		wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret", cardForm)), target)
		if d.took > 0 || len(d.paid) > 0 {
			t.Errorf("%s: a card was taken", state)
		}
	}
}

// chance is what is random in a page and in the log, or measured: any three digits come up there.
var chance = regexp.MustCompile(`"[0-9a-f]{32}"|request_id=\S+|duration=\S+|time=\S+|"(request_id|time)":"[^"]*"|"duration":\d+`)

func TestMistakesAreShownWithoutTheCard(t *testing.T) {
	d := newDesk(Limits{})
	d.takeErr = fmt.Errorf("take: %w", pci.CardErrors{{Field: pci.FieldNumber, Reason: pci.ReasonChecksum}, {Field: pci.FieldCVV, Reason: pci.ReasonMissing}})
	w := d.send(t, browser(http.MethodPost, "/checkout/s3cret?lang=en", cardForm))
	wantPage(t, w, http.StatusUnprocessableEntity, `role="alert"`, "typing error", "Enter the security code", "Pay €12.50</button>")
	shown := chance.ReplaceAllString(w.Body.String()+d.log.String(), "")
	for _, secret := range []string{"4111", "737", "12/31", "Siti", "Aminah"} {
		if strings.Contains(shown, secret) {
			t.Errorf("%q was repeated", secret)
		}
	}
	if len(d.paid) > 0 {
		t.Error("it was paid")
	}
}

func TestCardThatCannotBeTaken(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{{pci.ErrFull, 503}, {pci.ErrUnavailable, 503}, {pci.ErrMalformed, 400}, {pci.ErrTooLarge, 413}, {errors.New("odd"), 500}} {
		d := newDesk(Limits{})
		d.takeErr = fmt.Errorf("take: %w", c.err)
		w := d.send(t, browser(http.MethodPost, "/checkout/s3cret", cardForm))
		wantPage(t, w, c.status, "<h1>")
		if (w.Header().Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("%v: Retry-After %q", c.err, w.Header().Get("Retry-After"))
		}
	}
}

func TestPaymentThatTakesLongIsWaitedForOnThePage(t *testing.T) {
	d := newDesk(Limits{})
	d.payErr, d.awaitErr = context.DeadlineExceeded, context.DeadlineExceeded
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // stands for the end of patience
	wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret", cardForm).WithContext(ctx)), "/checkout/s3cret")
	wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret/3ds", "cres=x").WithContext(ctx)), "/checkout/s3cret")
	wantPage(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret", cardForm)), 500, "<h1>")
	d.payErr, d.awaitErr = pci.ErrGone, pci.ErrUnavailable
	wantPage(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret", cardForm)), 503, "<h1>")
	wantPage(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret/3ds", "cres=x")), 503, `href="/checkout/s3cret?lang=ms"`)
}

func TestPaidAfterTheChallenge(t *testing.T) {
	d := newDesk(Limits{})
	d.after = CheckoutView{State: CheckoutPaid, ReturnURL: "https://shop.example/return?signature=x", ReturnOrigin: "https://shop.example"}
	wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret/3ds", "cres=forged")), "https://shop.example/return?signature=x")
}

func TestShopperMeetsPagesNotProblems(t *testing.T) {
	d := newDesk(Limits{})
	for _, path := range []string{"/checkout/other", "/checkout/", "/checkout/s3cret/nothing", "/checkout/" + strings.Repeat("a", 129), "/checkout/a%20b"} {
		wantPage(t, d.send(t, browser(http.MethodGet, path, "")), 404, "Tiada pembayaran")
	}
	wantPage(t, d.send(t, browser(http.MethodPost, "/checkout/other", cardForm)), 404, "<h1>")
	wantPage(t, d.send(t, browser(http.MethodPost, "/checkout/other/3ds", "cres=x")), 404, "<h1>")
	w := d.send(t, browser(http.MethodPut, "/checkout/s3cret", ""))
	wantPage(t, w, 405, "<h1>")
	if w.Header().Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("Allow %q", w.Header().Get("Allow"))
	}
	for _, mediaType := range []string{"", "application/json", "multipart/form-data; boundary=x"} {
		r := browser(http.MethodPost, "/checkout/s3cret", cardForm)
		r.Header.Set("Content-Type", mediaType)
		wantPage(t, d.send(t, r), 415, "<h1>")
	}
	d.viewErr = pci.ErrUnavailable
	if w := d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")); w.Header().Get("Retry-After") != "5" {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	d.viewErr, d.view.State = nil, CheckoutChallenge // without a challenge
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")), 500, "<h1>")
	d.view.State = "new"
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")), 500, "<h1>")
	if d.took > 0 {
		t.Error("a card was taken")
	}
}

func TestShoppersOfOneAddressAreLimited(t *testing.T) {
	d := newDesk(Limits{PerAddress: Rate{PerSecond: 1, Burst: 1}})
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")), 200)
	w := d.send(t, browser(http.MethodPost, "/checkout/s3cret", cardForm))
	wantPage(t, w, 429, "<h1>")
	if w.Header().Get("Retry-After") != "1" || d.took > 0 {
		t.Errorf("Retry-After %q, took %d", w.Header().Get("Retry-After"), d.took)
	}
	wantProblem(t, d.send(t, httptest.NewRequest(http.MethodGet, "/ledger/checkpoint", nil)), ErrRateLimit, "")
	other := browser(http.MethodGet, "/checkout/s3cret", "")
	other.RemoteAddr = "198.51.100.1:1"
	wantPage(t, d.send(t, other), 200)
}

func TestStyleSheetIsServed(t *testing.T) {
	d := newDesk(Limits{})
	page := d.send(t, browser(http.MethodGet, "/checkout/s3cret", ""))
	href := regexp.MustCompile(`href="(/assets/[^"]+)"`).FindStringSubmatch(page.Body.String())
	if href == nil {
		t.Fatal("the page names no style sheet")
	}
	w := d.send(t, browser(http.MethodGet, href[1], ""))
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/css; charset=utf-8" || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestNothingHereCanSeeDigits(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.Lines(string(out)) {
		if strings.Contains(name, "finpay/pci/") || strings.Contains(name, "finpay/hsm") || strings.Contains(name, "finpay/appliance") {
			t.Errorf("api imports %s", name)
		}
	}
}

func TestAStoredCardIsShownAndPaid(t *testing.T) {
	d := newDesk(Limits{})
	d.view.Stored = &pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2031, Month: 9}}
	w := d.send(t, browser(http.MethodGet, "/checkout/s3cret?lang=en", ""))
	wantPage(t, w, 200, "Pay with your saved card", "Visa", "1111", "09/31", `action="/checkout/s3cret/stored?lang=en"`, `href="/checkout/s3cret?lang=en&amp;card=another"`)
	if strings.Contains(w.Body.String(), "411111") || strings.Contains(w.Body.String(), `id="number"`) {
		t.Error("the page shows more of the card than it must, or asks for one")
	}
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret?lang=en&card=another", "")), 200, `id="number"`)

	d.after = d.view
	d.after.State, d.after.ReturnURL = CheckoutPaid, "https://shop.example/return?signature=x"
	form := "form=f1&browser_width=1920&browser_height=1080&browser_depth=24&browser_tz=-480&browser_language=ms-MY"
	wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret/stored", form)), d.after.ReturnURL)
	want := pci.Browser{AcceptHeader: "text/html", AcceptLanguage: "en-MY;q=0.9, ms", UserAgent: "Mozilla/5.0", Language: "ms-MY", IP: "192.0.2.1", JavaScript: true,
		ScreenWidth: "1920", ScreenHeight: "1080", ColorDepth: "24", TZ: "-480"}
	if d.took != 0 || len(d.forms) != 1 || d.forms[0] != "f1" || len(d.paid) != 1 || d.paid[0] != want {
		t.Errorf("took %d, forms %v, paid with %+v", d.took, d.forms, d.paid)
	}
	wantRedirect(t, d.send(t, browser(http.MethodPost, "/checkout/s3cret/stored", "form=f2")), d.after.ReturnURL) // without a script
	for name, form := range map[string]string{"no form": "browser_width=1", "a card as the form": "form=" + testPAN, "too long": "form=f&x=" + strings.Repeat("a", 5000)} {
		if w := d.send(t, browser(http.MethodPost, "/checkout/s3cret/stored", form)); w.Code != 400 || len(d.paid) != 2 {
			t.Errorf("%s: %d, paid %d times", name, w.Code, len(d.paid))
		}
	}
	wantPage(t, d.send(t, browser(http.MethodPost, "/checkout/unknown/stored", "form=f")), 404)
}

func TestWhatAPaymentSaysOfAStoredCard(t *testing.T) {
	const rest = `"amount": 1250, "currency": "EUR", "reference": "r"`
	for body, pointer := range map[string]string{
		`{` + rest + `}`: "/return_url",
		`{` + rest + `, "return_url": "https://shop.example/", "initiator": "customer"}`:              "/initiator",
		`{` + rest + `, "return_url": "https://shop.example/", "token": "t1", "initiator": "issuer"}`: "/initiator",
		`{` + rest + `, "return_url": "https://shop.example/", "token": "a b"}`:                       "/token",
		`{` + rest + `, "return_url": "https://shop.example/", "token": "` + testPAN + `"}`:           "/token",
		`{` + rest + `, "return_url": "https://shop.example/", "token": "t1", "original": "pay_1"}`:   "/original",
		`{` + rest + `, "token": "t1"}`:                                                                                      "/return_url",
		`{` + rest + `, "token": "t1", "initiator": "merchant"}`:                                                             "/original",
		`{` + rest + `, "token": "t1", "initiator": "merchant", "original": "` + testPAN + `"}`:                              "/original",
		`{` + rest + `, "token": "t1", "initiator": "merchant", "original": "pay_1", "return_url": "https://shop.example/"}`: "/return_url",
		`{` + rest + `, "initiator": "merchant", "original": "pay_1"}`:                                                       "/initiator",
		`{` + rest + `, "return_url": "https://shop.example/", "token": "t1"}`:                                               "",
		`{` + rest + `, "token": "t1", "initiator": "merchant", "original": "pay_1"}`:                                        "",
	} {
		d := newDesk(Limits{})
		w := d.send(t, request(http.MethodPost, "/v1/payments", body))
		if pointer != "" {
			want := ErrInvalid
			if strings.Contains(body, `"token": "`+testPAN) {
				want = ErrCardNumber
			}
			wantProblem(t, w, want, pointer)
			continue
		}
		if w.Code != 201 || len(d.created) != 1 || d.created[0].Token != "t1" || d.created[0].Initiator == "" {
			t.Errorf("%s: %d, created %+v", body, w.Code, d.created)
		}
	}
}
