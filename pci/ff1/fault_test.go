package ff1

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"
)

type failing struct {
	software
	after int
}

var errAway = errors.New("away")

func (f *failing) EncryptBlocks(ctx context.Context, dst, src []byte) error {
	if f.after--; f.after == -1 {
		return errAway
	}
	return f.software.EncryptBlocks(ctx, dst, src)
}

func TestAFaultInAnyRoundLeavesTheDigitsAlone(t *testing.T) {
	for round := range 12 { // E(P), the tweak's first block, ten rounds
		c := newCipher(t, &failing{anyKey(t), round})
		lanes := []Lane{
			{Digits: []byte("0123456789"), Tweak: []byte("a tweak of 16 by")},
			{Digits: []byte("9876543210"), Tweak: []byte("a tweak of 16 by")},
		}
		if err := c.Encrypt(t.Context(), lanes); !errors.Is(err, errAway) {
			t.Fatalf("call %d: %v", round, err)
		}
		if string(lanes[0].Digits) != "0123456789" || string(lanes[1].Digits) != "9876543210" {
			t.Errorf("call %d: half-encrypted digits were left behind", round)
		}
		if err := c.Encrypt(t.Context(), lanes); err != nil || string(lanes[0].Digits) == "0123456789" {
			t.Errorf("after a fault in call %d: %s, %v", round, lanes[0].Digits, err)
		}
	}
}

// left is the error of a call that its caller has left while the HSM goes on.
type left struct{ returned chan struct{} }

func (*left) Error() string               { return "left" }
func (l *left) Returned() <-chan struct{} { return l.returned }

// late is left in one call, and keeps its buffer.
type late struct {
	software
	after  int
	error  *left
	buffer []byte
}

func (l *late) EncryptBlocks(ctx context.Context, dst, src []byte) error {
	if l.after--; l.after == -1 {
		l.buffer = dst
		return l.error
	}
	return l.software.EncryptBlocks(ctx, dst, src)
}

// What an HSM writes after its caller has left changes nothing that is used again: neither E(P), which is kept, nor
// another batch's blocks.
func TestABufferThatTheHSMStillUsesIsNotUsed(t *testing.T) {
	right := newCipher(t, anyKey(t))
	for call := range 12 {
		aes := &late{software: anyKey(t), after: call, error: &left{make(chan struct{})}}
		c := newCipher(t, aes)
		lane := func() []Lane { return []Lane{{Digits: []byte("0123456789"), Tweak: []byte("a tweak of 16 by")}} }
		first := lane()
		if err := c.Encrypt(t.Context(), first); !errors.Is(err, aes.error) {
			t.Fatalf("call %d: %v", call, err)
		}
		again, want := lane(), lane()
		for i := range aes.buffer {
			aes.buffer[i] = 0xff
		}
		if err := errors.Join(c.Encrypt(t.Context(), again), right.Encrypt(t.Context(), want)); err != nil {
			t.Fatal(err)
		}
		if string(again[0].Digits) != string(want[0].Digits) {
			t.Errorf("left in call %d, the next encryption gives %s, want %s", call, again[0].Digits, want[0].Digits)
		}
		if string(first[0].Digits) != "0123456789" {
			t.Errorf("left in call %d: half-encrypted digits", call)
		}
		close(aes.error.returned)
	}
}

// callers marks the contexts of callers.
type callers struct{}

// gated lets each call in through a gate, and tells how many blocks it has.
type gated struct {
	software
	calls chan int
	gate  chan struct{}
}

func newGated(t testing.TB) *gated {
	return &gated{anyKey(t), make(chan int), make(chan struct{})}
}

func (g *gated) EncryptBlocks(ctx context.Context, dst, src []byte) error {
	if ctx.Value(callers{}) != nil {
		return errors.New("the call carries a caller's context")
	}
	g.calls <- len(src) / 16
	<-g.gate
	return g.software.EncryptBlocks(ctx, dst, src)
}

// open lets all further calls pass.
func (g *gated) open() {
	close(g.gate)
	go func() {
		for range g.calls {
		}
	}()
}

func TestWhoLeavesAHangingCallLeavesAtOnce(t *testing.T) {
	g := newGated(t)
	c := New(g, 1)
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), callers{}, true))
	lane := Lane{Digits: []byte("0123456789")}
	ended := make(chan error)
	go func() { ended <- c.Encrypt(ctx, []Lane{lane}) }()
	<-g.calls
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	lane.Digits[0] = 'x' // the caller's again: the race detector would see another's hand
	g.open()
	defer close(g.calls)
	other := Lane{Digits: []byte("0123456789")}
	if err := c.Encrypt(leaving(t), []Lane{other}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if string(lane.Digits) != "x123456789" {
		t.Error("a string that was given up was written to")
	}
}

func TestAStringJoinsThoseUnderWayAtTheNextCall(t *testing.T) {
	g := newGated(t)
	c := New(g, 1)
	results := make(chan error, 3)
	submit := func() {
		go func() { results <- c.Encrypt(leaving(t), []Lane{{Digits: []byte("0123456789")}}) }()
	}
	waits := func(n int) {
		for {
			c.door.Lock()
			found := 0
			for r := c.inbox.first; r != nil; r = r.succ {
				found++
			}
			c.door.Unlock()
			if found == n {
				return
			}
			runtime.Gosched()
		}
	}
	submit()
	if n := <-g.calls; n != 1 {
		t.Fatalf("%d blocks in the first call", n)
	}
	submit()
	submit()
	waits(2)
	g.gate <- struct{}{}
	if n := <-g.calls; n != 3 {
		t.Errorf("%d blocks in the second call, want the first string and the two that came", n)
	}
	g.open()
	defer close(g.calls)
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	c.Close()
}

// A single string that comes while a large request has all lanes makes the calls short, and is finished long before it.
func TestASingleStringIsNotKeptBehindALargeRequest(t *testing.T) {
	g := newGated(t)
	c := New(g, 1)
	bulk := make([]Lane, 8*MaxLanes)
	for i := range bulk {
		bulk[i].Digits = []byte("0123456789")
	}
	ended, single := make(chan error, 1), make(chan error, 1)
	go func() { ended <- c.Encrypt(leaving(t), bulk) }()
	if n := <-g.calls; n != MaxLanes {
		t.Fatalf("the large request has %d lanes, want all", n)
	}
	go func() { single <- c.Encrypt(leaving(t), []Lane{{Digits: []byte("012345"), Tweak: []byte("t")}}) }()
	for came := false; !came; runtime.Gosched() {
		c.door.Lock()
		came = c.inbox.first != nil
		c.door.Unlock()
	}
	for call := range 40 {
		g.gate <- struct{}{}
		if n := <-g.calls; call > 2*rounds && n > bulkShare+1 {
			t.Errorf("call %d has %d blocks, want at most %d", call, n, bulkShare+1)
		}
	}
	if err := <-single; err != nil {
		t.Error(err)
	}
	if len(ended) > 0 {
		t.Error("the large request was finished first")
	}
	g.open()
	defer close(g.calls)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	c.Close()
}

// recorder notes how many blocks each call has.
type recorder struct {
	software
	sizes []int
}

func (r *recorder) EncryptBlocks(ctx context.Context, dst, src []byte) error {
	r.sizes = append(r.sizes, len(src)/16)
	return r.software.EncryptBlocks(ctx, dst, src)
}

func TestFreedLanesAreFilledAgain(t *testing.T) {
	r := &recorder{software: anyKey(t)}
	c := newCipher(t, r)
	lanes := make([]Lane, 2*MaxLanes)
	for i := range lanes {
		lanes[i] = Lane{Digits: []byte("012345678"), Target: thirds{}}
		lanes[i].Tweak = []byte{byte(i), byte(i >> 8)}
	}
	if err := c.Encrypt(context.Background(), lanes); err != nil {
		t.Fatal(err)
	}
	total, full := 0, 0
	for _, n := range r.sizes {
		total += n
		if n == MaxLanes {
			full++
		}
		if n > MaxLanes {
			t.Fatalf("a call of %d blocks", n)
		}
	}
	// Three walks each, so 60 calls' worth: none of them is short while strings wait.
	if full < 30 || total < 50*MaxLanes {
		t.Errorf("%d of %d calls were full, %d blocks in all", full, len(r.sizes), total)
	}
}

func TestLanesAreWipedWhenTheyAreFree(t *testing.T) {
	for _, aes := range []Encrypter{anyKey(t), &failing{anyKey(t), 5}} {
		c := New(aes, 1)
		lanes := make([]Lane, 100)
		for i := range lanes {
			lanes[i].Digits = []byte("0123456789")
		}
		if err := c.Encrypt(context.Background(), lanes); err != nil && !errors.Is(err, errAway) {
			t.Fatal(err)
		}
		table := c.tables[0]
		if memory := table.memory.Bytes(); !bytes.Equal(memory, make([]byte, len(memory))) {
			t.Error("halves of strings were left behind")
		}
		if !bytes.Equal(table.blocks, make([]byte, len(table.blocks))) {
			t.Error("blocks were left behind")
		}
		c.Close()
	}
}
