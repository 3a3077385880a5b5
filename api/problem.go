package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
)

// Problem is an error of the contract (RFC 9457, application/problem+json).
type Problem struct {
	Status     int           // HTTP status
	Code       string        // stable; listed in openapi.yaml
	Title      string        // the same for every problem of this code
	Detail     string        // what is wrong this time, and what to do
	Pointer    string        // JSON pointer to the field at fault (RFC 6901)
	RetryAfter time.Duration // 0 for none
}

func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// Is makes problems of one code equal for [errors.Is].
func (p *Problem) Is(target error) bool {
	t, ok := target.(*Problem)
	return ok && t.Code == p.Code
}

// With returns the problem with another detail.
func (p *Problem) With(format string, args ...any) *Problem {
	q := *p
	q.Detail = fmt.Sprintf(format, args...)
	return &q
}

// At returns the problem with a pointer to the field at fault.
func (p *Problem) At(pointer string) *Problem {
	q := *p
	q.Pointer = pointer
	return &q
}

// The problems of the contract.
var (
	ErrMalformed = &Problem{Status: http.StatusBadRequest, Code: "malformed", Title: "The request cannot be read",
		Detail: "The body is not one JSON object in UTF-8."}
	ErrInvalid = &Problem{Status: http.StatusUnprocessableEntity, Code: "invalid", Title: "A field is not acceptable",
		Detail: "Correct the field and send the request again."}
	ErrUnknownField = &Problem{Status: http.StatusUnprocessableEntity, Code: "unknown_field", Title: "A field is not known",
		Detail: "Remove the field; openapi.yaml lists those that are known."}
	ErrTooLarge = &Problem{Status: http.StatusRequestEntityTooLarge, Code: "too_large", Title: "The request is too large",
		Detail: "Send a smaller body."}
	ErrMediaType = &Problem{Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type", Title: "The body has another media type",
		Detail: "Send application/json."}
	ErrUnauthorized = &Problem{Status: http.StatusUnauthorized, Code: "unauthorized", Title: "The API key is missing, unknown or revoked",
		Detail: "Send Authorization: Bearer and the key."}
	ErrForbidden = &Problem{Status: http.StatusForbidden, Code: "forbidden", Title: "The API key lacks the scope",
		Detail: "Use a key with the scope that this route wants."}
	ErrNotFound = &Problem{Status: http.StatusNotFound, Code: "not_found", Title: "There is no such thing",
		Detail: "Check the address and the id, and that the key belongs to the same merchant."}
	ErrMethod = &Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Title: "The route does not take this method",
		Detail: "The Allow header says which it takes."}
	ErrNoSession = &Problem{Status: http.StatusNotFound, Code: "no_session", Title: "There is no such checkout session",
		Detail: "Go back to the shop and start again."}
	ErrIdempotency = &Problem{Status: http.StatusUnprocessableEntity, Code: "idempotency_key_reused", Title: "The idempotency key was used for another request",
		Detail: "Use a new Idempotency-Key for a new request."}
	ErrNotPossible = &Problem{Status: http.StatusConflict, Code: "not_possible_now", Title: "The payment does not allow that now",
		Detail: "GET the payment to see where it stands."}
	ErrAmount = &Problem{Status: http.StatusUnprocessableEntity, Code: "amount_too_large", Title: "The amount is more than there is",
		Detail: "Send a smaller amount, or leave it out for all that there is."}
	ErrCardNumber = &Problem{Status: http.StatusUnprocessableEntity, Code: "looks_like_card_number", Title: "A field holds what looks like a card number",
		Detail: "Card numbers are entered on the checkout page only. Remove it."}
	ErrCard = &Problem{Status: http.StatusUnprocessableEntity, Code: "invalid_card", Title: "The card is not acceptable",
		Detail: "Correct the card and send the request again."}
	ErrIntakeKey = &Problem{Status: http.StatusUnprocessableEntity, Code: "intake_key_unknown", Title: "The card is sealed to a key that is not in use",
		Detail: "The key may have been replaced. GET /v1/intake/key and seal the card again."}
	ErrReplayed = &Problem{Status: http.StatusConflict, Code: "sealed_card_replayed", Title: "The sealed card was sent before",
		Detail: "Nothing was done with it again. Seal the card again for a new request; repeat a request with its Idempotency-Key."}
	ErrOpenCard = &Problem{Status: http.StatusForbidden, Code: "sealed_only", Title: "Cards are taken sealed only",
		Detail: "Seal the card to the key of GET /v1/intake/key; the clients do."}
	ErrNoDomain = &Problem{Status: http.StatusNotFound, Code: "no_domain", Title: "There is no such domain",
		Detail: "GET /v1/domains lists the domains of the key's merchant."}
	ErrNoRecipient = &Problem{Status: http.StatusForbidden, Code: "no_recipient", Title: "The API key has no recipient yet",
		Detail: "Cards are sealed to a public key that the appliance's operator registers for the API key: finpay api-key recipient. It can be used once its delay is over."}
	ErrQuota = &Problem{Status: http.StatusTooManyRequests, Code: "quota_spent", Title: "The API key's quota is spent",
		Detail: "No more cards are detokenized for this key today.", RetryAfter: time.Hour}
	ErrInactive = &Problem{Status: http.StatusConflict, Code: "token_inactive", Title: "The token was deactivated",
		Detail: "Tokenize its card again to make it active."}
	ErrTokenReplaced = &Problem{Status: http.StatusGone, Code: "token_replaced", Title: "The token was replaced by another one",
		Detail: "The domain has acknowledged the change and its window is over. GET the token to see by which it was replaced."}
	ErrTokenBound = &Problem{Status: http.StatusTooManyRequests, Code: "token_bound", Title: "Too many cards that begin and end alike",
		Detail: "So many different cards with one first six and last four digits look like a search for one of them. Try again tomorrow, or have an import window opened.", RetryAfter: time.Hour}
	ErrNoEndpoint = &Problem{Status: http.StatusConflict, Code: "no_endpoint", Title: "No endpoint can take the event",
		Detail: "No endpoint is enabled that takes events of this type. GET /v1/webhook-endpoints lists them; enable one and ask again."}
	ErrRateLimit = &Problem{Status: http.StatusTooManyRequests, Code: "rate_limited", Title: "Too many requests",
		Detail: "Wait as Retry-After says.", RetryAfter: time.Second}
	ErrUnavailable = &Problem{Status: http.StatusServiceUnavailable, Code: "unavailable", Title: "The appliance cannot serve this now",
		Detail: "Nothing was changed. Try again as Retry-After says.", RetryAfter: 5 * time.Second}
	ErrInternal = &Problem{Status: http.StatusInternalServerError, Code: "internal", Title: "The appliance failed",
		Detail: "The fault was logged. Ask for the outcome before you try again."}
)

// cardProblems is the one table from the errors of package pci to the contract.
var cardProblems = []struct {
	err     error
	problem *Problem
}{
	{pci.ErrIntakeKey, ErrIntakeKey},
	{pci.ErrReplayed, ErrReplayed},
	{pci.ErrOpenCard, ErrOpenCard},
	{pci.ErrMalformed, ErrMalformed},
	{pci.ErrTooLarge, ErrTooLarge},
	{pci.ErrFull, ErrUnavailable},
	{pci.ErrUnavailable, ErrUnavailable},
	{pci.ErrGone, ErrUnavailable},
	{pci.ErrNotIssued, ErrNotFound},
}

// ProblemOf returns the problem that an error stands for. What is not known is [ErrInternal]: its text is for the
// log, never for a caller.
func ProblemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if wrong, ok := errors.AsType[pci.CardErrors](err); ok {
		return cardProblem(wrong)
	}
	if wrong, ok := errors.AsType[*pci.CardError](err); ok {
		return cardProblem(pci.CardErrors{wrong})
	}
	if why, ok := errors.AsType[*pci.MalformedError](err); ok {
		return ErrMalformed.With("The card cannot be read: %s.", why.Why)
	}
	for _, row := range cardProblems {
		if errors.Is(err, row.err) {
			return row.problem
		}
	}
	return ErrInternal
}

// cardProblem says all that is wrong with a card, and points to the first of it.
func cardProblem(wrong pci.CardErrors) *Problem {
	text := make([]string, len(wrong))
	for i, e := range wrong {
		text[i] = fmt.Sprintf("%s: %s", e.Field, e.Reason)
	}
	return ErrCard.With("%s.", strings.Join(text, "; ")).At("/" + string(wrong[0].Field))
}

// WriteProblem answers with a problem document.
func WriteProblem(w http.ResponseWriter, p *Problem) {
	body, err := json.Marshal(struct {
		Type    string `json:"type"`
		Title   string `json:"title"`
		Status  int    `json:"status"`
		Code    string `json:"code"`
		Detail  string `json:"detail,omitempty"`
		Pointer string `json:"pointer,omitempty"`
	}{"about:blank", p.Title, p.Status, p.Code, p.Detail, p.Pointer})
	if err != nil {
		http.Error(w, p.Title, p.Status)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	p.setRetryAfter(w.Header())
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}

// setRetryAfter sets the header in whole seconds, rounded up: a client that keeps to it must not come too early.
func (p *Problem) setRetryAfter(h http.Header) {
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((p.RetryAfter+time.Second-1)/time.Second)))
	}
}
