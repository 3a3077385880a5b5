package softhsmtest_test

import (
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/finterra/finpay/api"
)

// One of a merchant's endpoints is away, the appliance is killed, and the other one is told nevertheless; what was tried is shown,
// and can be sent again.
func TestAMerchantKeepsItsEndpoints(t *testing.T) {
	s := newSystem(t)
	admin := regexp.MustCompile(`fp_test_\S+`).FindString(s.command("api-key", "create", "--scopes", "admin"))
	change := func(method, path, body string, want int) []byte {
		t.Helper()
		status, answer := s.call(method, path, body, "Authorization", "Bearer "+admin)
		if status != want {
			t.Fatalf("%s %s: %d %s", method, path, status, answer)
		}
		return answer
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := listener.Addr().String()
	_ = listener.Close()
	made := decode[api.Endpoint](t, change("POST", "/v1/webhook-endpoints", `{"url":"https://`+away+`/hook","event_types":["payment.captured"]}`, http.StatusCreated))
	if !strings.HasPrefix(made.Secret, "whsec_") {
		t.Error("no secret")
	}
	if status, _ := s.call("DELETE", "/v1/webhook-endpoints/"+made.ID, ""); status != http.StatusForbidden {
		t.Errorf("the shop's key deletes an endpoint: %d", status)
	}
	id := s.pay("4111111111111111").ID
	s.kill()
	s.serve = s.start("serve")
	s.awaitReady()
	s.until("the shop has its webhook", func() bool { return s.shopHeard(id) })

	event := func() api.Event {
		t.Helper()
		_, body := s.call("GET", "/v1/events?type=payment.captured&payment="+id, "")
		list := decode[api.EventList](t, body)
		if len(list.Events) != 1 {
			t.Fatalf("%s", body)
		}
		_, body = s.call("GET", "/v1/events/"+list.Events[0].ID, "")
		return decode[api.Event](t, body)
	}
	at := func(endpoint string) (d api.EventDelivery) {
		t.Helper()
		for _, d = range event().Deliveries {
			if d.Endpoint == endpoint {
				return d
			}
		}
		t.Fatalf("nothing for %s", endpoint)
		return d
	}
	s.until("the other endpoint was tried", func() bool { return len(at(made.ID).Tries) > 0 })
	if d := at(made.ID); d.Status != "pending" || d.NextAt == nil || !strings.Contains(d.Tries[0].Error, "connection refused") || event().Sequence != 1 {
		t.Errorf("%+v", d)
	}

	_, body := s.call("GET", "/v1/webhook-endpoints", "")
	if shown := decode[api.EndpointList](t, body); len(shown.Endpoints) != 2 || strings.Contains(string(body), "whsec_") {
		t.Errorf("%s", body)
	}
	tries := len(at(made.ID).Tries)
	if status, body := s.call("POST", "/v1/events/"+event().ID+"/redeliver", `{"endpoint":"`+made.ID+`"}`); status != http.StatusAccepted {
		t.Errorf("%d %s", status, body)
	}
	s.until("it was tried again", func() bool { return len(at(made.ID).Tries) > tries })
	change("DELETE", "/v1/webhook-endpoints/"+made.ID, "", http.StatusNoContent)
	if d := at(made.ID); d.Status != "cancelled" {
		t.Errorf("%+v", d)
	}
	for kind, want := range map[string]int{"webhook_endpoint.created": 2, "webhook_endpoint.deleted": 1, "webhook.redelivery_asked": 1} {
		if n := s.entriesOfType(kind); n != want {
			t.Errorf("%d entries %s, want %d", n, kind, want)
		}
	}
	s.serve.stop()
	s.verifyLog()
}
