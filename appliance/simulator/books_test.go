package simulator

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci"
)

// clerk draws requests to one host's books and remembers what may be true of them.
type clerk struct {
	t     *rapid.T
	books books
	sent  int
	sales []bookEntry // and authorizations
	backs []bookEntry // refunds
	asked []func() string
}

func (c *clerk) next(kind entryKind, amount int64) bookEntry {
	c.sent++
	return bookEntry{kind: kind, sent: "0102030405", behaviour: Approve, code: "00", Booking: Booking{RRN: fmt.Sprintf("%012d", c.sent),
		STAN: fmt.Sprintf("%06d", c.sent), Terminal: "TERM1", Amount: amount, Currency: "EUR", Card: "411111******1111"}}
}

// ask puts a request, sometimes one that was put before, which must be answered as it was then.
func (c *clerk) ask(request func() string) {
	c.asked = append(c.asked, request)
	request()
}

func (c *clerk) charge() {
	entry := c.next(rapid.SampledFrom([]entryKind{sold, authorized}).Draw(c.t, "kind"), rapid.Int64Range(1, 100).Draw(c.t, "amount"))
	c.sales = append(c.sales, entry)
	c.ask(func() string { return c.books.book(entry).approval })
}

func (c *clerk) sale() bookEntry { return rapid.SampledFrom(c.sales).Draw(c.t, "sale") }

func (c *clerk) captureOne() {
	of := c.sale()
	advice := c.next(authorized, rapid.Int64Range(1, 100).Draw(c.t, "captured"))
	advice.RRN = of.RRN
	c.ask(func() string {
		code, _ := c.books.capture(advice, traceKey{of.Terminal, of.STAN, of.sent})
		return code
	})
}

func (c *clerk) refundOne() {
	of := c.sale()
	entry := c.next(refunded, rapid.Int64Range(1, 100).Draw(c.t, "refunded"))
	c.backs = append(c.backs, entry)
	c.ask(func() string { return c.books.refund(entry, traceKey{of.Terminal, of.STAN, of.sent}).approval })
}

func (c *clerk) reverseOne() {
	c.books.reverse(rapid.SampledFrom(slices.Concat(c.sales, c.backs)).Draw(c.t, "reversed"))
}

// repeat puts a request again: its answer is the one of before, and the books stay as they are.
func (c *clerk) repeat() {
	before, _ := c.books.list()
	again := rapid.SampledFrom(c.asked).Draw(c.t, "again")
	if first, second := again(), again(); first != second {
		c.t.Fatalf("answered %s, then %s", first, second)
	}
	if after, _ := c.books.list(); fmt.Sprint(before) != fmt.Sprint(after) {
		c.t.Fatalf("a repeat changed %v to %v", before, after)
	}
}

// check holds the books against themselves and against the totals that would be settled.
func (c *clerk) check() {
	bookings, net := c.books.list()
	var sum int64
	for _, b := range bookings {
		sum += b.Captured - b.Refunded
		if b.Refunded < 0 || b.Refunded > b.Captured || b.Captured > b.Amount || b.State == BookedReversed && (b.Captured != 0 || b.Reversed != b.Amount) {
			c.t.Fatalf("impossible: %+v", b)
		}
	}
	totals := *c.books.batch("TERM1", "EUR")
	if net["EUR"] != sum || totals.Net() != sum {
		c.t.Fatalf("net %d, totals %+v with net %d, bookings %d", net["EUR"], totals, totals.Net(), sum)
	}
	r := c.books.balance(fmt.Sprintf("T%05d", c.sent), batchKey{"TERM1", "USD"}, pci.Totals{})
	if r.settlement != "1" {
		c.t.Fatal("another currency has totals")
	}
}

func TestBooksAndTotalsNeverDisagree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &clerk{t: t, books: newBooks()}
		c.charge()
		t.Repeat(map[string]func(*rapid.T){
			"":        func(*rapid.T) { c.check() },
			"charge":  func(t *rapid.T) { c.charge() },
			"capture": func(t *rapid.T) { c.captureOne() },
			"refund":  func(t *rapid.T) { c.refundOne() },
			"reverse": func(t *rapid.T) { c.reverseOne() },
			"repeat":  func(t *rapid.T) { c.repeat() },
		})
	})
}
