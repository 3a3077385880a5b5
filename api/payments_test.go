package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
)

// problemBody is a problem document as a client reads it.
type problemBody struct {
	Type, Title, Code, Detail, Pointer string
	Status                             int
}

func wantProblem(t testing.TB, w *httptest.ResponseRecorder, want *Problem, pointer string) {
	t.Helper()
	if w.Code != want.Status || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("answer %d %s, want %d: %s", w.Code, w.Header().Get("Content-Type"), want.Status, w.Body)
	}
	var got problemBody
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Code != want.Code || got.Pointer != pointer || got.Title != want.Title || got.Detail == "" || got.Status != want.Status {
		t.Errorf("problem %+v, want code %s at %q", got, want.Code, pointer)
	}
}

// create is a body for POST /v1/payments with some members changed; nil leaves one out.
func create(changes map[string]any) string {
	body := map[string]any{"amount": 1250, "currency": "EUR", "reference": "order-1001", "return_url": "https://shop.example/return"}
	maps.Copy(body, changes)
	maps.DeleteFunc(body, func(_ string, v any) bool { return v == nil })
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func TestCreatePayment(t *testing.T) {
	d := newDesk(Limits{})
	r := request(http.MethodPost, "/v1/payments", goodCreate)
	r.Header.Set("Idempotency-Key", "8e03978e-40d5-43e8-bc93-6894a57f9324")
	w := d.send(t, r)
	if w.Code != http.StatusCreated || w.Header().Get("Location") != "/v1/payments/pay_01" {
		t.Fatalf("answer %d %v: %s", w.Code, w.Header(), w.Body)
	}
	want := CreatePayment{Amount: 1250, Currency: "EUR", Reference: "order-1001", ReturnURL: "https://shop.example/return", Capture: "automatic"}
	if !reflect.DeepEqual(d.created, []CreatePayment{want}) || d.keys[0] != "8e03978e-40d5-43e8-bc93-6894a57f9324" {
		t.Errorf("created %+v with %q", d.created, d.keys)
	}
	if d.origin != "192.0.2.1" {
		t.Errorf("origin %q", d.origin)
	}
}

func TestCreatePaymentTakes(t *testing.T) {
	for name, changes := range map[string]map[string]any{
		"the least amount":     {"amount": 1},
		"the largest amount":   {"amount": 999_999_999_999},
		"a long reference":     {"reference": strings.Repeat("é", 64)},
		"localhost":            {"return_url": "http://localhost:8080/return?a=b"},
		"127.0.0.1":            {"return_url": "http://127.0.0.1/"},
		"[::1]":                {"return_url": "http://[::1]:8080/"},
		"a long URL":           {"return_url": "https://shop.example/" + strings.Repeat("a", 2048-21)},
		"automatic":            {"capture": "automatic"},
		"manual":               {"capture": "manual"},
		"an empty capture":     {"capture": ""},
		"an empty customer":    {"customer": map[string]any{}},
		"an exemption":         {"authentication": map[string]any{"challenge": "no_challenge", "exemption": "low_value"}},
		"no preference":        {"authentication": map[string]any{"challenge": "no_preference"}},
		"a subscription":       {"setup": "recurring", "recurring": map[string]any{"expiry": "2031-12-31", "frequency_days": 28}},
		"instalments":          {"setup": "instalments", "recurring": map[string]any{"expiry": "2031-12-31", "frequency_days": 28, "instalments": 12}},
		"unscheduled":          {"setup": "unscheduled"},
		"a customer":           {"customer": map[string]any{"name": "Siti Aminah", "email": "siti.aminah@example.com", "phone": "+60 12-345 6789", "billing": map[string]any{"line1": "1 Jalan Ampang", "city": "Kuala Lumpur", "country": "MY", "state": "14", "postal_code": "50450"}}},
		"13 digits of a phone": {"customer": map[string]any{"phone": "+42 22222222222"}},
		"an order number":      {"reference": "2030-000017"},
	} {
		d := newDesk(Limits{})
		if w := d.send(t, request(http.MethodPost, "/v1/payments", create(changes))); w.Code != http.StatusCreated {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestCreatePaymentRefuses(t *testing.T) {
	long := strings.Repeat("a", 300)
	for _, c := range []struct {
		name, body string
		want       *Problem
		pointer    string
	}{
		{"nothing", " ", ErrMalformed, ""},
		{"half an object", `{"amount":1`, ErrMalformed, ""},
		{"no JSON", `amount=1`, ErrMalformed, ""},
		{"a byte order mark", "\ufeff" + goodCreate, ErrMalformed, ""},
		{"a second value", goodCreate + "{}", ErrMalformed, ""},
		{"trailing text", goodCreate + "x", ErrMalformed, ""},
		{"an array", `[]`, ErrInvalid, ""},
		{"null", `null`, ErrInvalid, ""},
		{"a string", `"x"`, ErrInvalid, ""},
		{"a duplicate name", strings.Replace(goodCreate, "{", `{"amount":1,`, 1), ErrMalformed, "/amount"},
		{"an escaped duplicate name", strings.Replace(goodCreate, "{", `{"\u0061mount":1,`, 1), ErrMalformed, "/amount"},
		{"another case", strings.Replace(goodCreate, "amount", "Amount", 1), ErrUnknownField, "/Amount"},
		{"invalid UTF-8", strings.Replace(goodCreate, "order", "\xff\xfe", 1), ErrMalformed, "/reference"},
		{"half a surrogate", strings.Replace(goodCreate, "order", `\ud800`, 1), ErrMalformed, "/reference"},
		{"an unknown field", create(map[string]any{"ammount": 1}), ErrUnknownField, "/ammount"},
		{"an unknown field below", create(map[string]any{"customer": map[string]any{"age": 1}}), ErrUnknownField, "/customer/age"},
		{"a long unknown name", create(map[string]any{long: 1}), ErrUnknownField, ""},
		{"a card number for a name", create(map[string]any{testPAN: 1}), ErrCardNumber, ""},
		{"null amount", strings.Replace(goodCreate, "1250", "null", 1), ErrInvalid, "/amount"},
		{"null customer", strings.Replace(goodCreate, "{", `{"customer":null,`, 1), ErrInvalid, "/customer"},
		{"no amount", create(map[string]any{"amount": nil}), ErrInvalid, "/amount"},
		{"amount 0", create(map[string]any{"amount": 0}), ErrInvalid, "/amount"},
		{"a negative amount", create(map[string]any{"amount": -1}), ErrInvalid, "/amount"},
		{"too large an amount", create(map[string]any{"amount": 1_000_000_000_000}), ErrInvalid, "/amount"},
		{"an overflow", strings.Replace(goodCreate, "1250", "9223372036854775808", 1), ErrInvalid, "/amount"},
		{"a fraction", strings.Replace(goodCreate, "1250", "12.50", 1), ErrInvalid, "/amount"},
		{"an integer with a fraction", strings.Replace(goodCreate, "1250", "1250.0", 1), ErrInvalid, "/amount"},
		{"an exponent", strings.Replace(goodCreate, "1250", "1e3", 1), ErrInvalid, "/amount"},
		{"an amount in quotes", strings.Replace(goodCreate, "1250", `"1250"`, 1), ErrInvalid, "/amount"},
		{"a leading zero", strings.Replace(goodCreate, "1250", "01250", 1), ErrMalformed, ""},
		{"a boolean reference", create(map[string]any{"reference": true}), ErrInvalid, "/reference"},
		{"a string customer", create(map[string]any{"customer": "Siti"}), ErrInvalid, "/customer"},
		{"no currency", create(map[string]any{"currency": nil}), ErrInvalid, "/currency"},
		{"an unknown currency", create(map[string]any{"currency": "EUX"}), ErrInvalid, "/currency"},
		{"a lower-case currency", create(map[string]any{"currency": "eur"}), ErrInvalid, "/currency"},
		{"no reference", create(map[string]any{"reference": nil}), ErrInvalid, "/reference"},
		{"a blank reference", create(map[string]any{"reference": "  "}), ErrInvalid, "/reference"},
		{"a long reference", create(map[string]any{"reference": strings.Repeat("a", 65)}), ErrInvalid, "/reference"},
		{"a line break", create(map[string]any{"reference": "a\nb"}), ErrInvalid, "/reference"},
		{"a text direction", create(map[string]any{"reference": "a\u202eb"}), ErrInvalid, "/reference"},
		{"a card number in the reference", create(map[string]any{"reference": "card 4111 1111-1111 1111"}), ErrCardNumber, "/reference"},
		{"a card number in the URL", create(map[string]any{"return_url": "https://shop.example/?c=4111%201111%201111%201111"}), ErrCardNumber, "/return_url"},
		{"a card number in the URL, escaped twice", create(map[string]any{"return_url": "https://shop.example/?c=%2534111111111111111"}), ErrCardNumber, "/return_url"},
		{"a card number in other digits", create(map[string]any{"reference": "４１１１１１１１１１１１１１１１"}), ErrCardNumber, "/reference"},
		{"a card number for a customer", create(map[string]any{"customer": map[string]any{"name": testPAN}}), ErrCardNumber, "/customer/name"},
		{"a card number for a phone", create(map[string]any{"customer": map[string]any{"phone": testPAN}}), ErrCardNumber, "/customer/phone"},
		{"a card number for an address", create(map[string]any{"customer": map[string]any{"billing": map[string]any{"line1": testPAN}}}), ErrCardNumber, "/customer/billing/line1"},
		{"a card number for an e-mail", create(map[string]any{"customer": map[string]any{"email": testPAN + "@example.com"}}), ErrCardNumber, "/customer/email"},
		{"a card number for an amount", strings.Replace(goodCreate, "1250", testPAN, 1), ErrInvalid, "/amount"},
		{"no URL", create(map[string]any{"return_url": nil}), ErrInvalid, "/return_url"},
		{"a relative URL", create(map[string]any{"return_url": "/return"}), ErrInvalid, "/return_url"},
		{"another scheme", create(map[string]any{"return_url": "javascript:alert(1)"}), ErrInvalid, "/return_url"},
		{"plain http", create(map[string]any{"return_url": "http://shop.example/"}), ErrInvalid, "/return_url"},
		{"user information", create(map[string]any{"return_url": "https://shop.example@evil.example/"}), ErrInvalid, "/return_url"},
		{"a fragment", create(map[string]any{"return_url": "https://shop.example/#"}), ErrInvalid, "/return_url"},
		{"a policy in the host", create(map[string]any{"return_url": "https://shop.example;script-src/"}), ErrInvalid, "/return_url"},
		{"a space", create(map[string]any{"return_url": "https://shop.example/a b"}), ErrInvalid, "/return_url"},
		{"no host", create(map[string]any{"return_url": "https:///return"}), ErrInvalid, "/return_url"},
		{"a zone", create(map[string]any{"return_url": "https://[fe80::1%25eth0]/"}), ErrInvalid, "/return_url"},
		{"a long URL", create(map[string]any{"return_url": "https://shop.example/" + strings.Repeat("a", 2048)}), ErrInvalid, "/return_url"},
		{"another capture", create(map[string]any{"capture": "later"}), ErrInvalid, "/capture"},
		{"a long name", create(map[string]any{"customer": map[string]any{"name": strings.Repeat("a", 46)}}), ErrInvalid, "/customer/name"},
		{"no e-mail address", create(map[string]any{"customer": map[string]any{"email": "Siti <siti@example.com>"}}), ErrInvalid, "/customer/email"},
		{"a phone without +", create(map[string]any{"customer": map[string]any{"phone": "012 3456789"}}), ErrInvalid, "/customer/phone"},
		{"a phone in one piece", create(map[string]any{"customer": map[string]any{"phone": "+60123456789"}}), ErrInvalid, "/customer/phone"},
		{"a long billing", create(map[string]any{"customer": map[string]any{"billing": map[string]any{"line2": strings.Repeat("a", 51)}}}), ErrInvalid, "/customer/billing/line2"},
		{"a country in words", create(map[string]any{"customer": map[string]any{"billing": map[string]any{"country": "Malaysia"}}}), ErrInvalid, "/customer/billing/country"},
		{"a state of no country", create(map[string]any{"customer": map[string]any{"billing": map[string]any{"state": "14"}}}), ErrInvalid, "/customer/billing/state"},
		{"an unknown wish", create(map[string]any{"authentication": map[string]any{"challenge": "never"}}), ErrInvalid, "/authentication/challenge"},
		{"an unknown exemption", create(map[string]any{"authentication": map[string]any{"exemption": "friend"}}), ErrInvalid, "/authentication/exemption"},
		{"a challenge and an exemption", create(map[string]any{"authentication": map[string]any{"challenge": "mandated", "exemption": "low_value"}}), ErrInvalid, "/authentication/exemption"},
		{"an unknown setup", create(map[string]any{"setup": "often"}), ErrInvalid, "/setup"},
		{"a setup without terms", create(map[string]any{"setup": "recurring"}), ErrInvalid, "/recurring"},
		{"terms without a setup", create(map[string]any{"recurring": map[string]any{"expiry": "2031-01-01", "frequency_days": 1}}), ErrInvalid, "/recurring"},
		{"an end in words", create(map[string]any{"setup": "recurring", "recurring": map[string]any{"expiry": "next year", "frequency_days": 1}}), ErrInvalid, "/recurring/expiry"},
		{"never charged", create(map[string]any{"setup": "recurring", "recurring": map[string]any{"expiry": "2031-01-01"}}), ErrInvalid, "/recurring/frequency_days"},
		{"one instalment", create(map[string]any{"setup": "instalments", "recurring": map[string]any{"expiry": "2031-01-01", "frequency_days": 28, "instalments": 1}}), ErrInvalid, "/recurring/instalments"},
		{"instalments of a subscription", create(map[string]any{"setup": "recurring", "recurring": map[string]any{"expiry": "2031-01-01", "frequency_days": 28, "instalments": 3}}), ErrInvalid, "/recurring/instalments"},
		{"too much", create(map[string]any{"reference": strings.Repeat("a", 64<<10)}), ErrTooLarge, ""},
		{"deep nesting", strings.Repeat("[", 30_000), ErrMalformed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(Limits{})
			w := d.send(t, request(http.MethodPost, "/v1/payments", c.body))
			if c.name == "deep nesting" { // its pointer is of no use
				if w.Code != http.StatusBadRequest {
					t.Errorf("answer %d", w.Code)
				}
				return
			}
			wantProblem(t, w, c.want, c.pointer)
			if len(d.created) > 0 {
				t.Error("a payment was created")
			}
			if strings.Contains(w.Body.String()+d.log.String(), testPAN) || pci.LooksLikePAN(w.Body.String()) {
				t.Errorf("a card number was repeated: %s %s", w.Body, d.log)
			}
		})
	}
}

func TestBodyMustBeJSON(t *testing.T) {
	for header, values := range map[string][]string{
		"Content-Type":     {"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "application/json;;", "application/problem+json"},
		"Content-Encoding": {"gzip"},
	} {
		for _, value := range values {
			r := request(http.MethodPost, "/v1/payments", goodCreate)
			r.Header.Set(header, value)
			wantProblem(t, newDesk(Limits{}).send(t, r), ErrMediaType, "")
		}
	}
	r := request(http.MethodPost, "/v1/payments", goodCreate)
	r.Header.Set("Content-Type", `Application/JSON; charset="UTF-8"`)
	w := httptest.NewRecorder()
	newDesk(Limits{}).handler.ServeHTTP(w, r)
	if w.Code != http.StatusCreated {
		t.Errorf("a charset of UTF-8: %d", w.Code)
	}
}

func TestIdempotencyKey(t *testing.T) {
	for key, want := range map[string]*Problem{
		"8e03978e-40d5-43e8-bc93-6894a57f9324": nil, "order-2030-000017": nil, strings.Repeat("k", 255): nil,
		"": ErrInvalid, strings.Repeat("k", 256): ErrInvalid, "schlüssel": ErrInvalid, "a\tb": ErrInvalid,
		"pay-" + testPAN: ErrCardNumber, "4111 1111 1111 1111": ErrCardNumber,
	} {
		d := newDesk(Limits{})
		r := request(http.MethodPost, "/v1/payments", goodCreate)
		r.Header["Idempotency-Key"] = []string{key}
		w := d.send(t, r)
		if want == nil {
			if w.Code != http.StatusCreated || d.keys[0] != key {
				t.Errorf("%q: %d %s", key, w.Code, w.Body)
			}
			continue
		}
		wantProblem(t, w, want, "")
	}
	r := request(http.MethodPost, "/v1/payments", goodCreate)
	r.Header["Idempotency-Key"] = []string{"a", "b"}
	wantProblem(t, newDesk(Limits{}).send(t, r), ErrInvalid, "")
	wantProblem(t, newDesk(Limits{}).send(t, request(http.MethodPost, "/v1/payments?x=1", goodCreate)), ErrUnknownField, "")
}

func TestListPayments(t *testing.T) {
	d := newDesk(Limits{})
	target := "/v1/payments?status=captured&reference=order-1001&from=2030-01-02T03:04:05Z&to=2030-02-01T00:00:00%2B08:00&cursor=abc_-.%3D&limit=100"
	if w := d.send(t, request(http.MethodGet, target, "")); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if q := d.listed; q.Status != StatusCaptured || q.Reference != "order-1001" || !q.From.Equal(day) || q.To.IsZero() || q.Cursor != "abc_-.=" || q.Limit != 100 {
		t.Errorf("asked for %+v", q)
	}
	d.send(t, request(http.MethodGet, "/v1/payments", ""))
	if (d.listed != ListPayments{Limit: DefaultPage}) {
		t.Errorf("asked for %+v", d.listed)
	}
	if w := d.send(t, request(http.MethodGet, "/v1/payments?status=expired", "")); !strings.Contains(w.Body.String(), `"payments":[]`) {
		t.Errorf("no payments: %s", w.Body)
	}
	for query, want := range map[string]*Problem{
		"page=2": ErrUnknownField, "Status=captured": ErrUnknownField, testPAN: ErrUnknownField,
		"limit=1&limit=2": ErrInvalid, "limit=0": ErrInvalid, "limit=101": ErrInvalid, "limit=": ErrInvalid, "limit=1.5": ErrInvalid, "limit=-1": ErrInvalid, "limit=%2B1": ErrInvalid,
		"status=paid": ErrInvalid, "status=": ErrInvalid, "from=yesterday": ErrInvalid, "to=9999-12-31T23:59:59-23:59": ErrInvalid, "from=0000-01-01T00:00:00%2B23:59": ErrInvalid, "to=2030-01-01": ErrInvalid,
		"cursor=": ErrInvalid, "cursor=a%20b": ErrInvalid, "reference=": ErrInvalid, "reference=4111+1111+1111+1111": ErrCardNumber,
		"a=%zz": ErrMalformed, "limit=1;status=captured": ErrMalformed,
	} {
		w := d.send(t, request(http.MethodGet, "/v1/payments?"+query, ""))
		wantProblem(t, w, want, "")
		if pci.LooksLikePAN(w.Body.String()) {
			t.Errorf("%s: a card number was repeated", query)
		}
	}
}

func TestGetPaymentAndReceipt(t *testing.T) {
	for _, path := range []string{"/v1/payments/pay_01", "/v1/payments/pay_01/receipt"} {
		d := newDesk(Limits{})
		w := d.send(t, request(http.MethodGet, path, ""))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"pay_01"`) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if w := d.send(t, request(http.MethodHead, path, "")); w.Code != http.StatusOK {
			t.Errorf("HEAD %s: %d", path, w.Code)
		}
		d.err = fmt.Errorf("get: %w", ErrNotFound)
		wantProblem(t, d.send(t, request(http.MethodGet, path, "")), ErrNotFound, "")
		d.err = pci.ErrUnavailable
		w = d.send(t, request(http.MethodGet, path, ""))
		wantProblem(t, w, ErrUnavailable, "")
		if w.Header().Get("Retry-After") != "5" {
			t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
		}
	}
	for _, id := range []string{"pay%20x", strings.Repeat("a", 129), "pay%00"} {
		wantProblem(t, newDesk(Limits{}).send(t, request(http.MethodGet, "/v1/payments/"+id, "")), ErrNotFound, "")
	}
}

func TestFaultsAreLoggedAndNotTold(t *testing.T) {
	d := newDesk(Limits{})
	d.err = errors.New("disk on fire")
	w := d.send(t, request(http.MethodPost, "/v1/payments", goodCreate))
	wantProblem(t, w, ErrInternal, "")
	if strings.Contains(w.Body.String(), "fire") || !strings.Contains(d.log.String(), "disk on fire") || !strings.Contains(d.log.String(), w.Header().Get("Request-Id")) {
		t.Errorf("told %s, logged %s", w.Body, d.log)
	}
	d.err = ErrIdempotency
	wantProblem(t, d.send(t, request(http.MethodPost, "/v1/payments", goodCreate)), ErrIdempotency, "")
}

func TestCheckpointIsPublicText(t *testing.T) {
	d := newDesk(Limits{})
	w := d.send(t, httptest.NewRequest(http.MethodGet, "/ledger/checkpoint", nil))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" || w.Header().Get("Cache-Control") != "public, max-age=1" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if !strings.HasPrefix(w.Body.String(), "finpay.example/log\n") {
		t.Errorf("checkpoint %q", w.Body)
	}
	d.err = pci.ErrUnavailable
	wantProblem(t, d.send(t, httptest.NewRequest(http.MethodGet, "/ledger/checkpoint", nil)), ErrUnavailable, "")
}

func TestContractIsServed(t *testing.T) {
	w := newDesk(Limits{}).send(t, httptest.NewRequest(http.MethodGet, "/openapi.yaml", nil))
	if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), openAPI) || w.Header().Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// problems are those of problem.go.
var problems = []*Problem{ErrMalformed, ErrInvalid, ErrUnknownField, ErrTooLarge, ErrMediaType, ErrUnauthorized, ErrForbidden, ErrNotFound, ErrMethod,
	ErrNoSession, ErrIdempotency, ErrNotPossible, ErrAmount, ErrCardNumber, ErrCard, ErrIntakeKey, ErrReplayed, ErrOpenCard, ErrNoDomain, ErrNoRecipient, ErrNoEndpoint, ErrQuota, ErrInactive, ErrTokenReplaced, ErrTokenBound, ErrRateLimit, ErrUnavailable, ErrInternal}

func TestContractListsEveryProblem(t *testing.T) {
	doc, _ := contract()
	var listed, known []string
	for _, code := range doc.Components.Schemas["ProblemCode"].Value.Enum {
		listed = append(listed, code.(string))
	}
	for _, p := range problems {
		known = append(known, p.Code)
		if p.Title == "" || p.Detail == "" || p.Status < 400 {
			t.Errorf("%+v is not complete", p)
		}
	}
	for _, code := range declaredCodes(t) {
		if !slices.Contains(known, code) {
			t.Errorf("problem.go has %q, which this test does not know", code)
		}
	}
	slices.Sort(listed)
	slices.Sort(known)
	if !slices.Equal(listed, known) {
		t.Errorf("openapi.yaml lists %v, problem.go has %v", listed, known)
	}
}

func TestContractListsEveryField(t *testing.T) {
	doc, _ := contract()
	for name, v := range map[string]any{"CreatePayment": CreatePayment{}, "Customer": Customer{}, "Address": Address{}, "Authentication": Authentication{}, "Agreement": Agreement{}, "Payment": Payment{}, "Card": Card{}, "Result": Result{}, "ModifyPayment": ModifyPayment{}, "Modification": Modification{}, "RefundList": RefundList{},
		"PaymentList": PaymentList{}, "Receipt": Receipt{}, "ReceiptEntry": ReceiptEntry{}, "Problem": nil} {
		if v == nil {
			continue
		}
		var fields []string
		for f := range reflect.TypeOf(v).Fields() {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields = append(fields, tag)
		}
		listed := slices.Collect(maps.Keys(doc.Components.Schemas[name].Value.Properties))
		slices.Sort(fields)
		slices.Sort(listed)
		if !slices.Equal(fields, listed) {
			t.Errorf("%s: openapi.yaml has %v, the type %v", name, listed, fields)
		}
	}
	var listed []string
	for _, s := range doc.Components.Schemas["Status"].Value.Enum {
		listed = append(listed, s.(string))
	}
	for s := range statuses {
		if !slices.Contains(listed, string(s)) {
			t.Errorf("openapi.yaml lacks status %s", s)
		}
	}
	if len(listed) != len(statuses) {
		t.Errorf("openapi.yaml has statuses %v", listed)
	}
}

// FuzzCreatePayment holds what any body may do: a payment that keeps every limit, or a problem that repeats no card
// number.
func FuzzCreatePayment(f *testing.F) {
	f.Add([]byte(goodCreate))
	f.Add([]byte(create(map[string]any{"capture": "manual", "customer": map[string]any{"phone": "+60 123456789", "email": "a@b.example"}})))
	f.Add([]byte(create(map[string]any{"authentication": map[string]any{"challenge": "no_preference", "exemption": "low_value"}, "setup": "unscheduled"})))
	f.Add([]byte(create(map[string]any{"setup": "instalments", "recurring": map[string]any{"expiry": "2031-12-31", "frequency_days": 28, "instalments": 2}})))
	f.Add([]byte(`{"amount":1e3,"reference":"` + testPAN + `"}`))
	f.Add([]byte(`{"\u0034111111111111111":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d := newDesk(Limits{})
		r := request(http.MethodPost, "/v1/payments", "x")
		r.Body = io.NopCloser(bytes.NewReader(body))
		w := d.send(t, r)
		switch w.Code {
		case http.StatusCreated:
			again, err := d.created[0].normalize()
			if err != nil || !reflect.DeepEqual(again, d.created[0]) {
				t.Errorf("%+v was created: %v", d.created[0], err)
			}
		case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
			if len(d.created) > 0 || pci.LooksLikePAN(w.Body.String()) {
				t.Errorf("answer %d %s", w.Code, w.Body)
			}
		default:
			t.Errorf("answer %d %s", w.Code, w.Body)
		}
	})
}
