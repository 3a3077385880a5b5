package hsm

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/miekg/pkcs11"
)

// Role is what a key is for. A key serves one role only.
type Role string

// Key names one version of a role's key on the hsm token. Its CKA_ID is the role followed by the version in four
// bytes, its CKA_LABEL is [Key.Label]; both must match for a key to be taken.
type Key struct {
	Role    Role
	Version uint32
}

// Label returns, say, "tokenize v1".
func (k Key) Label() string { return fmt.Sprintf("%s v%d", k.Role, k.Version) }

// ID returns the key's CKA_ID.
func (k Key) ID() []byte { return binary.BigEndian.AppendUint32([]byte(k.Role), k.Version) }

// Kind is the algorithm of a key and the one thing it may do.
type Kind string

// The kinds of keys.
const (
	AESEncrypt  Kind = "aes-256 encrypt"         // format-preserving encryption needs no decryption
	AESWrap     Kind = "aes-256 encrypt decrypt" // envelope encryption
	ECSign      Kind = "ec p-256 sign"
	ECDerive    Kind = "ec p-256 derive"
	Ed25519Sign Kind = "ed25519 sign"
	HMAC        Kind = "hmac-sha256"
)

// Class says whether a key may ever be brought to another HSM. It is fixed at birth.
type Class string

const (
	// Bound keys are never extractable: a lost one is replaced.
	Bound Class = "bound"
	// Recoverable keys can be wrapped, under a key that the security officer has marked CKA_TRUSTED only; or, where the
	// provider's profile says so, they are never extractable and the vendor's means bring them to another device. Losing
	// one would lose data.
	Recoverable Class = "recoverable"
)

// Spec is how a role's keys are made.
type Spec struct {
	Role  Role
	Kind  Kind
	Class Class
	// Optional means that an HSM without the mechanism is served without the key.
	Optional bool
}

// Birth is what the HSM says of a key, read back attribute by attribute after it was made. It goes into the
// signed record.
type Birth struct {
	Key              Key    `json:"-"`
	Label            string `json:"label"`
	Kind             Kind   `json:"kind"`
	Class            Class  `json:"class"`
	CheckValue       string `json:"check_value"` // see [Engine.CheckValue]
	Local            bool   `json:"local"`
	Sensitive        bool   `json:"sensitive"`
	AlwaysSensitive  bool   `json:"always_sensitive"`
	Extractable      bool   `json:"extractable"`
	NeverExtractable bool   `json:"never_extractable"`
	WrapWithTrusted  bool   `json:"wrap_with_trusted"`
	// NotReported are attributes that this provider is known not to keep; they were neither set nor asked for.
	NotReported []string `json:"not_reported,omitempty"`
}

// oids are the DER forms of CKA_EC_PARAMS.
var (
	paramsP256    = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	paramsEd25519 = []byte{0x13, 0x0c, 'e', 'd', 'w', 'a', 'r', 'd', 's', '2', '5', '5', '1', '9'}
	oidEd25519    = []byte{0x06, 0x03, 0x2b, 0x65, 0x70}
)

// PKCS#11 v3.0 names that the binding lacks.
const (
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
	ckaWrapWithTrusted     = pkcs11.CKA_WRAP_WITH_TRUSTED
)

// Exists reports whether the hsm token has the key.
func (e *Engine) Exists(ctx context.Context, key Key, kind Kind) (bool, error) {
	err := e.do(ctx, func(s *session) error {
		_, err := e.find(s, key, kind.class())
		return err
	})
	if errors.Is(err, ErrNoKey) {
		return false, nil
	}
	return err == nil, err
}

// Generate makes a key that is not there yet, with every attribute explicit (an omitted one may default to
// extractable), and reads them back. A key that the HSM made otherwise than asked is destroyed and refused.
func (e *Engine) Generate(ctx context.Context, key Key, spec Spec) (Birth, error) {
	exists, err := e.Exists(ctx, key, spec.Kind)
	if err != nil {
		return Birth{}, err
	}
	if exists {
		return Birth{}, fmt.Errorf("hsm: %s exists already", key.Label())
	}
	err = e.do(ctx, func(s *session) error { return e.generate(s, key, spec) })
	if err != nil {
		return Birth{}, fmt.Errorf("hsm: generate %s (%s): %w", key.Label(), spec.Kind, err)
	}
	birth, err := e.Inspect(ctx, key, spec)
	if err == nil {
		err = e.CheckBirth(birth, spec, false)
	}
	if err != nil {
		return Birth{}, errors.Join(fmt.Errorf("hsm: %s is not as asked for: %w", key.Label(), err), e.destroy(ctx, key, spec.Kind))
	}
	return birth, nil
}

func (e *Engine) generate(s *session, key Key, spec Spec) error {
	return e.alone(func() error {
		_, _, err := e.generateKey(s.handle, key, spec, true)
		return err
	})
}

// Inspect reads a key's attributes and computes its check value.
func (e *Engine) Inspect(ctx context.Context, key Key, spec Spec) (Birth, error) {
	b := Birth{Key: key, Label: key.Label(), Kind: spec.Kind, Class: spec.Class, NotReported: e.cfg.Profile.notReported()}
	flags := []struct {
		attribute uint
		value     *bool
	}{
		{pkcs11.CKA_LOCAL, &b.Local},
		{pkcs11.CKA_SENSITIVE, &b.Sensitive},
		{pkcs11.CKA_ALWAYS_SENSITIVE, &b.AlwaysSensitive},
		{pkcs11.CKA_EXTRACTABLE, &b.Extractable},
		{pkcs11.CKA_NEVER_EXTRACTABLE, &b.NeverExtractable},
		{ckaWrapWithTrusted, &b.WrapWithTrusted},
	}
	err := e.do(ctx, func(s *session) error {
		handle, err := e.find(s, key, spec.Kind.class())
		if err != nil {
			return err
		}
		for _, flag := range flags {
			if e.cfg.Profile.omits(flag.attribute) {
				continue // named in NotReported
			}
			got, err := e.module.GetAttributeValue(s.handle, handle, []*pkcs11.Attribute{pkcs11.NewAttribute(flag.attribute, nil)})
			if err != nil {
				return fmt.Errorf("read attribute 0x%x: %w", flag.attribute, err)
			}
			*flag.value = len(got[0].Value) == 1 && got[0].Value[0] == 1
		}
		return nil
	})
	if err != nil {
		return Birth{}, err
	}
	b.CheckValue, err = e.CheckValue(ctx, key, spec.Kind)
	return b, err
}

// CheckBirth holds what the HSM says of a key against what a key of its spec must be. One that was restored from a backup
// is as it was made but for its past: LOCAL and ALWAYS_SENSITIVE read false, since it came from outside.
func (e *Engine) CheckBirth(b Birth, spec Spec, restored bool) error {
	extractable := e.cfg.Profile.extractable(spec.Class)
	switch {
	case restored && spec.Class != Recoverable:
		return fmt.Errorf("a %s key cannot have been restored", spec.Class)
	case !b.Sensitive:
		return errors.New("it is not sensitive")
	case b.Local == restored && !e.cfg.Profile.omits(pkcs11.CKA_LOCAL):
		return fmt.Errorf("the HSM says %t of its having been made there", b.Local)
	case b.AlwaysSensitive == restored:
		return fmt.Errorf("the HSM says %t of its having always been sensitive", b.AlwaysSensitive)
	case b.Extractable != extractable || b.NeverExtractable == extractable:
		return fmt.Errorf("its extractability is not that of a %s key", spec.Class)
	case extractable && !b.WrapWithTrusted:
		return errors.New("it can be wrapped by keys that nobody has marked as trusted")
	}
	return nil
}

// CheckValue tells two keys apart without showing them: for AES the first three bytes of AES-CMAC over a block of
// zeros, for HMAC those of HMAC-SHA256 over the same, for key pairs the first eight bytes of SHA-256 over the
// SubjectPublicKeyInfo; all in hex. CKA_CHECK_VALUE is not used: it is an ECB block, and missing on some providers.
func (e *Engine) CheckValue(ctx context.Context, key Key, kind Kind) (string, error) {
	switch kind {
	case AESEncrypt, AESWrap:
		sum, err := e.cmacOfZeros(ctx, key)
		if err != nil {
			return "", err
		}
		return hex.EncodeToString(sum[:3]), nil
	case HMAC:
		sum, err := e.MAC(key).Sum(ctx, make([]byte, 16))
		if err != nil {
			return "", err
		}
		return hex.EncodeToString(sum[:3]), nil
	default:
		public, err := e.PublicKey(ctx, key)
		if err != nil {
			return "", err
		}
		spki, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return "", fmt.Errorf("hsm: %s: %w", key.Label(), err)
		}
		sum := sha256.Sum256(spki)
		return hex.EncodeToString(sum[:8]), nil
	}
}

// cmacOfZeros is NIST SP 800-38B over one block of zeros: E(K1), where K1 is E(0) doubled in GF(2^128).
func (e *Engine) cmacOfZeros(ctx context.Context, key Key) ([]byte, error) {
	m, err := newOMAC(func(dst, src []byte) error { return e.encryptOnce(ctx, key, dst, src) })
	if err != nil {
		return nil, err
	}
	sum := make([]byte, 16)
	return sum, e.encryptOnce(ctx, key, sum, m.k1[:])
}

// PublicKey returns the public half of a key pair: an *ecdsa.PublicKey on P-256 or an ed25519.PublicKey.
func (e *Engine) PublicKey(ctx context.Context, key Key) (any, error) {
	var params, point []byte
	err := e.do(ctx, func(s *session) error {
		handle, err := e.find(s, key, pkcs11.CKO_PUBLIC_KEY)
		if err != nil {
			return err
		}
		got, err := e.module.GetAttributeValue(s.handle, handle, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
		if err != nil {
			return err
		}
		params, point = got[0].Value, got[1].Value
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hsm: public key of %s: %w", key.Label(), err)
	}
	public, err := parsePublic(params, point)
	if err != nil {
		return nil, fmt.Errorf("hsm: public key of %s: %w", key.Label(), err)
	}
	return public, nil
}

// destroy removes a key and its public half.
func (e *Engine) destroy(ctx context.Context, key Key, kind Kind) error {
	return e.do(ctx, func(s *session) error {
		for _, class := range []uint{kind.class(), pkcs11.CKO_PUBLIC_KEY} {
			e.forget(key, class)
			handle, err := e.lookUp(s, key, class)
			if errors.Is(err, ErrNoKey) {
				continue
			}
			if err != nil {
				return err
			}
			if err := e.destroyOnToken(s.handle, handle); err != nil {
				return err
			}
		}
		return nil
	})
}

// resolve returns the key's handle, looking it up once per session and login.
func (e *Engine) resolve(s *session, key Key, class uint) (pkcs11.ObjectHandle, error) {
	if epoch := e.login.epoch.Load(); s.epoch != epoch {
		clear(s.keys)
		s.epoch = epoch
	}
	what := sighting{key, class}
	if handle, ok := s.keys[what]; ok {
		return handle, nil
	}
	handle, err := e.find(s, key, class)
	if err == nil {
		s.keys[what] = handle
	}
	return handle, err
}

// sighting names a key, or the public half of one, that was found in this process's life.
type sighting struct {
	key   Key
	class uint
}

// missingPause is the shortest time from one new start of the module for a missing key to the next: each ends the
// session objects, and a key that was really destroyed does not come back.
const missingPause = 5 * time.Second

// find looks a key up. One that was there before has not ceased to exist. Either the login was lost without a word, and
// the key is hidden; or the device has lost sight of it (SoftHSM2 does when its directory cannot be read, and says
// nothing else), and only a new start of the module brings it back.
func (e *Engine) find(s *session, key Key, class uint) (pkcs11.ObjectHandle, error) {
	handle, err := e.lookUp(s, key, class)
	what := sighting{key, class}
	if errors.Is(err, ErrNoKey) && e.wasSeen(what) {
		if in, stateErr := e.loggedIn(s); stateErr != nil || !in {
			return 0, errors.Join(stateErr, pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN))
		}
		if handle, err = e.lookUp(s, key, class); errors.Is(err, ErrNoKey) { // still, though the login is there
			e.startAgainForMissing()
			return 0, fmt.Errorf("%w: the key %s was there and is out of reach", ErrUnavailable, key.Label())
		}
	}
	if err != nil {
		return 0, err
	}
	e.sightings.Lock()
	defer e.sightings.Unlock()
	e.sighted[what] = true
	return handle, nil
}

func (e *Engine) wasSeen(what sighting) bool {
	e.sightings.Lock()
	defer e.sightings.Unlock()
	return e.sighted[what]
}

func (e *Engine) startAgainForMissing() {
	e.sightings.Lock()
	defer e.sightings.Unlock()
	if time.Since(e.missed) >= missingPause {
		e.missed = time.Now()
		e.trip(true)
	}
}

// known returns the keys that were found so far.
func (e *Engine) known() []sighting {
	e.sightings.Lock()
	defer e.sightings.Unlock()
	return slices.Collect(maps.Keys(e.sighted))
}

// forget takes back that a key was there, because it is being destroyed.
func (e *Engine) forget(key Key, class uint) {
	e.sightings.Lock()
	defer e.sightings.Unlock()
	delete(e.sighted, sighting{key, class})
}

// lookUp finds a key by class, id and label. More than one match is an error, never a choice.
func (e *Engine) lookUp(s *session, key Key, class uint) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
		pkcs11.NewAttribute(pkcs11.CKA_ID, key.ID()),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, key.Label()),
	}
	found, err := e.findAll(s, template)
	if err != nil {
		return 0, err
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("%w: %s", ErrNoKey, key.Label())
	case 1:
		return found[0], nil
	default:
		return 0, fmt.Errorf("%w: %s", ErrDuplicateKey, key.Label())
	}
}

// class returns the object class of the half that is kept secret.
func (k Kind) class() uint {
	switch k {
	case AESEncrypt, AESWrap, HMAC:
		return pkcs11.CKO_SECRET_KEY
	default:
		return pkcs11.CKO_PRIVATE_KEY
	}
}

func (k Kind) signs() bool { return k == ECSign || k == Ed25519Sign || k == HMAC }
