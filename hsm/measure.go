package hsm

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/pkcs11"
)

// Timing is what calls into the module cost, as the median of several.
type Timing struct {
	// RoundTrip is the time of C_GenerateRandom for one byte, the cheapest call that the device itself must answer.
	RoundTrip time.Duration
	// Batches are calls of the block path, by growing size.
	Batches []BatchTime
}

// BatchTime is one C_EncryptUpdate on an open AES-ECB operation.
type BatchTime struct {
	Blocks int
	Time   time.Duration
}

// measureRounds is how many calls a median is taken of.
const measureRounds = 51

// Measure times the module with a throwaway session key. It disturbs others: not for use under load.
func (e *Engine) Measure(ctx context.Context) (Timing, error) {
	var t Timing
	err := e.withSession(ctx, func(s pkcs11.SessionHandle) error {
		var err error
		t = Timing{}
		if t.RoundTrip, err = median(func() error { _, err := e.module.GenerateRandom(s, 1); return err }); err != nil {
			return err
		}
		key, _, err := e.generateKey(s, Key{Role: "doctor", Version: 1}, Spec{Kind: AESEncrypt, Class: Bound}, false)
		if err == nil {
			err = e.direct.encryptInitECB(s, key)
		}
		if isDeviceFault(err) {
			return err
		}
		for _, n := range []int{1, 64, 1024} {
			if err != nil {
				break // the probe says what is wrong with the block path
			}
			buf := make([]byte, 16*n)
			_, _ = rand.Read(buf)
			var took time.Duration
			if took, err = median(func() error { return e.direct.encryptUpdate(s, buf, buf) }); err == nil {
				t.Batches = append(t.Batches, BatchTime{n, took})
			}
		}
		return nil
	})
	if err != nil {
		return Timing{}, fmt.Errorf("hsm: measure: %w", err)
	}
	return t, nil
}

func median(call func() error) (time.Duration, error) {
	times := make([]time.Duration, 0, measureRounds)
	for range measureRounds {
		begun := time.Now()
		if err := call(); err != nil {
			return 0, err
		}
		times = append(times, time.Since(begun))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

// MaxBatch is the largest batch that [Timing.Batch] recommends: more makes callers wait for no gain.
const MaxBatch = 4096

// Batch returns the number of blocks from which at most a tenth of a call's time is its fixed cost: t(n) = a + b·n,
// through the smallest and the largest batch that were measured, rounded up to a power of two. It is 0 where the block
// path could not be measured, and at most [MaxBatch].
func (t Timing) Batch() int {
	if len(t.Batches) < 2 {
		return 0
	}
	batch := 1
	for batch < MaxBatch && t.FixedShare(batch) > 0.1 {
		batch *= 2
	}
	return batch
}

// line returns a and b of t(n) = a + b·n, in nanoseconds.
func (t Timing) line() (fixed, each float64) {
	if len(t.Batches) < 2 {
		return 0, 0
	}
	first, last := t.Batches[0], t.Batches[len(t.Batches)-1]
	each = max(0, float64(last.Time-first.Time)/float64(last.Blocks-first.Blocks))
	return max(0, float64(first.Time)-each*float64(first.Blocks)), each
}

// FixedShare returns which part of the time of a call of n blocks is its fixed cost, 0 to 1.
func (t Timing) FixedShare(n int) float64 {
	fixed, each := t.line()
	if fixed == 0 {
		return 0
	}
	return fixed / (fixed + each*float64(n))
}

// At returns the expected time of a call of n blocks.
func (t Timing) At(n int) time.Duration {
	fixed, each := t.line()
	return time.Duration(fixed + each*float64(n))
}
