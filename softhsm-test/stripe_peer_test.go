//go:build peers

package softhsmtest_test

import (
	"testing"

	"github.com/finterra/finpay/softhsm-test/fakestripe"
)

// From the hosted page to the webhook, with each request to Stripe held against Stripe's own OpenAPI document.
func TestStripeMockTakesWhatTheApplianceSends(t *testing.T) {
	s, peer := withStripe(t, fakestripe.StartMock(t))
	sellByStripe(s, peer)
	for _, said := range peer.Invalid() {
		t.Error(said)
	}
	if len(peer.Requests()) < 10 {
		t.Errorf("%d requests", len(peer.Requests()))
	}
}
