package simulator

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// returnLife is how old a signed return may be.
const returnLife = 15 * time.Minute

// maxRecords bounds the orders and the events of payments that a shop remembers.
const maxRecords = 10_000

// ErrSignature means that a return to the shop is not signed by the appliance, or was signed too long ago.
var ErrSignature = errors.New("simulator: the return's signature is not valid")

// ShopConfig is what a merchant's developer would put into a shop's configuration.
type ShopConfig struct {
	APIBase       string       // the appliance's API, without /v1
	APIKey        string       // scope payments
	URL           string       // where browsers reach the shop, without a slash at the end
	ReturnSecret  string       // rsec_ and base64url without padding
	WebhookSecret string       // whsec_ and base64
	Client        *http.Client // trusts the appliance; nil means [http.DefaultClient]
	Log           *slog.Logger // nil means [slog.Default]
	Now           func() time.Time
}

// Shop is a small shop that is paid through the appliance: the reference for what a merchant has to do.
type Shop struct {
	cfg          ShopConfig
	mux          *http.ServeMux
	returnSecret []byte
	webhooks     *standardwebhooks.Webhook

	mu     sync.Mutex
	orders []*order
	events map[string][]webhookEvent // by payment id; an event may come before the API's answer
}

// order is what the shop knows of one, as GET /orders shows it.
type order struct {
	Reference string         `json:"reference"`
	PaymentID string         `json:"payment_id"`
	Status    string         `json:"status"`
	Return    *returned      `json:"return"`
	Webhooks  []webhookEvent `json:"webhooks"`
}

// returned is what the shopper's browser brought back.
type returned struct {
	Status   string `json:"status"`
	Verified bool   `json:"verified"`
}

// webhookEvent is a notification of the appliance.
type webhookEvent struct {
	ID       string `json:"id"`
	Sequence int64  `json:"sequence"`
	Type     string `json:"type"`
	Status   string `json:"status"`
	Verified bool   `json:"verified"`
}

type product struct {
	ID, Initial, Name, What, Price string
	Amount                         int64 // minor units of EUR
}

var products = []product{
	{"tea", "T", "Cameron tea", "250 g of black tea from the highlands.", "€12.90", 1290},
	{"kopi", "K", "Kopi", "A pound of dark roast, ground.", "€9.50", 950},
	{"batik", "B", "Batik scarf", "Hand-drawn, cotton, 180 cm.", "€49.00", 4900},
}

// NewShop checks the secrets' forms and returns a shop.
func NewShop(cfg ShopConfig) (*Shop, error) {
	secret, ok := strings.CutPrefix(cfg.ReturnSecret, "rsec_")
	key, err := base64.RawURLEncoding.DecodeString(secret)
	if !ok || err != nil || len(key) == 0 {
		return nil, errors.New("simulator: a return secret is rsec_ and base64url")
	}
	if !strings.HasPrefix(cfg.WebhookSecret, "whsec_") {
		return nil, errors.New("simulator: a webhook secret is whsec_ and base64")
	}
	hooks, err := standardwebhooks.NewWebhook(cfg.WebhookSecret)
	if err != nil {
		return nil, errors.New("simulator: a webhook secret is whsec_ and base64")
	}
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Shop{cfg: cfg, mux: http.NewServeMux(), returnSecret: key, webhooks: hooks, events: make(map[string][]webhookEvent)}
	s.mux.HandleFunc("GET /{$}", s.showProducts)
	s.mux.HandleFunc("POST /buy", s.buy)
	s.mux.HandleFunc("GET /return", s.showReturn)
	s.mux.HandleFunc("POST /webhook", s.takeWebhook)
	s.mux.HandleFunc("GET /orders", s.showOrders)
	return s, nil
}

// ServeHTTP implements [http.Handler].
func (s *Shop) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Shop) showProducts(w http.ResponseWriter, _ *http.Request) {
	// POST /buy is redirected to the appliance's checkout page, and browsers hold that to the same directive.
	render(w, http.StatusOK, "shop.html", "frame-ancestors 'none'; form-action 'self' "+anyShop, products)
}

func (s *Shop) buy(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxMessage)
	i := slices.IndexFunc(products, func(p product) bool { return p.ID == r.PostFormValue("product") })
	if i < 0 {
		showError(w, http.StatusBadRequest, "The shop does not have this.")
		return
	}
	_, checkoutURL, err := s.CreatePayment(r.Context(), products[i].Amount, "EUR", "order-"+randomHex(6))
	if err != nil {
		logger(s.cfg.Log).ErrorContext(r.Context(), "shop: no payment", "error", err)
		showError(w, http.StatusBadGateway, "The shop's payment system does not answer as it should. You were not charged.")
		return
	}
	http.Redirect(w, r, checkoutURL, http.StatusSeeOther)
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

type paymentRequest struct {
	Amount    int64    `json:"amount"`
	Currency  string   `json:"currency"`
	Reference string   `json:"reference"`
	ReturnURL string   `json:"return_url"`
	Capture   string   `json:"capture"`
	Customer  customer `json:"customer"`
}

type customer struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

// CreatePayment creates a payment of amount minor units and returns its id and where to send the shopper.
func (s *Shop) CreatePayment(ctx context.Context, amount int64, currency, reference string) (id, checkoutURL string, err error) {
	body, err := json.Marshal(paymentRequest{
		Amount: amount, Currency: currency, Reference: reference, ReturnURL: s.cfg.URL + "/return", Capture: "automatic",
		Customer: customer{Name: "Siti Aminah", Email: "siti.aminah@example.com"},
	})
	if err != nil {
		return "", "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(s.cfg.APIBase, "/")+"/v1/payments", bytes.NewReader(body))
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Authorization", "Bearer "+s.cfg.APIKey)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", randomHex(16))
	resp, err := s.cfg.Client.Do(req)
	if err != nil {
		return "", "", fmt.Errorf("create payment: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	if err != nil {
		return "", "", fmt.Errorf("create payment: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return "", "", fmt.Errorf("create payment: HTTP status %d: %s", resp.StatusCode, raw)
	}
	return s.accept(raw, reference)
}

// accept reads the API's answer and keeps the order.
func (s *Shop) accept(raw []byte, reference string) (id, checkoutURL string, err error) {
	var payment struct {
		ID          string `json:"id"`
		Status      string `json:"status"`
		CheckoutURL string `json:"checkout_url"`
	}
	if err := json.Unmarshal(raw, &payment); err != nil {
		return "", "", fmt.Errorf("create payment: %w", err)
	}
	if u, err := url.Parse(payment.CheckoutURL); err != nil || u.Host == "" || payment.ID == "" {
		return "", "", errors.New("create payment: the answer lacks id or checkout_url")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.orders) >= maxRecords {
		s.orders = s.orders[1:]
	}
	s.orders = append(s.orders, &order{Reference: reference, PaymentID: payment.ID, Status: cmp.Or(payment.Status, "created")})
	return payment.ID, payment.CheckoutURL, nil
}

// verifyReturn checks the signature of a return: HMAC-SHA256 of payment_id.status.timestamp.
func (s *Shop) verifyReturn(q url.Values) error {
	signature, ok := strings.CutPrefix(q.Get("signature"), "v1,")
	got, err := base64.RawURLEncoding.DecodeString(signature)
	if !ok || err != nil {
		return fmt.Errorf("%w: malformed", ErrSignature)
	}
	mac := hmac.New(sha256.New, s.returnSecret)
	_, _ = io.WriteString(mac, q.Get("payment_id")+"."+q.Get("status")+"."+q.Get("timestamp"))
	if !hmac.Equal(got, mac.Sum(nil)) {
		return fmt.Errorf("%w: it is another's", ErrSignature)
	}
	seconds, err := strconv.ParseInt(q.Get("timestamp"), 10, 64)
	if err != nil {
		return fmt.Errorf("%w: malformed timestamp", ErrSignature)
	}
	if s.cfg.Now().Sub(time.Unix(seconds, 0)).Abs() > returnLife {
		return fmt.Errorf("%w: too old", ErrSignature)
	}
	return nil
}

// thanks is what the page after the payment shows.
type thanks struct{ Title, Class, Text, Reference, PaymentID, Status string }

func thanksFor(status string) thanks {
	switch status {
	case "captured", "authorized":
		return thanks{Title: "Thank you for your order", Class: "good", Text: "It is paid and on its way. Not really, of course."}
	case "declined", "failed", "expired", "voided", "canceled", "cancelled":
		return thanks{Title: "The payment was declined", Class: "bad", Text: "You were not charged. Please try another card."}
	}
	return thanks{Title: "We are waiting for your payment", Text: "Its outcome is not known yet; we will write to you."}
}

func (s *Shop) showReturn(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, status := q.Get("payment_id"), q.Get("status")
	err := s.verifyReturn(q)
	reference := s.noteReturn(id, returned{Status: status, Verified: err == nil})
	if err != nil {
		logger(s.cfg.Log).WarnContext(r.Context(), "shop: a return was refused", "error", err)
		showError(w, http.StatusBadRequest, "The shop cannot trust this link: it was changed, or it is too old.")
		return
	}
	page := thanksFor(status)
	page.Reference, page.PaymentID, page.Status = reference, id, status
	render(w, http.StatusOK, "thanks.html", "frame-ancestors 'none'; form-action 'none'", page)
}

// noteReturn keeps what came back, and returns the order's reference. An unverified return never replaces a
// verified one.
func (s *Shop) noteReturn(paymentID string, ret returned) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.orders {
		if o.PaymentID == paymentID {
			if o.Return == nil || ret.Verified {
				o.Return = &ret
			}
			return o.Reference
		}
	}
	return ""
}

func (s *Shop) takeWebhook(w http.ResponseWriter, r *http.Request) {
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		http.Error(w, "the event is too long", http.StatusRequestEntityTooLarge)
		return
	}
	verification := s.webhooks.Verify(payload, r.Header)
	var event struct {
		Sequence int64  `json:"sequence"`
		Type     string `json:"type"`
		Data     struct {
			ID        string `json:"id"`
			PaymentID string `json:"payment_id"`
			Status    string `json:"status"`
		} `json:"data"`
	}
	if err := json.Unmarshal(payload, &event); err != nil {
		http.Error(w, "not an event", http.StatusBadRequest)
		return
	}
	s.noteEvent(cmp.Or(event.Data.PaymentID, event.Data.ID), webhookEvent{
		ID: r.Header.Get(standardwebhooks.HeaderWebhookID), Sequence: event.Sequence, Type: event.Type, Status: event.Data.Status, Verified: verification == nil,
	})
	if verification != nil {
		logger(s.cfg.Log).WarnContext(r.Context(), "shop: a webhook was refused", "error", verification)
		http.Error(w, "the signature is not valid", http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// noteEvent keeps an event once: deliveries may be repeated.
func (s *Shop) noteEvent(paymentID string, event webhookEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, known := s.events[paymentID]
	if slices.Contains(events, event) || len(events) >= 100 || !known && len(s.events) >= maxRecords {
		return
	}
	s.events[paymentID] = append(events, event)
}

func (s *Shop) showOrders(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string][]order{"orders": s.snapshot()})
}

// snapshot joins orders with their events. The status is that of the verified event with the highest number, since deliveries may
// overtake each other, else of the verified return.
func (s *Shop) snapshot() []order {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]order, 0, len(s.orders))
	for _, known := range s.orders {
		o := *known
		o.Webhooks = slices.Clone(s.events[o.PaymentID])
		if o.Webhooks == nil {
			o.Webhooks = []webhookEvent{}
		}
		if o.Return != nil && o.Return.Verified {
			o.Status = o.Return.Status
		}
		last := int64(-1)
		for _, event := range o.Webhooks {
			if event.Verified && event.Status != "" && event.Sequence > last {
				o.Status, last = event.Status, event.Sequence
			}
		}
		list = append(list, o)
	}
	return list
}
