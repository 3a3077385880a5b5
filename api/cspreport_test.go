package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
)

func report(mediaType, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/csp-report", strings.NewReader(body))
	r.Header.Set("Content-Type", mediaType)
	return r
}

const (
	oldType = "application/csp-report"
	newType = "application/reports+json"
)

func TestReportsAreLoggedWithoutSecrets(t *testing.T) {
	for mediaType, body := range map[string]string{
		oldType: `{"csp-report": {"document-uri": "https://pay.example/checkout/s3cret?lang=en", "effective-directive": "script-src-elem",
			"blocked-uri": "https://evil.example/x.js?pan=4111111111111111", "disposition": "enforce", "script-sample": "4111111111111111"}}`,
		newType: `[{"type": "csp-violation", "age": 1, "user_agent": "x", "url": "https://pay.example/checkout/s3cret", "body": {"effectiveDirective": "script-src-elem",
			"blockedURL": "https://evil.example/x.js?pan=4111111111111111", "disposition": "enforce", "sample": "4111111111111111"}}, {"type": "deprecation", "body": {}}]`,
	} {
		d := newDesk(Limits{})
		if w := d.send(t, report(mediaType, body)); w.Code != http.StatusNoContent {
			t.Errorf("%s: %d %s", mediaType, w.Code, w.Body)
		}
		log := d.log.String()
		if !strings.Contains(log, "page=https://pay.example directive=script-src-elem blocked=https://evil.example disposition=enforce") || strings.Count(log, "refused something") != 1 {
			t.Errorf("log: %s", log)
		}
		if strings.Contains(log, "4111") || strings.Contains(log, "s3cret") {
			t.Errorf("the log repeats a secret: %s", log)
		}
		if len(d.breaches) != 1 || d.breaches[0] != "script-src-elem" {
			t.Errorf("counted: %v", d.breaches)
		}
	}
}

func TestReportsThatAreNone(t *testing.T) {
	many := "[" + strings.Repeat(`{"type":"csp-violation"},`, 20) + `{"type":"csp-violation"}]`
	for _, c := range []struct {
		mediaType, body string
		want            *Problem
	}{
		{"application/json", "{}", ErrMediaType}, {"", "{}", ErrMediaType},
		{oldType, "{}", ErrMalformed}, {oldType, "[]", ErrMalformed}, {oldType, `{"csp-report": {}, "csp-report": {}}`, ErrMalformed},
		{newType, "{}", ErrMalformed}, {newType, `[{"type": 1}]`, ErrMalformed}, {newType, "[] []", ErrMalformed}, {newType, "[\"\xff\"]", ErrMalformed},
		{newType, many, ErrTooLarge}, {newType, strings.Repeat(" ", 33<<10), ErrTooLarge},
	} {
		d := newDesk(Limits{})
		w := httptest.NewRecorder()
		d.handler.ServeHTTP(w, report(c.mediaType, c.body))
		if w.Code != c.want.Status || !strings.Contains(w.Body.String(), c.want.Code) || len(d.breaches) > 0 {
			t.Errorf("%s %.40q: %d %s", c.mediaType, c.body, w.Code, w.Body)
		}
	}
}

func TestReportsOfOneAddressAreLimitedApart(t *testing.T) {
	d := newDesk(Limits{})
	for n := range 21 {
		w := httptest.NewRecorder()
		d.handler.ServeHTTP(w, report(newType, "[]"))
		if want := map[bool]int{false: 204, true: 429}[n == 20]; w.Code != want {
			t.Fatalf("report %d: %d", n, w.Code)
		}
	}
	wantPage(t, d.send(t, browser(http.MethodGet, "/checkout/s3cret", "")), 200)
}

func FuzzReports(f *testing.F) {
	for _, body := range []string{`{"csp-report": {"document-uri": "https://a.example/4111111111111111", "violated-directive": "img-src", "blocked-uri": "inline"}}`,
		`[{"type": "csp-violation", "url": "https://4111111111111111.example", "body": {"blockedURL": "data"}}]`, "", "[", "null"} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, mediaType := range []string{oldType, newType} {
			breaches, err := readReports(mediaType, []byte(body))
			if err != nil && len(breaches) > 0 || len(breaches) > maxReports {
				t.Errorf("%d breaches with %v", len(breaches), err)
			}
			for _, b := range breaches {
				if pci.LooksLikePAN(b.page+"\n"+b.blocked) || strings.ContainsAny(b.page+b.blocked, "?#\n ") || len(b.page+b.blocked) > 512 {
					t.Errorf("kept: %+v", b)
				}
			}
		}
	})
}
