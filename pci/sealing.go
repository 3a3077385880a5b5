package pci

import (
	"crypto/hpke"
	"strconv"
)

// Cards are sealed with HPKE (RFC 9180) in base mode: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. P-256 is what
// every HSM has. Both ends of a sealed message are here, so that they cannot come to differ.

// SealingSuite returns the KDF and the AEAD; the KEM follows from the key, which is on P-256.
func SealingSuite() (hpke.KDF, hpke.AEAD) { return hpke.HKDFSHA256(), hpke.AES256GCM() }

// SealedCardInfo is the info of RFC 9180 under which a card is sealed that an API key has tokenized: what was sealed for
// one domain or key opens in no other. domain is as the request has it, empty where it names none.
func SealedCardInfo(domain, keyID string) []byte {
	return []byte("finpay card v1\x00" + domain + "\x00" + keyID)
}

// DetokenizedInfo is the info of RFC 9180 under which a card is sealed to the registered recipient of an API key.
func DetokenizedInfo(domain, keyID string) []byte {
	return []byte("finpay detokenized v1\x00" + domain + "\x00" + keyID)
}

// Envelope names what a card came sealed in, so that it is taken once.
type Envelope struct {
	Key  string   // name of the key that it is sealed to
	Hash [32]byte // SHA-256 of the encapsulated key
}

// IsZero reports whether e names nothing: the card came open.
func (e Envelope) IsZero() bool { return e.Key == "" }

// SealedCheckoutInfo is the info of RFC 9180 under which a shopper's browser seals what was typed into the card form.
func SealedCheckoutInfo() []byte { return []byte("finpay checkout v1") }

// SealedCheckoutAAD is the additional data under which it does: the checkout session as it stands in the page's address,
// the merchant's id and the amount, so that a sealed card pays nothing else. None of them has a space in it.
func SealedCheckoutAAD(session, merchant string, amount Amount) string {
	return session + " " + merchant + " " + strconv.FormatInt(amount.Minor, 10) + " " + string(amount.Currency)
}
