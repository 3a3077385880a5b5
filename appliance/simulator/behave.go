package simulator

import (
	"cmp"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Fault is what goes wrong at a counterparty, whatever the card, until it is told otherwise. The empty one is none.
type Fault string

// Faults of the acquirer. All but [Deaf] and [Refusing] treat a request as always, book it, and spoil its answer; none but
// [NoEcho] and [Refusing] is about network management. Messages have no MAC here, so none can be wrong.
const (
	Slow           Fault = "slow"            // answers later, but in time: Behaviour.After
	TooLate        Fault = "late"            // answers after the appliance has given up
	Mute           Fault = "silent"          // does not answer
	Deaf           Fault = "deaf"            // requests get lost before they are booked
	HalfFrame      Fault = "half-frame"      // closes the connection in the middle of an answer
	AnswersTwice   Fault = "twice"           // answers two times
	OtherSTAN      Fault = "other-stan"      // answers under another trace number
	OtherAmount    Fault = "other-amount"    // answers about one minor unit more
	OtherCurrency  Fault = "other-currency"  // answers about another currency
	GarbledLength  Fault = "garbled-length"  // the length header is no length
	WrongLength    Fault = "wrong-length"    // the length header promises more than comes
	GarbledMessage Fault = "garbled-message" // the answer is no message
	NoEcho         Fault = "no-echo"         // echo tests are not answered
	Refusing       Fault = "refuse"          // connections are closed, and new ones refused
)

// Faults of the directory server.
const (
	Truncated Fault = "truncated" // the answer ends in the middle
	Dropped   Fault = "dropped"   // the connection is closed without an answer
)

// Faults of the issuer: what becomes of the result of a challenge. The shopper goes back as if it had arrived.
const (
	ResultNever Fault = "never" // it is not sent
	ResultTwice Fault = "twice" // it is sent two times
)

var (
	acquirerFaults = []Fault{Slow, TooLate, Mute, Deaf, HalfFrame, AnswersTwice, OtherSTAN, OtherAmount, OtherCurrency, GarbledLength, WrongLength,
		GarbledMessage, NoEcho, Refusing}
	directoryFaults = []Fault{Truncated, Dropped}
	issuerFaults    = []Fault{ResultNever, ResultTwice}
)

// Behaviour is what a counterparty is told, and tells.
type Behaviour struct {
	Fault Fault `json:"fault"`
	After int64 `json:"after_ms"` // of [Slow], in milliseconds
	Met   int   `json:"met"`      // how often the fault has struck
}

// behaviour keeps what one counterparty was told. The zero value does nothing wrong, and can be told nothing.
type behaviour struct {
	faults []Fault // that it knows

	mu      sync.Mutex
	now     Behaviour
	changed chan struct{} // closed at the next change; nil where nobody waits
}

// struck counts that the fault has struck, where it is one of these, and returns it; empty where it is none of them.
func (b *behaviour) struck(among ...Fault) Behaviour {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(among, b.now.Fault) {
		return Behaviour{}
	}
	b.now.Met++
	return b.now
}

// await waits until holds is true of the fault, or ctx ends.
func (b *behaviour) await(ctx context.Context, holds func(Fault) bool) {
	for {
		b.mu.Lock()
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		fault, changed := b.now.Fault, b.changed
		b.mu.Unlock()
		if holds(fault) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// tell changes what is done from now on, and returns what was.
func (b *behaviour) tell(next Behaviour) (before Behaviour) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, b.now = b.now, Behaviour{Fault: next.Fault, After: next.After}
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	return before
}

// ServeHTTP implements [http.Handler] for this machine alone: GET shows the [Behaviour], POST changes it and shows what it was.
func (b *behaviour) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		http.Error(w, "only from this machine", http.StatusForbidden)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		b.mu.Lock()
		now := b.now
		b.mu.Unlock()
		writeJSON(w, now)
	case http.MethodPost:
		var next Behaviour
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxMessage)).Decode(&next); err != nil {
			http.Error(w, "not a behaviour", http.StatusBadRequest)
			return
		}
		if next.Fault != "" && !slices.Contains(b.faults, next.Fault) {
			http.Error(w, "no such fault here", http.StatusUnprocessableEntity)
			return
		}
		writeJSON(w, b.tell(next))
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "GET or POST", http.StatusMethodNotAllowed)
	}
}

// after is how much later [Slow] answers.
func (b Behaviour) after() time.Duration {
	return cmp.Or(time.Duration(b.After)*time.Millisecond, 500*time.Millisecond)
}
