package ledger

import (
	"encoding/json"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// entryVersion is the version of the entry's schema.
const entryVersion = 1

// Entry is one recorded step: who did what to which resource, from where, with which outcome (PCI DSS 10.2.2). A
// card appears in it as truncation and token only; names and addresses of people never do, since a record that
// cannot change cannot forget.
type Entry struct {
	Version  int               `json:"v"`
	Sequence int64             `json:"seq"`
	Time     string            `json:"time"` // RFC 3339, UTC
	Node     string            `json:"node"`
	Type     string            `json:"type"`           // e.g. "payment.captured"
	Actor    string            `json:"actor"`          // "key:…", "shopper", "system"
	Origin   string            `json:"origin"`         // address of staff and API calls, keyed hash of a shopper's, "local"
	Outcome  string            `json:"outcome"`        // "success" or "failure"
	Resource string            `json:"resource"`       // e.g. "pay_…"
	Rows     map[string]string `json:"rows,omitempty"` // rows it covers: "table/key" to SHA-256 of the row's JSON
	Data     map[string]any    `json:"data,omitempty"` // the event's own fields
}

// Outcomes of an [Entry].
const (
	Success = "success"
	Failure = "failure"
)

// canonical returns the entry in RFC 8785 form.
func (e Entry) canonical() ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("ledger: entry %s: %w", e.Type, err)
	}
	value := jsontext.Value(text)
	if err := value.Canonicalize(); err != nil {
		return nil, fmt.Errorf("ledger: entry %s: %w", e.Type, err)
	}
	if len(value) > maxEntry {
		return nil, fmt.Errorf("ledger: entry %s has %d bytes; %d are the most", e.Type, len(value), maxEntry)
	}
	return value, nil
}
