package threeds

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
)

func TestTheMethodGoesBeforeTheAuthentication(t *testing.T) {
	d := rangeDirectory(t, func(r map[string]any) map[string]any {
		return presOf(r, "1", rangeOf("4000000000000000", "4999999999999999", "", "https://acs.example/method"))
	})
	s := startServer(t, d, nil)
	const back = "https://pay.example/checkout/abc/method"
	of := func(payment string) pci.AuthenticationRequest {
		request := testRequest()
		request.Payment = payment
		return request
	}
	if m, err := s.Method(t.Context(), testRequest(), back); m != nil || err != nil { // no ranges yet
		t.Errorf("%+v, %v", m, err)
	}
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := s.Method(t.Context(), testRequest(), back)
	if err != nil || m == nil || m.URL != "https://acs.example/method" {
		t.Fatalf("%+v, %v", m, err)
	}
	text, err := base64.RawURLEncoding.DecodeString(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	var data map[string]string
	if err := json.Unmarshal(text, &data); err != nil || len(data) != 2 || data["threeDSServerTransID"] != m.ServerTransID || data["threeDSMethodNotificationURL"] != back {
		t.Errorf("%s, %v", text, err)
	}
	for done, compInd := range map[bool]string{true: "Y", false: "N"} {
		request := testRequest()
		request.Method, request.MethodDone = m, done
		if _, err := s.Authenticate(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		sent := d.messages("AReq")
		if last := sent[len(sent)-1]; last["threeDSServerTransID"] != m.ServerTransID || last["threeDSCompInd"] != compInd {
			t.Errorf("%v %v, want %s %s", last["threeDSServerTransID"], last["threeDSCompInd"], m.ServerTransID, compInd)
		}
	}
	if _, err := s.Method(t.Context(), of("pay_2"), back); !errors.Is(err, pci.ErrGone) {
		t.Errorf("another payment's card: %v", err)
	}
	if m, err := s.Method(t.Context(), testRequest(), "https://pay.example/"+strings.Repeat("x", 256)); m != nil || err != nil {
		t.Errorf("an address that no ACS takes: %+v, %v", m, err)
	}
}

func TestAMethodThatNoBrowserMayBeSentToIsNone(t *testing.T) {
	for _, url := range []string{"http://acs.example/m", "javascript:alert(1)", "//acs.example", "https://user@acs.example/"} {
		d := rangeDirectory(t, func(r map[string]any) map[string]any {
			return presOf(r, "1", rangeOf("4000000000000000", "4999999999999999", "", url))
		})
		s := startServer(t, d, nil)
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Method(t.Context(), testRequest(), "https://pay.example/x"); m != nil || err != nil {
			t.Errorf("%s: %+v, %v", url, m, err)
		}
	}
}

func encoded(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestWhatAnACSPostsBackIsReadStrictly(t *testing.T) {
	if got := MethodTransID(encoded(`{"threeDSServerTransID":"` + dsTransID + `"}`)); got != dsTransID {
		t.Errorf("%q", got)
	}
	for _, data := range []string{"", "e30", "%%%", encoded("{"), encoded(`{"threeDSServerTransID":"x"}`), encoded(`[]`), strings.Repeat("A", 5000),
		encoded(`{"threeDSServerTransID":"` + dsTransID + `","threeDSServerTransID":"` + acsTransID + `"}`)} {
		if got := MethodTransID(data); got != "" {
			t.Errorf("%q: %q", data, got)
		}
	}
}

func FuzzMethodData(f *testing.F) {
	f.Add(encoded(`{"threeDSServerTransID":"` + dsTransID + `"}`))
	f.Add("e30")
	f.Fuzz(func(t *testing.T, data string) {
		if got := MethodTransID(data); got != "" && !isTransID(got) {
			t.Errorf("%q: %q", data, got)
		}
	})
}
