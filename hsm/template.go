package hsm

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// generateKey makes a key with every attribute explicit: an omitted one may default to extractable. With token false
// it is a session object. public is 0 for secret keys.
func (e *Engine) generateKey(s pkcs11.SessionHandle, key Key, spec Spec, token bool) (secret, public pkcs11.ObjectHandle, err error) {
	profile := e.cfg.Profile
	mechanism, err := profile.generation(spec.Kind)
	if err != nil {
		return 0, 0, err
	}
	how := []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}
	hidden := profile.template(profile.secretTemplate(key, spec, token))
	if spec.Kind.class() == pkcs11.CKO_SECRET_KEY {
		secret, err = e.module.GenerateKey(s, how, hidden)
		return secret, 0, err
	}
	public, secret, err = e.module.GenerateKeyPair(s, how, profile.template(profile.publicTemplate(key, spec, token)), hidden)
	return secret, public, err
}

// generation returns the mechanism that makes keys of a kind.
func (p Profile) generation(kind Kind) (uint, error) {
	switch kind {
	case AESEncrypt, AESWrap:
		return pkcs11.CKM_AES_KEY_GEN, nil
	case HMAC:
		return pkcs11.CKM_GENERIC_SECRET_KEY_GEN, nil
	case ECSign:
		return pkcs11.CKM_EC_KEY_PAIR_GEN, nil
	case ECDerive:
		if p.ECDH == NoECDH {
			return 0, errors.New("profile " + p.Name + " has no CKM_ECDH1_DERIVE with CKD_NULL")
		}
		return pkcs11.CKM_EC_KEY_PAIR_GEN, nil
	case Ed25519Sign:
		if p.Edwards == NoEdwards {
			return 0, errors.New("profile " + p.Name + " has no CKM_EC_EDWARDS_KEY_PAIR_GEN")
		}
		return ckmECEdwardsKeyPairGen, nil
	default:
		return 0, fmt.Errorf("unknown kind %q", kind)
	}
}

// secretTemplate describes a secret key, or the private half of a pair.
func (p Profile) secretTemplate(key Key, spec Spec, token bool) []*pkcs11.Attribute {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, key.ID()),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, key.Label()),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, token),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, p.extractable(spec.Class)),
		pkcs11.NewAttribute(ckaWrapWithTrusted, p.extractable(spec.Class)),
		pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, spec.Kind.signs()),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, spec.Kind == AESWrap),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, spec.Kind == ECDerive),
	}
	if spec.Kind.class() != pkcs11.CKO_SECRET_KEY {
		return template
	}
	keyType := uint(pkcs11.CKK_AES)
	if spec.Kind == HMAC {
		keyType = pkcs11.CKK_GENERIC_SECRET
		if p.HMACKey == SHA256HMAC {
			keyType = pkcs11.CKK_SHA256_HMAC
		}
	}
	return append(template,
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, spec.Kind != HMAC),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, spec.Kind == HMAC),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false))
}

// publicTemplate describes the public half of a pair.
func (p Profile) publicTemplate(key Key, spec Spec, token bool) []*pkcs11.Attribute {
	params := paramsP256
	if spec.Kind == Ed25519Sign {
		params = p.edwardsParams()
	}
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, key.ID()),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, key.Label()),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, token),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, spec.Kind.signs()),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY_RECOVER, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, false),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false),
		pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params),
	}
}

// readPublic reads the public key of an object.
func (e *Engine) readPublic(s pkcs11.SessionHandle, public pkcs11.ObjectHandle) (any, error) {
	got, err := e.module.GetAttributeValue(s, public, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, err
	}
	return parsePublic(got[0].Value, got[1].Value)
}

// parsePublic reads CKA_EC_PARAMS and CKA_EC_POINT. The point is a DER octet string; some providers leave the
// wrapping out, which the length tells.
func parsePublic(params, point []byte) (any, error) {
	raw := point
	if n := len(point); n != uncompressedSize && n != ed25519.PublicKeySize {
		if rest, err := asn1.Unmarshal(point, &raw); err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("a CKA_EC_POINT of %d bytes", n)
		}
	}
	switch {
	case string(params) == string(paramsP256):
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	case (string(params) == string(paramsEd25519) || string(params) == string(oidEd25519)) && len(raw) == ed25519.PublicKeySize:
		return ed25519.PublicKey(raw), nil
	default:
		return nil, errors.New("it is on a curve that is not served")
	}
}

// uncompressedSize is the length of a point of P-256: 4, x, y (SEC 1, section 2.3.3).
const uncompressedSize = 65
