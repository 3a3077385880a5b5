package softhsmtest_test

import (
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/softhsm-test/fakestripe"
)

// withStripe is a system whose first connector is a Stripe. With a validator each request is held against Stripe's document.
func withStripe(t *testing.T, validator string) (*system, *fakestripe.Server) {
	t.Helper()
	peer := fakestripe.New()
	t.Cleanup(peer.Close)
	peer.Validator = validator
	s := prepare(t, setting{"  - name: acquirer ", `  - name: stripe
    type: stripe
    sandbox: true
    brands: [visa]
    stripe:
      url: ` + peer.URL + `
      key_file: stripe/key
      ca: stripe/ca.pem
      answer_timeout: 5s
  - name: acquirer `})
	dir := filepath.Join(s.cfg.State(), "stripe")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: peer.Certificate().Raw})
	for name, text := range map[string][]byte{"key": []byte("sk_test_ofNoAccount0000"), "ca.pem": ca} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.up()
	return s, peer
}

const mastercard = "5555555555554444"

// sellByStripe is everything that a merchant does, from the hosted page to the webhook.
func sellByStripe(s *system, peer *fakestripe.Server) {
	s.t.Helper()
	bought := s.pay(approvedCard)
	id := bought.ID
	if bought.Status != api.StatusCaptured || peer.Moved() != bought.Amount {
		s.t.Fatalf("%+v, %d moved", bought, peer.Moved())
	}
	s.until("the shop has its webhook", func() bool { return s.shopHeard(id) })
	_, receipt := s.call("GET", "/v1/payments/"+id+"/receipt", "")
	if text := string(receipt); !strings.Contains(text, `\"connector\":\"stripe\"`) || !strings.Contains(text, peer.Intents()[0].ID) {
		s.t.Error("the receipt does not name connector and payment intent")
	}
	s.modify(id, "refunds", `{"amount":250}`)
	part := s.paidWith("manual", approvedCard)
	s.modify(part, "capture", `{"amount":1000}`)
	if p := s.payment(part); p.Status != api.StatusCaptured || p.Captured != 1000 || peer.Moved() != bought.Amount-250+1000 {
		s.t.Errorf("%+v, %d moved", p, peer.Moved())
	}
	voided := s.paidWith("manual", approvedCard)
	s.modify(voided, "void", "")
	if p := s.payment(voided); p.Status != api.StatusVoided || peer.Held() != 0 {
		s.t.Errorf("%+v, %d held", p, peer.Held())
	}
	if n := len(s.books().Bookings); n != 0 {
		s.t.Errorf("the acquirer has %d bookings", n)
	}
	other := s.paidWith("automatic", mastercard) // which the route does not take
	if p := s.payment(other); p.Status != api.StatusCaptured || len(s.books().Bookings) != 1 {
		s.t.Errorf("by the acquirer: %+v, %d bookings", p, len(s.books().Bookings))
	}
	var authenticated bool
	for name := range peer.Intents()[0].Form {
		authenticated = authenticated || strings.HasSuffix(name, "[three_d_secure][cryptogram]")
	}
	if !authenticated {
		s.t.Error("the result of 3-D Secure was not sent")
	}
}

func TestPaymentsGoThroughStripe(t *testing.T) {
	s, peer := withStripe(t, "")
	sellByStripe(s, peer)
	r, _, code := s.doctor()
	if code != 0 || len(r.Connectors) != 2 || r.Connectors[0].Name != "stripe" || r.Connectors[0].Health != "ok" || r.Connectors[1].Health != "ok" {
		t.Errorf("doctor: exit %d, %+v", code, r.Connectors)
	}
	metrics := s.metrics()
	for _, line := range []string{`finpay_connector_up{connector="stripe"} 1`, `finpay_connector_sales_total{connector="stripe",outcome="approved"} 3`,
		`finpay_connector_sales_total{connector="acquirer",outcome="approved"} 1`, `finpay_connector_late_total{connector="acquirer"} 0`} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
	log, err := os.ReadFile(filepath.Join(s.cfg.State(), "serve.log"))
	if err != nil || strings.Contains(string(log), "ofNoAccount") {
		t.Errorf("the log has the key, or cannot be read: %v", err)
	}
}

func TestWithStripeAwayTheNextConnectorSells(t *testing.T) {
	s, peer := withStripe(t, "")
	peer.Close()
	id := s.paidWith("automatic", approvedCard)
	if p := s.payment(id); p.Status != api.StatusCaptured || len(s.books().Bookings) != 1 {
		t.Errorf("%+v, %d bookings", p, len(s.books().Bookings))
	}
	s.agree()
}

// Killed around a sale, a capture or a refund at Stripe, the payment ends in a true state, and nobody is charged twice.
func TestKilledWhileStripeIsAskedNobodyIsChargedTwice(t *testing.T) {
	s, peer := withStripe(t, "")
	for _, tt := range []struct {
		place, capture, what string
		want                 api.Status
		moved                int64
	}{
		{"before sale", "automatic", "", api.StatusFailed, 0},
		{"after sale", "automatic", "", api.StatusFailed, 0},
		{"after sale", "manual", "", api.StatusFailed, 0},
		{"after capture", "manual", "capture", api.StatusCaptured, 1250},
		{"before capture", "manual", "capture", api.StatusCaptured, 1250},
		{"before refund", "automatic", "refunds", api.StatusRefunded, 0}, // repeated under its key
		{"after refund", "automatic", "refunds", api.StatusRefunded, 0},
	} {
		t.Run(tt.place+", "+tt.capture, func(t *testing.T) {
			s.t = t
			before := peer.Moved()
			s.serve.stop()
			s.serve = s.start("serve", "FINPAY_FAILPOINT="+tt.place)
			s.awaitReady()
			id := s.entered(tt.capture)
			if tt.what != "" {
				_, _, _ = s.try(s.client, "POST", "/v1/payments/"+id+"/"+tt.what, "")
			}
			select {
			case <-s.serve.done:
			case <-time.After(20 * time.Second):
				t.Fatal("the server never came to this place")
			}
			s.client.CloseIdleConnections()
			s.serve = s.start("serve")
			s.awaitReady()
			s.until("the payment is "+string(tt.want), func() bool { return s.payment(id).Status == tt.want })
			if moved := peer.Moved() - before; moved != tt.moved || peer.Held() != 0 {
				t.Errorf("%d moved, want %d; %d held", moved, tt.moved, peer.Held())
			}
		})
	}
	s.t = t
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

func TestAConnectorThatIsMissedIsNamed(t *testing.T) {
	s, peer := withStripe(t, "")
	s.serve.stop()
	s.serve = s.start("serve", "FINPAY_FAILPOINT=after sale")
	s.awaitReady()
	id := s.entered("automatic")
	<-s.serve.done
	s.client.CloseIdleConnections()
	file := filepath.Join(s.cfg.State(), config.FileName)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(whole), "  - name: stripe")
	_, after, found := strings.Cut(rest, "  - name: acquirer ")
	if !found {
		t.Fatal("the configuration has another form")
	}
	reconfigure := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.serve = s.start("serve")
		s.awaitReady()
	}
	reconfigure(before + "  - name: acquirer " + after)
	r, problems, code := s.doctor()
	if code == 0 || !strings.Contains(problems, `payments wait for connector "stripe"`) || len(r.Connectors) != 2 || r.Connectors[1].Health != "not configured" || !r.Connectors[1].Open {
		t.Errorf("exit %d, %s, %+v", code, problems, r.Connectors)
	}
	if p := s.payment(id); p.Status != api.StatusIndeterminate || peer.Moved() != 1250 || len(s.books().Bookings) != 0 {
		t.Errorf("%s, %d moved, %d bookings at another", p.Status, peer.Moved(), len(s.books().Bookings))
	}
	s.serve.stop()
	reconfigure(string(whole))
	s.until("the sale is taken back", func() bool { return s.payment(id).Status == api.StatusFailed && peer.Moved() == 0 })
	if log, err := os.ReadFile(filepath.Join(s.cfg.State(), "serve.log")); err != nil || !strings.Contains(string(log), "payments wait for a connector that is not configured") {
		t.Errorf("the log does not say so (%v)", err)
	}
}

// entered makes a payment and enters a card; the server may die of it.
func (s *system) entered(capture string) string {
	s.t.Helper()
	status, body := s.call("POST", "/v1/payments", `{"amount":1250,"currency":"EUR","reference":"order-1","return_url":"`+s.shopURL()+`/return","capture":"`+capture+`"}`)
	if status != http.StatusCreated {
		s.t.Fatalf("create: %d %s", status, body)
	}
	p := decode[api.Payment](s.t, body)
	_, _, _ = s.shop.Pay(s.t.Context(), p.CheckoutURL, typed(approvedCard))
	return p.ID
}

func (s *system) metrics() string {
	s.t.Helper()
	response, err := http.Get("http://" + s.cfg.Monitor + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}
