package threeds

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
)

const fuzzID = "99999999-8888-4777-8666-555555555555"

// seeds adds messages and spoiled variants of them.
func seeds(f *testing.F, messages ...map[string]any) {
	f.Helper()
	for _, m := range messages {
		raw, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		s := string(raw)
		f.Add(raw)
		f.Add(raw[:len(raw)/2])
		f.Add([]byte(strings.ToUpper(s)))
		f.Add([]byte(strings.Replace(s, "{", `{"transStatus":"Y",`, 1)))
		f.Add([]byte(strings.ReplaceAll(s, `"`, `\"`)))
		f.Add([]byte("[" + s + "]"))
		f.Add([]byte(s + s))
		f.Add([]byte(strings.ReplaceAll(s, "2", "\xff")))
	}
	f.Add([]byte(nil))
	f.Add([]byte("null"))
}

func FuzzARes(f *testing.F) {
	request := map[string]any{"threeDSServerTransID": fuzzID}
	for _, status := range []string{"Y", "A", "C", "N", "R", "U", "I", "D", "S"} {
		for _, version := range Versions {
			seeds(f, inVersion(version, validARes(request, status)))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for v := v220; v <= v231; v++ {
			fuzzARes(t, raw, v)
		}
	})
}

func fuzzARes(t *testing.T, raw []byte, v version) {
	a, err := setOf(Versions...).parseARes(raw, fuzzID, v)
	if err != nil {
		return
	}
	for _, exempt := range []bool{false, true} {
		auth := a.verdict(t.Context(), "pay_1", exempt)
		if auth.Version != v.String() || auth.Outcome == pci.NotChallenged && (!exempt || auth.ECI != "" || auth.CAVV != "") {
			t.Errorf("%+v by %q", auth, raw)
		}
		if auth.Outcome != pci.Authenticated && auth.Outcome != pci.AuthenticationTried {
			continue
		}
		if !isCAVV(auth.CAVV) || auth.ServerTransID != fuzzID || auth.TransStatus != "Y" && auth.TransStatus != "A" {
			t.Errorf("authenticated by %q", raw)
		}
	}
}

func FuzzRReq(f *testing.F) {
	for _, version := range Versions {
		seeds(f, validRReq(pci.Authentication{ServerTransID: fuzzID, DSTransID: dsTransID, ACSTransID: acsTransID, Version: version}))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseRReq(raw)
		if err != nil {
			return
		}
		auth := verdict(t.Context(), "pay_1", r.header, r.identifiers, r.status)
		if auth.Outcome == pci.Authenticated && (r.TransStatus != "Y" || !isCAVV(auth.CAVV)) || auth.Outcome == pci.ChallengeRequired {
			t.Errorf("%s by %q", auth.Outcome, raw)
		}
		if !isTransID(r.ThreeDSServerTransID) || !isTransID(r.DSTransID) || !isTransID(r.ACSTransID) {
			t.Errorf("ids of %q", raw)
		}
	})
}

func FuzzPRes(f *testing.F) {
	request := map[string]any{"threeDSServerTransID": fuzzID}
	visa := rangeOf("4000000000000000", "4999999999999999", "", "")
	seeds(f, presOf(request, "1", visa), presOf(request, "2", rangeOf("4000000000000000", "4999999999999999", "D", "")),
		presOf(request, "2", rangeOf("5100000000000000", "5599999999999999999", "M", "https://acs.example")))
	seeds(f, inVersion("2.3.1", presOf(request, "1", range231("4000000000000000", "4999999999999999", "2.2.0", "2.3.1"))))
	raw, _ := json.Marshal(presOf(request, "1", visa))
	s := &Server{versions: setOf(Versions...)}
	known, _, err := s.parsePRes(raw, fuzzID, nil, v220)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for i, before := range []*rangeTable{nil, known, nil} {
			table, _, err := s.parsePRes(raw, fuzzID, before, []version{v220, v220, v231}[i])
			if err != nil {
				continue
			}
			for i, r := range table.ranges {
				if string(r.start[:]) > string(r.end[:]) || i > 0 && string(table.ranges[i-1].end[:]) >= string(r.start[:]) {
					t.Errorf("ranges out of order after %q", raw)
				}
			}
			table.lookUp([]byte(testPAN))
			table.lookUp([]byte("000000000000"))
		}
	})
}

func FuzzParseCRes(f *testing.F) {
	f.Add([]byte("e30"))
	f.Add([]byte("eyJtZXNzYWdlVHlwZSI6IkNSZXMifQ"))
	f.Fuzz(func(t *testing.T, field []byte) {
		if id, _, err := ParseCRes(field); err == nil && !isTransID(id) {
			t.Errorf("id %q", id)
		}
	})
}
