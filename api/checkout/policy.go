package checkout

import (
	"net/http"
	"strings"
)

// ReportPath is where browsers report what a policy made them refuse.
const ReportPath = "/csp-report"

// scripted reports whether the page loads the script. The others need none.
func (p Page) scripted() bool {
	switch p.Kind {
	case Payable, Stored, Challenge, Method, Returned, Processing:
		return true
	}
	return false
}

// header sets the headers of the page.
func (p Page) header(h http.Header) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", p.Language.Code)
	h.Set("Content-Security-Policy", p.policy())
	h.Set("Reporting-Endpoints", `csp="`+ReportPath+`"`)
	h.Set("X-Frame-Options", map[bool]string{false: "DENY", true: "SAMEORIGIN"}[p.Kind == Returned])
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Permissions-Policy", p.permissions())
	h.Set("Cache-Control", "no-store")
}

// policy is the page's Content-Security-Policy. Nothing is fetched (connect-src falls back to 'none'), and the script may
// not write markup: the directives on trusted types make a browser refuse it.
//
// 'self' and no hash stands in script-src: a hash beside 'self' would allow no less, and one in its place is not known to
// every browser for a script in a file. What the file must be is said by the page's integrity attribute.
func (p Page) policy() string {
	directives := []string{"default-src 'none'", "style-src 'self'"}
	if p.scripted() {
		directives = append(directives, "script-src 'self'")
	}
	if site := p.frames(); site != "" {
		directives = append(directives, "frame-src 'self' "+site)
	}
	ancestors := "'none'"
	if p.Kind == Returned {
		ancestors = "'self'"
	}
	return strings.Join(append(directives, "form-action "+p.formTargets(), "frame-ancestors "+ancestors, "base-uri 'none'",
		"require-trusted-types-for 'script'", "trusted-types 'none'", "report-uri "+ReportPath, "report-to csp"), "; ")
}

// frames is the site whose pages the page has in a frame; a page of ours comes back there.
func (p Page) frames() string {
	switch p.Kind {
	case Challenge:
		return p.ACSSite
	case Method:
		return p.MethodSite
	}
	return ""
}

// formTargets are those of form-action. Browsers hold the redirects that follow a form to it too, so the shop is named
// where sending the card may end there.
func (p Page) formTargets() string {
	switch {
	case p.Kind == Challenge && p.ACSSite != "":
		return "'self' " + p.ACSSite
	case p.Kind == Method:
		return strings.TrimSpace("'self' " + p.MethodSite + " " + p.ReturnSite)
	case p.Kind == Payable, p.Kind == Stored:
		return strings.TrimSpace("'self' " + p.ReturnSite)
	}
	return "'none'"
}

// permissions is the Permissions-Policy: no page uses a device, and the issuer's page alone may ask for a passkey (Secure
// Payment Confirmation).
func (p Page) permissions() string {
	keys, payment := "publickey-credentials-get=()", "payment=()"
	if p.Kind == Challenge && p.ACSSite != "" {
		keys, payment = `publickey-credentials-get=(self "`+p.ACSSite+`")`, `payment=(self "`+p.ACSSite+`")`
	}
	return "camera=(), microphone=(), geolocation=(), usb=(), " + keys + ", " + payment
}
