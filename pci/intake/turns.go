package intake

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/finterra/finpay/pci"
)

// A body that is being read holds locked memory for as long as its sender likes. These bounds keep senders who take
// their time from keeping everybody else's cards, and the sales and reversals under way, out of it.
const (
	formsAtOnce    = 80 // bodies read in one moment; each takes two slots in the end, of the 256 that there are
	formsOfPayment = 4
	cardsAtOnce    = 48 // by API, where only the body's slot is held for a slow sender
	cardsOfKey     = 32
	turnTimeout    = 5 * time.Second
)

// turns lets bodies be read by turns.
type turns struct {
	all  chan struct{}
	each int // of one binding at once

	mu  sync.Mutex
	per map[string]*queue // by binding, while somebody reads or waits
}

type queue struct {
	places chan struct{}
	users  int
}

func newTurns(all, each int) *turns {
	return &turns{all: make(chan struct{}, all), each: each, per: make(map[string]*queue)}
}

// take waits for a turn, which ends with the call of done. Without one in time it is [pci.ErrFull].
func (t *turns) take(ctx context.Context, binding string) (done func(), err error) {
	own := t.join(binding)
	// First the place among one's own: those who wait there must not hold one of everybody's.
	if err := enter(ctx, own.places); err != nil {
		t.leave(binding, own)
		return nil, err
	}
	if err := enter(ctx, t.all); err != nil {
		<-own.places
		t.leave(binding, own)
		return nil, err
	}
	return func() {
		<-t.all
		<-own.places
		t.leave(binding, own)
	}, nil
}

// enter takes a place, as soon as there is one.
func enter(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}: // hardly anybody waits
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("too many cards are being entered: %w", pci.ErrFull)
	}
}

func (t *turns) join(binding string) *queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.per[binding]
	if q == nil {
		q = &queue{places: make(chan struct{}, t.each)}
		t.per[binding] = q
	}
	q.users++
	return q
}

func (t *turns) leave(binding string, q *queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.users--; q.users == 0 {
		delete(t.per, binding)
	}
}
