package acquiring

import (
	"context"

	"github.com/finterra/finpay/pci"
)

// Refund asks the acquirer to give back what was sold or captured, or a part of it (0200 with DE 3 = 200000, answered by
// 0210), with the PAN behind the token. It is sent at most once, and its result says what that of [Connector.Sale] does:
// [pci.Unknown] must be reversed, by [Connector.Reverse] with Refund set.
//
// A refund is a transaction of its own: DE 12, 13 and 37 are its own too, and DE 90 alone names the original.
func (c *Connector) Refund(ctx context.Context, r pci.RefundRequest) (pci.SaleResult, error) {
	unsent := pci.SaleResult{Outcome: pci.Unsent}
	lend, err := c.fromToken(r.Domain, r.Token)
	if err != nil {
		return unsent, err
	}
	q, err := c.newRequest(refund, r.Amount, r.Merchant, r.Trace)
	if err != nil {
		return unsent, err
	}
	if err := c.about(q, r.OriginalMTI, r.Original); err != nil {
		return unsent, err
	}
	q.code, q.approval, q.stored = refundCode, r.ApprovalCode, r.Stored
	return c.once(ctx, q, lend)
}
