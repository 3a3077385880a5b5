package tokens

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func TestABoundEndsASearchForTheDay(t *testing.T) {
	now := noon
	b := newBound(20, func() time.Time { return now })
	of := series{"first", "k1", "411111******1111"}
	for n := 1; n <= 20; n++ {
		if got, ok := b.take(of); got.n != n || !ok {
			t.Fatalf("card %d: counted %d, %v", n, got.n, ok)
		}
	}
	if got, ok := b.take(of); ok || got.n != 20 {
		t.Errorf("card 21 was taken; %d", got.n)
	}
	for _, other := range []series{{"second", "k1", of.truncated}, {"first", "k2", of.truncated}, {"first", "k1", "411111******1112"}} {
		if got, ok := b.take(other); !ok || got.n != 1 {
			t.Errorf("%+v is refused with it, or counted as %d", other, got.n)
		}
	}
	if !b.firstRefusal(of) || b.firstRefusal(of) {
		t.Error("a refusal is not entered once")
	}
	if got := b.untilTomorrow(); got != 12*time.Hour {
		t.Errorf("the next day comes in %v", got)
	}
	now = now.Add(12 * time.Hour)
	if got, ok := b.take(of); !ok || got.n != 1 || !b.firstRefusal(of) {
		t.Errorf("the next day begins with %d", got.n)
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
	if got, ok := b.take(of); got.n != 1 || !ok {
		t.Errorf("counted %d", got.n)
	}
}

func TestARestartForgivesLessThanAQuarter(t *testing.T) {
	of := series{"first", "k1", "411111******1111"}
	b := newBound(20, func() time.Time { return noon })
	kept := store.TokenBound{Period: "2030-01-02", Domain: of.domain, KeyID: of.key, Truncated: of.truncated, Cards: 19}
	b.restore(kept)
	b.restore(kept)
	kept.Period, kept.Cards = "2030-01-01", 20
	b.restore(kept)
	if got, ok := b.take(of); got.n != 20 || !ok {
		t.Errorf("counted %d, %v", got.n, ok)
	}
	if _, ok := b.take(of); ok {
		t.Error("card 21 was taken")
	}
	for n := 1; n <= 20; n++ {
		if kept := (taken{n: n, limit: 20}).kept(); kept != (n >= 5) {
			t.Errorf("a count of %d is kept: %v", n, kept)
		}
	}
}

func TestAnImportCountsForItself(t *testing.T) {
	now := noon
	b := newBound(3, func() time.Time { return now })
	of, other := series{"first", "k1", "411111******1111"}, series{"first", "k2", "411111******1111"}
	for range 2 {
		b.take(of)
		b.take(other)
	}
	bulk := store.Import{ID: "imp_1", KeyID: "k1", Bound: 1000, Until: noon.Add(20 * time.Hour)}
	b.open([]store.Import{bulk})
	for n := 1; n <= 1000; n++ {
		if got, ok := b.take(of); !ok || got != (taken{n, 1000, "imp_1"}) || got.kept() != (n >= 250) {
			t.Fatalf("card %d: %+v, %v", n, got, ok)
		}
		if n == 500 { // midnight, another import, and the restart of none
			now = now.Add(13 * time.Hour)
			b.open([]store.Import{bulk, {ID: "imp_2", KeyID: "k3", Bound: 1, Until: noon.Add(20 * time.Hour)}})
		}
	}
	if _, ok := b.take(of); ok {
		t.Error("card 1001 was taken")
	}
	for n := 1; n <= 3; n++ { // a new day for all others
		if got, ok := b.take(other); !ok || got != (taken{n, 3, "2030-01-03"}) {
			t.Errorf("%+v, %v", got, ok)
		}
	}
	if _, ok := b.take(other); ok {
		t.Error("an import was for another API key")
	}
	b.restore(store.TokenBound{Period: "imp_2", Domain: "first", KeyID: "k3", Truncated: of.truncated, Cards: 1})
	if _, ok := b.take(series{"first", "k3", of.truncated}); ok {
		t.Error("what an import has counted was forgotten")
	}
	now = noon.Add(20 * time.Hour)
	if got, ok := b.take(of); !ok || got != (taken{1, 3, "2030-01-03"}) {
		t.Errorf("after the import: %+v, %v", got, ok)
	}
}

// A sketch may count too much, never too little, and hardly ever too much to matter: millions of cards that share their
// truncation with few are all taken.
func TestManyCardsAreTakenWhereFewBeginAndEndAlike(t *testing.T) {
	b := newBound(20, func() time.Time { return noon })
	const cards = 5_000_000
	for i := range cards {
		of := series{"first", "k1", pci.Truncated(fmt.Sprint(i / 3))}
		if got, ok := b.take(of); !ok || got.n < i%3+1 {
			t.Fatalf("card %d: counted %d, %v", i, got.n, ok)
		}
	}
	size := 0
	for _, s := range b.day.sketches {
		size += 2 * sketchRows * s.width
	}
	if size > 48<<20 {
		t.Errorf("%d bytes", size)
	}
}

func TestASketchNeverCountsTooLittle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBound(20, func() time.Time { return noon })
		b.day.sketches[0] = newSketch(16) // so narrow that all collide
		truth := make(map[series]int)
		for _, i := range rapid.SliceOf(rapid.IntRange(0, 40)).Draw(t, "cards") {
			of := series{"d", "k", pci.Truncated(fmt.Sprint(i))}
			got, ok := b.take(of)
			if got.n < truth[of] {
				t.Fatalf("%d counted, %d taken", got.n, truth[of])
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
