package softhsmtest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/finterra/finpay/api"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

// Another vendor's library is another profile: the whole appliance runs on NSS softokn without a change but that.
func TestAPaymentThroughAnotherProvider(t *testing.T) {
	token := softhsmtest.NSSToken(t)
	pin := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pin, []byte(token.PIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSystem(t,
		setting{"provider: softhsm ", "provider: nss "},
		setting{"module: " + softhsmtest.Module(t), "module: " + token.Module},
		setting{"token: finpay ", "token: " + token.Label + " "},
		setting{"pin_file: hsm/pin ", "pin_file: " + pin + " "},
		setting{`init_argument: ""`, `init_argument: "` + token.InitArgument + `"`})
	id, link := s.buy()
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4111111111111111")); err != nil {
		t.Fatal(err)
	}
	if got := s.payment(id); got.Status != api.StatusCaptured {
		t.Errorf("the payment is %s", got.Status)
	}
	s.agree()
}
