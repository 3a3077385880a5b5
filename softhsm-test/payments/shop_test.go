//go:build bench

package payments_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/finterra/finpay/appliance/simulator"
)

// shop believes a payment when the shopper has come back with a signed address and a signed webhook has come.
type shop struct {
	returns []byte // key of the return's signature

	mu       sync.Mutex
	webhooks *standardwebhooks.Webhook
	told     map[string]chan struct{} // by payment: closed by its webhook
	wrong    error
}

// openShop listens for webhooks with a certificate of the simulator's CA, which the appliance of a trial trusts.
func openShop(t *testing.T, simulatorDir, returnSecret string) (s *shop, address string) {
	t.Helper()
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(returnSecret, "rsec_"))
	if err != nil {
		t.Fatal(err)
	}
	certificates, err := simulator.OpenCertificates(simulatorDir)
	if err != nil {
		t.Fatal(err)
	}
	own, err := certificates.Server()
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &shop{returns: key, told: make(map[string]chan struct{})}
	server := &http.Server{Handler: s, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}}}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ServeTLS(socket, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	_, port, _ := net.SplitHostPort(socket.Addr().String())
	return s, "https://localhost:" + port + "/"
}

func (s *shop) trustWebhooks(t *testing.T, secret string) {
	t.Helper()
	hooks, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.webhooks = hooks
}

// await returns a channel that is closed when the shop is told that a payment was captured.
func (s *shop) await(payment string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := make(chan struct{})
	s.told[payment] = told
	return told
}

// ServeHTTP takes a webhook.
func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = s.take(body, r.Header)
	}
	if err != nil {
		s.mu.Lock()
		s.wrong = errors.Join(s.wrong, err)
		s.mu.Unlock()
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *shop) take(body []byte, header http.Header) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.webhooks.Verify(body, header); err != nil {
		return err
	}
	if !bytes.Contains(body, []byte(`"type":"payment.captured"`)) {
		return fmt.Errorf("not captured: %s", body)
	}
	at := bytes.Index(body, []byte("pay_"))
	if at < 0 {
		return fmt.Errorf("of no payment: %s", body)
	}
	id, _, _ := bytes.Cut(body[at:], []byte(`"`))
	if told := s.told[string(id)]; told != nil { // not a repeat
		close(told)
		delete(s.told, string(id))
	}
	return nil
}

// returned checks the address at which the shopper comes back.
func (s *shop) returned(address, payment string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	q := u.Query()
	mac := hmac.New(sha256.New, s.returns)
	_, _ = io.WriteString(mac, payment+".captured."+q.Get("timestamp"))
	if q.Get("signature") != "v1,"+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) || q.Get("payment_id") != payment {
		return fmt.Errorf("payment %s returns with %s", payment, q)
	}
	return nil
}

func (s *shop) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong
}
