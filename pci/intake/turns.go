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
	atOnce           = 96 // bodies read in one moment; each takes two slots in the end, of the 256 that there are
	atOnceForBinding = 4  // of which for one payment
	turnTimeout      = 5 * time.Second
)

// turns lets bodies be read by turns.
type turns struct {
	all chan struct{}

	mu  sync.Mutex
	per map[string]*queue // by binding, while somebody reads or waits
}

type queue struct {
	places chan struct{}
	users  int
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, atOnce), per: make(map[string]*queue)}
}

// take waits for a turn, which ends with the call of done. Without one in time it is [pci.ErrFull].
func (t *turns) take(ctx context.Context, binding string) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	own := t.join(binding)
	// First the place among one's own: those who wait there must not hold one of everybody's.
	for _, places := range []chan struct{}{own.places, t.all} {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			if places == t.all {
				<-own.places
			}
			t.leave(binding, own)
			return nil, fmt.Errorf("too many cards are being entered: %w", pci.ErrFull)
		}
	}
	return func() {
		<-t.all
		<-own.places
		t.leave(binding, own)
	}, nil
}

func (t *turns) join(binding string) *queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.per[binding]
	if q == nil {
		q = &queue{places: make(chan struct{}, atOnceForBinding)}
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
