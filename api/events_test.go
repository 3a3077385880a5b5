package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

const adminKey = "fpk_live_admin"

// outbox is what stands behind the routes about events.
type outbox struct {
	created  CreateEndpoint
	changed  ChangeEndpoint
	deleted  string
	key      string
	overlap  time.Duration
	query    ListEvents
	to       string
	err      error
	received int // calls that came through
}

func shownEndpoint(id string) Endpoint {
	return Endpoint{ID: id, URL: "https://shop.example/hook", EventTypes: []string{}, Enabled: true, CreatedAt: day, UpdatedAt: day}
}

func (o *outbox) CreateEndpoint(_ context.Context, _ Caller, request CreateEndpoint, key string) (Endpoint, error) {
	o.created, o.key, o.received = request, key, o.received+1
	e := shownEndpoint("whe_1")
	e.Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	return e, o.err
}

func (o *outbox) Endpoints(context.Context, Caller) (EndpointList, error) {
	gone := shownEndpoint("whe_2")
	gone.Enabled, gone.DisabledReason, gone.EventTypes = false, "gone", []string{"payment.failed"}
	return EndpointList{Endpoints: []Endpoint{shownEndpoint("whe_1"), gone}}, o.err
}

func (o *outbox) Endpoint(_ context.Context, _ Caller, id string) (Endpoint, error) {
	o.received++
	return shownEndpoint(id), o.err
}

func (o *outbox) ChangeEndpoint(_ context.Context, _ Caller, id string, change ChangeEndpoint) (Endpoint, error) {
	o.changed, o.received = change, o.received+1
	return shownEndpoint(id), o.err
}

func (o *outbox) DeleteEndpoint(_ context.Context, _ Caller, id string) error {
	o.deleted, o.received = id, o.received+1
	return o.err
}

func (o *outbox) RotateSecret(_ context.Context, _ Caller, id string, overlap time.Duration, key string) (Endpoint, error) {
	o.overlap, o.key, o.received = overlap, key, o.received+1
	e, until := shownEndpoint(id), day.Add(overlap)
	e.Secret, e.OldSecretUntil = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &until
	return e, o.err
}

func shownEvent(id string) Event {
	return Event{ID: id, Type: "payment.captured", Sequence: 2, Payment: "pay_01", Timestamp: day, Data: jsontext.Value(`{"id":"pay_01","status":"captured",` +
		`"amount":1,"currency":"EUR","reference":"r","return_url":"https://shop.example","capture":"automatic","captured":0,"refunded":0,"attempts":1,"created_at":"2030-01-02T03:04:05Z",` +
		`"expires_at":"2030-01-02T03:04:05Z","updated_at":"2030-01-02T03:04:05Z"}`)}
}

func (o *outbox) List(_ context.Context, _ Caller, query ListEvents) (EventList, error) {
	o.query, o.received = query, o.received+1
	return EventList{Events: []Event{shownEvent("evt_2"), shownEvent("evt_1")}, NextCursor: "evt_1"}, o.err
}

func (o *outbox) Event(_ context.Context, _ Caller, id string) (Event, error) {
	o.received++
	e := shownEvent(id)
	e.Deliveries = []EventDelivery{{Endpoint: "whe_1", Status: "pending", NextAt: &day, Tries: []EventTry{{N: 1, At: day, Error: "webhook: connection refused"},
		{N: 2, At: day, Status: 500, Error: "webhook: the endpoint answered 500"}}}, {Endpoint: "whe_2", Status: "delivered", Tries: []EventTry{{N: 1, At: day, Status: 204}}}}
	return e, o.err
}

func (o *outbox) Redeliver(ctx context.Context, caller Caller, id, endpoint string) (Event, error) {
	o.to = endpoint
	return o.Event(ctx, caller, id)
}

// as makes a request with another key than the shop's.
func as(key, method, target, body string) *http.Request {
	r := request(method, target, body)
	r.Header.Set("Authorization", "Bearer "+key)
	return r
}

func TestAnEndpointIsMadeChangedAndDeleted(t *testing.T) {
	d := newDesk(Limits{})
	r := as(adminKey, http.MethodPost, "/v1/webhook-endpoints", `{"url":"https://shop.example/hook","event_types":["payment.captured"],"enabled":false}`)
	r.Header.Set("Idempotency-Key", "k")
	w := d.send(t, r)
	off := false
	if want := (CreateEndpoint{"https://shop.example/hook", []string{"payment.captured"}, &off}); w.Code != http.StatusCreated ||
		w.Header().Get("Location") != "/v1/webhook-endpoints/whe_1" || !reflect.DeepEqual(d.outbox.created, want) || d.outbox.key != "k" ||
		!strings.Contains(w.Body.String(), `"secret":"whsec_`) {
		t.Errorf("%d %+v %s", w.Code, d.outbox.created, w.Body)
	}
	for _, path := range []string{"/v1/webhook-endpoints", "/v1/webhook-endpoints/whe_1"} {
		if w := d.send(t, request(http.MethodGet, path, "")); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	w = d.send(t, as(adminKey, http.MethodPatch, "/v1/webhook-endpoints/whe_1", `{"event_types":[]}`))
	if c := d.outbox.changed; w.Code != http.StatusOK || c.URL != nil || c.Enabled != nil || c.EventTypes == nil || len(*c.EventTypes) != 0 {
		t.Errorf("%d %+v", w.Code, c)
	}
	if w := d.send(t, as(adminKey, http.MethodDelete, "/v1/webhook-endpoints/whe_1", "")); w.Code != http.StatusNoContent || d.outbox.deleted != "whe_1" || w.Body.Len() != 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestASecretIsRotatedWithAnOverlap(t *testing.T) {
	for body, want := range map[string]time.Duration{"": 24 * time.Hour, "{}": 24 * time.Hour, `{"overlap":0}`: 0, `{"overlap":604800}`: 7 * 24 * time.Hour} {
		d := newDesk(Limits{})
		w := d.send(t, as(adminKey, http.MethodPost, "/v1/webhook-endpoints/whe_1/rotate-secret", body))
		if w.Code != http.StatusOK || d.outbox.overlap != want {
			t.Errorf("%s: %d, overlap %v", body, w.Code, d.outbox.overlap)
		}
	}
	for _, body := range []string{`{"overlap":-1}`, `{"overlap":604801}`} {
		d := newDesk(Limits{})
		wantProblem(t, d.send(t, as(adminKey, http.MethodPost, "/v1/webhook-endpoints/whe_1/rotate-secret", body)), ErrInvalid, "/overlap")
	}
}

func TestEndpointsAreCheckedBeforeTheyAreMade(t *testing.T) {
	for body, want := range map[string]struct {
		problem *Problem
		pointer string
	}{
		`{}`:                                 {ErrInvalid, "/url"},
		`{"url":"http://shop.example/hook"}`: {ErrInvalid, "/url"},
		`{"url":"http://localhost/hook"}`:    {ErrInvalid, "/url"}, // https only, even here
		`{"url":"https://user:pass@shop.example/"}`:                                                            {ErrInvalid, "/url"},
		`{"url":"https://shop.example/#x"}`:                                                                    {ErrInvalid, "/url"},
		`{"url":"ftp://shop.example/"}`:                                                                        {ErrInvalid, "/url"},
		`{"url":"https:///hook"}`:                                                                              {ErrInvalid, "/url"},
		`{"url":"https://shop.example/` + strings.Repeat("x", 2048) + `"}`:                                     {ErrInvalid, "/url"},
		`{"url":"https://shop.example/4111111111111111"}`:                                                      {ErrCardNumber, "/url"},
		`{"url":"https://shop.example/","event_types":["payment.captured","payment.captured"]}`:                {ErrInvalid, "/event_types/1"},
		`{"url":"https://shop.example/","event_types":["payment.captured","payment.unheard_of"]}`:              {ErrInvalid, "/event_types/1"},
		`{"url":"https://shop.example/","event_types":null}`:                                                   {ErrInvalid, "/event_types"},
		`{"url":"https://shop.example/","secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}`:                    {ErrUnknownField, "/secret"},
		`{"url":"https://shop.example/","enabled":"yes"}`:                                                      {ErrInvalid, "/enabled"},
		`{"url":"https://shop.example/","event_types":["payment.captured","payment.failed"],"enabled":true}{}`: {ErrMalformed, ""},
	} {
		d := newDesk(Limits{})
		wantProblem(t, d.send(t, as(adminKey, http.MethodPost, "/v1/webhook-endpoints", body)), want.problem, want.pointer)
		if d.outbox.received > 0 {
			t.Errorf("%s was taken", body)
		}
	}
	d := newDesk(Limits{})
	wantProblem(t, d.send(t, as(adminKey, http.MethodPatch, "/v1/webhook-endpoints/whe_1", `{}`)), ErrInvalid, "")
	wantProblem(t, d.send(t, as(adminKey, http.MethodPatch, "/v1/webhook-endpoints/whe_1", `{"url":"http://shop.example"}`)), ErrInvalid, "/url")
	wantProblem(t, d.send(t, as(adminKey, http.MethodPost, "/v1/webhook-endpoints?x=1", `{"url":"https://shop.example/"}`)), ErrUnknownField, "")
}

func TestEndpointsAreChangedByAdministratorsOnly(t *testing.T) {
	d := newDesk(Limits{})
	for _, r := range []*http.Request{
		request(http.MethodPost, "/v1/webhook-endpoints", `{"url":"https://shop.example/"}`),
		request(http.MethodPatch, "/v1/webhook-endpoints/whe_1", `{"enabled":false}`),
		request(http.MethodDelete, "/v1/webhook-endpoints/whe_1", ""),
		request(http.MethodPost, "/v1/webhook-endpoints/whe_1/rotate-secret", ""),
		as(tokensKey, http.MethodGet, "/v1/webhook-endpoints", ""),
		as(tokensKey, http.MethodGet, "/v1/events", ""),
		as(adminKey, http.MethodGet, "/v1/events/evt_1", ""),
		as(tokensKey, http.MethodPost, "/v1/events/evt_1/redeliver", ""),
	} {
		wantProblem(t, d.send(t, r), ErrForbidden, "")
	}
	if d.outbox.received > 0 {
		t.Errorf("%d calls came through", d.outbox.received)
	}
}

func TestEventsAreListedAndShown(t *testing.T) {
	d := newDesk(Limits{})
	w := d.send(t, request(http.MethodGet, "/v1/events?type=payment.captured&payment=pay_01&from=2030-01-01T00:00:00Z&to=2030-01-03T00:00:00Z&cursor=evt_3&limit=2", ""))
	if want := (ListEvents{"payment.captured", "pay_01", day.Truncate(24 * time.Hour).Add(-24 * time.Hour), day.Truncate(24 * time.Hour).Add(24 * time.Hour), "evt_3", 2}); w.Code != http.StatusOK || d.outbox.query != want {
		t.Errorf("%d %+v", w.Code, d.outbox.query)
	}
	w = d.send(t, request(http.MethodGet, "/v1/events/evt_1", ""))
	var shown Event
	if err := json.Unmarshal(w.Body.Bytes(), &shown); err != nil || w.Code != http.StatusOK || len(shown.Deliveries) != 2 || len(shown.Deliveries[0].Tries) != 2 {
		t.Errorf("%d %v %s", w.Code, err, w.Body)
	}
	for _, query := range []string{"type=payment.created", "payment=", "payment=a/b", "from=yesterday", "limit=101", "cursor="} {
		wantProblem(t, d.send(t, request(http.MethodGet, "/v1/events?"+query, "")), ErrInvalid, "")
	}
	wantProblem(t, d.send(t, request(http.MethodGet, "/v1/events?status=failed", "")), ErrUnknownField, "")
	for _, id := range []string{testPAN, strings.Repeat("e", 129)} {
		wantProblem(t, d.send(t, request(http.MethodGet, "/v1/events/"+id, "")), ErrNotFound, "")
	}
}

func TestAnEventIsSentAgain(t *testing.T) {
	for body, want := range map[string]string{"": "", "{}": "", `{"endpoint":"whe_2"}`: "whe_2"} {
		d := newDesk(Limits{})
		if w := d.send(t, request(http.MethodPost, "/v1/events/evt_1/redeliver", body)); w.Code != http.StatusAccepted || d.outbox.to != want {
			t.Errorf("%s: %d, to %q", body, w.Code, d.outbox.to)
		}
	}
	for _, body := range []string{`{"endpoint":""}`, `{"endpoint":"a b"}`} {
		wantProblem(t, newDesk(Limits{}).send(t, request(http.MethodPost, "/v1/events/evt_1/redeliver", body)), ErrInvalid, "/endpoint")
	}
	d := newDesk(Limits{})
	d.outbox.err = ErrNoEndpoint
	wantProblem(t, d.send(t, request(http.MethodPost, "/v1/events/evt_1/redeliver", "")), ErrNoEndpoint, "")
}

// The catalogue of events is what openapi.yaml has under webhooks, each with an example that its own schema takes and that of no
// other type does.
func TestEachTypeOfEventsHasAnExample(t *testing.T) {
	doc, _ := contract()
	var names []string
	for name := range doc.Webhooks {
		names = append(names, name)
	}
	slices.Sort(names)
	if !slices.Equal(names, EventTypes) {
		t.Errorf("webhooks %v, EventTypes %v", names, EventTypes)
	}
	var listed []string
	for _, kind := range doc.Components.Schemas["EventType"].Value.Enum {
		listed = append(listed, kind.(string))
	}
	if !slices.Equal(listed, EventTypes) {
		t.Errorf("the schema EventType has %v, EventTypes is %v", listed, EventTypes)
	}
	for _, name := range names {
		example := doc.Webhooks[name].Post.RequestBody.Value.Content["application/json"].Examples["event"]
		if example == nil {
			t.Errorf("%s has no example", name)
			continue
		}
		for _, of := range names {
			schema := doc.Webhooks[of].Post.RequestBody.Value.Content["application/json"].Schema.Value
			if err := schema.VisitJSON(example.Value.Value); (err == nil) != (of == name) {
				t.Errorf("the example of %s by the schema of %s: %v", name, of, err)
			}
		}
	}
}

func FuzzEndpoint(f *testing.F) {
	for _, body := range []string{`{"url":"https://shop.example/hook"}`, `{"url":"HTTPS://shop.example./","event_types":["payment.failed"],"enabled":false}`,
		`{"url":"https://[::1]:8443/?a=%00"}`, `{"event_types":[]}`, `{"overlap":1e3}`, `{"endpoint":"whe_1"}`, `{"url":null}`, "", "[]"} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, target := range []string{"POST /v1/webhook-endpoints", "PATCH /v1/webhook-endpoints/whe_1", "POST /v1/webhook-endpoints/whe_1/rotate-secret", "POST /v1/events/evt_1/redeliver"} {
			d := newDesk(Limits{})
			method, path, _ := strings.Cut(target, " ")
			key := adminKey
			if strings.HasSuffix(path, "redeliver") {
				key = goodKey
			}
			r := httptest.NewRequest(method, path, io.NopCloser(strings.NewReader(body)))
			r.Header.Set("Authorization", "Bearer "+key)
			r.Header.Set("Content-Type", "application/json")
			r.ContentLength = int64(len(body))
			if w := d.send(t, r); w.Code >= 500 {
				t.Errorf("%s: %d", target, w.Code)
			}
		}
	})
}
