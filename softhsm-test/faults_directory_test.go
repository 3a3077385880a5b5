package softhsmtest_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/simulator"
)

// relay is a way to the directory server that can be shut: then connections are refused.
type relay struct {
	t       testing.TB
	address string
	to      string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
	wg       sync.WaitGroup
}

func newRelay(t testing.TB) *relay {
	t.Helper()
	r := &relay{t: t, address: "127.0.0.1:0"}
	r.open()
	r.address = r.listener.Addr().String()
	t.Cleanup(func() {
		r.shut()
		r.wg.Wait()
	})
	return r
}

func (r *relay) open() {
	r.t.Helper()
	listener, err := net.Listen("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listener = listener
	r.wg.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", r.to)
			if err != nil {
				_ = from.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, from, to)
			r.mu.Unlock()
			for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
				r.wg.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_, _ = way[0].Close(), way[1].Close()
				})
			}
		}
	})
}

func (r *relay) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.listener.Close()
	for _, conn := range r.conns {
		_ = conn.Close()
	}
	r.conns = nil
}

// Where a payment without authentication is refused, whatever the directory server does wrong refuses it, and the shopper pays when
// it is over.
func TestWhateverGoesWrongAtTheDirectoryServerNothingIsSoldThatIsNotAuthenticated(t *testing.T) {
	t.Parallel()
	way := newRelay(t)
	_, port, _ := strings.Cut(way.address, ":")
	s := configured(t, append(unlimited, hasty, setting{"unavailable: proceed", "unavailable: refuse"})...)
	way.to = s.cfg.Simulator.Web
	s.change("url: "+s.cfg.ThreeDS.DirectoryServers[0].URL, "url: https://localhost:"+port+"/ds")
	s.setUp()
	s.up()
	for what, tt := range map[string]struct{ begin, end func() }{
		"truncated": {func() { s.behave("/ds", simulator.Truncated) }, func() { s.struckOnce("/ds"); s.behave("/ds", "") }},
		"dropped":   {func() { s.behave("/ds", simulator.Dropped) }, func() { s.struckOnce("/ds"); s.behave("/ds", "") }},
		"refused":   {way.shut, way.open},
	} {
		t.Run(what, func(t *testing.T) {
			s.t = t
			p := s.made(anotherAmount(), "EUR", "")
			tt.begin()
			page := s.sends(s.opens(p.CheckoutURL, nil), "number", card(approvedCard))
			tt.end()
			if got := s.settled(p.ID); got.Status != api.StatusDeclined || got.Result.Reason != "not_authenticated" || got.Captured != 0 {
				t.Errorf("%s, %+v", got.Status, got.Result)
			}
			s.trueToTheBooks()
			s.sends(page, "number", card(approvedCard)) // the form that stands there
			if got := s.settled(p.ID); got.Status != api.StatusCaptured || got.Result.ThreeDS != "Y" {
				t.Errorf("when it is over: %s, %+v", got.Status, got.Result)
			}
			s.trueToTheBooks()
		})
		s.t = t
	}
	s.closesBooks(t)
}

func (s *system) struckOnce(who string) {
	s.t.Helper()
	if n := s.struck(who); n == 0 {
		s.t.Error("the fault has not struck")
	}
}

// The issuer's word comes by the directory server, as often as it likes, or not at all. The browser's is none.
func TestTheIssuersResultCountsOnceHoweverOftenItComes(t *testing.T) {
	t.Parallel()
	s := newSystem(t, unlimited...)
	s.behave("/acs", simulator.ResultTwice)
	p := s.made(anotherAmount(), "EUR", "")
	_, issuer := s.challenged(p.CheckoutURL)
	s.sends(s.sends(issuer, "password", password), "cres", nil)
	s.struckOnce("/acs")
	s.onceOnly(p.ID, 1)
	s.closesBooks(t)
}

func TestWhereTheIssuersResultNeverComesNothingIsCharged(t *testing.T) {
	t.Parallel()
	s := newSystem(t, setting{"challenge: 10m ", "challenge: 3s  "})
	s.behave("/acs", simulator.ResultNever)
	p := s.made(anotherAmount(), "EUR", "")
	_, issuer := s.challenged(p.CheckoutURL)
	back := s.sends(issuer, "password", password)
	s.struckOnce("/acs")
	s.sends(back, "cres", nil) // which says that all is well
	if got := s.settled(p.ID); got.Status != api.StatusDeclined || got.Result.Reason != api.ReasonChallengeTimedOut {
		t.Errorf("%s, %+v", got.Status, got.Result)
	}
	if n := len(s.books().Bookings); n != 0 {
		t.Errorf("%d bookings", n)
	}
	s.behave("/acs", "")
	// The first card's result comes while the second card's challenge is open, and decides nothing.
	s.sends(s.opens(p.CheckoutURL, nil), "number", card("5200828282828210"))
	s.sends(issuer, "password", password)
	if got := s.settled(p.ID); got.Status != api.StatusDeclined || got.Attempts != 2 || got.Result.Reason != api.ReasonChallengeTimedOut {
		t.Errorf("the second card: %s after %d attempts, %+v", got.Status, got.Attempts, got.Result)
	}
	if _, _, err := s.shop.Pay(t.Context(), p.CheckoutURL, typed(approvedCard)); err != nil {
		t.Error(errors.Join(errors.New("a third card"), err))
	}
	s.onceOnly(p.ID, 3)
	s.closesBooks(t)
}
