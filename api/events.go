package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/mux"

	"github.com/finterra/finpay/pci"
)

// EventTypes are the types of events: the names under `webhooks` of openapi.yaml.
var EventTypes = []string{
	"payment.authorized", "payment.capture_refused", "payment.captured", "payment.declined", "payment.expired", "payment.failed", "payment.indeterminate",
	"payment.partially_refunded", "payment.refund_failed", "payment.refunded", "payment.voided",
}

// Events keeps the endpoints that a merchant is told at, and shows what it was told. What is another merchant's is
// [ErrNotFound].
type Events interface {
	// CreateEndpoint makes an endpoint and shows its secret. A repeat under the same idempotency key is the first endpoint, with
	// its secret for an hour: the answer may have been lost on its way.
	CreateEndpoint(ctx context.Context, caller Caller, request CreateEndpoint, idempotencyKey string) (Endpoint, error)
	Endpoints(ctx context.Context, caller Caller) (EndpointList, error)
	Endpoint(ctx context.Context, caller Caller, id string) (Endpoint, error)
	// ChangeEndpoint changes what is not nil. Switched off, an endpoint's open deliveries are cancelled.
	ChangeEndpoint(ctx context.Context, caller Caller, id string, change ChangeEndpoint) (Endpoint, error)
	DeleteEndpoint(ctx context.Context, caller Caller, id string) error
	// RotateSecret makes another secret and shows it; the one before signs too for the time of overlap. Repeats are as those of
	// CreateEndpoint.
	RotateSecret(ctx context.Context, caller Caller, id string, overlap time.Duration, idempotencyKey string) (Endpoint, error)
	List(ctx context.Context, caller Caller, query ListEvents) (EventList, error)
	// Event shows an event with its deliveries and their tries.
	Event(ctx context.Context, caller Caller, id string) (Event, error)
	// Redeliver makes an event due now, at one endpoint, or with "" at all that are enabled and take its type.
	Redeliver(ctx context.Context, caller Caller, id, endpoint string) (Event, error)
}

// Event is what a merchant is told.
type Event struct {
	ID         string          `json:"id"` // webhook-id
	Type       string          `json:"type"`
	Sequence   int64           `json:"sequence"` // rises within a payment
	Payment    string          `json:"payment"`
	Timestamp  time.Time       `json:"timestamp"`
	Data       jsontext.Value  `json:"data"` // as it was sent
	Deliveries []EventDelivery `json:"deliveries,omitempty"`
}

// EventDelivery is where an event stands on its way to one endpoint.
type EventDelivery struct {
	Endpoint string     `json:"endpoint"`
	Status   string     `json:"status"`            // pending, delivered, failed, cancelled
	NextAt   *time.Time `json:"next_at,omitempty"` // of the next try, while it is pending
	Tries    []EventTry `json:"tries"`             // the newest hundred
}

// EventTry is one try of a delivery.
type EventTry struct {
	N      int       `json:"n"` // from 1
	At     time.Time `json:"at"`
	Status int       `json:"status,omitempty"` // of HTTP; absent where there was no answer
	Error  string    `json:"error,omitempty"`  // in the appliance's words: nothing of what the endpoint said
}

// ListEvents narrows GET /v1/events. Zero fields do not.
type ListEvents struct {
	Type     string
	Payment  string
	From, To time.Time
	Cursor   string
	Limit    int // 1 to 100
}

// EventList is one page of events, newest first.
type EventList struct {
	Events     []Event `json:"events"`
	NextCursor string  `json:"next_cursor,omitempty"` // of the next page; empty on the last one
}

// routeEvents is the part of the table of routes that is about events and where they are sent.
func (s *server) routeEvents(r *mux.Router) {
	s.route(r, "/v1/webhook-endpoints", methods{
		http.MethodGet:  s.authenticated(ScopePayments, s.listEndpoints),
		http.MethodPost: s.authenticated(ScopeAdmin, s.createEndpoint),
	})
	s.route(r, "/v1/webhook-endpoints/{id}", methods{
		http.MethodGet:    s.authenticated(ScopePayments, s.getEndpoint),
		http.MethodPatch:  s.authenticated(ScopeAdmin, s.changeEndpoint),
		http.MethodDelete: s.authenticated(ScopeAdmin, s.deleteEndpoint),
	})
	s.route(r, "/v1/webhook-endpoints/{id}/rotate-secret", methods{http.MethodPost: s.authenticated(ScopeAdmin, s.rotateSecret)})
	s.route(r, "/v1/events", methods{http.MethodGet: s.authenticated(ScopePayments, s.listEvents)})
	s.route(r, "/v1/events/{id}", methods{http.MethodGet: s.authenticated(ScopePayments, s.getEvent)})
	s.route(r, "/v1/events/{id}/redeliver", methods{http.MethodPost: s.authenticated(ScopePayments, s.redeliver)})
}

func (s *server) listEvents(w http.ResponseWriter, r *http.Request, caller Caller) error {
	query, err := eventsQuery(r)
	if err != nil {
		return err
	}
	list, err := s.cfg.Events.List(r.Context(), caller, query)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

// eventsQuery reads the query of GET /v1/events.
func eventsQuery(r *http.Request) (list ListEvents, err error) {
	q, err := readQuery(r, "type", "payment", "from", "to", "cursor", "limit")
	if err != nil {
		return list, err
	}
	if kind, ok := q["type"]; ok {
		if list.Type = kind; !slices.Contains(EventTypes, kind) {
			return list, ErrInvalid.With("The query parameter type is not one of those that openapi.yaml lists.")
		}
	}
	if id, ok := q["payment"]; ok {
		if list.Payment = id; !isID(id) {
			return list, ErrInvalid.With("The query parameter payment is the id of a payment.")
		}
	}
	if list.From, err = queryTime(q, "from"); err != nil {
		return list, err
	}
	if list.To, err = queryTime(q, "to"); err != nil {
		return list, err
	}
	if list.Cursor, err = queryCursor(q); err != nil {
		return list, err
	}
	list.Limit, err = queryLimit(q, MaxPage)
	return list, err
}

func (s *server) getEvent(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	event, err := s.cfg.Events.Event(r.Context(), caller, id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, event)
}

// redeliver takes no idempotency key: a repeat asks for what is due already.
func (s *server) redeliver(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	var request struct {
		Endpoint *string `json:"endpoint"`
	}
	if err := s.readOptional(w, r, &request); err != nil {
		return err
	}
	endpoint := ""
	if request.Endpoint != nil {
		if endpoint = *request.Endpoint; !isID(endpoint) {
			return ErrInvalid.At("/endpoint").With("Send the id of an endpoint, or leave the field out.")
		}
	}
	event, err := s.cfg.Events.Redeliver(r.Context(), caller, id, endpoint)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusAccepted, event)
}

// readOptional reads a body of JSON, if there is one.
func (s *server) readOptional(w http.ResponseWriter, r *http.Request, v any) error {
	if r.ContentLength == 0 {
		return nil
	}
	return s.readJSON(w, r, v)
}

// pathID returns the id in the path. What cannot be one is not looked up.
func pathID(r *http.Request) (string, error) {
	id := mux.Vars(r)["id"]
	if !isID(id) {
		return "", ErrNotFound
	}
	return id, nil
}

func isID(s string) bool { return len(s) <= maxID && isName(s) && !pci.LooksLikePAN(s) }
