package merchant

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"

	"github.com/finterra/finpay/appliance/store"
)

var hook = store.Endpoint{ID: "whe_1", MerchantID: shop, URL: "https://shop.example/hook", Status: store.EndpointEnabled}

func TestAWebhookSecretIsNewEachTimeAndOpensAgain(t *testing.T) {
	b := newBench(t)
	e := hook
	first, sealed, err := b.NewWebhookSecret(e)
	if err != nil {
		t.Fatal(err)
	}
	e.OldSecret, e.OldUntil = sealed, time.Unix(1000, 0)
	second, sealed, err := b.NewWebhookSecret(e)
	if err != nil {
		t.Fatal(err)
	}
	e.Secret = sealed
	text, ok := strings.CutPrefix(first, "whsec_")
	if raw, err := base64.StdEncoding.DecodeString(text); !ok || err != nil || len(raw) != webhookSecretSize || first == second {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
	for at, want := range map[time.Time][]string{time.Unix(999, 0): {second, first}, time.Unix(1000, 0): {second}} {
		if got, err := b.WebhookSecrets(e, at); err != nil || !slices.Equal(got, want) {
			t.Errorf("at %v: %d secrets, %v", at, len(got), err)
		}
	}
}

func TestAWebhookSecretMovedToAnotherRowDoesNotOpen(t *testing.T) {
	b := newBench(t)
	e := hook
	var err error
	if _, e.Secret, err = b.NewWebhookSecret(e); err != nil {
		t.Fatal(err)
	}
	for _, move := range []func(e *store.Endpoint){func(e *store.Endpoint) { e.ID = "whe_2" }, func(e *store.Endpoint) { e.MerchantID = "mer_2" }} {
		moved := e
		move(&moved)
		if _, err := b.WebhookSecrets(moved, time.Now()); err == nil {
			t.Error("opened")
		}
		if Opens(b.cfg.KEK, moved) {
			t.Error("said to open")
		}
	}
}

func TestBothWebhookSecretsAreSealedAnew(t *testing.T) {
	b := newBench(t)
	e := hook
	e.OldUntil = time.Now().Add(time.Hour)
	var err error
	if _, e.Secret, err = b.NewWebhookSecret(e); err != nil {
		t.Fatal(err)
	}
	if _, e.OldSecret, err = b.NewWebhookSecret(e); err != nil {
		t.Fatal(err)
	}
	again, err := Reseal(b.cfg.KEK, e)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := b.WebhookSecrets(e, time.Now())
	after, err := b.WebhookSecrets(again, time.Now())
	if err != nil || !slices.Equal(before, after) || string(again.Secret) == string(e.Secret) || string(again.OldSecret) == string(e.OldSecret) {
		t.Errorf("%d and %d secrets, %v", len(before), len(after), err)
	}
	other, err := subtle.NewAESGCM([]byte("another key, of thirty-two bytes"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Reseal(other, e); err == nil || Opens(other, e) || !Opens(b.cfg.KEK, e) {
		t.Errorf("under another key: %v", err)
	}
	deleted := hook
	if got, err := Reseal(other, deleted); err != nil || len(got.Secret) != 0 {
		t.Errorf("one without secrets: %v", err)
	}
}
