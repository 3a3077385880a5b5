package pci

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// LooksLikePAN reports whether s contains a run of 13 to 19 digits, spaces and dashes left out, that begins like a
// card number and has its check digit. It guards fields that are kept or logged against a card that was put into
// the wrong one. Digits, spaces and dashes of any script count. Other punctuation (4111.1111.1111.1111) is left out
// only where the digits are grouped as on a card: version numbers and addresses have it too.
//
// Numbers that only stand beside the card (an expiry, an order number) do not hide it. UUIDs, long hexadecimal
// identifiers and this appliance's own (pay_01J…) are passed over: among their digits such a run comes up by chance.
func LooksLikePAN(s string) bool {
	s = plain(s)
	if looksPrinted(s) {
		return true
	}
	var room [64]byte
	run := groups{digits: room[:0]}
	if len(s) > len(room) {
		run.digits = make([]byte, 0, len(s)) // never moved, so that all of it is cleared
	}
	defer func() { clear(run.digits[:cap(run.digits)]) }()
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			if i > 0 && isWord(s[i-1]) {
				break
			}
			n := identifier(s[i:])
			if n == 0 && i > 0 && s[i-1] == '_' {
				n = ulid(s[i:])
			}
			if n > 0 {
				if run.hidesPAN() {
					return true
				}
				run.clear()
				i += n - 1
				continue
			}
		case c == ' ', c == '-':
			run.split()
			continue
		}
		if s[i] >= '0' && s[i] <= '9' {
			run.digit(s[i] - '0')
			continue
		}
		if run.hidesPAN() {
			return true
		}
		run.clear()
	}
	return run.hidesPAN()
}

// plain writes digits, spaces and dashes of any script in ASCII, and leaves out what has no width.
func plain(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r < utf8.RuneSelf:
			return r
		case unicode.IsDigit(r):
			return digitOf(r)
		case unicode.Is(unicode.Zs, r):
			return ' '
		case unicode.Is(unicode.Pd, r):
			return '-'
		case unicode.Is(unicode.Cf, r):
			return -1
		case r >= '！' && r <= '～': // fullwidth forms of ASCII
			return r - '！' + '!'
		}
		return r
	}, s)
}

// digitOf returns the ASCII digit of a decimal digit of any script. Unicode keeps the ten digits of a script
// together, from zero on.
func digitOf(r rune) rune {
	for _, t := range unicode.Nd.R16 {
		if lo, hi := rune(t.Lo), rune(t.Hi); lo <= r && r <= hi {
			return '0' + (r-lo)%10
		}
	}
	for _, t := range unicode.Nd.R32 {
		if lo, hi := rune(t.Lo), rune(t.Hi); lo <= r && r <= hi {
			return '0' + (r-lo)%10
		}
	}
	return r
}

// printed is how numbers are grouped on cards, with whatever punctuation between: 4-4-4-4 and longer, 4-6-5, 4-6-4.
var printed = regexp.MustCompile(`[2-6][0-9]{3}[./_,:](?:[0-9]{4}[./_,:][0-9]{4}[./_,:][0-9]{4}(?:[./_,:][0-9]{1,3})?|[0-9]{6}[./_,:][0-9]{4,5})`)

func looksPrinted(s string) bool {
	for from := 0; ; {
		at := printed.FindStringIndex(s[from:])
		if at == nil {
			return false
		}
		digits := make([]byte, 0, at[1]-at[0])
		for _, c := range []byte(s[from+at[0] : from+at[1]]) {
			if c >= '0' && c <= '9' {
				digits = append(digits, c-'0')
			}
		}
		// A group more or a digit less may be what stands beside the number.
		valid := false
		for _, n := range []int{len(digits), 16, 14} {
			valid = valid || n <= len(digits) && luhnValid(digits[:n])
		}
		clear(digits)
		if valid {
			return true
		}
		from += at[0] + 1
	}
}

// groups are digits, of which some begin a new group.
type groups struct {
	digits []byte
	starts []int
	open   bool
}

func (g *groups) digit(d byte) {
	if !g.open {
		g.starts, g.open = append(g.starts, len(g.digits)), true
	}
	g.digits = append(g.digits, d)
}

func (g *groups) split() { g.open = false }

func (g *groups) clear() { *g = groups{g.digits[:0], g.starts[:0], false} }

// hidesPAN reports whether some groups in a row make a card number.
func (g *groups) hidesPAN() bool {
	ends := append(g.starts, len(g.digits))
	for i, from := range g.starts {
		if d := g.digits[from]; d < 2 || d > 6 {
			continue
		}
		for _, to := range ends[i+1:] {
			if to-from > 19 {
				break
			}
			if to-from >= 13 && luhnValid(g.digits[from:to]) {
				return true
			}
		}
	}
	return false
}

// identifier returns the length of the UUID, or of the hexadecimal word of 24 and more characters with a letter in
// it, that s begins with; 0 if there is none.
func identifier(s string) int {
	const uuid, shortest = 36, 24
	hex, letters := 0, 0
	for hex < len(s) && isHex(s[hex]) {
		if s[hex] > '9' {
			letters++
		}
		hex++
	}
	if hex >= shortest && letters > 0 && (hex == len(s) || !isWord(s[hex])) {
		return hex
	}
	if hex != 8 || len(s) < uuid || len(s) > uuid && isWord(s[uuid]) {
		return 0
	}
	for i := range uuid {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (s[i] == '-') || !dash && !isHex(s[i]) {
			return 0
		}
	}
	return uuid
}

// ulid returns the length of the ULID that s begins with; 0 if there is none. Its first ten characters are the time in
// Crockford's base 32, and begin so until the year 2109.
func ulid(s string) int {
	const length = 26
	if len(s) < length || s[0] != '0' || s[1] < '1' || s[1] > '3' || len(s) > length && isWord(s[length]) {
		return 0
	}
	letters := 0
	for i := range length {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
		case c >= 'A' && c <= 'Z' && c != 'I' && c != 'L' && c != 'O' && c != 'U':
			letters++
		default:
			return 0
		}
	}
	if letters == 0 {
		return 0
	}
	return length
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

func isWord(c byte) bool { return isHex(c) || c >= 'g' && c <= 'z' || c >= 'G' && c <= 'Z' }

func luhnValid(digits []byte) bool {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i])
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}
