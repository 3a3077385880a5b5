package stripe

import (
	"regexp"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/finterra/finpay/pci"
)

// intent is what is read of a PaymentIntent (https://docs.stripe.com/api/payment_intents/object).
type intent struct {
	ID             string            `json:"id"`
	Object         string            `json:"object"`
	Status         string            `json:"status"`
	Amount         int64             `json:"amount"`
	AmountReceived int64             `json:"amount_received"`
	Currency       string            `json:"currency"` // lower case
	Created        int64             `json:"created"`  // Unix time, Stripe's clock
	Metadata       map[string]string `json:"metadata"`
	LatestCharge   jsontext.Value    `json:"latest_charge"` // its id, or the charge where it was asked for
}

// networkID returns the scheme's identifier of the transaction, empty where Stripe does not tell it.
func (i intent) networkID() string {
	var charge struct {
		PaymentMethodDetails struct {
			Card struct {
				NetworkTransactionID string `json:"network_transaction_id"`
			} `json:"card"`
		} `json:"payment_method_details"`
	}
	if i.LatestCharge.Kind() != '{' || json.Unmarshal(i.LatestCharge, &charge) != nil {
		return ""
	}
	if id := charge.PaymentMethodDetails.Card.NetworkTransactionID; pci.IsNetworkID(id) {
		return id
	}
	return ""
}

// Statuses of a PaymentIntent (https://docs.stripe.com/payments/paymentintents/lifecycle).
const (
	intentSucceeded       = "succeeded"
	intentRequiresCapture = "requires_capture"
	intentCanceled        = "canceled"
)

// paymentMethod is what is read of a PaymentMethod.
type paymentMethod struct {
	ID     string `json:"id"`
	Object string `json:"object"`
}

// refund is what is read of a Refund (https://docs.stripe.com/api/refunds/object).
type refund struct {
	ID            string            `json:"id"`
	Object        string            `json:"object"`
	Status        string            `json:"status"`
	Amount        int64             `json:"amount"`
	Currency      string            `json:"currency"`
	PaymentIntent string            `json:"payment_intent"`
	Metadata      map[string]string `json:"metadata"`
}

// list is a page of objects, newest first.
type list[T any] struct {
	Object  string `json:"object"`
	Data    []T    `json:"data"`
	HasMore bool   `json:"has_more"`
}

// failure is the body of an answer that is none of success (https://docs.stripe.com/api/errors).
type failure struct {
	Error struct {
		Type          string  `json:"type"`
		Code          string  `json:"code"`
		DeclineCode   string  `json:"decline_code"`
		PaymentIntent *intent `json:"payment_intent"`
	} `json:"error"`
}

// Types of errors.
const (
	typeCard           = "card_error"
	typeInvalidRequest = "invalid_request_error"
)

var reference = regexp.MustCompile(`^(pi|pm)_[A-Za-z0-9_]{4,97}$`)

// isID reports whether a text has the form of an id with a prefix ("pi", "pm"), and hides no card number.
func isID(prefix, id string) bool {
	return reference.MatchString(id) && id[:2] == prefix && !pci.LooksLikePAN(id)
}

var errorCode = regexp.MustCompile(`^[a-z0-9_]{1,64}$`)

// shown is a code that Stripe has written, for an error of ours.
func shown(code string) string {
	if !errorCode.MatchString(code) || pci.LooksLikePAN(code) {
		return "(none)"
	}
	return code
}
