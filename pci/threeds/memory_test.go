package threeds

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/memory"
	"github.com/finterra/finpay/pci/wire"
)

func TestMain(m *testing.M) {
	if !memory.Serve(newEcho) {
		goleak.VerifyTestMain(m)
	}
}

// newEcho is a directory server that answers with what it was told, which none should.
func newEcho() *httptest.Server {
	return httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var message map[string]any
		_ = json.NewDecoder(r.Body).Decode(&message)
		if message["messageType"] == "PReq" {
			reply(w, presOf(message, "1", range231("4000000000000000", "4999999999999999", "2.2.0", "2.3.1")))
			return
		}
		answer := validARes(message, "Y")
		answer["acctNumber"], answer["cardSecurityCode"] = message["acctNumber"], message["cardSecurityCode"]
		reply(w, answer)
	}))
}

func TestNoDigitIsLeftInMemory(t *testing.T) {
	url, trust := memory.Start(t)
	for _, versions := range [][]string{Versions[:1], Versions} {
		t.Run(strings.Join(versions, " "), func(t *testing.T) {
			noDigitIsLeft(t, Config{
				DirectoryServer: url, Client: &http.Client{Transport: &wire.Transport{TLS: &tls.Config{RootCAs: trust}}},
				ResultsURL: "https://finpay.example/results", ServerRefNumber: "x", Versions: versions, CardSecurityCode: true,
			})
		})
	}
}

func noDigitIsLeft(t *testing.T, cfg Config) {
	card := memory.NewCard([]byte("402400715098273"), []byte(`cardSecurityCode":"604`))
	s, err := newServer(cfg, card, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		auth, err := s.Authenticate(t.Context(), testRequest())
		if err != nil || auth.Outcome != pci.Authenticated || auth.Version != cfg.Versions[len(cfg.Versions)-1] {
			t.Fatalf("%+v, %v", auth, err)
		}
	}
	card.Digits.WantNone(t, "PAN")
	card.Code.WantNone(t, "security code")
}
