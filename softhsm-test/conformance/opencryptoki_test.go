//go:build peers

package conformance

import (
	"os"
	"testing"

	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

// The soft token of openCryptoki, which `.ci/peers` has initialized in a mount namespace of its own.
func TestOpenCryptoki(t *testing.T) {
	pin := os.Getenv("CONFORMANCE_OPENCRYPTOKI_PIN")
	if pin == "" {
		t.Fatal("openCryptoki's token is made by .ci/peers: run `make peers`")
	}
	testProvider(t, provider{
		profile: "opencryptoki", module: softhsmtest.Installed(t, "opencryptoki", "opencryptoki"), label: "conformance", pin: pin, wrongPIN: "00000000",
		lacks: []hsm.Role{"ledger", "ledger-ed25519", "intake"},
	})
}
