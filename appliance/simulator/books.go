package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/bojanz/currency"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// Booking is one sale or authorization in the acquirer's books, with what followed. Amounts are in minor units.
type Booking struct {
	RRN      string       `json:"rrn"`
	STAN     string       `json:"stan"`
	Terminal string       `json:"terminal"`
	Amount   int64        `json:"amount"`   // sold or authorized
	Captured int64        `json:"captured"` // of it, money that moved
	Refunded int64        `json:"refunded"` // of that, money that was given back
	Reversed int64        `json:"reversed"` // taken back as a whole: then nothing is captured
	Currency string       `json:"currency"` // ISO 4217, alphabetic; numeric where there is no such code
	Card     string       `json:"card"`     // first six and last four digits, below 15 digits the last four
	State    BookingState `json:"state"`
	Record   string       `json:"record,omitempty"` // the ledger record that came with it, in base64
}

// BookingState is what became of a sale or an authorization.
type BookingState string

// The states of a [Booking].
const (
	BookedApproved BookingState = "approved"
	BookedDeclined BookingState = "declined"
	BookedReversed BookingState = "reversed"
)

// bookingKey names a request for ever.
type bookingKey struct{ terminal, stan, rrn string }

// traceKey names a request as DE 90 and DE 56 do.
type traceKey struct{ terminal, stan, sent string }

// entryKind is what a booking is of.
type entryKind uint8

const (
	sold entryKind = iota
	authorized
	refunded
)

// bookEntry is a booking with what the host must remember to answer a repeat as the first time.
type bookEntry struct {
	Booking
	kind      entryKind
	sent      string // DE 7 of the request, DE 12 in the edition of 1993
	behaviour Acquirer
	code      string     // DE 39
	approval  string     // DE 38
	lost      int        // reversals or captures that got lost
	unknown   bool       // only a reversal is known of it
	of        *bookEntry // the original of a refund
}

func (e *bookEntry) key() bookingKey { return bookingKey{e.Terminal, e.STAN, e.RRN} }

type books struct {
	mu       *sync.Mutex
	entries  map[bookingKey]*bookEntry
	order    []bookingKey
	traces   map[traceKey]*bookEntry
	advices  map[bookingKey]string // the codes by which captures were answered
	batches  map[batchKey]*pci.Totals
	balanced map[bookingKey]reply // of reconciliations; without a reference
}

func newBooks() books {
	return books{mu: new(sync.Mutex), entries: make(map[bookingKey]*bookEntry), traces: make(map[traceKey]*bookEntry),
		advices: make(map[bookingKey]string), batches: make(map[batchKey]*pci.Totals), balanced: make(map[bookingKey]reply)}
}

// recordField is where the appliance of a trial sends its ledger record.
const recordField = 126

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
	entry.Record = string(request.AppendTo(nil, recordField))
	if entry.sent = request.Text(7); of1993(request) {
		entry.sent = request.Text(12)
	}
	return entry, true
}

// originalOf reads what a request says of an earlier one: DE 90, or DE 56 in the edition of 1993.
func originalOf(request *iso8583.Message) (original traceKey, ok bool) {
	text, end := request.Text(90), 20
	if of1993(request) {
		text, end = request.Text(56), 22
	} else if len(text) != 42 {
		return original, false
	}
	if len(text) < end {
		return original, false
	}
	return traceKey{request.Text(41), text[4:10], text[10:end]}, true
}

// book enters a sale or an authorization once, and returns how it was entered the first time.
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
		entry.approval = b.nextApproval()
		switch batch := b.batch(entry.Terminal, entry.Currency); entry.kind {
		case sold:
			entry.Captured = entry.Amount
			add(&batch.Debits, entry.Amount)
		case authorized:
			batch.Authorizations++
		}
	}
	b.add(entry)
	return entry
}

func (b *books) nextApproval() string { return fmt.Sprintf("%06X", (len(b.order)+1)&0xFFFFFF) }

// capture moves money of an authorization, in parts up to its amount, and returns a response code. An advice that
// comes again is answered as the first time. It does not answer where the card makes the first answer get lost.
//
// The authorization is what original names, or else the one of the same terminal and reference.
func (b *books) capture(advice bookEntry, original traceKey) (code string, answers bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if code, again := b.advices[advice.key()]; again {
		return code, true
	}
	entry := b.traces[original]
	if entry == nil {
		entry = b.referenced(advice.Terminal, advice.RRN)
	}
	code = captureCode(entry, advice)
	b.advices[advice.key()] = code
	if code != "00" {
		return code, true
	}
	entry.Captured += advice.Amount
	add(&b.batch(entry.Terminal, entry.Currency).Debits, advice.Amount)
	if entry.behaviour == CaptureLost && entry.lost == 0 {
		entry.lost++
		return "", false
	}
	return code, true
}

// referenced finds the last authorization or sale with a reference, nil when there is none.
func (b *books) referenced(terminal, rrn string) *bookEntry {
	for _, key := range slices.Backward(b.order) {
		if entry := b.entries[key]; key.terminal == terminal && key.rrn == rrn && !entry.unknown && entry.kind != refunded {
			return entry
		}
	}
	return nil
}

func captureCode(entry *bookEntry, advice bookEntry) string {
	switch {
	case entry == nil:
		return "25"
	case entry.State != BookedApproved || entry.kind != authorized || entry.behaviour == CaptureRefused:
		return "12"
	case entry.RRN != advice.RRN || entry.Currency != advice.Currency || advice.Amount > entry.Amount-entry.Captured:
		return "13"
	}
	return "00"
}

// refund enters a refund once, and returns how it was entered the first time.
func (b *books) refund(entry bookEntry, original traceKey) bookEntry {
	b.mu.Lock()
	defer b.mu.Unlock()
	if first, ok := b.entries[entry.key()]; ok {
		if first.unknown {
			entry.State, entry.code, entry.behaviour = BookedReversed, "21", Approve
			*first = entry
		}
		return *first
	}
	entry.of = b.traces[original]
	entry.code, entry.State = refundCode(entry), BookedDeclined
	if entry.code == "00" {
		entry.State, entry.approval = BookedApproved, b.nextApproval()
		entry.of.Refunded += entry.Amount
		add(&b.batch(entry.Terminal, entry.Currency).Credits, entry.Amount)
	}
	b.add(entry)
	return entry
}

func refundCode(entry bookEntry) string {
	switch of := entry.of; {
	case of == nil:
		return "25"
	case of.Card != entry.Card:
		return "14"
	case of.State != BookedApproved:
		return "12"
	case of.Currency != entry.Currency || entry.Amount > of.Captured-of.Refunded:
		return "13"
	case entry.behaviour == RefundRefused:
		return "05"
	}
	return "00"
}

// reverse takes a sale, an authorization or a refund back and returns a response code. A reversal that comes again
// changes nothing more. It does not answer, and does nothing, while the card makes reversals get lost.
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
	case entry.Refunded > 0 || entry.kind == authorized && entry.Captured > 0:
		return "12", true // what went on is taken back by refunds
	}
	if entry.State == BookedApproved {
		b.takeBack(entry)
	}
	return "00", true
}

// takeBack books the reversal of an approved entry. b.mu is held.
func (b *books) takeBack(entry *bookEntry) {
	batch := b.batch(entry.Terminal, entry.Currency)
	switch entry.kind {
	case sold:
		add(&batch.DebitReversals, entry.Amount)
	case refunded:
		add(&batch.CreditReversals, entry.Amount)
		entry.of.Refunded -= entry.Amount
	}
	entry.State, entry.Captured, entry.Reversed = BookedReversed, 0, entry.Amount
}

func (b *books) add(entry bookEntry) {
	b.entries[entry.key()] = &entry
	b.order = append(b.order, entry.key())
	if !entry.unknown {
		b.traces[traceKey{entry.Terminal, entry.STAN, entry.sent}] = &entry
	}
}

// Books returns the sales and authorizations, in the order in which they came; refunds are in what they are of. A
// reversal of a sale that never came is not in them.
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
		if entry.unknown || entry.kind == refunded {
			continue
		}
		bookings = append(bookings, entry.Booking)
		if moved := entry.Captured - entry.Refunded; moved != 0 {
			net[entry.Currency] += moved
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
