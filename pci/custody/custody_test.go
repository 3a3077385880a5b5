package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// objects is an HSM in memory.
type objects struct {
	mu      sync.Mutex
	values  map[uint64][]byte
	next    uint64
	fault   error         // of every call
	entered chan struct{} // when set, Create says here that it has begun …
	gate    chan struct{} // … and waits here
}

func newObjects() *objects { return &objects{values: make(map[uint64][]byte)} }

func (o *objects) Create(_ context.Context, value []byte, _ string) (uint64, error) {
	if o.gate != nil {
		o.entered <- struct{}{}
		<-o.gate
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fault != nil {
		return 0, o.fault
	}
	o.next++
	o.values[o.next] = bytes.Clone(value)
	return o.next, nil
}

func (o *objects) Read(_ context.Context, handle uint64, dst []byte, _ string) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fault != nil {
		return 0, o.fault
	}
	value, ok := o.values[handle]
	if !ok {
		return 0, fmt.Errorf("object %d: %w", handle, pci.ErrGone)
	}
	return copy(dst, value), nil
}

func (o *objects) Destroy(ctx context.Context, handle uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.fault != nil {
		return o.fault
	}
	if _, ok := o.values[handle]; !ok {
		return pci.ErrGone
	}
	delete(o.values, handle)
	return nil
}

func (o *objects) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fault = err
}

func (o *objects) lose() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.values)
}

func (o *objects) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.values)
}

// clock is a time that only the test moves.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

const (
	number = "4111111111111111"
	cvv    = "738"
)

func card(t testing.TB) *pan.Card {
	t.Helper()
	c, err := pan.New([]byte(number), []byte(cvv), pci.Expiry{Year: 2030, Month: 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Release)
	return c
}

func newStore(t testing.TB, capacity int) (*Store, lend.Custody, *objects, *clock) {
	t.Helper()
	hsm, time0 := newObjects(), &clock{}
	time0.advance(1000 * time.Hour)
	s := New(hsm, Config{Deadline: 15 * time.Minute, Capacity: capacity, Now: time0.now})
	return s, lend.OfCustody(s), hsm, time0
}

func hold(t testing.TB, cards lend.Custody, binding string) pci.CardRef {
	t.Helper()
	c := card(t)
	defer c.Release()
	ref, err := cards.Hold(t.Context(), c, binding)
	if err != nil {
		t.Error(err)
	}
	return ref
}

// borrow returns nil when ref leads to the card that was held.
func borrow(t testing.TB, cards lend.Custody, ref pci.CardRef, binding string) error {
	t.Helper()
	used := false
	err := cards.Lend(t.Context(), ref, binding, func(c *pan.Card) error {
		used = true
		return errors.Join(
			c.RevealPAN(func(d []byte) error { return want(d, number) }),
			c.RevealCVV(func(d []byte) error { return want(d, cvv) }))
	})
	if used != (err == nil) {
		t.Errorf("used: %v, error: %v", used, err)
	}
	return err
}

func want(got []byte, want string) error {
	if string(got) != want {
		return fmt.Errorf("lent %q, want %q", got, want)
	}
	return nil
}

func TestACardIsLentUnderItsBindingOnly(t *testing.T) {
	s, cards, _, _ := newStore(t, 10)
	ref := hold(t, cards, "pay_1")
	other := hold(t, cards, "pay_2")
	for range 2 {
		if err := borrow(t, cards, ref, "pay_1"); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct {
		ref     pci.CardRef
		binding string
	}{{ref, "pay_2"}, {ref, ""}, {ref, "pay_1 "}, {other, "pay_1"}, {pci.NewCardRef(), "pay_1"}, {pci.CardRef{}, ""}} {
		if err := borrow(t, cards, c.ref, c.binding); !errors.Is(err, pci.ErrGone) {
			t.Errorf("%s under %q: %v, want pci.ErrGone", c.ref, c.binding, err)
		}
	}
	if s.Stats().Held != 2 {
		t.Errorf("%d cards after wrong bindings, want 2", s.Stats().Held)
	}
}

func TestTheBorrowersErrorComesBack(t *testing.T) {
	_, cards, _, _ := newStore(t, 1)
	mine := errors.New("mine")
	ref := hold(t, cards, "pay_1")
	if err := cards.Lend(t.Context(), ref, "pay_1", func(*pan.Card) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("%v, want the borrower's own error", err)
	}
	if err := borrow(t, cards, ref, "pay_1"); err != nil {
		t.Errorf("after a borrower's error: %v", err)
	}
}

func TestALentCardIsWipedEvenIfTheBorrowerPanics(t *testing.T) {
	_, cards, _, _ := newStore(t, 1)
	ref := hold(t, cards, "pay_1")
	var kept *pan.Card
	func() {
		defer func() { _ = recover() }()
		_ = cards.Lend(t.Context(), ref, "pay_1", func(c *pan.Card) error { kept = c; panic("borrower") })
	}()
	if got := kept.String(); got != "(no card)" {
		t.Errorf("a lent card is still there after the call: %s", got)
	}
}

func TestACardEndsAtItsDeadline(t *testing.T) {
	_, cards, _, time0 := newStore(t, 1)
	ref := hold(t, cards, "pay_1")
	time0.advance(15*time.Minute - 1)
	if err := borrow(t, cards, ref, "pay_1"); err != nil {
		t.Errorf("a nanosecond before its deadline: %v", err)
	}
	time0.advance(1)
	if err := borrow(t, cards, ref, "pay_1"); !errors.Is(err, pci.ErrGone) {
		t.Errorf("at its deadline: %v, want pci.ErrGone", err)
	}
}

func TestDestroyEndsACard(t *testing.T) {
	s, cards, hsm, _ := newStore(t, 1)
	ref := hold(t, cards, "pay_1")
	for range 2 {
		if err := s.Destroy(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	if err := borrow(t, cards, ref, "pay_1"); !errors.Is(err, pci.ErrGone) {
		t.Errorf("after Destroy: %v, want pci.ErrGone", err)
	}
	if s.Stats().Held != 0 || hsm.len() != 0 {
		t.Errorf("%d cards in the store, %d in the HSM", s.Stats().Held, hsm.len())
	}
	hold(t, cards, "pay_2")
}

func TestACardThatTheHSMLostIsForgotten(t *testing.T) {
	s, cards, hsm, _ := newStore(t, 2)
	lent, destroyed := hold(t, cards, "pay_1"), hold(t, cards, "pay_2")
	hsm.lose()
	if err := borrow(t, cards, lent, "pay_1"); !errors.Is(err, pci.ErrGone) {
		t.Errorf("a lost card: %v, want pci.ErrGone", err)
	}
	if err := s.Destroy(t.Context(), destroyed); err != nil {
		t.Errorf("destroying a lost card: %v", err)
	}
	if s.Stats().Held != 0 {
		t.Errorf("%d lost cards still take room", s.Stats().Held)
	}
}

func TestAnHSMThatIsAwayForAMomentLosesNoCard(t *testing.T) {
	s, cards, hsm, _ := newStore(t, 1)
	ref := hold(t, cards, "pay_1")
	hsm.fail(pci.ErrUnavailable)
	if err := borrow(t, cards, ref, "pay_1"); !errors.Is(err, pci.ErrUnavailable) || errors.Is(err, pci.ErrGone) {
		t.Errorf("HSM away: %v, want pci.ErrUnavailable", err)
	}
	hsm.fail(nil)
	if err := borrow(t, cards, ref, "pay_1"); err != nil {
		t.Errorf("HSM back: %v", err)
	}
	if s.Stats().Held != 1 {
		t.Errorf("%d cards, want 1", s.Stats().Held)
	}
}

// A request that was cancelled, or an HSM that is away, must not leave a CVV behind in the HSM.
func TestACardWhoseDestructionFailedIsDestroyedLater(t *testing.T) {
	s, cards, hsm, time0 := newStore(t, 1)
	ref := hold(t, cards, "pay_1")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Destroy(cancelled, ref); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want context.Canceled", err)
	}
	if err := borrow(t, cards, ref, "pay_1"); !errors.Is(err, pci.ErrGone) {
		t.Errorf("a card that was to be destroyed is lent: %v", err)
	}
	hsm.fail(pci.ErrUnavailable)
	if left, err := s.destroyUntil(t.Context(), time0.now()); left != 1 || !errors.Is(err, pci.ErrUnavailable) {
		t.Errorf("%d left, %v", left, err)
	}
	if s.Stats().Held != 1 || hsm.len() != 1 {
		t.Fatalf("%d cards in the store, %d in the HSM, want 1", s.Stats().Held, hsm.len())
	}
	hsm.fail(nil)
	if left, err := s.destroyUntil(t.Context(), time0.now()); left != 0 || err != nil {
		t.Errorf("%d left, %v", left, err)
	}
	if s.Stats().Held != 0 || hsm.len() != 0 {
		t.Errorf("%d cards in the store, %d in the HSM, want none", s.Stats().Held, hsm.len())
	}
}

func TestAFaultyReadIsRefused(t *testing.T) {
	for name, value := range map[string][]byte{
		"short":   make([]byte, pan.RecordSize-1),
		"garbage": bytes.Repeat([]byte{0xff}, pan.RecordSize),
		"empty":   {},
	} {
		_, cards, hsm, _ := newStore(t, 1)
		ref := hold(t, cards, "pay_1")
		hsm.values[hsm.next] = value
		if err := borrow(t, cards, ref, "pay_1"); err == nil {
			t.Errorf("%s: lent", name)
		}
	}
}

func TestCapacity(t *testing.T) {
	s, cards, hsm, _ := newStore(t, 2)
	first := hold(t, cards, "pay_1")
	hold(t, cards, "pay_2")
	if _, err := cards.Hold(t.Context(), card(t), "pay_3"); !errors.Is(err, pci.ErrFull) {
		t.Errorf("a third card: %v, want pci.ErrFull", err)
	}
	if err := s.Destroy(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	hsm.fail(pci.ErrUnavailable)
	if _, err := cards.Hold(t.Context(), card(t), "pay_3"); !errors.Is(err, pci.ErrUnavailable) {
		t.Errorf("HSM away: %v, want pci.ErrUnavailable", err)
	}
	hsm.fail(nil)
	hold(t, cards, "pay_3") // the failed one gave its place back
}

func TestCapacityHoldsWhileCardsAreOnTheirWay(t *testing.T) {
	const capacity, callers = 3, 12
	s, cards, hsm, _ := newStore(t, capacity)
	hsm.gate, hsm.entered = make(chan struct{}), make(chan struct{})
	results := make(chan error, callers)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			_, err := cards.Hold(t.Context(), card(t), "pay_1")
			results <- err
		})
	}
	for range capacity {
		<-hsm.entered
	}
	for range callers - capacity { // only those that found no room can be back
		if err := <-results; !errors.Is(err, pci.ErrFull) {
			t.Errorf("%v, want pci.ErrFull", err)
		}
	}
	close(hsm.gate)
	wg.Wait()
	if s.Stats().Held != capacity || hsm.len() != capacity {
		t.Errorf("%d cards in the store, %d in the HSM, want %d", s.Stats().Held, hsm.len(), capacity)
	}
}

func TestConcurrentUse(t *testing.T) {
	s, cards, hsm, _ := newStore(t, 100)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			binding := fmt.Sprint("pay_", i)
			for range 50 {
				ref := hold(t, cards, binding)
				if err := borrow(t, cards, ref, binding); err != nil {
					t.Error(err)
				}
				wg.Go(func() { _ = s.Destroy(t.Context(), ref) })
				if err := borrow(t, cards, ref, binding); err != nil && !errors.Is(err, pci.ErrGone) {
					t.Error(err)
				}
				_ = s.Destroy(t.Context(), ref)
			}
		})
	}
	wg.Wait()
	if s.Stats().Held != 0 || hsm.len() != 0 {
		t.Errorf("%d cards in the store, %d in the HSM", s.Stats().Held, hsm.len())
	}
}

func TestSweepDestroysAtTheDeadlineAndAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its clock is the store's and the ticker's
		hsm := newObjects()
		s := New(hsm, Config{Deadline: 15 * time.Minute, Capacity: 10})
		cards := lend.OfCustody(s)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { s.Sweep(ctx); close(ended) }()

		hold(t, cards, "pay_1")
		<-time.After(10 * time.Minute)
		young := hold(t, cards, "pay_2")
		<-time.After(5*time.Minute + 2*time.Second)
		synctest.Wait()
		if s.Stats().Held != 1 || hsm.len() != 1 {
			t.Errorf("%d cards in the store, %d in the HSM after the first deadline, want 1", s.Stats().Held, hsm.len())
		}
		if err := borrow(t, cards, young, "pay_2"); err != nil {
			t.Errorf("the younger card: %v", err)
		}

		hsm.fail(pci.ErrUnavailable)
		<-time.After(15 * time.Minute)
		hsm.fail(nil)
		<-time.After(2 * time.Second)
		synctest.Wait()
		if hsm.len() != 0 {
			t.Error("a card outlived its deadline because the HSM was away at that moment")
		}

		hold(t, cards, "pay_3")
		cancel()
		<-ended
		if s.Stats().Held != 0 || hsm.len() != 0 {
			t.Errorf("%d cards in the store, %d in the HSM after the end", s.Stats().Held, hsm.len())
		}
	})
}

func TestNoDigitStaysInTheStore(t *testing.T) {
	s, cards, _, _ := newStore(t, 1)
	ref := hold(t, cards, "pay_1")
	if err := borrow(t, cards, ref, "pay_1"); err != nil {
		t.Fatal(err)
	}
	s.objects = nil // the fake one has them, of course
	seen := 0
	walk(reflect.ValueOf(s), map[uintptr]bool{}, func(text string) {
		seen++
		if bytes.Contains([]byte(text), []byte("111111")) || bytes.Contains([]byte(text), []byte(cvv)) {
			t.Errorf("the store holds %q", text)
		}
	})
	if seen < 2 {
		t.Fatalf("the walk saw %d values: it does not look", seen)
	}
}

// walk calls f with every string and byte string under v, unexported fields included.
func walk(v reflect.Value, seen map[uintptr]bool, f func(string)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && !seen[v.Pointer()] {
			seen[v.Pointer()] = true
			walk(v.Elem(), seen, f)
		}
	case reflect.Interface:
		walk(v.Elem(), seen, f)
	case reflect.Struct:
		for i := range v.NumField() {
			walk(v.Field(i), seen, f)
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			walk(entries.Key(), seen, f)
			walk(entries.Value(), seen, f)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			text := make([]byte, v.Len())
			for i := range text {
				text[i] = byte(v.Index(i).Uint())
			}
			f(string(text))
			return
		}
		for i := range v.Len() {
			walk(v.Index(i), seen, f)
		}
	case reflect.String:
		f(v.String())
	}
}

// abandoned is the error of a call that its caller has left while the HSM goes on.
type abandoned struct{ returned chan struct{} }

func (*abandoned) Error() string               { return "left" }
func (a *abandoned) Returned() <-chan struct{} { return a.returned }
func (*abandoned) Unwrap() error               { return context.DeadlineExceeded }

// lateObjects keeps the buffer of a call that its caller has left, and writes into it afterwards.
type lateObjects struct {
	*objects
	left   *abandoned
	buffer []byte
}

func (o *lateObjects) Create(_ context.Context, value []byte, _ string) (uint64, error) {
	o.buffer = value
	return 0, fmt.Errorf("create: %w", o.left)
}

func (o *lateObjects) Read(_ context.Context, _ uint64, dst []byte, _ string) (int, error) {
	o.buffer = dst
	return 0, fmt.Errorf("read: %w", o.left)
}

// The HSM may still read or write a buffer that its caller has left: until it lets go, no other card may come to stand
// there.
func TestABufferThatTheHSMStillUsesIsNoOtherCards(t *testing.T) {
	inner := newObjects()
	late := &lateObjects{objects: inner, left: &abandoned{make(chan struct{})}}
	s := New(late, Config{Deadline: time.Minute, Capacity: 10})
	mine := card(t)
	if _, err := s.hold(t.Context(), mine, "b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	created := late.buffer
	ref := pci.NewCardRef()
	s.cards[ref] = held{handle: 1, binding: "b", deadline: time.Now().Add(time.Minute)}
	if err := s.lend(t.Context(), ref, "b", func(*pan.Card) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	read := late.buffer
	if !bytes.Equal(created, mine.Record()) {
		t.Error("the buffer was wiped while the HSM reads it")
	}
	for _, slot := range allSlots(t) {
		if &slot.Bytes()[0] == &created[0] || &slot.Bytes()[0] == &read[0] {
			t.Fatal("the buffer was given out while the HSM uses it")
		}
	}
	close(late.left.returned)
	for created[0] != 0 {
		runtime.Gosched() // the slots are wiped and given back by their own goroutines
	}
}

// allSlots takes all locked memory there is, until the test ends.
func allSlots(t *testing.T) (slots []*pan.Slot) {
	t.Helper()
	for {
		slot, err := pan.NewSlot()
		if err != nil {
			return slots
		}
		t.Cleanup(slot.Release)
		slots = append(slots, slot)
	}
}
