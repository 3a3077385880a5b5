package pan

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
)

func TestAnAreaIsNeverPrinted(t *testing.T) {
	for _, size := range []int{100, 3 * slotSize} {
		area, err := NewArea(size)
		if err != nil {
			t.Fatal(err)
		}
		defer area.Release()
		if len(area.Bytes()) < size {
			t.Errorf("%d bytes, want %d", len(area.Bytes()), size)
		}
		for _, value := range []any{area, *area, struct{ a Area }{*area}, struct{ a *Area }{area}} {
			clear(area.Bytes())
			before := printed(value)
			copy(area.Bytes(), amex)
			for way, text := range printed(value) {
				if before[way] != text {
					t.Errorf("%T of %d bytes shows digits by %s", value, size, way)
				}
			}
		}
	}
}

func TestAreasAreBoundedAndGivenBack(t *testing.T) {
	const size = areaBudget / 4
	var areas []*Area
	for len(areas) <= 4 {
		area, err := NewArea(size)
		if err != nil {
			if !errors.Is(err, ErrMemory) || !errors.Is(err, pci.ErrFull) {
				t.Errorf("%v, want ErrMemory", err)
			}
			break
		}
		areas = append(areas, area)
	}
	if len(areas) != 4 {
		t.Errorf("%d areas of a quarter of the budget, want 4", len(areas))
	}
	for _, area := range areas {
		area.Release()
		area.Release()
	}
	again, err := NewArea(areaBudget)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range again.Bytes() {
		if b != 0 {
			t.Fatal("memory that is not wiped was given out")
		}
	}
	again.Release()
}

func TestAnAreaThatACallStillUsesIsKept(t *testing.T) {
	left := leftCall{make(chan struct{})}
	area, err := NewArea(areaBudget)
	if err != nil {
		t.Fatal(err)
	}
	area.ReleaseAfter(fmt.Errorf("wrapped: %w", left))
	if _, err := NewArea(2 * slotSize); !errors.Is(err, ErrMemory) {
		t.Errorf("%v, want ErrMemory while the call goes on", err)
	}
	close(left.returned)
	for {
		if area, err = NewArea(2 * slotSize); err == nil {
			area.Release()
			return
		}
	}
}

type leftCall struct{ returned chan struct{} }

func (leftCall) Error() string               { return "left" }
func (l leftCall) Returned() <-chan struct{} { return l.returned }

func TestABatchKeepsItsCardsInOrder(t *testing.T) {
	b, err := NewBatch(300)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	numbers := []string{amex, "4111111111111111", "", "6304000000000000"}
	for _, number := range numbers {
		if number == "" {
			b.Empty(b.Len())
		} else {
			err = b.Add([]byte(number), expiry)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	if err := b.RevealPANs(func(_ int, digits []byte) error { got = append(got, string(digits)); return nil }); err != nil {
		t.Fatal(err)
	}
	if strings.Join(got, " ") != strings.Join(numbers, " ") || b.Len() != 4 {
		t.Errorf("%q, want %q", got, numbers)
	}
	if want := newCard(t, amex, "").Describe(); b.Describe(0) != want {
		t.Errorf("%+v, want %+v", b.Describe(0), want)
	}
	if b.Describe(2) != (pci.Card{}) {
		t.Errorf("an empty place is described as %+v", b.Describe(2))
	}
	for way, text := range printed(b) {
		if digits.MatchString(text) {
			t.Errorf("a batch shows digits by %s", way)
		}
	}
}

func TestABatchRefusesWhatACardRefuses(t *testing.T) {
	b, err := NewBatch(1)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	for _, bad := range []error{b.Add([]byte("4111111111111112"), expiry), b.Add([]byte(amex), pci.Expiry{Year: 2030, Month: 13})} {
		if _, ok := errors.AsType[*pci.CardError](bad); !ok {
			t.Errorf("%v, want a CardError", bad)
		}
	}
	if b.Len() != 0 {
		t.Error("a refused card has taken a place")
	}
	if err := errors.Join(b.Add([]byte(amex), expiry)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Add([]byte(amex), expiry)); !errors.Is(err, ErrMemory) {
		t.Errorf("one too many: %v, want ErrMemory", err)
	}
	for _, capacity := range []int{0, -1, MaxBatch + 1} {
		if _, err := NewBatch(capacity); err == nil {
			t.Errorf("a batch of %d was made", capacity)
		}
	}
}
