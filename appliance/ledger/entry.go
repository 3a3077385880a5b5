package ledger

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

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

// Operator is who works on the appliance itself.
type Operator struct {
	Origin string // as in entries: the user of the machine, "uid:0"
}

// Entry describes what an operator has done.
func (o Operator) Entry(kind, resource string, data map[string]any) Entry {
	return Entry{Type: kind, Actor: "operator", Origin: o.Origin, Outcome: Success, Resource: resource, Data: data}
}

// Outcomes of an [Entry].
const (
	Success = "success"
	Failure = "failure"
)

// recordSize is the length of most records, in bytes.
const recordSize = 512

// leafPrefix stands before an entry where it is hashed to a leaf (RFC 6962, section 2.1).
const leafPrefix = 0

// appendRecord appends what is hashed to the entry's leaf: a zero byte and the entry in RFC 8785 form, whose members stand
// in the order of their names.
func (e *Entry) appendRecord(b []byte) ([]byte, error) {
	begin := len(b)
	b = appendText(append(b, leafPrefix), `{"actor":`, e.Actor)
	var err error
	if len(e.Data) > 0 {
		if b, err = appendData(append(b, `,"data":`...), e.Data); err != nil {
			return nil, fmt.Errorf("ledger: entry %s: %w", e.Type, err)
		}
	}
	b = appendText(b, `,"node":`, e.Node)
	b = appendText(b, `,"origin":`, e.Origin)
	b = appendText(b, `,"outcome":`, e.Outcome)
	b = appendText(b, `,"resource":`, e.Resource)
	if len(e.Rows) > 0 {
		if b, err = appendRows(append(b, `,"rows":`...), e.Rows); err != nil {
			return nil, fmt.Errorf("ledger: entry %s: %w", e.Type, err)
		}
	}
	b = strconv.AppendInt(append(b, `,"seq":`...), e.Sequence, 10)
	b = appendText(b, `,"time":`, e.Time)
	b = appendText(b, `,"type":`, e.Type)
	b = append(strconv.AppendInt(append(b, `,"v":`...), int64(e.Version), 10), '}')
	if size := len(b) - begin - 1; size > maxEntry {
		return nil, fmt.Errorf("ledger: entry %s has %d bytes; %d are the most", e.Type, size, maxEntry)
	}
	return b, nil
}

func appendText(b []byte, name, value string) []byte {
	return appendString(append(b, name...), value)
}

// appendString appends a string as RFC 8785, section 3.2.2.2 has it. What is not UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			b, _ = jsontext.AppendQuote(b, s) // its error tells of bytes that are not UTF-8
			return b
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func appendRows(b []byte, rows map[string]string) ([]byte, error) {
	names, ok := sorted(rows)
	if !ok {
		return appendAny(b, rows)
	}
	for i, name := range names {
		b = appendString(append(b, "{,"[min(i, 1)]), name)
		b = appendString(append(b, ':'), rows[name])
	}
	return append(b, '}'), nil
}

func appendData(b []byte, data map[string]any) (_ []byte, err error) {
	names, ok := sorted(data)
	if !ok {
		return appendAny(b, data)
	}
	for i, name := range names {
		b = append(appendString(append(b, "{,"[min(i, 1)]), name), ':')
		if b, err = appendValue(b, data[name]); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// maxExact is up to where each integer is an IEEE 754 double, which RFC 8785 makes of all numbers.
const maxExact = 1 << 53

func appendValue(b []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case string:
		return appendString(b, v), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case int:
		if -maxExact <= v && v <= maxExact {
			return strconv.AppendInt(b, int64(v), 10), nil
		}
	case int64:
		if -maxExact <= v && v <= maxExact {
			return strconv.AppendInt(b, v, 10), nil
		}
	case uint32:
		return strconv.AppendUint(b, uint64(v), 10), nil
	}
	return appendAny(b, value)
}

// appendAny appends any value, by way of the general encoder.
func appendAny(b []byte, value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	canonical := jsontext.Value(text)
	if err := canonical.Canonicalize(); err != nil {
		return nil, err
	}
	return append(b, canonical...), nil
}

// sorted returns the names of a map in the order of RFC 8785, section 3.2.3, which for ASCII is that of bytes; ok is
// false where a name has other characters.
func sorted[V any](members map[string]V) (names []string, ok bool) {
	names = make([]string, 0, len(members))
	for name := range members {
		for i := range len(name) {
			if name[i] >= 0x80 {
				return nil, false
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, true
}
