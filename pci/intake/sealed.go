package intake

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// A sealed card is {"key": "intake v1", "enc": "…", "ct": "…"}: the key's name as GET /v1/intake/key gives it, the
// encapsulated key and the ciphertext in base64url (RFC 4648, section 5) without padding. The plaintext is the JSON of an
// open card. A sealed stream begins with a line of key and enc, and has a ct in each line after it: one HPKE context
// (RFC 9180, section 5.2) seals them all, in order, so that none can be left out, moved or repeated.
//
// The HTTP layer, its buffers and whoever ends TLS in front of it see ciphertext only. Here HPKE's keys and each plaintext
// are in ordinary memory for a moment; the plaintext is wiped as soon as it has been read.

// Keys finds the private half of a key that cards are sealed to, by its name; nil where there is none. It stays in the
// HSM.
type Keys interface {
	IntakeKey(name string) ecdh.KeyExchanger
}

// recipient opens what was sealed in one HPKE context.
type recipient struct{ hpke *hpke.Recipient }

// newRecipient begins with a sealed card, or with the first line of a sealed stream. info binds it to its request.
func newRecipient(keys Keys, c cardText, info []byte) (*recipient, error) {
	exchanger := keys.IntakeKey(string(c.key))
	if exchanger == nil {
		return nil, malformed("it is sealed to a key that is not in use: ask GET /v1/intake/key again")
	}
	enc, err := decode(c.enc)
	if err != nil {
		return nil, err
	}
	watched := &watchedExchanger{KeyExchanger: exchanger}
	private, err := hpke.NewDHKEMPrivateKey(watched)
	if err != nil {
		return nil, fmt.Errorf("intake key: %w", err)
	}
	kdf, aead := pci.SealingSuite()
	opened, err := hpke.NewRecipient(enc, private, kdf, aead, info)
	if watched.fault != nil { // of the HSM, not of the sender
		return nil, watched.fault
	}
	if err != nil {
		return nil, malformed("its encapsulated key is none of this suite")
	}
	return &recipient{opened}, nil
}

// addTo opens the next ciphertext and reads the card in it into the next place of a batch.
func (r *recipient) addTo(cards *pan.Batch, ct []byte) error {
	sealed, err := decode(ct)
	if err != nil {
		return err
	}
	plain, err := r.hpke.Open(nil, sealed)
	defer clear(plain)
	if err != nil {
		return malformed("it does not open: it was altered, is out of its order, or was sealed for another request")
	}
	return addCard(cards, plain)
}

func decode(text []byte) ([]byte, error) {
	raw := make([]byte, base64.RawURLEncoding.DecodedLen(len(text)))
	n, err := base64.RawURLEncoding.Strict().Decode(raw, text)
	if err != nil || n == 0 {
		return nil, malformed("a sealed member is not base64url without padding")
	}
	return raw[:n], nil
}

// watchedExchanger remembers the fault of an exchange: crypto/hpke may not hand it on as it was.
type watchedExchanger struct {
	ecdh.KeyExchanger
	fault error
}

func (w *watchedExchanger) ECDH(public *ecdh.PublicKey) ([]byte, error) {
	secret, err := w.KeyExchanger.ECDH(public)
	if err != nil {
		w.fault = errors.Join(pci.ErrUnavailable, err)
	}
	return secret, err
}
