package acquiring

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// transmission is the layout of DE 7, in UTC.
const transmission = "0102150405"

// What a message says of how the card came, in the edition of 1987 (annex A).
const (
	keyEntered = "010" // DE 22: PAN entered by hand, no PIN
	onFile     = "100" // DE 22: credential on file, as the schemes have it; no PIN
	ecommerce  = "59"  // DE 25: electronic commerce
)

// What a message says of how the card came, in the edition of 1993 (annex A, DE 22): twelve positions, of which the
// fifth is the cardholder's presence (1: not there; 4: standing authorization), the sixth the card's (0: not there), the
// seventh how its number was read (1: by hand, no terminal); the others are not known or do not apply.
const (
	keyEntered1993 = "000010100000"
	onFile1993     = "000040100000"
)

// Reasons of a reversal in the edition of 1993 (annex A, DE 25).
const (
	customerCancellation = "4000"
	timeOut              = "4021"
)

// entry returns DE 22.
func (c *Connector) entry(r *request) string {
	switch {
	case r.stored && c.speaks1993():
		return cmp.Or(c.cfg.StoredEntryMode, onFile1993)
	case r.stored:
		return cmp.Or(c.cfg.StoredEntryMode, onFile)
	case c.speaks1993():
		return cmp.Or(c.cfg.EntryMode, keyEntered1993)
	}
	return cmp.Or(c.cfg.EntryMode, keyEntered)
}

// pack1987 writes DE 3 and what follows in the edition of 1987. DE 12 and 13 are the local time, which is UTC here.
func (c *Connector) pack1987(w *iso8583.Writer, r *request, expiry pci.Expiry, place []byte, private privateFields) {
	w.Text(3, r.code)
	w.Uint(4, r.amount)
	clock(w, 7, r.at, transmission)
	w.Text(11, r.stan)
	clock(w, 12, r.sold, "150405")
	clock(w, 13, r.sold, "0102")
	w.Uint(14, uint64(expiry.Year%100*100+expiry.Month)) // YYMM, without a string of it
	w.Text(18, r.merchant.MCC)
	w.Text(22, c.entry(r))
	w.Text(25, ecommerce)
	optional(w, 32, r.acquirer)
	w.Text(37, r.rrn)
	optional(w, 38, r.approval)
	w.Text(41, r.merchant.TerminalID)
	w.Text(42, r.merchant.AcquirerMID)
	if r.sells {
		w.Bytes(43, nameAndLocation(place, r.merchant))
	}
	private.write(w, 0, 49)
	w.Text(49, r.currency)
	private.write(w, 49, 90)
	if r.original.mti != "" {
		w.Text(90, r.original.elements1987(r.acquirer))
	}
	private.write(w, 90, iso8583.MaxField+1)
}

// elements1987 is DE 90: MTI, trace number and DE 7 of the original, then acquirer and forwarding institution with
// leading zeros.
func (o original) elements1987(acquirer string) string {
	return o.mti + o.trace.STAN + o.trace.TransmittedAt.UTC().Format(transmission) +
		strings.Repeat("0", 11-len(acquirer)) + acquirer + strings.Repeat("0", 11)
}

// pack1993 writes DE 3 and what follows in the edition of 1993. DE 12 is the local time, which is UTC here.
func (c *Connector) pack1993(w *iso8583.Writer, r *request, expiry pci.Expiry, place []byte, private privateFields) {
	w.Text(3, r.code)
	w.Uint(4, r.amount)
	clock(w, 7, r.at, transmission)
	w.Text(11, r.stan)
	clock(w, 12, r.sold, local1993)
	w.Uint(14, uint64(expiry.Year%100*100+expiry.Month)) // YYMM, without a string of it
	w.Text(22, c.entry(r))
	w.Text(24, r.function())
	optional(w, 25, r.reason())
	w.Text(26, r.merchant.MCC)
	if r.authorized != 0 {
		w.Text(30, fmt.Sprintf("%012d%012d", r.authorized, 0))
	}
	optional(w, 32, r.acquirer)
	w.Text(37, r.rrn)
	optional(w, 38, r.approval)
	w.Text(41, r.merchant.TerminalID)
	w.Text(42, r.merchant.AcquirerMID)
	if r.sells {
		w.Bytes(43, appendLocation(place[:0], r.merchant))
	}
	private.write(w, 0, 49)
	w.Text(49, r.currency)
	if r.original.mti != "" {
		w.Text(56, r.original.elements1993(r.acquirer))
	}
	private.write(w, 49, iso8583.MaxField+1)
}

// local1993 is the layout of DE 12 in the edition of 1993.
const local1993 = "060102150405"

// function is DE 24. A capture says whether its amount is the authorized one.
func (r *request) function() string {
	if r.authorized != 0 {
		return "202"
	}
	return kinds[r.kind].function
}

// reason is DE 25: whoever knows that the original was approved does not want it any more.
func (r *request) reason() string {
	switch {
	case r.kind != reversal && r.kind != reversalRepeat:
		return ""
	case r.approval != "":
		return customerCancellation
	}
	return timeOut
}

// elements1993 is DE 56: MTI, trace number and DE 12 of the original, then the acquirer with its length.
func (o original) elements1993(acquirer string) string {
	return o.mti + o.trace.STAN + o.trace.TransmittedAt.UTC().Format(local1993) + fmt.Sprintf("%02d", len(acquirer)) + acquirer
}

// clock writes a date or a time.
func clock(w *iso8583.Writer, de int, t time.Time, layout string) {
	var room [len(local1993)]byte
	w.Bytes(de, t.AppendFormat(room[:0], layout))
}

func optional(w *iso8583.Writer, de int, value string) {
	if value != "" {
		w.Text(de, value)
	}
}

// nameRoom holds DE 43 of either edition.
const nameRoom = 99

// nameAndLocation is DE 43 of 1987: 25 characters of name, 13 of city, 2 of country.
func nameAndLocation(room []byte, m pci.Merchant) []byte {
	field := room[:40]
	for i := range field {
		field[i] = ' '
	}
	printable(field[:25], m.Name)
	printable(field[25:38], m.City)
	printable(field[38:], m.Country)
	return field
}

// appendLocation is DE 43 of 1993: name, street (which is not known here) and city, each with a backslash at its end, then
// ten characters of postal code, three of region and the numeric country.
func appendLocation(dst []byte, m pci.Merchant) []byte {
	for _, part := range []struct {
		text string
		most int
	}{{m.Name, 25}, {"", 0}, {m.City, 13}} {
		at := len(dst)
		dst = dst[:at+part.most]
		n := printable(dst[at:], part.text)
		dst = append(dst[:at+n], '\\')
	}
	dst = append(dst, "             "...)
	return append(dst, m.CountryCode...)
}

// printable writes the beginning of s to dst and returns how many bytes it took; what is not printable ASCII, or
// would end a part of DE 43, becomes a question mark.
func printable(dst []byte, s string) int {
	i := 0
	for _, r := range s {
		if i == len(dst) {
			break
		}
		if r < ' ' || r > '~' || r == '\\' {
			r = '?'
		}
		dst[i] = byte(r)
		i++
	}
	return i
}
