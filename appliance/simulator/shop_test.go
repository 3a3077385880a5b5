package simulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

var (
	returnKey     = []byte("0123456789abcdef0123456789abcdef")
	returnSecret  = "rsec_" + base64.RawURLEncoding.EncodeToString(returnKey)
	webhookSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef01234567"))
	shopNow       = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
)

// startShop returns a shop and the requests that its appliance received.
func startShop(t *testing.T, answer func(w http.ResponseWriter)) (*Shop, *[]*http.Request, *[]paymentRequest) {
	t.Helper()
	var (
		requests []*http.Request
		bodies   []paymentRequest
	)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body paymentRequest
		_ = json.NewDecoder(r.Body).Decode(&body)
		requests, bodies = append(requests, r), append(bodies, body)
		answer(w)
	}))
	t.Cleanup(api.Close)
	shop, err := NewShop(ShopConfig{
		APIBase: api.URL, APIKey: "key_test", URL: "https://shop.example", ReturnSecret: returnSecret,
		WebhookSecret: webhookSecret, Client: api.Client(), Now: func() time.Time { return shopNow },
	})
	if err != nil {
		t.Fatal(err)
	}
	return shop, &requests, &bodies
}

func created(w http.ResponseWriter) {
	w.WriteHeader(http.StatusCreated)
	_, _ = fmt.Fprint(w, `{"id":"pay_1","status":"created","checkout_url":"https://pay.example/checkout/abc"}`)
}

func get(h http.Handler, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w
}

func ordersOf(t *testing.T, shop *Shop) []order {
	t.Helper()
	var list struct{ Orders []order }
	if err := json.Unmarshal(get(shop, "/orders").Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	return list.Orders
}

func TestBuyingSendsTheShopperToCheckout(t *testing.T) {
	shop, requests, bodies := startShop(t, created)
	if page := get(shop, "/").Body.String(); !strings.Contains(page, `value="tea"`) {
		t.Errorf("page %s", page)
	}
	r := httptest.NewRequest(http.MethodPost, "/buy", strings.NewReader("product=tea"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	shop.ServeHTTP(w, r)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "https://pay.example/checkout/abc" {
		t.Errorf("status %d, location %q", w.Code, w.Header().Get("Location"))
	}
	got, body := (*requests)[0], (*bodies)[0]
	if got.Method != "POST" || got.URL.Path != "/v1/payments" || got.Header.Get("Authorization") != "Bearer key_test" || got.Header.Get("Idempotency-Key") == "" {
		t.Errorf("request %s %s %v", got.Method, got.URL, got.Header)
	}
	reference := body.Reference
	body.Reference = ""
	want := paymentRequest{1290, "EUR", "", "https://shop.example/return", "automatic", customer{"Siti Aminah", "siti.aminah@example.com"}}
	if body != want || !strings.HasPrefix(reference, "order-") {
		t.Errorf("body %+v", body)
	}
	if list := ordersOf(t, shop); len(list) != 1 || list[0].PaymentID != "pay_1" || list[0].Reference != reference || list[0].Status != "created" {
		t.Errorf("orders %+v", list)
	}
}

func TestAnAPIThatFailsMakesNoOrder(t *testing.T) {
	for _, answer := range []string{"", "{}", `{"id":"pay_1","checkout_url":"/relative"}`} {
		shop, _, _ := startShop(t, func(w http.ResponseWriter) { _, _ = fmt.Fprint(w, answer) })
		if _, _, err := shop.CreatePayment(t.Context(), 1, "EUR", "order-1"); err == nil || len(ordersOf(t, shop)) != 0 {
			t.Errorf("%q: error %v", answer, err)
		}
	}
}

// signed returns the query of a return.
func signed(key []byte, status string, at time.Time) url.Values {
	q := url.Values{"payment_id": {"pay_1"}, "status": {status}, "timestamp": {fmt.Sprint(at.Unix())}}
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%s.%s", q.Get("payment_id"), q.Get("status"), q.Get("timestamp"))
	q.Set("signature", "v1,"+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	return q
}

func TestAReturnIsBelievedOnlyWithAFreshSignature(t *testing.T) {
	changed := signed(returnKey, "declined", shopNow)
	changed.Set("status", "captured")
	for name, test := range map[string]struct {
		query  url.Values
		status int
		text   string
	}{
		"paid":         {signed(returnKey, "captured", shopNow), 200, "Thank you"},
		"declined":     {signed(returnKey, "declined", shopNow), 200, "declined"},
		"pending":      {signed(returnKey, "indeterminate", shopNow), 200, "waiting"},
		"just in time": {signed(returnKey, "captured", shopNow.Add(-15*time.Minute)), 200, "Thank you"},
		"too old":      {signed(returnKey, "captured", shopNow.Add(-16*time.Minute)), 400, "cannot trust"},
		"too new":      {signed(returnKey, "captured", shopNow.Add(16*time.Minute)), 400, "cannot trust"},
		"another key":  {signed([]byte("x"), "captured", shopNow), 400, "cannot trust"},
		"changed":      {changed, 400, "cannot trust"},
		"unsigned":     {url.Values{"payment_id": {"pay_1"}, "status": {"captured"}}, 400, "cannot trust"},
	} {
		t.Run(name, func(t *testing.T) {
			shop, _, _ := startShop(t, created)
			if _, _, err := shop.CreatePayment(t.Context(), 1290, "EUR", "order-1"); err != nil {
				t.Fatal(err)
			}
			w := get(shop, "/return?"+test.query.Encode())
			if w.Code != test.status || !strings.Contains(w.Body.String(), test.text) {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
			got := ordersOf(t, shop)[0]
			if verified := test.status == 200; got.Return == nil || got.Return.Verified != verified || (got.Status == test.query.Get("status")) != verified {
				t.Errorf("order %+v, return %+v", got, got.Return)
			}
		})
	}
}

func TestAWebhookIsBelievedOnlyWithItsSignature(t *testing.T) {
	shop, _, _ := startShop(t, created)
	if _, _, err := shop.CreatePayment(t.Context(), 1290, "EUR", "order-1"); err != nil {
		t.Fatal(err)
	}
	hook, err := standardwebhooks.NewWebhook(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	payload := `{"sequence":2,"type":"payment.captured","timestamp":"2030-01-01T12:00:00Z","data":{"id":"pay_1","status":"captured"}}`
	deliver := func(id, payload string, at time.Time) int {
		signature, err := hook.Sign(id, at, []byte(`{"sequence":2,"type":"payment.captured","timestamp":"2030-01-01T12:00:00Z","data":{"id":"pay_1","status":"captured"}}`))
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/webhook", strings.NewReader(payload))
		r.Header.Set("webhook-id", id)
		r.Header.Set("webhook-timestamp", fmt.Sprint(at.Unix()))
		r.Header.Set("webhook-signature", signature)
		w := httptest.NewRecorder()
		shop.ServeHTTP(w, r)
		return w.Code
	}
	now := time.Now() // the library's clock
	if code := deliver("evt_0", strings.Replace(payload, "captured", "refunded", 2), now); code != http.StatusUnauthorized {
		t.Errorf("a changed event: %d", code)
	}
	if code := deliver("evt_0", payload, now.Add(-time.Hour)); code != http.StatusUnauthorized {
		t.Errorf("an old event: %d", code)
	}
	if got := ordersOf(t, shop)[0].Status; got != "created" {
		t.Errorf("status %q after forged events", got)
	}
	for range 2 { // a repeat is the same event
		if code := deliver("evt_1", payload, now); code != http.StatusNoContent {
			t.Errorf("a genuine event: %d", code)
		}
	}
	got := ordersOf(t, shop)[0]
	if got.Status != "captured" || len(got.Webhooks) != 3 || got.Webhooks[2] != (webhookEvent{ID: "evt_1", Sequence: 2, Type: "payment.captured", Status: "captured", Verified: true}) {
		t.Errorf("order %+v", got)
	}
}

// notify delivers an event under the shop's secret and others.
func notify(t *testing.T, shop *Shop, id, payload string, secrets ...string) int {
	t.Helper()
	now := time.Now() // the library's clock
	signatures := make([]string, len(secrets))
	for i, secret := range secrets {
		hook, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if signatures[i], err = hook.Sign(id, now, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/webhook", strings.NewReader(payload))
	r.Header.Set("webhook-id", id)
	r.Header.Set("webhook-timestamp", fmt.Sprint(now.Unix()))
	r.Header.Set("webhook-signature", strings.Join(signatures, " "))
	w := httptest.NewRecorder()
	shop.ServeHTTP(w, r)
	return w.Code
}

func TestEventsThatOvertakeEachOtherDoNotSetAnOrderBack(t *testing.T) {
	shop, _, _ := startShop(t, created)
	if _, _, err := shop.CreatePayment(t.Context(), 1290, "EUR", "order-1"); err != nil {
		t.Fatal(err)
	}
	another := "whsec_" + base64.StdEncoding.EncodeToString([]byte("76543210fedcba9876543210"))
	for _, payload := range []string{
		`{"sequence":2,"type":"payment.captured","data":{"id":"pay_1","status":"captured"}}`,
		`{"sequence":1,"type":"payment.declined","data":{"id":"pay_1","status":"declined"}}`,
	} {
		if code := notify(t, shop, "evt_"+payload[12:13], payload, another, webhookSecret); code != http.StatusNoContent { // during a rotation
			t.Errorf("%d", code)
		}
	}
	if got := ordersOf(t, shop)[0]; got.Status != "captured" || len(got.Webhooks) != 2 {
		t.Errorf("%+v", got)
	}
	if code := notify(t, shop, "evt_3", `{"sequence":3,"type":"payment.failed","data":{"id":"pay_1","status":"failed"}}`, another); code != http.StatusUnauthorized {
		t.Errorf("under another secret: %d", code)
	}
	if got := ordersOf(t, shop)[0].Status; got != "captured" {
		t.Errorf("status %q", got)
	}
}

// FuzzWebhook holds what anybody may send to a shop: without the signature, no order changes.
func FuzzWebhook(f *testing.F) {
	for _, payload := range []string{`{"sequence":9,"type":"payment.captured","data":{"id":"pay_1","status":"captured"}}`, `{"data":{"payment_id":"pay_1","status":"failed"}}`, "[]", "", `{"sequence":1e99}`} {
		f.Add(payload, "v1,AAAA v1a,BBBB", "1900000000")
	}
	f.Fuzz(func(t *testing.T, payload, signature, timestamp string) {
		shop, err := NewShop(ShopConfig{ReturnSecret: returnSecret, WebhookSecret: webhookSecret, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		shop.orders = append(shop.orders, &order{Reference: "order-1", PaymentID: "pay_1", Status: "created"})
		r := httptest.NewRequest(http.MethodPost, "/webhook", strings.NewReader(payload))
		r.Header.Set("webhook-id", "evt_1")
		r.Header.Set("webhook-timestamp", timestamp)
		r.Header.Set("webhook-signature", signature)
		w := httptest.NewRecorder()
		shop.ServeHTTP(w, r)
		if status := shop.snapshot()[0].Status; w.Code == http.StatusNoContent || status != "created" {
			t.Errorf("%d, and the order is %s", w.Code, status)
		}
	})
}

func TestSecretsAreChecked(t *testing.T) {
	for _, cfg := range []ShopConfig{
		{ReturnSecret: "0123", WebhookSecret: webhookSecret}, {ReturnSecret: "rsec_", WebhookSecret: webhookSecret},
		{ReturnSecret: "rsec_!", WebhookSecret: webhookSecret}, {ReturnSecret: returnSecret, WebhookSecret: "0123"},
		{ReturnSecret: returnSecret, WebhookSecret: "whsec_!"},
	} {
		if _, err := NewShop(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
