package stripe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// Metadata of what is made at Stripe. By the first two a sale or refund is found again.
const (
	metaPayment = "finpay_payment"
	metaTrace   = "finpay_trace"
	metaFence   = "finpay_fence" // see [Connector.Reverse]
)

// nameOf is what a trace is called at Stripe: unique for ever, and nothing of the card is in it.
func nameOf(t pci.Trace) string { return t.TransmittedAt.UTC().Format("20060102150405") + "-" + t.STAN }

// keyOf is an idempotency key (https://docs.stripe.com/api/idempotent_requests).
func keyOf(payment string, t pci.Trace, what string) string {
	return "finpay-" + payment + "-" + nameOf(t) + "-" + what
}

// Sale charges an amount at once. The result always has an outcome; the error is nil with [pci.Approved] and [pci.Refused], and says with
// [pci.Unsent] and [pci.Unknown] what happened: [pci.ErrGone] when the card is not held any more, [ErrUnreachable], [ErrNoAnswer],
// [ErrMismatch] and others.
func (c *Connector) Sale(ctx context.Context, r pci.SaleRequest) (pci.SaleResult, error) {
	return c.sell(ctx, r, "automatic", intentSucceeded)
}

// Authorize reserves an amount that is captured later. [Connector.Capture] moves the money; a [Connector.Reverse] gives it up.
func (c *Connector) Authorize(ctx context.Context, r pci.SaleRequest) (pci.SaleResult, error) {
	return c.sell(ctx, r, "manual", intentRequiresCapture)
}

func (c *Connector) sell(ctx context.Context, r pci.SaleRequest, capture, approved string) (pci.SaleResult, error) {
	unsent := pci.SaleResult{Outcome: pci.Unsent}
	if err := check(r.Payment, r.Amount, r.Trace); err != nil {
		return unsent, err
	}
	method, err := c.tokenize(ctx, r)
	if failed, ok := errors.AsType[*apiError](err); ok && failed.refused() {
		return refusal(failed), nil
	}
	if err != nil {
		return unsent, fmt.Errorf("payment method: %w", err) // it would have charged nothing
	}
	f, err := intentForm(r, method, capture)
	if err != nil {
		return unsent, err
	}
	defer f.wipe()
	return c.charge(ctx, r, f, approved)
}

// check refuses what cannot be asked for.
func check(payment string, amount pci.Amount, trace pci.Trace) error {
	switch {
	case payment == "" || len(payment) > 100:
		return errors.New("stripe: the payment has no id")
	case amount.Minor <= 0 || len(amount.Currency) != 3:
		return errors.New("stripe: there is no amount")
	case trace.STAN == "" || trace.TransmittedAt.IsZero():
		return errors.New("stripe: the trace is not complete")
	}
	return nil
}

// tokenize makes a payment method of the card and returns its id. It charges nothing.
func (c *Connector) tokenize(ctx context.Context, r pci.SaleRequest) (string, error) {
	var f *form
	err := c.lend(ctx, r, func(card *pan.Card) (err error) {
		if f, err = newForm(); err != nil {
			return err
		}
		f.text("type", "card")
		f.card(card)
		return nil
	})
	defer f.wipe()
	if err != nil {
		return "", err
	}
	var made paymentMethod
	if err := c.post(ctx, pathMethods, f, keyOf(r.Payment, r.Trace, "card"), &made); err != nil {
		return "", err
	}
	if made.Object != "payment_method" || !isID("pm", made.ID) {
		return "", ErrMismatch
	}
	c.healthy.Store(true)
	return made.ID, nil
}

// lend finds the card to charge: one in custody, or a stored credential.
func (c *Connector) lend(ctx context.Context, r pci.SaleRequest, use func(*pan.Card) error) error {
	stored := r.Initiator == pci.ByCustomer || r.Initiator == pci.ByMerchant
	switch {
	case r.Token == "" && r.Initiator == "" && !r.Entered:
		return c.cards.Lend(ctx, r.Card, r.Payment, use)
	case r.Token == "":
		return errors.New("stripe: an initiator is of stored credentials, and this card was entered")
	case !r.Card.IsZero() || stored == r.Entered || !stored && r.Initiator != "":
		return errors.New("stripe: a stored credential has an initiator and no card in custody")
	case c.tokens == nil:
		return errors.New("stripe: no tokenization to take cards from")
	}
	return c.tokens.Lend(ctx, r.Domain, r.Token, use)
}

// intentForm asks for a payment intent that is confirmed at once (https://docs.stripe.com/api/payment_intents/create). Stripe's
// own 3-D Secure never begins: what needs the shopper is refused (error_on_requires_action).
func intentForm(r pci.SaleRequest, method, capture string) (*form, error) {
	f, err := newForm()
	if err != nil {
		return nil, err
	}
	f.number("amount", r.Amount.Minor)
	f.text("currency", strings.ToLower(string(r.Amount.Currency)))
	f.text("payment_method", method)
	f.text("payment_method_types[0]", "card")
	f.text("confirm", "true")
	f.text("capture_method", capture)
	f.text("error_on_requires_action", "true")
	f.text("expand[0]", "latest_charge") // which has the scheme's identifier
	if r.Initiator == pci.ByMerchant {
		f.text("off_session", "true")
	}
	f.text("metadata["+metaPayment+"]", r.Payment)
	f.text("metadata["+metaTrace+"]", nameOf(r.Trace))
	if a := r.Authentication; a.CAVV != "" {
		const at = "payment_method_options[card][three_d_secure]"
		f.text(at+"[version]", a.Version)
		f.text(at+"[cryptogram]", a.CAVV)
		f.text(at+"[transaction_id]", a.DSTransID)
		f.optional(at+"[electronic_commerce_indicator]", a.ECI)
		f.optional(at+"[ares_trans_status]", a.TransStatus)
	}
	return f, nil
}

// charge asks for the payment intent, and again under the same key while no answer says what became of it, for two
// timeouts in all.
func (c *Connector) charge(ctx context.Context, r pci.SaleRequest, f *form, approved string) (pci.SaleResult, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.cfg.AnswerTimeout)
	defer cancel()
	key := keyOf(r.Payment, r.Trace, "sale")
	unknown := pci.SaleResult{Outcome: pci.Unknown}
	for wait, first := c.cfg.RepeatAfter, true; ; wait, first = 2*wait, false {
		var made intent
		err := c.post(ctx, pathIntents, f, key, &made)
		failed, answered := errors.AsType[*apiError](err)
		switch {
		case err == nil:
			return c.verdict(r, made, approved)
		case answered && failed.refused():
			return refusal(failed), nil
		case first && (errors.Is(err, ErrUnreachable) || answered && failed.untouched()):
			return pci.SaleResult{Outcome: pci.Unsent}, fmt.Errorf("payment intent: %w", err)
		case answered && !failed.passing():
			return unknown, fmt.Errorf("payment intent: %w", err)
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return unknown, fmt.Errorf("payment intent: %w", err)
		}
	}
}

// verdict reads the payment intent that was made.
func (c *Connector) verdict(r pci.SaleRequest, made intent, approved string) (pci.SaleResult, error) {
	unknown := pci.SaleResult{Outcome: pci.Unknown}
	if made.Object != "payment_intent" || !isID("pi", made.ID) || !of(made, r.Payment, r.Trace) || made.Amount != r.Amount.Minor ||
		!strings.EqualFold(made.Currency, string(r.Amount.Currency)) {
		return unknown, ErrMismatch
	}
	c.healthy.Store(true)
	unknown.Reference = made.ID
	if made.Status != approved || approved == intentSucceeded && made.AmountReceived != r.Amount.Minor {
		return unknown, fmt.Errorf("stripe: the payment intent is %s", shown(made.Status))
	}
	return pci.SaleResult{Outcome: pci.Approved, ResponseCode: "00", Reference: made.ID, NetworkID: made.networkID()}, nil
}

// of reports whether a payment intent was made for a sale.
func of(made intent, payment string, trace pci.Trace) bool {
	return made.Metadata[metaPayment] == payment && made.Metadata[metaTrace] == nameOf(trace)
}

// refusal is the result of a card error.
func refusal(failed *apiError) pci.SaleResult {
	result := pci.SaleResult{Outcome: pci.Refused, ResponseCode: responseCode(failed.failure.Error.Code, failed.failure.Error.DeclineCode)}
	result.Authenticate = result.ResponseCode == softDecline
	if made := failed.failure.Error.PaymentIntent; made != nil && isID("pi", made.ID) {
		result.Reference = made.ID
	}
	return result
}
