package main

import (
	"strings"
	"testing"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci/ff1"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

func TestNISTVectorsThroughTheHSM(t *testing.T) {
	engine := softhsmtest.Open(t)
	vectors, err := readVectors("testdata/nist-ff1-samples.json")
	if err != nil {
		t.Fatal(err)
	}
	report := runVectors(t.Context(), engine, vectors)
	if report.Passed != 6 || report.Failed != 0 || report.Skipped != 3 {
		t.Errorf("%+v, want the 6 of radix 10 passed and the 3 of radix 36 skipped", report)
	}
}

func TestVectorsThatMustBeRefused(t *testing.T) {
	engine := softhsmtest.Open(t)
	const key = "2B7E151628AED2A6ABF7158809CF4F3C"
	text := func(s string) *string { return &s }
	good := ff1Vector{N: 1, Key: key, Radix: 10, Plaintext: text("0123456789"), Ciphertext: text("2433477484")}
	for _, v := range []struct {
		name   string
		change func(*ff1Vector)
		passed bool
	}{
		{"valid", func(*ff1Vector) {}, true},
		{"wrong ciphertext", func(v *ff1Vector) { v.Ciphertext = text("2433477485") }, false},
		{"wrong plaintext", func(v *ff1Vector) { v.Plaintext = text("0123456788") }, false},
		{"no ciphertext", func(v *ff1Vector) { v.Ciphertext = nil }, false},
		{"a key of 15 bytes", func(v *ff1Vector) { v.Key = key[:30] }, false},
		{"a good input said to be invalid", func(v *ff1Vector) { v.Result = "invalid" }, false},
		{"an unknown result", func(v *ff1Vector) { v.Result = "perhaps" }, false},
		{"too short", func(v *ff1Vector) { v.Result, v.Plaintext = "invalid", text("01234") }, true},
		{"empty", func(v *ff1Vector) { v.Result, v.Plaintext = "invalid", text("") }, true},
		{"not a digit", func(v *ff1Vector) { v.Result, v.Plaintext = "invalid", text("01234567a9") }, true},
		{"a ciphertext that is not a digit", func(v *ff1Vector) { v.Result, v.Plaintext, v.Ciphertext = "invalid", nil, text("24334774/4") }, true},
		{"an invalid key", func(v *ff1Vector) { v.Result, v.Key = "invalid", key[:30] }, true},
	} {
		vector := good
		v.change(&vector)
		report := runVectors(t.Context(), engine, []ff1Vector{vector})
		if (report.Passed == 1) != v.passed || (report.Failed == 1) == v.passed || len(report.failures) != report.Failed {
			t.Errorf("%s: %+v", v.name, report)
		}
	}
}

func TestALongTweakIsServedThroughTheHSM(t *testing.T) {
	engine := softhsmtest.Open(t)
	vector := ff1Vector{Key: "2B7E151628AED2A6ABF7158809CF4F3C", Radix: 10, Tweak: strings.Repeat("39", 16)}
	token, err := vector.crypt(t.Context(), engine, (*ff1.Cipher).Encrypt, "4111111111111111")
	if err != nil {
		t.Fatal(err)
	}
	if back, err := vector.crypt(t.Context(), engine, (*ff1.Cipher).Decrypt, token); err != nil || back != "4111111111111111" || token == back {
		t.Errorf("%s, %v", back, err)
	}
}

func TestEveryMissingRoleSaysWhatToChange(t *testing.T) {
	cfg := config.Config{HSM: config.HSM{Provider: "softhsm"}, Custody: config.Custody{Kind: config.ObjectCustody}}
	failures := missing([]hsm.Capability{
		{Role: roleTokenize, Mechanism: "CKM_AES_ECB", OK: true},
		{Role: roleLedgerEd25519, Mechanism: "CKM_EDDSA", Optional: true, Detail: "CKR_MECHANISM_INVALID"},
		{Role: roleKEK, Mechanism: "CKM_AES_GCM", Detail: "encryption: CKR_MECHANISM_INVALID"},
		{Role: roleIntake, Mechanism: "CKM_ECDH1_DERIVE", Detail: "CKR_MECHANISM_INVALID."},
		{Role: roleAPIKey, Mechanism: "CKM_SHA256_HMAC", Detail: "CKR_ATTRIBUTE_TYPE_INVALID"},
		{Role: hsm.RoleCustody, Mechanism: "CKO_DATA session object", Detail: "CKR_DEVICE_MEMORY"},
	}, cfg)
	for i, want := range [][2]string{
		{"role kek needs CKM_AES_GCM", "aead: eax"},
		{"role intake needs CKM_ECDH1_DERIVE", "Allow CKM_ECDH1_DERIVE"},
		{"role apikey needs CKM_SHA256_HMAC", "omit_attributes"},
		{"role custody needs CKO_DATA", "custody.kind: sealed"},
	} {
		if i >= len(failures) || !strings.Contains(failures[i], want[0]) || !strings.Contains(failures[i], want[1]) {
			t.Fatalf("%d: %q, want %q", i, failures, want)
		}
	}
	if len(failures) != 4 {
		t.Errorf("%d failures: %q", len(failures), failures)
	}
}
