package acquiring

import (
	"context"
	"errors"
	"fmt"

	"github.com/finterra/finpay/pci"
)

// Reverse takes a sale, an authorization or a refund back (0400, its repeats 0401; both answered by 0410) with the PAN
// behind the token. It sends one message; the caller repeats it, with the same trace and Repeat set, until it is
// acknowledged.
//
// acknowledged means that the host has nothing booked for the original any more, or nothing to book: response
// code 00, 25 (unable to locate the original: it never arrived) or, to a repeat, 94 (duplicate: an earlier one did it).
// With another code the reversal is not acknowledged and err is an [ErrUnclear] that names it; without an answer err
// says why, as with [Connector.Sale]. A token that is not issued any more is [pci.ErrNotIssued].
//
// DE 37 is the original's reference, as are DE 12 and 13 its time: hosts find the original by them and by DE 90. DE 7
// and 11 are the reversal's own. In the edition of 1993 a reversal is an advice (1420, 1421), and DE 25 tells an
// original that was approved, and is not wanted any more, from one whose outcome is not known.
func (c *Connector) Reverse(ctx context.Context, r pci.ReversalRequest) (acknowledged bool, err error) {
	k := reversal
	if r.Repeat {
		k = reversalRepeat
	}
	if r.Refund && r.OriginalMTI == "0100" {
		return false, errors.New("acquiring: a refund is no authorization (DE 90)")
	}
	q, lend, err := c.following(k, r.Domain, r.Token, r.Amount, r.Merchant, r.OriginalMTI, r.Original, r.Trace)
	if err != nil {
		return false, err
	}
	q.approval, q.stored = r.ApprovalCode, r.Stored
	if r.Refund {
		q.code = refundCode
	}
	a, _, err := c.ask(ctx, q, lend)
	switch {
	case err != nil:
		return false, err
	case a.code == "00" || a.code == "25" || a.code == "94" && r.Repeat:
		return true, nil
	}
	return false, fmt.Errorf("reversal: %w: %s", ErrUnclear, a)
}
