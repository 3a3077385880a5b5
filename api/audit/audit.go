// Package audit renders the auditor's pages: a search, its results, one entry with its proof, the state of the log. They are made
// on the server and work without a script; with one, the page of an entry verifies it in the browser, with the
// code of the verifier page.
//
// # What is promised
//
// The Content-Security-Policy allows this appliance's own style sheet, script and forms, and nothing else. No page is
// stored by a browser, and none tells another site its address. The key that an entry is verified under is never filled in by
// the server: whoever shows the log must not choose what it is checked against.
//
// # What is not
//
// The package knows no log and no auditor: what to show is decided by its caller.
package audit

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"github.com/finterra/finpay/api/verifier"
)

// Kind is which page is shown.
type Kind string

// The kinds of pages.
const (
	Search Kind = "search"
	Entry  Kind = "entry"
	Log    Kind = "log"
	Open   Kind = "open"   // what a link leads to
	Notice Kind = "notice" // why something is not shown
)

// Page is what a page shows. Only Kind is needed by every kind.
type Page struct {
	Kind  Kind
	Who   *Who // nil where nobody is known
	Title string

	Query   Query
	Problem string // what is wrong with the query, or why nothing is shown
	Rows    []Row
	Next    string // address of the next page; empty on the last one
	Begun   bool   // the page is not the first one
	Exports []Export

	Entry *Shown
	Log   *State
}

// Who is the person at the browser.
type Who struct {
	ID, Name string
	Until    time.Time
	Leaves   bool // there is a session that can be ended
}

// Query is the search form as it was sent.
type Query struct {
	From, To, Type, Resource, Card, Outcome, Actor, Order string
}

// Export is a link to an export of what the form's times span.
type Export struct{ Name, Address string }

// Row is one entry in a list.
type Row struct {
	Index                                      int64
	Time, Type, Resource, Card, Actor, Outcome string
}

// Field is a name and its value.
type Field struct{ Name, Value string }

// Shown is one entry.
type Shown struct {
	Index  int64
	Fields []Field // of every entry
	Data   []Field // of this type of entries
	Rows   []Field // the rows it covers, and their hashes
	Leaf   string
	Text   string
	Proof  string
}

// State is how the log stands.
type State struct {
	Origin, Checkpoint, VerifierKey, WitnessKey string
	Size                                        int64
}

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed audit.css
var styleSheet []byte

//go:embed audit.js
var ownScript []byte

// script verifies an entry with the code of the verifier page.
var script = bytes.Join([][]byte{verifier.Core, ownScript}, nil)

// Names carry hashes, so that browsers may keep the files for ever.
var (
	styleName  = "audit-" + shortHash(styleSheet) + ".css"
	scriptName = "audit-" + shortHash(script) + ".js"
)

func shortHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// Asset returns a file of the pages and its media type.
func Asset(name string) (body []byte, mediaType string, ok bool) {
	switch name {
	case styleName:
		return styleSheet, "text/css; charset=utf-8", true
	case scriptName:
		return script, "text/javascript; charset=utf-8", true
	}
	return nil, "", false
}

// templates are the layout with each kind's content.
var templates = func() map[Kind]*template.Template {
	layout := template.Must(template.New("").Funcs(template.FuncMap{
		"style": func() string { return "/assets/" + styleName }, "script": func() string { return "/assets/" + scriptName },
		"moment": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") },
	}).ParseFS(pageFiles, "pages/layout.html"))
	all := make(map[Kind]*template.Template)
	for _, kind := range []Kind{Search, Entry, Log, Open, Notice} {
		all[kind] = template.Must(template.Must(layout.Clone()).ParseFS(pageFiles, "pages/"+string(kind)+".html"))
	}
	return all
}()

// policy is the pages' Content-Security-Policy.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// Write answers a request with the page.
func (p Page) Write(w http.ResponseWriter, status int) error {
	t, ok := templates[p.Kind]
	if !ok {
		return fmt.Errorf("audit: no page for %q", p.Kind)
	}
	var body bytes.Buffer
	if err := t.ExecuteTemplate(&body, "layout", p); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", "en")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
	return nil
}
