package softhsmtest_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
	"github.com/finterra/finpay/softhsm-test/fault"
)

// Whatever the HSM does while it signs checkpoints: what was acknowledged is there, what was not is not, and the log goes on when
// the HSM does.
func TestAnHSMThatFailsWhileItSignsCostsNothingAcknowledged(t *testing.T) {
	cfg := softhsmtest.Token(t)
	device := fault.New(t, cfg.Module)
	cfg.Module, cfg.CallLimit = device.Module, time.Minute
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	signer, err := engine.Signer(t.Context(), softhsmtest.Key(t, engine, hsm.Spec{Role: "ledger", Kind: hsm.ECSign, Class: hsm.Bound}))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: "finpay.test/faults", Node: "node", Signer: signer})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	w := &signingWorld{ledger: l}
	for _, c := range []struct {
		name     string
		function fault.Function
		times    int
		fault    fault.Fault
	}{
		{"it fails", fault.Sign, 40, fault.Returns(pkcs11.CKR_DEVICE_ERROR)},
		{"it cannot begin", fault.SignInit, 40, fault.Returns(pkcs11.CKR_FUNCTION_FAILED)},
		{"it lies about the length", fault.Sign, 20, fault.Length(-3)},
		{"it forgets the session", fault.Sign, 5, fault.Forgets()},
		{"it forgets everything", fault.SignInit, 3, fault.ForgetsAll()},
		{"it hangs", fault.Sign, 1, fault.Hangs()},
	} {
		stop := w.write(t)
		device.Inject(c.function, 2, c.times, c.fault)
		w.until(t, c.name, func() bool { return device.Hits() >= 1 })
		before := w.done.Load()
		if c.name == "it hangs" {
			w.until(t, c.name, func() bool { return device.Held() == 1 })
		}
		device.Release()
		w.until(t, c.name+", and the log goes on", func() bool { return w.done.Load() > before+20 })
		stop()
		w.holds(t, s, c.name)
	}
	vkey, err := ledger.VerifierKey("finpay.test/faults", signer.Public().(*ecdsa.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if verdict, err := audit.Verify(t.Context(), audit.Database{Store: s}, audit.Terms{Key: vkey}); err != nil || !verdict.OK {
		t.Errorf("%+v, %v", verdict, err)
	}
	if found, err := audit.Check(t.Context(), s, dir); err != nil || found.Wrong > 0 {
		t.Errorf("%+v, %v", found, err)
	}
}

// signingWorld is writers of a log, and what became of their changes.
type signingWorld struct {
	ledger *ledger.Ledger
	next   atomic.Int64
	done   atomic.Int64

	mu     sync.Mutex
	acked  []string
	failed []string
}

// write keeps the log busy until the function that it returns is called.
func (w *signingWorld) write(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				w.change()
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

func (w *signingWorld) change() {
	id := fmt.Sprintf("mer_%d", w.next.Add(1))
	_, err := w.ledger.Commit(context.Background(), func(tx *ledger.Tx) error {
		if err := tx.PutMerchant(store.Merchant{ID: id, CreatedAt: time.Now()}); err != nil {
			return err
		}
		tx.Record(ledger.Entry{Type: "test", Resource: id})
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed = append(w.failed, id)
		return
	}
	w.acked = append(w.acked, id)
	w.done.Add(1)
}

func (w *signingWorld) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func (w *signingWorld) holds(t *testing.T, s *store.Store, what string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	read := s.Read(t.Context())
	for _, id := range w.acked {
		if _, err := read.Merchant(id); err != nil {
			t.Fatalf("%s: %s was acknowledged: %v", what, id, err)
		}
	}
	for _, id := range w.failed {
		if _, err := read.Merchant(id); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("%s: %s was refused, and is there: %v", what, id, err)
		}
	}
	w.acked, w.failed = nil, nil
}
