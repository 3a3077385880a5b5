package softhsmtest_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/simulator"
	"github.com/finterra/finpay/appliance/store"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
	"github.com/finterra/finpay/softhsm-test/fault"
	"github.com/finterra/finpay/softhsm-test/scan"
)

// verifyLog checks the whole log under the key that init has written down.
func (s *system) verifyLog() {
	s.t.Helper()
	vkey, err := os.ReadFile(filepath.Join(s.cfg.State(), "ledger.vkey"))
	if err != nil {
		s.t.Fatal(err)
	}
	db, err := store.OpenReadOnly(s.cfg.State())
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	verdict, err := audit.Verify(s.t.Context(), audit.Database{Store: db}, audit.Terms{Key: strings.TrimSpace(string(vkey))})
	if err != nil || !verdict.OK || verdict.Size == 0 {
		s.t.Errorf("the log does not verify: %+v, %v", verdict, err)
	}
}

func TestDemo(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	cmd := exec.Command(finpay, "demo", "--json", "--state", state)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, &out, &log)
	}
	var result struct {
		Payments []struct {
			Status, Card, Token, Webhook, Return string
			Steps                                []struct{ OK bool }
		}
		Ledger struct {
			Size     int64
			Verified bool
		}
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	for i, want := range []string{"captured", "captured", "declined"} {
		p := result.Payments[i]
		if p.Status != want || p.Return != want || p.Webhook != "payment."+want || len(p.Steps) != 12 || len(p.Token) != 16 {
			t.Errorf("payment %d: %+v", i, p)
		}
	}
	if !result.Ledger.Verified || result.Ledger.Size < 20 {
		t.Errorf("ledger: %+v", result.Ledger)
	}
	noCardDataIn(t, state)
	for _, text := range []*bytes.Buffer{&out, &log} {
		for _, hit := range testCards().Text(text.Bytes(), "the output") {
			t.Error(hit)
		}
	}
	if out, err := exec.Command(finpay, "demo", "--state", state).CombinedOutput(); err == nil {
		t.Errorf("a second demo ran over the first one's state:\n%s", out)
	}
}

// noCardDataIn searches every file for the test PANs in each encoding, for custody records and for labelled CVVs.
func noCardDataIn(t *testing.T, dir string) {
	t.Helper()
	hits, files, err := testCards().Files(dir)
	for _, hit := range hits {
		t.Error(hit)
	}
	if err != nil || files < 10 {
		t.Fatalf("%d files searched: %v", files, err)
	}
}

// testCards finds the published test cards.
var testCards = sync.OnceValue(func() *scan.Scanner {
	var cards []scan.Card
	for _, card := range simulator.Cards {
		cards = append(cards, scan.Card{Number: card.Number})
	}
	return scan.New(cards...)
})

func TestEveryTestCardDoesWhatItSays(t *testing.T) {
	s := newSystem(t, hasty)
	for _, card := range simulator.Cards {
		t.Run(card.Number[:6]+"-"+card.Number[len(card.Number)-4:], func(t *testing.T) {
			s.t = t
			id, link := s.buy()
			_, challenged, err := s.shop.Pay(t.Context(), link, typed(card.Number))
			if err != nil {
				t.Fatal(err)
			}
			if want := card.ThreeDS == simulator.Challenge || card.Acquirer == simulator.SoftDecline; challenged != want {
				t.Errorf("challenged: %v", challenged)
			}
			if card.Acquirer == simulator.NoAnswer {
				if got := s.payment(id); got.Status != api.StatusIndeterminate {
					t.Errorf("while nobody knows, the payment is %s", got.Status)
				}
			}
			got := s.settled(id)
			if want := wantStatus(card); got.Status != want {
				t.Errorf("the payment is %s, want %s", got.Status, want)
			}
			s.agree()
		})
	}
	s.t = t
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

func wantStatus(card simulator.Card) api.Status {
	switch card.ThreeDS {
	case simulator.NotAuthentic, simulator.Rejected, simulator.Decoupled, simulator.PaymentConfirmation, simulator.UnknownStatus:
		return api.StatusDeclined
	}
	switch card.Acquirer {
	case simulator.Approve, simulator.Twice, simulator.CaptureLost, simulator.CaptureRefused, simulator.RefundRefused, simulator.RefundSilent, simulator.SoftDecline:
		return api.StatusCaptured
	case simulator.Silent, simulator.Late, simulator.HangUp, simulator.NoAnswer:
		return api.StatusFailed
	default:
		return api.StatusDeclined
	}
}

func TestTwoTabsChargeOnce(t *testing.T) {
	s := newSystem(t)
	id, link := s.buy()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { _, _, _ = s.shop.Pay(t.Context(), link, typed("4111111111111111")) })
	}
	wg.Wait()
	if got := s.settled(id); got.Status != api.StatusCaptured || got.Attempts != 1 {
		t.Errorf("%s after %d attempts", got.Status, got.Attempts)
	}
	if n := len(s.books().Bookings); n != 1 {
		t.Errorf("the acquirer has %d bookings", n)
	}
	s.agree()
}

func TestAnotherCardAfterADecline(t *testing.T) {
	s := newSystem(t)
	id, link := s.buy()
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4539515151515151")); err != nil {
		t.Fatal(err)
	}
	if got := s.payment(id); got.Status != api.StatusDeclined || got.Result.Reason != "insufficient_funds" {
		t.Fatalf("%s, %+v", got.Status, got.Result)
	}
	if _, _, err := s.shop.Pay(t.Context(), link, typed("5555555555554444")); err != nil {
		t.Fatal(err)
	}
	if got := s.payment(id); got.Status != api.StatusCaptured || got.Attempts != 2 {
		t.Errorf("%s after %d attempts", got.Status, got.Attempts)
	}
	s.agree()
}

func TestWhatIsWrongWithACardIsSaidAndNothingIsEntered(t *testing.T) {
	s := newSystem(t)
	id, link := s.buy()
	for name, card := range map[string]simulator.Typed{
		"fails Luhn":          {Number: "4111111111111112", Expiry: "12/29", CVV: "123"},
		"eleven digits":       {Number: "41111111111", Expiry: "12/29", CVV: "123"},
		"twenty digits":       {Number: "41111111111111111111", Expiry: "12/29", CVV: "123"},
		"expired":             {Number: "4111111111111111", Expiry: "01/20", CVV: "123"},
		"no security code":    {Number: "4111111111111111", Expiry: "12/29"},
		"no expiry":           {Number: "4111111111111111", CVV: "123"},
		"begins with 9":       {Number: "9792123456789018", Expiry: "12/29", CVV: "123"},
		"a number for a name": {Number: "4111111111111111", Expiry: "12/29", CVV: "123", Name: "4111111111111111"},
	} {
		page, err := s.shop.Enter(t.Context(), link, card)
		if err != nil || page.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d, %v", name, page.Status, err)
		}
		if strings.Contains(page.Text, card.Number) {
			t.Errorf("%s: the page shows the number again", name)
		}
	}
	if got := s.payment(id); got.Status != api.StatusCreated || got.Attempts != 0 {
		t.Errorf("%s after %d attempts", got.Status, got.Attempts)
	}
	_, body := s.call("GET", "/v1/payments/"+id+"/receipt", "", "Authorization", "Bearer "+s.apiKey)
	if n := len(decode[api.Receipt](t, body).Entries); n != 1 {
		t.Errorf("%d entries, want the creation alone", n)
	}
}

func TestRequestsThatCannotBeServed(t *testing.T) {
	s := newSystem(t)
	body := func(change string) string {
		return `{"amount":1250,"currency":"EUR","reference":"r","return_url":"https://shop.example/r"` + change + `}`
	}
	for name, c := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"malformed":          {`{"amount":`, 400, "malformed"},
		"unknown field":      {body(`,"colour":"red"`), 422, "unknown_field"},
		"twice":              {body(`,"reference":"s"`), 400, "malformed"},
		"wrong type":         {`{"amount":"12","currency":"EUR","reference":"r","return_url":"https://shop.example/r"}`, 422, "invalid"},
		"negative":           {`{"amount":-1,"currency":"EUR","reference":"r","return_url":"https://shop.example/r"}`, 422, "invalid"},
		"too much":           {`{"amount":1000000000000,"currency":"EUR","reference":"r","return_url":"https://shop.example/r"}`, 422, "invalid"},
		"overflowing":        {`{"amount":99999999999999999999,"currency":"EUR","reference":"r","return_url":"https://shop.example/r"}`, 422, "invalid"},
		"no such currency":   {`{"amount":1,"currency":"EUX","reference":"r","return_url":"https://shop.example/r"}`, 422, "invalid"},
		"a card number":      {`{"amount":1,"currency":"EUR","reference":"4111 1111 1111 1111","return_url":"https://shop.example/r"}`, 422, "looks_like_card_number"},
		"script for a URL":   {`{"amount":1,"currency":"EUR","reference":"r","return_url":"javascript:alert(1)"}`, 422, "invalid"},
		"more than is taken": {body(`,"capture":"` + strings.Repeat("x", 70<<10) + `"`), 413, "too_large"},
	} {
		status, answer := s.call("POST", "/v1/payments", c.body)
		var problem struct{ Code string }
		if err := json.Unmarshal(answer, &problem); err != nil || status != c.status || problem.Code != c.code {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	revoked := s.apiKey
	s.serve.stop()
	s.command("api-key", "revoke", revoked)
	s.apiKey = strings.TrimSpace(s.command("api-key", "create"))
	s.serve = s.start("serve")
	s.awaitReady()
	s.client.CloseIdleConnections()
	for name, key := range map[string]string{"revoked": revoked, "made up": revoked[:len(revoked)-4] + "AAAA", "none": ""} {
		if status, answer := s.call("POST", "/v1/payments", body(""), "Authorization", "Bearer "+key); status != http.StatusUnauthorized {
			t.Errorf("%s key: %d %s", name, status, answer)
		}
	}
	if status, answer := s.call("GET", "/checkout/"+strings.Repeat("A", 32), ""); status != http.StatusNotFound {
		t.Errorf("a session that never was: %d %.200s", status, answer)
	}
	if _, answer := s.call("GET", "/v1/payments", ""); len(decode[api.PaymentList](t, answer).Payments) != 0 {
		t.Errorf("something was created: %s", answer)
	}
}

func TestARepeatedRequestMakesOnePayment(t *testing.T) {
	s := newSystem(t)
	request := `{"amount":1250,"currency":"EUR","reference":"r","return_url":"https://shop.example/r"}`
	first, body := s.call("POST", "/v1/payments", request, "Idempotency-Key", "order-7")
	again, same := s.call("POST", "/v1/payments", request, "Idempotency-Key", "order-7")
	if a, b := decode[api.Payment](t, body), decode[api.Payment](t, same); first != 201 || again != 201 || a.ID != b.ID || a.CheckoutURL != b.CheckoutURL {
		t.Errorf("%d %s\n%d %s", first, body, again, same)
	}
	if status, answer := s.call("POST", "/v1/payments", strings.Replace(request, "1250", "1251", 1), "Idempotency-Key", "order-7"); status != 422 {
		t.Errorf("another request under the same key: %d %s", status, answer)
	}
}

func TestAnExpiredSessionTakesNoCard(t *testing.T) {
	s := newSystem(t, setting{"session: 30m", "session: 1m"})
	id, link := s.buy()
	// A minute is the shortest session that may be configured, and too long to wait: the row is aged instead.
	s.serve.stop()
	s.database("UPDATE payments SET expires_at = '2020-01-01T00:00:00.000000000Z' WHERE id = ?", id)
	s.serve = s.start("serve")
	s.awaitReady()
	s.client.CloseIdleConnections()
	page, err := s.shop.Open(t.Context(), link)
	if err != nil || page.Status != http.StatusGone {
		t.Errorf("%d, %v", page.Status, err)
	}
	s.until("the payment is expired", func() bool { return s.payment(id).Status == api.StatusExpired })
}

// database changes the database behind the appliance's back.
func (s *system) database(statement string, args ...any) {
	s.t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(s.cfg.State(), store.FileName))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(statement, args...); err != nil {
		s.t.Fatal(err)
	}
}

func TestAcquirerAwayTheShopperIsAskedAgain(t *testing.T) {
	s := prepare(t)
	counterparties := s.start("simulator")
	s.serve = s.start("serve")
	s.awaitReady()
	id, link := s.buy()
	counterparties.stop()
	s.client.CloseIdleConnections()
	page, err := s.shop.Enter(t.Context(), link, typed("4111111111111111"))
	if err != nil || !strings.Contains(page.Text, "not charged") {
		t.Errorf("%v: %s", err, page.Text)
	}
	if got := s.settled(id); got.Status != api.StatusCreated {
		t.Errorf("the payment is %s", got.Status)
	}
	s.start("simulator")
	s.awaitReady()
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4111111111111111")); err != nil {
		t.Error(err)
	}
	if got := s.payment(id); got.Status != api.StatusCaptured {
		t.Errorf("the payment is %s", got.Status)
	}
	s.agree()
}

func TestDatabaseLockedNothingIsAccepted(t *testing.T) {
	s := newSystem(t)
	db, err := sql.Open("sqlite3", filepath.Join(s.cfg.State(), store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	request := `{"amount":1250,"currency":"EUR","reference":"r","return_url":"https://shop.example/r"}`
	if status, answer := s.call("POST", "/v1/payments", request); status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", status, answer)
	}
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if status, answer := s.call("POST", "/v1/payments", request); status != http.StatusCreated {
		t.Errorf("after the lock: %d %s", status, answer)
	}
}

// faultModule puts the module that goes wrong on demand in front of SoftHSM2.
func faultModule(t testing.TB) (setting, *fault.Control) {
	t.Helper()
	control := fault.New(t, softhsmtest.Module(t))
	return setting{"module: " + softhsmtest.Module(t), "module: " + control.Module}, control
}

func TestHSMAwayNothingIsAcceptedAndServiceResumes(t *testing.T) {
	for _, key := range []string{"hsm", "file"} {
		t.Run("tls.key "+key, func(t *testing.T) {
			module, device := faultModule(t)
			s := newSystem(t, module, setting{"key: hsm ", "key: " + key + " "})
			id, link := s.buy()
			session, _ := url.Parse(link)
			before := len(s.books().Bookings)
			device.Away(true)
			request := `{"amount":1250,"currency":"EUR","reference":"r","return_url":"https://shop.example/r"}`
			if status, answer := s.call("POST", "/v1/payments", request); status != http.StatusServiceUnavailable {
				t.Errorf("on an open connection: %d %s", status, answer)
			}
			_, _, err := s.try(s.newClient(), "GET", session.Path, "")
			if (err == nil) != (key == "file") {
				t.Errorf("a new connection: %v", err)
			}
			if _, err := s.shop.Enter(t.Context(), link, typed("4111111111111111")); err == nil {
				if n := len(s.books().Bookings); n != before {
					t.Error("a card was sent to the acquirer")
				}
			}
			device.Away(false)
			back := time.Now()
			s.awaitReady()
			if took := time.Since(back); took > 5*time.Second {
				t.Errorf("service resumed after %v", took)
			}
			if _, _, err := s.shop.Pay(t.Context(), link, typed("4111111111111111")); err != nil {
				t.Error(err)
			}
			if got := s.payment(id); got.Status != api.StatusCaptured {
				t.Errorf("the payment is %s", got.Status)
			}
			s.agree()
		})
	}
}

func TestInitTwiceChangesNothing(t *testing.T) {
	s := prepare(t)
	before := snapshot(t, s.cfg.State())
	out := s.command("init")
	if !strings.Contains(out, "nothing was changed") || strings.Contains(out, "fp_test_") {
		t.Errorf("%s", out)
	}
	after := snapshot(t, s.cfg.State())
	for path, text := range before {
		if after[path] != text {
			t.Errorf("%s was changed", path)
		}
	}
	if len(before) != len(after) {
		t.Errorf("%d files before, %d after", len(before), len(after))
	}
}

// snapshot reads every file of a directory but SQLite's shared memory, which each reader rewrites, and the flags of
// SoftHSM2's token, which each login does.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.HasSuffix(path, "-shm") || strings.HasSuffix(path, "-wal") || entry.Name() == "token.object" {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestARefusedPINIsNotTriedAgainByASupervisor(t *testing.T) {
	s := prepare(t)
	if err := os.WriteFile(s.cfg.HSM.PINFile, []byte("00000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(finpay, "serve", "--state", s.cfg.State()).CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 78 || !bytes.Contains(out, []byte("PIN")) {
		t.Errorf("%v: %s", err, out)
	}
}
