package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/finterra/finpay/hsm"
)

// readyTimeout bounds each question to a dependency.
const readyTimeout = 2 * time.Second

// metrics are the process's, on a registry of its own.
type metrics struct {
	registry *prometheus.Registry
	redacted prometheus.Counter
	breaches *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		redacted: prometheus.NewCounter(prometheus.CounterOpts{Name: "finpay_log_redactions_total",
			Help: "Log values that looked like a card number and were not written. Each is a defect."}),
		breaches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "finpay_csp_reports_total",
			Help: "What browsers say they refused by a page's policy, by its directive. Anybody can send such a report."}, []string{"directive"}),
	}
	m.registry.MustRegister(m.redacted, m.breaches, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch reads the parts' own counters whenever it is asked.
func (m *metrics) watch(a *appliance) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
	}
	count := func(of func(context.Context) (int, error)) func() float64 {
		return func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
			defer cancel()
			n, err := of(ctx)
			if err != nil {
				return -1
			}
			return float64(n)
		}
	}
	m.registry.MustRegister(engineCollector{a.node.engine})
	m.watchHead(a.node.head)
	m.registry.MustRegister(custodyCollector{a.cards})
	m.registry.MustRegister(connectorCollector{a})
	gauge("finpay_reversals_pending", "Sales of unknown outcome whose reversal is not acknowledged yet.", count(a.payments.Pending))
	gauge("finpay_modifications_pending", "Captures, voids and refunds that the acquirer has not answered yet.", count(a.payments.Unanswered))
	counter("finpay_tokens_issued_total", "New tokens that were issued by API.", func() float64 { return float64(a.tokens.Stats().Issued) })
	counter("finpay_token_bound_refusals_total", "Cards refused because too many begin and end alike.", func() float64 { return float64(a.tokens.Stats().Refused) })
	counter("finpay_tokens_not_issued_total", "Questions about tokens that were never issued.", func() float64 { return float64(a.tokens.Stats().NotIssued) })
	gauge("finpay_ledger_rows_wrong", "Rows that are not as the log has signed them, by the last check; -1 where it could not be made. Anything but 0 is an alarm.",
		func() float64 { return float64(a.checks.wrong.Load()) })
	gauge("finpay_ledger_checked_seconds", "When rows were last held against the log (Unix time); 0 before the first check.",
		func() float64 { return float64(a.checks.ended.Load()) })
	gauge("finpay_witness_gap", "1 while an entry says that witnesses do not cosign.", func() float64 { return number(a.witnesses != nil && a.witnesses.Gap()) })
	gauge("finpay_ledger_entries", "Entries in the signed log.", func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
		defer cancel()
		n, err := a.node.store.Read(ctx).LedgerSize()
		if err != nil {
			return -1
		}
		return float64(n)
	})
}

// watchHead shows how well an old copy of the database would be noticed.
func (m *metrics) watchHead(h *head) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "finpay_ledger_head_entries",
			Help: "Entries of the signed log under the checkpoint that is kept outside of the database."}, func() float64 { return float64(h.size.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "finpay_ledger_head_failures_total",
			Help: "Times that the newest checkpoint could not be kept outside of the database."}, func() float64 { return float64(h.failures.Load()) }))
}

// engineCollector shows [hsm.Health].
type engineCollector struct{ engine *hsm.Engine }

var (
	hsmUp        = prometheus.NewDesc("finpay_hsm_up", "1 while the HSM is logged in.", nil, nil)
	hsmSessions  = prometheus.NewDesc("finpay_hsm_sessions", "Sessions with the HSM, those included that rest.", nil, nil)
	hsmResting   = prometheus.NewDesc("finpay_hsm_sessions_resting", "Sessions given up for a while because the HSM has no room.", nil, nil)
	hsmBusy      = prometheus.NewDesc("finpay_hsm_calls", "Calls inside the PKCS#11 module.", nil, nil)
	hsmWaiters   = prometheus.NewDesc("finpay_hsm_waiters", "Callers that wait for a session.", nil, nil)
	hsmAbandoned = prometheus.NewDesc("finpay_hsm_calls_abandoned", "Calls inside the PKCS#11 module whose callers have left.", nil, nil)
	hsmStuck     = prometheus.NewDesc("finpay_hsm_calls_stuck", "Calls inside the PKCS#11 module past their limit; the process ends.", nil, nil)
	hsmFaults    = prometheus.NewDesc("finpay_hsm_faults_total", "Errors of the PKCS#11 module.", []string{"code"}, nil)
	hsmLogins    = prometheus.NewDesc("finpay_hsm_logins_total", "Times the PIN was given to the PKCS#11 module.", nil, nil)
	hsmRestarts  = prometheus.NewDesc("finpay_hsm_restarts_total", "Times the PKCS#11 module was initialized again.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (c engineCollector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{hsmUp, hsmSessions, hsmResting, hsmBusy, hsmWaiters, hsmAbandoned, hsmStuck, hsmFaults, hsmLogins, hsmRestarts} {
		descriptions <- d
	}
}

// Collect implements [prometheus.Collector].
func (c engineCollector) Collect(metrics chan<- prometheus.Metric) {
	h := c.engine.Health()
	for description, value := range map[*prometheus.Desc]float64{
		hsmUp: number(h.Up), hsmSessions: float64(h.Sessions), hsmResting: float64(h.Resting), hsmBusy: float64(h.Busy),
		hsmWaiters: float64(h.Waiters), hsmAbandoned: float64(h.Abandoned), hsmStuck: float64(h.Stuck),
	} {
		metrics <- prometheus.MustNewConstMetric(description, prometheus.GaugeValue, value)
	}
	metrics <- prometheus.MustNewConstMetric(hsmLogins, prometheus.CounterValue, float64(h.Logins))
	metrics <- prometheus.MustNewConstMetric(hsmRestarts, prometheus.CounterValue, float64(h.Restarts))
	for code, n := range h.Faults {
		metrics <- prometheus.MustNewConstMetric(hsmFaults, prometheus.CounterValue, float64(n), code)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// monitor serves health and metrics on a listener of its own, which needs no HSM.
func (a *appliance) monitor(m *metrics) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", a.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

// ready answers 200 when a payment could begin now. Connectors are told but do not count: without them
// shoppers are asked to try again, and nothing is lost.
func (a *appliance) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	answer := map[string]string{"hsm": "ok", "store": "ok", "connectors": healthOK}
	status := http.StatusOK
	if err := a.node.engine.Ping(ctx); err != nil {
		answer["hsm"], status = "not available", http.StatusServiceUnavailable
	}
	if err := a.node.store.Ping(ctx); err != nil {
		answer["store"], status = "not available", http.StatusServiceUnavailable
	}
	var down []string
	for _, route := range a.routes.Routes() {
		if !route.Healthy() {
			down = append(down, route.Name)
		}
	}
	if len(down) > 0 {
		answer["connectors"] = healthDown + ": " + strings.Join(down, ", ")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}
