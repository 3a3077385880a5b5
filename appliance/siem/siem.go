// Package siem writes entries of the signed log for the systems that watch over others: as events of the Open Cybersecurity
// Schema Framework (OCSF), one JSON object a line, and as messages of syslog (RFC 5424), one a line.
//
// # What is promised
//
// Each line carries the entry's index, its leaf hash and its text, so that what such a system holds can be traced back
// to the log and proven. Lines hold nothing that the entry does not: no name, and of a card its truncation and token.
//
// # What is not
//
// A line is no proof. Proofs come from the log: GET /v1/audit/entries/{index}.
package siem

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Format is how entries are written.
type Format string

// The formats.
const (
	OCSF   Format = "ocsf"
	Syslog Format = "syslog"
)

// Formats are all there are.
var Formats = []Format{OCSF, Syslog}

// MediaType returns the type of a stream of lines.
func (f Format) MediaType() string {
	if f == OCSF {
		return "application/x-ndjson"
	}
	return "text/plain; charset=utf-8"
}

// Record is an entry where it stands.
type Record struct {
	Log   string // the log's name, as in checkpoints
	Index int64
	Leaf  []byte // RFC 6962 leaf hash
	Entry []byte // canonical JSON
}

// Append appends a record's line, with its line feed.
func (f Format) Append(b []byte, r Record) ([]byte, error) {
	e, err := read(r)
	if err != nil {
		return b, err
	}
	switch f {
	case OCSF:
		return appendOCSF(b, e)
	case Syslog:
		return appendSyslog(b, e), nil
	}
	return b, fmt.Errorf("siem: no format %q", f)
}

// entry is what is read of a record's text.
type entry struct {
	Record
	time    time.Time
	Time    string         `json:"time"`
	Node    string         `json:"node"`
	Type    string         `json:"type"`
	Actor   string         `json:"actor"`
	Origin  string         `json:"origin"`
	Outcome string         `json:"outcome"`
	About   string         `json:"resource"`
	Data    map[string]any `json:"data"`
}

func read(r Record) (entry, error) {
	e := entry{}
	if err := json.Unmarshal(r.Entry, &e); err != nil {
		return e, fmt.Errorf("siem: entry %d: %w", r.Index, err)
	}
	e.Record = r
	var err error
	if e.time, err = time.Parse(time.RFC3339Nano, e.Time); err != nil {
		return e, fmt.Errorf("siem: entry %d: %w", r.Index, err)
	}
	return e, nil
}

// text returns a field of the event's own, if it is a text.
func (e entry) text(name string) string {
	s, _ := e.Data[name].(string)
	return s
}

// failed reports whether the step did not succeed.
func (e entry) failed() bool { return e.Outcome == "failure" }

// family is the first part of an entry's type.
func family(kind string) string {
	f, _, _ := strings.Cut(kind, ".")
	return f
}

// address returns the origin if it is an IP address: a shopper's is a keyed hash, and an operator's a user of the machine.
func (e entry) address() (string, bool) {
	a, err := netip.ParseAddr(e.Origin)
	return a.String(), err == nil
}
