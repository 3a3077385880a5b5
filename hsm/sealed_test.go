package hsm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
	"github.com/finterra/finpay/softhsm-test/fault"
)

// constructions are the profile's.
var constructions = []hsm.Construction{hsm.GCM, hsm.EAX}

func sealedEngine(t *testing.T, c hsm.Construction) (*hsm.Engine, *fault.Control) {
	t.Helper()
	cfg := softhsmtest.Token(t)
	device := fault.New(t, cfg.Module)
	cfg.Module, cfg.Profile.AEAD = device.Module, c
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return engine, device
}

func eachConstruction(t *testing.T, test func(*testing.T, *hsm.Engine, *fault.Control, *hsm.Sealed)) {
	for _, c := range constructions {
		t.Run(string(c), func(t *testing.T) {
			engine, device := sealedEngine(t, c)
			test(t, engine, device, engine.NewSealed())
		})
	}
}

func seal(t *testing.T, k *hsm.Sealed, value, context string) uint64 {
	t.Helper()
	id, err := k.Create(t.Context(), []byte(value), context)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// opens wants the value, or ErrLost where it is "".
func opens(t *testing.T, k *hsm.Sealed, id uint64, context, value string) {
	t.Helper()
	buf := make([]byte, 64)
	n, err := k.Read(t.Context(), id, buf, context)
	if value == "" {
		if !errors.Is(err, hsm.ErrLost) {
			t.Errorf("%q, %v, want ErrLost", buf[:n], err)
		}
		if bytes.Contains(buf, []byte("value")) {
			t.Errorf("%q is left in the buffer", buf)
		}
		return
	}
	if err != nil || string(buf[:n]) != value {
		t.Errorf("%q, %v, want %q", buf[:n], err, value)
	}
}

func TestASealedValueIsOpenedForItsContextAlone(t *testing.T) {
	eachConstruction(t, func(t *testing.T, _ *hsm.Engine, _ *fault.Control, k *hsm.Sealed) {
		a, b := seal(t, k, "first value", "pay_1"), seal(t, k, "second value", "pay_2")
		if bytes.Contains(k.Ciphertext(a), []byte("value")) || len(k.Ciphertext(a)) != len("first value")+16 {
			t.Errorf("kept is %x", k.Ciphertext(a))
		}
		for range 2 {
			opens(t, k, a, "pay_1", "first value")
			opens(t, k, b, "pay_2", "second value")
		}
		opens(t, k, a, "pay_2", "") // and it is gone for good: somebody tries
		opens(t, k, a, "pay_1", "")
		kept := k.Ciphertext(b)
		if err := k.Destroy(t.Context(), b); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(kept, make([]byte, len(kept))) {
			t.Error("the ciphertext of a destroyed value is left")
		}
		if err := k.Destroy(t.Context(), b); !errors.Is(err, hsm.ErrLost) {
			t.Errorf("destroyed twice: %v", err)
		}
		opens(t, k, b, "pay_2", "")
		if k.Live() != 0 {
			t.Errorf("%d values are left", k.Live())
		}
		for _, size := range []int{0, 11, 26} {
			if _, err := k.Read(t.Context(), seal(t, k, "third value", ""), make([]byte, size), ""); err == nil {
				t.Errorf("a buffer of %d bytes was accepted", size)
			}
		}
		if _, err := k.Create(t.Context(), nil, ""); err == nil {
			t.Error("an empty value was sealed")
		}
	})
}

func TestAnAlteredCiphertextIsLost(t *testing.T) {
	eachConstruction(t, func(t *testing.T, _ *hsm.Engine, _ *fault.Control, k *hsm.Sealed) {
		for _, at := range []int{0, 10, 26} {
			id := seal(t, k, "first value", "pay_1")
			k.Ciphertext(id)[at] ^= 1
			opens(t, k, id, "pay_1", "")
		}
		a, b := seal(t, k, "first value", "pay_1"), seal(t, k, "other value", "pay_1")
		copy(k.Ciphertext(a), k.Ciphertext(b)) // each under its own nonce
		opens(t, k, a, "pay_1", "")
		opens(t, k, b, "pay_1", "other value")
	})
}

func TestEqualValuesAreNeverSealedAlike(t *testing.T) {
	eachConstruction(t, func(t *testing.T, _ *hsm.Engine, _ *fault.Control, k *hsm.Sealed) {
		seen := map[string]bool{}
		for range 100 {
			text := string(k.Ciphertext(seal(t, k, "the same value", "pay_1")))
			if seen[text] {
				t.Fatal("a nonce was used twice")
			}
			seen[text] = true
		}
	})
}

func TestWithItsSessionASealedValueIsLost(t *testing.T) {
	for name, lose := range map[string]func(*hsm.Engine, *fault.Control, *hsm.Sealed) error{
		"session ended": func(_ *hsm.Engine, _ *fault.Control, k *hsm.Sealed) error { return k.EndSession() },
		"device away":   func(_ *hsm.Engine, d *fault.Control, _ *hsm.Sealed) error { d.Away(true); d.Away(false); return nil },
		"another key": func(e *hsm.Engine, _ *fault.Control, k *hsm.Sealed) error {
			h, err := e.SessionKey(context.Background())
			k.Forge(h)
			return err
		},
		"handle of no key": func(_ *hsm.Engine, _ *fault.Control, k *hsm.Sealed) error {
			k.Forge(pkcs11.ObjectHandle(987_654))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachConstruction(t, func(t *testing.T, e *hsm.Engine, d *fault.Control, k *hsm.Sealed) {
				first := seal(t, k, "first value", "pay_1")
				if err := lose(e, d, k); err != nil {
					t.Fatal(err)
				}
				if name != "device away" { // which may be noticed late: then nothing was lost
					opens(t, k, first, "pay_1", "")
				}
				var again uint64
				for { // while the engine brings the device back
					var err error
					if again, err = k.Create(t.Context(), []byte("second value"), "pay_2"); err == nil {
						break
					}
					if !errors.Is(err, hsm.ErrUnavailable) {
						t.Fatal(err)
					}
				}
				opens(t, k, again, "pay_2", "second value")
			})
		})
	}
}

func TestAnotherLoginLosesNoSealedValueOfALivingSession(t *testing.T) {
	eachConstruction(t, func(t *testing.T, _ *hsm.Engine, _ *fault.Control, k *hsm.Sealed) {
		id := seal(t, k, "first value", "pay_1")
		k.Relogged()
		opens(t, k, id, "pay_1", "first value")
		opens(t, k, seal(t, k, "second value", "pay_1"), "pay_1", "second value")
	})
}

func TestAnOperationThatIsStuckOpenCostsTheSessionAndNoMore(t *testing.T) {
	engine, device := sealedEngine(t, hsm.GCM)
	k := engine.NewSealed()
	first := seal(t, k, "first value", "pay_1")
	device.Inject(fault.EncryptInit, 1, 1, fault.Returns(pkcs11.CKR_OPERATION_ACTIVE))
	second := seal(t, k, "second value", "pay_1")
	opens(t, k, first, "pay_1", "")
	opens(t, k, second, "pay_1", "second value")
}

func TestAFaultOfOneCallLosesNoSealedValue(t *testing.T) {
	engine, device := sealedEngine(t, hsm.GCM)
	k := engine.NewSealed()
	first := seal(t, k, "first value", "pay_1")
	device.Inject(fault.EncryptInit, 1, 1, fault.Returns(pkcs11.CKR_HOST_MEMORY))
	if _, err := k.Create(t.Context(), []byte("second value"), "pay_1"); err == nil {
		t.Error("sealed though the module had no room")
	}
	device.Inject(fault.DecryptInit, 1, 1, fault.Returns(pkcs11.CKR_HOST_MEMORY))
	if _, err := k.Read(t.Context(), first, make([]byte, 64), "pay_1"); err == nil || errors.Is(err, hsm.ErrLost) {
		t.Errorf("%v", err)
	}
	opens(t, k, first, "pay_1", "first value")
}

func TestSealedValuesOfManyAtOnce(t *testing.T) {
	eachConstruction(t, func(t *testing.T, _ *hsm.Engine, _ *fault.Control, k *hsm.Sealed) {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for j := range 25 {
					value, context := fmt.Sprint("value ", i, j), fmt.Sprint("pay_", i)
					id, err := k.Create(t.Context(), []byte(value), context)
					if err != nil {
						t.Error(err)
						return
					}
					opens(t, k, id, context, value)
					if err := k.Destroy(t.Context(), id); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if k.Live() != 0 {
			t.Errorf("%d values are left", k.Live())
		}
	})
}

func TestSealedCustodyIsProbed(t *testing.T) {
	for _, c := range constructions {
		cfg := softhsmtest.Token(t)
		cfg.SealedCustody, cfg.Profile.AEAD, cfg.Profile.DataObjects = true, c, hsm.NoData
		engine, err := hsm.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := engine.Probe(t.Context(), nil)
		if err != nil || rows[0].Role != hsm.RoleCustody || !rows[0].OK || rows[0].Mechanism != cfg.Profile.Mechanism(hsm.AESWrap)+", session key" {
			t.Errorf("%+v, %v", rows, err)
		}
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}
}
