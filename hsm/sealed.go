package hsm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"
)

// Sealed keeps byte strings as [Objects] does, on HSMs that have no data objects or too few: encrypted, in this process's
// memory, under a key that exists in one session of the HSM alone. The key is made there when it is wanted first. It is
// sensitive, not extractable, never on the hsm token and in no book; with its session it is gone, and with it all that
// was sealed. That session runs nothing else. It is safe for concurrent use.
//
// The construction is the profile's, as of [AEAD]. What is sealed or opened goes straight between the caller's buffer and
// the module. Nonces are a counter, which AES-GCM asks to be unique under a key and no more (NIST SP 800-38D, section
// 8.2.1): the key is used by this counter alone.
type Sealed struct {
	e    *Engine
	pool *pool

	mu   sync.Mutex
	key  *sealingKey // nil before the first value, and after its session has ended
	live map[uint64]sealedValue
}

// sealingKey is the key of one session.
type sealingKey struct {
	session *session
	handle  pkcs11.ObjectHandle
	epoch   uint64 // the login under which the handle was last proved
	uses    uint64 // nonces that were given out
	proof   []byte // the sealed empty string, to tell this key from another one with its handle
}

type sealedValue struct {
	key   *sealingKey
	use   uint64 // the nonce
	bytes []byte // encrypted, and the tag
}

// sealedLabel opens what is authenticated with each value, so that a ciphertext of another use of AES never passes for one.
const sealedLabel = "finpay sealed v1"

// NewSealed returns an empty keeper of sealed values. It ends with the engine.
func (e *Engine) NewSealed() *Sealed {
	return &Sealed{e: e, pool: e.newPool(1, poolKind{keeps: true, operates: true}), live: make(map[uint64]sealedValue)}
}

// Create seals value, which must not be empty, for context, and returns its id. After an [AbandonedError] the buffer may
// not be touched until it says so.
func (k *Sealed) Create(ctx context.Context, value []byte, context string) (uint64, error) {
	if len(value) == 0 {
		return 0, errors.New("hsm: an empty value cannot be stored")
	}
	var made sealedValue
	err := k.pool.do(ctx, newCall(workFunc(func(s *session) (err error) {
		made, err = k.seal(s, value, context)
		return err
	})))
	if err != nil {
		return 0, fmt.Errorf("hsm: seal a value: %w", err)
	}
	id := randomID()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.live[id] = made
	return id, nil
}

// Read opens the value into dst, which is at least 16 bytes longer than it, since a module may want room for the tag, and
// returns its length. A value whose key
// ended with its session, or that was sealed for another context, is [ErrLost]. After an [AbandonedError] dst may not be
// touched until it says so.
func (k *Sealed) Read(ctx context.Context, id uint64, dst []byte, context string) (n int, err error) {
	k.mu.Lock()
	value, ok := k.live[id]
	k.mu.Unlock()
	if !ok {
		return 0, fmt.Errorf("hsm: open a value: %w", ErrLost)
	}
	if len(dst) < len(value.bytes) {
		return 0, fmt.Errorf("hsm: a buffer of %d bytes is too small for the value", len(dst))
	}
	opened := 0 // not n: a call that was left may write it later
	err = k.pool.do(ctx, newCall(workFunc(func(s *session) (err error) {
		opened, err = k.open(s, value, dst, context)
		return err
	})))
	if isCode(err, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_OBJECT_HANDLE_INVALID) {
		k.forgetKey(value.key)
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	if err != nil {
		if errors.Is(err, ErrLost) {
			k.forget(id)
		}
		return 0, fmt.Errorf("hsm: open a value: %w", err)
	}
	return opened, nil
}

// Destroy ends the value. The HSM is not asked: without its ciphertext there is nothing to open.
func (k *Sealed) Destroy(_ context.Context, id uint64) error {
	if !k.forget(id) {
		return fmt.Errorf("hsm: destroy a value: %w", ErrLost)
	}
	return nil
}

func (k *Sealed) forget(id uint64) (was bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	value, was := k.live[id]
	clear(value.bytes)
	delete(k.live, id)
	return was
}

func (k *Sealed) seal(s *session, value []byte, context string) (sealedValue, error) {
	key, err := k.usable(s)
	if err == nil && key == nil {
		key, err = k.generate(s)
	}
	if err != nil {
		return sealedValue{}, err
	}
	sealed, err := k.sealUnder(s, key, value, context)
	if isCode(err, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_OBJECT_HANDLE_INVALID) {
		k.forgetKey(key) // so that the next try makes another
	}
	return sealed, err
}

func (k *Sealed) sealUnder(s *session, key *sealingKey, value []byte, context string) (sealedValue, error) {
	key.uses++ // one worker seals at a time
	sealed := sealedValue{key: key, use: key.uses, bytes: make([]byte, len(value)+gcmTagSize)}
	n, err := k.crypt(s, key, true, sealed.bytes, sealed.use, value, context)
	if err == nil && n != len(sealed.bytes) {
		err = &lengthError{"C_Encrypt", n, len(sealed.bytes)}
	}
	if err != nil {
		clear(sealed.bytes) // whatever the module has left there
		return sealedValue{}, err
	}
	return sealed, nil
}

func (k *Sealed) open(s *session, value sealedValue, dst []byte, context string) (int, error) {
	key, err := k.usable(s)
	if err != nil {
		return 0, err
	}
	if key == nil || key != value.key {
		return 0, ErrLost
	}
	n, err := k.crypt(s, key, false, dst, value.use, value.bytes, context)
	if err != nil {
		clear(dst)
	}
	if errors.Is(err, ErrNotAuthentic) {
		return 0, fmt.Errorf("%w: %w", ErrLost, err)
	}
	return n, err
}

// usable returns the session's key; nil where there is none yet, or none any more. After another login its handle may mean
// another key, so it is proved.
func (k *Sealed) usable(s *session) (*sealingKey, error) {
	k.mu.Lock()
	key := k.key
	k.mu.Unlock()
	if key == nil || key.session != s {
		return nil, nil
	}
	epoch := k.e.login.epoch.Load()
	if key.epoch == epoch {
		return key, nil
	}
	_, err := k.crypt(s, key, false, make([]byte, 1+gcmTagSize), 0, key.proof, "")
	switch {
	case err == nil:
		key.epoch = epoch
		return key, nil
	case errors.Is(err, ErrNotAuthentic), isCode(err, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED):
		k.forgetKey(key)
		return nil, nil
	default:
		return nil, err
	}
}

// sealingSpec is what the key is.
var sealingSpec = Spec{Role: RoleCustody, Kind: AESWrap, Class: Bound}

func (k *Sealed) generate(s *session) (*sealingKey, error) {
	handle, _, err := k.e.generateKey(s.handle, Key{Role: RoleCustody, Version: 1}, sealingSpec, false)
	if err != nil {
		return nil, err
	}
	key := &sealingKey{session: s, handle: handle, epoch: k.e.login.epoch.Load(), proof: make([]byte, 1+gcmTagSize)}
	if _, err := k.crypt(s, key, true, key.proof, 0, make([]byte, 1), ""); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key = key
	return key, nil
}

func (k *Sealed) forgetKey(key *sealingKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key == key {
		k.key = nil
	}
}

func (k *Sealed) crypt(s *session, key *sealingKey, encrypt bool, dst []byte, use uint64, in []byte, context string) (int, error) {
	format, size := formatGCM, gcmNonceSize
	if k.e.cfg.Profile.construction() == EAX {
		format, size = formatEAX, eaxNonceSize
	}
	nonce := make([]byte, size)
	binary.BigEndian.PutUint64(nonce[size-8:], use)
	return k.e.cryptInto(s.handle, key.handle, format, encrypt, dst, nonce, in, []byte(sealedLabel+context))
}
