package hsm_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

// underImport opens an hsm token with one imported key encryption key.
func underImport(t *testing.T, cfg hsm.Config, value []byte, wraps bool, use func(*hsm.Engine, *hsm.Import)) {
	t.Helper()
	imported, err := hsm.OpenImport(cfg, softhsmtest.OfficerPIN, []hsm.ImportedKEK{{Value: value, Wraps: wraps}})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(imported.Close(), engine.Close()); err != nil {
			t.Error(err)
		}
	}()
	use(engine, imported)
}

func random32() []byte {
	value := make([]byte, 32)
	_, _ = rand.Read(value)
	return value
}

func TestARecoverableKeyIsRestoredOnAnotherToken(t *testing.T) {
	value := random32()
	key := hsm.Key{Role: "tokenize", Version: 1}
	var wrapped hsm.Wrapped
	var birth hsm.Birth
	var kekCheck string
	plain, want := bytes.Repeat([]byte{7}, 32), make([]byte, 32)
	underImport(t, softhsmtest.Token(t), value, true, func(engine *hsm.Engine, imported *hsm.Import) {
		var err error
		if birth, err = engine.Generate(t.Context(), key, tokenize); err != nil {
			t.Fatal(err)
		}
		if err := engine.BlockCipherOf(key).EncryptBlocks(t.Context(), want, plain); err != nil {
			t.Fatal(err)
		}
		if wrapped, err = engine.Wrap(t.Context(), imported.Key(0), key, tokenize); err != nil {
			t.Fatal(err)
		}
		if kekCheck, err = engine.ImportedCheckValue(t.Context(), imported, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := engine.Unwrap(t.Context(), imported.Key(0), wrapped, key, tokenize, birth.CheckValue); !errors.Is(err, hsm.ErrExists) {
			t.Errorf("a key that is there was restored: %v", err)
		}
		if err := engine.Ping(t.Context()); err != nil {
			t.Errorf("the trial is missed: %v", err)
		}
	})
	underImport(t, softhsmtest.Token(t), value, false, func(engine *hsm.Engine, imported *hsm.Import) {
		if got, err := engine.ImportedCheckValue(t.Context(), imported, 0); err != nil || got != kekCheck {
			t.Errorf("check value %s, want %s: %v", got, kekCheck, err)
		}
		if _, err := engine.Unwrap(t.Context(), imported.Key(0), wrapped, key, tokenize, "000000"); err == nil {
			t.Error("a key was restored with another check value than its own")
		}
		if there, _ := engine.Exists(t.Context(), key, tokenize.Kind); there {
			t.Fatal("a key that was refused is left behind")
		}
		restored, err := engine.Unwrap(t.Context(), imported.Key(0), wrapped, key, tokenize, birth.CheckValue)
		if err != nil {
			t.Fatal(err)
		}
		if restored.Local || restored.AlwaysSensitive || !restored.Sensitive || !restored.WrapWithTrusted || restored.CheckValue != birth.CheckValue {
			t.Errorf("%+v", restored)
		}
		if engine.CheckBirth(restored, tokenize, false) == nil || engine.CheckBirth(birth, tokenize, true) == nil {
			t.Error("a restored key passes as one made here, or the other way round")
		}
		got := make([]byte, 32)
		if err := engine.BlockCipherOf(key).EncryptBlocks(t.Context(), got, plain); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the restored key encrypts otherwise: %v", err)
		}
		if _, err := engine.Wrap(t.Context(), imported.Key(0), key, tokenize); err == nil {
			t.Error("a key encryption key without CKA_TRUSTED has wrapped")
		}
	})
}

func TestEveryAlteredByteOfAWrappedKeyIsRefused(t *testing.T) {
	underImport(t, softhsmtest.Token(t), random32(), true, func(engine *hsm.Engine, imported *hsm.Import) {
		key := softhsmtest.Key(t, engine, kek)
		wrapped, err := engine.Wrap(t.Context(), imported.Key(0), key, kek)
		if err != nil {
			t.Fatal(err)
		}
		for i := range wrapped.Bytes {
			altered := hsm.Wrapped{Wrapping: wrapped.Wrapping, Bytes: bytes.Clone(wrapped.Bytes)}
			altered.Bytes[i] ^= 1
			if _, err := engine.TryUnwrap(t.Context(), imported.Key(0), altered, kek); !errors.Is(err, hsm.ErrNotAuthentic) {
				t.Errorf("byte %d: %v", i, err)
			}
		}
		if h := engine.Health(); !h.Up || h.Restarts != 0 {
			t.Errorf("altered keys restarted the engine: %+v", h)
		}
	})
}

func TestBoundKeysAreNotWrapped(t *testing.T) {
	underImport(t, softhsmtest.Token(t), random32(), true, func(engine *hsm.Engine, imported *hsm.Import) {
		for _, spec := range []hsm.Spec{ledger, apikey} {
			key := softhsmtest.Key(t, engine, spec)
			if _, err := engine.Wrap(t.Context(), imported.Key(0), key, spec); !errors.Is(err, hsm.ErrBound) {
				t.Errorf("%s: %v", spec.Role, err)
			}
		}
		// The HSM itself refuses, whatever the caller claims of the key.
		claimed := apikey
		claimed.Class = hsm.Recoverable
		if _, err := engine.Wrap(t.Context(), imported.Key(0), hsm.Key{Role: "apikey", Version: 1}, claimed); !errors.Is(err, hsm.ErrBound) {
			t.Errorf("claimed to be recoverable: %v", err)
		}
	})
}

func TestOnlyTheSecurityOfficerMakesATrustedKey(t *testing.T) {
	cfg := softhsmtest.Token(t)
	kek := []hsm.ImportedKEK{{Value: random32(), Wraps: true}}
	if _, err := hsm.OpenImport(cfg, "00000000", kek); !errors.Is(err, hsm.ErrPIN) {
		t.Errorf("a wrong PIN of the officer: %v", err)
	}
	if _, err := hsm.OpenImport(cfg, softhsmtest.OfficerPIN, []hsm.ImportedKEK{{Value: make([]byte, 16), Wraps: true}}); err == nil {
		t.Error("16 bytes were imported")
	}
	underImport(t, cfg, random32(), true, func(engine *hsm.Engine, imported *hsm.Import) {
		if _, strays, err := engine.Keys(t.Context(), nil); err != nil || len(strays) > 0 {
			t.Errorf("an imported key is on the hsm token: %v, %v", strays, err)
		}
	})
	underImport(t, cfg, random32(), false, func(engine *hsm.Engine, imported *hsm.Import) {
		if _, err := engine.ImportedCheckValue(t.Context(), imported, 1); !errors.Is(err, hsm.ErrNoKey) {
			t.Errorf("a key that was not imported: %v", err)
		}
	})
}

func TestTheInventoryNamesEveryObject(t *testing.T) {
	cfg := softhsmtest.Token(t)
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	specs := []hsm.Spec{tokenize, ledger, apikey}
	var want []string
	for _, spec := range specs {
		want = append(want, softhsmtest.Key(t, engine, spec).Label())
	}
	softhsmtest.Key(t, engine, intake) // of a role that the list does not know
	slices.Sort(want)
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	double(t, cfg, hsm.Key{Role: "apikey", Version: 1})
	if engine, err = hsm.Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	births, strays, err := engine.Keys(t.Context(), specs)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range births {
		got = append(got, b.Label)
		if b.CheckValue == "" || !b.Local {
			t.Errorf("%+v", b)
		}
	}
	want = slices.DeleteFunc(want, func(l string) bool { return l == "apikey v1" })
	if !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
	reasons := make(map[string]int)
	for _, s := range strays {
		reasons[s.Label+": "+s.Reason]++
	}
	if len(strays) != 4 || reasons["apikey v1: more than one object has this class, id and label"] != 2 || reasons["intake v1: its id names no role of this appliance"] != 2 {
		t.Errorf("%v", reasons)
	}
	if err := engine.Destroy(t.Context(), hsm.Key{Role: "ledger", Version: 1}, ledger.Kind); err != nil {
		t.Fatal(err)
	}
	if births, _, err = engine.Keys(t.Context(), specs); err != nil || len(births) != 1 || strings.HasPrefix(births[0].Label, "ledger") {
		t.Errorf("after destroying ledger v1: %+v, %v", births, err)
	}
}

// A thief of the user's PIN has none of the recoverable keys: this is what the HSM itself refuses. docs/decisions/0011
// rests on it; an HSM that lets one of these pass must not be given a recoverable key.
func TestTheUserAloneCannotTakeARecoverableKeyAway(t *testing.T) {
	cfg := softhsmtest.Token(t)
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	key := softhsmtest.Key(t, engine, tokenize)
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	asUser(t, cfg, func(module *pkcs11.Ctx, session pkcs11.SessionHandle) {
		if err := module.FindObjectsInit(session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, key.Label())}); err != nil {
			t.Fatal(err)
		}
		found, _, err := module.FindObjects(session, 2)
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		_ = module.FindObjectsFinal(session)
		own := func(trusted bool) (pkcs11.ObjectHandle, error) {
			return module.CreateObject(session, []*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
				pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_WRAP, true), pkcs11.NewAttribute(pkcs11.CKA_TRUSTED, trusted),
				pkcs11.NewAttribute(pkcs11.CKA_VALUE, random32())})
		}
		wrapper, err := own(false)
		if err != nil {
			t.Fatal(err)
		}
		set := func(object pkcs11.ObjectHandle, attribute uint, value bool) error {
			return module.SetAttributeValue(session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, value)})
		}
		_, trusted := own(true)
		_, wrapped := module.WrapKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP, nil)}, wrapper, found[0])
		_, value := module.GetAttributeValue(session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
		_, copied := module.CopyObject(session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_WRAP_WITH_TRUSTED, false)})
		for what, err := range map[string]error{
			"makes a trusted key":                      trusted,
			"marks a key of its own as trusted":        set(wrapper, pkcs11.CKA_TRUSTED, true),
			"wraps under a key that is not trusted":    wrapped,
			"reads the value":                          value,
			"takes the trusted-only mark from the key": set(found[0], pkcs11.CKA_WRAP_WITH_TRUSTED, false),
			"takes the sensitive mark from the key":    set(found[0], pkcs11.CKA_SENSITIVE, false),
			"copies the key without the mark":          copied,
		} {
			if err == nil {
				t.Errorf("the user %s", what)
			}
		}
	})
}

// asUser runs what another client of the HSM would.
func asUser(t *testing.T, cfg hsm.Config, use func(*pkcs11.Ctx, pkcs11.SessionHandle)) {
	t.Helper()
	module := pkcs11.New(cfg.Module)
	defer module.Destroy()
	if err := module.Initialize(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = module.Finalize() }()
	slots, err := module.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	session, err := module.OpenSession(slots[0], pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	if err := module.Login(session, pkcs11.CKU_USER, cfg.PIN); err != nil {
		t.Fatal(err)
	}
	use(module, session)
}

// double makes a second object of the same class, id and label, as another client of the HSM can.
func double(t *testing.T, cfg hsm.Config, key hsm.Key) {
	t.Helper()
	asUser(t, cfg, func(module *pkcs11.Ctx, session pkcs11.SessionHandle) {
		if _, err := module.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_GENERIC_SECRET_KEY_GEN, nil)}, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_ID, key.ID()), pkcs11.NewAttribute(pkcs11.CKA_LABEL, key.Label())}); err != nil {
			t.Fatal(err)
		}
	})
}
