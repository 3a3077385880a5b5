package softhsmtest_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/finterra/finpay/api"
)

// One endpoint is gone, one redirects, one hangs, one answers without an end, and one is down for a day: the others are told at
// once, and it is told when it is back.
func TestWhateverAShopsEndpointsDoEachIsToldWhatItTakes(t *testing.T) {
	t.Parallel()
	s := newSystem(t, append(unlimited, setting{"  timeout: 15s\n\naudit:", "  timeout: 3s\n\naudit:"})...)
	var down, followed atomic.Bool
	down.Store(true)
	leave := make(chan struct{})
	defer close(leave)
	gone := s.newHook(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	redirecting := s.newHook(t, func(w http.ResponseWriter, r *http.Request) {
		followed.Store(followed.Load() || r.URL.Path != "/hook")
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	hanging := s.newHook(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-leave:
		}
	})
	endless := s.newHook(t, func(w http.ResponseWriter, _ *http.Request) {
		for piece := make([]byte, 32<<10); ; { // until nobody reads any more
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	away := s.newHook(t, func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	good := s.newHook(t, nil)

	const payments = 6 // more than one endpoint has tries under way
	var events []api.Event
	for range payments {
		s.paidNow("EUR", "", approvedCard)
		if events == nil { // what happened before an endpoint was switched off is known
			events = s.events()
			s.until("the endpoint is off", func() bool { return s.deliveries(events[0].ID)[gone.id].Status == "failed" })
		}
	}
	if events = s.events(); len(events) != payments {
		t.Fatalf("%d events", len(events))
	}
	for what, h := range map[string]*hook{"good": good, "endless": endless} {
		s.until("the endpoint that is "+what+" has all", func() bool {
			for _, e := range events {
				if s.deliveries(e.ID)[h.id].Status != "delivered" {
					return false
				}
			}
			return true
		})
		if n := h.count(); n != payments {
			t.Errorf("the endpoint that is %s was called %d times", what, n)
		}
	}
	if n := gone.count(); n != 1 {
		t.Errorf("the endpoint that is gone was called %d times", n)
	}
	s.until("the redirecting one and the one that is away have failed", func() bool {
		for _, e := range events {
			if by := s.deliveries(e.ID); len(by[redirecting.id].Tries) == 0 || len(by[away.id].Tries) == 0 {
				return false
			}
		}
		return true
	})
	for _, e := range events {
		by := s.deliveries(e.ID)
		if d := by[redirecting.id]; d.Status != "pending" || d.Tries[0].Status != http.StatusTemporaryRedirect || followed.Load() {
			t.Errorf("redirecting: %+v", d)
		}
		if d := by[away.id]; d.Status != "pending" || d.Tries[0].Status != http.StatusServiceUnavailable {
			t.Errorf("away: %+v", d)
		}
		if d := by[hanging.id]; d.Status == "delivered" {
			t.Errorf("hanging: %+v", d)
		}
	}

	down.Store(false)
	s.kill()
	s.serve = s.start("serve", "FINPAY_AHEAD=25h") // a day later
	s.awaitReady()
	s.until("what was missed for a day has come", func() bool {
		for _, e := range events {
			if s.deliveries(e.ID)[away.id].Status != "delivered" {
				return false
			}
		}
		return true
	})
	if n := good.count(); n != payments {
		t.Errorf("the good endpoint was called %d times in the end", n)
	}
	status, body := s.call("GET", "/v1/webhook-endpoints", "")
	if status != http.StatusOK || strings.Count(string(body), `"disabled_reason":"gone"`) != 1 {
		t.Errorf("%d %s", status, body)
	}
	s.closesBooks(t)
}
