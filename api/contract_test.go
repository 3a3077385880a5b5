package api

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/finterra/finpay/pci"
)

const (
	goodKey    = "fpk_live_payments"
	tokensKey  = "fpk_live_tokens" // lacks the scope payments
	openingKey = "fpk_live_opens"  // may detokenize
	goodCreate = `{"amount":1250,"currency":"EUR","reference":"order-1001","return_url":"https://shop.example/return"}`
	testPAN    = "4111111111111111"
)

var day = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// appliance is what stands behind the handlers in tests.
type appliance struct {
	mu       sync.Mutex
	created  []CreatePayment
	keys     []string // idempotency keys
	modified []string // what was done with payments
	listed   ListPayments
	origin   string
	err      error // of every call of Payments and Log
	view     CheckoutView
	viewErr  error
	after    CheckoutView
	payErr   error
	awaitErr error
	takeErr  error
	paid     []pci.Browser
	forms    []string
	took     int
	binding  string

	methodData string
	aad        string
	entered    pci.Entered
	sealedOnly bool
	breaches   []string
	onTake     func() // what happens while a card is taken
}

func (a *appliance) Caller(_ context.Context, key, origin string) (Caller, error) {
	a.origin = origin
	switch key {
	case goodKey:
		return Caller{KeyID: "key_1", MerchantID: "mer_1", Scopes: []Scope{ScopePayments}}, nil
	case tokensKey:
		return Caller{KeyID: "key_2", MerchantID: "mer_1", Scopes: []Scope{ScopeTokens}}, nil
	case adminKey:
		return Caller{KeyID: "key_5", MerchantID: "mer_1", Scopes: []Scope{ScopeAdmin}}, nil
	case auditKey:
		return Caller{KeyID: "key_4", MerchantID: "mer_1", Scopes: []Scope{ScopeAudit}}, nil
	case openingKey:
		return Caller{KeyID: "key_3", MerchantID: "mer_1", Scopes: []Scope{ScopeDetokenize}}, nil
	}
	return Caller{}, ErrUnauthorized
}

func (a *appliance) Create(_ context.Context, _ Caller, c CreatePayment, key string) (Payment, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.created, a.keys = append(a.created, c), append(a.keys, key)
	return Payment{ID: "pay_01", Status: StatusCreated, Amount: c.Amount, Currency: c.Currency, Reference: c.Reference, ReturnURL: c.ReturnURL,
		Capture: c.Capture, CheckoutURL: "https://pay.example/checkout/abc", CreatedAt: day, ExpiresAt: day.Add(time.Hour), UpdatedAt: day}, a.err
}

func (a *appliance) Get(_ context.Context, _ Caller, id string) (Payment, error) {
	return Payment{ID: id, Status: StatusCaptured, Amount: 1, Currency: "EUR", Reference: "r", ReturnURL: "https://shop.example", Capture: "automatic", Captured: 1,
		Card: &Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: "2031-12"}, Token: "9999990000001111", Attempts: 1,
		Result: &Result{ResponseCode: "00", ApprovalCode: "A1B2C3", ThreeDS: "Y", ECI: "05"}, CreatedAt: day, ExpiresAt: day, UpdatedAt: day}, a.err
}

func (a *appliance) Capture(ctx context.Context, c Caller, id string, m ModifyPayment, key string) (Payment, error) {
	a.mu.Lock()
	a.modified, a.keys = append(a.modified, "capture "+id+" "+strconv.FormatInt(m.Amount, 10)), append(a.keys, key)
	a.mu.Unlock()
	p, err := a.Get(ctx, c, id)
	p.Captures = []Modification{{ID: "cap_01", Payment: id, Status: ModificationSucceeded, Amount: 1, Currency: "EUR", CreatedAt: day, UpdatedAt: day}}
	return p, err
}

func (a *appliance) Void(ctx context.Context, c Caller, id, key string) (Payment, error) {
	a.mu.Lock()
	a.modified, a.keys = append(a.modified, "void "+id), append(a.keys, key)
	a.mu.Unlock()
	p, err := a.Get(ctx, c, id)
	p.Status, p.Captured = StatusVoided, 0
	p.Void = &Modification{ID: "void_01", Payment: id, Status: ModificationSucceeded, Amount: 1, Currency: "EUR", CreatedAt: day, UpdatedAt: day}
	return p, err
}

func (a *appliance) Refund(_ context.Context, _ Caller, id string, m ModifyPayment, key string) (Modification, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.modified, a.keys = append(a.modified, "refund "+id+" "+strconv.FormatInt(m.Amount, 10)), append(a.keys, key)
	return Modification{ID: "re_01", Payment: id, Status: ModificationFailed, Amount: 1, Currency: "EUR", Reason: ModificationRefused, ResponseCode: "05", CreatedAt: day, UpdatedAt: day}, a.err
}

func (a *appliance) Refunds(ctx context.Context, c Caller, id string) (RefundList, error) {
	m, err := a.Refund(ctx, c, id, ModifyPayment{}, "")
	return RefundList{Refunds: []Modification{m}}, err
}

func (a *appliance) ForgetCustomer(_ context.Context, _ Caller, id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.modified = append(a.modified, "forget "+id)
	return a.err
}

func (a *appliance) List(ctx context.Context, c Caller, q ListPayments) (PaymentList, error) {
	a.listed = q
	p, err := a.Get(ctx, c, "pay_01")
	if q.Status == StatusExpired {
		return PaymentList{}, err
	}
	return PaymentList{Payments: []Payment{p}, NextCursor: "n"}, err
}

func (a *appliance) Receipt(_ context.Context, _ Caller, id string) (Receipt, error) {
	return Receipt{Payment: id, Origin: "o", VerifierKey: "k", Entries: []ReceiptEntry{{Index: 1, Entry: "{}", Proof: "p"}}}, a.err
}

func (a *appliance) Checkpoint(context.Context) ([]byte, error) {
	return []byte("finpay.example/log\n1\nAA=\n\n— s\n"), a.err
}

func (a *appliance) Cosigned(context.Context) ([]byte, error) {
	return []byte("finpay.example/log\n1\nAA=\n\n— s\n— witness\n"), a.err
}

func (a *appliance) View(_ context.Context, session string) (CheckoutView, error) {
	if session != "s3cret" {
		return CheckoutView{}, ErrNoSession
	}
	return a.view, a.viewErr
}

func (a *appliance) Pay(ctx context.Context, _ string, _ pci.CardRef, _ pci.Entered, b pci.Browser) (CheckoutView, error) {
	if _, ok := ctx.Deadline(); !ok {
		return CheckoutView{}, io.ErrUnexpectedEOF
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paid = append(a.paid, b)
	return a.after, a.payErr
}

func (a *appliance) PayStored(_ context.Context, _, form string, b pci.Browser) (CheckoutView, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forms, a.paid = append(a.forms, form), append(a.paid, b)
	return a.after, a.payErr
}

func (a *appliance) Await(context.Context, string) (CheckoutView, error) { return a.after, a.awaitErr }

func (a *appliance) MethodOver(_ context.Context, _, data string) error {
	a.methodData = data
	return nil
}

func (a *appliance) TakesOpen() bool { return !a.sealedOnly }

func (a *appliance) Take(r *http.Request, payment string, aad []byte) (pci.CardRef, pci.Entered, error) {
	a.took, a.binding, a.aad = a.took+1, payment, string(aad)
	_, _ = io.Copy(io.Discard, r.Body)
	if a.onTake != nil {
		a.onTake()
	}
	return pci.NewCardRef(), a.entered, a.takeErr
}

// desk serves the handlers over an appliance, and holds every answer to openapi.yaml.
type desk struct {
	*appliance
	outbox   *outbox
	registry *registry
	auditing *auditing
	handler  http.Handler
	log      *bytes.Buffer
	now      time.Time
}

func newDesk(limits Limits) *desk {
	d := &desk{appliance: &appliance{}, outbox: &outbox{}, registry: &registry{}, auditing: &auditing{}, log: &bytes.Buffer{}, now: day}
	d.view = CheckoutView{PaymentID: "pay_01", State: CheckoutPayable, Amount: pci.Amount{Minor: 1250, Currency: "EUR"},
		MerchantID: "mer_01", MerchantName: "Kedai Kopi", Reference: "order-1001", ReturnOrigin: "https://shop.example"}
	d.handler = New(Config{Keys: d, Payments: d, Events: d.outbox, Tokens: d.registry, Intake: d.registry, Checkout: d, Cards: d, Log: d, Audit: d.auditing, Auditors: d.auditing, Limits: limits,
		Logger: slog.New(slog.NewTextHandler(d.log, nil)), Breach: func(directive string) { d.breaches = append(d.breaches, directive) }, Now: func() time.Time { return d.now }})
	return d
}

var contract = sync.OnceValues(func() (*openapi3.T, routers.Router) {
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		panic(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		panic(err)
	}
	return doc, router
})

func init() {
	for _, text := range []string{"application/octet-stream", "application/yaml", "application/x-ndjson", "text/html", "text/css", "text/javascript"} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.FileBodyDecoder)
	}
	for _, object := range []string{"application/csp-report", "application/reports+json"} {
		openapi3filter.RegisterBodyDecoder(object, openapi3filter.JSONBodyDecoder)
	}
}

// send serves a request and checks the answer against openapi.yaml; what is taken must also be a request that
// the document allows.
func (d *desk) send(t testing.TB, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	_, router := contract()
	described := r.Clone(context.Background())
	if r.Method == http.MethodHead {
		described.Method = http.MethodGet // what OpenAPI says of one holds for the other
	}
	index := oneSegment(described)
	route, params, err := router.FindRoute(described)
	if index != "" && err == nil {
		params["index"] = index
	}
	if err != nil {
		if w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed {
			t.Fatalf("%s %s answers %d and is not in openapi.yaml", r.Method, r.URL.Path, w.Code)
		}
		return w
	}
	again := described.Clone(context.Background())
	again.Body = io.NopCloser(bytes.NewReader(body))
	input := &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if w.Code < 400 {
		if err := openapi3filter.ValidateRequest(context.Background(), input); err != nil {
			t.Errorf("%s %s is taken, but not in openapi.yaml: %v", r.Method, r.URL.Path, err)
		}
	}
	answer := &openapi3filter.ResponseValidationInput{RequestValidationInput: input, Status: w.Code, Header: w.Header(), Options: input.Options}
	answer.SetBodyBytes(w.Body.Bytes())
	if err := openapi3filter.ValidateResponse(context.Background(), answer); err != nil {
		t.Errorf("%s %s: the answer %d is not in openapi.yaml: %v\n%s", r.Method, r.URL.Path, w.Code, err, w.Body)
	}
	return w
}

// oneSegment makes one segment of a tile's index, which has several: OpenAPI has no parameter of several.
func oneSegment(r *http.Request) (index string) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/ledger/tile/")
	level, index, cut := strings.Cut(rest, "/")
	if !ok || !cut {
		return ""
	}
	u := *r.URL
	u.Path, u.RawPath = "/ledger/tile/"+level+"/index", ""
	r.URL = &u
	return index
}

// request makes a request of the API with a good key.
func request(method, target, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+goodKey)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func TestContractIsValidOpenAPI(t *testing.T) {
	doc, _ := contract()
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("version %s", doc.OpenAPI)
	}
}
