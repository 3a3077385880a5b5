package simulator

import (
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// bank is an ACS with one challenge, and the 3DS Server that takes its result.
type bank struct {
	*ACS
	acsTransID string
	results    []elements
	broken     bool
}

func startBank(t *testing.T) *bank {
	t.Helper()
	b := &bank{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m elements
		_ = json.NewDecoder(r.Body).Decode(&m)
		b.results = append(b.results, m)
		if b.broken {
			writeJSON(w, elements{"messageType": "Erro", "errorCode": "403"})
			return
		}
		writeJSON(w, elements{"messageType": "RRes", "acsTransID": m["acsTransID"], "resultsStatus": "01"})
	}))
	t.Cleanup(server.Close)
	b.ACS = &ACS{Client: server.Client()}
	areq := testAReq(visaChallenge)
	areq["threeDSServerURL"] = server.URL
	d := &DirectoryServer{ACS: b.ACS, ACSURL: "https://bank.example/acs", AnyClient: true}
	b.acsTransID = ask(t, d, areq).text("acsTransID")
	return b
}

func (b *bank) creq(change func(elements)) string {
	c := elements{
		"messageType": "CReq", "messageVersion": "2.2.0", "challengeWindowSize": "05",
		"threeDSServerTransID": serverTransID, "acsTransID": b.acsTransID,
	}
	change(c)
	raw, _ := json.Marshal(c)
	return base64.RawURLEncoding.EncodeToString(raw)
}

func submit(h http.Handler, fields url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/acs", strings.NewReader(fields.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// field returns the value of a hidden input.
func field(page, name string) string {
	found := regexp.MustCompile(`name="` + name + `" value="([^"]*)"`).FindStringSubmatch(page)
	if found == nil {
		return ""
	}
	return html.UnescapeString(found[1])
}

func TestTheChallengePageSaysWhatIsPaid(t *testing.T) {
	b := startBank(t)
	w := submit(b, url.Values{"creq": {b.creq(func(elements) {})}, "threeDSSessionData": {`"><b>x`}})
	page := w.Body.String()
	for _, want := range []string{"EUR 19.99", "•••• 9017", "Tea &lt;script&gt;", "Simulated Bank", `name="password"`, `value="cancel"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if w.Code != http.StatusOK || strings.Contains(page, visaChallenge) || strings.Contains(page, "<b>x") {
		t.Errorf("status %d, page %s", w.Code, page)
	}
	if got := field(page, "threeDSSessionData"); got != `"><b>x` {
		t.Errorf("threeDSSessionData %q", got)
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
}

func TestTheShopperDecides(t *testing.T) {
	for name, test := range map[string]struct {
		password, action string
		status, cancel   string
		eci              string
	}{
		"right password":  {"1234", "submit", "Y", "", "05"},
		"wrong password":  {"4321", "submit", "N", "", "07"},
		"no password":     {"", "submit", "N", "", "07"},
		"cancel":          {"", "cancel", "N", "01", "07"},
		"cancel all same": {"1234", "cancel", "N", "01", "07"},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBank(t)
			w := submit(b, url.Values{
				"acsTransID": {b.acsTransID}, "password": {test.password}, "action": {test.action}, "threeDSSessionData": {"s"},
			})
			if len(b.results) != 1 {
				t.Fatalf("%d results", len(b.results))
			}
			got := b.results[0]
			if got.text("transStatus") != test.status || got.text("challengeCancel") != test.cancel || got.text("eci") != test.eci ||
				got.text("messageType") != "RReq" || got.text("threeDSServerTransID") != serverTransID {
				t.Errorf("RReq %v", got)
			}
			if (got.text("authenticationValue") != "") != (test.status == "Y") {
				t.Errorf("authenticationValue %q", got.text("authenticationValue"))
			}
			page := w.Body.String()
			raw, err := base64.RawURLEncoding.DecodeString(field(page, "cres"))
			if err != nil {
				t.Fatal(err)
			}
			var cres elements
			if err := json.Unmarshal(raw, &cres); err != nil {
				t.Fatal(err)
			}
			if cres.text("messageType") != "CRes" || cres.text("transStatus") != test.status || field(page, "threeDSSessionData") != "s" ||
				!strings.Contains(page, `action="https://pay.example/3ds"`) {
				t.Errorf("CRes %v on %s", cres, page)
			}
			if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "form-action https://pay.example") {
				t.Errorf("policy %q", csp)
			}
		})
	}
}

func TestAResultThatWasNotTakenIsSentAgainUnchanged(t *testing.T) {
	b := startBank(t)
	b.broken = true
	decision := url.Values{"acsTransID": {b.acsTransID}, "password": {"1234"}, "action": {"submit"}}
	if w := submit(b, decision); w.Code != http.StatusBadGateway || field(w.Body.String(), "acsTransID") != b.acsTransID {
		t.Errorf("status %d", w.Code)
	}
	b.broken = false
	decision.Set("password", "wrong now")
	if w := submit(b, decision); w.Code != http.StatusOK {
		t.Errorf("status %d", w.Code)
	}
	first, _ := json.Marshal(b.results[0])
	second, _ := json.Marshal(b.results[1])
	if string(first) != string(second) {
		t.Errorf("first %s\nthen  %s", first, second)
	}
}

func TestAStrangeCReqIsRefused(t *testing.T) {
	b := startBank(t)
	for name, test := range map[string]struct {
		field  string
		status int
	}{
		"not base64url":    {"{}", 400},
		"not JSON":         {"AAAA", 400},
		"other message":    {b.creq(func(c elements) { c["messageType"] = "CRes" }), 400},
		"other version":    {b.creq(func(c elements) { c["messageVersion"] = "2.1.0" }), 400},
		"unknown":          {b.creq(func(c elements) { c["acsTransID"] = serverTransID }), 404},
		"another's server": {b.creq(func(c elements) { c["threeDSServerTransID"] = b.acsTransID }), 404},
	} {
		if w := submit(b, url.Values{"creq": {test.field}}); w.Code != test.status {
			t.Errorf("%s: status %d, want %d", name, w.Code, test.status)
		}
	}
	if w := submit(b, url.Values{"acsTransID": {serverTransID}, "password": {"1234"}}); w.Code != 404 || len(b.results) != 0 {
		t.Errorf("status %d, results %v", w.Code, b.results)
	}
}

func TestAmountsAreShownInTheirCurrency(t *testing.T) {
	for _, test := range []struct{ minor, numeric, exponent, want string }{
		{"1999", "978", "2", "EUR 19.99"}, {"5", "978", "2", "EUR 0.05"}, {"500", "392", "0", "JPY 500"}, {"1234", "048", "3", "BHD 1.234"},
	} {
		if got := displayAmount(test.minor, test.numeric, test.exponent); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}
