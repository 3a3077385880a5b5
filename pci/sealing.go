package pci

import "crypto/hpke"

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
