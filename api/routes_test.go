package api

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// declaredCodes are the codes in the source of problem.go.
func declaredCodes(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile("problem.go")
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "problem.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	ast.Inspect(file, func(n ast.Node) bool {
		if pair, ok := n.(*ast.KeyValueExpr); ok {
			name, isName := pair.Key.(*ast.Ident)
			value, isText := pair.Value.(*ast.BasicLit)
			if isName && isText && name.Name == "Code" {
				code, err := strconv.Unquote(value.Value)
				if err != nil {
					t.Fatal(err)
				}
				codes = append(codes, code)
			}
		}
		return true
	})
	return codes
}

func TestUnknownRoutes(t *testing.T) {
	for _, path := range []string{"/", "/v1", "/v1/payments/", "/v1/payments//receipt", "/v1/../v1/payments", "/healthz", "/ledger/tile", "/assets/checkout.css", "/assets/..%2fopenapi.yaml"} {
		wantProblem(t, newDesk(Limits{}).send(t, request(http.MethodGet, path, "")), ErrNotFound, "")
	}
}

func TestWrongMethods(t *testing.T) {
	for _, c := range []struct{ method, path, allow string }{
		{http.MethodPut, "/v1/payments", "GET, HEAD, POST"},
		{http.MethodOptions, "/v1/payments", "GET, HEAD, POST"},
		{http.MethodPost, "/v1/payments/pay_01", "GET, HEAD"},
		{http.MethodDelete, "/v1/payments/pay_01/receipt", "GET, HEAD"},
		{http.MethodPost, "/v1/events/evt_1", "GET, HEAD"},
		{http.MethodGet, "/v1/events/evt_1/redeliver", "POST"},
		{http.MethodPut, "/v1/webhook-endpoints/whe_1", "DELETE, GET, HEAD, PATCH"},
		{http.MethodPost, "/ledger/checkpoint", "GET, HEAD"},
		{http.MethodPost, "/openapi.yaml", "GET, HEAD"},
		{"BREW", "/assets/x", "GET, HEAD"},
	} {
		w := newDesk(Limits{}).send(t, request(c.method, c.path, ""))
		wantProblem(t, w, ErrMethod, "")
		if got := w.Header().Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
		}
	}
}

func TestKeys(t *testing.T) {
	for name, c := range map[string]struct {
		header []string
		want   *Problem
	}{
		"none":             {nil, ErrUnauthorized},
		"empty":            {[]string{""}, ErrUnauthorized},
		"only a scheme":    {[]string{"Bearer"}, ErrUnauthorized},
		"an empty key":     {[]string{"Bearer "}, ErrUnauthorized},
		"another scheme":   {[]string{"Basic " + goodKey}, ErrUnauthorized},
		"two spaces":       {[]string{"Bearer  " + goodKey}, ErrUnauthorized},
		"two headers":      {[]string{"Bearer " + goodKey, "Bearer " + goodKey}, ErrUnauthorized},
		"an unknown key":   {[]string{"Bearer fpk_live_nobody"}, ErrUnauthorized},
		"a very long key":  {[]string{"Bearer " + strings.Repeat("k", 257)}, ErrUnauthorized},
		"another scope":    {[]string{"Bearer " + tokensKey}, ErrForbidden},
		"lower-case works": {[]string{"bearer " + goodKey}, nil},
	} {
		r := httptest.NewRequest(http.MethodGet, "/v1/payments", nil)
		r.Header["Authorization"] = c.header
		w := newDesk(Limits{}).send(t, r)
		if c.want == nil {
			if w.Code != http.StatusOK {
				t.Errorf("%s: %d", name, w.Code)
			}
			continue
		}
		wantProblem(t, w, c.want, "")
		if (w.Header().Get("WWW-Authenticate") != "") != (w.Code == http.StatusUnauthorized) {
			t.Errorf("%s: WWW-Authenticate %q", name, w.Header().Get("WWW-Authenticate"))
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	for _, target := range []string{"/v1/payments", "https://pay.example/v1/payments", "/nowhere", "https://pay.example/checkout/s3cret"} {
		w := newDesk(Limits{}).send(t, request(http.MethodGet, target, ""))
		h := w.Header()
		if h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'") ||
			h.Get("Cache-Control") != "no-store" || len(h.Get("Request-Id")) < 26 {
			t.Errorf("%s: %v", target, h)
		}
		if overTLS := strings.HasPrefix(target, "https:"); (h.Get("Strict-Transport-Security") != "") != overTLS {
			t.Errorf("%s: Strict-Transport-Security %q", target, h.Get("Strict-Transport-Security"))
		}
	}
}

func TestOneKeyMayNotTakeAll(t *testing.T) {
	d := newDesk(Limits{PerKey: Rate{PerSecond: 0.5, Burst: 2}})
	for range 2 {
		if w := d.send(t, request(http.MethodGet, "/v1/payments", "")); w.Code != http.StatusOK || w.Header().Get("RateLimit-Policy") != `"key";q=2;w=4` {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
	}
	w := d.send(t, request(http.MethodGet, "/v1/payments", ""))
	wantProblem(t, w, ErrRateLimit, "")
	if got := w.Header(); got.Get("Retry-After") != "2" || got.Get("RateLimit") != `"key";r=0;t=4` {
		t.Errorf("headers %v", got)
	}
	other := httptest.NewRequest(http.MethodGet, "/v1/payments", nil)
	other.Header.Set("Authorization", "Bearer "+tokensKey)
	wantProblem(t, d.send(t, other), ErrForbidden, "")
	d.now = d.now.Add(2 * time.Second)
	if w := d.send(t, request(http.MethodGet, "/v1/payments", "")); w.Code != http.StatusOK {
		t.Errorf("after Retry-After: %d", w.Code)
	}
}

func TestGuessingKeysIsSlow(t *testing.T) {
	d := newDesk(Limits{FailedLogins: Rate{PerSecond: 0.1, Burst: 3}})
	guess := func(address string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/v1/payments", nil)
		r.Header.Set("Authorization", "Bearer fpk_live_guess")
		r.Header.Set("X-Forwarded-For", "198.51.100.7")
		r.RemoteAddr = address
		return d.send(t, r)
	}
	for i, port := range []string{"1", "2", "3"} {
		wantProblem(t, guess("[2001:db8::"+strconv.Itoa(i)+"]:"+port), ErrUnauthorized, "")
	}
	w := guess("[2001:db8::ffff]:4") // of the same /64
	wantProblem(t, w, ErrRateLimit, "")
	if w.Header().Get("Retry-After") != "10" {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	wantProblem(t, guess("[2001:db8:0:1::1]:5"), ErrUnauthorized, "")
	d.now = d.now.Add(10 * time.Second)
	wantProblem(t, guess("[2001:db8::ffff]:4"), ErrUnauthorized, "")
}

func TestBucketsAreBounded(t *testing.T) {
	b := newBuckets("x", Rate{PerSecond: 1, Burst: 1}, 3, func() time.Time { return day })
	for i := range 1000 {
		b.of(strconv.Itoa(i))
	}
	if len(b.byKey) != 3 || b.recent.Len() != 3 {
		t.Errorf("%d buckets, %d in use", len(b.byKey), b.recent.Len())
	}
}

func TestNetworks(t *testing.T) {
	for origin, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::/64", "fe80::1%eth0": "fe80::/64", "@": "@",
	} {
		if got := network(origin); got != want {
			t.Errorf("%s: %s, want %s", origin, got, want)
		}
	}
}

func TestLogHasNoSecrets(t *testing.T) {
	d := newDesk(Limits{})
	d.send(t, httptest.NewRequest(http.MethodGet, "/checkout/s3cret?lang=en", nil))
	d.send(t, request(http.MethodPost, "/v1/payments", goodCreate))
	d.send(t, request(http.MethodGet, "/v1/payments?reference=order-1001", ""))
	d.send(t, request(http.MethodGet, "/nowhere/s3cret", ""))
	d.send(t, request("S3CRET", "/v1/payments", ""))
	log := d.log.String()
	for _, secret := range []string{"s3cret", "S3CRET", "order-1001", goodKey, "lang"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %q: %s", secret, log)
		}
	}
	for _, part := range []string{"route=/checkout/{session} status=200", "method=POST route=/v1/payments status=201", "merchant=mer_1 key=key_1", "method=other", `route="" status=404`} {
		if !strings.Contains(log, part) {
			t.Errorf("the log lacks %q: %s", part, log)
		}
	}
}

func TestPanicsBecomeProblems(t *testing.T) {
	d := newDesk(Limits{})
	s := &server{cfg: Config{Logger: slog.New(slog.NewTextHandler(d.log, nil))}}
	serve := func(path string, h handler) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.identify(s.logAccess(s.recoverPanics(secure(s.answer(h))))).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	bad := func(http.ResponseWriter, *http.Request) error { panic("card " + testPAN) }
	wantProblem(t, serve("/v1/payments", bad), ErrInternal, "")
	if w := serve("/checkout/s3cret", bad); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "Something went wrong") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	wantProblem(t, serve("/v1/payments", func(http.ResponseWriter, *http.Request) error { var p *Problem; return errors.New(p.Code) }), ErrInternal, "")
	log := d.log.String()
	if strings.Contains(log, testPAN) || !strings.Contains(log, "panic=string") || !strings.Contains(log, "nil pointer") || !strings.Contains(log, "status=500") {
		t.Errorf("log %s", log)
	}
	for name, h := range map[string]handler{
		"half an answer": func(w http.ResponseWriter, _ *http.Request) error { _, _ = io.WriteString(w, "{"); panic("x") },
		"an abort":       func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) },
	} {
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler {
					t.Errorf("%s: %v, want the connection aborted", name, v)
				}
			}()
			serve("/v1/payments", h)
		}()
	}
}

func TestCallerWhoLeftIsNoFault(t *testing.T) {
	d := newDesk(Limits{})
	d.err = context.Canceled
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantProblem(t, d.send(t, request(http.MethodGet, "/v1/payments", "").WithContext(ctx)), ErrUnavailable, "")
	if strings.Contains(d.log.String(), "level=ERROR") {
		t.Errorf("log %s", d.log)
	}
}
