package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// DefaultCallTimeout bounds a call whose interface carries no context (crypto.Signer, Tink's AEAD).
const DefaultCallTimeout = 10 * time.Second

// signatureSize is the length of r‖s on P-256 (PKCS#11 v2.40, section 2.3.1) and of an Ed25519 signature (RFC 8032).
const signatureSize = 64

// Signer is a [crypto.Signer] whose private key stays in the HSM. ECDSA signatures are ASN.1 DER, Ed25519 ones
// are raw.
type Signer struct {
	e      *Engine
	key    Key
	public crypto.PublicKey
}

// Signer returns a signer for a key pair of kind [ECSign] or [Ed25519Sign].
func (e *Engine) Signer(ctx context.Context, key Key) (*Signer, error) {
	public, err := e.PublicKey(ctx, key)
	if err != nil {
		return nil, err
	}
	return &Signer{e, key, public}, nil
}

// Public implements [crypto.Signer].
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Sign implements [crypto.Signer] with [DefaultCallTimeout]. For ECDSA, digest is the hash of the message; for
// Ed25519 it is the message. The HSM's own randomness is used.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), DefaultCallTimeout)
	defer cancel()
	return s.SignContext(ctx, digest, opts)
}

// SignContext is Sign bounded by ctx.
func (s *Signer) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	mechanism := uint(pkcs11.CKM_ECDSA)
	switch s.public.(type) {
	case *ecdsa.PublicKey:
		if opts == nil || opts.HashFunc() == 0 || opts.HashFunc().Size() != len(digest) {
			return nil, errors.New("hsm: ECDSA signs a digest of the stated hash")
		}
	case ed25519.PublicKey:
		if opts != nil && opts.HashFunc() != 0 {
			return nil, errors.New("hsm: Ed25519 signs the message itself")
		}
		mechanism = ckmEdDSA
	}
	raw, err := s.e.sign(ctx, s.key, pkcs11.CKO_PRIVATE_KEY, mechanism, signatureSize, digest)
	if err != nil {
		return nil, err
	}
	return s.verified(raw, digest)
}

// verified returns a signature in its outside form, if it is one: a fault in the HSM, or a handle that has come to mean
// another key, must not end in the signed log.
func (s *Signer) verified(raw, digest []byte) ([]byte, error) {
	switch public := s.public.(type) {
	case ed25519.PublicKey:
		if ed25519.Verify(public, digest, raw) {
			return raw, nil
		}
	case *ecdsa.PublicKey:
		signature, err := encodeECDSA(raw)
		if err != nil {
			return nil, err
		}
		if ecdsa.VerifyASN1(public, digest, signature) {
			return signature, nil
		}
	}
	return nil, fmt.Errorf("%w: %s gave a signature that does not verify", ErrUnavailable, s.key.Label())
}

// encodeECDSA turns PKCS#11's r‖s into the ASN.1 DER that everyone else reads.
func encodeECDSA(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, fmt.Errorf("hsm: an ECDSA signature of %d bytes", len(raw))
	}
	r, s := new(big.Int).SetBytes(raw[:len(raw)/2]), new(big.Int).SetBytes(raw[len(raw)/2:])
	if r.Sign() == 0 || s.Sign() == 0 {
		return nil, errors.New("hsm: an ECDSA signature of zeros")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	return b.Bytes()
}

// sign returns size bytes of signature or MAC.
func (e *Engine) sign(ctx context.Context, key Key, class, mechanism uint, size int, message []byte) ([]byte, error) {
	message = bytes.Clone(message) // the caller may leave before the call has read it
	var signature []byte
	err := e.do(ctx, func(s *session) error {
		handle, err := e.resolve(s, key, class)
		if err != nil {
			return err
		}
		signature, err = e.direct.sign(s.handle, mechanism, handle, size, message)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: sign with %s: %w", key.Label(), err)
	}
	return signature, nil
}

// MAC computes HMAC-SHA256 under a key of kind [HMAC].
type MAC struct {
	e   *Engine
	key Key
}

// MAC returns the message authentication of a key.
func (e *Engine) MAC(key Key) *MAC { return &MAC{e, key} }

// Sum returns the 32 bytes of HMAC-SHA256 over message.
func (m *MAC) Sum(ctx context.Context, message []byte) ([]byte, error) {
	return m.e.sign(ctx, m.key, pkcs11.CKO_SECRET_KEY, pkcs11.CKM_SHA256_HMAC, sha256.Size, message)
}
