package tokens

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func TestABoundEndsASearchForTheDay(t *testing.T) {
	now := noon
	b := newBound(20, func() time.Time { return now })
	of := series{"first", "k1", "411111******1111"}
	for n := 1; n <= 20; n++ {
		if got, ok := b.take(of); got != n || !ok {
			t.Fatalf("card %d: counted %d, %v", n, got, ok)
		}
	}
	if n, ok := b.take(of); ok || n != 20 {
		t.Errorf("card 21 was taken; %d", n)
	}
	for _, other := range []series{{"second", "k1", of.truncated}, {"first", "k2", of.truncated}, {"first", "k1", "411111******1112"}} {
		if n, ok := b.take(other); !ok || n != 1 {
			t.Errorf("%+v is refused with it, or counted as %d", other, n)
		}
	}
	if !b.firstRefusal(of) || b.firstRefusal(of) {
		t.Error("a refusal is not entered once")
	}
	if got := b.untilTomorrow(); got != 12*time.Hour {
		t.Errorf("the next day comes in %v", got)
	}
	now = now.Add(12 * time.Hour)
	if n, ok := b.take(of); !ok || n != 1 || !b.firstRefusal(of) {
		t.Errorf("the next day begins with %d", n)
	}
}

func TestWhatWasNotIssuedDoesNotCount(t *testing.T) {
	b := newBound(3, func() time.Time { return noon })
	of := series{"first", "k1", "411111******1111"}
	for range 10 {
		if _, ok := b.take(of); !ok {
			t.Fatal("refused")
		}
		b.giveBack(of)
	}
	if n, ok := b.take(of); n != 1 || !ok {
		t.Errorf("counted %d", n)
	}
}

func TestARestartForgivesLessThanAQuarter(t *testing.T) {
	of := series{"first", "k1", "411111******1111"}
	b := newBound(20, func() time.Time { return noon })
	b.restore(of, 19)
	b.restore(of, 19)
	if n, ok := b.take(of); n != 20 || !ok {
		t.Errorf("counted %d, %v", n, ok)
	}
	if _, ok := b.take(of); ok {
		t.Error("card 21 was taken")
	}
	if from := b.keepFrom(); from != 5 {
		t.Errorf("kept from %d on", from)
	}
}

// A sketch may count too much, never too little, and hardly ever too much to matter: millions of cards that share their
// truncation with few are all taken.
func TestManyCardsAreTakenWhereFewBeginAndEndAlike(t *testing.T) {
	b := newBound(20, func() time.Time { return noon })
	const cards = 5_000_000
	for i := range cards {
		of := series{"first", "k1", pci.Truncated(fmt.Sprint(i / 3))}
		if n, ok := b.take(of); !ok || n < i%3+1 {
			t.Fatalf("card %d: counted %d, %v", i, n, ok)
		}
	}
	size := 0
	for _, s := range b.sketches {
		size += sketchRows * s.width
	}
	if size > 24<<20 {
		t.Errorf("%d bytes", size)
	}
}

func TestASketchNeverCountsTooLittle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBound(20, func() time.Time { return noon })
		b.turn()
		b.sketches[0] = newSketch(16) // so narrow that all collide
		truth := make(map[series]int)
		for _, i := range rapid.SliceOf(rapid.IntRange(0, 40)).Draw(t, "cards") {
			of := series{"d", "k", pci.Truncated(fmt.Sprint(i))}
			n, ok := b.take(of)
			if n < truth[of] {
				t.Fatalf("%d counted, %d taken", n, truth[of])
			}
			if ok {
				truth[of]++
			}
			if truth[of] > 20 {
				t.Fatal("more than the limit were taken")
			}
		}
	})
}
