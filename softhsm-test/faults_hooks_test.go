package softhsmtest_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/simulator"
)

// hook is an endpoint of a merchant, in this process, that keeps what it was told.
type hook struct {
	server *httptest.Server
	id     string // of the endpoint

	mu    sync.Mutex
	heard map[string]int // by event, how often
}

// hears reports whether an event has come.
func (h *hook) hears(event string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.heard[event] > 0
}

// count is how many tries have come.
func (h *hook) count() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, times := range h.heard {
		n += times
	}
	return n
}

// newHook registers an endpoint that answers as answer does, nil for 204.
func (s *system) newHook(t testing.TB, answer http.HandlerFunc) *hook {
	t.Helper()
	certs, err := simulator.OpenCertificates(filepath.Join(s.cfg.State(), "simulator"))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := certs.Server()
	if err != nil {
		t.Fatal(err)
	}
	h := &hook{heard: make(map[string]int)}
	h.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.heard[r.Header.Get("webhook-id")]++
		h.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	h.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	h.server.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that end with a server that is killed
	h.server.StartTLS()
	t.Cleanup(h.server.Close)
	_, port, _ := net.SplitHostPort(h.server.Listener.Addr().String())
	status, body := s.call("POST", "/v1/webhook-endpoints", fmt.Sprintf(`{"url":"https://localhost:%s/hook"}`, port), "Authorization", "Bearer "+s.admin())
	if status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	h.id = decode[api.Endpoint](t, body).ID
	return h
}

// admin makes an API key that may change endpoints.
func (s *system) admin() string {
	s.t.Helper()
	return regexp.MustCompile(`fp_test_\S+`).FindString(s.command("api-key", "create", "--scopes", "admin"))
}

// events are all of the merchant's, newest first.
func (s *system) events() (all []api.Event) {
	s.t.Helper()
	for cursor := ""; ; {
		status, body := s.call("GET", "/v1/events?limit=100"+cursor, "")
		if status != http.StatusOK {
			s.t.Fatalf("events: %d %s", status, body)
		}
		var page api.EventList
		if err := json.Unmarshal(body, &page); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, page.Events...)
		if page.NextCursor == "" {
			return all
		}
		cursor = "&cursor=" + page.NextCursor
	}
}

// deliveries are those of an event, by endpoint.
func (s *system) deliveries(event string) map[string]api.EventDelivery {
	s.t.Helper()
	status, body := s.call("GET", "/v1/events/"+event, "")
	if status != http.StatusOK {
		s.t.Fatalf("event: %d %s", status, body)
	}
	by := make(map[string]api.EventDelivery)
	for _, d := range decode[api.Event](s.t, body).Deliveries {
		by[d.Endpoint] = d
	}
	return by
}
