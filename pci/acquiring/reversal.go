package acquiring

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/pci/internal/pan"
)

// Reverse takes a sale back (0400, its repeats 0401; both answered by 0410) with the PAN behind the token. It sends one
// message; the caller repeats it, with the same trace and Repeat set, until it is acknowledged.
//
// acknowledged means that the host has nothing booked for the original any more, or nothing to book: response
// code 00, 25 (unable to locate the original: it never arrived) or, to a repeat, 94 (duplicate: an earlier one did it).
// With another code the reversal is not acknowledged and err is an [ErrUnclear] that names it; without an answer err
// says why, as with [Connector.Sale]. A token that is not issued any more is [pci.ErrNotIssued].
//
// DE 37 is the original's reference, as are DE 12 and 13 its time: hosts find the original by them and by DE 90. DE 7
// and 11 are the reversal's own.
func (c *Connector) Reverse(ctx context.Context, r pci.ReversalRequest) (acknowledged bool, err error) {
	if c.tokens == nil {
		return false, errors.New("acquiring: no tokenization to take cards from")
	}
	l := c.current()
	if l == nil {
		return false, ErrOffline
	}
	trace := r.Trace
	trace.RRN = r.Original.RRN
	t, err := c.transactionOf(r.Amount, r.Merchant, trace)
	if err != nil {
		return false, err
	}
	original, err := c.originalDataElements(t, r.Original)
	if err != nil {
		return false, err
	}
	a, _, err := c.exchange(ctx, l, c.queryOf(t, "0410"), func(ctx context.Context, dst, _ []byte) (message []byte, err error) {
		err = c.tokens.Lend(ctx, r.Domain, r.Token, func(card *pan.Card) error {
			message, err = c.packReversal(dst, t, card, r, original)
			return err
		})
		return message, err
	})
	if err != nil {
		return false, fmt.Errorf("reversal: %w", err)
	}
	if a.code == "00" || a.code == "25" || a.code == "94" && r.Repeat {
		return true, nil
	}
	return false, fmt.Errorf("reversal: %w: response code %s", ErrUnclear, a.code)
}

// originalDataElements is DE 90: MTI, trace number and DE 7 of the original, then acquirer and forwarding institution
// with leading zeros.
func (c *Connector) originalDataElements(t transaction, original pci.Trace) (string, error) {
	if len(original.STAN) != 6 || original.TransmittedAt.IsZero() || len(t.acquirer) > 11 {
		return "", errors.New("acquiring: the original's trace is not complete (DE 90)")
	}
	return "0200" + original.STAN + original.TransmittedAt.UTC().Format(transmission) +
		strings.Repeat("0", 11-len(t.acquirer)) + t.acquirer + strings.Repeat("0", 11), nil
}

// packReversal builds a 0400 or 0401 in dst, in locked memory as the card is.
func (c *Connector) packReversal(dst []byte, t transaction, card *pan.Card, r pci.ReversalRequest, original string) ([]byte, error) {
	mti := "0400"
	if r.Repeat {
		mti = "0401"
	}
	w := iso8583.NewWriter(c.spec, dst, mti)
	if err := packTransaction(&w, t, card, r.Original.TransmittedAt.UTC()); err != nil {
		return nil, err
	}
	w.Text(49, t.currency)
	w.Text(90, original)
	return w.Finish()
}
