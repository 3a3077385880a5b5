package hsm

import (
	"crypto/subtle"
	"encoding/binary"
)

// EAX is the authenticated encryption of M. Bellare, P. Rogaway and D. Wagner, "The EAX Mode of Operation" (FSE 2004):
// CTR encryption and an OMAC (NIST SP 800-38B) over nonce, header and ciphertext. It asks for AES in its encrypting
// direction only, which every HSM that can do format-preserving encryption has, and its security is proved.

const (
	eaxNonceSize = 16
	eaxTagSize   = 16
)

// encryptBlocks encrypts whole AES blocks, each on its own; dst and src may be the same slice.
type encryptBlocks func(dst, src []byte) error

// eaxSealInto writes the ciphertext followed by the tag into dst, which has room for both, and returns their length.
func eaxSealInto(encrypt encryptBlocks, dst, nonce, header, plaintext []byte) (int, error) {
	m, err := newOMAC(encrypt)
	if err != nil {
		return 0, err
	}
	n, h, err := m.prefix(nonce, header)
	if err != nil {
		return 0, err
	}
	out := dst[:len(plaintext)]
	if err := ctr(encrypt, n, out, plaintext); err != nil {
		return 0, err
	}
	c, err := m.sum(2, out)
	if err != nil {
		return 0, err
	}
	tag := n // N ⊕ H ⊕ C
	for i := range tag {
		tag[i] ^= h[i] ^ c[i]
	}
	return len(out) + copy(dst[len(out):len(out)+eaxTagSize], tag[:]), nil
}

// eaxOpenInto writes the plaintext of what eaxSealInto made into dst, and returns its length. Nothing is decrypted before
// the tag has been verified, and the plaintext is nowhere but in dst.
func eaxOpenInto(encrypt encryptBlocks, dst, nonce, header, sealed []byte) (int, error) {
	if len(sealed) < eaxTagSize {
		return 0, ErrNotAuthentic
	}
	ciphertext, tag := sealed[:len(sealed)-eaxTagSize], sealed[len(sealed)-eaxTagSize:]
	m, err := newOMAC(encrypt)
	if err != nil {
		return 0, err
	}
	n, h, err := m.prefix(nonce, header)
	if err != nil {
		return 0, err
	}
	want, err := m.sum(2, ciphertext)
	if err != nil {
		return 0, err
	}
	for i := range want {
		want[i] ^= n[i] ^ h[i]
	}
	if subtle.ConstantTimeCompare(want[:], tag) != 1 {
		return 0, ErrNotAuthentic
	}
	return len(ciphertext), ctr(encrypt, n, dst[:len(ciphertext)], ciphertext)
}

// ctr xors src into dst with the encryption of counter, counter+1, … (128 bits, big endian), all in one call.
func ctr(encrypt encryptBlocks, counter [16]byte, dst, src []byte) error {
	if len(src) == 0 {
		return nil
	}
	stream := make([]byte, (len(src)+15)/16*16)
	defer clear(stream)
	high, low := binary.BigEndian.Uint64(counter[:8]), binary.BigEndian.Uint64(counter[8:])
	for i := 0; i < len(stream); i += 16 {
		binary.BigEndian.PutUint64(stream[i:], high)
		binary.BigEndian.PutUint64(stream[i+8:], low)
		if low++; low == 0 {
			high++
		}
	}
	if err := encrypt(stream, stream); err != nil {
		return err
	}
	subtle.XORBytes(dst, src, stream)
	return nil
}

// omac is OMAC^t of the paper: CMAC over a block that ends in t, then the message.
type omac struct {
	encrypt encryptBlocks
	k1, k2  [16]byte // E(0) doubled once and twice: SP 800-38B, section 6.1
}

func newOMAC(encrypt encryptBlocks) (*omac, error) {
	m := &omac{encrypt: encrypt}
	var l [16]byte
	if err := encrypt(l[:], l[:]); err != nil {
		return nil, err
	}
	m.k1 = double(l)
	m.k2 = double(m.k1)
	return m, nil
}

// double multiplies by x in GF(2^128).
func double(block [16]byte) (out [16]byte) {
	for i := range 15 {
		out[i] = block[i]<<1 | block[i+1]>>7
	}
	out[15] = block[15]<<1 ^ byte(subtle.ConstantTimeSelect(int(block[0]>>7), 0x87, 0))
	return out
}

func (m *omac) prefix(nonce, header []byte) (n, h [16]byte, err error) {
	if n, err = m.sum(0, nonce); err != nil {
		return n, h, err
	}
	h, err = m.sum(1, header)
	return n, h, err
}

func (m *omac) sum(t byte, message []byte) (mac [16]byte, err error) {
	mac[15] = t
	if len(message) == 0 { // the block of t is the last one, and whole
		subtle.XORBytes(mac[:], mac[:], m.k1[:])
		return mac, m.encrypt(mac[:], mac[:])
	}
	if err := m.encrypt(mac[:], mac[:]); err != nil {
		return mac, err
	}
	for len(message) > 16 {
		subtle.XORBytes(mac[:], mac[:], message[:16])
		if err := m.encrypt(mac[:], mac[:]); err != nil {
			return mac, err
		}
		message = message[16:]
	}
	last := m.k1
	if len(message) < 16 {
		last = m.k2
		last[len(message)] ^= 0x80
	}
	subtle.XORBytes(last[:], last[:], message)
	subtle.XORBytes(mac[:], mac[:], last[:])
	return mac, m.encrypt(mac[:], mac[:])
}
