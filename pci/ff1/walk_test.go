package ff1

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// even is the set of even numbers.
type even struct{}

func (even) Has(digits []byte) bool { return digits[len(digits)-1]%2 == 0 }

// nothing is the empty set.
type nothing struct{}

func (nothing) Has([]byte) bool { return false }

// thirds is the set of multiples of three.
type thirds struct{}

func (thirds) Has(digits []byte) bool {
	sum := 0
	for _, d := range digits {
		sum += int(d - '0')
	}
	return sum%3 == 0
}

func TestAWalkIsAPermutationOfItsTarget(t *testing.T) {
	soft := anyKey(t)
	c := newCipher(t, soft)
	oracle := reference{soft.Block, 10}
	rapid.Check(t, func(t *rapid.T) {
		lanes := make([]Lane, rapid.IntRange(1, 40).Draw(t, "lanes"))
		want := make([]string, len(lanes))
		plain := make([]string, len(lanes))
		for i := range lanes {
			x := fmt.Sprintf("%08d", 6*rapid.IntRange(0, 16_000_000).Draw(t, "number"))
			target := rapid.SampledFrom([]Target{even{}, thirds{}, nil}).Draw(t, "target")
			lanes[i] = Lane{Digits: []byte(x), Tweak: []byte("tweak"), Target: target}
			plain[i], want[i] = x, oracle.encrypt(lanes[i].Tweak, x)
			for target != nil && !target.Has([]byte(want[i])) {
				want[i] = oracle.encrypt(lanes[i].Tweak, want[i])
			}
		}
		if err := c.Encrypt(context.Background(), lanes); err != nil {
			t.Fatal(err)
		}
		for i := range lanes {
			if string(lanes[i].Digits) != want[i] {
				t.Fatalf("%s walks to %s, want %s", plain[i], lanes[i].Digits, want[i])
			}
		}
		if err := c.Decrypt(context.Background(), lanes); err != nil {
			t.Fatal(err)
		}
		for i := range lanes {
			if string(lanes[i].Digits) != plain[i] {
				t.Fatalf("walked back to %s, want %s", lanes[i].Digits, plain[i])
			}
		}
	})
}

func TestAWalkWithoutAnEndIsRefused(t *testing.T) {
	c := newCipher(t, anyKey(t))
	lane := Lane{Digits: []byte("12345678"), Target: nothing{}}
	if err := c.Encrypt(t.Context(), []Lane{lane}); !errors.Is(err, ErrWalk) {
		t.Errorf("%v, want ErrWalk", err)
	}
	if string(lane.Digits) != "12345678" {
		t.Errorf("the digits have become %s", lane.Digits)
	}
	other := Lane{Digits: []byte("12345678")}
	if err := c.Encrypt(t.Context(), []Lane{other}); err != nil || string(other.Digits) == "12345678" {
		t.Errorf("the next one: %s, %v", other.Digits, err)
	}
}

// endless counts how often it is asked, and asks its caller to leave.
type endless struct {
	leave func()
	asked int
}

// patient waits with the walk until its caller has left.
type patient struct {
	software
	target *endless
	left   chan struct{}
}

func (p patient) EncryptBlocks(ctx context.Context, dst, src []byte) error {
	if p.target.asked >= 3 {
		<-p.left
	}
	return p.software.EncryptBlocks(ctx, dst, src)
}

func (e *endless) Has([]byte) bool {
	if e.asked++; e.asked == 3 {
		e.leave()
	}
	return false
}

func TestAWalkEndsWhenItsCallerLeaves(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	target := &endless{leave: cancel}
	left := make(chan struct{})
	c := New(patient{anyKey(t), target, left}, 1)
	lane := Lane{Digits: []byte("12345678"), Target: target}
	if err := c.Encrypt(ctx, []Lane{lane}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	close(left)
	c.Close()
	if string(lane.Digits) != "12345678" {
		t.Errorf("the digits have become %s", lane.Digits)
	}
	if target.asked < 3 {
		t.Errorf("it was asked %d times", target.asked)
	}
}
