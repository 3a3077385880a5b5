package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/api/audit"
	"github.com/finterra/finpay/api/verifier"
	"github.com/finterra/finpay/pci"
)

const (
	goodLink    = "l1nk"
	goodSession = "sess10n"
	anEntry     = `{"actor":"shopper","data":{"amount":1250,"card":"411111******1111"},"origin":"x","outcome":"success","resource":"pay_<1>","rows":{"payments/pay_1":"00ff"},"seq":3,"time":"2030-01-02T03:04:05.5Z","type":"payment.captured","v":1}`
)

// auditing is what stands behind the auditor's routes in tests: a log of 300 entries, and one person.
type auditing struct {
	query  AuditQuery
	export AuditExport
	by     Viewer
	tiles  int
	opened int
	left   int
	err    error
	broken bool // an export breaks off
}

var aLeaf = strings.Repeat("A", 43) + "="

func (a *auditing) Search(_ context.Context, by Viewer, q AuditQuery) (AuditList, error) {
	a.by, a.query = by, q
	if q.Type == "nothing." {
		return AuditList{Entries: []AuditEntry{}}, a.err
	}
	return AuditList{Entries: []AuditEntry{{3, aLeaf, anEntry}}, NextCursor: "3"}, a.err
}

func (a *auditing) Entry(_ context.Context, by Viewer, index int64) (ProvenEntry, error) {
	if a.by = by; index >= 300 {
		return ProvenEntry{}, ErrNotFound
	}
	return ProvenEntry{AuditEntry{index, aLeaf, anEntry}, "c2sp.org/tlog-proof@v1\n"}, a.err
}

func (a *auditing) Export(_ context.Context, by Viewer, q AuditExport, w io.Writer) error {
	if a.by, a.export = by, q; a.err != nil && !a.broken {
		return a.err
	}
	_, _ = io.WriteString(w, "line\n")
	return a.err
}

func (a *auditing) State(_ context.Context, by Viewer) (LogState, error) {
	a.by = by
	return LogState{Origin: "finpay.example/log", Size: 300, Checkpoint: "finpay.example/log\n300\n", VerifierKey: "v+k", WitnessKey: "w+k"}, a.err
}

func (a *auditing) Tiles(_ context.Context, by Viewer) error {
	a.by, a.tiles = by, a.tiles+1
	return a.err
}

func (a *auditing) Open(_ context.Context, link, _ string) (string, time.Time, error) {
	if link != goodLink || a.opened > 0 {
		return "", time.Time{}, ErrUnauthorized
	}
	a.opened++
	return goodSession, day.Add(time.Hour), a.err
}

func (a *auditing) Session(_ context.Context, session, origin string) (Person, error) {
	if session != goodSession {
		return Person{}, ErrUnauthorized
	}
	return Person{Viewer{"aud_1", origin}, "Ada <Lovelace>", day.Add(time.Hour)}, nil
}

func (a *auditing) Certified(_ context.Context, c *x509.Certificate, origin string) (Person, error) {
	if string(c.RawSubjectPublicKeyInfo) != "known" {
		return Person{}, ErrUnauthorized
	}
	return Person{Viewer{"aud_2", origin}, "", day.Add(time.Hour)}, nil
}

func (a *auditing) Leave(context.Context, string, string) error {
	a.left++
	return a.err
}

// looks makes a request of a person with a session.
func looks(method, target string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.AddCookie(&http.Cookie{Name: "__Host-finpay-audit", Value: goodSession})
	return r
}

func TestEntriesAreSearched(t *testing.T) {
	d := newDesk(Limits{})
	w := d.send(t, audits("/v1/audit/entries?from=2030-01-01T00:00:00Z&to=2031-01-01T00:00:00%2B08:00&type=payment.&resource=pay_1&card=411111******1111&outcome=failure&actor=key:a&order=oldest&cursor=7&limit=5"))
	want := AuditQuery{From: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), To: time.Date(2030, 12, 31, 16, 0, 0, 0, time.UTC), Type: "payment.", Resource: "pay_1",
		Card: "411111******1111", Outcome: "failure", Actor: "key:a", OldestFirst: true, Cursor: "7", Limit: 5}
	if w.Code != http.StatusOK || !reflect.DeepEqual(d.auditing.query, want) || d.auditing.by != (Viewer{"key:key_4", "192.0.2.1"}) {
		t.Errorf("%d %+v by %+v", w.Code, d.auditing.query, d.auditing.by)
	}
	for _, target := range []string{"/v1/audit/entries", "/v1/audit/entries?type=nothing.", "/v1/audit/entries/0", "/v1/audit/entries/299", "/v1/audit/export?format=ocsf", "/v1/audit/export?format=syslog&from=2030-01-01T00:00:00Z"} {
		if w := d.send(t, audits(target)); w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

func TestASearchIsReadStrictly(t *testing.T) {
	for query, want := range map[string]*Problem{
		"type=payment": ErrInvalid, "type=": ErrInvalid, "type=Payment.": ErrInvalid, "type=a.b.c": ErrInvalid, "outcome=maybe": ErrInvalid, "outcome=": ErrInvalid,
		"order=up": ErrInvalid, "limit=0": ErrInvalid, "limit=101": ErrInvalid, "cursor=": ErrInvalid, "cursor=a%20b": ErrInvalid, "from=yesterday": ErrInvalid,
		"to=2030-01-01": ErrInvalid, "from=2031-01-01T00:00:00Z&to=2030-01-01T00:00:00Z": ErrInvalid, "card=4111": ErrInvalid, "card=411111**1111x": ErrInvalid,
		"card=" + testPAN: ErrCardNumber, "resource=" + testPAN: ErrCardNumber, "actor=4111-1111-1111-1111": ErrCardNumber, "resource=a%00": ErrInvalid, "resource=": ErrInvalid,
		"actor=a%20b": ErrInvalid, "name=x": ErrUnknownField, "type=a.&type=b.": ErrInvalid, "%zz": ErrMalformed,
	} {
		d := newDesk(Limits{})
		wantProblem(t, d.send(t, audits("/v1/audit/entries?"+query)), want, "")
		if !reflect.DeepEqual(d.auditing.query, AuditQuery{}) {
			t.Errorf("%s: was searched", query)
		}
	}
	for target, want := range map[string]*Problem{
		"/v1/audit/entries/300": ErrNotFound, "/v1/audit/entries/-1": ErrNotFound, "/v1/audit/entries/01": ErrNotFound, "/v1/audit/entries/x": ErrNotFound,
		"/v1/audit/export": ErrInvalid, "/v1/audit/export?format=cef": ErrInvalid, "/v1/audit/export?format=ocsf&from=x": ErrInvalid, "/v1/audit/export?format=ocsf&limit=1": ErrUnknownField,
	} {
		wantProblem(t, newDesk(Limits{}).send(t, audits(target)), want, "")
	}
}

func TestNothingIsShownWhereTheLookCannotBeEntered(t *testing.T) {
	for _, target := range []string{"/v1/audit/entries", "/v1/audit/entries/1", "/v1/audit/export?format=ocsf", "/ledger/tile/0/000"} {
		d := newDesk(Limits{})
		d.auditing.err = fmt.Errorf("%w: no ledger", pci.ErrUnavailable)
		wantProblem(t, d.send(t, audits(target)), ErrUnavailable, "")
	}
	d := newDesk(Limits{})
	d.send(t, audits("/ledger/tile/0/000"))
	if d.auditing.tiles != 1 || d.auditing.by.Actor != "key:key_4" {
		t.Errorf("%d looks at tiles by %+v", d.auditing.tiles, d.auditing.by)
	}
}

func TestAnExportThatBreaksOffDoesNotLookWhole(t *testing.T) {
	d := newDesk(Limits{})
	d.auditing.err, d.auditing.broken = io.ErrUnexpectedEOF, true
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("the connection was not broken")
		}
	}()
	d.handler.ServeHTTP(httptest.NewRecorder(), audits("/v1/audit/export?format=ocsf"))
}

func TestALinkOpensOnceAndBecomesASession(t *testing.T) {
	d := newDesk(Limits{})
	target := "/audit/open/" + goodLink
	for range 2 { // a look at the page uses nothing up
		if w := d.send(t, httptest.NewRequest(http.MethodGet, target, nil)); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "<button") || d.auditing.opened != 0 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	foreign := httptest.NewRequest(http.MethodPost, target, nil)
	foreign.Header.Set("Sec-Fetch-Site", "cross-site")
	if w := d.send(t, foreign); w.Code != http.StatusForbidden || d.auditing.opened != 0 {
		t.Errorf("another site's form: %d", w.Code)
	}
	w := d.send(t, httptest.NewRequest(http.MethodPost, target, nil))
	cookie := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/audit" || len(cookie) != 1 {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	if c := cookie[0]; c.Name != "__Host-finpay-audit" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 3600 {
		t.Errorf("%+v", c)
	}
	if w := d.send(t, httptest.NewRequest(http.MethodPost, target, nil)); w.Code != http.StatusUnauthorized || len(w.Result().Cookies()) > 0 {
		t.Errorf("a second time: %d", w.Code)
	}
	if strings.Contains(d.log.String(), goodLink) || strings.Contains(d.log.String(), goodSession) {
		t.Errorf("the log has a secret: %s", d.log)
	}
	w = d.send(t, looks(http.MethodPost, "/audit/leave"))
	if c := w.Result().Cookies(); w.Code != http.StatusOK || d.auditing.left != 1 || len(c) != 1 || c[0].MaxAge >= 0 {
		t.Errorf("%d %v", w.Code, c)
	}
}

func TestPagesAreForAuditorsOnly(t *testing.T) {
	pages := []string{"/audit", "/audit/entries/3", "/audit/log", "/audit/export?format=ocsf"}
	for _, page := range pages {
		d := newDesk(Limits{})
		for name, r := range map[string]*http.Request{"nobody": httptest.NewRequest(http.MethodGet, page, nil), "an API key": audits(page)} {
			if w := d.send(t, r); w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "not signed in") || w.Header().Get("Content-Disposition") != "" {
				t.Errorf("%s at %s: %d %s", name, page, w.Code, w.Body)
			}
		}
		wrong := httptest.NewRequest(http.MethodGet, page, nil)
		wrong.AddCookie(&http.Cookie{Name: "__Host-finpay-audit", Value: "other"})
		twice := looks(http.MethodGet, page)
		twice.AddCookie(&http.Cookie{Name: "__Host-finpay-audit", Value: goodSession})
		unknown := looks(http.MethodGet, page) // a certificate counts before a session
		unknown.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{RawSubjectPublicKeyInfo: []byte("unknown")}}}
		for _, r := range []*http.Request{wrong, twice, unknown} {
			if w := d.send(t, r); w.Code != http.StatusUnauthorized {
				t.Errorf("%s: %d", page, w.Code)
			}
		}
		certified := httptest.NewRequest(http.MethodGet, page, nil)
		certified.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{RawSubjectPublicKeyInfo: []byte("known")}}}
		for actor, r := range map[string]*http.Request{"aud_1": looks(http.MethodGet, page), "aud_2": certified} {
			if w := d.send(t, r); w.Code != http.StatusOK || d.auditing.by.Actor != actor {
				t.Errorf("%s at %s: %d %s", actor, page, w.Code, w.Body)
			}
		}
	}
}

func TestGuessingSessionsAndLinksIsStopped(t *testing.T) {
	d := newDesk(Limits{FailedLogins: Rate{PerSecond: 1, Burst: 2}})
	for range 2 {
		d.send(t, httptest.NewRequest(http.MethodPost, "/audit/open/wrong", nil))
	}
	for _, r := range []*http.Request{looks(http.MethodGet, "/audit"), httptest.NewRequest(http.MethodPost, "/audit/open/"+goodLink, nil)} {
		if w := d.send(t, r); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d", r.URL, w.Code)
		}
	}
}

func TestAFormIsReadAsItIsSent(t *testing.T) {
	d := newDesk(Limits{})
	w := d.send(t, looks(http.MethodGet, "/audit?from=2030-01-02T03:04&to=&type=+payment.+&resource=&card=&actor=&outcome=&order=newest"))
	if want := (AuditQuery{From: time.Date(2030, 1, 2, 3, 4, 0, 0, time.UTC), Type: "payment.", Limit: DefaultPage}); w.Code != http.StatusOK || !reflect.DeepEqual(d.auditing.query, want) {
		t.Errorf("%d %+v", w.Code, d.auditing.query)
	}
	for _, part := range []string{`href="/audit/entries/3"`, "pay_&lt;1&gt;", "411111******1111", "cursor=3", "Ada &lt;Lovelace&gt;", "2030-01-02 03:04:05", "from=2030-01-02T03%3A04%3A00Z"} {
		if !strings.Contains(w.Body.String(), part) {
			t.Errorf("the page lacks %s: %s", part, w.Body)
		}
	}
	for query, says := range map[string]string{"type=payment": "The query parameter type", "card=" + testPAN: "looks like a card number"} {
		w := d.send(t, looks(http.MethodGet, "/audit?"+query))
		if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), says) || strings.Contains(w.Body.String(), testPAN) {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
}

func TestTheEntrysPageHasAllThatAVerifierNeeds(t *testing.T) {
	w := newDesk(Limits{}).send(t, looks(http.MethodGet, "/audit/entries/3"))
	policy := w.Header().Get("Content-Security-Policy")
	if w.Code != http.StatusOK || !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self'") || strings.Contains(policy, "unsafe") {
		t.Errorf("%d %s", w.Code, policy)
	}
	body := w.Body.String()
	for _, part := range []string{"payments/pay_1", "00ff", "1250", "c2sp.org/tlog-proof@v1", aLeaf, "&#34;payment.captured&#34;"} {
		if !strings.Contains(body, part) {
			t.Errorf("the page lacks %s", part)
		}
	}
	if strings.Contains(body, "v+k") || strings.Contains(body, " style=") || strings.Contains(body, "<style") {
		t.Error("the page brings a key, or a style of its own")
	}
	_, after, _ := strings.Cut(body, `<script src="`)
	name, _, _ := strings.Cut(after, `"`)
	script := newDesk(Limits{}).send(t, httptest.NewRequest(http.MethodGet, name, nil))
	if script.Code != http.StatusOK || !bytes.HasPrefix(script.Body.Bytes(), verifier.Core) || !bytes.Contains(verifier.Core, []byte("async function rootFrom")) ||
		!bytes.Contains(verifier.Core, []byte("async function openCheckpoint")) || bytes.Contains(verifier.Core, []byte("class Walk")) {
		t.Errorf("%d: the script is not that of the verifier", script.Code)
	}
	for _, part := range []string{"innerHTML", "fetch(", "eval(", "XMLHttpRequest", "http://", "https://"} {
		if strings.Contains(script.Body.String(), part) {
			t.Errorf("the script has %q", part)
		}
	}
}

func TestAPageThatIsNotThere(t *testing.T) {
	d := newDesk(Limits{})
	for target, code := range map[string]int{"/audit/entries/300": 404, "/audit/entries/x": 404, "/audit/what": 404, "/audit?name=x": 422, "/audit/export": 422, "/audit?" + url.PathEscape("%zz") + "=": 422} {
		if w := d.send(t, looks(http.MethodGet, target)); w.Code != code || !strings.Contains(w.Header().Get("Content-Type"), "text/html") {
			t.Errorf("%s: %d %v", target, w.Code, w.Header())
		}
	}
	if err := (audit.Page{Kind: "other"}).Write(httptest.NewRecorder(), 200); err == nil {
		t.Error("a page of no kind was written")
	}
}
