package acquiring

import (
	"context"
	"sync"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// key is what an answer is matched with its request by. mti is the answer's; terminal is empty where it is not
// a part of the match.
type key struct{ mti, stan, terminal string }

// query is a request as far as its answer must agree with it. Where the answer lacks a field, or the query does, it is
// not compared.
type query struct {
	key
	rrn      string // DE 37
	amount   string // DE 4, 12 digits
	currency string // DE 49; DE 50 of a reconciliation
}

// answer is what is kept of a message from the host: nothing of the card.
type answer struct {
	query
	code       string     // DE 39 as in the edition of 1987
	action     string     // DE 39 of the edition of 1993
	approval   string     // DE 38
	networkID  string     // the scheme's identifier of the transaction
	settlement string     // DE 66 of a reconciliation
	totals     pci.Totals // of a reconciliation
}

// String returns what the host answered, for errors.
func (a answer) String() string {
	if a.action != "" {
		return "action code " + a.action
	}
	return "response code " + a.code
}

// answerOf reads a message and wipes what it echoes of the card.
func (l layout) answerOf(m *iso8583.Message) answer {
	networkID := l.networkID(m)
	m.WipeCardData()
	a := answer{
		query: query{
			key:      key{mti: m.MTI(), stan: m.Text(11), terminal: m.Text(41)},
			rrn:      m.Text(37),
			amount:   m.Text(4),
			currency: m.Text(49),
		},
		code:      m.Text(39),
		approval:  m.Text(38),
		networkID: networkID,
	}
	of1993 := a.mti[0] == '1'
	if of1993 && a.code != "" {
		a.action, a.code = a.code, iso8583.ResponseCode(a.mti, a.code)
	}
	if a.mti[1] == '5' {
		a.currency, a.totals = m.Text(50), totalsOf(m)
		if a.settlement = m.Text(66); of1993 {
			a.settlement = settlementOf(a.action)
		}
	}
	return a
}

// fits reports whether a can be the answer to q.
func (q query) fits(a answer) bool {
	same := func(asked, answered string) bool { return asked == "" || answered == "" || asked == answered }
	return same(q.rrn, a.rrn) && same(q.amount, a.amount) && same(q.currency, a.currency)
}

// remembered is how many ended requests are known, to tell late and repeated answers from strange ones.
const remembered = 4096

// flights are the requests that wait for an answer.
type flights struct {
	mu      sync.Mutex
	waiting map[key]flight
	ended   map[key]bool // true: it was answered; false: it was given up
	order   []key        // of ended, the oldest at next once it is full
	next    int
	left    chan struct{} // has a value after a flight ended
	counts  Stats
}

type flight struct {
	query
	answer chan answer // has room for the one answer
}

func newFlights() *flights {
	return &flights{waiting: make(map[key]flight), ended: make(map[key]bool), left: make(chan struct{}, 1)}
}

// begin makes answers to q find their way. The caller ends it with giveUp.
func (f *flights) begin(q query) (<-chan answer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, busy := f.waiting[q.key]; busy {
		return nil, ErrInFlight
	}
	one := flight{query: q, answer: make(chan answer, 1)}
	f.waiting[q.key] = one
	return one.answer, nil
}

// giveUp ends a flight that has no answer. It does nothing to one that has.
func (f *flights) giveUp(k key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.waiting[k]; ok {
		f.end(k, false)
	}
}

// settle gives a to the request that it answers, or counts why there is none.
func (f *flights) settle(a answer, matchTerminal bool) {
	k := a.key
	if !matchTerminal {
		k.terminal = ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	one, ok := f.waiting[k]
	switch {
	case ok && one.fits(a):
		one.answer <- a
		f.end(k, true)
	case ok:
		f.counts.Mismatched++
	default:
		f.countStray(k)
	}
}

func (f *flights) countStray(k key) {
	switch answered, known := f.ended[k]; {
	case !known:
		f.counts.Unmatched++
	case answered:
		f.counts.Duplicate++
	default:
		f.counts.Late++
	}
}

// end moves a flight from the waiting to the ended ones. f.mu is held.
func (f *flights) end(k key, answered bool) {
	delete(f.waiting, k)
	if _, known := f.ended[k]; !known {
		if len(f.order) < remembered {
			f.order = append(f.order, k)
		} else {
			delete(f.ended, f.order[f.next])
			f.order[f.next] = k
			f.next = (f.next + 1) % remembered
		}
	}
	f.ended[k] = answered
	select {
	case f.left <- struct{}{}:
	default:
	}
}

// drain waits until no request waits any more, or ctx ends.
func (f *flights) drain(ctx context.Context) {
	for f.stats().InFlight > 0 {
		select {
		case <-f.left:
		case <-ctx.Done():
			return
		}
	}
}

func (f *flights) stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.counts
	s.InFlight = len(f.waiting)
	return s
}
