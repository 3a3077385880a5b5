package hsm

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

const (
	gcmNonceSize = 12
	gcmTagSize   = 16
)

// The first byte of a ciphertext.
const (
	formatGCM byte = 1
	formatEAX byte = 2
)

// aeadHeaderSize is the format byte and the key's version, 4 bytes, big endian.
const aeadHeaderSize = 5

// aeadLabel opens what is authenticated. Tink wraps its data keys with empty associated data, which SoftHSM2's AES-GCM
// does not take, and a ciphertext of another use of the key must not pass for one of these.
const aeadLabel = "finpay aead v1"

// AEAD is authenticated encryption under the versions of a role's key of kind [AESWrap], in the form of Tink's
// tink.AEAD. A ciphertext is
//
//	format (1 byte) ‖ key version (4) ‖ nonce ‖ encrypted bytes ‖ tag (16)
//
// with format 1 for AES-GCM (NIST SP 800-38D, 96-bit nonce) and 2 for AES-EAX (128-bit nonce); format and version are
// authenticated. Which one new ciphertexts have is the [Profile]'s; both are read. Nonces are random, so AES-GCM serves
// at most 2^32 encryptions under one key; as the key encryption key of an envelope it is asked far less.
type AEAD struct {
	e      *Engine
	active Key
	keys   map[uint32]Key
}

// AEAD encrypts under active, and decrypts what was encrypted under active or one of older, which are versions of the
// same role.
func (e *Engine) AEAD(active Key, older ...Key) *AEAD {
	a := &AEAD{e: e, active: active, keys: map[uint32]Key{active.Version: active}}
	for _, key := range older {
		a.keys[key.Version] = key
	}
	return a
}

// Encrypt implements tink.AEAD with [DefaultCallTimeout].
func (a *AEAD) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	format, size := formatGCM, gcmNonceSize
	if a.e.cfg.Profile.construction() == EAX {
		format, size = formatEAX, eaxNonceSize
	}
	header := binary.BigEndian.AppendUint32([]byte{format}, a.active.Version)
	nonce := make([]byte, size)
	_, _ = rand.Read(nonce) // crypto/rand never fails since Go 1.24
	sealed, err := a.crypt(a.active, true, header, nonce, plaintext, associatedData)
	if err != nil {
		return nil, fmt.Errorf("hsm: encrypt with %s: %w", a.active.Label(), err)
	}
	return slices.Concat(header, nonce, sealed), nil
}

// Decrypt implements tink.AEAD with [DefaultCallTimeout].
func (a *AEAD) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	if len(ciphertext) < aeadHeaderSize {
		return nil, errors.New("hsm: the ciphertext is too short")
	}
	header, rest := ciphertext[:aeadHeaderSize], ciphertext[aeadHeaderSize:]
	size := gcmNonceSize
	switch header[0] {
	case formatGCM:
	case formatEAX:
		size = eaxNonceSize
	default:
		return nil, fmt.Errorf("hsm: a ciphertext of format %d is not known here", header[0])
	}
	version := binary.BigEndian.Uint32(header[1:])
	key, ok := a.keys[version]
	if !ok {
		return nil, fmt.Errorf("hsm: the ciphertext is under version %d of %s, which is not in use here", version, a.active.Role)
	}
	if len(rest) < size+gcmTagSize { // both constructions have tags of 16 bytes
		return nil, errors.New("hsm: the ciphertext is too short")
	}
	plain, err := a.crypt(key, false, header, rest[:size], rest[size:], associatedData)
	if err != nil {
		return nil, fmt.Errorf("hsm: decrypt with %s: %w", key.Label(), err)
	}
	return plain, nil
}

func (a *AEAD) crypt(key Key, encrypt bool, header, nonce, in, associatedData []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), DefaultCallTimeout)
	defer cancel()
	additional := slices.Concat([]byte(aeadLabel), header, associatedData)
	in, nonce = slices.Clone(in), slices.Clone(nonce) // the caller may leave before the call has ended
	var out []byte
	err := a.e.do(ctx, func(s *session) error {
		handle, err := a.e.resolve(s, key, pkcs11.CKO_SECRET_KEY)
		if err != nil {
			return err
		}
		out, err = a.e.cryptAEAD(s.handle, handle, header[0], encrypt, nonce, in, additional)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// cryptAEAD seals or opens in on a session; see cryptInto.
func (e *Engine) cryptAEAD(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, format byte, encrypt bool, nonce, in, additional []byte) ([]byte, error) {
	out := make([]byte, len(in)+gcmTagSize) // room for a module that wants more than it writes
	n, err := e.cryptInto(s, key, format, encrypt, out, nonce, in, additional)
	if err != nil {
		return nil, err
	}
	return out[:n], nil
}

// cryptInto seals or opens in into dst and returns the length: in's and the tag's, or in's without it. Decrypting, every
// refusal of what was handed in is ErrNotAuthentic: some modules answer a bad tag with GENERAL_ERROR, which must not look
// like a lost device.
func (e *Engine) cryptInto(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, format byte, encrypt bool, dst, nonce, in, additional []byte) (n int, err error) {
	if format == formatEAX {
		err := e.overECB(s, key, func(blocks encryptBlocks) (err error) {
			if encrypt {
				n, err = eaxSealInto(blocks, dst, nonce, additional, in)
			} else {
				n, err = eaxOpenInto(blocks, dst, nonce, additional, in)
			}
			return err
		})
		return n, err
	}
	want := len(in) + gcmTagSize
	if !encrypt {
		want = len(in) - gcmTagSize
	}
	n, begun, err := e.direct.gcm(s, key, encrypt, dst, nonce, in, additional)
	switch {
	case err == nil && n != want:
		return 0, &lengthError{"AES-GCM", n, want}
	case err == nil:
		return n, nil
	case !encrypt && begun && isCode(err, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_ENCRYPTED_DATA_INVALID,
		pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DATA_INVALID, ckrAEADDecryptFailed, pkcs11.CKR_SIGNATURE_INVALID):
		return 0, ErrNotAuthentic
	default:
		return 0, err
	}
}

// overECB runs f over AES-ECB operations that are begun and ended for each call: two round trips.
func (e *Engine) overECB(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, f func(encryptBlocks) error) error {
	return f(func(dst, src []byte) error {
		if err := e.direct.encryptInitECB(s, key); err != nil {
			return err
		}
		return e.direct.encrypt(s, dst, src)
	})
}

// beside runs f on a further session, which ends with it, and with it its objects and operations.
func (e *Engine) beside(worker *session, f func(own pkcs11.SessionHandle) error) error {
	own, err := e.openBeside(worker, worker.generation)
	if err != nil {
		return err
	}
	defer e.closeSession(own)
	return own.use(func(s *session) error { return f(s.handle) })
}

// ckrAEADDecryptFailed is of PKCS#11 v3.0 and not in the binding.
const ckrAEADDecryptFailed = 0x42
