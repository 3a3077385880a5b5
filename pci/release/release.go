// Package release is how a card leaves the appliance other than to a processor: sealed (HPKE, RFC 9180) to a recipient
// whose public key was registered before the card was asked for.
//
// # What is promised
//
// What leaves the package is ciphertext. The card's digits stand in locked memory until they are sealed, and are wiped
// after it.
//
// # What is not
//
// Who may ask, why, and how often is decided and recorded above, before anything is asked of this package.
package release

import (
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/pci/tokenization"
)

// Sealer seals the cards behind tokens. It is safe for concurrent use.
type Sealer struct{ tokens lend.Tokens }

// New returns a sealer of the cards behind a service's tokens.
func New(service *tokenization.Service) *Sealer { return &Sealer{lend.OfTokens(service)} }

// Seal returns the card behind a token, as {"number": "…", "expiry": "YYYY-MM"}, sealed to a public key on P-256 (an
// uncompressed point) under info: the encapsulated key and the ciphertext. A token that was not issued is
// [pci.ErrNotIssued].
func (s *Sealer) Seal(ctx context.Context, domain string, token pci.Token, recipient, info []byte) (enc, ct []byte, err error) {
	point, err := ecdh.P256().NewPublicKey(recipient)
	if err != nil {
		return nil, nil, fmt.Errorf("release: the recipient's key is not on P-256: %w", err)
	}
	public, err := hpke.NewDHKEMPublicKey(point)
	if err != nil {
		return nil, nil, fmt.Errorf("release: the recipient's key: %w", err)
	}
	kdf, aead := pci.SealingSuite()
	enc, sender, err := hpke.NewSender(public, kdf, aead, info)
	if err != nil {
		return nil, nil, fmt.Errorf("release: seal a card: %w", err)
	}
	err = s.tokens.Lend(ctx, domain, token, func(card *pan.Card) error {
		slot, err := pan.NewSlot()
		if err != nil {
			return err
		}
		defer slot.Release()
		text := append(slot.Bytes()[:0], `{"number":"`...)
		err = card.RevealPAN(func(digits []byte) error {
			text = append(text, digits...)
			return nil
		})
		if err != nil {
			return err
		}
		text = append(text, `","expiry":"`...)
		text = card.Expiry().Append(text)
		text = append(text, `"}`...)
		ct, err = sender.Seal(nil, text)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("release: %w", err)
	}
	return enc, ct, nil
}
