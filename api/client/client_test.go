package client

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/pci"
)

const (
	testKey = "fp_test_0123456789abcdef_secret"
	pan     = "4111111111111111"
)

// counter is an appliance as far as the client sees one: it opens what is sealed, and tells what it saw.
type counter struct {
	t       *testing.T
	private *ecdh.PrivateKey
	server  *httptest.Server

	mu     sync.Mutex
	bodies []string // of single cards, as they travelled
	cards  []Card
	query  string
	refuse int // a status in place of an answer
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{t: t, private: private}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/intake/key", c.key)
	mux.HandleFunc("POST /v1/tokens", c.one)
	mux.HandleFunc("POST /v1/tokens/batch", c.many)
	mux.HandleFunc("POST /v1/tokens/{token}/detokenize", c.detokenize)
	c.server = httptest.NewUnstartedServer(mux)
	c.server.EnableHTTP2 = true
	c.server.StartTLS()
	t.Cleanup(c.server.Close)
	return c
}

func (c *counter) client(change func(*Config)) *Client {
	c.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(c.server.Certificate())
	cfg := Config{URL: c.server.URL, Key: testKey, Domain: "first", Roots: roots}
	if change != nil {
		change(&cfg)
	}
	client, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(client.Close)
	return client
}

func (c *counter) key(w http.ResponseWriter, _ *http.Request) {
	public := c.private.PublicKey()
	_ = json.NewEncoder(w).Encode(api.IntakeKey{Key: "intake v1", PublicKey: base64.RawURLEncoding.EncodeToString(public.Bytes()), CheckValue: checkValue(public)})
}

func (c *counter) open(enc string) *hpke.Recipient {
	raw, err := base64.RawURLEncoding.DecodeString(enc)
	if err != nil {
		c.t.Error(err)
	}
	private, err := hpke.NewDHKEMPrivateKey(c.private)
	if err != nil {
		c.t.Error(err)
	}
	kdf, aead := pci.SealingSuite()
	r, err := hpke.NewRecipient(raw, private, kdf, aead, pci.SealedCardInfo("first", "0123456789abcdef"))
	if err != nil {
		c.t.Error(err)
	}
	return r
}

// card reads a line, opening it where r is not nil.
func (c *counter) card(text string, r *hpke.Recipient) (card Card) {
	if r != nil {
		var sealed struct{ CT string }
		if err := json.Unmarshal([]byte(text), &sealed); err != nil {
			c.t.Error(err)
		}
		raw, err := base64.RawURLEncoding.DecodeString(sealed.CT)
		if err != nil {
			c.t.Error(err)
		}
		plain, err := r.Open(nil, raw)
		if err != nil {
			c.t.Error(err)
		}
		text = string(plain)
	}
	if err := json.Unmarshal([]byte(text), &card); err != nil {
		c.t.Error(err)
	}
	return card
}

func (c *counter) one(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bodies, c.query = append(c.bodies, string(body)), r.URL.RawQuery
	if c.refuse != 0 {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(c.refuse)
		_, _ = io.WriteString(w, `{"code":"token_bound","detail":"d","pointer":"/number"}`)
		return
	}
	var begin struct{ Enc string }
	_ = json.Unmarshal(body, &begin)
	var recipient *hpke.Recipient
	if begin.Enc != "" {
		recipient = c.open(begin.Enc)
	}
	c.cards = append(c.cards, c.card(string(body), recipient))
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(api.Token{Token: "9000000000001111"})
}

func (c *counter) many(w http.ResponseWriter, r *http.Request) {
	lines := bufio.NewScanner(r.Body)
	var recipient *hpke.Recipient
	n := 0
	for lines.Scan() {
		var begin struct{ Enc string }
		_ = json.Unmarshal(lines.Bytes(), &begin)
		if n == 0 && recipient == nil && begin.Enc != "" {
			recipient = c.open(begin.Enc)
			continue
		}
		n++
		card := c.card(lines.Text(), recipient)
		c.mu.Lock()
		c.cards = append(c.cards, card)
		c.mu.Unlock()
		switch {
		case strings.HasSuffix(card.Number, "2"):
			_, _ = fmt.Fprintf(w, `{"line":%d,"error":{"code":"invalid_card","detail":"number: wrong_checksum.","pointer":"/number"}}`+"\n", n)
		case card.Number == "break":
			panic(http.ErrAbortHandler)
		default:
			_, _ = fmt.Fprintf(w, `{"line":%d,"token":"9000000000001111","issued":true,"card":{"brand":"visa","truncated":"411111******1111","expiry":"2031-12"}}`+"\n", n)
		}
		_ = http.NewResponseController(w).Flush()
	}
}

func (c *counter) detokenize(w http.ResponseWriter, r *http.Request) {
	public, err := hpke.NewDHKEMPublicKey(c.private.PublicKey())
	if err != nil {
		c.t.Error(err)
	}
	kdf, aead := pci.SealingSuite()
	enc, sender, err := hpke.NewSender(public, kdf, aead, pci.DetokenizedInfo("first", "0123456789abcdef"))
	if err != nil {
		c.t.Error(err)
	}
	ct, err := sender.Seal(nil, []byte(`{"number":"`+pan+`","expiry":"2031-12"}`))
	if err != nil {
		c.t.Error(err)
	}
	_ = json.NewEncoder(w).Encode(api.SealedCard{Token: pci.Token(r.PathValue("token")), Domain: "first",
		Enc: base64.RawURLEncoding.EncodeToString(enc), CT: base64.RawURLEncoding.EncodeToString(ct)})
}

var aCard = Card{pan, "2031-12"}

func TestACardTravelsSealedUnlessItIsAskedFor(t *testing.T) {
	for name, open := range map[string]bool{"sealed": false, "open": true} {
		c := newCounter(t)
		token, err := c.client(func(cfg *Config) { cfg.Open = open }).Tokenize(t.Context(), aCard)
		if err != nil || token.Token != "9000000000001111" {
			t.Fatalf("%s: %+v, %v", name, token, err)
		}
		if c.cards[0] != aCard || c.query != "domain=first" {
			t.Errorf("%s: %+v with %q", name, c.cards, c.query)
		}
		if strings.Contains(c.bodies[0], pan) != open {
			t.Errorf("%s: it travelled as %s", name, c.bodies[0])
		}
	}
}

func TestAProblemIsAnErrorWithItsCode(t *testing.T) {
	c := newCounter(t)
	c.refuse = http.StatusTooManyRequests
	_, err := c.client(nil).Tokenize(t.Context(), aCard)
	problem, ok := errors.AsType[*Error](err)
	if !ok || *problem != (Error{429, "token_bound", "d", "/number", 7 * time.Second}) {
		t.Errorf("%+v", err)
	}
}

func TestABatchSendsWhileItReceives(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for name, open := range map[string]bool{"sealed": false, "open": true} {
		c := newCounter(t)
		client := c.client(func(cfg *Config) { cfg.Open = open })
		b, err := client.Batch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const n = 5000
		go func() {
			defer b.CloseSend()
			for i := range n {
				if err := b.Send(Card{fmt.Sprint(4000 + i), "2031-12"}); err != nil {
					t.Error(err)
				}
			}
		}()
		for i := range n {
			r, err := b.Receive()
			if err != nil || r.Line != i+1 {
				t.Fatalf("%s: %+v, %v", name, r, err)
			}
			problem, refused := errors.AsType[*Error](r.Err)
			if refused != (i%10 == 2) || refused && problem.Code != "invalid_card" || !refused && (r.Token == "" || !r.Issued || r.Brand != pci.Visa) {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if _, err := b.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v at the end", name, err)
		}
		client.Close()
		c.server.Close()
	}
}

// One card is answered while its sender waits with the next.
func TestABatchIsAConversation(t *testing.T) {
	b, err := newCounter(t).client(nil).Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := b.Send(aCard); err != nil {
			t.Fatal(err)
		}
		if r, err := b.Receive(); err != nil || r.Err != nil {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	b.CloseSend()
	if _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if err := b.Send(aCard); err == nil {
		t.Error("a batch that was closed takes a card")
	}
}

func TestABrokenBatchIsNotTakenForAWholeOne(t *testing.T) {
	b, err := newCounter(t).client(nil).Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, number := range []string{pan, "break", pan} {
		_ = b.Send(Card{number, "2031-12"})
	}
	b.CloseSend()
	if r, err := b.Receive(); err != nil || r.Line != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := b.Receive(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestNobodyIsLeftWaitingWhenTheApplianceIsAway(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	c := newCounter(t)
	client := c.client(func(cfg *Config) { cfg.Open = true })
	c.server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	b, err := client.Batch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Receive(); err == nil {
		t.Error("an answer from nobody")
	}
	if _, err := b.Receive(); err == nil {
		t.Error("an answer from nobody, the second time")
	}
	for range 100_000 {
		if err = b.Send(aCard); err != nil {
			break
		}
	}
	if err == nil || strings.Contains(err.Error(), pan) {
		t.Errorf("sending to nobody: %v", err)
	}
	cancel()
	if _, err := client.Token(t.Context(), "9000000000001111"); err == nil || strings.Contains(err.Error(), "9000000000001111") {
		t.Errorf("the error quotes the token: %v", err)
	}
}

func TestADetokenizedCardIsOpenedByItsRecipientOnly(t *testing.T) {
	c := newCounter(t)
	card, err := c.client(nil).Detokenize(t.Context(), "9000000000001111", "chargeback", c.private)
	if err != nil || card != aCard {
		t.Errorf("%v, %v", card, err)
	}
	other, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if card, err := c.client(nil).Detokenize(t.Context(), "9000000000001111", "chargeback", other); err == nil || card != (Card{}) {
		t.Errorf("another recipient: %v, %v", card, err)
	}
}

func TestConfigurationsThatCannotWork(t *testing.T) {
	for _, cfg := range []Config{{}, {URL: "http://pay.example", Key: testKey}, {URL: "https://pay.example"}, {URL: "https://pay.example", Key: "secret"}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
