package softhsmtest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/simulator"
)

// unlimited lets a test ask as often as it likes.
var unlimited = []setting{{"key_rate: 200", "key_rate: 100000"}, {"key_burst: 400", "key_burst: 100000"},
	{"address_rate: 20", "address_rate: 100000"}, {"address_burst: 60", "address_burst: 100000"}}

// change changes the configuration before the first start.
func (s *system) change(from, to string) {
	s.t.Helper()
	file := filepath.Join(s.cfg.State(), config.FileName)
	text, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(text, []byte(from)) {
		s.t.Fatalf("%q is not in the configuration: %v", from, err)
	}
	if err := os.WriteFile(file, bytes.Replace(text, []byte(from), []byte(to), 1), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if s.cfg, err = config.Load("", s.cfg.State()); err != nil {
		s.t.Fatal(err)
	}
}

// behave tells a counterparty (/acquirer, /ds, /acs) what goes wrong from now on, whatever the card, and returns what did before.
func (s *system) behave(who string, fault simulator.Fault) (before simulator.Behaviour) {
	s.t.Helper()
	body, err := json.Marshal(simulator.Behaviour{Fault: fault})
	if err != nil {
		s.t.Fatal(err)
	}
	response, err := s.client.Post(s.shopURL()+who+"/behave", "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	return s.behaviour(response)
}

// struck is how often the fault of a counterparty has struck.
func (s *system) struck(who string) int {
	s.t.Helper()
	response, err := s.client.Get(s.shopURL() + who + "/behave")
	if err != nil {
		s.t.Fatal(err)
	}
	return s.behaviour(response).Met
}

func (s *system) behaviour(response *http.Response) simulator.Behaviour {
	s.t.Helper()
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		s.t.Fatalf("HTTP %d: %s, %v", response.StatusCode, body, err)
	}
	return decode[simulator.Behaviour](s.t, body)
}

// amounts are all different, so that a payment's bookings are found by its amount.
var amounts atomic.Int64

func anotherAmount() int64 { return 1000 + amounts.Add(1) }

// order is the body of a request for a payment.
func (s *system) order(amount int64, currency, rest string) string {
	return fmt.Sprintf(`{"amount":%d,"currency":%q,"reference":"order-1","return_url":%q%s}`, amount, currency, s.shopURL()+"/return", rest)
}

// made makes a payment.
func (s *system) made(amount int64, currency, rest string) api.Payment {
	s.t.Helper()
	status, body := s.call("POST", "/v1/payments", s.order(amount, currency, rest))
	if status != http.StatusCreated {
		s.t.Fatalf("create: %d %s", status, body)
	}
	return decode[api.Payment](s.t, body)
}

// paidNow makes a payment and pays it by card.
func (s *system) paidNow(currency, rest, card string) api.Payment {
	s.t.Helper()
	p := s.made(anotherAmount(), currency, rest)
	if _, _, err := s.shop.Pay(s.t.Context(), p.CheckoutURL, typed(card)); err != nil {
		s.t.Fatal(err)
	}
	return s.settled(p.ID)
}

// sums are what was captured and not refunded, by currency, as the API tells it.
func sums(all []api.Payment) map[string]int64 {
	net := make(map[string]int64)
	for _, p := range all {
		if moved := p.Captured - p.Refunded; moved != 0 {
			net[string(p.Currency)] += moved
		}
	}
	return net
}

// trueToTheBooks holds each payment against its own bookings, and all of them against the sums: no payment is charged twice, and
// none says anything else than the acquirer.
func (s *system) trueToTheBooks() {
	s.t.Helper()
	all, told := s.payments(), s.books()
	byAmount := make(map[string][]simulator.Booking)
	for _, b := range told.Bookings {
		key := fmt.Sprint(b.Amount, b.Currency)
		byAmount[key] = append(byAmount[key], b)
	}
	for _, p := range all {
		var moved, approved int64
		for _, b := range byAmount[fmt.Sprint(p.Amount, p.Currency)] {
			moved += b.Captured - b.Refunded
			if b.State == simulator.BookedApproved {
				approved++
			}
		}
		charged := p.Status == api.StatusAuthorized || p.Captured > 0
		if moved != p.Captured-p.Refunded || approved > 1 || charged != (approved == 1) {
			s.t.Errorf("payment %s is %s with %d captured and %d refunded; the acquirer has %+v", p.ID, p.Status, p.Captured, p.Refunded,
				byAmount[fmt.Sprint(p.Amount, p.Currency)])
		}
	}
	if ours := sums(all); !maps.Equal(ours, told.Net) {
		s.t.Errorf("the appliance says %v, the acquirer %v", ours, told.Net)
	}
}

// closesBooks has both sides' books compared, then stops the server, verifies the log and looks for card data.
func (s *system) closesBooks(t *testing.T) {
	t.Helper()
	s.t = t
	s.trueToTheBooks()
	if told := s.command("settlement", "run", "acquirer"); !strings.Contains(told, "balanced") || strings.Contains(told, "out_of_balance") {
		t.Errorf("the comparison of books:\n%s", told)
	}
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

// atOnce does things at the same time, and returns a function that waits for all.
func atOnce(deeds ...func()) (wait func()) {
	var all sync.WaitGroup
	for _, deed := range deeds {
		all.Go(deed)
	}
	return all.Wait
}
