// Package custody keeps cards alive between requests: as session objects in the HSM, or sealed under a key that exists in a
// session of the HSM alone. Which of them, [Objects] knows.
//
// pci/intake moves a card in and gets back a [pci.CardRef]; packages of pci borrow it in locked memory for one
// call; [Store.Destroy] ends it. A card ends by itself at its deadline.
//
// # What is promised
//
// Between calls no digit of the card is in this process's memory. A reference works only together with the
// binding it was made for. A lost HSM session loses its cards: callers see [pci.ErrGone] and ask the shopper again.
//
// # What is not
//
// Custody is local to one appliance; a reference means nothing to another one, nor after a restart.
package custody

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
)

// Objects keeps byte strings that live as long as a session of an HSM. Its errors are those of package pci: what ended
// with its session is [pci.ErrGone], an HSM that does not answer is [pci.ErrUnavailable]. An error with
// a method Returned() <-chan struct{} says that the call was left while it goes on: its buffer is not touched before
// that channel is closed.
type Objects interface {
	// Create stores value for a binding and returns the object's handle.
	Create(ctx context.Context, value []byte, binding string) (handle uint64, err error)
	// Read copies the object's value into dst, which is longer by 16 bytes at least, and returns its length. binding is that
	// of Create; keepers that encrypt authenticate it.
	Read(ctx context.Context, handle uint64, dst []byte, binding string) (n int, err error)
	// Destroy ends the object.
	Destroy(ctx context.Context, handle uint64) error
}

// Locked memory of all packages of pci, in bytes: what [LockMemory] locks at once, and the most there may be of it.
const (
	LockedAtOnce = pan.SlotsLocked
	LockedMemory = pan.Locked
)

// LockMemory locks the memory of single cards now, so that a process that may not lock enough finds it out before it takes
// a card.
func LockMemory() error { return pan.LockSlots() }

// Config bounds a [Store].
type Config struct {
	Deadline time.Duration    // a card not destroyed by then is
	Capacity int              // cards held at once
	Now      func() time.Time // nil means [time.Now]
}

// Store keeps cards. It is safe for concurrent use.
type Store struct {
	objects Objects
	cfg     Config

	mu    sync.Mutex
	cards map[pci.CardRef]held
	// reserved counts cards that are on their way into the HSM, so that capacity is never exceeded.
	reserved int
	stats    Stats // without what is counted when it is asked for
}

type held struct {
	handle   uint64
	binding  string
	deadline time.Time
	ended    *uint64 // not nil: nobody may borrow it, and it is counted there when the HSM has destroyed it
}

// Stats are what became of all cards since the start. Each card that was taken is held or has ended in one way.
type Stats struct {
	Held     int // those included that have ended and that the HSM could not destroy yet
	Capacity int
	Oldest   time.Duration // age of the oldest card held; 0 where there is none

	Taken   uint64
	Used    uint64 // destroyed because their payment needed them no more
	Expired uint64 // destroyed at their deadline, or at the end of the process
	Lost    uint64 // ended with the HSM's session
	Failed  uint64 // attempts to destroy that the HSM did not carry out; each is made again
	Full    uint64 // cards refused because so many were held
}

// Stats returns the present ones.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Held, stats.Capacity = len(s.cards), s.cfg.Capacity
	for _, card := range s.cards {
		stats.Oldest = max(stats.Oldest, s.cfg.Now().Sub(card.deadline.Add(-s.cfg.Deadline)))
	}
	return stats
}

// New returns an empty store. Its owner runs [Store.Sweep].
func New(objects Objects, cfg Config) *Store {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Store{objects: objects, cfg: cfg, cards: make(map[pci.CardRef]held)}
}

func init() {
	lend.OfCustody = func(store any) lend.Custody { return lender{store.(*Store)} }
}

// Destroy ends the card behind ref: nobody can borrow it from now on, whatever the HSM says. A reference that names
// no card any more is no error. On an error (the HSM is away, ctx ended) [Store.Sweep] tries again until the object
// is gone.
func (s *Store) Destroy(ctx context.Context, ref pci.CardRef) error {
	s.mu.Lock()
	card, ok := s.cards[ref]
	if ok {
		card.ended = &s.stats.Used
		s.cards[ref] = card
	}
	s.mu.Unlock()
	if !ok {
		return nil
	}
	return s.end(ctx, ref, card)
}

// end destroys a card that nobody can borrow any more, and counts what became of it.
func (s *Store) end(ctx context.Context, ref pci.CardRef, card held) error {
	err := s.objects.Destroy(ctx, card.handle)
	switch {
	case errors.Is(err, pci.ErrGone):
		s.forget(ref, &s.stats.Lost)
	case err != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stats.Failed++
		return fmt.Errorf("destroy %s: %w", ref, err)
	default:
		s.forget(ref, card.ended)
	}
	return nil
}

// Sweep destroys cards at their deadline, and those that [Store.Destroy] could not, until ctx ends; then all that
// are left.
func (s *Store) Sweep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	reported := 0
	for {
		select {
		case <-tick.C:
			left, err := s.destroyUntil(ctx, s.cfg.Now())
			if left > reported { // not every second again while the HSM is away
				slog.ErrorContext(ctx, "cards that have ended are still in the HSM; destroying them is tried again", "cards", left, "error", err)
			}
			reported = left
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if left, err := s.destroyUntil(last, s.cfg.Now().Add(s.cfg.Deadline+time.Hour)); left > 0 {
				slog.ErrorContext(ctx, "cards are left in the HSM; they end with its session", "cards", left, "error", err)
			}
			return
		}
	}
}

// destroyUntil destroys what ends by t, and reports how many cards it could not destroy and why.
func (s *Store) destroyUntil(ctx context.Context, t time.Time) (left int, err error) {
	s.mu.Lock()
	due := make(map[pci.CardRef]held)
	for ref, card := range s.cards {
		if card.ended == nil && card.deadline.After(t) {
			continue
		}
		if card.ended == nil {
			card.ended = &s.stats.Expired
			s.cards[ref] = card
		}
		due[ref] = card
	}
	s.mu.Unlock()
	for ref, card := range due {
		if fault := s.end(ctx, ref, card); fault != nil {
			left, err = left+1, fault
		}
	}
	return left, err
}

func (s *Store) hold(ctx context.Context, card *pan.Card, binding string) (pci.CardRef, error) {
	s.mu.Lock()
	if len(s.cards)+s.reserved >= s.cfg.Capacity {
		s.stats.Full++
		s.mu.Unlock()
		return pci.CardRef{}, fmt.Errorf("custody: %w", pci.ErrFull)
	}
	s.reserved++
	s.mu.Unlock()

	handle, err := s.create(ctx, card, binding)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved--
	if err != nil {
		return pci.CardRef{}, fmt.Errorf("custody: hold card: %w", err)
	}
	s.stats.Taken++
	ref := pci.NewCardRef()
	s.cards[ref] = held{handle: handle, binding: binding, deadline: s.cfg.Now().Add(s.cfg.Deadline)}
	return ref, nil
}

// create moves the card into the HSM from a slot of its own: the card is the caller's, to be wiped when hold returns,
// and the HSM may be at work for longer.
func (s *Store) create(ctx context.Context, card *pan.Card, binding string) (handle uint64, err error) {
	slot, err := pan.NewSlot()
	if err != nil {
		return 0, err
	}
	defer func() { slot.ReleaseAfter(err) }()
	record := slot.Bytes()[:pan.RecordSize]
	copy(record, card.Record())
	return s.objects.Create(ctx, record, binding)
}

func (s *Store) lend(ctx context.Context, ref pci.CardRef, binding string, use func(*pan.Card) error) error {
	s.mu.Lock()
	card, ok := s.cards[ref]
	s.mu.Unlock()
	if !ok || card.ended != nil || card.binding != binding || !s.cfg.Now().Before(card.deadline) {
		return fmt.Errorf("custody: %w", pci.ErrGone)
	}
	slot, err := pan.NewSlot()
	if err != nil {
		return err
	}
	n, err := s.objects.Read(ctx, card.handle, slot.Bytes(), binding)
	if err != nil {
		slot.ReleaseAfter(err)
		if errors.Is(err, pci.ErrGone) {
			s.forget(ref, &s.stats.Lost)
		}
		return fmt.Errorf("custody: read card: %w", err)
	}
	if n != pan.RecordSize {
		slot.Release()
		return fmt.Errorf("custody: the HSM returned %d bytes for a record of %d", n, pan.RecordSize)
	}
	borrowed, err := pan.FromRecord(slot)
	if err != nil {
		return err
	}
	defer borrowed.Release()
	return use(borrowed)
}

// forget ends a card, once: it counts among those that ended so.
func (s *Store) forget(ref pci.CardRef, how *uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.cards[ref]; there {
		delete(s.cards, ref)
		*how++
	}
}

// lender shows the store to the packages of pci; see package lend.
type lender struct{ s *Store }

func (l lender) Hold(ctx context.Context, card *pan.Card, binding string) (pci.CardRef, error) {
	return l.s.hold(ctx, card, binding)
}

func (l lender) Lend(ctx context.Context, ref pci.CardRef, binding string, use func(*pan.Card) error) error {
	return l.s.lend(ctx, ref, binding, use)
}
