package tokenization

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/ff1"
	"github.com/finterra/finpay/pci/internal/pan"
)

// lead is the first digit of a [pci.TokenLast4] token.
const lead = '9'

// Digits of a PAN that a [pci.TokenBIN6Last4] token shows.
const (
	shownFirst = 6
	shownLast  = 4
)

// formats are all of them, each at the place of its spaces in a plan.
var formats = []pci.TokenFormat{pci.TokenLast4, pci.TokenBIN6Last4, pci.TokenOpaque}

// space is one permutation: of the digits that a format hides, in one domain, for PANs of one length.
type space struct {
	format   pci.TokenFormat
	length   int // of the PAN
	from, to int // of its digits, those that FF1 runs on
	// tweak is the first bytes of the tweak. It binds the permutation to domain, format and length: else two formats or two
	// lengths could share one.
	tweak [8]byte
}

// newSpace returns the space of a format, or why the format cannot serve this length.
func newSpace(domain string, format pci.TokenFormat, length int) (*space, *DomainError) {
	s := &space{format: format, length: length}
	switch format {
	case pci.TokenLast4:
		s.to = length - shownLast - 1 // Luhn restores the digit that is left out
	case pci.TokenBIN6Last4:
		s.from, s.to = shownFirst, length-shownLast
		if length > 16 {
			s.to-- // here too
		}
	case pci.TokenOpaque:
		s.to = length - 1
	}
	if free := max(0, s.to-s.from); free < ff1.MinDigits {
		return nil, &DomainError{Format: format, Length: length, Free: free}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "finpay ff1 v1\x00%s\x00%s\x00%d", domain, format, length))
	copy(s.tweak[:], sum[:])
	return s, nil
}

// walks reports whether FF1 stays within the Luhn-valid middles. With six hidden digits none can be left out, since five
// are too few; so it runs on all six, and goes on until they make a valid number again. On average that is ten times.
func (s *space) walks() bool { return s.format == pci.TokenBIN6Last4 && s.length == 16 }

// shown is how many first and last digits stay in clear.
func (s *space) shown() (first, last int) {
	switch s.format {
	case pci.TokenLast4:
		return 0, shownLast
	case pci.TokenBIN6Last4:
		return shownFirst, shownLast
	default:
		return 0, 0
	}
}

// lane is a lane over digits. number is the PAN, or a token with the same digits in clear; the tweak, with those digits
// packed two to a byte, is written to room.
func (s *space) lane(digits, number, room []byte) ff1.Lane {
	tweak := append(room[:0], s.tweak[:]...)
	first, last := s.shown()
	tweak = pack(tweak, number[:first])
	tweak = pack(tweak, number[len(number)-last:])
	l := ff1.Lane{Digits: digits, Tweak: tweak}
	if s.walks() {
		l.Target = &middles[residue(number)]
	}
	return l
}

func pack(dst, digits []byte) []byte {
	for ; len(digits) > 0; digits = digits[2:] {
		dst = append(dst, (digits[0]-'0')<<4|(digits[1]-'0'))
	}
	return dst
}

// middle is the set of six middle digits that make a PAN of 16 valid, by what the others come to in the Luhn sum.
type middle int

var middles = [10]middle{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}

// Has implements [ff1.Target].
func (m *middle) Has(digits []byte) bool {
	sum := int(*m)
	for i := 0; i < len(digits); i += 2 {
		sum += doubled[digits[i]-'0'] + int(digits[i+1]-'0')
	}
	return sum%10 == 0
}

// doubled is what a digit counts at a place that Luhn doubles (ISO/IEC 7812-1 annex B).
var doubled = [10]int{0, 2, 4, 6, 8, 1, 3, 5, 7, 9}

// residue is what a PAN of 16 digits comes to in the Luhn sum without its six in the middle.
func residue(number []byte) int {
	sum := 0
	for i := 0; i < len(number); i += 2 {
		if i < shownFirst || i >= len(number)-shownLast {
			sum += doubled[number[i]-'0'] + int(number[i+1]-'0')
		}
	}
	return sum % 10
}

// token writes the token that hidden, the digits that FF1 made, stands for. number is the PAN.
func (s *space) token(dst, number, hidden []byte) []byte {
	if s.format == pci.TokenLast4 {
		dst = append(dst[:0], lead)
		dst = append(dst, hidden...)
		return append(dst, number[len(number)-shownLast:]...)
	}
	dst = append(dst[:0], number[:shownFirst]...)
	dst = append(dst, hidden...)
	gap := s.length - shownLast - 1 // Luhn does not double it, so one more there is one more in the sum
	if !s.walks() {
		dst = append(dst, '0')
		dst = append(dst, number[len(number)-shownLast:]...)
		dst[gap] = pan.Missing(dst)
	} else {
		dst = append(dst, number[len(number)-shownLast:]...)
	}
	dst[gap] = '0' + (dst[gap]-'0'+1)%10
	return dst
}

// hidden writes the digits that FF1 made out of a token, or out of an image.
func (s *space) hidden(dst []byte, token []byte) []byte {
	switch {
	case s.format == pci.TokenLast4:
		return append(dst[:0], token[1:len(token)-shownLast]...)
	case s.walks():
		dst = append(dst[:0], token[s.from:s.to]...)
		dst[len(dst)-1] = '0' + (dst[len(dst)-1]-'0'+9)%10
		return dst
	default:
		return append(dst[:0], token[s.from:s.to]...)
	}
}

// number writes the PAN out of its own hidden digits and a token.
func (s *space) number(dst, token, hidden []byte) []byte {
	first, last := s.shown()
	dst = append(dst[:0], token[:first]...)
	dst = append(dst, hidden...)
	gap := len(dst)
	if s.walks() {
		return append(dst, token[len(token)-last:]...)
	}
	// The digit that was left out is not doubled: it is just what the sum lacks to a multiple of ten.
	dst = append(dst, '0')
	dst = append(dst, token[len(token)-last:]...)
	dst[gap] = pan.Missing(dst)
	return dst
}

// opaquePrefix begins every [pci.TokenOpaque] token.
const opaquePrefix = "tok_"

// opaqueText is base32 without a character at which a double click would stop.
var opaqueText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newOpaque returns a fresh token.
func newOpaque() pci.Token {
	var random [16]byte
	_, _ = rand.Read(random[:]) // crypto/rand never fails since Go 1.24
	var room [len(opaquePrefix) + 26]byte
	return pci.Token(opaqueText.AppendEncode(append(room[:0], opaquePrefix...), random[:]))
}

// place is where a format's spaces are.
func place(format pci.TokenFormat) int { return slices.Index(formats, format) }
