package stripe

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
)

// keyLife is how long an idempotency key is certainly known to Stripe, less a margin: keys may go after 24 hours.
const keyLife = 20 * time.Hour

// Refund gives back what was sold or captured, or a part of it. The result says what that of [Connector.Sale] does.
//
// With Repeat set it says what became of all tries: the refund is sought among those of the payment intent, by its trace; one
// that is not there is asked for again under its key, and after the life of a key it was never made: [pci.Unsent].
func (c *Connector) Refund(ctx context.Context, r pci.RefundRequest) (pci.SaleResult, error) {
	open := pci.SaleResult{Outcome: pci.Unsent}
	if r.Repeat {
		open.Outcome = pci.Unknown
	}
	if err := check(r.Payment, r.Amount, r.Trace); err != nil {
		return open, err
	}
	if !isID("pi", r.Reference) {
		return open, errors.New("stripe: the sale's payment intent is not known")
	}
	if r.Repeat {
		made, err := c.refunds(ctx, r.Reference)
		if err != nil {
			return open, err
		}
		for _, m := range made {
			if m.Metadata[metaPayment] == r.Payment && m.Metadata[metaTrace] == nameOf(r.Trace) {
				return judgeRefund(r, m)
			}
		}
		if c.cfg.Now().Sub(r.Trace.TransmittedAt) > keyLife {
			return pci.SaleResult{Outcome: pci.Unsent}, errors.New("stripe: the refund was never made")
		}
	}
	return c.giveBack(ctx, r, keyOf(r.Payment, r.Trace, "refund"))
}

func (c *Connector) giveBack(ctx context.Context, r pci.RefundRequest, key string) (pci.SaleResult, error) {
	f, err := newForm()
	if err != nil {
		return pci.SaleResult{Outcome: pci.Unsent}, err
	}
	defer f.wipe()
	f.text("payment_intent", r.Reference)
	f.number("amount", r.Amount.Minor)
	f.text("metadata["+metaPayment+"]", r.Payment)
	f.text("metadata["+metaTrace+"]", nameOf(r.Trace))
	var made refund
	err = c.post(ctx, pathRefunds, f, key, &made)
	failed, answered := errors.AsType[*apiError](err)
	switch {
	case err == nil:
		return judgeRefund(r, made)
	case answered && failed.refused():
		return pci.SaleResult{Outcome: pci.Refused, ResponseCode: responseCode(failed.failure.Error.Code, failed.failure.Error.DeclineCode)}, nil
	case answered && !r.Repeat && failed.untouched() && neverRefunded[failed.failure.Error.Code]: // to a repeat it may be said because of the first
		return pci.SaleResult{Outcome: pci.Refused, ResponseCode: doNotHonour}, nil
	case !r.Repeat && (errors.Is(err, ErrUnreachable) || answered && failed.untouched()):
		return pci.SaleResult{Outcome: pci.Unsent}, fmt.Errorf("refund: %w", err)
	}
	return pci.SaleResult{Outcome: pci.Unknown}, fmt.Errorf("refund: %w", err)
}

// neverRefunded are the codes by which Stripe refuses a refund that is well formed.
var neverRefunded = map[string]bool{"charge_already_refunded": true, "charge_disputed": true, "refund_disputed_payment": true, "balance_insufficient": true, "amount_too_large": true}

// judgeRefund reads a refund that was made.
func judgeRefund(r pci.RefundRequest, made refund) (pci.SaleResult, error) {
	if made.Object != "refund" || made.Amount != r.Amount.Minor || !strings.EqualFold(made.Currency, string(r.Amount.Currency)) || made.PaymentIntent != r.Reference {
		return pci.SaleResult{Outcome: pci.Unknown}, fmt.Errorf("refund: %w", ErrMismatch)
	}
	switch made.Status {
	case "succeeded", "pending":
		return pci.SaleResult{Outcome: pci.Approved, ResponseCode: "00"}, nil
	case "failed", "canceled":
		return pci.SaleResult{Outcome: pci.Refused, ResponseCode: doNotHonour}, nil
	}
	return pci.SaleResult{Outcome: pci.Unknown}, fmt.Errorf("stripe: the refund is %s", shown(made.Status))
}

// refunds returns those of a payment intent. A hundred is more than any has.
func (c *Connector) refunds(ctx context.Context, id string) ([]refund, error) {
	var found list[refund]
	if err := c.get(ctx, pathRefunds, url.Values{"payment_intent": {id}, "limit": {"100"}}, &found); err != nil {
		return nil, fmt.Errorf("look for refunds: %w", err)
	}
	if found.Object != "list" || found.HasMore {
		return nil, fmt.Errorf("look for refunds: %w", ErrMismatch)
	}
	return found.Data, nil
}
