package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/finterra/finpay/api/audit"
)

// sessionCookie carries an auditor's session. Its prefix binds it to this host, over TLS (RFC 6265bis, section 4.1.3.2).
const sessionCookie = "__Host-finpay-audit"

// routeAuditors adds the auditor's pages.
func (s *server) routeAuditors(r *mux.Router) {
	s.route(r, "/audit", methods{http.MethodGet: s.limited(s.person(s.searchPage))})
	s.route(r, "/audit/entries/{index}", methods{http.MethodGet: s.limited(s.person(s.entryPage))})
	s.route(r, "/audit/log", methods{http.MethodGet: s.limited(s.person(s.logPage))})
	s.route(r, "/audit/export", methods{http.MethodGet: s.limited(s.person(s.exportFor))})
	s.route(r, "/audit/leave", methods{http.MethodPost: s.limited(s.leave)})
	s.route(r, "/audit/open/{link}", methods{http.MethodGet: s.limited(s.linkPage), http.MethodPost: s.limited(s.openLink)})
}

// isAuditor reports whether an auditor at a browser reads the answer.
func isAuditor(r *http.Request) bool {
	return r.URL.Path == "/audit" || strings.HasPrefix(r.URL.Path, "/audit/")
}

// person calls next with the auditor at the browser: the holder of a registered certificate, or of a session.
func (s *server) person(next func(http.ResponseWriter, *http.Request, Person) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		origin := originOf(r)
		if err := s.failedLogins.check(network(origin)); err != nil {
			return err
		}
		who, err := s.whoIs(r, origin)
		if errors.Is(err, ErrUnauthorized) {
			s.failedLogins.of(network(origin)).AllowN(s.cfg.Now(), 1)
		}
		if err != nil {
			return err
		}
		return next(w, r, who)
	}
}

func (s *server) whoIs(r *http.Request, origin string) (Person, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return s.cfg.Auditors.Certified(r.Context(), r.TLS.PeerCertificates[0], origin)
	}
	session, ok := auditSession(r)
	if !ok {
		return Person{}, ErrUnauthorized
	}
	return s.cfg.Auditors.Session(r.Context(), session, origin)
}

// auditSession returns the secret in the request's one cookie for it.
func auditSession(r *http.Request) (string, bool) {
	cookies := r.CookiesNamed(sessionCookie)
	if len(cookies) != 1 || !isName(cookies[0].Value) || len(cookies[0].Value) > maxID {
		return "", false
	}
	return cookies[0].Value, true
}

// linkPage is what a link leads to. It looks nothing up and uses nothing up: mail programs fetch links before people do.
func (s *server) linkPage(w http.ResponseWriter, _ *http.Request) error {
	return audit.Page{Kind: audit.Open, Title: "Open the log"}.Write(w, http.StatusOK)
}

// openLink turns a link into a session.
func (s *server) openLink(w http.ResponseWriter, r *http.Request) error {
	origin := originOf(r)
	if err := s.failedLogins.check(network(origin)); err != nil {
		return err
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return ErrForbidden.With("The form was sent by another site.")
	}
	link := mux.Vars(r)["link"]
	if len(link) > maxID || !isName(link) {
		return ErrNotFound
	}
	session, until, err := s.cfg.Auditors.Open(r.Context(), link, origin)
	if errors.Is(err, ErrUnauthorized) {
		s.failedLogins.of(network(origin)).AllowN(s.cfg.Now(), 1)
	}
	if err != nil {
		return err
	}
	s.setSession(w, session, max(1, int(until.Sub(s.cfg.Now()).Seconds())))
	return seeOther(w, "/audit")
}

// setSession sets the cookie for some seconds; -1 deletes it.
func (s *server) setSession(w http.ResponseWriter, session string, seconds int) {
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: session, Path: "/", MaxAge: seconds, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
}

func (s *server) leave(w http.ResponseWriter, r *http.Request) error {
	if session, ok := auditSession(r); ok {
		if err := s.cfg.Auditors.Leave(r.Context(), session, originOf(r)); err != nil {
			return err
		}
	}
	s.setSession(w, "", -1)
	return audit.Page{Kind: audit.Notice, Title: "You have left", Problem: "Your session has ended. For another one, ask the operator for a new link."}.Write(w, http.StatusOK)
}

// whoOf is the person as pages show them.
func whoOf(r *http.Request, p Person) *audit.Who {
	_, leaves := auditSession(r)
	return &audit.Who{ID: p.Actor, Name: p.Name, Until: p.Until, Leaves: leaves}
}

// searchPage shows the form, and what is found.
func (s *server) searchPage(w http.ResponseWriter, r *http.Request, who Person) error {
	q, err := readQuery(r, auditFilters...)
	if err != nil {
		return err
	}
	page := audit.Page{Kind: audit.Search, Title: "Entries", Who: whoOf(r, who), Begun: q["cursor"] != "", Query: audit.Query{From: q["from"], To: q["to"],
		Type: q["type"], Resource: q["resource"], Card: q["card"], Outcome: q["outcome"], Actor: q["actor"], Order: q["order"]}}
	query, err := searchOf(asSent(q))
	if p, ok := errors.AsType[*Problem](err); ok {
		page.Problem, page.Title = p.Detail, "Not searched"
		if p.Code == ErrCardNumber.Code {
			page.Query = audit.Query{} // it is not repeated
		}
		return page.Write(w, p.Status)
	}
	list, err := s.cfg.Audit.Search(r.Context(), who.Viewer, query)
	if err != nil {
		return err
	}
	if page.Rows, err = rowsOf(list.Entries); err != nil {
		return err
	}
	if list.NextCursor != "" {
		page.Next = "/audit?" + with(q, "cursor", list.NextCursor)
	}
	for _, format := range []string{"ocsf", "syslog"} {
		page.Exports = append(page.Exports, audit.Export{Name: map[string]string{"ocsf": "OCSF (NDJSON)", "syslog": "syslog (RFC 5424)"}[format],
			Address: "/audit/export?" + with(map[string]string{"from": asSent(q)["from"], "to": asSent(q)["to"]}, "format", format)})
	}
	return page.Write(w, http.StatusOK)
}

// asSent makes of a form what a program would send: no empty fields, and times with their zone.
func asSent(q map[string]string) map[string]string {
	sent := make(map[string]string, len(q))
	for name, value := range q {
		if value = strings.TrimSpace(value); value == "" {
			continue
		}
		if name == "from" || name == "to" {
			for _, form := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} { // HTML, section 2.3.5.5
				if at, err := time.Parse(form, value); err == nil {
					value = at.Format(time.RFC3339)
				}
			}
		}
		sent[name] = value
	}
	return sent
}

// with writes a query without its empty parameters, and one more.
func with(q map[string]string, name, value string) string {
	values := url.Values{name: {value}}
	for n, v := range q {
		if n != name && v != "" {
			values.Set(n, v)
		}
	}
	return values.Encode()
}

func rowsOf(entries []AuditEntry) ([]audit.Row, error) {
	rows := make([]audit.Row, len(entries))
	for i, e := range entries {
		fields, err := e.fields()
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		data, _ := fields["data"].(map[string]any)
		at, _, _ := strings.Cut(strings.Replace(valueOf(fields["time"]), "T", " ", 1), ".")
		rows[i] = audit.Row{Index: e.Index, Time: strings.TrimSuffix(at, "Z"), Type: valueOf(fields["type"]), Resource: valueOf(fields["resource"]),
			Card: valueOf(data["card"]), Actor: valueOf(fields["actor"]), Outcome: valueOf(fields["outcome"])}
	}
	return rows, nil
}

// valueOf writes a member of an entry for people.
func valueOf(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	text, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(text)
}

// commonFields are those of every entry, in the order in which people ask.
var commonFields = []struct{ member, name string }{
	{"time", "Time"}, {"type", "Type"}, {"outcome", "Outcome"}, {"actor", "Actor"}, {"origin", "Origin"}, {"resource", "Resource"}, {"node", "Node"},
}

func (s *server) entryPage(w http.ResponseWriter, r *http.Request, who Person) error {
	index, err := entryIndex(r)
	if err != nil {
		return err
	}
	e, err := s.cfg.Audit.Entry(r.Context(), who.Viewer, index)
	if err != nil {
		return err
	}
	fields, err := e.fields()
	if err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	shown := &audit.Shown{Index: index, Leaf: e.Leaf, Text: e.Entry, Proof: e.Proof, Data: sortedFields(fields["data"]), Rows: sortedFields(fields["rows"])}
	for _, f := range commonFields {
		if value := valueOf(fields[f.member]); value != "" {
			shown.Fields = append(shown.Fields, audit.Field{Name: f.name, Value: value})
		}
	}
	return audit.Page{Kind: audit.Entry, Title: fmt.Sprintf("Entry %d", index), Who: whoOf(r, who), Entry: shown}.Write(w, http.StatusOK)
}

// sortedFields lists an object's members.
func sortedFields(object any) (list []audit.Field) {
	members, _ := object.(map[string]any)
	for name, value := range members {
		list = append(list, audit.Field{Name: name, Value: valueOf(value)})
	}
	slices.SortFunc(list, func(a, b audit.Field) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (s *server) logPage(w http.ResponseWriter, r *http.Request, who Person) error {
	state, err := s.cfg.Audit.State(r.Context(), who.Viewer)
	if err != nil {
		return err
	}
	return audit.Page{Kind: audit.Log, Title: "The log", Who: whoOf(r, who), Log: &audit.State{Origin: state.Origin, Size: state.Size,
		Checkpoint: state.Checkpoint, VerifierKey: state.VerifierKey, WitnessKey: state.WitnessKey}}.Write(w, http.StatusOK)
}

// exportFor streams entries to a person's disk.
func (s *server) exportFor(w http.ResponseWriter, r *http.Request, who Person) error {
	w.Header().Set("Content-Disposition", "attachment")
	err := s.export(w, r, who.Viewer)
	if err != nil {
		w.Header().Del("Content-Disposition")
	}
	return err
}

// notices are what people are told in place of a problem's title and detail.
var notices = map[string][2]string{
	ErrUnauthorized.Code: {"You are not signed in", "Ask the operator of the appliance for a link. Each opens once, in one browser, and ends at its time."},
	ErrNotFound.Code:     {"There is nothing here", "Check the address. An entry that does not exist yet is shown once it is signed."},
	ErrRateLimit.Code:    {"Too many requests", "Wait a little, and try again."},
	ErrUnavailable.Code:  {"Not now", "The appliance cannot show this now. Nothing was changed. Try again in a moment."},
}

// refuseAuditor shows a problem as a page.
func (s *server) refuseAuditor(w http.ResponseWriter, r *http.Request, p *Problem) {
	text, ok := notices[p.Code]
	if !ok {
		text = [2]string{p.Title, p.Detail}
	}
	p.setRetryAfter(w.Header())
	if err := (audit.Page{Kind: audit.Notice, Title: text[0], Problem: text[1]}).Write(w, p.Status); err != nil {
		s.cfg.Logger.ErrorContext(r.Context(), "no page", "request_id", exchangeOf(r).id, "error", err)
		WriteProblem(w, p)
	}
}
