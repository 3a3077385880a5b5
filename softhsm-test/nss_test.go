package softhsmtest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/finterra/finpay/api"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

// onNSS are the settings of an appliance on NSS softokn.
func onNSS(t *testing.T) []setting {
	t.Helper()
	token := softhsmtest.NSSToken(t)
	pin := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pin, []byte(token.PIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []setting{
		{"provider: softhsm ", "provider: nss "},
		{"module: " + softhsmtest.Module(t), "module: " + token.Module},
		{"token: finpay ", "token: " + token.Label + " "},
		{"pin_file: hsm/pin ", "pin_file: " + pin + " "},
		{`init_argument: ""`, `init_argument: "` + token.InitArgument + `"`},
	}
}

// Another vendor's library is another profile: the whole appliance runs on NSS softokn without a change but that.
func TestAPaymentThroughAnotherProvider(t *testing.T) {
	s := newSystem(t, onNSS(t)...)
	id, link := s.buy()
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4111111111111111")); err != nil {
		t.Fatal(err)
	}
	if got := s.payment(id); got.Status != api.StatusCaptured {
		t.Errorf("the payment is %s", got.Status)
	}
	s.agree()
}
