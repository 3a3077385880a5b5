package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The limits of webhook endpoints.
const (
	MaxEndpoints   = 16 // of one merchant
	DefaultOverlap = 24 * time.Hour
	MaxOverlap     = 7 * 24 * time.Hour
)

// Endpoint is where a merchant is told of events.
type Endpoint struct {
	ID             string     `json:"id"`
	URL            string     `json:"url"`
	EventTypes     []string   `json:"event_types"` // empty: all
	Enabled        bool       `json:"enabled"`
	DisabledReason string     `json:"disabled_reason,omitempty"` // merchant, or gone: it has answered 410
	Secret         string     `json:"secret,omitempty"`          // whsec_…; when it is made, not again
	OldSecretUntil *time.Time `json:"old_secret_until,omitempty"`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
}

// EndpointList is all endpoints of a merchant, oldest first.
type EndpointList struct {
	Endpoints []Endpoint `json:"endpoints"`
}

// CreateEndpoint is the body of POST /v1/webhook-endpoints.
type CreateEndpoint struct {
	URL        string   `json:"url"`
	EventTypes []string `json:"event_types,omitempty"`
	Enabled    *bool    `json:"enabled,omitempty"` // nil: true
}

// ChangeEndpoint is the body of PATCH /v1/webhook-endpoints/{id}: what is nil stays.
type ChangeEndpoint struct {
	URL        *string   `json:"url,omitempty"`
	EventTypes *[]string `json:"event_types,omitempty"`
	Enabled    *bool     `json:"enabled,omitempty"`
}

// rotateSecret is the body of POST /v1/webhook-endpoints/{id}/rotate-secret.
type rotateSecret struct {
	Overlap *int64 `json:"overlap"` // seconds
}

// Check returns a [*Problem] with the pointer of the first field at fault.
func (c CreateEndpoint) Check() error {
	if err := checkEndpointURL(c.URL); err != nil {
		return err
	}
	return checkEventTypes(c.EventTypes)
}

// Check returns a [*Problem] with the pointer of the first field at fault.
func (c ChangeEndpoint) Check() error {
	if c.URL == nil && c.EventTypes == nil && c.Enabled == nil {
		return ErrInvalid.With("Send at least one of url, event_types and enabled.")
	}
	if c.URL != nil {
		if err := checkEndpointURL(*c.URL); err != nil {
			return err
		}
	}
	if c.EventTypes != nil {
		return checkEventTypes(*c.EventTypes)
	}
	return nil
}

// checkEndpointURL accepts what is accepted as a return URL, with https alone.
func checkEndpointURL(s string) error {
	if err := checkReturnURL("/url", s); err != nil {
		return err
	}
	if !strings.HasPrefix(strings.ToLower(s), "https:") {
		return ErrInvalid.At("/url").With("Events are sent over https only.")
	}
	return nil
}

func checkEventTypes(types []string) error {
	for i, kind := range types {
		if !slices.Contains(EventTypes, kind) || slices.Contains(types[:i], kind) {
			return ErrInvalid.At(fmt.Sprintf("/event_types/%d", i)).With("Send each type once, and only those that openapi.yaml lists under webhooks.")
		}
	}
	return nil
}

func (s *server) createEndpoint(w http.ResponseWriter, r *http.Request, caller Caller) error {
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return err
	}
	if _, err := readQuery(r); err != nil {
		return ErrUnknownField.With("This route takes no query.")
	}
	var request CreateEndpoint
	if err := s.readJSON(w, r, &request); err != nil {
		return err
	}
	if err := request.Check(); err != nil {
		return err
	}
	endpoint, err := s.cfg.Events.CreateEndpoint(r.Context(), caller, request, key)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/webhook-endpoints/"+endpoint.ID)
	return writeJSON(w, http.StatusCreated, endpoint)
}

func (s *server) listEndpoints(w http.ResponseWriter, r *http.Request, caller Caller) error {
	if _, err := readQuery(r); err != nil {
		return ErrUnknownField.With("This route takes no query.")
	}
	list, err := s.cfg.Events.Endpoints(r.Context(), caller)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) getEndpoint(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	endpoint, err := s.cfg.Events.Endpoint(r.Context(), caller, id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, endpoint)
}

func (s *server) changeEndpoint(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	var change ChangeEndpoint
	if err := s.readJSON(w, r, &change); err != nil {
		return err
	}
	if err := change.Check(); err != nil {
		return err
	}
	endpoint, err := s.cfg.Events.ChangeEndpoint(r.Context(), caller, id, change)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, endpoint)
}

func (s *server) deleteEndpoint(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	if err := s.cfg.Events.DeleteEndpoint(r.Context(), caller, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) rotateSecret(w http.ResponseWriter, r *http.Request, caller Caller) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return err
	}
	var request rotateSecret
	if err := s.readOptional(w, r, &request); err != nil {
		return err
	}
	overlap := DefaultOverlap
	if o := request.Overlap; o != nil {
		if *o < 0 || *o > int64(MaxOverlap/time.Second) {
			return ErrInvalid.At("/overlap").With("Send 0 to %d seconds, or leave the field out for a day.", int64(MaxOverlap/time.Second))
		}
		overlap = time.Duration(*o) * time.Second
	}
	endpoint, err := s.cfg.Events.RotateSecret(r.Context(), caller, id, overlap, key)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, endpoint)
}
