package intake

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/finterra/finpay/pci"
)

// The receiving half of HPKE in base mode (RFC 9180) for the one suite that cards are sealed with: DHKEM(P-256, HKDF-SHA256),
// HKDF-SHA256, AES-256-GCM. crypto/hpke has it too, but opens into memory of the collector's, where the plaintext of a card
// must not be. What is sealed here by crypto/hpke opens there and here alike, which a test holds.
const (
	kemID  = 0x0010
	kdfID  = 0x0001
	aeadID = 0x0002

	keySize    = 32 // Nk of AES-256-GCM
	secretSize = 32 // Nsecret of the KEM
	encSize    = 65 // Nenc: an uncompressed point
)

// hpkeContext is the receiver's context (RFC 9180, section 5.1). It opens messages in the order in which they were sealed.
type hpkeContext struct {
	aead  cipher.AEAD
	nonce [12]byte // base_nonce
	next  uint64   // sequence number of the next message
}

// errOpen means that a message does not open: it was altered, is out of its order, or was sealed under something else.
var errOpen = errors.New("intake: the message does not open")

// setUpRecipient derives the context from an encapsulated key (SetupBaseR, section 5.1.1). An encapsulated key that is
// no point of the curve is [pci.ErrMalformed]; an HSM that does not answer is [pci.ErrUnavailable].
func setUpRecipient(private ecdh.KeyExchanger, enc, info []byte) (*hpkeContext, error) {
	if len(enc) != encSize {
		return nil, malformed("its encapsulated key is none of this suite")
	}
	ephemeral, err := ecdh.P256().NewPublicKey(enc) // refuses what is not on the curve, and infinity (section 7.1.4)
	if err != nil {
		return nil, malformed("its encapsulated key is none of this suite")
	}
	dh, err := private.ECDH(ephemeral)
	if err != nil {
		return nil, errors.Join(pci.ErrUnavailable, err)
	}
	defer clear(dh)
	shared, err := decapsulated(dh, enc, private.PublicKey().Bytes())
	if err != nil {
		return nil, err
	}
	defer clear(shared)
	return keySchedule(shared, info)
}

// decapsulated is ExtractAndExpand of the KEM (section 4.1).
func decapsulated(dh, enc, recipient []byte) ([]byte, error) {
	suite := binary.BigEndian.AppendUint16([]byte("KEM"), kemID)
	prk, err := labeledExtract(suite, nil, "eae_prk", dh)
	if err != nil {
		return nil, err
	}
	defer clear(prk)
	context := append(append(make([]byte, 0, 2*encSize), enc...), recipient...)
	return labeledExpand(suite, prk, "shared_secret", context, secretSize)
}

// keySchedule is that of base mode (section 5.1), without the exporter's secret.
func keySchedule(shared, info []byte) (*hpkeContext, error) {
	suite := []byte("HPKE")
	for _, id := range []uint16{kemID, kdfID, aeadID} {
		suite = binary.BigEndian.AppendUint16(suite, id)
	}
	pskID, err := labeledExtract(suite, nil, "psk_id_hash", nil)
	if err != nil {
		return nil, err
	}
	infoHash, err := labeledExtract(suite, nil, "info_hash", info)
	if err != nil {
		return nil, err
	}
	context := append(append([]byte{0}, pskID...), infoHash...)
	secret, err := labeledExtract(suite, shared, "secret", nil)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	key, err := labeledExpand(suite, secret, "key", context, keySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	c := &hpkeContext{}
	nonce, err := labeledExpand(suite, secret, "base_nonce", context, len(c.nonce))
	if err != nil {
		return nil, err
	}
	copy(c.nonce[:], nonce)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("intake: %w", err)
	}
	if c.aead, err = cipher.NewGCM(block); err != nil {
		return nil, fmt.Errorf("intake: %w", err)
	}
	return c, nil
}

// open decrypts the next message into dst, and returns the plaintext there; dst has room for it.
func (c *hpkeContext) open(dst, aad, ct []byte) ([]byte, error) {
	if len(ct) < c.aead.Overhead() {
		return nil, errOpen
	}
	if len(ct)-c.aead.Overhead() > len(dst) { // cipher.AEAD would take other memory
		return nil, pci.ErrTooLarge
	}
	nonce := c.nonce
	for i := range 8 { // base_nonce XOR the sequence number, big-endian
		nonce[11-i] ^= byte(c.next >> (8 * i))
	}
	plain, err := c.aead.Open(dst[:0], nonce[:], ct, aad)
	if err != nil {
		return nil, errOpen
	}
	c.next++
	return plain, nil
}

// labeledExtract and labeledExpand are those of section 4.
func labeledExtract(suite, salt []byte, label string, ikm []byte) ([]byte, error) {
	labeled := append(append(append([]byte("HPKE-v1"), suite...), label...), ikm...)
	defer clear(labeled)
	return hkdf.Extract(sha256.New, labeled, salt)
}

func labeledExpand(suite, prk []byte, label string, info []byte, length int) ([]byte, error) {
	labeled := binary.BigEndian.AppendUint16(nil, uint16(length)) //nolint:gosec // 12 or 32
	labeled = append(append(append(append(labeled, "HPKE-v1"...), suite...), label...), info...)
	return hkdf.Expand(sha256.New, prk, string(labeled), length)
}
