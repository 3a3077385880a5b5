package stripe

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/finterra/finpay/pci"
)

// Capture moves what was authorized, or a part of it; the rest is given up. The caller repeats it, with the same trace and
// Repeat set, until it is acknowledged or refused: the key is the same, and what an earlier try has captured is seen in the
// payment intent.
//
// acknowledged means that Stripe has captured this amount. [pci.ErrRefused] means that it never will: the authorization has ended.
func (c *Connector) Capture(ctx context.Context, r pci.CaptureRequest) (acknowledged bool, err error) {
	if err := check(r.Payment, r.Amount, r.Trace); err != nil {
		return false, err
	}
	if r.Amount.Currency != r.Authorized.Currency || r.Amount.Minor > r.Authorized.Minor {
		return false, errors.New("stripe: the capture is not within the authorization")
	}
	if r.Repeat {
		if done, err := c.captured(ctx, r); done || err != nil {
			return done, err
		}
	}
	f, err := newForm()
	if err != nil {
		return false, err
	}
	defer f.wipe()
	f.number("amount_to_capture", r.Amount.Minor)
	path, err := intentPath(r.Reference, "/capture")
	if err != nil {
		return false, err
	}
	var made intent
	err = c.post(ctx, path, f, keyOf(r.Payment, r.Trace, "capture"), &made)
	if failed, ok := errors.AsType[*apiError](err); ok && (failed.refused() || neverCaptured[failed.failure.Error.Code]) {
		if done, look := c.captured(ctx, r); done || errors.Is(look, pci.ErrRefused) {
			return done, look // what stands in the payment intent counts
		}
		return false, fmt.Errorf("capture: %w: %w", pci.ErrRefused, err)
	}
	if err != nil {
		return false, fmt.Errorf("capture: %w", err)
	}
	done, err := judgeCapture(r, made)
	if err == nil && !done {
		err = fmt.Errorf("capture: %w", ErrMismatch)
	}
	return done, err
}

// neverCaptured are the codes after which a repeat changes nothing (https://docs.stripe.com/error-codes).
var neverCaptured = map[string]bool{"amount_too_large": true, "capture_charge_authorization_expired": true, "charge_expired_for_capture": true}

// captured looks whether an earlier try was done.
func (c *Connector) captured(ctx context.Context, r pci.CaptureRequest) (bool, error) {
	made, err := c.intent(ctx, r.Reference)
	if err != nil {
		return false, err
	}
	return judgeCapture(r, made)
}

// judgeCapture says whether a payment intent is captured with this amount. It is neither that nor refused while it waits for its
// capture.
func judgeCapture(r pci.CaptureRequest, made intent) (bool, error) {
	if !of(made, r.Payment, r.Original) || made.ID != r.Reference || !strings.EqualFold(made.Currency, string(r.Amount.Currency)) {
		return false, fmt.Errorf("capture: %w", ErrMismatch)
	}
	switch made.Status {
	case intentSucceeded:
		if made.AmountReceived != r.Amount.Minor {
			return false, fmt.Errorf("capture: %w: another amount was captured", pci.ErrRefused)
		}
		return true, nil
	case intentCanceled:
		return false, fmt.Errorf("capture: %w: the authorization has ended", pci.ErrRefused)
	}
	return false, nil
}

// intent reads a payment intent.
func (c *Connector) intent(ctx context.Context, id string) (made intent, err error) {
	path, err := intentPath(id, "")
	if err != nil {
		return intent{}, err
	}
	if err := c.get(ctx, path, nil, &made); err != nil {
		return intent{}, fmt.Errorf("look at the payment intent: %w", err)
	}
	if made.Object != "payment_intent" || made.ID != id {
		return intent{}, ErrMismatch
	}
	return made, nil
}

// intentPath is the path of a payment intent, or of something to do with it.
func intentPath(id, action string) (string, error) {
	if !isID("pi", id) {
		return "", errors.New("stripe: the sale's payment intent is not known")
	}
	return pathIntents + "/" + id + action, nil
}
