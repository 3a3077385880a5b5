package softhsmtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/store"
)

// The log of the year before is closed when the appliance starts, and everything goes on in its successor.
func TestTheLogOfAYearThatIsOverIsFollowed(t *testing.T) {
	s := configured(t, setting{"finpay.example/finpay-1/2026", "finpay.example/finpay-1/2025"})
	s.setUp()
	pinned, err := os.ReadFile(filepath.Join(s.cfg.State(), "ledger.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	s.up()
	id, link := s.buy()
	if _, _, err := s.shop.Pay(t.Context(), link, typed(visaCard)); err != nil {
		t.Fatal(err)
	}
	if got := s.payment(id); got.Status != api.StatusCaptured {
		t.Errorf("the payment is %s", got.Status)
	}
	now, err := os.ReadFile(filepath.Join(s.cfg.State(), "ledger.vkey"))
	if err != nil || !strings.HasPrefix(string(pinned), "finpay.example/finpay-1/2025+") || strings.HasPrefix(string(now), "finpay.example/finpay-1/2025+") {
		t.Errorf("the key was %s, and is %s, %v", pinned, now, err)
	}
	status, body := s.call("GET", "/v1/payments/"+id+"/receipt", "")
	receipt := decode[api.Receipt](t, body)
	if status != 200 || len(receipt.Entries) == 0 {
		t.Fatalf("%d %s", status, body)
	}
	for _, e := range receipt.Entries {
		if err := logproof.Verify(e.Index, []byte(e.Entry), []byte(e.Proof), receipt.Origin, strings.TrimSpace(string(now))); err != nil {
			t.Error(err)
		}
	}
	s.serve.stop()
	s.serve = s.start("serve") // the year is turned once
	s.awaitReady()
	s.serve.stop()
	db, err := store.OpenReadOnly(s.cfg.State())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	closed, err := db.Read(t.Context()).ClosedLogs()
	if err != nil || len(closed) != 1 || closed[0].Origin != "finpay.example/finpay-1/2025" || closed[0].Size < 5 {
		t.Fatalf("%+v, %v", closed, err)
	}
	for name, key := range map[string]string{"the key of the first year": string(pinned), "that of the second": string(now)} {
		verdict, err := audit.VerifyAll(t.Context(), db, "", audit.Terms{Key: strings.TrimSpace(key)})
		if err != nil || !verdict.OK || len(verdict.Closed) != 1 {
			t.Errorf("under %s: %+v, %v", name, verdict, err)
		}
	}
	if found, err := audit.Check(t.Context(), db, t.TempDir()); err != nil || found.Wrong > 0 {
		t.Errorf("%+v, %v", found, err)
	}
}
