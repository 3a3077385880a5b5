package iso8583_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

var specs = []*iso8583.Spec{iso8583.ASCII1987, iso8583.Binary1987, iso8583.ASCII1993, iso8583.Binary1993}

// field is one field of a message in a test.
type field struct {
	de    int
	value string
}

func pack(spec *iso8583.Spec, mti string, fields []field) ([]byte, error) {
	w := iso8583.NewWriter(spec, make([]byte, 0, iso8583.MaxFrame), mti)
	for _, f := range fields {
		w.Text(f.de, f.value)
	}
	return w.Finish()
}

// repack packs what was parsed.
func repack(spec *iso8583.Spec, m *iso8583.Message) ([]byte, error) {
	w := iso8583.NewWriter(spec, make([]byte, 0, 2*iso8583.MaxFrame), m.MTI())
	if m.Has(1) {
		w.Extend()
	}
	for de := range m.Fields() {
		w.Bytes(de, m.AppendTo(nil, de))
	}
	return w.Finish()
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// messages stand beside their bytes, put together by hand from the standard's layout.
var messages = []struct {
	name   string
	spec   *iso8583.Spec
	mti    string
	fields []field
	ascii  string // the bytes, in characters
	hex    string // or in hexadecimal
}{
	{
		name: "sign-on, characters", spec: iso8583.ASCII1987, mti: "0800",
		fields: []field{{7, "0102030405"}, {11, "000001"}, {70, "001"}},
		ascii:  "0800" + "8220000000000000" + "0400000000000000" + "0102030405" + "000001" + "001",
	},
	{
		name: "sign-on, binary", spec: iso8583.Binary1987, mti: "0800",
		fields: []field{{7, "0102030405"}, {11, "000001"}, {70, "001"}},
		hex:    "0800 8220000000000000 0400000000000000 0102030405 000001 0001",
	},
	{
		name: "sale, characters", spec: iso8583.ASCII1987, mti: "0200",
		fields: []field{{2, "4111111111111111"}, {3, "000000"}, {4, "000000012345"}, {11, "000042"}, {22, "010"},
			{32, "123456"}, {41, "TERM1"}, {48, "4202054303abc"}, {49, "978"}},
		ascii: "0200" + "7020040100818000" + "164111111111111111" + "000000" + "000000012345" + "000042" + "010" +
			"06123456" + "TERM1   " + "0134202054303abc" + "978",
	},
	{
		name: "sale with a card of 15 digits, binary", spec: iso8583.Binary1987, mti: "0200",
		fields: []field{{2, "378282246310005"}, {3, "000000"}, {4, "000000012345"}, {11, "000042"}, {22, "010"},
			{41, "TERM1"}, {49, "978"}},
		hex: "0200 7020040000808000 15 0378282246310005 000000 000000012345 000042 0010 5445524d31202020 393738",
	},
	{
		name: "answer with fee and tags, binary", spec: iso8583.Binary1987, mti: "0210",
		fields: []field{{28, "C00000012"}, {38, "A1B2C3"}, {39, "00"}, {52, "\x00\x01\xfe\xff\x10\x20\x30\x40"}, {55, "\x9f\x26\x01"}},
		hex:    "0210 0000001006001200 43303030303030 3132 413142324333 3030 0001feff10203040 0003 9f2601",
	},
	{
		name: "PIN block, characters", spec: iso8583.ASCII1987, mti: "0100",
		fields: []field{{52, "\x00\x01\xfe\xff\x10\x20\x30\x40"}},
		ascii:  "0100" + "0000000000001000" + "0001FEFF10203040",
	},
	{
		name: "track 2, binary", spec: iso8583.Binary1987, mti: "0100",
		fields: []field{{35, "4111111111111111=2512101"}},
		hex:    "0100 0000000020000000 24 4111111111111111d2512101",
	},
	{
		name: "reversal, binary", spec: iso8583.Binary1987, mti: "0400",
		fields: []field{{90, "020000004201020304050000012345600000000000"}},
		hex:    "0400 8000000000000000 0000004000000000 020000004201020304050000012345600000000000",
	},
	{
		name: "sign-on of 1993, characters", spec: iso8583.ASCII1993, mti: "1804",
		fields: []field{{7, "0102030405"}, {11, "000001"}, {12, "300102030405"}, {24, "801"}},
		ascii:  "1804" + "0230010000000000" + "0102030405" + "000001" + "300102030405" + "801",
	},
	{
		name: "reversal of 1993, binary", spec: iso8583.Binary1993, mti: "1420",
		fields: []field{{2, "378282246310005"}, {24, "400"}, {39, "400"}, {56, "120000004230010203040506123456"}},
		hex:    "1420 4000010002000100 15 0378282246310005 0400 0400 30 120000004230010203040506123456",
	},
}

func TestKnownMessages(t *testing.T) {
	for _, tt := range messages {
		t.Run(tt.name, func(t *testing.T) {
			want := []byte(tt.ascii)
			if tt.hex != "" {
				want = unhex(t, tt.hex)
			}
			got, err := pack(tt.spec, tt.mti, tt.fields)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("packed\n%x, want\n%x", got, want)
			}
			m, err := iso8583.Parse(tt.spec, want)
			if err != nil {
				t.Fatal(err)
			}
			if m.MTI() != tt.mti {
				t.Errorf("MTI is %s, want %s", m.MTI(), tt.mti)
			}
			i := 0
			for de := range m.Fields() {
				value := strings.TrimRight(string(m.AppendTo(nil, de)), " ")
				if i >= len(tt.fields) || de != tt.fields[i].de || value != tt.fields[i].value {
					t.Fatalf("DE %d is %q, want %v", de, value, tt.fields[i])
				}
				i++
			}
		})
	}
}

func TestFaultyMessagesAreRefused(t *testing.T) {
	const head = "0200" + "4000000000000000" // a PAN only
	tests := []struct {
		name, ascii, want string
	}{
		{"empty", "", "iso8583: MTI: cut short"},
		{"letters for a type", "02A0" + "4000000000000000" + "0212", "iso8583: MTI: not four digits"},
		{"1993 type", "1200" + "4000000000000000" + "0212", "iso8583: MTI: not of the edition that ascii1987 describes"},
		{"no bitmap", "0200" + "40000000", "iso8583: bitmap: cut short"},
		{"lower-case bitmap", "0200" + "400000000000000a", "iso8583: bitmap: not upper-case hexadecimal"},
		{"no secondary bitmap", "0200" + "8000000000000000", "iso8583: bitmap: cut short"},
		{"third bitmap", "0200" + "8000000000000000" + "8000000000000000" + "00000000", "iso8583: DE 65: not defined in ascii1987"},
		{"no length", head + "1", "iso8583: DE 2: length cut short"},
		{"length in letters", head + "x6", "iso8583: DE 2: length is not a number"},
		{"too long", head + "20" + strings.Repeat("1", 20), "iso8583: DE 2: length 20 exceeds 19"},
		{"field cut short", head + "16411111111111111", "iso8583: DE 2: cut short"},
		{"letter in a PAN", head + "16411111111111111x", "iso8583: DE 2: a character is not of kind n"},
		{"trailing bytes", head + "164111111111111111" + "00", "iso8583: message: 2 bytes after the last field"},
		{"control character", "0200" + "0000000000800000" + "TERM\n   ", "iso8583: DE 41: a character is not of kind ans"},
		{"fee without sign", "0200" + "0000001000000000" + "000000012", "iso8583: DE 28: a character is not of kind x+n"},
		{"lower-case MAC", "0200" + "0000000000000001" + "00000000000000ff", "iso8583: DE 64: a character is not of kind b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := iso8583.Parse(iso8583.ASCII1987, []byte(tt.ascii))
			if err == nil || err.Error() != tt.want {
				t.Fatalf("error %v, want %s", err, tt.want)
			}
			if fault := new(iso8583.Error); !errors.As(err, &fault) {
				t.Fatalf("%T is no *Error", err)
			}
		})
	}
}

func TestFaultyBCDIsRefused(t *testing.T) {
	for name, wire := range map[string]string{
		"pad nibble is not zero": "0200 4000000000000000 15 1378282246310005",
		"digit above nine":       "0200 4000000000000000 15 0a78282246310005",
		"length above nine":      "0200 4000000000000000 1f 0378282246310005",
		"type above nine":        "02f0 4000000000000000 15 0378282246310005",
	} {
		if _, err := iso8583.Parse(iso8583.Binary1987, unhex(t, wire)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFaultyValuesAreNotPacked(t *testing.T) {
	const pan = "4111111111111111"
	tests := []struct {
		name   string
		mti    string
		fields []field
		want   string
	}{
		{"too long", "0200", []field{{35, strings.Repeat("4", 40)}}, "iso8583: DE 35: length 40 exceeds 37"},
		{"too short", "0200", []field{{4, "123"}}, "iso8583: DE 4: length 3 is not 12"},
		{"wrong class", "0200", []field{{2, pan[:15] + "O"}}, "iso8583: DE 2: a character is not of kind n"},
		{"descending", "0200", []field{{3, "000000"}, {2, pan}}, "iso8583: DE 2: written after DE 3"},
		{"twice", "0200", []field{{2, pan}, {2, pan}}, "iso8583: DE 2: written after DE 2"},
		{"not defined", "0200", []field{{65, "1"}}, "iso8583: DE 65: not defined in ascii1987"},
		{"out of range", "0200", []field{{129, "1"}}, "iso8583: DE 129: not defined in ascii1987"},
		{"bitmap as a field", "0200", []field{{1, "1"}}, "iso8583: DE 1: not defined in ascii1987"},
		{"type", "200", nil, "iso8583: MTI: not four digits"},
		{"fault is kept", "0200", []field{{4, "1"}, {11, "000001"}}, "iso8583: DE 4: length 1 is not 12"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := pack(iso8583.ASCII1987, tt.mti, tt.fields)
			if err == nil || err.Error() != tt.want {
				t.Fatalf("error %v, want %s", err, tt.want)
			}
		})
	}
}

func TestMessageNeverGrowsItsBuffer(t *testing.T) {
	whole, err := pack(iso8583.ASCII1987, "0800", messages[0].fields)
	if err != nil {
		t.Fatal(err)
	}
	for room := range len(whole) {
		memory := bytes.Repeat([]byte{0xEE}, len(whole)+8)
		w := iso8583.NewWriter(iso8583.ASCII1987, memory[:0:room], "0800")
		for _, f := range messages[0].fields {
			w.Text(f.de, f.value)
		}
		if _, err := w.Finish(); err == nil {
			t.Fatalf("%d bytes were packed into %d", len(whole), room)
		}
		if !bytes.Equal(memory[room:], bytes.Repeat([]byte{0xEE}, len(memory)-room)) {
			t.Fatalf("wrote beyond %d bytes", room)
		}
	}
}

func TestMessageStandsAfterWhatTheBufferHolds(t *testing.T) {
	memory := make([]byte, 2, 100)
	w := iso8583.NewWriter(iso8583.Binary1987, memory, "0800")
	w.Uint(11, 7)
	frame, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := iso8583.Binary2.Put(frame); err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, "000d 0800 0020000000000000 000007"); !bytes.Equal(frame, want) {
		t.Fatalf("frame %x, want %x", frame, want)
	}
	if &frame[0] != &memory[0] {
		t.Error("the message left its buffer")
	}
}

func TestPackingAllocatesNothing(t *testing.T) {
	memory := make([]byte, 0, iso8583.MaxFrame)
	pan := []byte("4111111111111111")
	for _, spec := range []*iso8583.Spec{iso8583.ASCII1987, iso8583.Binary1987} {
		got := testing.AllocsPerRun(100, func() {
			w := iso8583.NewWriter(spec, memory[:2], "0400")
			w.Bytes(2, pan)
			w.Uint(4, 12345)
			w.Text(41, "TERM1")
			w.Text(48, "420205")
			w.Text(90, "020000004201020304050000012345600000000000")
			if _, err := w.Finish(); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations for a message", spec.Name, got)
		}
	}
}

func TestParsingIntoTheSameMessageAllocatesNothing(t *testing.T) {
	for _, tt := range messages {
		wire, err := pack(tt.spec, tt.mti, tt.fields)
		if err != nil {
			t.Fatal(err)
		}
		m := new(iso8583.Message)
		got := testing.AllocsPerRun(100, func() {
			if err := m.Parse(tt.spec, wire); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations", tt.name, got)
		}
	}
}

func TestNothingOfTheMessageBeforeIsLeft(t *testing.T) {
	m := new(iso8583.Message)
	for _, tt := range messages {
		wire, err := pack(tt.spec, tt.mti, tt.fields)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Parse(tt.spec, wire); err != nil {
			t.Fatal(err)
		}
		again, err := repack(tt.spec, m)
		if err != nil || !bytes.Equal(again, wire) {
			t.Errorf("%s: packs again to %x, %v", tt.name, again, err)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, spec := range []*iso8583.Spec{iso8583.ASCII1987, iso8583.Binary1987} {
		w := iso8583.NewWriter(spec, make([]byte, 0, 200), "0200")
		w.Uint(4, 999999999999)
		w.Uint(11, 0)
		w.Uint(32, 123)
		wire, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		m, err := iso8583.Parse(spec, wire)
		if err != nil {
			t.Fatal(err)
		}
		for de, want := range map[int]uint64{4: 999999999999, 11: 0, 32: 123} {
			if got, err := m.Uint(de); err != nil || got != want {
				t.Errorf("%s DE %d: %d, %v, want %d", spec.Name, de, got, err, want)
			}
		}
		if m.Text(11) != "000000" || m.Text(32) != "123" {
			t.Errorf("%s: STAN %q, acquirer %q", spec.Name, m.Text(11), m.Text(32))
		}
		if _, err := m.Uint(5); err == nil {
			t.Error("an absent field is a number")
		}
	}
	w := iso8583.NewWriter(iso8583.ASCII1987, make([]byte, 0, 200), "0200")
	w.Uint(4, 1e12)
	if _, err := w.Finish(); err == nil {
		t.Error("an amount of 13 digits was packed")
	}
}

func TestNoWayToPrintAMessageShowsTheCard(t *testing.T) {
	secrets := []field{{2, "4111111111111111"}, {14, "3012"}, {35, "4111111111111111=3012"}, {45, "B4111111111111111^X"},
		{48, "9203737"}, {52, "12345678"}, {55, "4111111111111111"}}
	shown := []field{{11, "000042"}, {37, "RRN000000001"}, {39, "51"}}
	fields := []field{secrets[0], shown[0], secrets[1], secrets[2], shown[1], shown[2], secrets[3], secrets[4], secrets[5], secrets[6]}
	wire, err := pack(iso8583.ASCII1987, "0210", fields)
	if err != nil {
		t.Fatal(err)
	}
	m, err := iso8583.Parse(iso8583.ASCII1987, wire)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "m", m, "v", *m)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "m", m, "v", *m)
	asJSON, err := json.Marshal(m) //nolint:staticcheck // SA9005: that nothing is exported is what is tested
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "%v %+v %#v %s %q %x %d %v %#v %s", m, m, m, m, m, m, m, *m, *m, asJSON)
	w := iso8583.NewWriter(iso8583.ASCII1987, make([]byte, 0, 100), "0200")
	w.Text(2, "4111111111111111")
	fmt.Fprintf(&out, "%v %+v %#v", w, &w, w)
	for _, s := range secrets {
		if strings.Contains(out.String(), s.value) || strings.Contains(out.String(), hex.EncodeToString([]byte(s.value))) {
			t.Errorf("DE %d is shown", s.de)
		}
		if m.Text(s.de) != "" {
			t.Errorf("DE %d is given as a string", s.de)
		}
	}
	if want := "0210 STAN=000042 RRN=RRN000000001 RC=51"; m.String() != want {
		t.Errorf("String is %q, want %q", m, want)
	}
}

func TestWipedFieldIsGoneFromTheBuffer(t *testing.T) {
	wire, err := pack(iso8583.ASCII1987, "0210", []field{{2, "4111111111111111"}, {11, "000042"}, {48, "9203737"}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := iso8583.Parse(iso8583.ASCII1987, wire)
	if err != nil {
		t.Fatal(err)
	}
	m.WipeCardData()
	if m.Has(2) || m.Has(48) || len(m.AppendTo(nil, 2)) != 0 {
		t.Error("wiped fields are still there")
	}
	if bytes.Contains(wire, []byte("4111")) || bytes.Contains(wire, []byte("737")) {
		t.Error("wiped fields are still in the buffer")
	}
	if m.Text(11) != "000042" {
		t.Error("another field was wiped")
	}
}

func TestSpecAndHeaderNames(t *testing.T) {
	for _, want := range specs {
		if got, err := iso8583.SpecNamed(want.Name); err != nil || got != want {
			t.Errorf("%s: %v", want.Name, err)
		}
	}
	if _, err := iso8583.SpecNamed("2003"); err == nil {
		t.Error("an unknown spec was found")
	}
	if h, err := iso8583.HeaderNamed(""); err != nil || h != iso8583.Binary2 {
		t.Errorf("default header is %q, %v", h, err)
	}
	if _, err := iso8583.HeaderNamed("tpdu"); err == nil {
		t.Error("an unknown header was found")
	}
}
