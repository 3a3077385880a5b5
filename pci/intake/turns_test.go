package intake

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// Anybody with one checkout link could send three hundred bodies a byte at a time, and no card of anybody would be sold
// or reversed meanwhile.
func TestSlowBodiesLeaveRoomForOthers(t *testing.T) {
	inABubble(t, func(t *testing.T) {
		b := newBench()
		var slow sync.WaitGroup
		var senders []*io.PipeWriter
		for range 300 {
			body, sender := io.Pipe()
			senders = append(senders, sender)
			slow.Go(func() { _, _, _ = b.Take(request(body), "pay_slow", nil) })
		}
		synctest.Wait() // all of them are being read, or wait
		if _, _, err := b.Take(request(strings.NewReader(with())), "pay_other", nil); err != nil {
			t.Errorf("another payment's card: %v", err)
		}
		slot, err := pan.NewSlot()
		if err != nil {
			t.Fatalf("no locked memory for a sale: %v", err)
		}
		slot.Release()
		for _, sender := range senders {
			_ = sender.CloseWithError(io.ErrUnexpectedEOF)
		}
		slow.Wait()
		if len(b.turns.per) != 0 || len(b.turns.all) != 0 {
			t.Errorf("%d payments and %d turns are left", len(b.turns.per), len(b.turns.all))
		}
	})
}

func TestSlowBodiesOfManyPaymentsLeaveRoomForSales(t *testing.T) {
	inABubble(t, func(t *testing.T) {
		b := newBench()
		var slow sync.WaitGroup
		var senders []*io.PipeWriter
		for i := range 300 {
			body, sender := io.Pipe()
			senders = append(senders, sender)
			slow.Go(func() { _, _, _ = b.Take(request(body), "pay_"+strings.Repeat("i", i), nil) })
		}
		synctest.Wait()
		slot, err := pan.NewSlot()
		if err != nil {
			t.Fatalf("no locked memory for a sale: %v", err)
		}
		slot.Release()
		if _, _, err := b.Take(request(strings.NewReader(with())), "pay_other", nil); !errors.Is(err, pci.ErrFull) {
			t.Errorf("one card more: %v, want ErrFull", err)
		}
		for _, sender := range senders {
			_ = sender.CloseWithError(io.ErrUnexpectedEOF)
		}
		slow.Wait()
		if _, _, err := b.Take(request(strings.NewReader(with())), "pay_other", nil); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// One API key cannot keep the cards of the others waiting.
func TestSlowBodiesOfAnAPIKeyLeaveRoomForOthers(t *testing.T) {
	inABubble(t, func(t *testing.T) {
		service := newTokens(&forge{}, nil, true)
		post := func(body io.Reader, key string) error {
			_, err := service.One(httptest.NewRequest("POST", "/", body), "d", []byte(key))
			return err
		}
		var slow sync.WaitGroup
		var senders []*io.PipeWriter
		for range 300 {
			body, sender := io.Pipe()
			senders = append(senders, sender)
			slow.Go(func() { _ = post(body, "slow") })
		}
		synctest.Wait()
		if err := post(strings.NewReader(line(number(9))), "other"); err != nil {
			t.Errorf("another API key's card: %v", err)
		}
		for _, sender := range senders {
			_ = sender.CloseWithError(io.ErrUnexpectedEOF)
		}
		slow.Wait()
		if err := post(strings.NewReader(line(number(9))), "slow"); err != nil || len(service.turns.per) != 0 || len(service.turns.all) != 0 {
			t.Errorf("afterwards: %v; %d keys and %d turns are left", err, len(service.turns.per), len(service.turns.all))
		}
	})
}

func TestWhoLeavesGivesUpTheTurn(t *testing.T) {
	turns := newTurns(formsAtOnce, formsOfPayment)
	var held []func()
	for range formsOfPayment {
		done, err := turns.take(t.Context(), "pay_1")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, done)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := turns.take(gone, "pay_1"); !errors.Is(err, pci.ErrFull) {
		t.Errorf("%v, want ErrFull", err)
	}
	for _, done := range held {
		done()
	}
	if len(turns.per) != 0 || len(turns.all) != 0 {
		t.Error("turns are left")
	}
}

// inABubble runs f with [synctest], with the locked memory of the whole process made outside: channels that are made in
// a bubble end with it.
func inABubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	slot, err := pan.NewSlot()
	if err != nil {
		t.Fatal(err)
	}
	slot.Release()
	synctest.Test(t, f)
}
