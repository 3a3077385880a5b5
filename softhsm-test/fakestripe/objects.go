package fakestripe

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

const invalid = "invalid_request_error"

// declines are published test cards, with code and decline code.
var declines = map[string][2]string{
	"4000000000000002": {"card_declined", "generic_decline"},
	"4000000000009995": {"card_declined", "insufficient_funds"},
	"4000000000009987": {"card_declined", "lost_card"},
	"4000000000009979": {"card_declined", "stolen_card"},
	"4000000000000069": {"expired_card", ""},
	"4000000000000127": {"incorrect_cvc", ""},
	"4000002760003184": {"authentication_required", "authentication_required"},
}

// badNumber is a test card that makes no payment method.
const badNumber = "4242424242424241"

// do is the whole API. s.mu is held.
func (s *Server) do(r Request, number string) (int, map[string]any) {
	if !strings.HasPrefix(r.Authorization, "Bearer sk_live_") && !strings.HasPrefix(r.Authorization, "Bearer sk_test_") {
		return http.StatusUnauthorized, problem(invalid, "", "", nil)
	}
	part := strings.Split(strings.TrimPrefix(r.Path, "/v1/"), "/")
	post := r.Method == http.MethodPost
	switch {
	case part[0] == "payment_methods" && post:
		return s.makeMethod(number)
	case part[0] == "refunds" && post:
		return s.makeRefund(r.Form)
	case part[0] == "refunds":
		return s.listRefunds(r.Form)
	case part[0] == "payment_intents" && len(part) == 1 && post:
		return s.makeIntent(r.Form)
	case part[0] == "payment_intents" && len(part) == 1:
		return s.listIntents(r.Form)
	}
	i := (*Intent)(nil)
	if part[0] == "payment_intents" {
		i = s.intent(part[1])
	}
	switch {
	case i == nil:
		return http.StatusNotFound, problem(invalid, "resource_missing", "", nil)
	case len(part) == 2:
		return http.StatusOK, i.show()
	case part[2] == "capture":
		return i.capture(r.Form)
	default:
		return i.cancel()
	}
}

func (s *Server) makeMethod(number string) (int, map[string]any) {
	if number == badNumber || number == "" {
		return http.StatusPaymentRequired, problem("card_error", "incorrect_number", "", nil)
	}
	id := s.id("pm")
	s.cards[id] = number
	return http.StatusOK, map[string]any{"id": id, "object": "payment_method", "card": map[string]any{"last4": number[len(number)-4:]}}
}

func (s *Server) makeIntent(form url.Values) (int, map[string]any) {
	i := &Intent{ID: s.id("pi"), Status: "requires_payment_method", Currency: form.Get("currency"), Capture: form.Get("capture_method"),
		Method: form.Get("payment_method"), Amount: integer(form.Get("amount")), Created: s.now(), Metadata: metadata(form), Form: form}
	if i.Amount <= 0 {
		return http.StatusBadRequest, problem(invalid, "parameter_invalid_integer", "", nil)
	}
	number, known := s.cards[i.Method]
	if form.Get("confirm") == "true" && !known {
		return http.StatusBadRequest, problem(invalid, "resource_missing", "", nil)
	}
	s.intents = append(s.intents, i)
	if form.Get("confirm") != "true" {
		return http.StatusOK, i.show()
	}
	if code, ok := declines[number]; ok {
		return http.StatusPaymentRequired, problem("card_error", code[0], code[1], i)
	}
	i.Status = "requires_capture"
	if i.Capture != "manual" {
		i.Status, i.Received = "succeeded", i.Amount
	}
	shown := i.show()
	shown["latest_charge"] = "ch_" + i.ID[3:]
	if form.Get("expand[0]") == "latest_charge" {
		shown["latest_charge"] = map[string]any{"id": "ch_" + i.ID[3:], "object": "charge",
			"payment_method_details": map[string]any{"type": "card", "card": map[string]any{"network_transaction_id": "NET" + i.ID[3:]}}}
	}
	return http.StatusOK, shown
}

func (i *Intent) show() map[string]any {
	return map[string]any{"id": i.ID, "object": "payment_intent", "status": i.Status, "amount": i.Amount, "amount_received": i.Received,
		"currency": i.Currency, "created": i.Created, "metadata": i.Metadata, "livemode": true, "last_payment_error": nil}
}

func (i *Intent) capture(form url.Values) (int, map[string]any) {
	amount := integer(form.Get("amount_to_capture"))
	switch {
	case i.Status != "requires_capture":
		return http.StatusBadRequest, problem(invalid, "payment_intent_unexpected_state", "", i)
	case amount <= 0 || amount > i.Amount:
		return http.StatusBadRequest, problem(invalid, "amount_too_large", "", nil)
	}
	i.Status, i.Received = "succeeded", amount
	return http.StatusOK, i.show()
}

func (i *Intent) cancel() (int, map[string]any) {
	if i.Status == "succeeded" || i.Status == "canceled" {
		return http.StatusBadRequest, problem(invalid, "payment_intent_unexpected_state", "", nil)
	}
	i.Status = "canceled"
	return http.StatusOK, i.show()
}

func (s *Server) listIntents(query url.Values) (int, map[string]any) {
	limit := max(int(integer(query.Get("limit"))), 1)
	after, data, more := query.Get("starting_after"), []any{}, false
	for n := len(s.intents) - 1; n >= 0; n-- { // newest first
		i := s.intents[n]
		if after != "" {
			if i.ID == after {
				after = ""
			}
			continue
		}
		if query.Has("created[gte]") && i.Created < integer(query.Get("created[gte]")) || query.Has("created[lte]") && i.Created > integer(query.Get("created[lte]")) {
			continue
		}
		if more = len(data) == limit; more {
			break
		}
		data = append(data, i.show())
	}
	return http.StatusOK, map[string]any{"object": "list", "data": data, "has_more": more, "url": "/v1/payment_intents"}
}

func (s *Server) makeRefund(form url.Values) (int, map[string]any) {
	i := s.intent(form.Get("payment_intent"))
	if i == nil {
		return http.StatusNotFound, problem(invalid, "resource_missing", "", nil)
	}
	left, amount := i.Received, integer(form.Get("amount"))
	for _, r := range s.refunds {
		if r.Intent == i.ID && r.Status != "failed" {
			left -= r.Amount
		}
	}
	switch {
	case left <= 0:
		return http.StatusBadRequest, problem(invalid, "charge_already_refunded", "", nil)
	case amount > left:
		return http.StatusBadRequest, problem(invalid, "amount_too_large", "", nil)
	}
	r := &Refund{ID: s.id("re"), Intent: i.ID, Status: s.refund, Currency: i.Currency, Amount: amount, Metadata: metadata(form)}
	s.refunds = append(s.refunds, r)
	return http.StatusOK, r.show()
}

func (r *Refund) show() map[string]any {
	return map[string]any{"id": r.ID, "object": "refund", "status": r.Status, "amount": r.Amount, "currency": r.Currency, "payment_intent": r.Intent, "metadata": r.Metadata}
}

func (s *Server) listRefunds(query url.Values) (int, map[string]any) {
	data := []any{}
	for n := len(s.refunds) - 1; n >= 0; n-- {
		if s.refunds[n].Intent == query.Get("payment_intent") {
			data = append(data, s.refunds[n].show())
		}
	}
	return http.StatusOK, map[string]any{"object": "list", "data": data, "has_more": false, "url": "/v1/refunds"}
}

// problem is the body of an error.
func problem(kind, code, declineCode string, i *Intent) map[string]any {
	said := map[string]any{"type": kind, "message": "what a person would read"}
	if code != "" {
		said["code"] = code
	}
	if declineCode != "" {
		said["decline_code"] = declineCode
	}
	if i != nil {
		said["payment_intent"] = i.show()
	}
	return map[string]any{"error": said}
}

func encode(answer map[string]any) []byte {
	body, err := json.Marshal(answer)
	if err != nil {
		panic(err) // maps of texts and numbers
	}
	return body
}

func write(w http.ResponseWriter, status int, answer map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encode(answer))
}
