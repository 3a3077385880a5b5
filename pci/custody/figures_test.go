//go:build bench

package custody_test

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/softhsm-test/figures"
)

// TestFigures measures what a card costs in memory while it is held, SoftHSM2's part included: the process's resident
// memory with 10,000 cards, less that of the same process before. A thousand cards that come and go first have whatever is
// made once made.
func TestFigures(t *testing.T) {
	const cards = 10_000
	var all []figures.Figure
	for _, kind := range []string{"sealed", "objects"} {
		kindOf(t, kind, cards, func(d *desk) {
			var refs []pci.CardRef
			fill := func(n int) {
				for range n {
					refs = append(refs, d.held(fmt.Sprintf("pay_01K4%022d", len(refs))))
				}
			}
			fill(1000)
			for _, ref := range refs {
				if err := d.store.Destroy(t.Context(), ref); err != nil {
					t.Fatal(err)
				}
			}
			refs = make([]pci.CardRef, 0, cards)
			before := resident(t)
			fill(cards)
			after := resident(t)
			d.lent(refs[cards-1], fmt.Sprintf("pay_01K4%022d", cards-1), nil)
			all = append(all, figures.Alone(fmt.Sprintf("memory of a card in custody, %d of them, kind %s", cards, kind), (after-before)/cards, "bytes", "<= 4096"))
		})
	}
	figures.Report(t, all...)
}

// resident is this process's resident memory in bytes, without what the collector could give back.
func resident(t *testing.T) float64 {
	t.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var total, pages int
	if _, err := fmt.Fscan(strings.NewReader(string(text)), &total, &pages); err != nil {
		t.Fatal(err)
	}
	return float64(pages * os.Getpagesize())
}
