//go:build bench

// Package intake_test measures the way of a sealed card into custody over SoftHSM2.
package intake_test

import (
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/intake"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
	"github.com/finterra/finpay/softhsm-test/figures"
)

type key struct{ *hsm.KeyExchanger }

func (k key) IntakeKey(string) ecdh.KeyExchanger { return k.KeyExchanger }

// objects meets custody.Objects.
type objects struct{ *hsm.Objects }

func (o objects) Create(ctx context.Context, value []byte, _ string) (uint64, error) {
	return o.Objects.Create(ctx, value)
}

func (o objects) Read(ctx context.Context, handle uint64, dst []byte, _ string) (int, error) {
	return o.Objects.Read(ctx, handle, dst)
}

// sealed returns the request of a browser's script.
func sealed(t *testing.T, to *ecdh.PublicKey, aad []byte) *http.Request {
	t.Helper()
	public, err := hpke.NewDHKEMPublicKey(to)
	if err != nil {
		t.Fatal(err)
	}
	kdf, aead := pci.SealingSuite()
	enc, sender, err := hpke.NewSender(public, kdf, aead, pci.SealedCheckoutInfo())
	if err != nil {
		t.Fatal(err)
	}
	ct, err := sender.Seal(aad, []byte("number=4111111111111111&expiry=12%2F31&cvv=123&name=Ada+Lovelace&form=00112233445566778899aabbccddeeff"))
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"key": {"intake v1"}, "enc": {base64.RawURLEncoding.EncodeToString(enc)}, "ct": {base64.RawURLEncoding.EncodeToString(ct)}}
	r := httptest.NewRequest(http.MethodPost, "/checkout/x", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func median(times []time.Duration) float64 {
	return float64(slices.Sorted(slices.Values(times))[len(times)/2]) / float64(time.Microsecond)
}

// TestFigures is what `make bench` runs.
func TestFigures(t *testing.T) {
	engine := softhsmtest.Open(t)
	exchanger, err := engine.KeyExchanger(t.Context(), softhsmtest.Key(t, engine, hsm.Spec{Role: "intake", Kind: hsm.ECDerive, Class: hsm.Bound}))
	if err != nil {
		t.Fatal(err)
	}
	store := custody.New(objects{engine.NewObjects()}, custody.Config{Deadline: time.Hour, Capacity: 10_000})
	forms := intake.New(store, key{exchanger}, false, nil)
	other, err := ecdh.P256().GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	aad := []byte(pci.SealedCheckoutAAD("s3cr3t", "mer_1", pci.Amount{Minor: 1250, Currency: "EUR"}))
	const rounds = 2000
	var takes, derives []time.Duration
	for i := range rounds {
		r := sealed(t, exchanger.PublicKey(), aad)
		begun := time.Now()
		ref, _, err := forms.Take(r, "pay_1", aad)
		took := time.Since(begun)
		if err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		if _, err := exchanger.ECDH(other.PublicKey()); err != nil {
			t.Fatal(err)
		}
		derive := time.Since(begun)
		if err := store.Destroy(context.Background(), ref); err != nil {
			t.Fatal(err)
		}
		if i >= rounds/10 { // warm
			takes, derives = append(takes, took), append(derives, derive)
		}
	}
	figures.Report(t, figures.Against("sealed card, from its request to custody, p50, to one ECDH derive", median(takes), median(derives), "us", "<= 2"))
}
