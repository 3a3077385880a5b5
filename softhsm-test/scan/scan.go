// Package scan looks for cards where none may be: in files, and in the memory of a process.
//
// A [Scanner] is made for marked cards, whose numbers and security codes are known, and finds them in every form in which
// a program could leave them behind. It passes once over the bytes, for all cards and forms together. What it reports of a
// place has its digits masked: a report is read by people and kept by machines.
//
// # What is not promised
//
// A form that is not in the table of encodings is not found: a part of a number, a compressed or an encrypted one. Of
// security codes, three digits alone are everywhere; they are sought as the record that custody keeps and as labelled
// fields.
package scan

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Card is a card that is looked for.
type Card struct {
	Number string
	CVV    string // empty: its code is not looked for
}

// Hit is a place where a card was found.
type Hit struct {
	Card     string // its first six and last four digits
	Encoding string
	Place    string // path of a file, or a mapping of a process
	Kind     Kind   // of the mapping
	Offset   int64  // in the file, or the address
	Around   string // the bytes there, all digits masked
}

// String is one line.
func (h Hit) String() string {
	if h.Kind != "" {
		return fmt.Sprintf("%s as %s at %#x, %s (%s): %s", h.Card, h.Encoding, h.Offset, h.Kind, h.Place, h.Around)
	}
	return fmt.Sprintf("%s as %s at byte %d of %s: %s", h.Card, h.Encoding, h.Offset, h.Place, h.Around)
}

// Scanner finds marked cards. It is safe for concurrent use.
type Scanner struct {
	patterns []pattern
	codes    [][]byte                // without repetition
	filter   [filterSize / 64]uint64 // of anchors, by their hash
	anchored map[uint64][]int        // patterns by anchor
	longest  int
}

// pattern is one form of one card.
type pattern struct {
	card     string // truncated
	encoding string
	form     []byte
	anchor   int // where in the form the bytes are that the filter looks for
}

// The filter takes windows of six bytes: the shortest form, twelve digits in BCD, has as many.
const (
	window     = 6
	windowMask = 1<<(8*window) - 1
	filterBits = 18
	filterSize = 1 << filterBits
)

// New returns a scanner for these cards.
func New(cards ...Card) *Scanner { return newScanner(encodings, cards) }

func newScanner(encodings []encoding, cards []Card) *Scanner {
	s := &Scanner{anchored: make(map[uint64][]int)}
	for _, card := range cards {
		name := truncated(card.Number)
		known := slices.ContainsFunc(s.codes, func(code []byte) bool { return string(code) == card.CVV })
		if !known && card.CVV != "" {
			s.codes = append(s.codes, []byte(card.CVV))
		}
		for _, e := range encodings {
			for _, form := range e.forms(card) {
				s.add(pattern{card: name, encoding: e.name, form: form})
			}
		}
	}
	return s
}

func (s *Scanner) add(p pattern) {
	p.anchor = bestAnchor(p.form)
	key := windowAt(p.form, p.anchor)
	for _, n := range s.anchored[key] { // several cards with one security code
		if same := s.patterns[n]; same.encoding == p.encoding && bytes.Equal(same.form, p.form) {
			s.patterns[n].card = aCard
			return
		}
	}
	h := hash(key)
	s.filter[h/64] |= 1 << (h % 64)
	s.anchored[key] = append(s.anchored[key], len(s.patterns))
	s.patterns = append(s.patterns, p)
	s.longest = max(s.longest, len(p.form))
}

// bestAnchor returns where in a form the window is that is rarest elsewhere: memory is full of zeros and repetitions.
func bestAnchor(form []byte) (best int) {
	most := -1
	for at := 0; at+window <= len(form); at++ {
		seen := [256]bool{0: true}
		distinct := 0
		for _, c := range form[at : at+window] {
			if !seen[c] {
				seen[c] = true
				distinct++
			}
		}
		if distinct > most {
			best, most = at, distinct
		}
	}
	return best
}

func windowAt(text []byte, at int) (w uint64) {
	for i := window - 1; i >= 0; i-- {
		w = w<<8 | uint64(text[at+i])
	}
	return w
}

func hash(window uint64) uint64 { return window * 0x9E3779B97F4A7C15 >> (64 - filterBits) }

// find calls found for each place in text where a pattern stands.
func (s *Scanner) find(text []byte, found func(at, length int, card, encoding string)) {
	for at := 0; at+window <= len(text); at++ {
		var w uint64
		if at+8 <= len(text) {
			w = binary.LittleEndian.Uint64(text[at:]) & windowMask
		} else {
			w = windowAt(text, at)
		}
		if h := hash(w); s.filter[h/64]>>(h%64)&1 == 0 {
			continue
		}
		for _, n := range s.anchored[w] {
			p := &s.patterns[n]
			if from := at - p.anchor; from >= 0 && bytes.HasPrefix(text[from:], p.form) {
				found(from, len(p.form), p.card, p.encoding)
			}
		}
	}
	s.findCodes(text, found)
}

// margin is how much of what stands around a hit is looked at: for a label, and for people.
const margin = 48

// Text returns the cards in text, which stands at base in place.
func (s *Scanner) Text(text []byte, place string) []Hit {
	return s.text(text, 0, len(text), Hit{Place: place})
}

// text returns the hits that begin in the first bytes of text; those after them are there to complete them.
func (s *Scanner) text(text []byte, from, to int, like Hit) (hits []Hit) {
	s.find(text, func(at, length int, card, encoding string) {
		if at < from || at >= to {
			return
		}
		hit := like
		hit.Card, hit.Encoding, hit.Offset = card, encoding, like.Offset+int64(at)
		hit.Around = around(text, at, length)
		hits = append(hits, hit)
	})
	return hits
}

// around shows what stands at a place, without any digit and without the form itself.
func around(text []byte, at, length int) string {
	var b strings.Builder
	show := func(part []byte) {
		for _, c := range part {
			switch {
			case c >= '0' && c <= '9':
				b.WriteByte('#')
			case c >= ' ' && c <= '~':
				b.WriteByte(c)
			default:
				b.WriteByte('.')
			}
		}
	}
	show(text[max(0, at-margin):at])
	fmt.Fprintf(&b, "[%d bytes]", length)
	show(text[at+length : min(len(text), at+length+margin)])
	return b.String()
}

// truncated keeps the first six and last four digits.
func truncated(number string) string {
	if len(number) < 15 {
		return strings.Repeat("*", max(0, len(number)-4)) + number[max(0, len(number)-4):]
	}
	return number[:6] + strings.Repeat("*", len(number)-10) + number[len(number)-4:]
}
