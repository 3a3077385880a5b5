// Package pan holds card digits: PAN and CVV in locked memory, for one operation at a time.
//
// A [Card] lives in a [Slot] and is wiped by [Card.Release]. Its digits are seen only through [Card.RevealPAN]
// and [Card.RevealCVV], so that every exposure can be found by search. Printing, logging or encoding a Card
// gives its truncation; comparing two does not compile.
//
// # What is not promised
//
// The callee of a reveal sees ordinary bytes: it must not keep or copy them outside a Slot.
package pan

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/finterra/finpay/pci"
)

// ErrMemory means that all locked memory is in use.
var ErrMemory = fmt.Errorf("locked memory is exhausted: %w", pci.ErrFull)

// errRecord means that a stored card cannot be read back.
var errRecord = errors.New("pan: damaged card record")

// Lengths of ISO/IEC 7812-1 PANs and of card security codes.
const (
	MinLength = 12
	MaxLength = 19
	maxCVV    = 4
)

// The record is also what custody keeps as the value of an HSM object.
const (
	recordVersion = 1

	offVersion = 0
	offYear    = 1 // year - 2000
	offMonth   = 2
	offPANLen  = 3
	offPAN     = 4
	offCVVLen  = offPAN + MaxLength
	offCVV     = offCVVLen + 1

	// RecordSize is the length of [Card.Record] in bytes.
	RecordSize = offCVV + maxCVV
)

// incomparable makes == of what it stands in an error of the compiler: two that are equal would be one card, and two cards
// with one number are not.
type incomparable [0]func()

// Card is one card in locked memory.
type Card struct {
	incomparable

	slot *Slot
}

// New copies digits into a new locked slot. pan is the PAN in ASCII, cvv may be empty. The caller wipes its own
// copies. Refusals are [*pci.CardError].
func New(pan, cvv []byte, expiry pci.Expiry) (*Card, error) {
	if err := CheckPAN(pan); err != nil {
		return nil, err
	}
	if len(cvv) > 0 {
		if err := CheckCVV(pan, cvv); err != nil {
			return nil, err
		}
	}
	if err := checkExpiry(expiry); err != nil {
		return nil, err
	}
	slot, err := NewSlot()
	if err != nil {
		return nil, err
	}
	m := slot.Bytes()
	m[offVersion] = recordVersion
	m[offYear] = byte(expiry.Year - 2000)
	m[offMonth] = byte(expiry.Month)
	m[offPANLen] = byte(len(pan))
	copy(m[offPAN:], pan)
	m[offCVVLen] = byte(len(cvv))
	copy(m[offCVV:], cvv)
	return &Card{slot: slot}, nil
}

// FromRecord takes over a slot whose first bytes are a [Card.Record]. On error the slot is released.
func FromRecord(slot *Slot) (*Card, error) {
	m := slot.Bytes()
	c := &Card{slot: slot}
	if m[offVersion] != recordVersion || m[offPANLen] > MaxLength || m[offCVVLen] > maxCVV ||
		CheckPAN(c.pan()) != nil || c.HasCVV() && CheckCVV(c.pan(), c.cvv()) != nil ||
		m[offYear] > 99 || m[offMonth] < 1 || m[offMonth] > 12 {
		slot.Release()
		return nil, errRecord
	}
	return c, nil
}

// Release wipes the card. It is harmless on a released card.
func (c *Card) Release() {
	if c.slot != nil {
		c.slot.Release()
		c.slot = nil
	}
}

// Record lends the card's stored form, [RecordSize] bytes in locked memory.
func (c *Card) Record() []byte { return c.slot.Bytes()[:RecordSize] }

// RevealPAN calls f with the PAN in ASCII. The bytes are valid during the call only; f must not keep them.
func (c *Card) RevealPAN(f func(digits []byte) error) error { return f(c.pan()) }

// RevealCVV calls f with the CVV in ASCII, empty when there is none. The same limits hold.
func (c *Card) RevealCVV(f func(digits []byte) error) error { return f(c.cvv()) }

// HasCVV reports whether a CVV is there.
func (c *Card) HasCVV() bool { return c.slot.Bytes()[offCVVLen] > 0 }

// Expiry returns the card's expiry.
func (c *Card) Expiry() pci.Expiry {
	return pci.Expiry{Year: 2000 + int(c.slot.Bytes()[offYear]), Month: int(c.slot.Bytes()[offMonth])}
}

// Length returns the number of digits of the PAN.
func (c *Card) Length() int { return int(c.slot.Bytes()[offPANLen]) }

// Describe returns what may be known of the card.
func (c *Card) Describe() pci.Card {
	return pci.Card{Brand: brandOf(c.pan()), Truncated: truncate(c.pan()), Expiry: c.Expiry()}
}

// CheckUse refuses a card that has expired at now, or that lacks a CVV.
func (c *Card) CheckUse(now time.Time) error {
	if !c.Expiry().Valid(now) {
		return &pci.CardError{Field: pci.FieldExpiry, Reason: pci.ReasonExpired}
	}
	if !c.HasCVV() {
		return &pci.CardError{Field: pci.FieldCVV, Reason: pci.ReasonMissing}
	}
	return nil
}

// String returns the truncation, as do all other ways to print or encode a card.
func (c *Card) String() string {
	if c.slot == nil {
		return "(no card)"
	}
	return string(truncate(c.pan()))
}

// Format implements [fmt.Formatter] for every verb: %v of a pointer would otherwise show the slot.
func (c *Card) Format(s fmt.State, _ rune) { _, _ = fmt.Fprint(s, c.String()) }

// LogValue implements [slog.LogValuer].
func (c *Card) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText implements [encoding.TextMarshaler], which encoding/json uses too.
func (c *Card) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func (c *Card) pan() []byte { return c.slot.Bytes()[offPAN : offPAN+int(c.slot.Bytes()[offPANLen])] }

func (c *Card) cvv() []byte { return c.slot.Bytes()[offCVV : offCVV+int(c.slot.Bytes()[offCVVLen])] }

// CheckPAN refuses what is not a PAN of 12 to 19 digits with a right check digit, with a [*pci.CardError].
func CheckPAN(pan []byte) error {
	if len(pan) == 0 {
		return &pci.CardError{Field: pci.FieldNumber, Reason: pci.ReasonMissing}
	}
	for _, d := range pan {
		if d < '0' || d > '9' {
			return &pci.CardError{Field: pci.FieldNumber, Reason: pci.ReasonNotDigits}
		}
	}
	if len(pan) < MinLength || len(pan) > MaxLength {
		return &pci.CardError{Field: pci.FieldNumber, Reason: pci.ReasonLength}
	}
	if luhn(pan) != 0 {
		return &pci.CardError{Field: pci.FieldNumber, Reason: pci.ReasonChecksum}
	}
	return nil
}

// checkExpiry refuses what a record cannot keep.
func checkExpiry(expiry pci.Expiry) error {
	if expiry.Year < 2000 || expiry.Year > 2099 || expiry.Month < 1 || expiry.Month > 12 {
		return &pci.CardError{Field: pci.FieldExpiry, Reason: pci.ReasonFormat}
	}
	return nil
}

// CheckCVV wants four digits from American Express and three from everyone else. pan has passed [CheckPAN].
func CheckCVV(pan, cvv []byte) error {
	want := 3
	if brandOf(pan) == pci.Amex {
		want = 4
	}
	return checkCVV(cvv, want, want)
}

// CheckAnyCVV wants what could be the CVV of some card: three or four digits. It is for a CVV beside a PAN that was
// refused.
func CheckAnyCVV(cvv []byte) error { return checkCVV(cvv, 3, maxCVV) }

func checkCVV(cvv []byte, shortest, longest int) error {
	if len(cvv) == 0 {
		return &pci.CardError{Field: pci.FieldCVV, Reason: pci.ReasonMissing}
	}
	for _, d := range cvv {
		if d < '0' || d > '9' {
			return &pci.CardError{Field: pci.FieldCVV, Reason: pci.ReasonNotDigits}
		}
	}
	if len(cvv) < shortest || len(cvv) > longest {
		return &pci.CardError{Field: pci.FieldCVV, Reason: pci.ReasonLength}
	}
	return nil
}

// luhn returns the Luhn sum modulo 10 (ISO/IEC 7812-1 annex B): 0 for a valid PAN.
func luhn(digits []byte) int {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum % 10
}

// Missing returns the digit that, in place of a '0' at a position that Luhn does not double (the last, the third
// from the right and so on), completes digits to a valid PAN.
func Missing(digits []byte) byte { return byte('0' + (10-luhn(digits))%10) }

// truncate keeps the first six and last four of 15 digits and more, and the last four of shorter PANs.
func truncate(pan []byte) pci.Truncated {
	var room [MaxLength]byte
	out := room[:len(pan)]
	for i := range out {
		out[i] = '*'
	}
	if len(pan) >= 15 {
		copy(out, pan[:6])
	}
	copy(out[len(out)-4:], pan[len(pan)-4:])
	return pci.Truncated(out)
}
