package simulator

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const (
	serverTransID = "8a880dc0-d2d2-4067-bcb1-b08d1690b26e"
	visaChallenge = "4539123456789017"
)

func testAReq(number string) elements {
	return elements{
		"messageType": "AReq", "messageVersion": "2.2.0", "deviceChannel": "02", "messageCategory": "01",
		"threeDSCompInd": "U", "threeDSRequestorAuthenticationInd": "01", "threeDSRequestorID": "r-1",
		"threeDSRequestorName": "Tea", "threeDSRequestorURL": "https://tea.example",
		"threeDSServerRefNumber": "3DS_LOA_SER_TEST", "threeDSServerTransID": serverTransID,
		"threeDSServerURL": "https://appliance.example/results", "acctNumber": number, "cardExpiryDate": "3104",
		"acquirerBIN": "400551", "acquirerMerchantID": "FINPAY1", "mcc": "5499", "merchantCountryCode": "458",
		"merchantName": "Tea <script>alert(1)</script>", "notificationURL": "https://pay.example/3ds",
		"purchaseAmount": "1999", "purchaseCurrency": "978", "purchaseExponent": "2", "purchaseDate": "20300102030405",
		"browserAcceptHeader": "text/html", "browserLanguage": "en", "browserUserAgent": "Mozilla/5.0",
		"browserJavascriptEnabled": false,
	}
}

func newDirectory() *DirectoryServer {
	return &DirectoryServer{ACS: &ACS{}, ACSURL: "https://bank.example/acs", AnyClient: true}
}

func ask(t *testing.T, h http.Handler, message any) elements {
	t.Helper()
	raw, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/ds", bytes.NewReader(raw)))
	var answer elements
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("HTTP status %d: %v", w.Code, err)
	}
	return answer
}

func TestEveryCardIsAnsweredAsTheTableSays(t *testing.T) {
	ecis := map[string]string{
		"4111111111111111": "05", "5555555555554444": "02", "378282246310005": "06",
		"4539787878787872": "07", "4539828282828280": "07", visaChallenge: "",
	}
	for _, card := range Cards {
		areq := testAReq(card.Number)
		if newestVersion(card.Number) == version231 {
			areq["messageVersion"], areq["acceptLanguage"] = version231, []string{"en"}
		}
		if len(card.ThreeDS) > 1 {
			continue // see TestADirectoryServerThatMisbehaves
		}
		answer := ask(t, newDirectory(), areq)
		if card.ThreeDS == NotEnrolled {
			if answer.text("messageType") != "Erro" || answer.text("errorCode") != "305" {
				t.Errorf("%s: %v", card.What, answer)
			}
			continue
		}
		if answer.text("messageType") != "ARes" || answer.text("transStatus") != string(card.ThreeDS) || answer.text("threeDSServerTransID") != serverTransID ||
			answer["messageVersion"] != areq["messageVersion"] {
			t.Errorf("%s: %v", card.What, answer)
		}
		cavv, err := base64.StdEncoding.DecodeString(answer.text("authenticationValue"))
		proven := card.ThreeDS == Frictionless || card.ThreeDS == Attempted
		if err != nil || (len(cavv) == 20) != proven || (len(cavv) == 0) == proven {
			t.Errorf("%s: authenticationValue %q", card.What, answer.text("authenticationValue"))
		}
		if (answer.text("acsURL") != "") != (card.ThreeDS == Challenge) {
			t.Errorf("%s: acsURL %q", card.What, answer.text("acsURL"))
		}
		if want, given := ecis[card.Number]; given && answer.text("eci") != want {
			t.Errorf("%s: eci %q, want %q", card.What, answer.text("eci"), want)
		}
	}
}

func TestAnIncompleteAReqIsAnsweredWithTheElementsAtFault(t *testing.T) {
	script := testAReq("4111111111111111")
	maps.Copy(script, elements{"browserJavascriptEnabled": true})
	for name, test := range map[string]struct {
		element string
		value   any // nil removes it
		code    string
		detail  string
	}{
		"missing":          {"mcc", nil, "201", "mcc"},
		"empty":            {"browserUserAgent", "", "201", "browserUserAgent"},
		"malformed":        {"purchaseDate", "today", "203", "purchaseDate"},
		"two letters":      {"acctNumber", "41111111x1111111", "203", "acctNumber"},
		"version":          {"messageVersion", "1.0.2", "102", "messageVersion"},
		"no script answer": {"browserJavascriptEnabled", nil, "201", "browserJavascriptEnabled"},
		"script, no screen": {"browserJavascriptEnabled", true, "201",
			"browserJavaEnabled,browserColorDepth,browserScreenHeight,browserScreenWidth,browserTZ"},
		"other message": {"messageType", "CReq", "101", "messageType"},
	} {
		t.Run(name, func(t *testing.T) {
			areq := testAReq("4111111111111111")
			areq[test.element] = test.value
			if test.value == nil {
				delete(areq, test.element)
			}
			answer := ask(t, newDirectory(), areq)
			if answer.text("messageType") != "Erro" || answer.text("errorCode") != test.code || answer.text("errorDetail") != test.detail {
				t.Errorf("answer %v", answer)
			}
		})
	}
}

func TestADirectoryServerThatMisbehaves(t *testing.T) {
	numbers := make(map[ThreeDS]string)
	for _, card := range Cards {
		numbers[card.ThreeDS] = card.Number
	}
	send := func(behaviour ThreeDS) *httptest.ResponseRecorder {
		raw, err := json.Marshal(testAReq(numbers[behaviour]))
		if err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel() // the caller of the slow one
		w := httptest.NewRecorder()
		newDirectory().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/ds", bytes.NewReader(raw)).WithContext(gone))
		return w
	}
	if w := send(DSFails); w.Code != http.StatusInternalServerError {
		t.Errorf("%d", w.Code)
	}
	if w := send(DSSlow); w.Body.Len() != 0 {
		t.Errorf("%s", w.Body)
	}
	if w := send(DSMalformed); json.Valid(w.Body.Bytes()) {
		t.Errorf("%s", w.Body)
	}
	var wrong, erro elements
	if err := json.Unmarshal(send(DSWrongID).Body.Bytes(), &wrong); err != nil || wrong.text("transStatus") != "Y" || wrong.text("threeDSServerTransID") == serverTransID {
		t.Errorf("%v", wrong)
	}
	if err := json.Unmarshal(send(DSErro).Body.Bytes(), &erro); err != nil || erro.text("messageType") != "Erro" {
		t.Errorf("%v", erro)
	}
}

func TestWhatIsNotOfItsVersionIsRefused(t *testing.T) {
	const new231 = "4573111111111112"
	for name, test := range map[string]struct {
		number string
		change elements
		code   string
	}{
		"2.3.1 for an issuer of 2.2.0":   {"4111111111111111", elements{"messageVersion": version231, "acceptLanguage": []string{"en"}}, "203"},
		"2.3.1 without its element":      {new231, elements{"messageVersion": version231}, "201"},
		"2.3.1 with a wish of 2.2.0":     {new231, elements{"messageVersion": version231, "acceptLanguage": []string{"en"}, "threeDSRequestorChallengeInd": "04"}, "203"},
		"2.2.0 with a wish of 2.3.1":     {new231, elements{"threeDSRequestorChallengeInd": []string{"04"}}, "203"},
		"2.2.0 with an element of 2.3.1": {new231, elements{"acceptLanguage": []string{"en"}}, "203"},
		"2.2.0 with a security code":     {new231, elements{"cardSecurityCode": "123"}, "203"},
	} {
		areq := testAReq(test.number)
		maps.Copy(areq, test.change)
		if answer := ask(t, newDirectory(), areq); answer.text("errorCode") != test.code {
			t.Errorf("%s: %v", name, answer)
		}
	}
}

func TestAMandatedChallengeIsHad(t *testing.T) {
	old, recent := testAReq("4111111111111111"), testAReq("4573111111111112")
	old["threeDSRequestorChallengeInd"] = "04"
	maps.Copy(recent, elements{"messageVersion": version231, "acceptLanguage": []string{"en"}, "threeDSRequestorChallengeInd": []string{"04"}})
	for _, areq := range []elements{old, recent} {
		if answer := ask(t, newDirectory(), areq); answer.text("transStatus") != "C" || answer["messageVersion"] != areq["messageVersion"] {
			t.Errorf("%v", answer)
		}
	}
}

func TestRangesComeOnceAndThenOnlyTheSerialNumber(t *testing.T) {
	preq := elements{"messageType": "PReq", "messageVersion": "2.2.0", "threeDSServerRefNumber": "x", "threeDSServerTransID": serverTransID}
	first := ask(t, newDirectory(), preq)
	ranges, _ := first["cardRangeData"].([]any)
	if first.text("messageType") != "PRes" || len(ranges) != len(enrolled) || first.text("serialNum") == "" {
		t.Fatalf("answer %v", first)
	}
	for _, card := range Cards {
		if isEnrolled(card.Number) != (card.ThreeDS != NotEnrolled) {
			t.Errorf("%s: enrolled is %v", card.What, isEnrolled(card.Number))
		}
	}
	preq["serialNum"] = first["serialNum"]
	if again := ask(t, newDirectory(), preq); again["cardRangeData"] != nil || again.text("messageType") != "PRes" {
		t.Errorf("answer %v", again)
	}
	preq["serialNum"] = "99"
	if odd := ask(t, newDirectory(), preq); odd.text("errorCode") != "307" {
		t.Errorf("answer %v", odd)
	}
}

func TestTheDirectoryServerWantsAClientCertificate(t *testing.T) {
	d := newDirectory()
	d.AnyClient = false
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/ds", strings.NewReader("{}")))
	if w.Code != http.StatusForbidden {
		t.Errorf("status %d", w.Code)
	}
}
