package hsm_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/softhsm-test/fault"
)

// leaves makes a call whose caller leaves while it is in the module, and returns its error.
func (f *faulty) leaves(call func(context.Context) error) *hsm.AbandonedError {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 100*time.Millisecond)
	defer cancel()
	err := call(ctx)
	left, ok := errors.AsType[*hsm.AbandonedError](err)
	if !ok {
		f.t.Fatalf("%v, want an AbandonedError", err)
	}
	return left
}

// An object whose creator has left is destroyed again. Where that call hangs, it is a stuck call like any other.
func TestAHangingUndoEndsTheEngine(t *testing.T) {
	f := newFaulty(t, func(cfg *hsm.Config) { cfg.CallLimit = time.Second })
	f.device.Inject(fault.CreateObject, 1, 1, fault.Delays(400*time.Millisecond))
	left := f.leaves(func(ctx context.Context) error { _, err := f.objects.Create(ctx, []byte("a value")); return err })
	f.device.Inject(fault.DestroyObject, 1, 1, fault.Hangs())
	f.until("the undo hangs", func() bool { return f.device.Held() == 1 })
	if h := f.engine.Health(); h.Busy != 1 {
		t.Errorf("%+v, want one busy", h)
	}
	select {
	case <-f.engine.Failed():
		if err := f.engine.Err(); !errors.Is(err, hsm.ErrStuck) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("the engine has not failed: %+v", f.engine.Health())
	}
	if err := f.engine.Close(); !errors.Is(err, hsm.ErrStuck) {
		t.Error(err)
	}
	f.device.Release()
	<-left.Returned()
	if err := pkcs11.New(f.cfg.Module).Finalize(); err != nil {
		t.Error(err)
	}
}

// A destruction goes on when its caller leaves. Made again later, it must not hit the object that has got the number since.
func TestAnAbandonedDestroyIsNotMadeOnAnotherObject(t *testing.T) {
	f := newFaulty(t, nil)
	defer f.close()
	first, err := f.objects.Create(t.Context(), []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	number := f.objects.ObjectHandle(first)
	f.device.Inject(fault.DestroyObject, 1, 1, fault.Delays(300*time.Millisecond))
	<-f.leaves(func(ctx context.Context) error { return f.objects.Destroy(ctx, first) }).Returned()
	second, err := f.objects.Create(t.Context(), []byte("second"))
	if err != nil {
		t.Fatal(err)
	}
	if f.objects.ObjectHandle(second) != number {
		t.Fatal("the device gives another number: nothing is tried")
	}
	if err := f.objects.Destroy(t.Context(), first); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("%v, want that it is gone", err)
	}
	got := make([]byte, 16)
	if n, err := f.objects.Read(t.Context(), second, got); err != nil || string(got[:n]) != "second" {
		t.Errorf("the second object: %q, %v", got[:n], err)
	}
	if n := f.objects.Live(); n != 1 {
		t.Errorf("%d objects are known, want 1", n)
	}
}

// A module forgets the session of a worker that is opening another one, and gives its number to that.
func TestASessionBesideMayTakeTheWorkersNumber(t *testing.T) {
	f := newFaulty(t, func(cfg *hsm.Config) { cfg.Sessions, cfg.CallLimit = 1, 2*time.Second })
	defer f.close()
	if err := f.macs(t.Context()); err != nil { // the worker has a session
		t.Fatal(err)
	}
	f.device.ForgetSession(f.engine.Handle())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := f.engine.Probe(ctx, []hsm.Spec{ledger}); err != nil {
		t.Errorf("%v: %v", err, f.engine.Err())
	}
	f.resumes()
}
