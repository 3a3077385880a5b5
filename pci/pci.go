// Package pci is the vocabulary of card payments that anyone may speak: it has no card digits in it.
//
// A card appears here as its [Truncated] number, its [Token], its [Brand], its [Expiry] or, while it lives in
// custody, as a [CardRef]. The digits themselves exist only as types of pci/internal, which nothing outside
// this folder can import.
package pci

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that cross the floor between card data and the rest. They never carry digits.
var (
	// ErrGone means that the card is not in custody any more: its deadline passed, its HSM session ended, or
	// it was destroyed. Ask the shopper again; nothing was charged.
	ErrGone = errors.New("pci: the card is no longer held")
	// ErrFull means that custody or locked memory holds as many cards as it may. Try later.
	ErrFull = errors.New("pci: no room to hold another card")
	// ErrUnavailable means that the HSM cannot serve the request now. Nothing was accepted. Try later.
	ErrUnavailable = errors.New("pci: the HSM is not available")
	// ErrMalformed means that a body that should carry a card cannot be read as what it says it is.
	ErrMalformed = errors.New("pci: the card cannot be read")
	// ErrTooLarge means that a body that should carry a card is longer than any such body.
	ErrTooLarge = errors.New("pci: what should be a card is too large")
	// ErrIntakeKey means that a card is sealed to a key that is not in use, or not any more. Ask for the key and seal again.
	ErrIntakeKey = errors.New("pci: the card is sealed to a key that is not in use")
	// ErrReplayed means that what is sealed was taken before. Nothing was done with it again.
	ErrReplayed = errors.New("pci: the sealed card was sent before")
	// ErrOpenCard means that a card came open where only sealed ones are taken.
	ErrOpenCard = errors.New("pci: cards are taken sealed only")
	// ErrRefused means that the acquirer will not do what an advice says, however often it is repeated.
	ErrRefused = errors.New("pci: the acquirer refuses")
	// ErrNotIssued means that no live token of the domain has this value. A caller learns no more than that.
	ErrNotIssued = errors.New("pci: token was not issued")
)

// MalformedError is an [ErrMalformed] that says why, in words of our own: nothing of the body is in it.
type MalformedError struct{ Why string }

func (e *MalformedError) Error() string { return ErrMalformed.Error() + ": " + e.Why }

// Is makes it an [ErrMalformed].
func (e *MalformedError) Is(target error) bool { return target == ErrMalformed }

// CardError says what is wrong with a card as it was entered, without quoting it.
type CardError struct {
	Field  CardField
	Reason CardReason
}

func (e *CardError) Error() string { return fmt.Sprintf("card %s: %s", e.Field, e.Reason) }

// CardErrors are all that is wrong with one form, at most one for each field.
type CardErrors []*CardError

func (e CardErrors) Error() string {
	text := make([]string, len(e))
	for i, err := range e {
		text[i] = err.Error()
	}
	return strings.Join(text, "; ")
}

// CardField names an input of a card form.
type CardField string

// The inputs of a card form.
const (
	FieldNumber CardField = "number"
	FieldExpiry CardField = "expiry"
	FieldCVV    CardField = "cvv"
	FieldName   CardField = "name"
)

// CardReason is a stable code for what is wrong with a [CardField].
type CardReason string

// The reasons for which a card is refused at entry.
const (
	ReasonMissing     CardReason = "missing"
	ReasonNotDigits   CardReason = "not_digits"
	ReasonLength      CardReason = "wrong_length"
	ReasonChecksum    CardReason = "wrong_checksum" // Luhn, ISO/IEC 7812-1 annex B
	ReasonFormat      CardReason = "wrong_format"
	ReasonExpired     CardReason = "expired"
	ReasonUnsupported CardReason = "unsupported"
	ReasonTooLong     CardReason = "too_long"
)
