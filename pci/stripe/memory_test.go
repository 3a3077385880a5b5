package stripe

import (
	"crypto/tls"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/memory"
	"github.com/finterra/finpay/softhsm-test/fakestripe"
)

// newPeer is a Stripe for another process.
func newPeer() *httptest.Server { return fakestripe.New().Server }

func TestNoDigitIsLeftInMemory(t *testing.T) {
	url, trust := memory.Start(t)
	card := memory.NewCard([]byte("402400715098275"), []byte("card%5Bcvc%5D=604"))
	c, err := newConnector(Config{URL: url, Key: Key{secret}, TLS: &tls.Config{RootCAs: trust}})
	if err != nil {
		t.Fatal(err)
	}
	c.cards = card
	for i := range 5 {
		r := saleRequest()
		r.Payment = fmt.Sprintf("pay_%d", i)
		result, err := c.Sale(t.Context(), r)
		if err != nil || result.Outcome != pci.Approved {
			t.Fatalf("%+v, %v", result, err)
		}
		if done, err := c.Reverse(t.Context(), reversalOf(r, result.Reference)); !done || err != nil {
			t.Fatalf("%t, %v", done, err)
		}
	}
	card.Digits.WantNone(t, "PAN")
	card.Code.WantNone(t, "security code")
}
