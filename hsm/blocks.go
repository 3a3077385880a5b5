package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// BlockCipher encrypts AES blocks under one key, over ECB operations that stay open on sessions of their own: a call of
// any number of blocks is a single round trip, on the caller's buffers. Where a provider does not serve an operation
// that stays open, each call begins one, which costs a second round trip. It is safe for concurrent use.
type BlockCipher struct {
	e     *Engine
	pool  *pool
	once  func(s *session, dst, src []byte) error // in place of an operation that stays open; nil where one does
	calls chan *blockCall                         // to use again
}

// BlockCipher returns a block cipher for an AES key. It finds out how this provider is served best, which takes some
// ten milliseconds. The caller ends it with [BlockCipher.Close]; closing the engine does too.
func (e *Engine) BlockCipher(ctx context.Context, key Key) (*BlockCipher, error) {
	oneShot, err := e.refusesKeptOpen(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("hsm: block cipher under %s: %w", key.Label(), err)
	}
	sessions, err := e.bestSessions(ctx, key, oneShot)
	if err != nil {
		return nil, fmt.Errorf("hsm: block cipher under %s: %w", key.Label(), err)
	}
	return e.blockCipher(key, oneShot, sessions), nil
}

func (e *Engine) blockCipher(key Key, oneShot bool, sessions int) *BlockCipher {
	if oneShot {
		b := e.openCiphers(sessions, nil)
		b.once = func(s *session, dst, src []byte) error { return e.encryptOnceOn(s, key, dst, src) }
		return b
	}
	return e.openCiphers(sessions, func(s *session) error {
		handle, err := e.resolve(s, key, pkcs11.CKO_SECRET_KEY)
		if err != nil {
			return err
		}
		return e.direct.encryptInitECB(s.handle, handle)
	})
}

// openCiphers returns a cipher over sessions on which open begins the operation that stays open. It is ended by closing
// the session: C_EncryptFinal misbehaves on some providers.
func (e *Engine) openCiphers(sessions int, open func(*session) error) *BlockCipher {
	return &BlockCipher{e: e, calls: make(chan *blockCall, keptCalls), pool: e.newPool(sessions, poolKind{prepare: open})}
}

// Sessions returns how many sessions the cipher uses.
func (b *BlockCipher) Sessions() int { return len(b.pool.workers) }

// KeptOpen reports whether the provider serves operations that stay open.
func (b *BlockCipher) KeptOpen() bool { return b.once == nil }

// EncryptBlocks encrypts src into dst, each 16 bytes on its own. Both have the same length, a multiple of 16, and
// may be the same slice. After an [AbandonedError] neither may be touched until it says so.
func (b *BlockCipher) EncryptBlocks(ctx context.Context, dst, src []byte) error {
	if len(src) == 0 || len(src)%16 != 0 || len(dst) != len(src) {
		return fmt.Errorf("hsm: %d bytes into %d: whole AES blocks are wanted", len(src), len(dst))
	}
	c := b.call()
	c.dst, c.src = dst, src
	err := b.pool.do(ctx, c.call)
	if c.call.state.Load() == finished { // else a worker has it still
		b.putBack(c)
	}
	return err
}

// keptCalls is how many calls are kept to be used again: callers beyond it cost an allocation.
const keptCalls = 64

func (b *BlockCipher) call() *blockCall {
	select {
	case c := <-b.calls:
		return c
	default:
		c := &blockCall{cipher: b}
		c.call = newCall(c)
		return c
	}
}

func (b *BlockCipher) putBack(c *blockCall) {
	c.dst, c.src = nil, nil
	c.call.state.Store(queued)
	c.call.left.Store(nil)
	select {
	case b.calls <- c:
	default:
	}
}

// Close ends the kept-open operations with their sessions.
func (b *BlockCipher) Close() {
	b.pool.close()
	b.pool.running.Wait()
	b.e.pools.remove(b.pool)
}

// blockCall is one EncryptBlocks on its way.
type blockCall struct {
	call     *call
	cipher   *BlockCipher
	dst, src []byte
}

// run implements [work]. It may run twice where dst is src: a module that refuses the session or the operation does so
// before it writes.
func (c *blockCall) run(s *session) error {
	if c.cipher.once != nil {
		return c.cipher.once(s, c.dst, c.src)
	}
	return c.cipher.e.direct.encryptUpdate(s.handle, c.dst, c.src)
}

// encryptOnce encrypts whole blocks by an operation that is begun and ended for them.
func (e *Engine) encryptOnce(ctx context.Context, key Key, dst, src []byte) error {
	return e.do(ctx, func(s *session) error { return e.encryptOnceOn(s, key, dst, src) })
}

func (e *Engine) encryptOnceOn(s *session, key Key, dst, src []byte) error {
	handle, err := e.resolve(s, key, pkcs11.CKO_SECRET_KEY)
	if err != nil {
		return err
	}
	if err := e.direct.encryptInitECB(s.handle, handle); err != nil {
		return err
	}
	return e.direct.encrypt(s.handle, dst, src)
}

var (
	// errKeptOpen means that an operation that stays open does not give what one that is begun anew does.
	errKeptOpen = errors.New("hsm: the provider's operations cannot stay open")
	// errEndSession has the worker close its session: the only way to end an operation that every provider takes.
	errEndSession = errors.New("hsm: the session has served")
)

// refusesKeptOpen tries whether blocks come back at once, and right, from an operation that stays open.
func (e *Engine) refusesKeptOpen(ctx context.Context, key Key) (bool, error) {
	in := make([]byte, 64)
	for i := range in {
		in[i] = byte(i)
	}
	want := make([]byte, len(in))
	if err := e.encryptOnce(ctx, key, want, in); err != nil {
		return false, err
	}
	err := e.do(ctx, func(s *session) error {
		handle, err := e.resolve(s, key, pkcs11.CKO_SECRET_KEY)
		if err != nil {
			return err
		}
		if err := e.direct.encryptInitECB(s.handle, handle); err != nil {
			return err
		}
		got := bytes.Clone(in)
		for from := 0; from < len(got) && err == nil; from += 32 {
			err = e.direct.encryptUpdate(s.handle, got[from:from+32], got[from:from+32])
		}
		_, short := errors.AsType[*lengthError](err)
		if short || isCode(err, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) || err == nil && !bytes.Equal(got, want) {
			return errKeptOpen
		}
		if err == nil {
			err = errEndSession
		}
		return err
	})
	switch {
	case errors.Is(err, errKeptOpen):
		return true, nil
	case errors.Is(err, errEndSession):
		return false, nil
	default:
		return false, err
	}
}

// Bounds of the measurement that finds the number of sessions.
const (
	measureBlocks = 64                   // a batch of ordinary size
	measureTime   = 4 * time.Millisecond // for each number of sessions, each time
	measureCalls  = 8                    // at least, of each caller
	measureTimes  = 3                    // that they take turns
	measureGain   = 1.25                 // what twice the sessions must bring to be worth them, each time
)

// bestSessions finds out whether the provider encrypts more over several sessions than over one. SoftHSM2 does not: it
// holds a lock around each call. An HSM behind a network does.
func (e *Engine) bestSessions(ctx context.Context, key Key, oneShot bool) (int, error) {
	n := 1
	for ; 2*n <= e.cfg.BlockSessions; n *= 2 {
		for range measureTimes { // in turns, so that a busy machine is busy for both
			few, err := e.measureSessions(ctx, key, oneShot, n)
			if err != nil {
				return 0, err
			}
			many, err := e.measureSessions(ctx, key, oneShot, 2*n)
			if err != nil {
				return 0, err
			}
			if many < few*measureGain {
				return n, nil
			}
		}
	}
	return n, nil
}

// measureSessions returns blocks a second over n sessions, once they are open.
func (e *Engine) measureSessions(ctx context.Context, key Key, oneShot bool, n int) (float64, error) {
	b := e.blockCipher(key, oneShot, n)
	defer b.Close()
	if _, err := b.keepBusy(ctx, n, 1, 0); err != nil {
		return 0, err
	}
	begun := time.Now()
	calls, err := b.keepBusy(ctx, n, measureCalls, measureTime)
	return float64(calls*measureBlocks) / time.Since(begun).Seconds(), err
}

// keepBusy has n callers encrypt for so long, and at least so many times each. It returns how many calls there were.
func (b *BlockCipher) keepBusy(ctx context.Context, n, least int, duration time.Duration) (calls int, failure error) {
	var group sync.WaitGroup
	var mu sync.Mutex
	begun := time.Now()
	for range n {
		group.Go(func() {
			buf := make([]byte, 16*measureBlocks)
			done := 0
			var err error
			for ; err == nil && (done < least || time.Since(begun) < duration); done++ {
				err = b.EncryptBlocks(ctx, buf, buf)
			}
			mu.Lock()
			defer mu.Unlock()
			calls += done
			failure = errors.Join(failure, err)
		})
	}
	group.Wait()
	return calls, failure
}
