package acquiring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/pci/internal/pan"
)

// What a sale says of itself (ISO 8583:1987, annex A).
const (
	purchase   = "000000" // DE 3: goods and services, from and to default accounts
	keyEntered = "010"    // DE 22: PAN entered by hand, no PIN
	ecommerce  = "59"     // DE 25: electronic commerce
)

// transmission is the layout of DE 7, in UTC.
const transmission = "0102150405"

// Sale asks the acquirer to authorize and clear an amount (0200, answered by 0210). The request is sent at most
// once. The result always has an outcome; the error is nil with [pci.Approved] and [pci.Refused], and says with
// [pci.Unsent] and [pci.Unknown] what happened: [pci.ErrGone] when the card is not held any more, [ErrOffline],
// [ErrNoAnswer], [ErrBroken], [ErrUnclear] and others.
//
// DE 7, 12 and 13 are all in UTC, from the request's trace.
func (c *Connector) Sale(ctx context.Context, r pci.SaleRequest) (pci.SaleResult, error) {
	l := c.current()
	if l == nil {
		return pci.SaleResult{Outcome: pci.Unsent}, ErrOffline
	}
	t, err := c.transactionOf(r.Amount, r.Merchant, r.Trace)
	if err != nil {
		return pci.SaleResult{Outcome: pci.Unsent}, err
	}
	a, sent, err := c.exchange(ctx, l, c.queryOf(t, "0210"), func(ctx context.Context, dst, scratch []byte) (message []byte, err error) {
		err = c.cards.Lend(ctx, r.Card, r.Payment, func(card *pan.Card) error {
			message, err = c.packSale(dst, scratch, t, card, r.Authentication)
			return err
		})
		return message, err
	})
	switch {
	case err != nil && !sent:
		return pci.SaleResult{Outcome: pci.Unsent}, fmt.Errorf("sale: %w", err)
	case err != nil:
		return pci.SaleResult{Outcome: pci.Unknown}, fmt.Errorf("sale: %w", err)
	}
	return resultOf(a)
}

// resultOf reads a response code (ISO 8583:1987, annex A, DE 39). Approvals under a condition that is not met here
// and answers that do not say what became of the sale leave it open, so that it is reversed.
func resultOf(a answer) (pci.SaleResult, error) {
	result := pci.SaleResult{Outcome: pci.Refused, ResponseCode: a.code, ApprovalCode: a.approval, RRN: a.rrn}
	switch a.code {
	case "00":
		result.Outcome = pci.Approved
	case "08", // honour with identification
		"09", // request in progress
		"10", // approved for a partial amount
		"11", // approved, VIP
		"16", // approved, update track 3
		"68", // response received too late
		"94": // duplicate transmission, though a sale is sent once
		result.Outcome = pci.Unknown
		return result, fmt.Errorf("sale: %w: response code %s", ErrUnclear, a.code)
	}
	return result, nil
}

// transaction is what sale and reversal say alike, checked and in the form of the message.
type transaction struct {
	amount   uint64 // minor units
	currency string // numeric
	merchant pci.Merchant
	acquirer string // DE 32, may be empty
	stan     string
	rrn      string
	at       time.Time
}

func (c *Connector) transactionOf(amount pci.Amount, merchant pci.Merchant, trace pci.Trace) (transaction, error) {
	t := transaction{
		currency: amount.Currency.Numeric(),
		merchant: merchant,
		acquirer: cmp.Or(c.cfg.AcquirerID, merchant.AcquirerBIN),
		stan:     trace.STAN,
		rrn:      trace.RRN,
		at:       trace.TransmittedAt.UTC(),
	}
	switch {
	case amount.Minor <= 0 || amount.Minor > 999_999_999_999:
		return t, errors.New("acquiring: the amount is not one to twelve digits (DE 4)")
	case len(t.currency) != 3 || t.currency == "000": // which Numeric gives for a code that it does not know
		return t, errors.New("acquiring: the currency has no numeric code (DE 49)")
	case len(t.stan) != 6 || !isDigits(t.stan):
		return t, errors.New("acquiring: the trace number is not six digits (DE 11)")
	case len(t.rrn) != 12:
		return t, errors.New("acquiring: the retrieval reference is not twelve characters (DE 37)")
	case trace.TransmittedAt.IsZero():
		return t, errors.New("acquiring: the trace has no time (DE 7)")
	}
	t.amount = uint64(amount.Minor)
	return t, nil
}

// queryOf returns what the answer to t must agree with.
func (c *Connector) queryOf(t transaction, mti string) query {
	q := query{
		key:      key{mti: mti, stan: t.stan},
		rrn:      t.rrn,
		amount:   fmt.Sprintf("%012d", t.amount),
		currency: t.currency,
	}
	if c.cfg.MatchTerminal {
		q.terminal = strings.TrimRight(t.merchant.TerminalID, " ")
	}
	return q
}

// packSale builds a 0200 in dst. Both dst and scratch are in locked memory, and so is the card.
func (c *Connector) packSale(dst, scratch []byte, t transaction, card *pan.Card, auth pci.Authentication) ([]byte, error) {
	w := iso8583.NewWriter(c.spec, dst, "0200")
	if err := packTransaction(&w, t, card, t.at); err != nil {
		return nil, err
	}
	packNameAndLocation(&w, scratch, t.merchant)
	extra, err := c.packAdditional(scratch[:0], card, auth)
	if err != nil {
		return nil, err
	}
	field := c.additionalField()
	if len(extra) > 0 && field < 49 {
		w.Bytes(field, extra)
	}
	w.Text(49, t.currency)
	if len(extra) > 0 && field > 49 {
		w.Bytes(field, extra)
	}
	return w.Finish()
}

// packTransaction writes what a sale and its reversal have in common, DE 2 to 42. DE 12 and 13 are the local time of
// the sale, which is UTC here.
func packTransaction(w *iso8583.Writer, t transaction, card *pan.Card, sold time.Time) error {
	err := card.RevealPAN(func(digits []byte) error {
		w.Bytes(2, digits)
		return nil
	})
	w.Text(3, purchase)
	w.Uint(4, t.amount)
	w.Text(7, t.at.Format(transmission))
	w.Text(11, t.stan)
	w.Text(12, sold.Format("150405"))
	w.Text(13, sold.Format("0102"))
	w.Text(14, card.Expiry().YYMM())
	w.Text(18, t.merchant.MCC)
	w.Text(22, keyEntered)
	w.Text(25, ecommerce)
	if t.acquirer != "" {
		w.Text(32, t.acquirer)
	}
	w.Text(37, t.rrn)
	w.Text(41, t.merchant.TerminalID)
	w.Text(42, t.merchant.AcquirerMID)
	return err
}

// packNameAndLocation writes DE 43: 25 characters of name, 13 of city, 2 of country.
func packNameAndLocation(w *iso8583.Writer, scratch []byte, m pci.Merchant) {
	field := scratch[:40]
	for i := range field {
		field[i] = ' '
	}
	printable(field[:25], m.Name)
	printable(field[25:38], m.City)
	printable(field[38:], m.Country)
	w.Bytes(43, field)
}

// printable writes the beginning of s to dst; what is not printable ASCII becomes a question mark.
func printable(dst []byte, s string) {
	i := 0
	for _, r := range s {
		if i == len(dst) {
			return
		}
		if r < ' ' || r > '~' {
			r = '?'
		}
		dst[i] = byte(r)
		i++
	}
}

func isDigits(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return true
}
