package payment

import (
	"errors"
	"fmt"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
)

// transitions is the whole state machine of a payment: one payment, many attempts, one transition at a time, each
// a commit of the ledger.
var transitions = []struct {
	from  api.Status
	event string // also the type of the ledger's entry
	to    api.Status
}{
	{"", "payment.created", api.StatusCreated},
	{api.StatusCreated, "payment.card_entered", api.StatusAuthenticating},
	{api.StatusDeclined, "payment.card_entered", api.StatusAuthenticating}, // another card
	{api.StatusCreated, "payment.card_chosen", api.StatusAuthenticating},   // the stored card, by the shopper or their merchant
	{api.StatusAuthenticating, "payment.challenged", api.StatusAuthenticating},
	{api.StatusAuthenticating, "payment.authorizing", api.StatusAuthorizing}, // entered before the sale leaves
	{api.StatusAuthenticating, "payment.declined", api.StatusDeclined},
	{api.StatusAuthenticating, "payment.card_lost", api.StatusCreated}, // the shopper is asked again, nothing was charged
	{api.StatusAuthorizing, "payment.rerouted", api.StatusAuthorizing}, // nothing left by the connector before; entered before the sale leaves by this one
	{api.StatusAuthorizing, "payment.captured", api.StatusCaptured},
	{api.StatusAuthorizing, "payment.declined", api.StatusDeclined},
	{api.StatusAuthorizing, "payment.soft_declined", api.StatusAuthenticating}, // the issuer wants a challenge first, once
	{api.StatusAuthorizing, "payment.not_sent", api.StatusCreated},             // certainly nothing left this machine
	{api.StatusAuthenticating, "payment.failed", api.StatusFailed},             // the merchant's own: there is nobody to ask again
	{api.StatusAuthorizing, "payment.failed", api.StatusFailed},                // likewise, and certainly nothing left
	{api.StatusAuthorizing, "payment.indeterminate", api.StatusIndeterminate},  // its reversal is due from the same commit on
	{api.StatusIndeterminate, "payment.reversed", api.StatusFailed},
	{api.StatusAuthorizing, "payment.authorized", api.StatusAuthorized},       // where captures are manual
	{api.StatusAuthorized, "payment.capture_requested", api.StatusAuthorized}, // entered before the advice leaves
	{api.StatusAuthorized, "payment.captured", api.StatusCaptured},            // the acquirer has booked it
	{api.StatusAuthorized, "payment.capture_refused", api.StatusAuthorized},   // it never will
	{api.StatusAuthorized, "payment.void_requested", api.StatusAuthorized},    // entered before the reversal leaves
	{api.StatusAuthorized, "payment.voided", api.StatusVoided},
	{api.StatusCaptured, "payment.refund_requested", api.StatusCaptured}, // entered before the request leaves
	{api.StatusCaptured, "payment.partially_refunded", api.StatusPartiallyRefunded},
	{api.StatusCaptured, "payment.refunded", api.StatusRefunded},
	{api.StatusCaptured, "payment.refund_indeterminate", api.StatusCaptured}, // its reversal is due from the same commit on
	{api.StatusCaptured, "payment.refund_failed", api.StatusCaptured},        // refused, not sent, or reversed
	{api.StatusPartiallyRefunded, "payment.refund_requested", api.StatusPartiallyRefunded},
	{api.StatusPartiallyRefunded, "payment.partially_refunded", api.StatusPartiallyRefunded},
	{api.StatusPartiallyRefunded, "payment.refunded", api.StatusRefunded},
	{api.StatusPartiallyRefunded, "payment.refund_indeterminate", api.StatusPartiallyRefunded},
	{api.StatusPartiallyRefunded, "payment.refund_failed", api.StatusPartiallyRefunded},
	{api.StatusCreated, "payment.expired", api.StatusExpired},
	{api.StatusCreated, "payment.withdrawn", api.StatusVoided}, // by its merchant, before anybody has paid
	{api.StatusDeclined, "payment.withdrawn", api.StatusVoided},
	{api.StatusCreated, "payment.restored", api.StatusIndeterminate}, // from a copy: it may have been paid since
	{api.StatusDeclined, "payment.restored", api.StatusIndeterminate},
	{api.StatusAuthenticating, "payment.restored", api.StatusIndeterminate},
	{api.StatusAuthorized, "payment.restored", api.StatusIndeterminate},        // it may have been captured or voided since
	{api.StatusIndeterminate, "payment.resolved_captured", api.StatusCaptured}, // people have asked the acquirer
	{api.StatusIndeterminate, "payment.resolved_failed", api.StatusFailed},
}

// Transition is one arrow of the state machine.
type Transition struct {
	From  api.Status // empty: there is no payment yet
	Event string     // the type of the ledger's entry; the failpoints around its commit are "before" and "after" it
	To    api.Status
}

// Transitions returns the whole state machine.
func Transitions() []Transition {
	all := make([]Transition, len(transitions))
	for i, t := range transitions {
		all[i] = Transition{t.from, t.event, t.to}
	}
	return all
}

// move changes the payment's status by an event, or says that the event has no place there.
func move(p *store.Payment, event string) error {
	for _, t := range transitions {
		if string(t.from) == p.Status && t.event == event {
			p.Status = string(t.to)
			return nil
		}
	}
	return fmt.Errorf("%w: payment %s: %s does not follow %q", errMove, p.ID, event, p.Status)
}

// errMove means that a transition has no place where the payment stands.
var errMove = errors.New("payment: no such transition")

// The statuses of an attempt: those of the payment while it is the last one, and how it ended.
const (
	attemptAuthenticating = "authenticating"
	attemptAuthorizing    = "authorizing"
	attemptAuthorized     = "authorized" // and stays so: what follows has rows of its own
	attemptCaptured       = "captured"
	attemptDeclined       = "declined"
	attemptAbandoned      = "abandoned" // nothing was sent to the acquirer
	attemptIndeterminate  = "indeterminate"
	attemptReversed       = "reversed"
	attemptUnknown        = "unknown" // a restored database does not say what became of it
)

// declineReasons names the acquirer's response codes (ISO 8583:1987 DE 39) that a shopper can do something about.
var declineReasons = map[string]api.Reason{
	"05": api.ReasonDoNotHonour,
	"51": api.ReasonInsufficientFunds,
	"54": api.ReasonExpiredCard,
	"33": api.ReasonExpiredCard,
	"82": api.ReasonWrongSecurityCode,
	"N7": api.ReasonWrongSecurityCode,
	"61": api.ReasonLimitExceeded,
	"65": api.ReasonLimitExceeded,
	"41": api.ReasonCardRefused, // lost: the shopper is not told
	"43": api.ReasonCardRefused, // stolen: nor here
}

func declineReason(responseCode string) api.Reason {
	if reason, ok := declineReasons[responseCode]; ok {
		return reason
	}
	return api.ReasonCardRefused
}
