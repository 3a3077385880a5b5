package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// triesShown is how many tries of a delivery are shown.
const triesShown = 100

// List implements [api.Events].
func (r *Register) List(ctx context.Context, caller api.Caller, query api.ListEvents) (api.EventList, error) {
	rows, err := r.cfg.Store.Read(ctx).Events(store.EventFilter{MerchantID: caller.MerchantID, PaymentID: query.Payment, Type: query.Type,
		From: query.From, To: query.To, Before: query.Cursor, Limit: query.Limit + 1})
	if err != nil {
		return api.EventList{}, translate(err)
	}
	list := api.EventList{Events: []api.Event{}}
	if len(rows) > query.Limit {
		rows = rows[:query.Limit]
		list.NextCursor = rows[query.Limit-1].ID
	}
	for _, row := range rows {
		shown, err := showEvent(row)
		if err != nil {
			return api.EventList{}, err
		}
		list.Events = append(list.Events, shown)
	}
	return list, nil
}

// Event implements [api.Events].
func (r *Register) Event(ctx context.Context, caller api.Caller, id string) (api.Event, error) {
	read := r.cfg.Store.Read(ctx)
	row, err := ownEvent(read, caller.MerchantID, id)
	if err != nil {
		return api.Event{}, translate(err)
	}
	shown, err := showEvent(row)
	if err != nil {
		return api.Event{}, err
	}
	deliveries, err := read.Deliveries(id)
	if err != nil {
		return api.Event{}, translate(err)
	}
	for _, d := range deliveries {
		tries, err := read.Tries(d, triesShown)
		if err != nil {
			return api.Event{}, translate(err)
		}
		shown.Deliveries = append(shown.Deliveries, showDelivery(d, tries))
	}
	return shown, nil
}

// ownEvent returns an event of a merchant; another merchant's is not there.
func ownEvent(read store.Queries, merchantID, id string) (store.Event, error) {
	row, err := read.Event(id)
	if err == nil && row.MerchantID != merchantID {
		err = store.ErrNotFound
	}
	return row, err
}

// showEvent reads what was sent.
func showEvent(row store.Event) (api.Event, error) {
	var body struct {
		Timestamp time.Time      `json:"timestamp"`
		Data      jsontext.Value `json:"data"`
	}
	if err := json.Unmarshal(row.Body, &body); err != nil {
		return api.Event{}, fmt.Errorf("event %s cannot be read", row.ID)
	}
	return api.Event{ID: row.ID, Type: row.Type, Sequence: row.Sequence, Payment: row.PaymentID, Timestamp: body.Timestamp, Data: body.Data}, nil
}

func showDelivery(d store.Delivery, tries []store.Try) api.EventDelivery {
	shown := api.EventDelivery{Endpoint: d.EndpointID, Status: d.Status, Tries: []api.EventTry{}}
	if d.Status == store.DeliveryPending {
		shown.NextAt = &d.NextAt
	}
	for _, t := range tries {
		shown.Tries = append(shown.Tries, api.EventTry{N: t.N, At: t.At, Status: t.Code, Error: t.Error})
	}
	return shown
}

// Redeliver implements [api.Events].
func (r *Register) Redeliver(ctx context.Context, caller api.Caller, id, endpoint string) (api.Event, error) {
	_, err := r.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		row, err := ownEvent(tx.Queries, caller.MerchantID, id)
		if err != nil {
			return err
		}
		to, err := receivers(tx.Queries, row, endpoint)
		if err != nil {
			return err
		}
		for _, e := range to {
			if err := again(tx, row.ID, e.ID, r.cfg.Now()); err != nil {
				return err
			}
		}
		data := map[string]any{"event": id, "type": row.Type, "endpoints": len(to)}
		if endpoint != "" {
			data["endpoint"] = endpoint
		}
		tx.Record(actorOf(caller).entry("webhook.redelivery_asked", row.PaymentID, data))
		return nil
	})
	if err != nil {
		return api.Event{}, translate(err)
	}
	r.cfg.Wake()
	return r.Event(ctx, caller, id)
}

// receivers returns the endpoints to which an event goes again: the one that is named, whatever types it takes, or all that are
// enabled and take this type.
func receivers(read store.Queries, event store.Event, named string) ([]store.Endpoint, error) {
	all, err := read.Endpoints(event.MerchantID)
	if err != nil {
		return nil, err
	}
	to := slices.DeleteFunc(all, func(e store.Endpoint) bool {
		takes := len(e.Types) == 0 || slices.Contains(e.Types, event.Type)
		return e.Status != store.EndpointEnabled || named != "" && e.ID != named || named == "" && !takes
	})
	switch {
	case len(to) > 0:
		return to, nil
	case named != "":
		return nil, api.ErrNoEndpoint.With("The merchant has no such endpoint, or it is not enabled.").At("/endpoint")
	}
	return nil, api.ErrNoEndpoint
}

// again makes a delivery due now, at the beginning of its schedule. Tries go on being counted, and one that is under way is not
// made twice: what comes of it finds that the delivery was asked for again.
func again(tx *ledger.Tx, event, endpoint string, now time.Time) error {
	d, err := tx.Delivery(event, endpoint)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return tx.PutDelivery(store.Delivery{EventID: event, EndpointID: endpoint, Status: store.DeliveryPending, Tries: d.Tries, NextAt: now})
}
