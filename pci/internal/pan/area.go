package pan

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// areaBudget bounds the areas in use, in bytes. With the slots it stays well below the 8 MiB that a process may lock by
// default (RLIMIT_MEMLOCK).
const areaBudget = 4 << 20

var areasInUse atomic.Int64

// Area is a larger piece of locked memory than a [Slot], under the same protection: for what holds the digits of many
// cards at once. It is mapped when it is asked for and unmapped when it is released.
//
// Printing an Area shows no content, wherever it stands; see [Slot].
type Area struct {
	incomparable

	mem  **[]byte
	free func() // of what it stands on
}

// NewArea returns a wiped area of at least size bytes, or [ErrMemory] when no more memory may be locked: card data has
// no fallback to ordinary memory. What fits a slot stands in one.
func NewArea(size int) (*Area, error) {
	if size <= slotSize {
		slot, err := NewSlot()
		if err != nil {
			return nil, err
		}
		mem := slot.Bytes()
		return newArea(mem, slot.Release), nil
	}
	page := os.Getpagesize()
	size = (size + page - 1) / page * page
	if areasInUse.Add(int64(size)) > areaBudget {
		areasInUse.Add(-int64(size))
		return nil, ErrMemory
	}
	mem, err := mapLocked(size)
	if err != nil {
		areasInUse.Add(-int64(size))
		return nil, err
	}
	return newArea(mem, func() {
		clear(mem)
		_ = unix.Munmap(mem) // it was mapped, so it can be
		areasInUse.Add(-int64(size))
	}), nil
}

func newArea(mem []byte, free func()) *Area {
	inner := &mem
	return &Area{mem: &inner, free: free}
}

// Bytes lends the whole area. It must not be used after [Area.Release].
func (a *Area) Bytes() []byte { return **a.mem }

// Release wipes the area and gives it back. It is harmless on a released area.
func (a *Area) Release() {
	if a.mem != nil {
		a.mem = nil
		a.free()
	}
}

// ReleaseAfter is [Slot.ReleaseAfter] for an area.
func (a *Area) ReleaseAfter(err error) { releaseAfter(err, a.Release) }

// Format implements [fmt.Formatter] for every verb.
func (a *Area) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "(locked memory)") }

// releaseAfter releases at once, or when the call that err came from has let go of its memory.
func releaseAfter(err error, release func()) {
	var left interface{ Returned() <-chan struct{} }
	if !errors.As(err, &left) {
		release()
		return
	}
	go func() {
		<-left.Returned()
		release()
	}()
}

// mapLocked maps memory that is never swapped, never in a core dump, and zero in a forked child.
func mapLocked(size int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for card data: %w", size, err)
	}
	if err := unix.Mlock(mem); err != nil {
		_ = unix.Munmap(mem)
		return nil, fmt.Errorf("%w: lock %d bytes for card data (raise RLIMIT_MEMLOCK): %w", ErrMemory, size, err)
	}
	for _, advice := range []int{unix.MADV_DONTDUMP, unix.MADV_WIPEONFORK} {
		if err := unix.Madvise(mem, advice); err != nil {
			_ = unix.Munmap(mem)
			return nil, fmt.Errorf("protect memory for card data: %w", err)
		}
	}
	return mem, nil
}
