package checkout

import (
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
)

var allKinds = Kinds()

func language(t *testing.T, code string) Language {
	t.Helper()
	l, ok := find(code)
	if !ok {
		t.Fatalf("no language %q", code)
	}
	return l
}

func page(t *testing.T, kind Kind, lang string) Page {
	return Page{Kind: kind, Language: language(t, lang), Merchant: "Kedai <Kopi>", Reference: "order-1001",
		Amount: pci.Amount{Minor: 1250, Currency: "EUR"}, ReturnURL: "https://shop.example/return?a=1&b=2", ReturnSite: "https://shop.example",
		ACSURL: "https://acs.example/challenge", ACSSite: "https://acs.example", CReq: "eyJ0aHJlZURT",
		MethodURL: "https://acs.example/method", MethodSite: "https://acs.example", MethodData: "eyJ0aHJlZURTTWV0aG9k", Next: "/checkout/s3cret/next",
		Path: "/checkout/s3cret", Open: true}
}

func write(t *testing.T, p Page) (string, http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	if err := p.Write(w, http.StatusOK); err != nil {
		t.Fatal(err)
	}
	return w.Body.String(), w.Header()
}

func mustHave(t *testing.T, body string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(body, part) {
			t.Errorf("the page lacks %q:\n%s", part, body)
		}
	}
}

func TestEveryLanguageSaysEverything(t *testing.T) {
	want := slices.Sorted(maps.Keys(languages[0].texts))
	for _, l := range languages {
		if got := slices.Sorted(maps.Keys(l.texts)); !slices.Equal(got, want) {
			t.Errorf("%s: keys differ from %s", l.Code, languages[0].Code)
		}
		for key, text := range l.texts {
			if strings.TrimSpace(text) == "" {
				t.Errorf("%s: %s is empty", l.Code, key)
			}
			for _, name := range []string{"{amount}", "{merchant}"} {
				if strings.Contains(text, name) != strings.Contains(languages[0].texts[key], name) {
					t.Errorf("%s: %s and English do not agree on %s", l.Code, key, name)
				}
			}
		}
	}
	files, err := fs.Glob(languageFiles, "languages/*.json")
	if err != nil || len(files) != len(languages) {
		t.Errorf("%d files, %d languages: %v", len(files), len(languages), err)
	}
}

func TestEveryReasonHasAText(t *testing.T) {
	texts := languages[0].texts
	for field, reasons := range map[pci.CardField][]pci.CardReason{
		pci.FieldNumber: {pci.ReasonMissing, pci.ReasonNotDigits, pci.ReasonLength, pci.ReasonChecksum, pci.ReasonUnsupported},
		pci.FieldExpiry: {pci.ReasonMissing, pci.ReasonFormat, pci.ReasonExpired},
		pci.FieldCVV:    {pci.ReasonMissing, pci.ReasonNotDigits, pci.ReasonLength},
		pci.FieldName:   {pci.ReasonTooLong, pci.ReasonFormat},
	} {
		for _, reason := range reasons {
			if texts["error."+string(field)+"."+string(reason)] == "" {
				t.Errorf("no text for %s %s", field, reason)
			}
		}
	}
}

func TestEveryPageInEveryLanguage(t *testing.T) {
	for _, l := range languages {
		for _, kind := range allKinds {
			body, header := write(t, page(t, kind, l.Code))
			mustHave(t, body, `<html lang="`+l.Code+`" dir="`+l.Direction+`">`, "Kedai &lt;Kopi&gt;", "<h1")
			scripted := slices.Contains([]Kind{Payable, Stored, Challenge, Method, Returned, Processing}, kind)
			if strings.Contains(body, "<script") != scripted || strings.Contains(header.Get("Content-Security-Policy"), "script-src 'self';") != scripted {
				t.Errorf("%s %s: a script where there is none to be, or none where there is", l.Code, kind)
			}
			if strings.Contains(body, "style=") || strings.Contains(body, "{amount}") || strings.Contains(body, "Kedai <Kopi>") {
				t.Errorf("%s %s: script, inline style, placeholder or unescaped text", l.Code, kind)
			}
			csp := header.Get("Content-Security-Policy")
			for _, part := range []string{"default-src 'none'", "style-src 'self'", "frame-ancestors '" + map[bool]string{false: "none", true: "self"}[kind == Returned] + "'", "base-uri 'none'", "form-action ",
				"require-trusted-types-for 'script'; trusted-types 'none'", "report-uri /csp-report; report-to csp"} {
				if !strings.Contains(csp, part) {
					t.Errorf("%s: policy %q lacks %s", kind, csp, part)
				}
			}
			for name, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Frame-Options": map[bool]string{false: "DENY", true: "SAMEORIGIN"}[kind == Returned],
				"Reporting-Endpoints": `csp="/csp-report"`, "Content-Language": l.Code, "Content-Type": "text/html; charset=utf-8"} {
				if got := header.Get(name); got != want {
					t.Errorf("%s: %s is %q, want %q", kind, name, got, want)
				}
			}
		}
	}
}

func TestPagesWithoutAPayment(t *testing.T) {
	for _, kind := range []Kind{Unknown, Busy, Unreadable, Broken} {
		body, _ := write(t, Page{Kind: kind, Language: language(t, "en")})
		if strings.Contains(body, "<header") {
			t.Errorf("%s shows a shop that it does not know", kind)
		}
	}
	if err := (Page{Kind: "other", Language: language(t, "en")}).Write(httptest.NewRecorder(), 200); err == nil {
		t.Error("an unknown kind was written")
	}
}

func TestCardForm(t *testing.T) {
	p := page(t, Payable, "en")
	p.ReturnURL = ""
	body, header := write(t, p)
	mustHave(t, body, "Pay €12.50</button>", `inputmode="numeric"`, `autocomplete="cc-number"`, `autocomplete="cc-exp"`, `autocomplete="cc-csc"`,
		`autocomplete="cc-name"`, `placeholder="MM / YY"`, `maxlength="23"`, `<label for="number">`, `<label for="expiry">`, `<label for="cvv">`, `<label for="name">`)
	if strings.Contains(body, `role="alert">`) || strings.Contains(body, "aria-invalid") || strings.Contains(body, "Back to") {
		t.Error("a first showing complains, or leads back to nowhere")
	}
	mustHave(t, header.Get("Content-Security-Policy"), "form-action 'self' https://shop.example;")
	form := regexp.MustCompile(`name="form" value="([0-9a-f]{32})"`)
	first := form.FindStringSubmatch(body)
	again, _ := write(t, p)
	second := form.FindStringSubmatch(again)
	if first == nil || second == nil || first[1] == second[1] {
		t.Errorf("form ids %v and %v", first, second)
	}
}

func TestMistakesStandBesideTheirFields(t *testing.T) {
	p := page(t, Payable, "en")
	p.Decline = "insufficient_funds"
	p.Errors = pci.CardErrors{{Field: pci.FieldCVV, Reason: pci.ReasonMissing}, {Field: pci.FieldNumber, Reason: pci.ReasonChecksum}, {Field: pci.FieldExpiry, Reason: "new"}}
	body, _ := write(t, p)
	mustHave(t, body, `role="alert"`, `<a href="#number">`, `<a href="#cvv">`, `aria-describedby="number-error brand" aria-invalid="true" autofocus`,
		`<p class="error" id="number-error">The card number has a typing error.`, `aria-describedby="cvv-error cvv-hint" aria-invalid="true"`,
		`id="cvv-error">Enter the security code.`, `id="expiry-error">Check the expiry date.`, "<title>Error")
	if strings.Count(body, "autofocus") != 1 || strings.Count(body, `role="alert">`) != 1 || strings.Contains(body, "enough money") {
		t.Error("one focus, one alert, and nothing of the card before")
	}
	if strings.Contains(body, `name="number" value`) || strings.Count(body, "value=") != 1 {
		t.Error("a field was filled in")
	}
}

func TestDeclinedCardIsExplained(t *testing.T) {
	for reason, want := range map[string]string{
		"insufficient_funds": "not enough money", "do_not_honour": "without saying why", "expired_card": "card has expired", "wrong_security_code": "security code was not right",
		"not_authenticated": "confirm that it was you", "card_refused": "cannot be used here", "try_again": "forgotten your card", "anything": "did not approve", "title": "did not approve", "another": "did not approve"} {
		p := page(t, Payable, "en")
		p.Decline = reason
		body, _ := write(t, p)
		mustHave(t, body, `role="alert"`, want, "Pay again with another card", `href="https://shop.example/return?a=1&amp;b=2"`, "Back to Kedai")
	}
}

func TestEveryShowingOfTheFormIsAnotherForm(t *testing.T) {
	seen := make(map[string]bool)
	for range 3 {
		body, _ := write(t, page(t, Payable, "en"))
		_, after, _ := strings.Cut(body, `<input type="hidden" name="`)
		name, _, ok := strings.Cut(after, `" disabled>`)
		if !ok || len(name) != 32 || seen[name] {
			t.Errorf("a browser that goes back would fill in the card: %q", name)
		}
		seen[name] = true
	}
}

func TestTheBankIsNotBlamedForWhatItDidNotDo(t *testing.T) {
	for _, l := range languages {
		for _, reason := range []string{"interrupted", "try_again", "challenge_timed_out"} {
			text, err := (&showing{Page: Page{Language: l, Decline: reason}}).DeclineText()
			if err != nil || text == l.texts["decline.other"] {
				t.Errorf("%s, %s: %q, %v", l.Code, reason, text, err)
			}
		}
	}
}

func TestChallengeGoesToTheBankOnly(t *testing.T) {
	body, header := write(t, page(t, Challenge, "en"))
	mustHave(t, body, `method="post" action="https://acs.example/challenge"`, `name="creq" value="eyJ0aHJlZURT"`, `name="threeDSSessionData" value=""`, "Continue to your bank</button>")
	mustHave(t, header.Get("Content-Security-Policy"), "form-action 'self' https://acs.example;")
}

func TestWaitingPageAsksAgain(t *testing.T) {
	body, _ := write(t, page(t, Processing, "en"))
	mustHave(t, body, `<noscript><meta http-equiv="refresh" content="2"></noscript>`)
	for _, kind := range allKinds {
		if body, _ := write(t, page(t, kind, "en")); kind != Processing && strings.Contains(body, "http-equiv") {
			t.Errorf("%s reloads", kind)
		}
	}
}

func TestTheEndLeadsBackToTheShop(t *testing.T) {
	for _, kind := range []Kind{Paid, Uncertain, Failed, Expired} {
		body, header := write(t, page(t, kind, "en"))
		mustHave(t, body, `<a class="button" href="https://shop.example/return?a=1&amp;b=2">Back to Kedai`)
		mustHave(t, header.Get("Content-Security-Policy"), "form-action 'none'")
		p := page(t, kind, "en")
		p.ReturnURL = "javascript:alert(1)"
		if body, _ := write(t, p); strings.Contains(body, "javascript:") {
			t.Errorf("%s: a script for an address", kind)
		}
	}
}

func TestShopperMayTryAgain(t *testing.T) {
	for _, kind := range []Kind{Busy, Unreadable} {
		p := Page{Kind: kind, Language: language(t, "ar"), Path: "/checkout/s3cret"}
		body, _ := write(t, p)
		mustHave(t, body, `<a class="button" href="/checkout/s3cret?lang=ar">`, `href="/checkout/s3cret?lang=en"`)
		p.Path = ""
		if body, _ := write(t, p); strings.Contains(body, `class="button"`) {
			t.Errorf("%s leads nowhere", kind)
		}
	}
}

func TestAmountsInEachLanguage(t *testing.T) {
	for code, want := range map[string]string{"en": "Pay €12.50", "ms": "Bayar €12.50", "zh": "支付 €12.50", "ar": "ادفع \u2068\u200f12.50\u00a0€\u2069"} {
		body, _ := write(t, page(t, Payable, code))
		mustHave(t, body, want+"</button>")
	}
}

func TestLanguageIsChosen(t *testing.T) {
	for _, c := range []struct{ query, header, want string }{
		{"", "", "en"},
		{"", "ar", "ar"},
		{"", "zh-Hant-TW,zh;q=0.9,en;q=0.8", "zh"},
		{"", "fr, de;q=0.9, ms-MY;q=0.5, en;q=0.4", "ms"},
		{"", "en;q=0.1, ar;q=0.2", "ar"},
		{"", "ar;q=0, zh;q=nan, ms;q=2, en", "en"},
		{"", "*", "en"},
		{"", strings.Repeat("xx,", 10_000) + "ar", "en"},
		{"lang=ar", "zh", "ar"},
		{"lang=AR-eg", "zh", "ar"},
		{"lang=tlh", "zh", "zh"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/checkout/x?"+c.query, nil)
		r.Header.Set("Accept-Language", c.header)
		if got := Choose(r).Code; got != c.want {
			t.Errorf("lang %q, Accept-Language %.40q: %s, want %s", c.query, c.header, got, c.want)
		}
	}
}

func TestStyleSheetIsTheOneThatPagesName(t *testing.T) {
	body, _ := write(t, page(t, Payable, "en"))
	name := regexp.MustCompile(`href="/assets/([^"]+)"`).FindStringSubmatch(body)
	if name == nil {
		t.Fatal("no style sheet")
	}
	file, ok := Asset(name[1])
	css := file.Body
	if !ok || file.MediaType != "text/css; charset=utf-8" || len(css) == 0 {
		t.Errorf("%s: %v %s %d bytes", name[1], ok, file.MediaType, len(css))
	}
	if strings.Contains(string(css), "url(") || strings.Contains(string(css), "@import") {
		t.Error("the sheet loads something")
	}
	if _, ok := Asset("checkout.css"); ok {
		t.Error("a name without the hash was served")
	}
}
