package scan

import (
	"bytes"
	"regexp"
)

const securityCode = "security code"

// aCard is whose a labelled code is: three digits do not say.
const aCard = "a card"

// labelledCVV finds a security code under any of its names, as a form, JSON, YAML or a log would write it. The label
// begins a word (or a capital within one, as in cardCvv) and the value is nothing but three or four digits: random
// identifiers end in CSC, and base64 in cvc=, often enough to be met.
var labelledCVV = regexp.MustCompile(`(?:(?i:(?:^|[^a-z0-9])(?:cv[vc]2?|csc|(?:card_?)?(?:security|verification)_?(?:code|value)))|[a-z](?:Cv[vc]2?|CV[VC]2?|Csc|CSC|SecurityCode|VerificationValue))` +
	`\\?["']?\s*(?:=|:|(?i:%3[da])|>)\s*\\?["'<]?[0-9]{3,4}(?:[^0-9A-Za-z]|$)`)

// LabelledCodes returns every security code that stands under a label in text, whosever it is.
func LabelledCodes(text []byte, place string) (hits []Hit) {
	for _, at := range labelledCVV.FindAllIndex(text, -1) {
		hits = append(hits, Hit{Card: aCard, Encoding: securityCode + " under a label", Place: place, Offset: int64(at[0]), Around: around(text, at[0], at[1]-at[0])})
	}
	return hits
}

// findCodes looks for the marked cards' codes under labels: first for the code, which the machine does fast, then for a
// label before it.
func (s *Scanner) findCodes(text []byte, found func(at, length int, card, encoding string)) {
	for _, value := range s.codes {
		for from := 0; ; {
			at := bytes.Index(text[from:], value)
			if at < 0 {
				break
			}
			at += from
			from = at + 1
			before := max(0, at-margin)
			end := min(len(text), at+len(value)+2)
			for _, label := range labelledCVV.FindAllIndex(text[before:end], -1) {
				if before+label[0] < at && before+label[1] >= at+len(value) {
					found(before+label[0], label[1]-label[0], aCard, securityCode+" under a label")
				}
			}
		}
	}
}

// The record that custody keeps (pci/internal/pan) ends with the number in a field of 19 bytes, the code's length, and the
// code in a field of four. Where the number is gone, its filler, the length and the code are left.
const (
	recordNumber = 19
	recordCode   = 4
)

func codeInRecord(c Card) [][]byte {
	if c.CVV == "" || len(c.Number) >= recordNumber-1 {
		return nil // no code, or too little beside it to tell it from other bytes
	}
	form := bytes.Repeat([]byte{0}, recordNumber-len(c.Number))
	form = append(append(form, byte(len(c.CVV))), c.CVV...)
	return [][]byte{append(form, bytes.Repeat([]byte{0}, recordCode-len(c.CVV))...)}
}
