package threeds

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/pci/wire"
)

const (
	testPAN    = "4111111111111111"
	dsTransID  = "11111111-2222-4333-8444-555555555555"
	acsTransID = "66666666-7777-4888-9999-aaaaaaaaaaaa"
)

var testCAVV = base64.StdEncoding.EncodeToString([]byte("twenty bytes exactly"))

// wallet lends the test card, with a CVV that must never be seen again.
type wallet struct{ number string }

func (w wallet) Hold(context.Context, *pan.Card, string) (pci.CardRef, error) {
	return pci.CardRef{}, errors.New("not here")
}

func (w wallet) Lend(_ context.Context, _ pci.CardRef, binding string, use func(*pan.Card) error) error {
	if binding != "pay_1" {
		return pci.ErrGone
	}
	card, err := pan.New([]byte(w.number), []byte("973"), pci.Expiry{Year: 2031, Month: 4})
	if err != nil {
		return err
	}
	defer card.Release()
	return use(card)
}

var _ lend.Custody = wallet{}

// directory is a directory server whose answers a test writes.
type directory struct {
	*httptest.Server
	mu       sync.Mutex
	received []map[string]any
	raw      []string
}

func startDirectory(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, message map[string]any)) *directory {
	t.Helper()
	d := &directory{}
	d.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var message map[string]any
		_ = json.Unmarshal(body, &message)
		d.mu.Lock()
		d.received = append(d.received, message)
		d.raw = append(d.raw, string(body))
		d.mu.Unlock()
		answer(w, r, message)
	}))
	d.Config.ErrorLog = nil
	t.Cleanup(d.Close)
	return d
}

func (d *directory) messages(kind string) (found []map[string]any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.received {
		if m["messageType"] == kind {
			found = append(found, m)
		}
	}
	return found
}

func (d *directory) client(t *testing.T) *http.Client {
	t.Helper()
	trust := d.Client().Transport.(*http.Transport).TLSClientConfig
	return &http.Client{Transport: &wire.Transport{TLS: trust}}
}

func startServer(t *testing.T, d *directory, change func(*Config)) *Server {
	t.Helper()
	cfg := Config{
		DirectoryServer: d.URL, Client: d.client(t), ResultsURL: "https://finpay.example/3ds/results",
		ServerRefNumber: "3DS_LOA_SER_TEST_020200", OperatorID: "operator-1",
		Now: func() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC) },
	}
	if change != nil {
		change(&cfg)
	}
	s, err := newServer(cfg, wallet{testPAN}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testRequest() pci.AuthenticationRequest {
	return pci.AuthenticationRequest{
		Payment: "pay_1", Card: pci.NewCardRef(), Amount: pci.Amount{Minor: 1999, Currency: "EUR"},
		Merchant: pci.Merchant{
			Name: "Tea \"&\" Coffee <Kuala Lumpur>", Country: "MY", CountryCode: "458", MCC: "5499",
			AcquirerBIN: "400551", AcquirerMID: "FINPAY000000001",
			RequestorID: "requestor-1", RequestorName: "Tea & Coffee", RequestorURL: "https://tea.example",
		},
		Cardholder: pci.Cardholder{Name: "Siti Aminah", Email: "siti@example.com", Phone: pci.Phone{CountryCode: "60", Subscriber: "123456789"}},
		Browser: pci.Browser{
			AcceptHeader: "text/html", IP: "203.0.113.7", UserAgent: "Mozilla/5.0", Language: "ms-MY",
			JavaScript: true, ColorDepth: "30", ScreenHeight: "900", ScreenWidth: "1440", TZ: "-480",
		},
		NotificationURL: "https://pay.example/checkout/abc/3ds",
	}
}

// validARes answers message with the given status; change may then spoil it.
func validARes(message map[string]any, transStatus string) map[string]any {
	a := map[string]any{
		"messageType": "ARes", "messageVersion": spokenIn(message),
		"threeDSServerTransID": message["threeDSServerTransID"], "dsTransID": dsTransID, "acsTransID": acsTransID,
		"dsReferenceNumber": "DS-1", "acsReferenceNumber": "ACS-1", "transStatus": transStatus,
	}
	switch transStatus {
	case "Y", "A":
		a["eci"], a["authenticationValue"] = "05", testCAVV
	case "C":
		a["acsURL"], a["acsChallengeMandated"], a["authenticationType"] = "https://acs.example/challenge", "Y", "02"
	default:
		a["transStatusReason"] = "01"
	}
	return a
}

func reply(w http.ResponseWriter, message any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(message)
}

func authenticate(t *testing.T, change func(map[string]any)) (pci.Authentication, *directory) {
	t.Helper()
	d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, message map[string]any) {
		a := validARes(message, "Y")
		change(a)
		reply(w, a)
	})
	auth, err := startServer(t, d, nil).Authenticate(t.Context(), testRequest())
	if err != nil {
		t.Fatal(err)
	}
	return auth, d
}

func TestEveryTransStatusHasItsOutcome(t *testing.T) {
	for transStatus, want := range map[string]pci.AuthenticationOutcome{
		"Y": pci.Authenticated, "A": pci.AuthenticationTried, "C": pci.ChallengeRequired,
		"N": pci.AuthenticationNo, "R": pci.AuthenticationNo, "U": pci.AuthenticationDown,
		"I": pci.AuthenticationDown, "D": pci.AuthenticationNo, "S": pci.AuthenticationNo, "x": pci.AuthenticationNo,
	} {
		t.Run(transStatus, func(t *testing.T) {
			auth, d := authenticate(t, func(a map[string]any) {
				id := a["threeDSServerTransID"]
				clear(a)
				for k, v := range validARes(map[string]any{"threeDSServerTransID": id}, transStatus) {
					a[k] = v
				}
			})
			if auth.Outcome != want {
				t.Errorf("outcome %s, want %s", auth.Outcome, want)
			}
			if proof := auth.CAVV != ""; proof != (transStatus == "Y" || transStatus == "A") {
				t.Errorf("CAVV %q with transStatus %s", auth.CAVV, transStatus)
			}
			unknown := strings.Contains("DSx", transStatus)
			if got := len(d.messages("Erro")) == 1; got != unknown {
				t.Errorf("an Erro was sent: %v, want %v", got, unknown)
			}
		})
	}
}

func TestAFrictionlessAnswerCarriesTheProof(t *testing.T) {
	auth, d := authenticate(t, func(map[string]any) {})
	want := pci.Authentication{
		Outcome: pci.Authenticated, TransStatus: "Y", Version: "2.2.0", ECI: "05", CAVV: testCAVV,
		ServerTransID: d.messages("AReq")[0]["threeDSServerTransID"].(string), DSTransID: dsTransID, ACSTransID: acsTransID,
	}
	if auth != want {
		t.Errorf("got  %+v\nwant %+v", auth, want)
	}
}

// With the policy to go on where the issuer cannot be asked, taking a faulty refusal for silence would authorize what
// the issuer has refused.
func TestAFaultyRefusalIsARefusal(t *testing.T) {
	for _, transStatus := range []string{"N", "R", "D", "I", "S"} {
		for name, spoil := range map[string]func(map[string]any){
			"ECI is no number":     func(a map[string]any) { a["eci"] = "seven" },
			"ECI of another type":  func(a map[string]any) { a["eci"] = 7 },
			"no DS reference":      func(a map[string]any) { delete(a, "dsReferenceNumber") },
			"other version":        func(a map[string]any) { a["messageVersion"] = "2.1.0" },
			"other 3DS Server id":  func(a map[string]any) { a["threeDSServerTransID"] = dsTransID },
			"critical extension":   func(a map[string]any) { a["messageExtension"] = []any{map[string]any{"criticalityIndicator": true}} },
			"extensions no list":   func(a map[string]any) { a["messageExtension"] = "x" },
			"reason of three":      func(a map[string]any) { a["transStatusReason"] = "011" },
			"transaction id wrong": func(a map[string]any) { a["acsTransID"] = "42" },
		} {
			t.Run(transStatus+" "+name, func(t *testing.T) {
				auth, d := authenticate(t, func(a map[string]any) {
					delete(a, "authenticationValue")
					a["transStatus"] = transStatus
					spoil(a)
				})
				if auth.Outcome != pci.AuthenticationNo {
					t.Errorf("outcome %s, want %s", auth.Outcome, pci.AuthenticationNo)
				}
				if len(d.messages("Erro")) != 1 {
					t.Error("the directory server was not told of the fault")
				}
			})
		}
	}
}

func TestTheChallengesWindowFitsTheScreen(t *testing.T) {
	for _, c := range []struct {
		browser          pci.Browser
		configured, want string
	}{
		{pci.Browser{}, "", "05"},
		{pci.Browser{JavaScript: true, ScreenWidth: "1920"}, "", "03"},
		{pci.Browser{JavaScript: true, ScreenWidth: "390"}, "", "05"},
		{pci.Browser{JavaScript: true}, "", "05"},
		{pci.Browser{ScreenWidth: "1920"}, "", "05"},
		{pci.Browser{JavaScript: true, ScreenWidth: "1920"}, "02", "02"},
	} {
		s := &Server{cfg: Config{ChallengeWindowSize: c.configured}}
		if got := s.windowSize(c.browser); got != c.want {
			t.Errorf("%+v: %s, want %s", c, got, c.want)
		}
	}
}

func TestAChallengeNamesTheACSAndCarriesACReq(t *testing.T) {
	auth, _ := authenticate(t, func(a map[string]any) {
		a["transStatus"], a["acsURL"], a["acsChallengeMandated"], a["authenticationType"] = "C", "https://acs.example/challenge", "Y", "02"
	})
	if auth.Challenge == nil || auth.Challenge.ACSURL != "https://acs.example/challenge" {
		t.Fatalf("challenge %+v", auth.Challenge)
	}
	raw, err := base64.RawURLEncoding.DecodeString(auth.Challenge.CReq)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"threeDSServerTransID":"` + auth.ServerTransID + `","acsTransID":"` + acsTransID +
		`","challengeWindowSize":"03","messageType":"CReq","messageVersion":"2.2.0"}`
	if string(raw) != want {
		t.Errorf("CReq %s\nwant %s", raw, want)
	}
}

func TestAFaultyAResAuthenticatesNobody(t *testing.T) {
	set := func(name string, value any) func(map[string]any) { return func(a map[string]any) { a[name] = value } }
	drop := func(name string) func(map[string]any) { return func(a map[string]any) { delete(a, name) } }
	challenge := func(acsURL string) func(map[string]any) {
		return func(a map[string]any) {
			a["transStatus"], a["acsURL"], a["acsChallengeMandated"], a["authenticationType"] = "C", acsURL, "Y", "02"
		}
	}
	for name, test := range map[string]struct {
		change func(map[string]any)
		want   pci.AuthenticationOutcome
		erro   string // errorCode sent to the directory server
	}{
		"other 3DS Server id":  {set("threeDSServerTransID", dsTransID), pci.AuthenticationDown, "301"},
		"no 3DS Server id":     {drop("threeDSServerTransID"), pci.AuthenticationDown, "201"},
		"no DS id":             {drop("dsTransID"), pci.AuthenticationDown, "201"},
		"no ACS id":            {drop("acsTransID"), pci.AuthenticationDown, "201"},
		"DS id is no UUID":     {set("dsTransID", "42"), pci.AuthenticationDown, "203"},
		"no DS reference":      {drop("dsReferenceNumber"), pci.AuthenticationDown, "201"},
		"no ACS reference":     {drop("acsReferenceNumber"), pci.AuthenticationDown, "201"},
		"no transStatus":       {drop("transStatus"), pci.AuthenticationDown, "201"},
		"transStatus YY":       {set("transStatus", "YY"), pci.AuthenticationNo, "203"},
		"transStatus a number": {set("transStatus", 1), pci.AuthenticationDown, "203"},
		"ECI is no number":     {set("eci", "five"), pci.AuthenticationDown, "203"},
		"no CAVV":              {drop("authenticationValue"), pci.AuthenticationNo, ""},
		"short CAVV":           {set("authenticationValue", "AAAA"), pci.AuthenticationNo, ""},
		"CAVV not base64":      {set("authenticationValue", strings.Repeat("!", 28)), pci.AuthenticationNo, ""},
		"other version":        {set("messageVersion", "2.1.0"), pci.AuthenticationDown, "102"},
		"other message":        {set("messageType", "RReq"), pci.AuthenticationDown, "101"},
		"critical extension":   {set("messageExtension", []any{map[string]any{"criticalityIndicator": true}}), pci.AuthenticationDown, "202"},
		"known extension":      {set("messageExtension", []any{map[string]any{"criticalityIndicator": false}}), pci.Authenticated, ""},
		"unknown element":      {set("somethingNew", "x"), pci.Authenticated, ""},
		"ACS without URL":      {set("transStatus", "C"), pci.AuthenticationDown, "201"},
		"ACS over http":        {challenge("http://acs.example/"), pci.AuthenticationDown, "203"},
		"ACS is a script":      {challenge("javascript:alert(1)"), pci.AuthenticationDown, "203"},
		"directory's Erro":     {func(a map[string]any) { a["messageType"], a["errorCode"] = "Erro", "305" }, pci.AuthenticationDown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			auth, d := authenticate(t, test.change)
			if auth.Outcome != test.want || auth.Challenge != nil {
				t.Errorf("outcome %s, challenge %v, want %s", auth.Outcome, auth.Challenge, test.want)
			}
			var code string
			if sent := d.messages("Erro"); len(sent) > 0 {
				code, _ = sent[0]["errorCode"].(string)
			}
			if code != test.erro {
				t.Errorf("Erro %q sent, want %q", code, test.erro)
			}
		})
	}
}

func TestADirectoryServerThatFailsIsUnavailable(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request, m map[string]any){
		"HTTP 500": func(w http.ResponseWriter, _ *http.Request, _ map[string]any) { w.WriteHeader(500) },
		"redirect": func(w http.ResponseWriter, r *http.Request, _ map[string]any) {
			http.Redirect(w, r, "/else", http.StatusTemporaryRedirect)
		},
		"empty":    func(http.ResponseWriter, *http.Request, map[string]any) {},
		"not JSON": func(w http.ResponseWriter, _ *http.Request, _ map[string]any) { _, _ = io.WriteString(w, "<html>") },
		"null":     func(w http.ResponseWriter, _ *http.Request, _ map[string]any) { _, _ = io.WriteString(w, "null") },
		"duplicate name": func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
			_, _ = io.WriteString(w, `{"transStatus":"N","transStatus":"Y"}`)
		},
		"too long": func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
			_, _ = w.Write(make([]byte, maxAnswer+1))
		},
		"hangs up": func(http.ResponseWriter, *http.Request, map[string]any) { panic(http.ErrAbortHandler) },
		"silent": func(_ http.ResponseWriter, r *http.Request, _ map[string]any) {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDirectory(t, answer)
			s := startServer(t, d, func(c *Config) {
				if name == "silent" {
					c.Timeouts.Authentication = 300 * time.Millisecond
				}
			})
			auth, err := s.Authenticate(t.Context(), testRequest())
			if err != nil || auth.Outcome != pci.AuthenticationDown {
				t.Errorf("outcome %s, error %v", auth.Outcome, err)
			}
		})
	}
}

func TestTheAReqHasWhatTheStandardRequires(t *testing.T) {
	_, d := authenticate(t, func(map[string]any) {})
	got := d.messages("AReq")[0]
	id, _ := got["threeDSServerTransID"].(string)
	if !isTransID(id) {
		t.Errorf("threeDSServerTransID %q", id)
	}
	want := map[string]any{
		"messageType": "AReq", "messageVersion": "2.2.0", "deviceChannel": "02", "messageCategory": "01",
		"threeDSCompInd": "U", "threeDSRequestorAuthenticationInd": "01", "threeDSRequestorDecReqInd": "N",
		"threeDSRequestorID": "requestor-1", "threeDSRequestorName": "Tea & Coffee", "threeDSRequestorURL": "https://tea.example",
		"threeDSServerRefNumber": "3DS_LOA_SER_TEST_020200", "threeDSServerOperatorID": "operator-1",
		"threeDSServerTransID": id, "threeDSServerURL": "https://finpay.example/3ds/results",
		"acctNumber": testPAN, "cardExpiryDate": "3104", "cardholderName": "Siti Aminah", "email": "siti@example.com",
		"mobilePhone": map[string]any{"cc": "60", "subscriber": "123456789"},
		"acquirerBIN": "400551", "acquirerMerchantID": "FINPAY000000001", "mcc": "5499", "merchantCountryCode": "458",
		"merchantName": "Tea \"&\" Coffee <Kuala Lumpur>", "notificationURL": "https://pay.example/checkout/abc/3ds",
		"purchaseAmount": "1999", "purchaseCurrency": "978", "purchaseExponent": "2", "purchaseDate": "20300102030405", "transType": "01",
		"browserAcceptHeader": "text/html", "browserIP": "203.0.113.7", "browserLanguage": "ms-MY", "browserUserAgent": "Mozilla/5.0",
		"browserJavascriptEnabled": true, "browserJavaEnabled": false, "browserColorDepth": "24",
		"browserScreenHeight": "900", "browserScreenWidth": "1440", "browserTZ": "-480",
	}
	gotJSON, _ := json.MarshalIndent(got, "", " ")
	wantJSON, _ := json.MarshalIndent(want, "", " ")
	if string(gotJSON) != string(wantJSON) {
		t.Errorf("got %s\nwant %s", gotJSON, wantJSON)
	}
	if strings.Contains(strings.ReplaceAll(d.raw[0], id, ""), "973") { // a transaction's id may have the digits
		t.Error("the AReq contains the CVV")
	}
}

func TestAReqLeavesOutWhatTheStandardDoesNotAllow(t *testing.T) {
	d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) { reply(w, validARes(m, "N")) })
	req := testRequest()
	req.Cardholder = pci.Cardholder{Name: "José", Email: "nobody", Phone: pci.Phone{CountryCode: "+60"}}
	req.Merchant.Name = strings.Repeat("é", 50)
	req.Browser = pci.Browser{
		IP: "not an address", Language: "zh-Hans-CN-x-very-long", UserAgent: strings.Repeat("\"", 5000), AcceptHeader: "a\r\nb",
		JavaScript: true, ColorDepth: "24", ScreenHeight: "900", ScreenWidth: "1440", TZ: "", // the script could not read TZ
	}
	if _, err := startServer(t, d, nil).Authenticate(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	got := d.messages("AReq")[0]
	for _, element := range []string{
		"cardholderName", "email", "mobilePhone", "browserIP",
		"browserJavaEnabled", "browserColorDepth", "browserScreenHeight", "browserScreenWidth", "browserTZ",
	} {
		if value, there := got[element]; there {
			t.Errorf("%s is %v, want it left out", element, value)
		}
	}
	for element, want := range map[string]any{
		"merchantName": strings.Repeat("é", 40), "browserLanguage": "zh-Hans", "browserAcceptHeader": "ab",
		"browserUserAgent": strings.Repeat("\"", maxHeader), "browserJavascriptEnabled": false,
	} {
		if got[element] != want {
			t.Errorf("%s is %v, want %v", element, got[element], want)
		}
	}
}

func TestAnIncompleteRequestIsNotSent(t *testing.T) {
	d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) { reply(w, validARes(m, "Y")) })
	req := testRequest()
	req.Merchant.MCC, req.Merchant.AcquirerBIN, req.NotificationURL = "", "", strings.Repeat("x", 300)
	_, err := startServer(t, d, nil).Authenticate(t.Context(), req)
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) {
		t.Fatalf("error %v", err)
	}
	if got := strings.Join(incomplete.Elements, " "); got != "acquirerBIN mcc notificationURL" {
		t.Errorf("elements %q", got)
	}
	if len(d.messages("AReq")) != 0 {
		t.Error("something was sent")
	}
}

func TestACardThatIsGoneIsAskedForAgain(t *testing.T) {
	d := startDirectory(t, func(http.ResponseWriter, *http.Request, map[string]any) {})
	req := testRequest()
	req.Payment = "pay_2"
	if _, err := startServer(t, d, nil).Authenticate(t.Context(), req); !errors.Is(err, pci.ErrGone) {
		t.Errorf("error %v, want %v", err, pci.ErrGone)
	}
}

func TestAuthenticateReturnsEverySlotWiped(t *testing.T) {
	_, d := authenticate(t, func(map[string]any) {})
	s := startServer(t, d, nil)
	for range 300 { // more than there are slots
		if _, err := s.Authenticate(t.Context(), testRequest()); err != nil {
			t.Fatal(err)
		}
	}
	var slots []*pan.Slot
	for {
		slot, err := pan.NewSlot()
		if err != nil {
			break
		}
		slots = append(slots, slot)
		for _, b := range slot.Bytes() {
			if b != 0 {
				t.Error("a free slot is not wiped")
				break
			}
		}
	}
	for _, slot := range slots {
		slot.Release()
	}
}

func TestAnEchoedNumberIsMaskedBeforeItIsRead(t *testing.T) {
	a := &areq{}
	_ = wallet{testPAN}.Lend(t.Context(), pci.CardRef{}, "pay_1", func(card *pan.Card) error {
		m, err := newMessage(a, card, false)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Wipe()
		answer := []byte(`{"acctNumber":"` + testPAN + `","errorDetail":"` + testPAN + testPAN + ` is odd"}`)
		m.Mask(answer)
		if want := `{"acctNumber":"****************","errorDetail":"******************************** is odd"}`; string(answer) != want {
			t.Errorf("got %s", answer)
		}
		return nil
	})
}

func TestForeignTextLosesItsDigits(t *testing.T) {
	for in, want := range map[string]string{
		"acctNumber 4111111111111111": "acctNumber ***", "code 203": "code 203", "4111": "***", "": "", "a\n1\x00b": "a1b",
	} {
		if got := withoutDigits(in, 100, 3); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestOpenChallengesAreBounded(t *testing.T) {
	d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) { reply(w, validARes(m, "C")) })
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s := startServer(t, d, func(c *Config) { c.Challenges, c.Now = 1, func() time.Time { return now } })
	if _, err := s.Authenticate(t.Context(), testRequest()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate(t.Context(), testRequest()); !errors.Is(err, pci.ErrFull) {
		t.Fatalf("error %v, want %v", err, pci.ErrFull)
	}
	now = now.Add(DefaultChallengeTimeout)
	if _, err := s.Authenticate(t.Context(), testRequest()); err != nil {
		t.Fatalf("after the first challenge expired: %v", err)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no client":        func(c *Config) { c.Client = nil },
		"http":             func(c *Config) { c.DirectoryServer = "http://ds.example" },
		"no results URL":   func(c *Config) { c.ResultsURL = "" },
		"no reference":     func(c *Config) { c.ServerRefNumber = "" },
		"unknown policy":   func(c *Config) { c.UnknownRange = "maybe" },
		"unknown version":  func(c *Config) { c.Versions = []string{"2.2.0", "2.1.0"} },
		"acquirer country": func(c *Config) { c.AcquirerCountry = "MY" },
		"window size":      func(c *Config) { c.ChallengeWindowSize = "06" },
		"long operator id": func(c *Config) { c.OperatorID = strings.Repeat("x", 33) },
	} {
		cfg := Config{DirectoryServer: "https://ds.example", Client: http.DefaultClient, ResultsURL: "https://r.example", ServerRefNumber: "x"}
		change(&cfg)
		if _, err := newServer(cfg, wallet{}, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseCRes(t *testing.T) {
	encode := func(s string) []byte { return []byte(base64.RawURLEncoding.EncodeToString([]byte(s))) }
	good := `{"messageType":"CRes","messageVersion":"2.2.0","threeDSServerTransID":"` + dsTransID + `","acsTransID":"` + acsTransID + `","transStatus":"Y"}`
	for name, test := range map[string]struct {
		field  []byte
		status string
		ok     bool
	}{
		"CRes":          {encode(good), "Y", true},
		"padded":        {[]byte(base64.URLEncoding.EncodeToString([]byte(good))), "Y", true},
		"Erro":          {encode(`{"messageType":"Erro","messageVersion":"2.3.1","threeDSServerTransID":"` + dsTransID + `"}`), "", true},
		"no id":         {encode(`{"messageType":"CRes","transStatus":"Y"}`), "", false},
		"other version": {encode(strings.Replace(good, "2.2.0", "2.1.0", 1)), "", false},
		"strange":       {encode(strings.Replace(good, `"Y"`, `"C"`, 1)), "", false},
		"not base64url": {[]byte("{}"), "", false},
		"empty":         {nil, "", false},
	} {
		id, status, err := ParseCRes(test.field)
		if (err == nil) != test.ok || status != test.status || test.ok && id != dsTransID {
			t.Errorf("%s: %q %q %v", name, id, status, err)
		}
	}
}
