package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// other is a second endpoint.
const other = "whe_2"

func TestAnEndpointThatWasDownForADayMissesNothing(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	var mu sync.Mutex
	arrived := make(map[string]int)
	server, trust := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		arrived[r.Header.Get("webhook-id")]++
	})
	b := newBench(t, server.URL, trust)
	for hour := range 24 {
		b.happen(fmt.Sprintf("evt_%02d", hour))
		b.deliver()
		b.advance(time.Hour)
		b.deliver()
	}
	down.Store(false)
	if _, last := b.last("evt_00", hook); last.n < 6 || last.n > 8 {
		t.Errorf("%d tries in a day", last.n)
	}
	for range 24 { // the one that has waited longest is tried again within 14 hours and a tenth
		b.advance(time.Hour)
		b.deliver()
	}
	for hour := range 24 {
		id := fmt.Sprintf("evt_%02d", hour)
		if status, _ := b.last(id, hook); status != store.DeliveryDelivered || arrived[id] != 1 {
			t.Errorf("%s is %s and has arrived %d times", id, status, arrived[id])
		}
	}
}

func TestASlowEndpointHoldsUpNothingButItself(t *testing.T) {
	release := make(chan struct{})
	var hanging, most atomic.Int64
	slow, trust := endpoint(t, func(http.ResponseWriter, *http.Request) {
		if n := hanging.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-release
	})
	const events = 50
	arrived := make(chan string, events)
	quick, _ := endpoint(t, func(_ http.ResponseWriter, r *http.Request) { arrived <- r.Header.Get("webhook-id") })
	b := newBench(t, slow.URL, func(c *Config) {
		trust(c)
		c.Roots.AddCert(quick.Certificate())
	})
	b.put(store.Endpoint{ID: other, URL: quick.URL})
	for i := range events {
		b.happen(fmt.Sprintf("evt_%02d", i))
	}
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.sender.Run(ctx)
	}()
	deadline := time.After(patience)
	seen := make(map[string]bool)
	for len(seen) < events {
		select {
		case id := <-arrived:
			seen[id] = true
		case <-deadline:
			t.Fatalf("%d events have arrived at the quick endpoint", len(seen))
		}
	}
	if n := most.Load(); n > perEndpoint {
		t.Errorf("%d tries were under way at the slow one", n)
	}
	stop()
	close(release)
	<-stopped
}

func TestOneEndpointFailsAndTheOtherIsTold(t *testing.T) {
	bad, trust := endpoint(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	var calls atomic.Int64
	good, _ := endpoint(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	b := newBench(t, bad.URL, func(c *Config) { trust(c); c.Roots.AddCert(good.Certificate()) })
	b.put(store.Endpoint{ID: other, URL: good.URL})
	b.happen("evt_1")
	b.deliver()
	b.want("evt_1", store.DeliveryPending, 1, 500, "answered 500")
	b.wantAt("evt_1", other, store.DeliveryDelivered, 1, 200, "")
	b.advance(6 * time.Second)
	b.deliver()
	b.want("evt_1", store.DeliveryPending, 2, 500, "")
	b.wantAt("evt_1", other, store.DeliveryDelivered, 1, 200, "")
	if n := calls.Load(); n != 1 {
		t.Errorf("the good one was called %d times", n)
	}
	shown, err := b.register.Event(t.Context(), caller, "evt_1")
	if err != nil || len(shown.Deliveries) != 2 || len(shown.Deliveries[0].Tries) != 2 || shown.Deliveries[0].NextAt == nil || shown.Deliveries[1].NextAt != nil {
		t.Errorf("%+v, %v", shown, err)
	}
}

func TestAnEndpointIsToldOfItsTypesOnly(t *testing.T) {
	server, trust := endpoint(t, func(http.ResponseWriter, *http.Request) {})
	b := newBench(t, "", trust)
	b.put(store.Endpoint{ID: hook, URL: server.URL, Types: []string{"payment.failed", "payment.expired"}})
	for id, kind := range map[string]string{"evt_1": "payment.captured", "evt_2": "payment.failed"} {
		b.commit(func(tx *ledger.Tx) error { return happen(tx, shop, id, kind, b.clock()) })
	}
	b.deliver()
	if n := b.read("SELECT event_id FROM deliveries WHERE event_id = 'evt_1'", nil, new(string)); n > 0 {
		t.Error("it is told of another type")
	}
	b.want("evt_2", store.DeliveryDelivered, 1, 200, "")
}

func TestBothSecretsSignDuringARotation(t *testing.T) {
	type arrival struct {
		header http.Header
		body   []byte
	}
	arrived := make(chan arrival, 3)
	server, trust := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		arrived <- arrival{r.Header, body}
		w.WriteHeader(http.StatusBadGateway)
	})
	b := newBench(t, server.URL, trust)
	old := b.verifier(hook)
	b.happen("evt_1")
	b.deliver()
	first := <-arrived
	rotated, err := b.register.RotateSecret(t.Context(), caller, hook, time.Minute, "")
	if err != nil {
		t.Fatal(err)
	}
	renewed := verifierOf(t, rotated.Secret)
	b.advance(6 * time.Second)
	b.deliver()
	second := <-arrived
	b.advance(6 * time.Minute)
	b.deliver()
	third := <-arrived
	for i, want := range []struct {
		arrival
		old, renewed bool
	}{{first, true, false}, {second, true, true}, {third, false, true}} {
		byOld, byNew := old.VerifyIgnoringTimestamp(want.body, want.header) == nil, renewed.VerifyIgnoringTimestamp(want.body, want.header) == nil
		if byOld != want.old || byNew != want.renewed {
			t.Errorf("try %d: signed by the old secret %t, by the new one %t: %s", i+1, byOld, byNew, want.header.Get("webhook-signature"))
		}
	}
	if got := strings.Fields(second.header.Get("webhook-signature")); len(got) != 2 || !strings.HasPrefix(got[0], "v1,") || !strings.HasPrefix(got[1], "v1,") {
		t.Errorf("signatures %q", got)
	}
}

func TestARedeliveryWhileARetryIsDueIsThatRetry(t *testing.T) {
	var calls atomic.Int64
	var good atomic.Bool
	server, trust := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		if !good.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	b.deliver()
	b.advance(6 * time.Second)
	b.deliver() // the next is in five minutes
	for range 3 {
		if _, err := b.register.Redeliver(t.Context(), caller, "evt_1", ""); err != nil {
			t.Fatal(err)
		}
	}
	b.deliver()
	b.want("evt_1", store.DeliveryPending, 3, 500, "")
	d, err := b.store.Read(t.Context()).Delivery("evt_1", hook)
	if err != nil || d.NextAt.Sub(b.clock()) > 6*time.Second {
		t.Errorf("the schedule goes on in the middle: %v, %v", d.NextAt.Sub(b.clock()), err)
	}
	good.Store(true)
	b.advance(6 * time.Second)
	b.deliver()
	b.advance(time.Hour)
	b.deliver()
	b.want("evt_1", store.DeliveryDelivered, 4, 200, "")
	if n := calls.Load(); n != 4 {
		t.Errorf("%d calls", n)
	}
	if n := b.entered("webhook.redelivery_asked"); n != 3 {
		t.Errorf("%d entries", n)
	}
}

func TestWhatWasTakenOrGivenUpIsSentAgain(t *testing.T) {
	var calls atomic.Int64
	server, trust := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1); r.Header.Get("webhook-id") == "evt_2" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	b.happen("evt_2")
	for range schedule {
		b.deliver()
		b.advance(30 * time.Hour)
	}
	b.want("evt_1", store.DeliveryDelivered, 1, 200, "")
	b.want("evt_2", store.DeliveryFailed, len(schedule), 500, "")
	for _, id := range []string{"evt_1", "evt_2"} {
		shown, err := b.register.Redeliver(t.Context(), caller, id, hook)
		if err != nil || shown.Deliveries[0].Status != store.DeliveryPending {
			t.Errorf("%+v, %v", shown, err)
		}
	}
	b.deliver()
	b.want("evt_1", store.DeliveryDelivered, 2, 200, "")
	b.want("evt_2", store.DeliveryPending, len(schedule)+1, 500, "")
	for range schedule {
		b.advance(30 * time.Hour)
		b.deliver()
	}
	b.want("evt_2", store.DeliveryFailed, 2*len(schedule), 500, "")
}

func TestAnEventGoesToAnEndpointThatWasMadeLater(t *testing.T) {
	server, trust := endpoint(t, func(http.ResponseWriter, *http.Request) {})
	b := newBench(t, "", trust)
	b.happen("evt_1")
	_, err := b.register.Redeliver(t.Context(), caller, "evt_1", "")
	wantProblem(t, "to nobody", err, api.ErrNoEndpoint, "")
	b.put(store.Endpoint{ID: hook, URL: server.URL, Types: []string{"payment.failed"}})
	_, err = b.register.Redeliver(t.Context(), caller, "evt_1", "")
	wantProblem(t, "to none that takes the type", err, api.ErrNoEndpoint, "")
	_, err = b.register.Redeliver(t.Context(), caller, "evt_1", "whe_none")
	wantProblem(t, "to one that is not there", err, api.ErrNoEndpoint, "/endpoint")
	if _, err := b.register.Redeliver(t.Context(), caller, "evt_1", hook); err != nil {
		t.Fatal(err)
	}
	b.deliver()
	b.want("evt_1", store.DeliveryDelivered, 1, 200, "")
}

// inFlight begins a try and calls meanwhile before the endpoint answers code.
func inFlight(t *testing.T, code int, meanwhile func(b *bench)) *bench {
	t.Helper()
	begun, release := make(chan struct{}, 8), make(chan struct{})
	server, trust := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-release
		w.WriteHeader(code)
	})
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	if _, err := b.sender.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-begun
	b.advance(time.Second)
	meanwhile(b)
	if _, err := b.sender.begin(t.Context()); err != nil { // what is under way is not begun again
		t.Fatal(err)
	}
	close(release)
	b.sender.tries.Wait()
	return b
}

func TestAnEndpointIsDeletedWhileATryIsUnderWay(t *testing.T) {
	for code, want := range map[int]string{200: store.DeliveryDelivered, 500: store.DeliveryCancelled, 410: store.DeliveryCancelled} {
		b := inFlight(t, code, func(b *bench) {
			if err := b.register.DeleteEndpoint(t.Context(), caller, hook); err != nil {
				t.Fatal(err)
			}
		})
		b.advance(100 * time.Hour)
		b.deliver()
		b.want("evt_1", want, 1, code, "")
		if n := b.entered("webhook.switched_off"); n != 0 {
			t.Errorf("%d: what is deleted was switched off", code)
		}
	}
}

func TestARedeliveryThatIsAskedForWhileATryIsUnderWay(t *testing.T) {
	again := func(b *bench) {
		if _, err := b.register.Redeliver(t.Context(), caller, "evt_1", ""); err != nil {
			t.Fatal(err)
		}
	}
	b := inFlight(t, 500, again)
	b.want("evt_1", store.DeliveryPending, 1, 500, "")
	b.deliver() // it is due at once
	b.want("evt_1", store.DeliveryPending, 2, 500, "")
	b = inFlight(t, 200, again)
	b.deliver()
	b.want("evt_1", store.DeliveryDelivered, 1, 200, "")
}

func TestAnAddressThatIsLeftCannotSwitchTheEndpointOff(t *testing.T) {
	elsewhere := "https://elsewhere.invalid/"
	b := inFlight(t, 410, func(b *bench) {
		if _, err := b.register.ChangeEndpoint(t.Context(), caller, hook, api.ChangeEndpoint{URL: &elsewhere}); err != nil {
			t.Fatal(err)
		}
	})
	if e, err := b.register.Endpoint(t.Context(), caller, hook); err != nil || !e.Enabled || e.URL != elsewhere {
		t.Errorf("%+v, %v", e, err)
	}
	b.want("evt_1", store.DeliveryPending, 1, 410, "")
}

func TestSwitchingOffCancelsWhatIsOpen(t *testing.T) {
	server, trust := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("webhook-id") == "evt_3" {
			w.WriteHeader(http.StatusGone)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
	})
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	b.happen("evt_2")
	b.deliver()
	b.happen("evt_3")
	b.deliver()
	b.want("evt_1", store.DeliveryCancelled, 1, 500, "")
	b.want("evt_2", store.DeliveryCancelled, 1, 500, "")
	b.want("evt_3", store.DeliveryFailed, 1, 410, "")
	var cancelled int
	b.read("SELECT entry ->> '$.data.cancelled' FROM ledger_entries WHERE entry ->> '$.type' = 'webhook.switched_off'", nil, &cancelled)
	if cancelled != 2 {
		t.Errorf("the entry says %d", cancelled)
	}
	_, err := b.register.Redeliver(t.Context(), caller, "evt_1", hook)
	wantProblem(t, "while it is off", err, api.ErrNoEndpoint, "/endpoint")
	on := true
	if e, err := b.register.ChangeEndpoint(t.Context(), caller, hook, api.ChangeEndpoint{Enabled: &on}); err != nil || !e.Enabled || e.DisabledReason != "" {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := b.register.Redeliver(t.Context(), caller, "evt_1", hook); err != nil {
		t.Error(err)
	}
	b.deliver()
	b.want("evt_1", store.DeliveryPending, 2, 500, "")
	b.want("evt_2", store.DeliveryCancelled, 1, 500, "")
}

func TestWhatATryMakesOfADelivery(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_900_000_000, 0)
		begun := store.Delivery{Status: store.DeliveryPending, Step: rapid.IntRange(0, len(schedule)-1).Draw(t, "step"), NextAt: now.Add(-time.Minute)}
		d := begun
		asked := rapid.Bool().Draw(t, "asked for again")
		if asked {
			d.Step, d.NextAt = 0, now.Add(-time.Second)
		}
		cancelled := rapid.Bool().Draw(t, "cancelled")
		if cancelled {
			d.Status = store.DeliveryCancelled
		}
		row := store.Try{At: now, Code: rapid.SampledFrom([]int{0, 204, 301, 410, 500}).Draw(t, "code")}
		if row.Code != 204 {
			row.Error = "why"
		}
		gone := row.Code == 410 && rapid.Bool().Draw(t, "the address is still its own")
		got := after(d, begun, row, gone)
		var want string
		switch {
		case row.Error == "":
			want = store.DeliveryDelivered
		case cancelled:
			want = store.DeliveryCancelled
		case gone, !asked && begun.Step == len(schedule)-1:
			want = store.DeliveryFailed
		default:
			want = store.DeliveryPending
		}
		if got.Status != want || got.Step >= len(schedule) {
			t.Fatalf("%+v after %+v became %+v", d, row, got)
		}
		if want == store.DeliveryPending && asked != !got.NextAt.After(now) {
			t.Fatalf("asked for again %t, and next at %v", asked, got.NextAt.Sub(now))
		}
	})
}

// FuzzGuard holds the guard to what an address is, in whichever clothes it comes.
func FuzzGuard(f *testing.F) {
	for _, address := range []string{"127.0.0.1:443", "[::ffff:127.0.0.1]:443", "[fe80::1%eth0]:443", "1.1.1.1:443", "[2606:4700::1111]:443", "[64:ff9b::1.1.1.1]:1", "x", "1.1.1.1"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		err := refusePrivate("tcp", address, nil)
		ap, parsed := netip.ParseAddrPort(address)
		if parsed != nil {
			if err == nil {
				t.Fatalf("%q is let through", address)
			}
			return
		}
		ip := ap.Addr().Unmap()
		if ip.Is4() {
			mapped := netip.AddrPortFrom(netip.AddrFrom16(ip.As16()), ap.Port())
			if again := refusePrivate("tcp", mapped.String(), nil); !errors.Is(again, err) {
				t.Errorf("%s: %v, and %s: %v", address, err, mapped, again)
			}
		}
		bad := ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() ||
			slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(ip.WithZone("")) })
		if bad != (err != nil) && ip.String() != "255.255.255.255" {
			t.Errorf("%s: %v", address, err)
		}
	})
}
