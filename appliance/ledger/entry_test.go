package ledger

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"
)

// canonicalized is the entry as the general encoder and canonicalizer make it.
func canonicalized(e Entry) ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	value := jsontext.Value(text)
	err = value.Canonicalize()
	return value, err
}

// drawText draws what a careless writer could put into an entry, bytes that are not UTF-8 among it.
func drawText(t *rapid.T, label string) string {
	return rapid.OneOf(rapid.StringMatching(`[a-z_:/0-9]{0,12}`), rapid.String(), rapid.SampledFrom([]string{"<a href=\"\">&", "\u2028\u2029", "\x00\x1f\x7f\\", "\xff\xfe", "é\U0001F4B3\uFFFD"})).
		Draw(t, label)
}

func drawValue(t *rapid.T) any {
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return rapid.Int64().Draw(t, "int64")
	case 1:
		return rapid.IntRange(-maxExact-2, -maxExact+2).Draw(t, "int")
	case 2:
		return rapid.Uint32().Draw(t, "uint32")
	case 3:
		return rapid.Bool().Draw(t, "bool")
	case 4:
		return rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64).Draw(t, "float64")
	case 5:
		return []string{drawText(t, "element"), drawText(t, "element")}
	case 6:
		return map[string]any{drawText(t, "inner"): drawText(t, "value"), "\uE000": 1, "\U00010000": nil} // UTF-16 has another order
	case 7:
		return rapid.Uint64().Draw(t, "uint64")
	default:
		return drawText(t, "text")
	}
}

func TestARecordIsTheCanonicalFormOfItsEntry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Entry{Version: entryVersion, Sequence: rapid.Int64Range(0, maxExact).Draw(t, "seq"), Time: "2030-01-02T03:04:05.000000006Z", Node: drawText(t, "node"), Type: drawText(t, "type"),
			Actor: drawText(t, "actor"), Origin: drawText(t, "origin"), Outcome: Success, Resource: drawText(t, "resource")}
		if rapid.Bool().Draw(t, "has rows") {
			e.Rows = rapid.MapOfN(rapid.Custom(func(t *rapid.T) string { return drawText(t, "row") }), rapid.StringMatching(`[0-9a-f]{8}`), 0, 4).Draw(t, "rows")
		}
		e.Data = rapid.MapOfN(rapid.Custom(func(t *rapid.T) string { return drawText(t, "name") }), rapid.Custom(drawValue), 0, 5).Draw(t, "data")
		want, wantErr := canonicalized(e)
		got, err := e.appendRecord([]byte("before"))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, want %v", err, wantErr)
		}
		if err == nil && string(got) != "before\x00"+string(want) {
			t.Fatalf("%s\nwant %s", got, want)
		}
	})
}

func TestAnEntryHasABound(t *testing.T) {
	e := Entry{Type: "t"}
	bare, err := e.appendRecord(nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Actor = strings.Repeat("a", maxEntry-(len(bare)-1))
	if got, err := e.appendRecord(nil); err != nil || len(got) != 1+maxEntry {
		t.Errorf("%d bytes: %v", len(got), err)
	}
	e.Actor += "a"
	if _, err := e.appendRecord(nil); err == nil {
		t.Error("one byte more was taken")
	}
}
