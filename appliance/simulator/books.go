package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/bojanz/currency"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// Booking is one sale in the acquirer's books.
type Booking struct {
	RRN      string       `json:"rrn"`
	STAN     string       `json:"stan"`
	Terminal string       `json:"terminal"`
	Amount   int64        `json:"amount"`   // minor units
	Currency string       `json:"currency"` // ISO 4217, alphabetic; numeric where there is no such code
	Card     string       `json:"card"`     // first six and last four digits, below 15 digits the last four
	State    BookingState `json:"state"`
}

// BookingState is what became of a sale.
type BookingState string

// The states of a [Booking].
const (
	BookedApproved BookingState = "approved"
	BookedDeclined BookingState = "declined"
	BookedReversed BookingState = "reversed"
)

// bookingKey names a sale for ever.
type bookingKey struct{ terminal, stan, rrn string }

// bookEntry is a booking with what the host must remember to answer a repeat as the first time.
type bookEntry struct {
	Booking
	behaviour Acquirer
	code      string // DE 39
	approval  string // DE 38
	captured  bool   // money moved: a sale, or an authorization with its advice
	lost      int    // reversals that got lost
	unknown   bool   // only a reversal is known of it
}

func (e bookEntry) key() bookingKey { return bookingKey{e.Terminal, e.STAN, e.RRN} }

type books struct {
	mu      *sync.Mutex
	entries map[bookingKey]*bookEntry
	order   []bookingKey
}

func newBooks() books { return books{mu: new(sync.Mutex), entries: make(map[bookingKey]*bookEntry)} }

// entryOf reads what a request says of itself; it is not ok without amount, trace number, reference, terminal
// and currency.
func entryOf(request *iso8583.Message) (entry bookEntry, ok bool) {
	for _, de := range []int{4, 11, 37, 41, 49} {
		if !request.Has(de) {
			return entry, false
		}
	}
	amount, err := request.Uint(4)
	if err != nil {
		return entry, false
	}
	entry.Amount = int64(amount) // twelve digits
	entry.STAN, entry.RRN, entry.Terminal = request.Text(11), request.Text(37), request.Text(41)
	entry.Currency = alphabetic(request.Text(49))
	return entry, true
}

// book enters a sale once, and returns how it was entered the first time.
func (b *books) book(entry bookEntry) bookEntry {
	b.mu.Lock()
	defer b.mu.Unlock()
	if first, ok := b.entries[entry.key()]; ok {
		if first.unknown {
			// Reversed before it came: refused, and in the books from now on.
			entry.State, entry.code, entry.behaviour = BookedReversed, "21", Approve // 21: no action taken
			*first = entry
		}
		return *first
	}
	entry.State = BookedDeclined
	if entry.code == string(Approve) {
		entry.State = BookedApproved
		entry.approval = fmt.Sprintf("%06X", (len(b.order)+1)&0xFFFFFF)
	}
	b.add(entry)
	return entry
}

// capture moves the money of an authorization, at most its amount, and returns a response code.
func (b *books) capture(advice bookEntry) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, entry := range b.entries {
		if entry.RRN != advice.RRN || entry.Terminal != advice.Terminal || entry.unknown {
			continue
		}
		switch {
		case entry.State != BookedApproved:
			return "12"
		case entry.captured && entry.Amount == advice.Amount:
			return "00" // the advice came again
		case entry.captured || entry.Currency != advice.Currency || advice.Amount > entry.Amount:
			return "13"
		}
		entry.captured, entry.Amount = true, advice.Amount
		return "00"
	}
	return "25"
}

// reverse takes a sale back and returns a response code. A reversal that comes again changes nothing more. It does
// not answer, and does nothing, while the card makes reversals get lost.
func (b *books) reverse(reversal bookEntry) (code string, answers bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	entry, ok := b.entries[reversal.key()]
	switch {
	case !ok:
		reversal.unknown = true
		b.add(reversal)
		return "25", true
	case entry.unknown:
		return "25", true
	case entry.behaviour == NoAnswer && entry.lost < lostReversals:
		entry.lost++
		return "", false
	case entry.Amount != reversal.Amount || entry.Currency != reversal.Currency:
		return "13", true
	}
	if entry.State == BookedApproved {
		entry.State = BookedReversed
	}
	return "00", true
}

func (b *books) add(entry bookEntry) {
	b.entries[entry.key()] = &entry
	b.order = append(b.order, entry.key())
}

// Books returns the sales, in the order in which they came. A reversal of a sale that never came is not in them.
func (h *AcquirerHost) Books() []Booking {
	bookings, _ := h.books.list()
	return bookings
}

// list returns the bookings and, by currency, the sum of money that moved and was not taken back.
func (b *books) list() (bookings []Booking, net map[string]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	bookings, net = []Booking{}, map[string]int64{}
	for _, key := range b.order {
		entry := b.entries[key]
		if entry.unknown {
			continue
		}
		bookings = append(bookings, entry.Booking)
		if entry.State == BookedApproved && entry.captured {
			net[entry.Currency] += entry.Amount
		}
	}
	return bookings, net
}

// BooksHandler serves the books as JSON: {"bookings": [...], "net": {"EUR": 1234}}, where net is the money that moved
// and was not taken back, in minor units.
func (h *AcquirerHost) BooksHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the books can only be read", http.StatusMethodNotAllowed)
			return
		}
		bookings, net := h.books.list()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(struct {
			Bookings []Booking        `json:"bookings"`
			Net      map[string]int64 `json:"net"`
		}{bookings, net})
	})
}

// truncated keeps the first six and last four digits, of short numbers the last four.
func truncated(number string) string {
	n := len(number)
	switch {
	case n >= 15:
		return number[:6] + strings.Repeat("*", n-10) + number[n-4:]
	case n >= 4:
		return strings.Repeat("*", n-4) + number[n-4:]
	}
	return strings.Repeat("*", n)
}

// alphabetic returns the alphabetic code of a numeric one, or the numeric code if there is none.
func alphabetic(numeric string) string {
	if code, ok := alphabeticCodes()[numeric]; ok {
		return code
	}
	return numeric
}

var alphabeticCodes = sync.OnceValue(func() map[string]string {
	codes := make(map[string]string)
	for _, code := range currency.GetCurrencyCodes() {
		if numeric, ok := currency.GetNumericCode(code); ok {
			codes[numeric] = code
		}
	}
	return codes
})
