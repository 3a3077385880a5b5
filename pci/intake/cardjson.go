package intake

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// cardText is a card as one JSON object says it: slices of the body's own memory. A sealed one has key, enc and ct
// (see sealed.go) in place of number and expiry.
type cardText struct {
	number, expiry []byte
	sealedText
}

// parseCardJSON reads {"number": "…", "expiry": "YYYY-MM"} in place, so that no digit leaves the memory that it came in:
// a JSON library would copy what it reads. It is strict: UTF-8 (RFC 8259), names once each (RFC 7493), no other members,
// and strings alone for values. Whatever is wrong is [pci.ErrMalformed] and names no text of the body.
func parseCardJSON(text []byte) (c cardText, err error) {
	if !utf8.Valid(text) {
		return c, malformed("it is not UTF-8")
	}
	s := scanner{rest: text}
	if !s.takes('{') {
		return c, malformed("it is not one JSON object")
	}
	if !s.takes('}') {
		for more := true; more; more = s.takes(',') {
			if err := s.member(&c); err != nil {
				return cardText{}, err
			}
		}
		if !s.takes('}') {
			return cardText{}, malformed("it is not one JSON object")
		}
	}
	if s.space(); len(s.rest) > 0 {
		return cardText{}, malformed("something follows the object")
	}
	return c, nil
}

func malformed(why string) error { return &pci.MalformedError{Why: why} }

// isSealed reports whether any member of a sealed card is there.
func (c cardText) isSealed() bool { return c.key != nil || c.enc != nil || c.ct != nil }

// beginsStream reports whether it is the first line of a sealed stream.
func (c cardText) beginsStream() bool {
	return c.key != nil && c.enc != nil && c.ct == nil && c.number == nil && c.expiry == nil
}

// check returns the card's expiry, or all that is wrong with the card.
func (c cardText) check() (pci.Expiry, error) {
	if c.isSealed() {
		return pci.Expiry{}, malformed("it is a sealed card in a place for an open one")
	}
	var wrong pci.CardErrors
	for _, err := range []error{pan.CheckPAN(c.number), checkExpiryJSON(c.expiry)} {
		if e, ok := err.(*pci.CardError); ok { //nolint:errorlint // both return the type itself
			wrong = append(wrong, e)
		}
	}
	if len(wrong) > 0 {
		return pci.Expiry{}, wrong
	}
	expiry, err := parseExpiry(c.expiry)
	return expiry, err
}

// checkExpiryJSON takes YYYY-MM alone: programs have no need of the forms that people type.
func checkExpiryJSON(expiry []byte) error {
	if len(expiry) > 0 && (len(expiry) != 7 || expiry[4] != '-') {
		return &pci.CardError{Field: pci.FieldExpiry, Reason: pci.ReasonFormat}
	}
	_, err := parseExpiry(expiry)
	return err
}

// scanner walks over JSON text, and decodes strings where they stand.
type scanner struct{ rest []byte }

// member reads "name": "value".
func (s *scanner) member(c *cardText) error {
	name, ok := s.str()
	if !ok {
		return malformed("a name is no string")
	}
	var value *[]byte
	switch string(name) {
	case string(pci.FieldNumber):
		value = &c.number
	case string(pci.FieldExpiry):
		value = &c.expiry
	case "key":
		value = &c.key
	case "enc":
		value = &c.enc
	case "ct":
		value = &c.ct
	case string(pci.FieldCVV):
		return malformed("a security code is not taken here: it may not be kept")
	default:
		return malformed("it has a member that is not known; number and expiry are, or key, enc and ct of a sealed card")
	}
	if *value != nil {
		return malformed("a name stands twice in it")
	}
	if !s.takes(':') {
		return malformed("it is not one JSON object")
	}
	if *value, ok = s.str(); !ok {
		return malformed("a value is no string")
	}
	return nil
}

func (s *scanner) space() {
	s.rest = bytes.TrimLeft(s.rest, " \t\r\n")
}

// takes passes over a byte and the space before it, if it comes next.
func (s *scanner) takes(c byte) bool {
	if s.space(); len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// str reads a string and decodes its escapes in place: no escape is shorter than what it stands for. The result is never
// nil where ok.
func (s *scanner) str() (value []byte, ok bool) {
	if !s.takes('"') {
		return nil, false
	}
	text := s.rest
	out := text[:0]
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			s.rest = text[i+1:]
			return out, true
		case c < ' ':
			return nil, false
		case c == '\\':
			n, r := escape(text[i:])
			if n == 0 {
				return nil, false
			}
			out = utf8.AppendRune(out, r)
			i += n - 1
		default:
			out = append(out, c)
		}
	}
	return nil, false
}

// escape decodes the escape that text begins with; n is its length, 0 where there is none.
func escape(text []byte) (n int, r rune) {
	if len(text) < 2 {
		return 0, 0
	}
	const named, meant = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if at := strings.IndexByte(named, text[1]); at >= 0 {
		return 2, rune(meant[at])
	}
	if r = unicodeEscape(text); r < 0 {
		return 0, 0
	}
	if r < 0xd800 || r > 0xdfff {
		return 6, r
	}
	low := unicodeEscape(text[6:])
	if r > 0xdbff || low < 0xdc00 || low > 0xdfff { // RFC 7493, section 2.1: no lone surrogates
		return 0, 0
	}
	return 12, 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
}

// unicodeEscape returns the value of the \uXXXX that text begins with, or -1.
func unicodeEscape(text []byte) (r rune) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	for _, c := range text[2:6] {
		digit := unhex(c)
		if digit > 15 {
			return -1
		}
		r = r<<4 | rune(digit)
	}
	return r
}
