package softhsmtest_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/appliance/payment"
)

// byCommand are the transitions that an operator's command makes while nobody pays: the tests of restoring kill it there.
var byCommand = []string{"payment.restored", "payment.resolved_captured", "payment.resolved_failed"}

// killPlaces are the failpoints before and after each transition that payments make by themselves.
func killPlaces() []string {
	places := make(map[string]bool)
	for _, t := range payment.Transitions() {
		if !slices.Contains(byCommand, t.Event) {
			places["before "+t.Event], places["after "+t.Event] = true, true
		}
	}
	all := slices.Sorted(maps.Keys(places))
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	// A session ends after a minute at the earliest: what comes then is last.
	slices.SortStableFunc(all, func(a, b string) int { return strings.Count(a, "expired") - strings.Count(b, "expired") })
	return all
}

// kills is how often the server is killed: KILLS, or a few.
func kills(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("KILLS"))
	if os.Getenv("KILLS") == "" {
		return 8
	}
	if err != nil || n < 1 {
		t.Fatalf("KILLS is %q", os.Getenv("KILLS"))
	}
	return n
}

// second is another connector to the same acquirer: a sale that did not leave by one goes by the other.
func second(s *system) (string, string) {
	return "# A connector to Stripe;", "  - name: second\n    type: iso8583\n    sandbox: true\n    iso8583:\n      address: " + s.cfg.Simulator.Acquirer +
		"\n      spec: ascii1987\n      header: binary2\n      acquirer_id: \"123456\"\n      sign_on: true\n      match_terminal: true\n      answer_timeout: 1s\n      echo_interval: 60s\n" +
		"      additional: {field: 48, record: DE126}\n\n# A connector to Stripe;"
}

func TestKilledAtEveryTransitionUnderLoadTheBooksAgreeToTheCent(t *testing.T) {
	s := configured(t, append(unlimited, hasty, setting{"session: 30m", "session: 1m "}, setting{"challenge: 10m ", "challenge: 4s  "})...)
	s.change(second(s))
	s.setUp()
	s.up()
	h := s.newHook(t, nil)
	c := s.gather()
	stop, calm := context.WithCancel(t.Context())
	defer calm()
	weather := atOnce(func() { s.weather(stop) })

	left, rounds := killPlaces(), kills(t)
	thorough := rounds >= 2*len(left)
	var met []string
	for round := range rounds {
		if round%2 == 1 || len(left) == 0 { // at any time
			s.dies("", time.Duration(50+rand.IntN(1500))*time.Millisecond)
			continue
		}
		place := left[0]
		left = left[1:]
		if s.dies(place, 5*time.Second) || thorough && s.insists(place) {
			met = append(met, place)
		} else if thorough {
			t.Errorf("nobody ever came to %q", place)
		}
	}
	calm()
	weather()
	c.home()
	s.kill() // the last one, in fair weather
	s.serve = s.start("serve")
	s.awaitReady()
	t.Logf("%d deeds, killed %d times, at: %s", c.deeds.Load(), rounds+1, strings.Join(met, ", "))

	s.atRest()
	all := s.payments()
	s.trueToTheBooks()
	s.madeOnce(all)
	s.told(h)
	s.patiently("no card is held", func() bool { return s.metric("finpay_custody_cards") == 0 })
	s.rowsAreCovered()
	s.serve.stop()
	s.followsTheTable(all)
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

// insists lets the server come to a place again and again, for as long as a session lasts.
func (s *system) insists(place string) bool {
	s.t.Helper()
	for range 15 {
		if s.dies(place, 8*time.Second) { // sessions that are over are looked for every five
			return true
		}
	}
	return false
}

// dies has the server killed and started once more: by itself at a place, or by us when the time is over. It reports whether it
// was there. Where the place is on the way to readiness, it never is ready.
func (s *system) dies(place string, after time.Duration) (there bool) {
	s.t.Helper()
	s.kill()
	s.serve = s.start("serve", "FINPAY_FAILPOINT="+place)
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-s.serve.done:
		if there = place != ""; !there {
			s.t.Error("the server has ended by itself")
		}
	case <-timer.C:
		s.kill()
	}
	s.serve = s.start("serve")
	s.awaitReady()
	return there
}
