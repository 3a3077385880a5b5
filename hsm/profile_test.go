package hsm_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

func TestAPINOfTheWrongFormIsNotTried(t *testing.T) {
	cfg := softhsmtest.Token(t)
	cfg.Module = "/nonexistent.so" // it does not come to loading the module
	cfg.Profile = hsm.Profile{Name: "cloudhsm", PINPattern: "^[^:]+:.+$", PINForm: "user:password"}
	if _, err := hsm.Open(cfg); !errors.Is(err, hsm.ErrPIN) || !strings.Contains(err.Error(), "user:password") || strings.Contains(err.Error(), softhsmtest.PIN) {
		t.Errorf("%v, want ErrPIN with the form and without the PIN", err)
	}
}

func TestTheUserTypeIsTheProfiles(t *testing.T) {
	cfg := softhsmtest.Token(t)
	cfg.Profile.UserType = 0x80000001 // Luna's crypto user, whom SoftHSM2 does not know
	if _, err := hsm.Open(cfg); err == nil || !strings.Contains(err.Error(), "log in") {
		t.Errorf("%v, want a login that SoftHSM2 refuses", err)
	}
}

func TestAProfileThatWouldLetKeysOutIsRefused(t *testing.T) {
	cfg := softhsmtest.Token(t)
	omitted := []hsm.AttributeKey{0x210} // CKA_WRAP_WITH_TRUSTED
	cfg.Profile = hsm.Profile{OmitAttributes: omitted}
	if _, err := hsm.Open(cfg); err == nil || !strings.Contains(err.Error(), "backup: clone") {
		t.Errorf("%v", err)
	}
	cfg.Profile.Backup = hsm.BackupClone
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	birth, err := engine.Generate(t.Context(), hsm.Key{Role: "tokenize", Version: 1}, tokenize)
	if err != nil || birth.Extractable || !birth.NeverExtractable {
		t.Errorf("a recoverable key that the vendor's means back up: %+v, %v", birth, err)
	}
}

func TestAttributesThatGuardAKeyCannotBeLeftOut(t *testing.T) {
	for _, name := range []string{"CKA_SENSITIVE", "CKA_EXTRACTABLE", "CKA_PRIVATE", "CKA_TOKEN", "CKA_ID", "CKA_LABEL", ""} {
		var a hsm.AttributeKey
		if err := a.UnmarshalText([]byte(name)); err == nil {
			t.Errorf("%q may be left out", name)
		}
	}
}

// What a profile says is not there is reported, and refusals are no faults of the engine.
func TestProbeReportsWhatTheProfileDoesNotHave(t *testing.T) {
	cfg := softhsmtest.Token(t)
	cfg.Profile = hsm.Profile{Name: "test", DataObjects: hsm.NoData, ECDH: hsm.NoECDH, Edwards: hsm.NoEdwards, AEAD: hsm.EAX}
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	rows, err := engine.Probe(t.Context(), []hsm.Spec{tokenize, kek, ledger, edwards, intake, apikey})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, true, false, false, true, false} {
		if rows[i].OK != want {
			t.Errorf("%+v, want ok %v", rows[i], want)
		}
	}
	if health := engine.Health(); !health.Up || len(health.Faults) != 0 {
		t.Errorf("refusals count as faults: %+v", health)
	}
}

// SoftHSM2 generates no key of type CKK_SHA256_HMAC by CKM_GENERIC_SECRET_KEY_GEN, and its answer stands in the row.
func TestProbeReportsWhatTheHSMRefuses(t *testing.T) {
	cfg := softhsmtest.Token(t)
	cfg.Profile = hsm.Profile{Name: "test", HMACKey: hsm.SHA256HMAC}
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	rows, err := engine.Probe(t.Context(), []hsm.Spec{apikey, ledger})
	if err != nil {
		t.Fatal(err)
	}
	if rows[0].OK || !strings.Contains(rows[0].Detail, "CKR_") || !rows[1].OK {
		t.Errorf("%+v", rows)
	}
}
