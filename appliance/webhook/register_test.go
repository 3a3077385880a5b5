package webhook

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

var (
	caller   = api.Caller{KeyID: "key_1", MerchantID: shop, Origin: "192.0.2.1"}
	stranger = api.Caller{KeyID: "key_2", MerchantID: "mer_2", Origin: "192.0.2.2"}
)

func (b *bench) create(request api.CreateEndpoint) api.Endpoint {
	b.t.Helper()
	e, err := b.register.CreateEndpoint(b.t.Context(), caller, request, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return e
}

func wantProblem(t *testing.T, what string, err error, want *api.Problem, pointer string) {
	t.Helper()
	var p *api.Problem
	if !errors.As(err, &p) || !errors.Is(err, want) || p.Pointer != pointer {
		t.Errorf("%s: %v, want %s at %q", what, err, want.Code, pointer)
	}
}

func TestASecretIsShownOnce(t *testing.T) {
	b := newBench(t, "", nil)
	made := b.create(api.CreateEndpoint{URL: "https://shop.example/hook", EventTypes: []string{"payment.failed"}})
	if !strings.HasPrefix(made.Secret, "whsec_") || !made.Enabled || made.ID == "" {
		t.Errorf("%+v", made)
	}
	shown, err := b.register.Endpoint(t.Context(), caller, made.ID)
	list, err2 := b.register.Endpoints(t.Context(), caller)
	if err != nil || err2 != nil || shown.Secret != "" || len(list.Endpoints) != 1 || list.Endpoints[0].Secret != "" {
		t.Errorf("%+v %+v %v %v", shown, list, err, err2)
	}
	off := false
	changed, err := b.register.ChangeEndpoint(t.Context(), caller, made.ID, api.ChangeEndpoint{Enabled: &off})
	if err != nil || changed.Secret != "" || changed.Enabled || changed.DisabledReason != "merchant" || len(changed.EventTypes) != 1 {
		t.Errorf("%+v %v", changed, err)
	}
	if n := b.read("SELECT 1 FROM ledger_entries WHERE entry LIKE '%whsec_%' OR entry LIKE '%/hook%'", nil, new(int)); n > 0 {
		t.Error("an entry has the secret or the address")
	}
	for kind, want := range map[string]int{"webhook_endpoint.created": 1, "webhook_endpoint.changed": 1} {
		if n := b.entered(kind); n != want {
			t.Errorf("%d entries %s", n, kind)
		}
	}
}

func TestARepeatIsTheSameEndpoint(t *testing.T) {
	b := newBench(t, "", nil)
	ctx, request := t.Context(), api.CreateEndpoint{URL: "https://shop.example/hook"}
	var group sync.WaitGroup
	made := make([]api.Endpoint, 8)
	for i := range made {
		group.Go(func() {
			var err error
			if made[i], err = b.register.CreateEndpoint(ctx, caller, request, "k"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, e := range made {
		if e.ID != made[0].ID || e.Secret != made[0].Secret || e.Secret == "" {
			t.Errorf("%s and %s", e.ID, made[0].ID)
		}
	}
	_, err := b.register.CreateEndpoint(ctx, caller, api.CreateEndpoint{URL: "https://shop.example/other"}, "k")
	wantProblem(t, "another request", err, api.ErrIdempotency, "")
	b.advance(time.Hour)
	if e, err := b.register.CreateEndpoint(ctx, caller, request, "k"); err != nil || e.ID != made[0].ID || e.Secret != "" {
		t.Errorf("after an hour: %v, a secret of %d characters", err, len(e.Secret))
	}

	first, err := b.register.RotateSecret(ctx, caller, made[0].ID, time.Hour, "r")
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.register.RotateSecret(ctx, caller, made[0].ID, time.Hour, "r")
	if err != nil || again.Secret != first.Secret || again.OldSecretUntil == nil || b.entered("webhook_endpoint.secret_rotated") != 1 {
		t.Errorf("a repeated rotation: %v", err)
	}
	if _, err := b.register.RotateSecret(ctx, caller, made[0].ID, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	if again, err = b.register.RotateSecret(ctx, caller, made[0].ID, time.Hour, "r"); err != nil || again.Secret != "" {
		t.Errorf("the repeat of one that was followed by another shows a secret (%v)", err)
	}
}

func TestAnEndpointIsItsMerchantsOwn(t *testing.T) {
	b := newBench(t, "https://shop.example/", nil)
	if _, err := b.merchants.Enter(t.Context(), ledger.Operator{Origin: "local"}, store.Merchant{ID: "mer_2"}); err != nil {
		t.Fatal(err)
	}
	b.happen("evt_1")
	ctx, off := t.Context(), false
	for name, try := range map[string]func(c api.Caller, id string) error{
		"show":   func(c api.Caller, id string) error { _, err := b.register.Endpoint(ctx, c, id); return err },
		"rotate": func(c api.Caller, id string) error { _, err := b.register.RotateSecret(ctx, c, id, 0, "k"); return err },
		"delete": func(c api.Caller, id string) error { return b.register.DeleteEndpoint(ctx, c, id) },
		"change": func(c api.Caller, id string) error {
			_, err := b.register.ChangeEndpoint(ctx, c, id, api.ChangeEndpoint{Enabled: &off})
			return err
		},
	} {
		wantProblem(t, name, try(stranger, hook), api.ErrNotFound, "")
		wantProblem(t, name, try(caller, "whe_none"), api.ErrNotFound, "")
	}
	_, err := b.register.Event(ctx, stranger, "evt_1")
	wantProblem(t, "event", err, api.ErrNotFound, "")
	_, err = b.register.Redeliver(ctx, stranger, "evt_1", "")
	wantProblem(t, "redeliver", err, api.ErrNotFound, "")
	if list, err := b.register.List(ctx, stranger, api.ListEvents{Limit: 10}); err != nil || len(list.Events) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := b.register.Endpoints(ctx, stranger); err != nil || len(list.Endpoints) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
	b.commit(func(tx *ledger.Tx) error { return happen(tx, "mer_2", "evt_2", "payment.failed", b.clock()) })
	if n := b.read("SELECT event_id FROM deliveries WHERE event_id = 'evt_2'", nil, new(string)); n > 0 {
		t.Error("another merchant's event is to be delivered")
	}
}

func TestAnAddressIsOneThatTheMerchantMayUse(t *testing.T) {
	b := newBench(t, "", func(c *Config) { c.AllowPrivate = false })
	try := func(address string) error {
		_, err := b.register.CreateEndpoint(t.Context(), caller, api.CreateEndpoint{URL: address}, "")
		return err
	}
	for _, address := range []string{"https://127.0.0.1/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://169.254.169.254/latest", "https://100.64.0.1/", "https://[fd00::1]/"} {
		wantProblem(t, address, try(address), api.ErrInvalid, "/url")
	}
	b.commit(func(tx *ledger.Tx) error {
		defer tx.Record(ledger.Entry{Type: "merchant.created", Resource: shop})
		return tx.PutMerchant(store.Merchant{ID: shop, WebhookHosts: []string{"hooks.shop.example"}, CreatedAt: b.clock()})
	})
	for _, address := range []string{"https://shop.example/", "https://hooks.shop.example.evil.example/", "https://evil.example/?hooks.shop.example", "https://1.1.1.1/"} {
		wantProblem(t, address, try(address), api.ErrInvalid, "/url")
	}
	for _, address := range []string{"https://hooks.shop.example/a", "https://HOOKS.shop.example:8443/", "https://hooks.shop.example./"} {
		if err := try(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	list, err := b.register.Endpoints(t.Context(), caller)
	if err != nil || len(list.Endpoints) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	elsewhere := "https://evil.example/"
	_, err = b.register.ChangeEndpoint(t.Context(), caller, list.Endpoints[0].ID, api.ChangeEndpoint{URL: &elsewhere})
	wantProblem(t, "change", err, api.ErrInvalid, "/url")
	if _, err := b.register.RotateSecret(t.Context(), caller, list.Endpoints[0].ID, 0, ""); err != nil {
		t.Error(err)
	}
}

func TestAMerchantHasSoManyEndpointsAndNoMore(t *testing.T) {
	b := newBench(t, "", nil)
	var last api.Endpoint
	for i := range api.MaxEndpoints {
		last = b.create(api.CreateEndpoint{URL: fmt.Sprintf("https://shop.example/%d", i)})
	}
	_, err := b.register.CreateEndpoint(t.Context(), caller, api.CreateEndpoint{URL: "https://shop.example/"}, "k")
	wantProblem(t, "one more", err, api.ErrInvalid, "")
	if err := b.register.DeleteEndpoint(t.Context(), caller, last.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.register.CreateEndpoint(t.Context(), caller, api.CreateEndpoint{URL: "https://shop.example/"}, "k"); err != nil {
		t.Error(err) // what was refused has left no trace under its key
	}
}

func TestWhatIsDeletedLeavesNoSecret(t *testing.T) {
	b := newBench(t, "https://shop.example/"+pathToken, nil)
	b.happen("evt_1")
	if _, err := b.register.RotateSecret(t.Context(), caller, hook, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.register.DeleteEndpoint(t.Context(), caller, hook); err != nil {
		t.Fatal(err)
	}
	var address, status string
	var secrets int
	b.read("SELECT url, status, length(secret) + length(old_secret) FROM webhook_endpoints", nil, &address, &status, &secrets)
	if address != "" || secrets != 0 || status != store.EndpointDeleted {
		t.Errorf("%s: address %q, secrets of %d bytes", status, address, secrets)
	}
	b.wantAt("evt_1", hook, store.DeliveryCancelled, 0, 0, "")
	wantProblem(t, "again", b.register.DeleteEndpoint(t.Context(), caller, hook), api.ErrNotFound, "")
	b.deliver()
	b.wantAt("evt_1", hook, store.DeliveryCancelled, 0, 0, "")
}

func TestEventsAreListedNewestFirst(t *testing.T) {
	b := newBench(t, "", nil)
	begin := b.clock()
	for i := range 5 {
		kind := "payment.declined"
		if i == 4 {
			kind = "payment.captured"
		}
		b.commit(func(tx *ledger.Tx) error { return happen(tx, shop, fmt.Sprintf("evt_%d", i), kind, b.clock()) })
		b.advance(time.Minute)
	}
	ids := func(q api.ListEvents) (text, next string) {
		t.Helper()
		if q.Limit == 0 {
			q.Limit = 10
		}
		list, err := b.register.List(t.Context(), caller, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Events {
			text += strings.TrimPrefix(e.ID, "evt_")
		}
		return text, list.NextCursor
	}
	for want, q := range map[string]api.ListEvents{"43210": {}, "43": {Limit: 2}, "21": {Limit: 2, Cursor: "evt_3"}, "0": {Limit: 2, Cursor: "evt_1"}, "4": {Type: "payment.captured"},
		"432": {From: begin.Add(2 * time.Minute)}, "10": {To: begin.Add(2 * time.Minute)}, "": {Payment: "pay_2"}} {
		if got, _ := ids(q); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
	if _, next := ids(api.ListEvents{Limit: 5}); next != "" {
		t.Errorf("after the last page comes %q", next)
	}
	if _, next := ids(api.ListEvents{Limit: 4}); next != "evt_1" {
		t.Errorf("the next page begins after %q", next)
	}
	e, err := b.register.Event(t.Context(), caller, "evt_4")
	if err != nil || e.Sequence != 5 || e.Payment != "pay_1" || string(e.Data) != `{"id":"pay_1"}` || e.Timestamp.Year() != 2030 || len(e.Deliveries) > 0 {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestNothingIsChangedWhileTheHSMIsAway(t *testing.T) {
	b := newBench(t, "https://shop.example/", nil)
	b.happen("evt_1")
	b.key.away.Store(true)
	_, create := b.register.CreateEndpoint(t.Context(), caller, api.CreateEndpoint{URL: "https://shop.example/2"}, "k")
	_, again := b.register.Redeliver(t.Context(), caller, "evt_1", "")
	_, rotate := b.register.RotateSecret(t.Context(), caller, hook, 0, "")
	for what, err := range map[string]error{"create": create, "redeliver": again, "rotate": rotate, "delete": b.register.DeleteEndpoint(t.Context(), caller, hook)} {
		if p := api.ProblemOf(err); p.Status != http.StatusServiceUnavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
	b.key.away.Store(false)
	if list, err := b.register.Endpoints(t.Context(), caller); err != nil || len(list.Endpoints) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}
