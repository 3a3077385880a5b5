package threeds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/finterra/finpay/pci"
)

type recorder struct {
	mu      sync.Mutex
	err     error
	results []pci.Authentication
}

func (r *recorder) ChallengeDone(_ context.Context, payment string, result pci.Authentication) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	if payment != "pay_1" {
		return errors.New("another payment")
	}
	r.results = append(r.results, result)
	return nil
}

// challenged returns a server with one open challenge.
func challenged(t *testing.T, change func(*Config)) (*Server, pci.Authentication) {
	t.Helper()
	d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) { reply(w, validARes(m, "C")) })
	s := startServer(t, d, change)
	auth, err := s.Authenticate(t.Context(), testRequest())
	if err != nil || auth.Outcome != pci.ChallengeRequired {
		t.Fatalf("%+v, %v", auth, err)
	}
	return s, auth
}

func validRReq(auth pci.Authentication) map[string]any {
	return map[string]any{
		"messageType": "RReq", "messageVersion": auth.Version, "messageCategory": "01", "interactionCounter": "01",
		"threeDSServerTransID": auth.ServerTransID, "dsTransID": auth.DSTransID, "acsTransID": auth.ACSTransID,
		"transStatus": "Y", "eci": "05", "authenticationValue": testCAVV, "authenticationType": "02",
	}
}

// deliver posts message as the directory server would and returns the answer.
func deliver(t *testing.T, h http.Handler, message any) map[string]any {
	t.Helper()
	body, _ := json.Marshal(message)
	w := post(h, string(body), func(*http.Request) {})
	if w.Code != http.StatusOK {
		t.Fatalf("HTTP status %d", w.Code)
	}
	var answer map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func post(h http.Handler, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}
	change(r)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAResultIsRecordedOnceAndThenAcknowledged(t *testing.T) {
	s, auth := challenged(t, nil)
	results := &recorder{}
	h := s.ResultsHandler(results)
	want := map[string]any{
		"messageType": "RRes", "messageVersion": "2.2.0", "resultsStatus": "01",
		"threeDSServerTransID": auth.ServerTransID, "dsTransID": dsTransID, "acsTransID": acsTransID,
	}
	for range 2 { // the second is a repeat
		answer := deliver(t, h, validRReq(auth))
		for k, v := range want {
			if answer[k] != v {
				t.Errorf("%s is %v, want %v", k, answer[k], v)
			}
		}
	}
	other := validRReq(auth)
	other["transStatus"] = "N"
	if answer := deliver(t, h, other); answer["errorCode"] != "301" {
		t.Errorf("a second, different result was answered with %v", answer)
	}
	if len(results.results) != 1 {
		t.Fatalf("%d results", len(results.results))
	}
	auth.Outcome, auth.TransStatus, auth.ECI, auth.CAVV, auth.Challenge = pci.Authenticated, "Y", "05", testCAVV, nil
	if results.results[0] != auth {
		t.Errorf("got  %+v\nwant %+v", results.results[0], auth)
	}
}

func TestEveryResultHasItsOutcome(t *testing.T) {
	for transStatus, want := range map[string]pci.AuthenticationOutcome{
		"Y": pci.Authenticated, "A": pci.AuthenticationTried, "N": pci.AuthenticationNo, "R": pci.AuthenticationNo, "U": pci.AuthenticationDown,
	} {
		s, auth := challenged(t, nil)
		results := &recorder{}
		request := validRReq(auth)
		request["transStatus"] = transStatus
		deliver(t, s.ResultsHandler(results), request)
		if len(results.results) != 1 || results.results[0].Outcome != want {
			t.Errorf("%s: %+v", transStatus, results.results)
		}
	}
}

func TestAResultWithoutProofIsNoAuthentication(t *testing.T) {
	s, auth := challenged(t, nil)
	results := &recorder{}
	request := validRReq(auth)
	delete(request, "authenticationValue")
	deliver(t, s.ResultsHandler(results), request)
	if len(results.results) != 1 || results.results[0].Outcome != pci.AuthenticationNo {
		t.Errorf("%+v", results.results)
	}
}

func TestTwoDeliveriesAtOnceAreOneResult(t *testing.T) {
	s, auth := challenged(t, nil)
	results := &recorder{}
	h := s.ResultsHandler(results)
	body, _ := json.Marshal(validRReq(auth))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if w := post(h, string(body), func(*http.Request) {}); !strings.Contains(w.Body.String(), "RRes") {
				t.Errorf("answer %s", w.Body)
			}
		})
	}
	wg.Wait()
	if len(results.results) != 1 {
		t.Errorf("%d results", len(results.results))
	}
}

func TestAResultThatCannotBeRecordedMayComeAgain(t *testing.T) {
	s, auth := challenged(t, nil)
	results := &recorder{err: errors.New("the ledger is away")}
	h := s.ResultsHandler(results)
	if answer := deliver(t, h, validRReq(auth)); answer["messageType"] != "Erro" || answer["errorCode"] != "403" {
		t.Errorf("answer %v", answer)
	}
	results.err = nil
	if answer := deliver(t, h, validRReq(auth)); answer["messageType"] != "RRes" {
		t.Errorf("answer %v", answer)
	}
}

func TestAFaultyRReqIsAnsweredWithAnErro(t *testing.T) {
	set := func(name string, value any) func(map[string]any) { return func(a map[string]any) { a[name] = value } }
	drop := func(name string) func(map[string]any) { return func(a map[string]any) { delete(a, name) } }
	for name, test := range map[string]struct {
		change func(map[string]any)
		code   string
	}{
		"unknown transaction": {set("threeDSServerTransID", "00000000-0000-4000-8000-000000000000"), "301"},
		"other DS id":         {set("dsTransID", acsTransID), "301"},
		"other ACS id":        {set("acsTransID", dsTransID), "301"},
		"no DS id":            {drop("dsTransID"), "201"},
		"no transStatus":      {drop("transStatus"), "201"},
		"no counter":          {drop("interactionCounter"), "201"},
		"no category":         {drop("messageCategory"), "201"},
		"another challenge":   {set("transStatus", "C"), "203"},
		"unknown transStatus": {set("transStatus", "Z"), "203"},
		"ECI":                 {set("eci", "x"), "203"},
		"a number":            {set("transStatus", 5), "203"},
		"other version":       {set("messageVersion", "1.0.2"), "102"},
		"other message":       {set("messageType", "CReq"), "101"},
		"an Erro":             {set("messageType", "Erro"), "101"},
		"critical extension":  {set("messageExtension", []any{map[string]any{"criticalityIndicator": true}}), "202"},
	} {
		t.Run(name, func(t *testing.T) {
			s, auth := challenged(t, nil)
			results := &recorder{}
			request := validRReq(auth)
			test.change(request)
			answer := deliver(t, s.ResultsHandler(results), request)
			if answer["messageType"] != "Erro" || answer["errorCode"] != test.code || answer["errorComponent"] != "S" || answer["errorMessageType"] != "RReq" {
				t.Errorf("answer %v, want code %s", answer, test.code)
			}
			if len(results.results) != 0 {
				t.Error("a result was recorded")
			}
		})
	}
}

func TestAnExpiredChallengeTakesNoResult(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	s, auth := challenged(t, func(c *Config) { c.Now = func() time.Time { return now } })
	now = now.Add(DefaultChallengeTimeout)
	if answer := deliver(t, s.ResultsHandler(&recorder{}), validRReq(auth)); answer["errorCode"] != "301" {
		t.Errorf("answer %v", answer)
	}
}

func TestResultsAreTakenFromTheDirectoryServerOnly(t *testing.T) {
	s, auth := challenged(t, nil)
	results := &recorder{}
	h := s.ResultsHandler(results)
	body, _ := json.Marshal(validRReq(auth))
	for name, test := range map[string]struct {
		change func(*http.Request)
		body   string
		status int
	}{
		"no TLS":         {func(r *http.Request) { r.TLS = nil }, string(body), 403},
		"no certificate": {func(r *http.Request) { r.TLS = &tls.ConnectionState{} }, string(body), 403},
		"GET":            {func(r *http.Request) { r.Method = http.MethodGet }, string(body), 405},
		"form":           {func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, string(body), 415},
		"too long":       {func(*http.Request) {}, strings.Repeat(" ", maxAnswer) + string(body), 413},
	} {
		if w := post(h, test.body, test.change); w.Code != test.status {
			t.Errorf("%s: status %d, want %d", name, w.Code, test.status)
		}
	}
	if len(results.results) != 0 {
		t.Error("a result was recorded")
	}
}

func TestADecidedChallengeMakesRoomForAnOpenOne(t *testing.T) {
	s, auth := challenged(t, func(c *Config) { c.Challenges = 1 })
	if _, err := s.Authenticate(t.Context(), testRequest()); !errors.Is(err, pci.ErrFull) {
		t.Fatalf("error %v, want %v", err, pci.ErrFull)
	}
	deliver(t, s.ResultsHandler(&recorder{}), validRReq(auth))
	if _, err := s.Authenticate(t.Context(), testRequest()); err != nil {
		t.Error(err)
	}
}
