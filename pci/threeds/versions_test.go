package threeds

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// inVersion changes the version that a message says it is of.
func inVersion(version string, message map[string]any) map[string]any {
	message["messageVersion"] = version
	return message
}

// range231 is a card range as 2.3.1 has it.
func range231(start, end string, versions ...string) map[string]any {
	var acs []any
	for _, v := range versions {
		acs = append(acs, map[string]any{"version": v, "acsInfoInd": []any{"01", "02"}, "threeDSMethodURL": "https://acs.example/" + v})
	}
	return map[string]any{"ranges": []any{map[string]any{"startRange": start, "endRange": end}}, "actionInd": "A", "acsProtocolVersions": acs}
}

// speaking231 is a server that knows one range of 2.3.1 for all cards.
func speaking231(t *testing.T, change func(*Config), answer func(areq map[string]any) map[string]any) (*Server, *directory) {
	t.Helper()
	d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) {
		switch m["messageType"] {
		case "PReq":
			p := presOf(m, "1", range231("4000000000000000", "4999999999999999", "2.2.0", "2.3.1"))
			p["dsProtocolVersions"] = []any{"2.1.0", "2.2.0", "2.3.1"}
			reply(w, p)
		case "AReq":
			reply(w, answer(m))
		}
	})
	s := startServer(t, d, change)
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, d
}

func yes(m map[string]any) map[string]any { return validARes(m, "Y") }

func TestTheNewestSharedVersionIsSpoken(t *testing.T) {
	const start, end = "4000000000000000", "4999999999999999"
	with := func(r map[string]any, more map[string]any) map[string]any {
		r = maps.Clone(r)
		maps.Copy(r, more)
		return r
	}
	all := map[string]any{"dsStartProtocolVersion": "2.1.0", "dsEndProtocolVersion": "2.3.1"}
	for name, test := range map[string]struct {
		ours   []string
		ds     map[string]any // of the PRes
		ranges map[string]any
		want   string // empty: none
	}{
		"list of the range":                  {Versions, all, range231(start, end, "2.2.0", "2.3.1"), "2.3.1"},
		"list without the newest":            {Versions, all, range231(start, end, "2.1.0", "2.2.0"), "2.2.0"},
		"list with a hole":                   {Versions, all, range231(start, end, "2.1.0", "2.3.1"), "2.3.1"},
		"list of what is not spoken":         {Versions, all, range231(start, end, "2.1.0"), ""},
		"first and last of the range":        {Versions, all, rangeOf(start, end, "", ""), "2.2.0"},
		"first to a newer last":              {Versions, all, with(rangeOf(start, end, "", ""), map[string]any{"acsEndProtocolVersion": "2.3.1"}), "2.3.1"},
		"we speak the old one only":          {Versions[:1], all, range231(start, end, "2.2.0", "2.3.1"), "2.2.0"},
		"we speak the new one only":          {Versions[1:], all, rangeOf(start, end, "", ""), ""},
		"the directory server's list":        {Versions, map[string]any{"dsProtocolVersions": []any{"2.2.0"}}, range231(start, end, "2.2.0", "2.3.1"), "2.2.0"},
		"the directory server's last":        {Versions, map[string]any{"dsStartProtocolVersion": "2.1.0", "dsEndProtocolVersion": "2.2.0"}, range231(start, end, "2.2.0", "2.3.1"), "2.2.0"},
		"the directory server's for a range": {Versions, all, with(range231(start, end, "2.2.0", "2.3.1"), map[string]any{"dsProtocolVersions": []any{"2.2.0"}}), "2.2.0"},
		"nothing of the directory server":    {Versions, nil, range231(start, end, "2.2.0", "2.3.1"), "2.3.1"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) {
				if m["messageType"] == "PReq" {
					reply(w, with(presOf(m, "1", test.ranges), test.ds))
				} else {
					reply(w, yes(m))
				}
			})
			s := startServer(t, d, func(c *Config) { c.Versions = test.ours })
			if err := s.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			auth, err := s.Authenticate(t.Context(), testRequest())
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				if auth.Outcome != pci.AuthenticationDown || len(d.messages("AReq")) != 0 {
					t.Errorf("%+v after %v", auth, d.messages("AReq"))
				}
				return
			}
			if got := d.messages("AReq")[0]["messageVersion"]; got != test.want || auth.Version != test.want || auth.Outcome != pci.Authenticated {
				t.Errorf("AReq of %v, %+v, want %s", got, auth, test.want)
			}
		})
	}
}

func TestARangeHasTheMethodOfItsVersion(t *testing.T) {
	s, _ := speaking231(t, nil, yes)
	m, err := s.Method(t.Context(), testRequest(), "https://pay.example/m")
	if err != nil || m == nil || m.URL != "https://acs.example/2.3.1" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestAnOlderDirectoryServerIsAskedInItsVersion(t *testing.T) {
	d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) {
		if m["messageVersion"] != "2.2.0" {
			reply(w, map[string]any{"messageType": "Erro", "messageVersion": "2.2.0", "errorCode": "102", "errorComponent": "D"})
			return
		}
		reply(w, presOf(m, "1", rangeOf("4000000000000000", "4999999999999999", "", "")))
	})
	s := startServer(t, d, nil)
	for range 2 {
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var asked []string
	for _, m := range d.messages("PReq") {
		asked = append(asked, fmt.Sprint(m["messageVersion"], m["serialNum"]))
	}
	if want := []string{"2.3.1<nil>", "2.2.0<nil>", "2.2.01"}; !slices.Equal(asked, want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
	if len(d.messages("Erro")) != 0 {
		t.Error("an Erro was answered with another one")
	}
}

func TestAnAReqOf231HasItsElements(t *testing.T) {
	s, d := speaking231(t, func(c *Config) { c.AcquirerCountry = "702" }, yes)
	request := testRequest()
	request.Browser.AcceptLanguage = "ms-MY,ms;q=0.9, en ;q=0.8,*;q=0.1,<script>"
	request.Agreement = pci.Agreement{Setup: pci.Recurring, Expiry: time.Date(2031, 5, 6, 0, 0, 0, 0, time.UTC), Days: 28}
	request.Preference = pci.ChallengeMandated
	if _, err := s.Authenticate(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	got := d.messages("AReq")[0]
	for element, want := range map[string]any{
		"messageVersion": "2.3.1", "acceptLanguage": []any{"ms-MY", "ms", "en"}, "acquirerCountryCode": "702", "acquirerCountryCodeSource": "01",
		"threeDSRequestorAuthenticationInd": "02", "threeDSRequestorChallengeInd": []any{"04"}, "threeDSRequestorDecReqInd": "N",
		"recurringExpiry": "20310506", "recurringFrequency": "28", "recurringDate": "20300130",
		"recurringInd": map[string]any{"amountInd": "02", "frequencyInd": "01"}, "acctNumber": testPAN, "browserIP": "203.0.113.7",
	} {
		if fmt.Sprint(got[element]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", element, got[element], want)
		}
	}
	if _, there := got["cardSecurityCode"]; there {
		t.Error("the security code is sent, which nobody asked for")
	}
	request.Browser.AcceptLanguage = ""
	if _, err := s.Authenticate(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if got := d.messages("AReq")[1]["acceptLanguage"]; fmt.Sprint(got) != "[ms-MY]" {
		t.Errorf("without the header acceptLanguage is %v", got)
	}
}

func TestAnAReqOf220HasNothingOf231(t *testing.T) {
	d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) { reply(w, yes(m)) })
	s := startServer(t, d, func(c *Config) { c.AcquirerCountry, c.CardSecurityCode = "702", true })
	request := testRequest()
	request.Browser.AcceptLanguage = "ms"
	request.Agreement = pci.Agreement{Setup: pci.Instalments, Expiry: time.Date(2031, 5, 6, 0, 0, 0, 0, time.UTC), Days: 28, Instalments: 12}
	request.Exemption = pci.TransactionRiskAnalysis
	if _, err := s.Authenticate(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	got := d.messages("AReq")[0]
	for element, want := range map[string]any{
		"messageVersion": "2.2.0", "threeDSRequestorAuthenticationInd": "03", "threeDSRequestorChallengeInd": "05", "purchaseInstalData": "12",
		"recurringExpiry": "20310506", "recurringFrequency": "28",
	} {
		if got[element] != want {
			t.Errorf("%s is %v, want %v", element, got[element], want)
		}
	}
	for _, element := range []string{"acceptLanguage", "acquirerCountryCode", "acquirerCountryCodeSource", "recurringInd", "recurringDate", "cardSecurityCode"} {
		if _, there := got[element]; there {
			t.Errorf("%s is in a message of 2.2.0", element)
		}
	}
}

func TestAnAgreementThatIsNotCompleteIsNotSent(t *testing.T) {
	d := startDirectory(t, func(http.ResponseWriter, *http.Request, map[string]any) {})
	for _, agreed := range []pci.Agreement{
		{Setup: pci.Recurring}, {Setup: pci.Recurring, Days: 28}, {Setup: pci.Instalments, Days: 28, Expiry: time.Now()},
		{Setup: pci.Instalments, Days: 28, Expiry: time.Now(), Instalments: 1000},
	} {
		request := testRequest()
		request.Agreement = agreed
		if _, err := startServer(t, d, nil).Authenticate(t.Context(), request); err == nil {
			t.Errorf("%+v: sent", agreed)
		}
	}
}

func TestEachWishHasItsValueInEachVersion(t *testing.T) {
	for _, test := range []struct {
		preference pci.Preference
		exemption  pci.Exemption
		in220      string
		in231      string
	}{
		{"", "", "", ""},
		{pci.NoChallenge, "", "02", "02"}, {pci.ChallengePreferred, "", "03", "03"}, {pci.ChallengeMandated, "", "04", "04"},
		{"", pci.TransactionRiskAnalysis, "05", "05"}, {"", pci.Delegated, "07", "07"}, {"", pci.TrustedBeneficiary, "08", "08"},
		{"", pci.LowValue, "02", "10"}, {pci.NoChallenge, pci.SecureCorporate, "02", "11"},
	} {
		request := pci.AuthenticationRequest{Preference: test.preference, Exemption: test.exemption}
		if a, b := challengeInd(v220, request), challengeInd(v231, request); a != test.in220 || b != test.in231 {
			t.Errorf("%q, %q: %q and %q, want %q and %q", test.preference, test.exemption, a, b, test.in220, test.in231)
		}
	}
	for v, want := range map[version]string{v220: "01", v231: "07"} {
		a := &areq{}
		request := pci.AuthenticationRequest{Agreement: pci.Agreement{Setup: pci.Unscheduled}}
		a.agree(request.Agreement)
		if a.speak(v, request, "", time.Now()); a.ThreeDSRequestorAuthenticationInd != want {
			t.Errorf("unscheduled is %s in %s, want %s", a.ThreeDSRequestorAuthenticationInd, v, want)
		}
	}
}

func TestInformationCountsOnlyWhereNoChallengeWasAskedFor(t *testing.T) {
	for _, test := range []struct {
		preference pci.Preference
		exemption  pci.Exemption
		want       pci.AuthenticationOutcome
	}{
		{"", "", pci.AuthenticationDown},
		{pci.ChallengePreferred, "", pci.AuthenticationDown},
		{pci.NoChallenge, "", pci.NotChallenged},
		{"", pci.LowValue, pci.NotChallenged},
	} {
		d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) {
			a := validARes(m, "I")
			a["eci"], a["authenticationValue"] = "07", testCAVV
			reply(w, a)
		})
		request := testRequest()
		request.Preference, request.Exemption = test.preference, test.exemption
		auth, err := startServer(t, d, nil).Authenticate(t.Context(), request)
		if err != nil || auth.Outcome != test.want || auth.ECI != "" || auth.CAVV != "" {
			t.Errorf("%+v: %+v, %v", test, auth, err)
		}
	}
}

func TestTheSecurityCodeGoesWhereItIsConfigured(t *testing.T) {
	s, d := speaking231(t, func(c *Config) { c.CardSecurityCode = true }, func(m map[string]any) map[string]any {
		return map[string]any{"messageType": "Erro", "messageVersion": "2.3.1", "errorCode": "203", "errorComponent": "D",
			"errorDetail": "cardSecurityCode 973 of " + testPAN, "threeDSServerTransID": m["threeDSServerTransID"]}
	})
	if _, err := s.Authenticate(t.Context(), testRequest()); err != nil {
		t.Fatal(err)
	}
	if got := d.messages("AReq")[0]; got["cardSecurityCode"] != "973" || got["acctNumber"] != testPAN {
		t.Errorf("%v", got)
	}
	s.tokens = vault{} // which has no security code
	if _, err := s.Authenticate(t.Context(), ofToken("shop", testToken)); err != nil {
		t.Fatal(err)
	}
	if code, there := d.messages("AReq")[1]["cardSecurityCode"]; there {
		t.Errorf("a stored card was sent with code %v", code)
	}
}

func TestAnEchoedSecurityCodeIsMasked(t *testing.T) {
	for in, want := range map[string]string{
		`{"cardSecurityCode":"973"}`:       `{"cardSecurityCode":"***"}`,
		`{"errorDetail":"code 973, 973."}`: `{"errorDetail":"code ***, ***."}`,
		`{"acsTransID":"973a-973-1973"}`:   `{"acsTransID":"973a-973-1973"}`,
		`973`:                              `***`,
		`"AA/973+"`:                        `"AA/973+"`,
	} {
		request := testRequest()
		_ = wallet{testPAN}.Lend(t.Context(), request.Card, "pay_1", func(card *pan.Card) error {
			m, err := newMessage(&areq{}, card, true)
			if err != nil {
				t.Fatal(err)
			}
			defer m.wipe()
			answer := []byte(in)
			if m.mask(answer); string(answer) != want {
				t.Errorf("%s became %s, want %s", in, answer, want)
			}
			return nil
		})
	}
}

func TestAnAnswerOfAnotherVersionAuthenticatesNobody(t *testing.T) {
	for answered, code := range map[string]string{"2.2.0": "203", "2.1.0": "102", "2.3.0": "102", "": "102"} {
		s, d := speaking231(t, nil, func(m map[string]any) map[string]any { return inVersion(answered, yes(m)) })
		auth, err := s.Authenticate(t.Context(), testRequest())
		if err != nil || auth.Outcome != pci.AuthenticationDown {
			t.Errorf("%q: %+v, %v", answered, auth, err)
		}
		if erro := d.messages("Erro"); len(erro) != 1 || erro[0]["errorCode"] != code || erro[0]["messageVersion"] != "2.3.1" {
			t.Errorf("%q: Erro %v, want %s", answered, erro, code)
		}
	}
}

func TestAChallengeKeepsItsVersion(t *testing.T) {
	s, _ := speaking231(t, nil, func(m map[string]any) map[string]any {
		a := validARes(m, "C")
		delete(a, "authenticationType") // 2.3.1 does not have it
		return a
	})
	auth, err := s.Authenticate(t.Context(), testRequest())
	if err != nil || auth.Outcome != pci.ChallengeRequired {
		t.Fatalf("%+v, %v", auth, err)
	}
	creq, err := base64.RawURLEncoding.DecodeString(auth.Challenge.CReq)
	if err != nil || !strings.Contains(string(creq), `"messageVersion":"2.3.1"`) {
		t.Errorf("CReq %s, %v", creq, err)
	}
	results := &recorder{}
	h := s.ResultsHandler(results)
	for version, code := range map[string]string{"2.2.0": "203", "2.1.0": "102"} {
		answer := deliver(t, h, inVersion(version, validRReq(auth)))
		if answer["messageType"] != "Erro" || answer["errorCode"] != code || answer["messageVersion"] != "2.3.1" {
			t.Errorf("an RReq of %s: %v", version, answer)
		}
	}
	if len(results.results) != 0 {
		t.Fatalf("%+v", results.results)
	}
	if answer := deliver(t, h, validRReq(auth)); answer["messageType"] != "RRes" || answer["messageVersion"] != "2.3.1" {
		t.Errorf("%v", answer)
	}
	if len(results.results) != 1 || results.results[0].Version != "2.3.1" || results.results[0].Outcome != pci.Authenticated {
		t.Errorf("%+v", results.results)
	}
	other := validRReq(auth)
	other["transStatus"] = "N"
	if answer := deliver(t, h, other); answer["errorCode"] != "312" {
		t.Errorf("a second, different result was answered with %v", answer)
	}
}

func TestAPaddedMessageLeavesRoomForItsSeal(t *testing.T) {
	for length := 1; length < 4000; length++ {
		got := padded(length)
		if capacity := (got + 5 + 127) / 128 * 128; got < length || got >= length+228 || capacity < got+5+17 {
			t.Fatalf("%d is padded to %d", length, got)
		}
	}
}

// A version is chosen from three sets, whatever they are.
func TestTheChosenVersionIsInEverySet(t *testing.T) {
	all := []string{"2.1.0", "2.2.0", "2.3.0", "2.3.1", "2.4.0"}
	rapid.Check(t, func(t *rapid.T) {
		lists := make([][]string, 3)
		for i := range lists {
			lists[i] = rapid.SliceOfDistinct(rapid.SampledFrom(all), func(v string) string { return v }).Draw(t, "versions")
		}
		got := (setOf(lists[0]...) & setOf(lists[1]...) & setOf(lists[2]...)).newest()
		want := ""
		for _, v := range Versions {
			if slices.Contains(lists[0], v) && slices.Contains(lists[1], v) && slices.Contains(lists[2], v) {
				want = v
			}
		}
		if got.String() != want {
			t.Fatalf("%v: %q, want %q", lists, got, want)
		}
	})
}
