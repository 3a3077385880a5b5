package pci

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Brand is a card scheme, found from the first digits of the PAN.
type Brand string

// The brands that are told apart.
const (
	Visa       Brand = "visa"
	Mastercard Brand = "mastercard"
	Amex       Brand = "amex"
	Discover   Brand = "discover"
	Diners     Brand = "diners"
	JCB        Brand = "jcb"
	UnionPay   Brand = "unionpay"
	Maestro    Brand = "maestro"
	Other      Brand = "other"
)

// Truncated is a PAN of which only the first six and last four digits are left (only the last four when it
// has fewer than 15 digits, since Luhn would leave too few candidates); an asterisk stands for each other.
type Truncated string

// Last4 returns the last four digits.
func (t Truncated) Last4() string {
	if len(t) < 4 {
		return ""
	}
	return string(t[len(t)-4:])
}

// Expiry is the month after whose end a card is no longer valid.
type Expiry struct {
	Year  int // four digits
	Month int // 1 to 12
}

// Valid reports whether the card may still be used at now.
func (e Expiry) Valid(now time.Time) bool {
	return now.UTC().Before(time.Date(e.Year, time.Month(e.Month)+1, 1, 0, 0, 0, 0, time.UTC).Add(12 * time.Hour))
}

// String returns "2030-01".
func (e Expiry) String() string { return string(e.Append(nil)) }

// Append appends what [Expiry.String] returns.
func (e Expiry) Append(b []byte) []byte {
	return append(b, byte('0'+e.Year/1000%10), byte('0'+e.Year/100%10), byte('0'+e.Year/10%10), byte('0'+e.Year%10), '-',
		byte('0'+e.Month/10%10), byte('0'+e.Month%10))
}

// After reports whether a card with this expiry is valid for longer.
func (e Expiry) After(other Expiry) bool {
	return e.Year > other.Year || e.Year == other.Year && e.Month > other.Month
}

// YYMM returns the form that ISO 8583 DE 14 and EMV 3DS cardExpiryDate share.
func (e Expiry) YYMM() string { return fmt.Sprintf("%02d%02d", e.Year%100, e.Month) }

// ParseExpiry reads what [Expiry.String] writes.
func ParseExpiry(s string) (Expiry, error) {
	t, err := time.Parse("2006-01", s)
	if err != nil {
		return Expiry{}, errors.New("pci: an expiry is YYYY-MM")
	}
	return Expiry{Year: t.Year(), Month: int(t.Month())}, nil
}

// CardRef names a card in custody. It is 128 random bits, means nothing outside this process, and works only
// together with the binding (the payment) that it was made for.
type CardRef struct{ id [16]byte }

// NewCardRef returns a fresh reference.
func NewCardRef() CardRef {
	var r CardRef
	_, _ = rand.Read(r.id[:]) // crypto/rand never fails since Go 1.24
	return r
}

// IsZero reports whether r names no card.
func (r CardRef) IsZero() bool { return r == CardRef{} }

// String returns the first bits only: enough to tell two references apart in a log, not enough to use one.
func (r CardRef) String() string { return "card_" + hex.EncodeToString(r.id[:3]) + "…" }

// Card is what may be known and kept of a card.
type Card struct {
	Brand     Brand
	Truncated Truncated
	Expiry    Expiry
}

// Entered is what a card form says beside the digits.
type Entered struct {
	Card     Card
	Name     string   // of the cardholder, as typed
	Envelope Envelope // what the card came sealed in; zero where it came open
	Form     string   // tells one showing of the form from the next, so that a second submit is known
	Browser  Browser  // what the page's script says of it; zero without a script
}
