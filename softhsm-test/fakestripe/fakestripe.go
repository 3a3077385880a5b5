// Package fakestripe stands for Stripe in tests: payment methods, payment intents and refunds with their state, idempotency keys, lists,
// and faults at any request. It knows Stripe's published test cards (https://docs.stripe.com/testing).
//
// With [Server.Validator] each request goes to a stripe-mock first, which holds it against Stripe's OpenAPI document, and what
// that refuses is refused here too. stripe-mock itself has no state: its answers are fixtures.
package fakestripe

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault is what happens to a request.
type Fault int

// The faults.
const (
	None     Fault = iota
	Lost           // it is not done, and the connection ends
	Unheard        // it is done, and the connection ends without an answer
	Failed         // it is not done, and answered with 500
	FailedUp       // it is done, and answered with 500, which is kept under its key
	Busy           // it is not done, and answered with 429
	InUse          // it is not done, and answered with 409
	Moved          // it is not done, and answered with a redirect
	Garbled        // it is done, and the answer is no JSON
)

// Request is what came. A card's number and security code are not in Form.
type Request struct {
	Method, Path, Key, Version, Authorization string
	Form                                      url.Values // the query of a GET
	Number                                    string     // truncated to its last four digits
	HasCVC                                    bool
}

// Is reports whether it is a POST to a path that ends so.
func (r Request) Is(suffix string) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.Path, suffix)
}

// Intent is a payment intent.
type Intent struct {
	ID, Status, Currency, Capture, Method string
	Amount, Received                      int64
	Created                               int64
	Metadata                              map[string]string
	Form                                  url.Values // by which it was made
}

// Refund is one of a payment intent.
type Refund struct {
	ID, Intent, Status, Currency string
	Amount                       int64
	Metadata                     map[string]string
}

type stored struct {
	request string
	status  int
	body    []byte
}

// Server is a Stripe with TLS. It is safe for concurrent use.
type Server struct {
	*httptest.Server

	// Validator is the URL of a stripe-mock, empty for none. It is set before the first request.
	Validator string

	mu       sync.Mutex
	n        int
	cards    map[string]string // numbers by payment method
	intents  []*Intent
	refunds  []*Refund
	keys     map[string]stored
	requests []Request
	fault    func(Request) Fault
	refund   string // status of the next refunds
	change   func(path string, answer map[string]any)
	ahead    time.Duration // of its clock
	invalid  []string
}

// New returns a server. The caller closes it.
func New() *Server {
	s := &Server{cards: make(map[string]string), keys: make(map[string]stored), refund: "succeeded"}
	s.Server = httptest.NewTLSServer(s)
	return s
}

// SetFault says what happens to requests from now on; nil: nothing.
func (s *Server) SetFault(of func(Request) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = of
}

// SetRefund is the status of refunds from now on.
func (s *Server) SetRefund(status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refund = status
}

// SetChange changes answers before they leave.
func (s *Server) SetChange(change func(path string, answer map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change = change
}

// SetClock moves its clock.
func (s *Server) SetClock(ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = ahead
}

// ForgetKeys is a day that has passed.
func (s *Server) ForgetKeys() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.keys)
}

// Intents returns copies of all payment intents, oldest first.
func (s *Server) Intents() (list []Intent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.intents {
		list = append(list, *i)
	}
	return list
}

// Refunds returns copies of all refunds, oldest first.
func (s *Server) Refunds() (list []Refund) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.refunds {
		list = append(list, *r)
	}
	return list
}

// Requests returns what came.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Invalid returns what the validator has said of requests that it refused.
func (s *Server) Invalid() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.invalid)
}

// Moved is the money that moved and was not given back, in minor units of whatever currency.
func (s *Server) Moved() (sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.intents {
		sum += i.Received
	}
	for _, r := range s.refunds {
		if r.Status == "succeeded" || r.Status == "pending" {
			sum -= r.Amount
		}
	}
	return sum
}

// Held is what is authorized and waits for its capture.
func (s *Server) Held() (sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.intents {
		if i.Status == "requires_capture" {
			sum += i.Amount
		}
	}
	return sum
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	text := string(body)
	if r.Method == http.MethodGet {
		text = r.URL.RawQuery
	}
	form, err := url.ParseQuery(text)
	if err != nil {
		http.Error(w, "unreadable", http.StatusBadRequest)
		return
	}
	if status, answer, ok := s.validate(r, body); !ok {
		w.WriteHeader(status)
		_, _ = w.Write(answer)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	number, cvc := form.Get("card[number]"), form.Has("card[cvc]")
	form.Del("card[number]")
	form.Del("card[cvc]")
	request := Request{Method: r.Method, Path: r.URL.Path, Key: r.Header.Get("Idempotency-Key"), Version: r.Header.Get("Stripe-Version"),
		Authorization: r.Header.Get("Authorization"), Form: form, Number: number[max(len(number)-4, 0):], HasCVC: cvc}
	s.requests = append(s.requests, request)
	fault := None
	if s.fault != nil {
		fault = s.fault(request)
	}
	s.answer(w, request, number, text, fault)
}

// validate asks the validator, if there is one.
func (s *Server) validate(r *http.Request, body []byte) (status int, answer []byte, ok bool) {
	if s.Validator == "" {
		return 0, nil, true
	}
	request, err := http.NewRequestWithContext(r.Context(), r.Method, s.Validator+r.URL.RequestURI(), strings.NewReader(string(body)))
	if err != nil {
		return http.StatusInternalServerError, nil, false
	}
	request.Header = r.Header.Clone()
	request.Header.Set("Authorization", "Bearer sk_test_123") // it takes no live key
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return http.StatusInternalServerError, nil, false
	}
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(response.Body)
	if err != nil {
		return http.StatusInternalServerError, nil, false
	}
	if response.StatusCode != http.StatusOK {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.invalid = append(s.invalid, fmt.Sprintf("%s %s: %d %s", r.Method, r.URL.Path, response.StatusCode, answer))
		return response.StatusCode, answer, false
	}
	return 0, nil, true
}

// answer does a request, unless its fault is in the way. s.mu is held.
func (s *Server) answer(w http.ResponseWriter, request Request, number, text string, fault Fault) {
	switch fault {
	case Lost:
		panic(http.ErrAbortHandler)
	case Failed:
		write(w, http.StatusInternalServerError, problem("api_error", "", "", nil))
		return
	case Busy:
		write(w, http.StatusTooManyRequests, problem(invalid, "rate_limit", "", nil))
		return
	case InUse:
		write(w, http.StatusConflict, problem("idempotency_error", "idempotency_key_in_use", "", nil))
		return
	case Moved:
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	status, body := s.idempotent(request, number, text, fault)
	switch fault {
	case Unheard:
		panic(http.ErrAbortHandler)
	case Garbled:
		body = []byte("<html>" + strings.Repeat(number, 2))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// idempotent does a request, or repeats the answer that is kept under its key.
func (s *Server) idempotent(request Request, number, text string, fault Fault) (int, []byte) {
	identity := request.Method + " " + request.Path + " " + text
	if kept, ok := s.keys[request.Key]; ok && request.Key != "" {
		if kept.request != identity {
			return http.StatusBadRequest, encode(problem("idempotency_error", "", "", nil))
		}
		return kept.status, kept.body
	}
	status, answer := s.do(request, number)
	if fault == FailedUp {
		status, answer = http.StatusInternalServerError, problem("api_error", "", "", nil)
	}
	if s.change != nil {
		s.change(request.Path, answer)
	}
	body := encode(answer)
	valid := status != http.StatusBadRequest && status != http.StatusNotFound && status != http.StatusUnauthorized
	if request.Key != "" && valid { // what did not pass validation is not kept
		s.keys[request.Key] = stored{identity, status, body}
	}
	return status, body
}

func (s *Server) id(prefix string) string {
	s.n++
	return fmt.Sprintf("%s_3Fake%012dXyz", prefix, s.n)
}

func (s *Server) now() int64 { return time.Now().Add(s.ahead).Unix() }

func (s *Server) intent(id string) *Intent {
	for _, i := range s.intents {
		if i.ID == id {
			return i
		}
	}
	return nil
}

func metadata(form url.Values) map[string]string {
	m := make(map[string]string)
	for name := range form {
		if key, ok := strings.CutPrefix(name, "metadata["); ok {
			m[strings.TrimSuffix(key, "]")] = form.Get(name)
		}
	}
	return m
}

func integer(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}
