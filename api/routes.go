package api

import (
	"context"
	_ "embed"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/finterra/finpay/api/checkout"
)

// Config is what the handlers call and how much they take. Keys, Payments, Events, Tokens, Intake, Checkout, Cards, Log, Audit
// and Auditors are required.
type Config struct {
	Keys     Keys
	Payments Payments
	Events   Events
	Tokens   Tokens
	Intake   IntakeKeys
	Checkout Checkout
	Cards    Cards
	Log      Log
	Audit    Audit
	Auditors Auditors
	Limits   Limits // zero fields take their defaults
	// Wipe wipes what is left of a body in the buffers that it came through: body is all that was read of it, nil where nobody
	// has read it. ctx is the request's. nil wipes nothing.
	Wipe   func(ctx context.Context, body []byte)
	Breach func(directive string) // is told what browsers refused by a page's policy; nil for nobody
	Logger *slog.Logger           // nil means [slog.Default]
	Now    func() time.Time       // for the limits and pages; nil means [time.Now]
}

// openAPI is the contract in OpenAPI 3.1.
//
//go:embed openapi.yaml
var openAPI []byte

// server serves the routes of one appliance.
type server struct {
	cfg          Config
	perKey       *buckets
	perTokenKey  *buckets
	perAddress   *buckets
	failedLogins *buckets
	perReporter  *buckets
}

// New returns the handler of every public route. Health and metrics are not among them: they belong to a listener
// of their own.
func New(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wipe == nil {
		cfg.Wipe = func(context.Context, []byte) {}
	}
	cfg.Limits = cfg.Limits.withDefaults()
	s := &server{
		cfg:          cfg,
		perKey:       newBuckets("key", cfg.Limits.PerKey, cfg.Limits.Buckets, cfg.Now),
		perTokenKey:  newBuckets("tokens", cfg.Limits.PerTokenKey, cfg.Limits.Buckets, cfg.Now),
		perAddress:   newBuckets("address", cfg.Limits.PerAddress, cfg.Limits.Buckets, cfg.Now),
		failedLogins: newBuckets("failures", cfg.Limits.FailedLogins, cfg.Limits.Buckets, cfg.Now),
		perReporter:  newBuckets("reports", reportRate, cfg.Limits.Buckets, cfg.Now),
	}
	// Outermost first: everything below has a request id, and the log sees the status of a recovered panic.
	return s.identify(s.logAccess(s.recoverPanics(secure(s.router()))))
}

// router is the table of routes; openapi.yaml has the same.
func (s *server) router() http.Handler {
	r := mux.NewRouter().SkipClean(true) // a redirect to a cleaned path would repeat what a caller put into it
	s.route(r, "/v1/payments", methods{
		http.MethodGet:  s.authenticated(ScopePayments, s.listPayments),
		http.MethodPost: s.authenticated(ScopePayments, s.createPayment),
	})
	s.route(r, "/v1/payments/{id}", methods{http.MethodGet: s.authenticated(ScopePayments, s.getPayment)})
	s.route(r, "/v1/payments/{id}/capture", methods{http.MethodPost: s.authenticated(ScopePayments, s.capturePayment)})
	s.route(r, "/v1/payments/{id}/void", methods{http.MethodPost: s.authenticated(ScopePayments, s.voidPayment)})
	s.route(r, "/v1/payments/{id}/refunds", methods{
		http.MethodGet:  s.authenticated(ScopePayments, s.listRefunds),
		http.MethodPost: s.authenticated(ScopePayments, s.refundPayment),
	})
	s.route(r, "/v1/payments/{id}/customer", methods{http.MethodDelete: s.authenticated(ScopePayments, s.forgetCustomer)})
	s.route(r, "/v1/payments/{id}/receipt", methods{http.MethodGet: s.authenticated(ScopePayments, s.getReceipt)})
	s.routeEvents(r)
	s.route(r, "/v1/tokens", methods{
		http.MethodGet:  s.authenticated(ScopeTokens, s.listTokens),
		http.MethodPost: s.authenticated(ScopeTokens, s.issueToken),
	})
	s.route(r, "/v1/tokens/batch", methods{http.MethodPost: s.authenticated(ScopeTokens, s.issueTokens)})
	s.route(r, "/v1/tokens/changes", methods{http.MethodGet: s.authenticated(ScopeTokens, s.listTokenChanges)})
	s.route(r, "/v1/tokens/changes/acknowledge", methods{http.MethodPost: s.authenticated(ScopeTokens, s.acknowledgeTokenChanges)})
	s.route(r, "/v1/tokens/{token}", methods{
		http.MethodGet:    s.authenticated(ScopeTokens, s.getToken),
		http.MethodDelete: s.authenticated(ScopeTokens, s.deactivateToken),
	})
	s.route(r, "/v1/tokens/{token}/detokenize", methods{http.MethodPost: s.authenticated(ScopeDetokenize, s.detokenize)})
	s.route(r, "/v1/intake/key", methods{http.MethodGet: s.limited(s.getIntakeKey)})
	s.route(r, "/v1/domains", methods{http.MethodGet: s.authenticated(ScopeTokens, s.listDomains)})
	s.route(r, "/v1/audit/entries", methods{http.MethodGet: s.authenticated(ScopeAudit, s.listAuditEntries)})
	s.route(r, "/v1/audit/entries/{index}", methods{http.MethodGet: s.authenticated(ScopeAudit, s.getAuditEntry)})
	s.route(r, "/v1/audit/export", methods{http.MethodGet: s.authenticated(ScopeAudit, s.exportAuditEntries)})
	s.routeAuditors(r)
	s.route(r, "/ledger/checkpoint", methods{http.MethodGet: s.limited(s.getCheckpoint)})
	s.route(r, "/ledger/checkpoint/cosigned", methods{http.MethodGet: s.limited(s.getCosigned)})
	s.route(r, "/ledger/key", methods{http.MethodGet: s.limited(s.getVerifierKey)})
	s.route(r, "/ledger/tile/{tile:.+}", methods{http.MethodGet: s.authenticated(ScopeAudit, s.getTile)})
	s.route(r, "/ledger/consistency", methods{http.MethodGet: s.limited(s.getConsistency)})
	s.route(r, "/ledger/verify", methods{http.MethodGet: s.limited(getVerifier)})
	s.route(r, "/checkout/{session}", methods{
		http.MethodGet:  s.limited(s.showCheckout),
		http.MethodPost: s.limited(s.payCheckout),
	})
	s.route(r, "/checkout/{session}/stored", methods{http.MethodPost: s.limited(s.payStored)})
	s.route(r, "/checkout/{session}/3ds", methods{http.MethodPost: s.limited(s.returnFromChallenge)})
	s.route(r, "/checkout/{session}/method", methods{http.MethodPost: s.limited(s.returnFromMethod)})
	s.route(r, checkout.ReportPath, methods{http.MethodPost: s.takeReports})
	s.route(r, "/openapi.yaml", methods{http.MethodGet: s.limited(getOpenAPI)})
	s.route(r, "/assets/{file}", methods{http.MethodGet: getAsset})
	r.NotFoundHandler = s.answer(func(http.ResponseWriter, *http.Request) error { return ErrNotFound })
	return r
}

// handler answers a request, or returns why not; then it has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// methods are the handlers of one route.
type methods map[string]handler

// route registers a route for its methods; HEAD goes with GET. The template, not the path, is what the log shows:
// a path carries the secret of a checkout session.
func (s *server) route(r *mux.Router, template string, m methods) {
	if get, ok := m[http.MethodGet]; ok {
		m[http.MethodHead] = get
	}
	allow := make([]string, 0, len(m))
	for method := range m {
		allow = append(allow, method)
	}
	slices.Sort(allow)
	r.Handle(template, s.answer(func(w http.ResponseWriter, r *http.Request) error {
		exchangeOf(r).route = template
		h, ok := m[r.Method]
		if !ok {
			w.Header().Set("Allow", strings.Join(allow, ", "))
			return ErrMethod
		}
		body := &seenBody{ReadCloser: r.Body}
		r.Body = body
		err := h(w, r)
		if err != nil && !body.ended {
			s.leaveUnread(w, r)
		}
		return err
	}))
}

// answer turns a handler's error into a problem document, or into a page where a person would see it.
func (s *server) answer(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.refuse(w, r, err)
		}
	})
}

// refuse answers with what an error stands for. An unknown error is for the log only.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := ProblemOf(err)
	switch {
	case p.Code == ErrInternal.Code && r.Context().Err() != nil:
		p = ErrUnavailable // nobody is there to read it, and it is no fault of the appliance
	case p.Code == ErrInternal.Code:
		s.cfg.Logger.ErrorContext(r.Context(), "request failed", "request_id", exchangeOf(r).id, "error", err)
	}
	s.answerProblem(w, r, p)
}

// answerProblem writes a page for a person and a problem document for a program.
func (s *server) answerProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	switch {
	case isShopper(r):
		s.refuseShopper(w, r, p)
		return
	case isAuditor(r):
		s.refuseAuditor(w, r, p)
		return
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="finpay"`) // RFC 6750 section 3
	}
	WriteProblem(w, p)
}

// isShopper reports whether a person reads the answer.
func isShopper(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/checkout/") }
