package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/finterra/finpay/pci"
)

// Audit shows the signed log to auditors. Each call is an entry itself, committed before anything is shown.
type Audit interface {
	// Search returns the entries that a query is about, out of all that are under the newest checkpoint.
	Search(ctx context.Context, by Viewer, query AuditQuery) (AuditList, error)
	// Entry returns one entry with its proof. One that is not there is [ErrNotFound].
	Entry(ctx context.Context, by Viewer, index int64) (ProvenEntry, error)
	// Export writes entries for systems that watch over others, in order, one a line. What goes wrong before the first
	// byte is an error of the contract.
	Export(ctx context.Context, by Viewer, query AuditExport, w io.Writer) error
	// State says how the log stands.
	State(ctx context.Context, by Viewer) (LogState, error)
	// Tiles is called before a tile is shown to a program that reads the whole log: one entry tells of a minute of it.
	Tiles(ctx context.Context, by Viewer) error
}

// Viewer is who looks at the log.
type Viewer struct {
	Actor  string // as entries name it: "key:…" or "aud_…"
	Origin string // the client's IP address
}

// AuditQuery narrows a search. Zero fields do not.
type AuditQuery struct {
	From, To    time.Time // of the entries: at From or later, before To
	Type        string    // exact, or a beginning up to its dot: "payment."
	Resource    string    // exact: a payment's id, "key:…", "hsm:…"
	Card        string    // truncated, as in "411111******1111"
	Outcome     string    // "success" or "failure"
	Actor       string    // exact: "key:…", "shopper", "system", "operator", "aud_…"
	OldestFirst bool
	Cursor      string
	Limit       int // 1 to [MaxPage]
}

// AuditEntry is one entry of the log.
type AuditEntry struct {
	Index int64  `json:"index"`
	Leaf  string `json:"leaf"`  // base64 of its RFC 6962 leaf hash
	Entry string `json:"entry"` // canonical JSON (RFC 8785)
}

// AuditList is one page of entries. It may have less than were asked for, or none, and still not be the last.
type AuditList struct {
	Entries    []AuditEntry `json:"entries"`
	NextCursor string       `json:"next_cursor,omitempty"` // of the next page; empty on the last one
}

// ProvenEntry is an entry with the proof that it is in the log.
type ProvenEntry struct {
	AuditEntry
	Proof string `json:"proof"` // C2SP tlog-proof, with the newest signed checkpoint
}

// AuditExport is what is exported, and how.
type AuditExport struct {
	Format   string // "ocsf" or "syslog"
	From, To time.Time
}

// LogState is how the log stands.
type LogState struct {
	Origin      string
	Size        int64
	Checkpoint  string // the newest one, as published
	VerifierKey string // C2SP signed-note
	WitnessKey  string // of the second signature, for witnesses; empty where there is none
}

// viewer is a caller as the log's viewer.
func (c Caller) viewer() Viewer { return Viewer{Actor: "key:" + c.KeyID, Origin: c.Origin} }

func (s *server) listAuditEntries(w http.ResponseWriter, r *http.Request, caller Caller) error {
	query, err := auditQuery(r)
	if err != nil {
		return err
	}
	list, err := s.cfg.Audit.Search(r.Context(), caller.viewer(), query)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) getAuditEntry(w http.ResponseWriter, r *http.Request, caller Caller) error {
	index, err := entryIndex(r)
	if err != nil {
		return err
	}
	entry, err := s.cfg.Audit.Entry(r.Context(), caller.viewer(), index)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, entry)
}

func (s *server) exportAuditEntries(w http.ResponseWriter, r *http.Request, caller Caller) error {
	return s.export(w, r, caller.viewer())
}

func entryIndex(r *http.Request) (int64, error) {
	index, ok := logIndex(mux.Vars(r)["index"])
	if !ok {
		return 0, ErrNotFound
	}
	return index, nil
}

// exportMedia are the formats of an export and their media types.
var exportMedia = map[string]string{"ocsf": "application/x-ndjson", "syslog": "text/plain; charset=utf-8"}

// export streams entries. A fault under way breaks the connection: half an export must not look like a whole one.
func (s *server) export(w http.ResponseWriter, r *http.Request, by Viewer) error {
	q, err := readQuery(r, "format", "from", "to")
	if err != nil {
		return err
	}
	query := AuditExport{Format: q["format"]}
	media, ok := exportMedia[query.Format]
	if !ok {
		return ErrInvalid.With("The query parameter format is ocsf or syslog.")
	}
	if query.From, query.To, err = querySpan(q); err != nil {
		return err
	}
	out := &streamWriter{w: w, control: http.NewResponseController(w), media: media}
	if r.Method == http.MethodHead {
		out.begin()
		return nil
	}
	err = s.cfg.Audit.Export(r.Context(), by, query, out)
	switch {
	case err != nil && out.begun:
		s.cfg.Logger.ErrorContext(r.Context(), "an export was broken off", "request_id", exchangeOf(r).id, "error", err)
		panic(http.ErrAbortHandler)
	case err != nil:
		return err
	}
	out.begin()
	return nil
}

// streamWriter writes a body of any length: each write has a time limit of its own.
type streamWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	media   string
	begun   bool
}

func (s *streamWriter) begin() {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", s.media)
	}
}

// Write implements [io.Writer].
func (s *streamWriter) Write(b []byte) (int, error) {
	s.begin()
	_ = s.control.SetWriteDeadline(time.Now().Add(streamTimeout)) // a server without deadlines has no timeout either
	return s.w.Write(b)
}

// What filters may be: forms that entries have, so that a search cannot be made a place to write things down.
var (
	typePattern     = regexp.MustCompile(`^[a-z_]{1,32}\.[a-z_]{0,64}$`)
	resourcePattern = regexp.MustCompile(`^[A-Za-z0-9_:./ -]{1,128}$`)
	actorPattern    = regexp.MustCompile(`^[A-Za-z0-9_:.-]{1,64}$`)
	cardPattern     = regexp.MustCompile(`^[0-9]{6,8}\*{2,9}[0-9]{4}$`)
)

// auditFilters are the query's parameters.
var auditFilters = []string{"from", "to", "type", "resource", "card", "outcome", "actor", "order", "cursor", "limit"}

// auditQuery reads the query of a search.
func auditQuery(r *http.Request) (AuditQuery, error) {
	q, err := readQuery(r, auditFilters...)
	if err != nil {
		return AuditQuery{}, err
	}
	return searchOf(q)
}

func searchOf(q map[string]string) (query AuditQuery, err error) {
	if query.From, query.To, err = querySpan(q); err != nil {
		return query, err
	}
	for _, f := range []struct {
		name    string
		to      *string
		pattern *regexp.Regexp
		wanted  string
	}{
		{"type", &query.Type, typePattern, `a type of entries, such as payment.captured, or its beginning up to the dot, such as "payment."`},
		{"resource", &query.Resource, resourcePattern, "a resource as entries name it, such as the id of a payment."},
		{"card", &query.Card, cardPattern, "a truncated card number, such as 411111******1111."},
		{"actor", &query.Actor, actorPattern, "an actor as entries name it, such as operator, shopper or key: and the id of an API key."},
	} {
		value, given := q[f.name]
		if pci.LooksLikePAN(value) {
			return query, ErrCardNumber.With("The query parameter %s holds what looks like a card number. Entries have truncated ones only.", f.name)
		}
		if given && !f.pattern.MatchString(value) {
			return query, ErrInvalid.With("The query parameter %s is %s", f.name, f.wanted)
		}
		*f.to = value
	}
	outcome, given := q["outcome"]
	if query.Outcome = outcome; given && outcome != "success" && outcome != "failure" {
		return query, ErrInvalid.With("The query parameter outcome is success or failure.")
	}
	order, given := q["order"]
	if query.OldestFirst = order == "oldest"; given && order != "oldest" && order != "newest" {
		return query, ErrInvalid.With("The query parameter order is newest or oldest.")
	}
	if query.Cursor, err = queryCursor(q); err != nil {
		return query, err
	}
	query.Limit, err = queryLimit(q, MaxPage)
	return query, err
}

// querySpan reads from and to.
func querySpan(q map[string]string) (from, to time.Time, err error) {
	if from, err = queryTime(q, "from"); err != nil {
		return from, to, err
	}
	if to, err = queryTime(q, "to"); err != nil {
		return from, to, err
	}
	if !to.IsZero() && to.Before(from) {
		return from, to, ErrInvalid.With("The query parameter to is a time after from.")
	}
	return from, to, nil
}

// fields returns an entry's members as they stand in its text, in the order of their names.
func (e AuditEntry) fields() (map[string]any, error) {
	var fields map[string]any
	decoder := json.NewDecoder(strings.NewReader(e.Entry))
	decoder.UseNumber()
	return fields, decoder.Decode(&fields)
}
