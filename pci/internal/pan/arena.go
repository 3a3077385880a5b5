package pan

import (
	"fmt"
	"sync"
)

// slotSize holds one card ([RecordSize] bytes) and leaves the messages that carry one (ISO 8583, AReq) their room.
const slotSize = 4096

// defaultSlots bounds how many cards can be looked at in the same moment, not how many are in custody.
const defaultSlots = 256

// What may be locked at once, in bytes.
const (
	SlotsLocked = defaultSlots * slotSize
	Locked      = SlotsLocked + areaBudget
)

// Slot is a piece of locked memory: never swapped, never in a core dump, zero in a forked child. The memory is
// outside the Go heap, so the collector neither moves nor copies it.
//
// Printing a Slot shows no content, wherever it stands. It holds its memory by a pointer to a pointer: a single one
// is followed by fmt where a verb does not fit (%s of a struct with a Slot in it).
type Slot struct {
	incomparable

	arena *arena
	mem   **[slotSize]byte
}

// Bytes lends the whole slot. It must not be used after [Slot.Release].
func (s *Slot) Bytes() []byte { return (*s.mem)[:] }

// Release wipes the slot and gives it back.
func (s *Slot) Release() {
	if s.mem == nil {
		return
	}
	clear(s.Bytes())
	mem := s.mem
	s.mem = nil
	s.arena.free <- mem
}

// ReleaseAfter is Release for a slot that was lent to a call which ended with err. A caller can leave a call into an HSM
// while the HSM still reads or writes the slot; such an error has a method Returned, and the slot is given back when
// that channel is closed. Given back earlier, it would become another card's.
func (s *Slot) ReleaseAfter(err error) { releaseAfter(err, s.Release) }

// Format implements [fmt.Formatter] for every verb.
func (s *Slot) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "(locked memory)") }

// NewSlot returns a wiped slot of 4,096 bytes, or ErrMemory when all are in use: card data has no fallback to
// ordinary memory.
func NewSlot() (*Slot, error) {
	a, err := sharedArena()
	if err != nil {
		return nil, err
	}
	select {
	case mem := <-a.free:
		return &Slot{arena: a, mem: mem}, nil
	default:
		return nil, ErrMemory
	}
}

// LockSlots maps and locks the memory of all slots now. Without it the first [NewSlot] does.
func LockSlots() error {
	_, err := sharedArena()
	return err
}

type arena struct{ free chan **[slotSize]byte }

var sharedArena = sync.OnceValues(func() (*arena, error) { return newArena(defaultSlots) })

func newArena(slots int) (*arena, error) {
	mem, err := mapLocked(slots * slotSize)
	if err != nil {
		return nil, err
	}
	a := &arena{free: make(chan **[slotSize]byte, slots)}
	for i := range slots {
		piece := (*[slotSize]byte)(mem[i*slotSize:])
		a.free <- &piece
	}
	return a, nil
}
