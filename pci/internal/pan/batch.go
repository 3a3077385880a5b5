package pan

import (
	"fmt"

	"github.com/finterra/finpay/pci"
)

// batchRecord is one card of a [Batch]: expiry, the PAN's length, the PAN.
const (
	batchYear   = 0 // year - 2000
	batchMonth  = 1
	batchLength = 2
	batchPAN    = 3

	batchRecord = 24
)

// MaxBatch is how many cards one [Batch] holds at most.
const MaxBatch = 16384

// Batch is many cards, without security codes, in one piece of locked memory: for imports, and for a change of keys. A
// place in it may be empty. Printing it shows how many there are.
type Batch struct {
	incomparable

	area     *Area
	n        int
	capacity int
}

// NewBatch returns an empty batch for so many cards, up to [MaxBatch].
func NewBatch(capacity int) (*Batch, error) {
	if capacity < 1 || capacity > MaxBatch {
		return nil, fmt.Errorf("pan: a batch of %d cards; 1 to %d are served", capacity, MaxBatch)
	}
	area, err := NewArea(capacity * batchRecord)
	if err != nil {
		return nil, err
	}
	return &Batch{area: area, capacity: capacity}, nil
}

// Add copies a card into the next place. pan is the PAN in ASCII; the caller wipes its own copy. Refusals are
// [*pci.CardError] and take no place; a full batch is [ErrMemory].
func (b *Batch) Add(pan []byte, expiry pci.Expiry) error {
	if b.n == b.capacity {
		return ErrMemory
	}
	return b.Put(b.n, pan, expiry)
}

// Put copies a card into a place, as Add does. The places before it that were not taken are empty.
func (b *Batch) Put(i int, pan []byte, expiry pci.Expiry) error {
	if err := CheckPAN(pan); err != nil {
		return err
	}
	if err := checkExpiry(expiry); err != nil {
		return err
	}
	record := b.record(i)
	record[batchYear], record[batchMonth] = byte(expiry.Year-2000), byte(expiry.Month)
	record[batchLength] = byte(len(pan))
	copy(record[batchPAN:], pan)
	b.n = max(b.n, i+1)
	return nil
}

// Empty wipes a place.
func (b *Batch) Empty(i int) {
	clear(b.record(i))
	b.n = max(b.n, i+1)
}

// Reset wipes the batch and leaves it empty.
func (b *Batch) Reset() {
	clear(b.area.Bytes()[:b.n*batchRecord])
	b.n = 0
}

// Len returns the number of places taken, empty ones included.
func (b *Batch) Len() int { return b.n }

// RevealPANs calls f with the number and PAN of each card in turn, until f has an error; digits are empty at a place that
// is. They are valid during the call only; f must not keep them.
func (b *Batch) RevealPANs(f func(i int, digits []byte) error) error {
	for i := range b.n {
		if err := f(i, b.pan(i)); err != nil {
			return err
		}
	}
	return nil
}

// Describe returns what may be known of a card. An empty place has no description.
func (b *Batch) Describe(i int) pci.Card {
	digits := b.pan(i)
	if len(digits) == 0 {
		return pci.Card{}
	}
	record := b.record(i)
	expiry := pci.Expiry{Year: 2000 + int(record[batchYear]), Month: int(record[batchMonth])}
	return pci.Card{Brand: brandOf(digits), Truncated: truncate(digits), Expiry: expiry}
}

// Release wipes the batch and gives its memory back. It is harmless on a released batch.
func (b *Batch) Release() { b.area.Release() }

// Format implements [fmt.Formatter] for every verb.
func (b *Batch) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "(%d cards)", b.n) }

func (b *Batch) record(i int) []byte {
	return b.area.Bytes()[i*batchRecord : (i+1)*batchRecord : (i+1)*batchRecord]
}

func (b *Batch) pan(i int) []byte {
	record := b.record(i)
	return record[batchPAN : batchPAN+int(record[batchLength])]
}
