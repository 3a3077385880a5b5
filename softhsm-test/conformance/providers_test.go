package conformance

import (
	"testing"

	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

func TestSoftHSM2(t *testing.T) {
	token := softhsmtest.Token(t)
	testProvider(t, provider{
		profile: "softhsm", module: token.Module, label: token.Label, pin: token.PIN, wrongPIN: "000000", env: token.Environment,
	})
}

func TestNSS(t *testing.T) {
	token := softhsmtest.NSSToken(t)
	testProvider(t, provider{
		profile: "nss", module: token.Module, label: token.Label, pin: token.PIN, wrongPIN: "another", argument: token.InitArgument,
		lacks: []hsm.Role{"ledger-ed25519", hsm.RoleHead}, replaces: true,
	})
}
