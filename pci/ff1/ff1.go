// Package ff1 is format-preserving encryption of decimal digits: FF1 of NIST SP 800-38G (radix 10), over an
// abstract AES encrypter whose key may be out of reach.
//
// # Lanes
//
// Strings advance together in lanes of a table, and each call to the encrypter takes every lane one round on: ten calls
// for a batch, whatever its size up to [MaxLanes]. Lanes need not be at the same round. Between two calls finished
// strings are written out and waiting ones take their lanes, so a string that comes while others are under way joins
// them at the next call, without a timer and without a wait of its own; so does one that walks its cycle, see [Target].
// Requests of a few strings have precedence, and while there are any, large ones get fewer lanes, so that a call
// stays short.
//
// # What is promised
//
// The digits on their way stand in locked memory, which is wiped when a string leaves its lane. A caller whose context
// ends leaves at once, and its memory is not touched after that. A call to the encrypter serves many callers and
// carries no caller's context. A string is replaced when it is finished, never half-way. Nothing is allocated for a
// string, nor for a request.
//
// After an error a request of one string has the digits it came with. In one of several, some may have been replaced:
// whoever cannot use a part keeps a copy.
//
// # Limits
//
// Strings have [MinDigits] to [MaxDigits] digits: SP 800-38G Rev. 1 (second draft) wants a domain of a million and
// more, and up to 18 digits 64-bit arithmetic is exact. A tweak has at most [MaxTweak] bytes. One that leaves the
// round's input one AES block, len(tweak) + 1 + b ≤ 16 with b the bytes of half a string, 2 to 4, costs nothing; a
// longer one costs one more call. Everything else is refused.
package ff1

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Lengths of numeral strings, and of tweaks in bytes (maxTlen of SP 800-38G, which leaves it to the implementation).
const (
	MinDigits = 6
	MaxDigits = 18
	MaxTweak  = 16
)

// MaxLanes is how many strings one call to the encrypter takes on at most. More of them go in turns.
const MaxLanes = 1024

// MaxWalk is how often a string is encrypted at most until its [Target] has it. A target set of a tenth of all
// strings is missed so often once in 10^457.
const MaxWalk = 10_000

var (
	// ErrClosed means that the cipher was closed before the strings were finished.
	ErrClosed = errors.New("ff1: the cipher is closed")
	// ErrWalk means that a string was encrypted [MaxWalk] times and its target had none of the results.
	ErrWalk = fmt.Errorf("ff1: the target set was not reached in %d encryptions", MaxWalk)
)

// Encrypter encrypts whole AES blocks under one key. src and dst have the same length, a multiple of 16, and may
// be the same slice. An error with a method Returned() <-chan struct{} says that the call was left while it goes on:
// neither slice is touched before that channel is closed.
type Encrypter interface {
	EncryptBlocks(ctx context.Context, dst, src []byte) error
}

// Target is a set of numeral strings that a permutation is to stay within (cycle walking, SP 800-38G has it from
// Black and Rogaway): a string of the set is encrypted until the result is in the set again, which is a permutation of
// the set. A string that is not in it to begin with leads to one that nothing leads back from.
//
// A target must be fit for concurrent use and stay valid after the request has ended. It must be quick: all lanes wait.
type Target interface {
	// Has says whether the set has a string, in ASCII. It must not keep it.
	Has(digits []byte) bool
}

// Lane is one numeral string to encrypt.
type Lane struct {
	Digits []byte // ASCII, replaced in place
	Tweak  []byte
	Target Target // nil for all strings of this length
}

// Cipher is FF1 under one key. It is safe for concurrent use; the strings of a request must not overlap.
type Cipher struct {
	aes    Encrypter
	tables []*table
	run    sync.WaitGroup
	// life is what a runner calls the encrypter with. It ends with the cipher alone, but it can end: an encrypter whose device
	// hangs may let go of such a call, and does not of one that cannot be left.
	life context.Context //nolint:containedctx // the cipher's own, not a caller's
	end  context.CancelFunc

	// turn is held by a table's owner between two calls, and while a caller takes its strings back: it guards requests
	// and lists. With many lanes that takes as long as a call.
	turn  sync.Mutex
	small list // requests that wait for lanes
	bulk  list

	// door is held for moments only, so that who comes and goes does not wait for turn, which it would lose to the owner
	// time and again. Who needs both takes turn first.
	door   sync.Mutex
	inbox  list     // requests that have come since the last turn
	free   *request // to be used again
	closed bool
	left   *sync.Cond // a table was given up by its owner
}

// New returns FF1 over aes, which is called from up to runners goroutines at once: as many as it serves faster than one.
// The caller ends it with [Cipher.Close].
func New(aes Encrypter, runners int) *Cipher {
	c := &Cipher{aes: aes}
	c.life, c.end = context.WithCancel(context.Background())
	c.left = sync.NewCond(&c.door)
	for range max(1, runners) {
		c.tables = append(c.tables, newTable(c))
	}
	return c
}

// Encrypt replaces the digits of each lane by their ciphertext.
func (c *Cipher) Encrypt(ctx context.Context, lanes []Lane) error {
	return c.crypt(ctx, lanes, encrypting)
}

// Decrypt undoes [Cipher.Encrypt].
func (c *Cipher) Decrypt(ctx context.Context, lanes []Lane) error {
	return c.crypt(ctx, lanes, decrypting)
}

// Close ends the cipher. Requests that are not finished fail with [ErrClosed]; Close waits for the calls under way, and
// for its goroutines.
func (c *Cipher) Close() {
	c.turn.Lock()
	c.door.Lock()
	first := !c.closed
	c.closed = true
	c.door.Unlock()
	c.fetch()
	c.refuse(ErrClosed)
	c.turn.Unlock()

	c.door.Lock()
	for _, t := range c.tables {
		for t.owned { // its owner fails its lanes after the call that it is in
			c.left.Wait()
		}
	}
	c.door.Unlock()
	if first {
		for _, t := range c.tables {
			close(t.hand)
			t.release()
		}
	}
	c.run.Wait()
	c.end()
}

// crypt takes a request through the lanes. A caller that cannot leave does the work itself where nobody is at it: to
// wake a runner and be woken by it costs as much as two rounds.
func (c *Cipher) crypt(ctx context.Context, lanes []Lane, dir direction) error {
	if err := check(lanes); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.door.Lock()
	if c.closed {
		c.door.Unlock()
		return ErrClosed
	}
	r := c.enter(lanes, dir)
	t := c.idle()
	itself := t != nil && ctx.Done() == nil
	if t != nil {
		t.owned = true
		if !itself {
			t.wake()
		}
	}
	c.door.Unlock()
	if itself {
		t.drive(r)
	}
	return c.await(ctx, r)
}

func check(lanes []Lane) error {
	if len(lanes) == 0 {
		return errors.New("ff1: no strings to encrypt")
	}
	for i := range lanes {
		l := &lanes[i]
		if n := len(l.Digits); n < MinDigits || n > MaxDigits {
			return fmt.Errorf("ff1: %d digits; %d to %d are served", n, MinDigits, MaxDigits)
		}
		if len(l.Tweak) > MaxTweak {
			return fmt.Errorf("ff1: a tweak of %d bytes; at most %d are served", len(l.Tweak), MaxTweak)
		}
		for _, d := range l.Digits {
			if d < '0' || d > '9' {
				return errors.New("ff1: not a numeral string")
			}
		}
	}
	return nil
}

// idle returns a table that nobody is at, or nil. The caller holds the door.
func (c *Cipher) idle() *table {
	for _, t := range c.tables {
		if !t.owned {
			return t
		}
	}
	return nil
}
