package acquiring

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// Sale asks the acquirer to authorize and clear an amount (0200, answered by 0210). The request is sent at most
// once. The result always has an outcome; the error is nil with [pci.Approved] and [pci.Refused], and says with
// [pci.Unsent] and [pci.Unknown] what happened: [pci.ErrGone] when the card is not held any more, [ErrOffline],
// [ErrNoAnswer], [ErrBroken], [ErrUnclear] and others.
//
// DE 7, 12 and 13 are all in UTC, from the request's trace.
func (c *Connector) Sale(ctx context.Context, r pci.SaleRequest) (pci.SaleResult, error) {
	return c.sell(ctx, sale, r)
}

// Authorize asks the acquirer to authorize an amount that is captured later (0100, answered by 0110). It is sent at
// most once, and its result says what that of [Connector.Sale] does. [Connector.Capture] moves the money; a
// [Connector.Reverse] with OriginalMTI 0100 gives the authorization up.
func (c *Connector) Authorize(ctx context.Context, r pci.SaleRequest) (pci.SaleResult, error) {
	return c.sell(ctx, authorization, r)
}

func (c *Connector) sell(ctx context.Context, k kind, r pci.SaleRequest) (pci.SaleResult, error) {
	q, err := c.newRequest(k, r.Amount, r.Merchant, r.Trace)
	if err != nil {
		return pci.SaleResult{Outcome: pci.Unsent}, err
	}
	q.sells, q.results, q.exemption, q.record = true, r.Authentication, r.Exemption, r.Record
	lend, err := c.cardOf(q, r)
	if err != nil {
		return pci.SaleResult{Outcome: pci.Unsent}, err
	}
	result, err := c.once(ctx, q, lend)
	if result.Outcome == pci.Refused {
		result.Authenticate = slices.Contains(c.cfg.SoftDeclines, result.ResponseCode) ||
			result.ActionCode != "" && slices.Contains(c.cfg.SoftDeclines, result.ActionCode)
	}
	return result, err
}

// cardOf finds the card to charge: a stored credential or one in custody.
func (c *Connector) cardOf(q *request, r pci.SaleRequest) (lender, error) {
	if r.NetworkID != "" && (r.Initiator != pci.ByMerchant || !pci.IsNetworkID(r.NetworkID)) {
		return nil, errors.New("acquiring: an earlier transaction is named by 1 to 36 letters and digits, by merchants only")
	}
	q.earlier = r.NetworkID
	if r.Token == "" {
		if r.Initiator != "" || r.Entered {
			return nil, errors.New("acquiring: initiators are of stored credentials, and this card is in custody")
		}
		return func(ctx context.Context, use func(*pan.Card) error) error {
			return c.cards.Lend(ctx, r.Card, r.Payment, use)
		}, nil
	}
	if r.Entered && r.Card.IsZero() && r.Initiator == "" {
		return c.fromToken(r.Domain, r.Token)
	}
	if r.Entered || !r.Card.IsZero() || r.Initiator != pci.ByCustomer && r.Initiator != pci.ByMerchant {
		return nil, errors.New("acquiring: a stored credential has an initiator and no card in custody")
	}
	q.stored, q.initiator = true, r.Initiator
	return c.fromToken(r.Domain, r.Token)
}

// resultOf reads a response code (ISO 8583:1987, annex A, DE 39). Approvals under a condition that is not met here
// and answers that do not say what became of the request leave it open, so that it is reversed.
func resultOf(k kind, a answer) (pci.SaleResult, error) {
	result := pci.SaleResult{Outcome: pci.Refused, ResponseCode: a.code, ActionCode: a.action, ApprovalCode: a.approval, RRN: a.rrn, NetworkID: a.networkID}
	switch a.code {
	case "00":
		result.Outcome = pci.Approved
	case "08", // honour with identification
		"09", // request in progress
		"10", // approved for a partial amount
		"11", // approved, VIP
		"16", // approved, update track 3
		"68", // response received too late
		"94": // duplicate transmission, though it is sent once
		result.Outcome = pci.Unknown
		return result, fmt.Errorf("%s: %w: %s", k, ErrUnclear, a)
	}
	return result, nil
}
