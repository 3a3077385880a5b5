package hsm

import (
	"context"

	"github.com/miekg/pkcs11"
)

// EndSession ends the session of the objects behind their keeper's back, as an HSM does that restarts.
func (o *Objects) EndSession() error {
	return o.e.module.CloseSession(o.pool.workers[0].session.handle)
}

// Live returns the number of objects that the keeper knows.
func (o *Objects) Live() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.live)
}

// SessionKey makes an AES key that lives as long as the session of the only worker.
func (e *Engine) SessionKey(ctx context.Context) (handle pkcs11.ObjectHandle, err error) {
	err = e.do(ctx, func(s *session) error {
		handle, err = e.module.GenerateKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true)})
		return err
	})
	return handle, err
}

// InitAndEncrypt is the way without an operation that stays open.
func (e *Engine) InitAndEncrypt(ctx context.Context, key pkcs11.ObjectHandle, buf []byte) error {
	return e.do(ctx, func(s *session) error {
		if err := e.direct.encryptInitECB(s.handle, key); err != nil {
			return err
		}
		return e.direct.encrypt(s.handle, buf, buf)
	})
}

// Handle returns the number of the session over which the objects live, or of one of a cipher's.
func (o *Objects) Handle() uint { return uint(o.pool.workers[0].session.handle) }

// Handle returns the number of the cipher's first session.
func (b *BlockCipher) Handle() uint { return uint(b.pool.workers[0].session.handle) }

// ObjectHandle returns the module's number of an object.
func (o *Objects) ObjectHandle(id uint64) uint { return uint(o.made(id).handle) }

// Settled reports whether the supervisor has nothing to do.
func (e *Engine) Settled() bool { return len(e.trips) == 0 && !e.looking.Load() && e.gate.isOpen() }

// BlockCipherOf returns a cipher with one session, without measuring.
func (e *Engine) BlockCipherOf(key Key) *BlockCipher { return e.blockCipher(key, false, 1) }

// OpenAndClose opens a session and closes it.
func (e *Engine) OpenAndClose() {
	if s, err := e.openSession(0); err == nil {
		e.closeSession(s)
	}
}

// Handle returns the number of the session of the first worker for signatures and MACs.
func (e *Engine) Handle() uint { return uint(e.general.workers[0].session.handle) }

// Orphans returns how many objects wait to be destroyed.
func (o *Objects) Orphans() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.orphans)
}

// EndSession ends the session of the sealing key behind its keeper's back.
func (k *Sealed) EndSession() error {
	return k.e.module.CloseSession(k.pool.workers[0].session.handle)
}

// Live returns the number of values that the keeper knows.
func (k *Sealed) Live() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.live)
}

// Forge has every use of the sealing key look as if it came after another login, under a handle that means another key.
func (k *Sealed) Forge(handle pkcs11.ObjectHandle) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key.handle, k.key.epoch = handle, k.key.epoch-1
}

// Relogged has the sealing key look as if another login had been made since.
func (k *Sealed) Relogged() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key.epoch--
}

// Ciphertext returns what is kept of a value.
func (k *Sealed) Ciphertext(id uint64) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.live[id].bytes
}
