package api

import (
	"net/http"
	"strings"
	"testing"
)

func TestWhatIsDoneWithAPaymentReachesIt(t *testing.T) {
	d := newDesk(Limits{})
	for _, c := range []struct{ route, body, want string }{
		{"capture", "", "capture pay_01 0"},
		{"capture", "{}", "capture pay_01 0"},
		{"capture", `{"amount":1000}`, "capture pay_01 1000"},
		{"refunds", "", "refund pay_01 0"},
		{"refunds", `{"amount":250}`, "refund pay_01 250"},
		{"void", "", "void pay_01"},
		{"void", "{}", "void pay_01"},
	} {
		r := request(http.MethodPost, "/v1/payments/pay_01/"+c.route, c.body)
		r.Header.Set("Idempotency-Key", "k")
		w := d.send(t, r)
		status := http.StatusOK
		if c.route == "refunds" {
			status = http.StatusCreated
		}
		if w.Code != status || d.modified[len(d.modified)-1] != c.want || d.keys[len(d.keys)-1] != "k" {
			t.Errorf("%s %s: %d %s, did %q", c.route, c.body, w.Code, w.Body, d.modified)
		}
	}
}

func TestWhatCannotBeDoneWithAPaymentIsRefused(t *testing.T) {
	for _, c := range []struct {
		target, body string
		want         *Problem
		pointer      string
	}{
		{"pay_01/capture", `{"amount":-1}`, ErrInvalid, "/amount"},
		{"pay_01/capture", `{"amount":1000000000000}`, ErrInvalid, "/amount"},
		{"pay_01/capture", `{"amount":1.5}`, ErrInvalid, "/amount"},
		{"pay_01/capture", `{"amount":null}`, ErrInvalid, "/amount"},
		{"pay_01/capture", `{"ammount":1}`, ErrUnknownField, "/ammount"},
		{"pay_01/capture", `[`, ErrMalformed, ""},
		{"pay_01/capture", `{"amount":` + testPAN + `}`, ErrInvalid, "/amount"},
		{"pay_01/capture?amount=1", "", ErrUnknownField, ""},
		{testPAN + "/capture", "", ErrNotFound, ""},
		{"pay_01/void", `{"amount":1}`, ErrUnknownField, "/amount"},
		{testPAN + "/void", "", ErrNotFound, ""},
		{"pay_01/refunds", `{"amount":-1}`, ErrInvalid, "/amount"},
		{"pay_01/refunds", `{"why":"x"}`, ErrUnknownField, "/why"},
		{testPAN + "/refunds", "", ErrNotFound, ""},
	} {
		d := newDesk(Limits{})
		w := d.send(t, request(http.MethodPost, "/v1/payments/"+c.target, c.body))
		wantProblem(t, w, c.want, c.pointer)
		if len(d.modified) > 0 || strings.Contains(w.Body.String()+d.log.String(), testPAN) {
			t.Errorf("%s %s: did %v, said %s", c.target, c.body, d.modified, w.Body)
		}
	}
	for _, want := range []*Problem{ErrNotPossible, ErrAmount.At("/amount"), ErrIdempotency, ErrUnavailable} {
		for _, route := range []string{"capture", "void", "refunds"} {
			d := newDesk(Limits{})
			d.err = want
			wantProblem(t, d.send(t, request(http.MethodPost, "/v1/payments/pay_01/"+route, "")), want, want.Pointer)
		}
	}
	r := request(http.MethodPost, "/v1/payments/pay_01/capture", "")
	r.Header["Idempotency-Key"] = []string{"a", "b"}
	wantProblem(t, newDesk(Limits{}).send(t, r), ErrInvalid, "")
	r = request(http.MethodPost, "/v1/payments/pay_01/void", "{}")
	r.Header.Set("Authorization", "Bearer "+tokensKey)
	wantProblem(t, newDesk(Limits{}).send(t, r), ErrForbidden, "")
}

func TestRefundsAreListed(t *testing.T) {
	d := newDesk(Limits{})
	if w := d.send(t, request(http.MethodGet, "/v1/payments/pay_01/refunds", "")); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"refunds":[{"id":"re_01"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	wantProblem(t, d.send(t, request(http.MethodGet, "/v1/payments/"+testPAN+"/refunds", "")), ErrNotFound, "")
	d.err = ErrNotFound
	wantProblem(t, d.send(t, request(http.MethodGet, "/v1/payments/pay_01/refunds", "")), ErrNotFound, "")
}

func TestACustomerIsForgotten(t *testing.T) {
	d := newDesk(Limits{})
	if w := d.send(t, request(http.MethodDelete, "/v1/payments/pay_01/customer", "")); w.Code != http.StatusNoContent || w.Body.Len() != 0 || d.modified[0] != "forget pay_01" {
		t.Errorf("%d %s, did %v", w.Code, w.Body, d.modified)
	}
	d = newDesk(Limits{})
	wantProblem(t, d.send(t, request(http.MethodDelete, "/v1/payments/"+testPAN+"/customer", "")), ErrNotFound, "")
	d.err = ErrNotFound
	wantProblem(t, d.send(t, request(http.MethodDelete, "/v1/payments/pay_02/customer", "")), ErrNotFound, "")
	if strings.Contains(d.log.String(), testPAN) {
		t.Errorf("%s", d.log.String())
	}
}
