package custody_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
	"github.com/finterra/finpay/softhsm-test/fault"
)

// kept is one of hsm's keepers, as package main introduces it.
type kept struct {
	create  func(context.Context, []byte, string) (uint64, error)
	read    func(context.Context, uint64, []byte, string) (int, error)
	destroy func(context.Context, uint64) error
}

func (k kept) Create(ctx context.Context, value []byte, binding string) (uint64, error) {
	handle, err := k.create(ctx, value, binding)
	return handle, translate(err)
}

func (k kept) Read(ctx context.Context, handle uint64, dst []byte, binding string) (int, error) {
	n, err := k.read(ctx, handle, dst, binding)
	return n, translate(err)
}

func (k kept) Destroy(ctx context.Context, handle uint64) error {
	return translate(k.destroy(ctx, handle))
}

func translate(err error) error {
	switch {
	case errors.Is(err, hsm.ErrLost):
		return fmt.Errorf("%w: %w", pci.ErrGone, err)
	case errors.Is(err, hsm.ErrUnavailable):
		return fmt.Errorf("%w: %w", pci.ErrUnavailable, err)
	}
	return err
}

// kinds are the ways of custody, on a real module.
var kinds = map[string]func(*hsm.Engine) custody.Objects{
	"objects": func(e *hsm.Engine) custody.Objects {
		o := e.NewObjects()
		return kept{
			func(ctx context.Context, value []byte, _ string) (uint64, error) { return o.Create(ctx, value) },
			func(ctx context.Context, handle uint64, dst []byte, _ string) (int, error) {
				return o.Read(ctx, handle, dst)
			},
			o.Destroy,
		}
	},
	"sealed": func(e *hsm.Engine) custody.Objects {
		s := e.NewSealed()
		return kept{s.Create, s.Read, s.Destroy}
	},
}

const (
	number = "4111111111111111"
	code   = "738"
)

// desk is a store of one kind, on a module that goes wrong on demand, with a clock that the test moves.
type desk struct {
	t      *testing.T
	store  *custody.Store
	cards  lend.Custody
	device *fault.Control
	now    atomic.Int64
}

// eachKind runs a test over every kind.
func eachKind(t *testing.T, capacity int, test func(*desk)) {
	for name := range kinds {
		t.Run(name, func(t *testing.T) { kindOf(t, name, capacity, test) })
	}
}

func kindOf(t *testing.T, kind string, capacity int, test func(*desk)) {
	t.Helper()
	cfg := softhsmtest.Token(t)
	d := &desk{t: t, device: fault.New(t, cfg.Module)}
	cfg.Module = d.device.Module
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	}()
	d.now.Store(time.Now().UnixNano())
	d.store = custody.New(kinds[kind](engine), custody.Config{Deadline: 15 * time.Minute, Capacity: capacity, Now: func() time.Time { return time.Unix(0, d.now.Load()) }})
	d.cards = lend.OfCustody(d.store)
	test(d)
}

func (d *desk) hold(binding string) (pci.CardRef, error) {
	d.t.Helper()
	card, err := pan.New([]byte(number), []byte(code), pci.Expiry{Year: 2031, Month: 12})
	if err != nil {
		d.t.Fatal(err)
	}
	defer card.Release()
	return d.cards.Hold(d.t.Context(), card, binding)
}

func (d *desk) held(binding string) pci.CardRef {
	d.t.Helper()
	ref, err := d.hold(binding)
	if err != nil {
		d.t.Fatal(err)
	}
	return ref
}

// lent wants the card behind a reference, or an error.
func (d *desk) lent(ref pci.CardRef, binding string, want error) {
	d.t.Helper()
	err := d.cards.Lend(d.t.Context(), ref, binding, func(card *pan.Card) error {
		return errors.Join(
			card.RevealPAN(func(digits []byte) error { return same(digits, number) }),
			card.RevealCVV(func(digits []byte) error { return same(digits, code) }))
	})
	if !errors.Is(err, want) {
		d.t.Errorf("lent: %v, want %v", err, want)
	}
}

func same(got []byte, want string) error {
	if string(got) != want {
		return errors.New("another card was lent")
	}
	return nil
}

// stats wants these, whatever the ages and the room.
func (d *desk) stats(want custody.Stats) {
	d.t.Helper()
	got := d.store.Stats()
	got.Oldest, got.Capacity = 0, 0
	if got != want {
		d.t.Errorf("%+v, want %+v", got, want)
	}
}

func TestEachKindLendsACardUnderItsBindingUntilItIsUsed(t *testing.T) {
	eachKind(t, 10, func(d *desk) {
		first, second := d.held("pay_1"), d.held("pay_2")
		d.lent(first, "pay_1", nil)
		d.lent(first, "pay_2", pci.ErrGone)
		d.lent(first, "pay_1", nil)
		d.lent(second, "pay_2", nil)
		if err := d.store.Destroy(t.Context(), first); err != nil {
			d.t.Error(err)
		}
		d.lent(first, "pay_1", pci.ErrGone)
		d.lent(second, "pay_2", nil)
		d.stats(custody.Stats{Held: 1, Taken: 2, Used: 1})
	})
}

func TestEachKindLosesItsCardsWithTheSession(t *testing.T) {
	eachKind(t, 2, func(d *desk) {
		lost, destroyed := d.held("pay_1"), d.held("pay_2")
		if _, err := d.hold("pay_3"); !errors.Is(err, pci.ErrFull) {
			d.t.Errorf("%v, want ErrFull", err)
		}
		d.device.Inject(fault.Every, 1, 1, fault.ForgetsAll())
		d.lent(lost, "pay_1", pci.ErrGone)
		if err := d.store.Destroy(t.Context(), destroyed); err != nil {
			d.t.Error(err)
		}
		stats := d.store.Stats()
		if stats.Held != 0 || stats.Taken != 2 || stats.Full != 1 || stats.Lost+stats.Used != 2 || stats.Lost == 0 {
			d.t.Errorf("%+v", stats)
		}
		d.lent(d.held("pay_3"), "pay_3", nil) // service goes on
	})
}

func TestEachKindEndsACardAtItsDeadline(t *testing.T) {
	eachKind(t, 10, func(d *desk) {
		old := d.held("pay_1")
		d.now.Add(int64(14 * time.Minute))
		young := d.held("pay_2")
		if oldest := d.store.Stats().Oldest; oldest != 14*time.Minute {
			d.t.Errorf("the oldest card is %v old", oldest)
		}
		d.now.Add(int64(time.Minute))
		d.lent(old, "pay_1", pci.ErrGone)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		d.store.Sweep(ctx) // the process ends: whatever is left is destroyed
		d.lent(young, "pay_2", pci.ErrGone)
		d.stats(custody.Stats{Taken: 2, Expired: 2})
	})
}
