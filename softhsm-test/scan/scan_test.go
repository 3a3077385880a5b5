package scan

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"pgregory.net/rapid"
)

// marked returns the n-th of cards that nothing else has, of a length in digits.
func marked(n, length int) Card {
	body := fmt.Sprintf("4539%0*d", length-5, 7_263_501+n*8_191)
	sum := 0
	for i := range body {
		d := int(body[len(body)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return Card{Number: body + strconv.Itoa((10-sum%10)%10), CVV: "738"}
}

// plants write a card down in each encoding, in other words than the table does. Each stands in a text of its own.
var plants = map[string]func(Card) []string{
	"ASCII": func(c Card) []string {
		return []string{c.Number, `{"number":"` + c.Number + `","expiry":"2031-12"}`, "number=" + c.Number + "&expiry=12%2F31", "%v" + c.Number + "\x00"}
	},
	"ASCII in groups, spaces":                 func(c Card) []string { return []string{groups(c, " ")} },
	"ASCII in groups, dashes":                 func(c Card) []string { return []string{groups(c, "-")} },
	"ASCII in groups, plus signs":             func(c Card) []string { return []string{"number=" + groups(c, "+")} },
	"ASCII in groups, percent-encoded spaces": func(c Card) []string { return []string{"number=" + groups(c, "%20")} },
	"percent-encoded digits": func(c Card) []string {
		var b strings.Builder
		for _, d := range c.Number {
			b.WriteString("%3" + string(d))
		}
		return []string{b.String()}
	},
	"UTF-16, little endian": func(c Card) []string { return []string{wide(c.Number, 2, false)} },
	"UTF-16, big endian":    func(c Card) []string { return []string{wide(c.Number, 2, true)} },
	"UTF-32, little endian": func(c Card) []string { return []string{wide(c.Number, 4, false)} },
	"UTF-32, big endian":    func(c Card) []string { return []string{wide(c.Number, 4, true)} },
	"BCD": func(c Card) []string {
		if len(c.Number)%2 == 0 { // alone, and as ISO 8583's DE 2 with its length before it
			return []string{nibbles(c.Number), nibbles("16" + c.Number + "003000")}
		}
		return []string{nibbles("0" + c.Number), nibbles(c.Number + "f"), nibbles(c.Number + "0"), nibbles("15" + "0" + c.Number), nibbles(c.Number + "d3112")}
	},
	"BCD, begun in the middle of a byte": func(c Card) []string {
		if len(c.Number)%2 == 1 {
			return nil
		}
		return []string{nibbles("0" + c.Number + "f"), nibbles("0" + c.Number + "0"), nibbles("f" + c.Number + "f"), nibbles("0" + c.Number + "d3112201000f")}
	},
	"64-bit integer, big endian": func(c Card) []string {
		return []string{integerOf(c, false), "\x00\x00\x00\x00\x00\x00\x00\x00" + integerOf(c, false)}
	},
	"64-bit integer, little endian": func(c Card) []string {
		return []string{integerOf(c, true), integerOf(c, true) + "\x00\x00\x00\x00\x00\x00\x00\x00"}
	},
	"halves as 64-bit integers": func(c Card) []string {
		var both []string
		for _, digits := range []string{c.Number, c.Number[:len(c.Number)-4]} {
			u := len(digits) / 2
			both = append(both, integerOf(Card{Number: digits[:u]}, true)+integerOf(Card{Number: digits[u:]}, true))
		}
		return both
	},
	"base64 at offset 0": func(c Card) []string { return inBoth("", c) },
	"base64 at offset 1": func(c Card) []string { return append(inBoth("x", c), inBoth("wxyz", c)...) },
	"base64 at offset 2": func(c Card) []string {
		return append(inBoth("xy", c), inBoth(`{"number":"`, c)[0], inBoth("vwxyz", c)[0])
	},
	"hexadecimal": func(c Card) []string {
		return []string{fmt.Sprintf("%x", c.Number), fmt.Sprintf("%X", "n"+c.Number)}
	},
	"a byte for each digit":                    func(c Card) []string { return []string{numerals(c.Number, 1, false)} },
	"two bytes for each digit, little endian":  func(c Card) []string { return []string{numerals(c.Number, 2, false)} },
	"two bytes for each digit, big endian":     func(c Card) []string { return []string{numerals(c.Number, 2, true)} },
	"four bytes for each digit, little endian": func(c Card) []string { return []string{numerals(c.Number, 4, false)} },
	"four bytes for each digit, big endian":    func(c Card) []string { return []string{numerals(c.Number, 4, true)} },
	"ASCII, last digit first":                  func(c Card) []string { return []string{backwards(c.Number)} },
	"a byte for each digit, last digit first":  func(c Card) []string { return []string{numerals(backwards(c.Number), 1, false)} },
	"security code in a custody record": func(c Card) []string {
		if len(c.Number) > 17 {
			return nil
		}
		record := make([]byte, 28) // the number is gone: see pci/internal/pan
		record[0], record[1], record[2], record[3] = 1, 31, 12, byte(len(c.Number))
		copy(record[4:], strings.Repeat("\xff", len(c.Number)))
		record[23] = byte(len(c.CVV))
		copy(record[24:], c.CVV)
		return []string{string(record)}
	},
}

func groups(c Card, separator string) string {
	n := c.Number
	if len(n) == 15 || len(n) == 14 {
		return n[:4] + separator + n[4:10] + separator + n[10:]
	}
	var parts []string
	for part := range slices.Chunk([]byte(n), 4) {
		parts = append(parts, string(part))
	}
	return strings.Join(parts, separator)
}

func wide(text string, width int, big bool) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		one := make([]byte, width)
		if big {
			one[width-1] = byte(unit)
		} else {
			one[0] = byte(unit)
		}
		b = append(b, one...)
	}
	return string(b)
}

func numerals(number string, width int, big bool) string {
	return string(minus([]byte(wide(number, width, big)), width, big))
}

// minus takes '0' off each digit of a wide text.
func minus(text []byte, width int, big bool) []byte {
	for i := range text {
		if big && i%width == width-1 || !big && i%width == 0 {
			text[i] -= '0'
		}
	}
	return text
}

func nibbles(text string) string {
	if len(text)%2 == 1 {
		text += "0"
	}
	n, ok := new(big.Int).SetString(text, 16)
	if !ok {
		panic(text)
	}
	return string(n.FillBytes(make([]byte, len(text)/2)))
}

func integerOf(c Card, little bool) string {
	n, ok := new(big.Int).SetString(c.Number, 10)
	if !ok || n.BitLen() > 64 {
		return ""
	}
	b := n.FillBytes(make([]byte, 8))
	if little {
		slices.Reverse(b)
	}
	return string(b)
}

func inBoth(before string, c Card) []string {
	text := []byte(before + c.Number + `","expiry":"2031-12"}`)
	return []string{base64.StdEncoding.EncodeToString(text), base64.RawURLEncoding.EncodeToString(text)}
}

func backwards(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// Each encoding is found where it is planted, and by nothing else in the table: without it the plant is missed.
func TestEachEncodingIsFoundAndNoneIsInVain(t *testing.T) {
	if len(plants) != len(encodings) {
		t.Errorf("%d plants for %d encodings", len(plants), len(encodings))
	}
	for i, e := range encodings {
		for _, length := range []int{12, 13, 14, 15, 16, 17, 18, 19} {
			card := marked(i, length)
			whole := New(card)
			without := newScanner(slices.Delete(slices.Clone(encodings), i, i+1), []Card{card})
			for _, plant := range plants[e.name](card) {
				text := []byte("before" + plant + "after")
				if plant == "" {
					continue
				}
				hits := whole.Text(text, "here")
				if !slices.ContainsFunc(hits, func(h Hit) bool { return h.Encoding == e.name }) {
					t.Errorf("%s of %d digits is not found: %x", e.name, length, plant)
				}
				if left := without.Text(text, "here"); len(left) > 0 {
					t.Errorf("%s of %d digits is found as %s too: the table says it twice", e.name, length, left[0].Encoding)
				}
			}
		}
	}
}

func TestAReportShowsNoDigits(t *testing.T) {
	card := marked(1, 16)
	s := New(card)
	for name, plant := range plants {
		for _, p := range plant(card) {
			for _, hit := range s.Text([]byte("number=12, cvv=999&"+p+" 4111111111111111"), "here") {
				if strings.Contains(hit.String(), card.Number[6:12]) || strings.Contains(hit.Around, "4111") || strings.Contains(hit.Around, "999") || strings.ContainsAny(hit.Around[:8], "0123456789") {
					t.Errorf("%s: %s", name, hit)
				}
			}
		}
	}
}

func TestALabelledSecurityCodeIsFound(t *testing.T) {
	s := New(Card{Number: marked(1, 16).Number, CVV: "123"}, Card{Number: marked(2, 16).Number, CVV: "1234"}, Card{Number: marked(3, 16).Number, CVV: "999"})
	for _, planted := range []string{"number=x&cvv=123&name=y", `{"cvv":"123"}`, `{"cardSecurityCode": "1234"}`, "cvc: 123", "CVV2=999", "cvv%3D123",
		"level=INFO security_code=123", "<csc>123</csc>", `'cvc':'123'`, "cvv=123",
		`{\"cvv\":\"123\"}`, `"cardCvv":"123"`, `"cardSecurityCode":"123"`, `"card_cvv2":"123"`, "CARD_VERIFICATION_VALUE=123"} {
		if len(LabelledCodes([]byte("before "+planted), "")) != 1 {
			t.Errorf("%s was not found", planted)
		}
		if len(s.Text([]byte("before "+planted), "")) == 0 {
			t.Errorf("%s was not found among the marked ones", planted)
		}
	}
	for _, harmless := range []string{"5Nq0Lcvc=\n\n— finpay", "cvv=12345", "the cvv was missing", "cvv=&name=y", `"PAAKTKCSC":"005e1f"`, `"PAAKTKCSC":"0051"`, "cvc=123f"} {
		if len(LabelledCodes([]byte(harmless), "")) > 0 || len(s.Text([]byte(harmless), "")) > 0 {
			t.Errorf("%q was taken for one", harmless)
		}
	}
}

// The pieces in which memory is read change nothing.
func TestAHitOnTheEdgeOfAPieceIsFoundOnce(t *testing.T) {
	card := marked(5, 16)
	s := New(card)
	const piece = 4096
	text := bytes.Repeat([]byte{'.'}, 2*piece+1000)
	var want []int64
	for _, at := range []int{0, piece - 60, piece - 1 - 2*len(card.Number), piece - 3, piece + 40, 2*piece - 16, 2 * piece, len(text) - 16} {
		copy(text[at:], card.Number)
	}
	copy(text[100:], wide(card.Number, 4, false))
	whole := s.Text(text, "")
	for _, h := range whole {
		want = append(want, h.Offset)
	}
	var found Memory
	n, err := s.region(bytes.NewReader(text), Mapping{Start: 0, End: uint64(len(text))}, piece, &found)
	var got []int64
	for _, h := range found.Hits {
		got = append(got, h.Offset)
	}
	if err != nil || n != int64(len(text)) || !slices.Equal(got, want) || len(want) < 7 {
		t.Errorf("%v, %d bytes: %v, want %v", err, n, got, want)
	}
}

func TestFilesAreSearchedWhole(t *testing.T) {
	dir := t.TempDir()
	card := marked(6, 16)
	s := New(card)
	for name, text := range map[string]string{"clean": strings.Repeat("0123456789", 10_000), "a/freed page.db": strings.Repeat("\x00", 8192), "log": "cvv was missing"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if hits, files, err := s.Files(dir); err != nil || files != 3 || len(hits) > 0 {
		t.Fatalf("in clean files: %v, %d files, %v", hits, files, err)
	}
	for i, e := range encodings {
		for j, plant := range plants[e.name](card) {
			path := filepath.Join(dir, fmt.Sprint("plant ", i, " ", j))
			if err := os.WriteFile(path, []byte(strings.Repeat("x", 5000)+plant), 0o600); err != nil {
				t.Fatal(err)
			}
			hits, _, err := s.Files(dir)
			if err != nil || len(hits) == 0 || hits[0].Place != path {
				t.Errorf("%s: %v, %v", e.name, hits, err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "form"), []byte("cvv=412&"), 0o600); err != nil { // whosever it is
		t.Fatal(err)
	}
	if hits, _, err := s.Files(dir); err != nil || len(hits) != 1 || hits[0].Encoding != "security code under a label" {
		t.Errorf("%v, %v", hits, err)
	}
	if _, _, err := s.Files(filepath.Join(dir, "is not there")); err == nil {
		t.Error("a directory that is not there was searched")
	}
}

// Random bytes hold no card; and wherever one is put among them, it is found.
func TestAmongRandomBytes(t *testing.T) {
	card := marked(7, 16)
	s := New(card, marked(8, 15), marked(9, 13))
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.Byte(), 0, 256).Draw(t, "text")
		if hits := s.Text(text, ""); len(hits) > 0 {
			t.Fatalf("%v", hits)
		}
		e := rapid.SampledFrom(encodings).Draw(t, "encoding")
		plant := rapid.SampledFrom(plants[e.name](card)).Draw(t, "plant")
		at := rapid.IntRange(0, len(text)).Draw(t, "at")
		if hits := s.Text(slices.Concat(text[:at], []byte(plant), text[at:]), ""); len(hits) == 0 {
			t.Fatalf("%s at %d is not found", e.name, at)
		}
	})
}

func BenchmarkText(b *testing.B) {
	var cards []Card
	for i := range 40 {
		cards = append(cards, marked(i, 16))
	}
	s := New(cards...)
	text := make([]byte, 64<<20)
	for i := range text {
		text[i] = byte(i * i >> 7 * 31)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if hits := s.Text(text, ""); len(hits) > 0 {
			b.Fatal(hits)
		}
	}
}
