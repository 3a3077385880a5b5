package acquiring

import (
	"context"
	"errors"
	"fmt"

	"github.com/finterra/finpay/pci"
)

// Capture tells the acquirer to move what was authorized, or a part of it (0220, its repeats 0221; both answered by
// 0230), with the PAN behind the token. It sends one message; the caller repeats it, with the same trace and Repeat
// set, until it is acknowledged or refused.
//
// acknowledged means that the host has booked the capture: response code 00 or, to a repeat, 94 (duplicate: an earlier
// one did it). A refusal is [pci.ErrRefused]: this capture will never be booked, and a repeat changes nothing; so is 94 to a first
// try, which duplicates something else, and would pass for this capture's when repeated. A code of passing trouble is
// [ErrUnclear]; without an answer err says why, as with [Connector.Sale]. A token that is not issued any more is
// [pci.ErrNotIssued].
//
// DE 4 is the captured amount. The edition of 1993 says with it what was authorized (DE 30, where that differs);
// that of 1987 has no field for it, and its hosts know it by the original. DE 37 is the original's reference, as are DE 12
// and 13 its time; DE 90 names it too.
func (c *Connector) Capture(ctx context.Context, r pci.CaptureRequest) (acknowledged bool, err error) {
	k := capture
	if r.Repeat {
		k = captureRepeat
	}
	if r.Amount.Currency != r.Authorized.Currency || r.Amount.Minor > r.Authorized.Minor {
		return false, errors.New("acquiring: the capture is not within the authorization")
	}
	q, lend, err := c.following(k, r.Domain, r.Token, r.Amount, r.Merchant, "0100", r.Original, r.Trace)
	if err != nil {
		return false, err
	}
	q.approval, q.stored = r.ApprovalCode, r.Stored
	if r.Amount != r.Authorized {
		q.authorized = uint64(r.Authorized.Minor)
	}
	a, _, err := c.ask(ctx, q, lend)
	switch {
	case err != nil:
		return false, err
	case a.code == "00" || a.code == "94" && r.Repeat:
		return true, nil
	case passing(a.code):
		return false, fmt.Errorf("capture: %w: %s", ErrUnclear, a)
	}
	return false, fmt.Errorf("capture: %w: %s", pci.ErrRefused, a)
}

// passing reports whether a response code is of trouble that may be over when an advice is repeated.
func passing(code string) bool {
	switch code {
	case "09", // request in progress
		"19", // re-enter transaction
		"68", // response received too late
		"90", // cutoff in process
		"91", // issuer or switch inoperative
		"92", // destination cannot be found for routing
		"96": // system malfunction
		return true
	}
	return false
}

// following makes a request that goes on with an earlier one, whose reference and time it has.
func (c *Connector) following(k kind, domain string, token pci.Token, amount pci.Amount, merchant pci.Merchant,
	mti string, original, trace pci.Trace) (*request, lender, error) {
	lend, err := c.fromToken(domain, token)
	if err != nil {
		return nil, nil, err
	}
	trace.RRN = original.RRN
	q, err := c.newRequest(k, amount, merchant, trace)
	if err != nil {
		return nil, nil, err
	}
	if err := c.about(q, mti, original); err != nil {
		return nil, nil, err
	}
	q.sold = original.TransmittedAt.UTC()
	return q, lend, nil
}
