package checkout

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"html"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/finterra/finpay/pci"
)

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func sealedPage(t *testing.T, open bool) Page {
	p := page(t, Payable, "en")
	p.Open, p.Now, p.ExpiresAt = open, time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC), time.Date(2026, 11, 30, 9, 20, 0, 5, time.UTC)
	p.Sealing = &Sealing{Key: "intake-2", PublicKey: "BHw", Info: "finpay checkout v1", AAD: `s3cret mer_1 1250 EUR`}
	return p
}

func TestFilesAreWhatThePageSaysTheyAre(t *testing.T) {
	body, _ := write(t, sealedPage(t, true))
	found := regexp.MustCompile(`(?:href|src)="/assets/([^"]+)" integrity="sha384-([^"]+)"`).FindAllStringSubmatch(body, -1)
	if len(found) != 2 {
		t.Fatalf("%v", found)
	}
	for _, f := range found {
		file, ok := Asset(f[1])
		sum := sha512.Sum384(file.Body)
		if !ok || base64.StdEncoding.EncodeToString(sum[:]) != html.UnescapeString(f[2]) {
			t.Errorf("%s: the page names another hash", f[1])
		}
		r, err := gzip.NewReader(bytes.NewReader(file.Compressed))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(r); err != nil || !bytes.Equal(plain, file.Body) {
			t.Errorf("%s does not come out of its compression: %v", f[1], err)
		}
	}
}

// What goes over the wire for the form: the page as it is, its files compressed.
func TestThePageIsLight(t *testing.T) {
	const most = 60_000
	for _, l := range languages {
		p := sealedPage(t, true)
		p.Language = l
		body, _ := write(t, p)
		if n := len(body) + len(styleFile.Compressed) + len(scriptFile.Compressed); n > most {
			t.Errorf("%s: %d bytes", l.Code, n)
		}
	}
}

func TestTheScriptIsToldWhatItNeeds(t *testing.T) {
	body, _ := write(t, sealedPage(t, true))
	mustHave(t, body, `data-key="intake-2"`, `data-public-key="BHw"`, `data-info="finpay checkout v1"`, `data-aad="s3cret mer_1 1250 EUR"`, ` data-open`,
		`data-month="2026-11"`, `data-left="1200"`, `name="number"`)
	texts := regexp.MustCompile(`data-texts="([^"]*)"`).FindStringSubmatch(body)
	var said map[string]string
	if texts == nil || json.Unmarshal([]byte(html.UnescapeString(texts[1])), &said) != nil || said["brand.visa"] != "Visa" || said["left.5"] == "" {
		t.Errorf("%v", texts)
	}
}

func TestTheScriptsTextsExist(t *testing.T) {
	used := regexp.MustCompile(`texts(?:\.([a-z]+)|\["([a-z.]+)"\])`)
	for _, file := range []string{"card.js"} {
		source := string(mustRead(t, "script/"+file))
		for _, found := range used.FindAllStringSubmatch(source, -1) {
			if key := found[1] + found[2]; !slices.Contains(scriptTexts, key) {
				t.Errorf("%s uses %q, which the page does not send", file, key)
			}
		}
	}
}

// Where cards are taken sealed only, what is typed has no way out of the page but the script's.
func TestASealedOnlyFormSendsNothingByItself(t *testing.T) {
	body, _ := write(t, sealedPage(t, false))
	for _, name := range []string{"number", "expiry", "cvv", "name"} {
		if strings.Contains(body, ` name="`+name+`"`) {
			t.Errorf("the input %s has a name", name)
		}
	}
	mustHave(t, body, "<noscript>", "needs JavaScript", `<button type="submit" disabled>`, `id="late"`)
	if strings.Contains(body, "data-open") {
		t.Error("the script is told that the form may go open")
	}
}

func TestAFormIsAskedForAgain(t *testing.T) {
	for again, want := range map[Again]string{NewKey: "encryption key has been renewed", Twice: "arrived twice"} {
		for _, l := range languages {
			p := sealedPage(t, false)
			p.Again, p.Decline = again, "insufficient_funds"
			if l.Code == "en" {
				body, _ := write(t, p)
				mustHave(t, body, `role="alert">`, want)
				if strings.Contains(body, "enough money") {
					t.Error("two notices at once")
				}
				continue
			}
			p.Language = l
			write(t, p)
		}
	}
}

func TestThePageWithoutAClockTellsNoTime(t *testing.T) {
	body, _ := write(t, page(t, Payable, "en"))
	if strings.Contains(body, "data-left") {
		t.Error("a time is told that is not known")
	}
}

func TestFramesAreNamed(t *testing.T) {
	_, header := write(t, page(t, Challenge, "en"))
	mustHave(t, header.Get("Content-Security-Policy"), "frame-src 'self' https://acs.example;")
	mustHave(t, header.Get("Permissions-Policy"), `publickey-credentials-get=(self "https://acs.example")`)
	body, header := write(t, page(t, Method, "en"))
	mustHave(t, header.Get("Content-Security-Policy"), "frame-src 'self' https://acs.example;", "form-action 'self' https://acs.example https://shop.example;")
	mustHave(t, body, `action="https://acs.example/method"`, `name="threeDSMethodData" value="eyJ0aHJlZURTTWV0aG9k"`, `action="/checkout/s3cret/next"`, `name="completed" value="N"`)
	body, header = write(t, page(t, Returned, "en"))
	mustHave(t, header.Get("Content-Security-Policy"), "form-action 'none'; frame-ancestors 'self';")
	mustHave(t, body, `target="_top"`, `href="/checkout/s3cret?lang=en"`)
	for _, kind := range []Kind{Payable, Processing, Paid} {
		if _, header := write(t, page(t, kind, "en")); strings.Contains(header.Get("Content-Security-Policy"), "frame-src") {
			t.Errorf("%s may show frames", kind)
		}
	}
}

func TestEveryBrandHasAMark(t *testing.T) {
	body, _ := write(t, page(t, Payable, "ar"))
	for _, brand := range []pci.Brand{pci.Visa, pci.Mastercard, pci.Amex, pci.Discover, pci.Diners, pci.JCB, pci.UnionPay, pci.Maestro} {
		mustHave(t, body, `<symbol id="mark-`+string(brand)+`"`)
	}
}
