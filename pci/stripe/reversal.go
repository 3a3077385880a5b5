package stripe

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
)

// clockSkew is how far Stripe's clock may be from this machine's when a payment intent is sought by its time.
const clockSkew = 5 * time.Minute

// maxPages bounds the search for a payment intent, in pages of a hundred.
const maxPages = 100

// Reverse takes a sale or an authorization back: of unknown outcome, or given up. The caller repeats it until it is
// acknowledged: then nothing is charged by the original, and nothing will be.
//
// Where the payment intent is not known it is sought in the list of those that were made at the time of the sale. The list
// is up to date, which Stripe's search is not: https://docs.stripe.com/search#data-freshness gives it up to a minute, and
// more in an outage, in which a sale that was made would not be found. One that is found is cancelled, or refunded where it
// has succeeded.
//
// One that is not found may still be on its way. So another request is sent under the key of the sale, for a payment intent
// without a card: the fence. Where Stripe takes it the original was never done, and if it still comes it meets a used key
// and other parameters, which Stripe refuses. The fence is cancelled, and the reversal acknowledged. Where Stripe says that
// the key is used, the original is there, or is being done: the next look finds it.
func (c *Connector) Reverse(ctx context.Context, r pci.ReversalRequest) (acknowledged bool, err error) {
	if r.Refund {
		return false, errors.New("stripe: a refund of unknown outcome is repeated, not reversed")
	}
	if err := check(r.Payment, r.Amount, r.Original); err != nil {
		return false, err
	}
	made, found, err := c.find(ctx, r)
	if err == nil && !found {
		made, err = c.fence(ctx, r)
	}
	if err == nil {
		err = c.undo(ctx, r, made)
	}
	if err != nil {
		return false, fmt.Errorf("reversal: %w", err)
	}
	return true, nil
}

// find returns the payment intent of a sale: by its id where that is known, else by metadata among those of its time.
func (c *Connector) find(ctx context.Context, r pci.ReversalRequest) (made intent, found bool, err error) {
	if r.Reference != "" {
		made, err = c.intent(ctx, r.Reference)
		if err == nil && !of(made, r.Payment, r.Original) {
			err = ErrMismatch
		}
		return made, err == nil, err
	}
	from := r.Original.TransmittedAt.Add(-clockSkew)
	to := r.Original.TransmittedAt.Add(3*c.cfg.AnswerTimeout + clockSkew) // a payment method, and two timeouts
	query := url.Values{"limit": {"100"}, "created[gte]": {strconv.FormatInt(from.Unix(), 10)}, "created[lte]": {strconv.FormatInt(to.Unix(), 10)}}
	for range maxPages {
		var page list[intent]
		if err := c.get(ctx, pathIntents, query, &page); err != nil {
			return intent{}, false, fmt.Errorf("look for the payment intent: %w", err)
		}
		if page.Object != "list" {
			return intent{}, false, ErrMismatch
		}
		for _, made := range page.Data {
			if of(made, r.Payment, r.Original) && made.Metadata[metaFence] == "" {
				return made, true, nil
			}
		}
		if !page.HasMore || len(page.Data) == 0 {
			return intent{}, false, nil
		}
		query.Set("starting_after", page.Data[len(page.Data)-1].ID)
	}
	return intent{}, false, errors.New("stripe: too many payment intents were made at the time of the sale")
}

// fence takes the key of a sale that was not found, for a payment intent that can charge nobody.
func (c *Connector) fence(ctx context.Context, r pci.ReversalRequest) (intent, error) {
	f, err := newForm()
	if err != nil {
		return intent{}, err
	}
	defer f.wipe()
	f.number("amount", r.Amount.Minor)
	f.text("currency", strings.ToLower(string(r.Amount.Currency)))
	f.text("payment_method_types[0]", "card")
	f.text("metadata["+metaPayment+"]", r.Payment)
	f.text("metadata["+metaTrace+"]", nameOf(r.Original))
	f.text("metadata["+metaFence+"]", "true")
	var made intent
	if err := c.post(ctx, pathIntents, f, keyOf(r.Payment, r.Original, "sale"), &made); err != nil {
		return intent{}, fmt.Errorf("the sale was not found, and its key is not free: %w", err)
	}
	if made.Object != "payment_intent" || made.Metadata[metaFence] == "" || !of(made, r.Payment, r.Original) {
		return intent{}, ErrMismatch
	}
	// The look before has found nothing in a time that was told by this machine's clock. A fence that was made before is
	// Stripe's answer to its repeat, and older.
	at := time.Unix(made.Created, 0)
	if at.Sub(c.cfg.Now()) > clockSkew || r.Original.TransmittedAt.Sub(at) > clockSkew {
		return intent{}, errors.New("stripe: this machine's clock is not Stripe's: the sale may have been missed")
	}
	return made, nil
}

// undo makes sure that a payment intent charges nothing.
func (c *Connector) undo(ctx context.Context, r pci.ReversalRequest, made intent) error {
	switch made.Status {
	case intentCanceled:
		return nil
	case intentSucceeded:
		return c.refundAll(ctx, r, made)
	}
	path, err := intentPath(made.ID, "/cancel")
	if err != nil {
		return err
	}
	f, err := newForm()
	if err != nil {
		return err
	}
	defer f.wipe()
	f.text("cancellation_reason", "abandoned")
	var after intent
	// Without a key: a cancellation does no more when it is done twice, and under a key its failure would be repeated for a day.
	err = c.post(ctx, path, f, "", &after)
	if failed, ok := errors.AsType[*apiError](err); ok && failed.untouched() { // it may be cancelled already, as a fence whose repeat was answered
		after, err = c.intent(ctx, made.ID)
	}
	if err != nil {
		return fmt.Errorf("cancel: %w", err) // what it has become meanwhile is looked at next time
	}
	if after.Object != "payment_intent" || after.ID != made.ID || after.Status != intentCanceled {
		return fmt.Errorf("cancel: %w", ErrMismatch)
	}
	return nil
}

// refundAll gives back what a payment intent has moved.
func (c *Connector) refundAll(ctx context.Context, r pci.ReversalRequest, made intent) error {
	if !isID("pi", made.ID) || made.AmountReceived <= 0 || !strings.EqualFold(made.Currency, string(r.Amount.Currency)) {
		return ErrMismatch
	}
	earlier, err := c.refunds(ctx, made.ID)
	if err != nil {
		return err
	}
	left := made.AmountReceived
	for _, e := range earlier {
		if e.Status == "succeeded" || e.Status == "pending" {
			left -= e.Amount
		}
	}
	if left <= 0 {
		return nil
	}
	// One that has failed is asked for again under another key: its number.
	key := keyOf(r.Payment, r.Original, "reversal-"+strconv.Itoa(len(earlier)))
	result, err := c.giveBack(ctx, pci.RefundRequest{Payment: r.Payment, Amount: pci.Amount{Minor: left, Currency: r.Amount.Currency}, Reference: made.ID, Trace: r.Trace, Repeat: true}, key)
	if err != nil {
		return err
	}
	if result.Outcome != pci.Approved {
		return fmt.Errorf("the refund was refused: %s", result.ResponseCode)
	}
	return nil
}
