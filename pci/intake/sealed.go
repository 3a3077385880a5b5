package intake

import (
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/base64"
	"errors"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// What is sealed has three members: key, the key's name as GET /v1/intake/key gives it; enc, the encapsulated key; ct, the
// ciphertext; both in base64url (RFC 4648, section 5) without padding. By API it is a JSON object, and the plaintext that of
// an open card. A sealed stream begins with a line of key and enc, and has a ct in each line after it: one HPKE context
// (RFC 9180, section 5.2) seals them all, in order, so that none can be left out, moved or repeated. From the checkout page
// it is a form of the three, and the plaintext is the form that would be sent otherwise.
//
// The HTTP layer, its buffers and whoever ends TLS in front of it see ciphertext only; the plaintext is opened into locked
// memory. HPKE's keys, which open this one message, are in ordinary memory for a moment.

// Keys finds the private half of a key that cards are sealed to, by its name; nil where there is none. It stays in the
// HSM.
type Keys interface {
	IntakeKey(name string) ecdh.KeyExchanger
}

// sealedText is what is sealed, as it came.
type sealedText struct{ key, enc, ct []byte }

// recipient opens what was sealed in one HPKE context, into a slot of its own.
type recipient struct {
	hpke     *hpkeContext
	aad      []byte
	slot     *pan.Slot
	envelope pci.Envelope
}

// newRecipient begins with a sealed card, or with the first line of a sealed stream. info and aad bind it to its request.
// Its owner releases it.
func newRecipient(keys Keys, sealed sealedText, info, aad []byte) (*recipient, error) {
	exchanger := keys.IntakeKey(string(sealed.key))
	if exchanger == nil {
		return nil, pci.ErrIntakeKey
	}
	enc, err := decode(sealed.enc)
	if err != nil {
		return nil, err
	}
	opened, err := setUpRecipient(exchanger, enc, info)
	if err != nil {
		return nil, err
	}
	slot, err := pan.NewSlot()
	if err != nil {
		return nil, err
	}
	return &recipient{opened, aad, slot, pci.Envelope{Key: string(sealed.key), Hash: sha256.Sum256(enc)}}, nil
}

// open lends the plaintext of the next ciphertext, in locked memory, until the next one is opened or the recipient released.
func (r *recipient) open(ct []byte) ([]byte, error) {
	sealed, err := decode(ct)
	if err != nil {
		return nil, err
	}
	plain, err := r.hpke.open(r.slot.Bytes(), r.aad, sealed)
	if errors.Is(err, errOpen) {
		return nil, malformed("it does not open: it was altered, is out of its order, or was sealed for another request")
	}
	return plain, err
}

// addTo opens the next ciphertext and reads the card in it into the next place of a batch.
func (r *recipient) addTo(cards *pan.Batch, ct []byte) error {
	plain, err := r.open(ct)
	if err != nil {
		return err
	}
	defer clear(plain)
	return addCard(cards, plain)
}

func (r *recipient) release() { r.slot.Release() }

func decode(text []byte) ([]byte, error) {
	raw := make([]byte, base64.RawURLEncoding.DecodedLen(len(text)))
	n, err := base64.RawURLEncoding.Strict().Decode(raw, text)
	if err != nil || n == 0 {
		return nil, malformed("a sealed member is not base64url without padding")
	}
	return raw[:n], nil
}
