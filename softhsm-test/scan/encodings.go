package scan

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// encoding is a way in which a number may have been written down.
type encoding struct {
	name  string
	forms func(Card) [][]byte
}

// encodings are all that are looked for. A form that has another one in it is not here: "number=…" and {"number":"…"} are
// found as ASCII; an ISO 8583 message in BCD as BCD; base64 of a JSON text as base64; an integer of 128 bits as one of
// 64; the hexadecimal of BCD as ASCII. Digits in base64 have no + and no /, so both alphabets write them alike, and in
// hexadecimal no letter.
var encodings = []encoding{
	{"ASCII", ofNumber(func(n string) []byte { return []byte(n) })},
	{"ASCII in groups, spaces", grouped(" ")},
	{"ASCII in groups, dashes", grouped("-")},
	{"ASCII in groups, plus signs", grouped("+")},
	{"ASCII in groups, percent-encoded spaces", grouped("%20")},
	{"percent-encoded digits", ofNumber(func(n string) []byte { return each(n, func(d byte) []byte { return fmt.Appendf(nil, "%%%02X", d) }) })},
	{"UTF-16, little endian", ofNumber(func(n string) []byte { return each(n, func(d byte) []byte { return []byte{d, 0} }) })},
	{"UTF-16, big endian", ofNumber(func(n string) []byte { return each(n, func(d byte) []byte { return []byte{0, d} }) })},
	{"UTF-32, little endian", ofNumber(func(n string) []byte { return each(n, func(d byte) []byte { return []byte{d, 0, 0, 0} }) })},
	{"UTF-32, big endian", ofNumber(func(n string) []byte { return each(n, func(d byte) []byte { return []byte{0, 0, 0, d} }) })},
	{"BCD", bcd},
	{"BCD, begun in the middle of a byte", shiftedBCD},
	{"64-bit integer, big endian", integer(binary.BigEndian)},
	{"64-bit integer, little endian", integer(binary.LittleEndian)},
	{"halves as 64-bit integers", halves},
	{"base64 at offset 0", inBase64(0)},
	{"base64 at offset 1", inBase64(1)},
	{"base64 at offset 2", inBase64(2)},
	{"hexadecimal", ofNumber(func(n string) []byte { return []byte(hex.EncodeToString([]byte(n))) })},
	{"a byte for each digit", ofNumber(func(n string) []byte { return each(n, func(d byte) []byte { return []byte{d - '0'} }) })},
	{"two bytes for each digit, little endian", ofNumber(func(n string) []byte { return each(n, func(d byte) []byte { return []byte{d - '0', 0} }) })},
	{"two bytes for each digit, big endian", ofNumber(func(n string) []byte { return each(n, func(d byte) []byte { return []byte{0, d - '0'} }) })},
	{"four bytes for each digit, little endian", ofNumber(func(n string) []byte { return each(n, func(d byte) []byte { return []byte{d - '0', 0, 0, 0} }) })},
	{"four bytes for each digit, big endian", ofNumber(func(n string) []byte { return each(n, func(d byte) []byte { return []byte{0, 0, 0, d - '0'} }) })},
	{"ASCII, last digit first", ofNumber(func(n string) []byte { return reversed([]byte(n)) })},
	{"a byte for each digit, last digit first", ofNumber(func(n string) []byte { return reversed(each(n, func(d byte) []byte { return []byte{d - '0'} })) })},
	{securityCode + " in a custody record", codeInRecord},
}

func ofNumber(form func(number string) []byte) func(Card) [][]byte {
	return func(c Card) [][]byte { return [][]byte{form(c.Number)} }
}

func each(number string, form func(digit byte) []byte) (all []byte) {
	for _, d := range []byte(number) {
		all = append(all, form(d)...)
	}
	return all
}

func reversed(b []byte) []byte {
	slices.Reverse(b)
	return b
}

// grouped writes a number as it stands on the card: 4-6-5 on American Express, 4-6-4 on Diners, by fours elsewhere.
func grouped(separator string) func(Card) [][]byte {
	return ofNumber(func(n string) []byte {
		var groups []string
		switch len(n) {
		case 15:
			groups = []string{n[:4], n[4:10], n[10:]}
		case 14:
			groups = []string{n[:4], n[4:10], n[10:]}
		default:
			for rest := n; rest != ""; {
				size := min(4, len(rest))
				groups, rest = append(groups, rest[:size]), rest[size:]
			}
		}
		return []byte(strings.Join(groups, separator))
	})
}

// bcd begins and ends with whole bytes; what is odd has a filler of 0 or F at either end, or track 2's separator.
func bcd(c Card) [][]byte {
	if len(c.Number)%2 == 0 {
		return [][]byte{packed(c.Number)}
	}
	return [][]byte{packed("0" + c.Number), packed(c.Number + "0"), packed(c.Number + "f"), packed(c.Number + "d")}
}

// shiftedBCD begins in the middle of a byte, behind something of half a byte.
func shiftedBCD(c Card) (forms [][]byte) {
	if len(c.Number)%2 == 1 {
		return nil // see bcd
	}
	for _, before := range []string{"0", "f"} {
		for _, after := range []string{"0", "f", "d"} {
			forms = append(forms, packed(before+c.Number+after))
		}
	}
	return forms
}

func packed(nibbles string) []byte {
	b, err := hex.DecodeString(nibbles)
	if err != nil {
		panic(err) // a number of digits is hexadecimal
	}
	return b
}

func integer(order binary.AppendByteOrder) func(Card) [][]byte {
	return func(c Card) [][]byte {
		n, err := strconv.ParseUint(c.Number, 10, 64)
		if err != nil {
			return nil // 19 digits may be too many for 64 bits
		}
		return [][]byte{order.AppendUint64(nil, n)}
	}
}

// halves are what FF1 computes with (NIST SP 800-38G, algorithm 7, step 1): of the whole number, and of what comes before
// its last four digits. Both halves side by side are looked for: one alone is a number that anything may have.
func halves(c Card) (forms [][]byte) {
	for _, digits := range []string{c.Number, c.Number[:len(c.Number)-4]} {
		u := len(digits) / 2
		a, errA := strconv.ParseUint(digits[:u], 10, 64)
		b, errB := strconv.ParseUint(digits[u:], 10, 64)
		if errA != nil || errB != nil {
			panic("a card's number is digits")
		}
		forms = append(forms, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, a), b))
	}
	return forms
}

// inBase64 is what base64 of a text has of a number that begins so many bytes after a multiple of three: the characters
// that depend on it alone.
func inBase64(offset int) func(Card) [][]byte {
	return ofNumber(func(n string) []byte {
		text := base64.StdEncoding.EncodeToString(append(bytes.Repeat([]byte{0}, offset), n...))
		return []byte(text[(8*offset+5)/6 : (8*(offset+len(n)))/6])
	})
}
