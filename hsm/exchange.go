package hsm

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// KeyExchanger is an [ecdh.KeyExchanger] on P-256 whose private key stays in the HSM; crypto/hpke takes it as the
// receiver's key of DHKEM(P-256). The shared secret does leave the HSM, as one session object that is read and
// destroyed: HPKE derives its keys from it in this process.
type KeyExchanger struct {
	e      *Engine
	key    Key
	public *ecdh.PublicKey
}

// KeyExchanger returns the key exchange of a key pair of kind [ECDerive].
func (e *Engine) KeyExchanger(ctx context.Context, key Key) (*KeyExchanger, error) {
	if e.cfg.Profile.ECDH == NoECDH {
		return nil, fmt.Errorf("hsm: %s needs CKM_ECDH1_DERIVE with CKD_NULL, which profile %s says is not there", key.Label(), e.cfg.Profile.Name)
	}
	public, err := e.PublicKey(ctx, key)
	if err != nil {
		return nil, err
	}
	point, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("hsm: %s is not a key pair on P-256", key.Label())
	}
	exchange, err := point.ECDH()
	if err != nil {
		return nil, fmt.Errorf("hsm: public key of %s: %w", key.Label(), err)
	}
	return &KeyExchanger{e, key, exchange}, nil
}

// PublicKey implements [ecdh.KeyExchanger].
func (k *KeyExchanger) PublicKey() *ecdh.PublicKey { return k.public }

// Curve implements [ecdh.KeyExchanger].
func (k *KeyExchanger) Curve() ecdh.Curve { return ecdh.P256() }

// ECDH implements [ecdh.KeyExchanger] with [DefaultCallTimeout]. It returns 32 bytes, the x coordinate.
func (k *KeyExchanger) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), DefaultCallTimeout)
	defer cancel()
	return k.ECDHContext(ctx, peer)
}

// ECDHContext is ECDH bounded by ctx. crypto/ecdh makes no key of a point that is not on its curve, so an invalid point
// (which would draw bits of the private key out of a careless module) never gets here; another curve's is refused.
func (k *KeyExchanger) ECDHContext(ctx context.Context, peer *ecdh.PublicKey) ([]byte, error) {
	if peer == nil || peer.Curve() != ecdh.P256() {
		return nil, errors.New("hsm: the other side's key is not on P-256")
	}
	point, err := k.e.cfg.Profile.encodePoint(peer)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, ecdhSecretSize)
	err = k.e.do(ctx, func(s *session) error {
		handle, err := k.e.resolve(s, k.key, pkcs11.CKO_PRIVATE_KEY)
		if err != nil {
			return err
		}
		// An error closes the session, and with it an object that could not be destroyed.
		if err := k.e.direct.deriveECDH(s.handle, handle, point, secret); err != nil {
			clear(secret)
			return err
		}
		if ctx.Err() != nil { // nobody waits for it any more
			clear(secret)
			return ctx.Err()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: key exchange with %s: %w", k.key.Label(), err)
	}
	return secret, nil
}

func (p Profile) encodePoint(public *ecdh.PublicKey) ([]byte, error) {
	if p.ECDH != DERPoint {
		return public.Bytes(), nil
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddBytes(public.Bytes()) })
	return b.Bytes()
}
