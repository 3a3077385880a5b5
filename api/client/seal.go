package client

import (
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/pci"
)

// sealer seals the cards of one request, in order.
type sealer struct {
	key, enc string
	hpke     *hpke.Sender
}

func (c *Client) newSealer(ctx context.Context) (*sealer, error) {
	key, err := c.intakeKey(ctx)
	if err != nil {
		return nil, err
	}
	public, err := hpke.NewDHKEMPublicKey(key.public)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	kdf, aead := pci.SealingSuite()
	enc, sender, err := hpke.NewSender(public, kdf, aead, pci.SealedCardInfo(c.cfg.Domain, c.keyID))
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return &sealer{key.name, base64.RawURLEncoding.EncodeToString(enc), sender}, nil
}

// seal returns the ciphertext of a card, in base64url.
func (s *sealer) seal(card Card) (string, error) {
	text, err := json.Marshal(card)
	if err != nil {
		return "", fmt.Errorf("client: %w", err)
	}
	defer clear(text)
	ct, err := s.hpke.Seal(nil, text)
	if err != nil {
		return "", fmt.Errorf("client: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(ct), nil
}

// open opens a detokenized card.
func open(sealed api.SealedCard, keyID string, recipient *ecdh.PrivateKey) (card Card, err error) {
	private, err := hpke.NewDHKEMPrivateKey(recipient)
	if err != nil {
		return card, fmt.Errorf("client: recipient's key: %w", err)
	}
	enc, encErr := base64.RawURLEncoding.DecodeString(sealed.Enc)
	ct, ctErr := base64.RawURLEncoding.DecodeString(sealed.CT)
	if err := errors.Join(encErr, ctErr); err != nil {
		return card, errors.New("client: the sealed card cannot be read")
	}
	kdf, aead := pci.SealingSuite()
	opened, err := hpke.NewRecipient(enc, private, kdf, aead, pci.DetokenizedInfo(sealed.Domain, keyID))
	if err != nil {
		return card, fmt.Errorf("client: the sealed card: %w", err)
	}
	plain, err := opened.Open(nil, ct)
	if err != nil {
		return card, errors.New("client: the card was not sealed to this recipient")
	}
	defer clear(plain)
	if err := json.Unmarshal(plain, &card); err != nil {
		return Card{}, errors.New("client: the card cannot be read")
	}
	return card, nil
}
