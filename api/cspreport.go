package api

import (
	"io"
	"mime"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/finterra/finpay/pci"
)

// Bounds of what browsers report of one address: a page that is under attack sends few, and the first ones tell all.
const (
	maxReportBody = 32 << 10 // bytes
	maxReports    = 20       // of one body
)

// reportRate is how often one address may report. It is apart from that of payments, which reports must not use up.
var reportRate = Rate{PerSecond: 0.5, Burst: 20}

// directives are those that a report may name; the metric has no other values.
var directives = []string{"base-uri", "connect-src", "default-src", "font-src", "form-action", "frame-ancestors", "frame-src", "img-src", "manifest-src",
	"media-src", "object-src", "require-trusted-types-for", "script-src", "script-src-attr", "script-src-elem", "style-src", "style-src-attr",
	"style-src-elem", "trusted-types", "worker-src"}

// breach is what is kept of a report: no address with path or query (a path has the secret of a checkout session, a query may
// have a card), no sample of a script.
type breach struct{ page, directive, blocked, disposition string }

// oldReport is the body of application/csp-report (CSP Level 2, section 4.4).
type oldReport struct {
	Report *struct {
		Document    string `json:"document-uri"`
		Violated    string `json:"violated-directive"`
		Effective   string `json:"effective-directive"`
		Blocked     string `json:"blocked-uri"`
		Disposition string `json:"disposition"`
	} `json:"csp-report"`
}

// newReport is an element of application/reports+json (Reporting API; CSP Level 3, section 5.3).
type newReport struct {
	Type string `json:"type"`
	URL  string `json:"url"`
	Body struct {
		Effective   string `json:"effectiveDirective"`
		Blocked     string `json:"blockedURL"`
		Disposition string `json:"disposition"`
	} `json:"body"`
}

// takeReports takes what browsers report of the pages' policies. It is logged and counted, and believed by nobody: anyone can
// send one.
func (s *server) takeReports(w http.ResponseWriter, r *http.Request) error {
	if err := s.perReporter.take(w, network(originOf(r))); err != nil {
		return err
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/csp-report" && mediaType != "application/reports+json" {
		return ErrMediaType.With("Send application/reports+json or application/csp-report.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReportBody))
	if err != nil {
		return ErrTooLarge.With("Reports have at most %d bytes.", maxReportBody)
	}
	breaches, err := readReports(mediaType, body)
	if err != nil {
		return err
	}
	for _, b := range breaches {
		s.cfg.Logger.WarnContext(r.Context(), "a browser refused something by a page's policy", "request_id", exchangeOf(r).id,
			"page", b.page, "directive", b.directive, "blocked", b.blocked, "disposition", b.disposition)
		if s.cfg.Breach != nil {
			s.cfg.Breach(b.directive)
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// readReports returns the breaches of policies in a body; other kinds of reports are passed over.
func readReports(mediaType string, body []byte) ([]breach, error) {
	if mediaType == "application/csp-report" {
		var one oldReport
		if err := json.Unmarshal(body, &one); err != nil || one.Report == nil {
			return nil, ErrMalformed.With("The body is not a report.")
		}
		directive := one.Report.Effective
		if directive == "" {
			directive = one.Report.Violated
		}
		return []breach{newBreach(one.Report.Document, directive, one.Report.Blocked, one.Report.Disposition)}, nil
	}
	var all []newReport
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, ErrMalformed.With("The body is not an array of reports.")
	}
	if len(all) > maxReports {
		return nil, ErrTooLarge.With("A body has at most %d reports.", maxReports)
	}
	var breaches []breach
	for _, report := range all {
		if report.Type == "csp-violation" {
			breaches = append(breaches, newBreach(report.URL, report.Body.Effective, report.Body.Blocked, report.Body.Disposition))
		}
	}
	return breaches, nil
}

func newBreach(page, directive, blocked, disposition string) breach {
	b := breach{page: siteFor(page), directive: "other", blocked: siteFor(blocked), disposition: "other"}
	if slices.Contains(directives, directive) {
		b.directive = directive
	}
	if slices.Contains([]string{"inline", "eval", "wasm-eval", "data", "blob", "trusted-types-policy", "trusted-types-sink"}, blocked) {
		b.blocked = blocked
	}
	if disposition == "enforce" || disposition == "report" {
		b.disposition = disposition
	}
	return b
}

// siteFor returns scheme and host of an address, "other" for none, or where a card stands in it.
func siteFor(address string) string {
	site := siteOf(address)
	if site == "" || len(site) > 256 || pci.LooksLikePAN(site) {
		return "other"
	}
	return site
}
