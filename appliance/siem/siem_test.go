package siem_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/appliance/siem"
)

const logName = "finpay.test/node/2030"

// message is the grammar of RFC 5424, section 6, for what is one line with one element of structured data.
var message = regexp.MustCompile(`^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) (-|[!-~]{1,128}) ([!-~]{1,32}) ` +
	`\[([!-<>-\\^-~]{1,32}(?: [!-<>-\\^-~]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*)\] \x{FEFF}(.*)$`)

var param = regexp.MustCompile(` ([!-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"`)

func record(t interface{ Fatal(...any) }, index int64, entry map[string]any) siem.Record {
	text, err := json.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	leaf := sha256.Sum256(append([]byte{0}, text...))
	return siem.Record{Log: logName, Index: index, Leaf: leaf[:], Entry: text}
}

// anEntry draws one: fields of the forms that they have, and of any other.
func anEntry(t *rapid.T) map[string]any {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z_:"\\\]= ]{0,40}`))
	kind := rapid.OneOf(rapid.SampledFrom([]string{"payment.captured", "login.failed", "appliance.started", "key.destroyed", "audit.viewed", "auditor.link_opened"}),
		rapid.StringMatching(`[a-z_]{1,30}\.[a-z_]{1,30}`))
	at := time.Unix(rapid.Int64Range(0, 4_000_000_000).Draw(t, "second"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanosecond")).UTC()
	return map[string]any{"v": 1, "seq": 7, "time": at.Format(time.RFC3339Nano), "node": text.Draw(t, "node"), "type": kind.Draw(t, "type"),
		"actor": text.Draw(t, "actor"), "origin": rapid.OneOf(text, rapid.Just("192.0.2.1"), rapid.Just("2001:db8::1")).Draw(t, "origin"),
		"outcome": rapid.SampledFrom([]string{"success", "failure"}).Draw(t, "outcome"), "resource": text.Draw(t, "resource"),
		"data": map[string]any{"card": text.Draw(t, "card"), "amount": rapid.Int32().Draw(t, "amount")}}
}

func line(t *rapid.T, f siem.Format, r siem.Record) string {
	text, err := f.Append(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	if !utf8.Valid(text) || bytes.Count(text, []byte("\n")) != 1 || text[len(text)-1] != '\n' {
		t.Fatalf("not one line of UTF-8: %q", text)
	}
	return string(text[:len(text)-1])
}

func TestSyslogKeepsToTheGrammarOfRFC5424(t *testing.T) {
	unescape := strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\]`, `]`)
	rapid.Check(t, func(t *rapid.T) {
		entry := anEntry(t)
		r := record(t, rapid.Int64Range(0, 1<<53).Draw(t, "index"), entry)
		m := message.FindStringSubmatch(line(t, siem.Syslog, r))
		if m == nil {
			t.Fatalf("not of the grammar: %s", line(t, siem.Syslog, r))
		}
		want := "110"
		if entry["outcome"] == "failure" {
			want = "108"
		}
		at, _ := time.Parse(time.RFC3339Nano, entry["time"].(string))
		if stamp, err := time.Parse(time.RFC3339Nano, m[2]); m[1] != want || err != nil || !stamp.Equal(at.Truncate(time.Microsecond)) || m[8] != string(r.Entry) {
			t.Fatalf("%v", m[1:])
		}
		params := map[string]string{}
		for _, p := range param.FindAllStringSubmatch(m[7], -1) {
			params[p[1]] = unescape.Replace(p[2])
		}
		if params["index"] != strconv.FormatInt(r.Index, 10) || params["leaf"] != base64.StdEncoding.EncodeToString(r.Leaf) || params["log"] != logName || params["type"] != entry["type"] {
			t.Fatalf("%v", params)
		}
		if actor := entry["actor"].(string); !strings.ContainsFunc(actor, func(c rune) bool { return c < ' ' || c >= 0x7f }) && params["actor"] != actor {
			t.Fatalf("the actor %q is %q", actor, params["actor"])
		}
	})
}

// ocsf is what a consumer reads of an event.
type ocsf struct {
	ActivityID  *int   `json:"activity_id"`
	CategoryUID int    `json:"category_uid"`
	ClassUID    int    `json:"class_uid"`
	TypeUID     int    `json:"type_uid"`
	SeverityID  *int   `json:"severity_id"`
	StatusID    int    `json:"status_id"`
	Time        *int64 `json:"time"`
	Metadata    struct {
		Version, UID string
		Sequence     int64
		Product      struct{ Name, VendorName string }
	}
	Actor       *struct{ User *struct{ UID string } }
	API         *struct{ Operation string }
	SrcEndpoint *struct{ IP, Name string } `json:"src_endpoint"`
	User        *struct{ UID string }
	Service     *struct{ Name string }
	Entity      *struct{ UID, Name string }
	App         *struct{ Name string }
	RawData     string `json:"raw_data"`
	Unmapped    struct {
		Index int64
		Leaf  string
	}
}

// What OCSF 1.3.0 requires of every event, and of each class: https://schema.ocsf.io/1.3.0/
func TestOCSFEventsHaveWhatTheirClassRequires(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entry := anEntry(t)
		r := record(t, rapid.Int64Range(0, 1<<53).Draw(t, "index"), entry)
		var e ocsf
		text := line(t, siem.OCSF, r)
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		at, _ := time.Parse(time.RFC3339Nano, entry["time"].(string))
		if e.ActivityID == nil || e.CategoryUID != e.ClassUID/1000 || e.TypeUID != e.ClassUID*100+*e.ActivityID || e.SeverityID == nil || e.Time == nil || *e.Time != at.UnixMilli() ||
			e.Metadata.Version != siem.OCSFVersion || e.Metadata.Product.Name == "" || e.Metadata.Sequence != r.Index || (e.StatusID == 2) != (entry["outcome"] == "failure") {
			t.Fatalf("%s", text)
		}
		if e.RawData != string(r.Entry) || e.Unmapped.Index != r.Index || e.Unmapped.Leaf != base64.StdEncoding.EncodeToString(r.Leaf) {
			t.Fatalf("the entry cannot be traced back: %s", text)
		}
		switch e.ClassUID {
		case 3002:
			if e.User == nil || e.User.UID == "" || e.Service == nil || e.Service.Name == "" {
				t.Fatalf("authentication: %s", text)
			}
		case 3004:
			if e.Entity == nil || e.Entity.UID == "" || e.Entity.Name == "" {
				t.Fatalf("entity management: %s", text)
			}
		case 6002:
			if e.App == nil || e.App.Name == "" {
				t.Fatalf("application lifecycle: %s", text)
			}
		case 6003:
			if e.Actor == nil || e.Actor.User == nil || e.Actor.User.UID == "" || e.API == nil || e.API.Operation == "" || e.SrcEndpoint == nil || e.SrcEndpoint.IP+e.SrcEndpoint.Name == "" {
				t.Fatalf("API activity: %s", text)
			}
		default:
			t.Fatalf("class %d", e.ClassUID)
		}
	})
}

func TestClassesOfEntries(t *testing.T) {
	for kind, want := range map[string]string{
		"login.failed": "Authentication: Logon", "key.destroyed": "Entity Management: Delete", "appliance.stopped": "Application Lifecycle: Stop",
		"audit.viewed": "API Activity: Read", "payment.captured": "API Activity: Update", "what.nobody_knows": "API Activity: Other",
	} {
		if got := siem.Class(kind); got != want {
			t.Errorf("%s: %s", kind, got)
		}
	}
}

func TestWhatIsNoEntryIsRefused(t *testing.T) {
	for _, text := range []string{"", "{", "[]", `{"time":"yesterday"}`, `{"time":7}`} {
		for _, f := range siem.Formats {
			if b, err := f.Append([]byte("before\n"), siem.Record{Entry: []byte(text)}); err == nil || string(b) != "before\n" {
				t.Errorf("%s of %q: %v, %q", f, text, err, b)
			}
		}
	}
	if _, err := siem.Format("cef").Append(nil, record(t, 1, map[string]any{"time": "2030-01-02T03:04:05Z"})); err == nil {
		t.Error("an unknown format was written")
	}
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte(`{"actor":"key:a","node":"n","origin":"::1","outcome":"success","resource":"pay_1","seq":1,"time":"2030-01-02T03:04:05.123456789Z","type":"payment.created","v":1}`))
	f.Add([]byte(`{"time":"0000-01-01T00:00:00Z","type":"` + strings.Repeat("x", 40) + `"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, format := range siem.Formats {
			out, err := format.Append(nil, siem.Record{Log: logName, Leaf: make([]byte, 32), Entry: text})
			if err == nil && (len(out) == 0 || out[len(out)-1] != '\n') {
				t.Errorf("%s: %q", format, out)
			}
		}
	})
}

func ExampleFormat_Append() {
	r := siem.Record{Log: logName, Index: 42, Leaf: make([]byte, 32), Entry: []byte(`{"actor":"unknown","node":"node","origin":"192.0.2.7","outcome":"failure","resource":"api","seq":42,"time":"2030-01-02T03:04:05.123456789Z","type":"login.failed","v":1}`)}
	text, _ := siem.Syslog.Append(nil, r)
	fmt.Println(strings.Split(string(text), "\ufeff")[0])
	// Output: <108>1 2030-01-02T03:04:05.123456Z node finpay - login.failed [finpay@32473 log="finpay.test/node/2030" index="42" leaf="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" type="login.failed" actor="unknown" origin="192.0.2.7" outcome="failure" resource="api"]
}
