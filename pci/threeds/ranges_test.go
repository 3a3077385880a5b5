package threeds

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
)

func rangeOf(start, end, action, method string) map[string]any {
	r := map[string]any{"startRange": start, "endRange": end, "acsStartProtocolVersion": "2.1.0", "acsEndProtocolVersion": "2.2.0"}
	if action != "" {
		r["actionInd"] = action
	}
	if method != "" {
		r["threeDSMethodURL"] = method
	}
	return r
}

func presOf(request map[string]any, serial string, ranges ...any) map[string]any {
	return map[string]any{
		"messageType": "PRes", "messageVersion": spokenIn(request), "threeDSServerTransID": request["threeDSServerTransID"],
		"dsTransID": dsTransID, "serialNum": serial, "cardRangeData": ranges,
	}
}

// spokenIn is the version of a message, 2.2.0 where it has none.
func spokenIn(message map[string]any) any {
	if v, ok := message["messageVersion"]; ok {
		return v
	}
	return "2.2.0"
}

// rangeDirectory answers each PReq with the next of its answers, and every AReq with Y.
func rangeDirectory(t *testing.T, answers ...func(request map[string]any) map[string]any) *directory {
	next := 0
	return startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) {
		switch m["messageType"] {
		case "PReq":
			reply(w, answers[next](m))
			next++
		case "AReq":
			reply(w, validARes(m, "Y"))
		}
	})
}

func outcome(t *testing.T, s *Server) pci.AuthenticationOutcome {
	t.Helper()
	auth, err := s.Authenticate(t.Context(), testRequest())
	if err != nil {
		t.Fatal(err)
	}
	return auth.Outcome
}

func TestACardIsTriedWhileNoRangesAreKnown(t *testing.T) {
	d := rangeDirectory(t)
	if got := outcome(t, startServer(t, d, nil)); got != pci.Authenticated {
		t.Errorf("outcome %s", got)
	}
}

func TestRangesDecideOnEnrolment(t *testing.T) {
	mastercard := rangeOf("5100000000000000", "5599999999999999", "", "")
	for name, test := range map[string]struct {
		ranges  []any
		policy  Policy
		want    pci.AuthenticationOutcome
		compInd any
	}{
		"inside":                {[]any{mastercard, rangeOf("4000000000000000", "4999999999999999", "", "")}, Proceed, pci.Authenticated, "U"},
		"first of its range":    {[]any{rangeOf(testPAN, "4999999999999999", "", "")}, Proceed, pci.Authenticated, "U"},
		"last of its range":     {[]any{rangeOf("4000000000000000", testPAN, "", "")}, Proceed, pci.Authenticated, "U"},
		"range of 19 digits":    {[]any{rangeOf("4000000000000000000", "4999999999999999999", "", "")}, Proceed, pci.Authenticated, "U"},
		"with 3DS Method":       {[]any{rangeOf("4000000000000000", "4999999999999999", "", "https://acs.example/m")}, Proceed, pci.Authenticated, "N"},
		"outside, proceed":      {[]any{mastercard}, Proceed, pci.NotEnrolled, nil},
		"outside, refuse":       {[]any{mastercard}, Refuse, pci.AuthenticationNo, nil},
		"no ranges":             {nil, Proceed, pci.NotEnrolled, nil},
		"just below":            {[]any{rangeOf("4111111111111112", "4999999999999999", "", "")}, Proceed, pci.NotEnrolled, nil},
		"just above":            {[]any{rangeOf("4000000000000000", "4111111111111110", "", "")}, Proceed, pci.NotEnrolled, nil},
		"another version":       {[]any{map[string]any{"startRange": "4000000000000000", "endRange": "4999999999999999", "acsStartProtocolVersion": "2.1.0", "acsEndProtocolVersion": "2.1.0"}}, Proceed, pci.AuthenticationDown, nil},
		"deletes in a full one": {[]any{rangeOf("4000000000000000", "4999999999999999", "D", "")}, Proceed, pci.Authenticated, "U"},
	} {
		t.Run(name, func(t *testing.T) {
			d := rangeDirectory(t, func(r map[string]any) map[string]any { return presOf(r, "1", test.ranges...) })
			s := startServer(t, d, func(c *Config) { c.UnknownRange = test.policy })
			if err := s.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := outcome(t, s); got != test.want {
				t.Errorf("outcome %s, want %s", got, test.want)
			}
			var compInd any
			if sent := d.messages("AReq"); len(sent) > 0 {
				compInd = sent[0]["threeDSCompInd"]
			}
			if compInd != test.compInd {
				t.Errorf("threeDSCompInd %v, want %v", compInd, test.compInd)
			}
		})
	}
}

func TestARefreshAppliesWhatChanged(t *testing.T) {
	const low, high = "4000000000000000", "4999999999999999"
	d := rangeDirectory(t,
		func(r map[string]any) map[string]any {
			return presOf(r, "1", rangeOf("5100000000000000", "5599999999999999", "", ""))
		},
		func(r map[string]any) map[string]any { return presOf(r, "2", rangeOf(low, high, "A", "")) },
		func(r map[string]any) map[string]any {
			return presOf(r, "3", rangeOf(low, high, "M", "https://acs.example/m"))
		},
		func(r map[string]any) map[string]any { return presOf(r, "3") },
		func(r map[string]any) map[string]any { return presOf(r, "4", rangeOf(low, high, "D", "")) },
	)
	s := startServer(t, d, nil)
	for i, want := range []struct {
		asked   any // serialNum in the PReq
		outcome pci.AuthenticationOutcome
		method  bool
	}{
		{nil, pci.NotEnrolled, false},
		{"1", pci.Authenticated, false},
		{"2", pci.Authenticated, true},
		{"3", pci.Authenticated, true},
		{"3", pci.NotEnrolled, false},
	} {
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatalf("refresh %d: %v", i, err)
		}
		if got := d.messages("PReq")[i]["serialNum"]; got != want.asked {
			t.Errorf("refresh %d asked with serialNum %v, want %v", i, got, want.asked)
		}
		if got := s.ranges.Load().lookUp([]byte(testPAN)); (got.method != "") != want.method {
			t.Errorf("refresh %d: method %q", i, got.method)
		}
		if got := outcome(t, s); got != want.outcome {
			t.Errorf("refresh %d: outcome %s, want %s", i, got, want.outcome)
		}
	}
}

func TestADifferenceThatDoesNotFitIsAskedForAsAWhole(t *testing.T) {
	const low, high = "4000000000000000", "4999999999999999"
	first := func(r map[string]any) map[string]any { return presOf(r, "1", rangeOf(low, high, "", "")) }
	whole := func(r map[string]any) map[string]any {
		return presOf(r, "9", rangeOf("5100000000000000", "5599999999999999", "", ""))
	}
	for name, odd := range map[string]func(r map[string]any) map[string]any{
		"deletes what was not there": func(r map[string]any) map[string]any {
			return presOf(r, "2", rangeOf(low, "4111111111111112", "D", ""))
		},
		"adds an overlap": func(r map[string]any) map[string]any {
			return presOf(r, "2", rangeOf("4111111111111111", "4111111111111112", "A", ""))
		},
		"serial number not valid": func(r map[string]any) map[string]any {
			return map[string]any{"messageType": "Erro", "messageVersion": "2.2.0", "errorCode": "307", "errorComponent": "D"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := rangeDirectory(t, first, odd, whole)
			s := startServer(t, d, nil)
			for range 2 {
				if err := s.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if got := d.messages("PReq"); len(got) != 3 || got[2]["serialNum"] != nil {
				t.Errorf("PReqs %v", got)
			}
			if got := outcome(t, s); got != pci.NotEnrolled {
				t.Errorf("outcome %s", got)
			}
		})
	}
}

func TestAFaultyPResChangesNothing(t *testing.T) {
	spoil := func(change func(map[string]any)) func(map[string]any) map[string]any {
		return func(r map[string]any) map[string]any {
			p := presOf(r, "2", rangeOf("5100000000000000", "5599999999999999", "", ""))
			change(p)
			return p
		}
	}
	for name, answer := range map[string]func(map[string]any) map[string]any{
		"other id":      spoil(func(p map[string]any) { p["threeDSServerTransID"] = acsTransID }),
		"no DS id":      spoil(func(p map[string]any) { delete(p, "dsTransID") }),
		"other version": spoil(func(p map[string]any) { p["messageVersion"] = "2.1.0" }),
		"other message": spoil(func(p map[string]any) { p["messageType"] = "ARes" }),
		"short range":   spoil(func(p map[string]any) { p["cardRangeData"] = []any{rangeOf("5", "6", "", "")} }),
		"reversed range": spoil(func(p map[string]any) {
			p["cardRangeData"] = []any{rangeOf("5100000000000009", "5100000000000000", "", "")}
		}),
		"unknown action": spoil(func(p map[string]any) {
			p["cardRangeData"] = []any{rangeOf("5100000000000000", "5199999999999999", "X", "")}
		}),
		"not a list": spoil(func(p map[string]any) { p["cardRangeData"] = "none" }),
	} {
		t.Run(name, func(t *testing.T) {
			d := rangeDirectory(t,
				func(r map[string]any) map[string]any {
					return presOf(r, "1", rangeOf("4000000000000000", "4999999999999999", "", ""))
				},
				answer)
			s := startServer(t, d, nil)
			if err := s.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.Refresh(t.Context()); err == nil {
				t.Error("the answer was accepted")
			}
			if len(d.messages("Erro")) != 1 {
				t.Error("the directory server was not told")
			}
			if got := outcome(t, s); got != pci.Authenticated {
				t.Errorf("outcome %s", got)
			}
		})
	}
}

func TestRunRefreshesUntilItIsEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := startDirectory(t, func(w http.ResponseWriter, _ *http.Request, m map[string]any) {
		reply(w, presOf(m, "1", rangeOf("4000000000000000", "4999999999999999", "", "")))
		cancel() // the answer may or may not arrive any more; Run has to end either way
	})
	s := startServer(t, d, nil)
	s.Run(ctx)
	if len(d.messages("PReq")) == 0 {
		t.Error("nothing was asked for")
	}
}

func TestAnOverlongTableIsRefused(t *testing.T) {
	for length, want := range map[int]error{9: nil, 10: nil, 11: errLong} {
		if _, err := readAtMost(strings.NewReader(strings.Repeat(" ", length)), 10); !errors.Is(err, want) {
			t.Errorf("%d bytes: error %v, want %v", length, err, want)
		}
	}
}
