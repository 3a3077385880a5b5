package threeds

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// vault lends the card behind one token, as the tokenization service does: with an expiry and without a security code.
type vault struct{}

const testToken pci.Token = "9000001111111111"

func (vault) Lend(_ context.Context, domain string, token pci.Token, use func(*pan.Card) error) error {
	if domain != "shop" || token != testToken {
		return pci.ErrNotIssued
	}
	card, err := pan.New([]byte(testPAN), nil, pci.Expiry{Year: 2033, Month: 12})
	if err != nil {
		return err
	}
	defer card.Release()
	return use(card)
}

func ofToken(domain string, token pci.Token) pci.AuthenticationRequest {
	request := testRequest()
	request.Card, request.Domain, request.Token = pci.CardRef{}, domain, token
	return request
}

func TestAStoredCardIsAuthenticatedByItsToken(t *testing.T) {
	d := rangeDirectory(t, func(r map[string]any) map[string]any {
		return presOf(r, "1", rangeOf("4000000000000000", "4999999999999999", "", "https://acs.example/method"))
	})
	s := startServer(t, d, nil)
	s.tokens = vault{}
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Method(t.Context(), ofToken("shop", testToken), "https://pay.example/m"); err != nil || m == nil {
		t.Errorf("its range's 3DS Method: %+v, %v", m, err)
	}
	auth, err := s.Authenticate(t.Context(), ofToken("shop", testToken))
	if err != nil || auth.Outcome != pci.Authenticated {
		t.Fatalf("%+v, %v", auth, err)
	}
	if sent := d.messages("AReq")[0]; sent["acctNumber"] != testPAN || sent["cardExpiryDate"] != "3312" {
		t.Errorf("acctNumber %v, cardExpiryDate %v", sent["acctNumber"], sent["cardExpiryDate"])
	}
}

func TestARequestNamesOneCard(t *testing.T) {
	d := startDirectory(t, func(http.ResponseWriter, *http.Request, map[string]any) {})
	s := startServer(t, d, nil)
	s.tokens = vault{}
	without := startServer(t, d, nil)
	both := ofToken("shop", testToken)
	both.Card = pci.NewCardRef()
	for name, test := range map[string]struct {
		server  *Server
		request pci.AuthenticationRequest
		want    error
	}{
		"none":                 {s, ofToken("shop", ""), ErrCard},
		"two":                  {s, both, ErrCard},
		"no tokenization":      {without, ofToken("shop", testToken), ErrCard},
		"unknown token":        {s, ofToken("shop", "9000001111111112"), pci.ErrNotIssued},
		"another shop's token": {s, ofToken("other", testToken), pci.ErrNotIssued},
	} {
		if _, err := test.server.Authenticate(t.Context(), test.request); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if _, err := test.server.Method(t.Context(), test.request, "https://pay.example/m"); !errors.Is(err, test.want) {
			t.Errorf("%s: 3DS Method: %v, want %v", name, err, test.want)
		}
	}
	if len(d.messages("AReq")) != 0 {
		t.Error("something was sent")
	}
}
