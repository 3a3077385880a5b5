package hsm

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Errors of wrapping and unwrapping.
var (
	// ErrBound means that a key may never leave its HSM.
	ErrBound = errors.New("hsm: the key is bound to its HSM: it is not extractable, and is replaced when it is lost")
	// ErrExists means that the hsm token has a key of this role and version already. It is never overwritten.
	ErrExists = errors.New("hsm: the key is there already")
)

// Wrapping is how a key is wrapped, by the PKCS#11 name of the mechanism.
type Wrapping string

// The wrappings. RFC 3394 comes first: providers do not agree on what CKM_AES_KEY_WRAP_PAD pads, and every key here is a
// multiple of eight bytes long.
const (
	AESKeyWrap    Wrapping = "CKM_AES_KEY_WRAP"     // RFC 3394
	AESKeyWrapPad Wrapping = "CKM_AES_KEY_WRAP_PAD" // RFC 5649
)

func (w Wrapping) mechanism() ([]*pkcs11.Mechanism, error) {
	switch w {
	case AESKeyWrap:
		return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP, nil)}, nil
	case AESKeyWrapPad:
		return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, nil
	default:
		return nil, fmt.Errorf("hsm: unknown wrapping %q", w)
	}
}

// Wrapped is a key under a key encryption key: 40 bytes for the 32 of every kind here.
type Wrapped struct {
	Wrapping Wrapping
	Bytes    []byte
}

// ImportedCheckValue computes the check value (see [Engine.CheckValue]) of an imported key encryption key.
func (e *Engine) ImportedCheckValue(ctx context.Context, i *Import, n int) (string, error) {
	defer e.forget(i.check(n), pkcs11.CKO_SECRET_KEY)
	return e.CheckValue(ctx, i.check(n), AESEncrypt)
}

// Wrap wraps a recoverable key under a key encryption key that the security officer has marked CKA_TRUSTED. A bound key
// is [ErrBound].
func (e *Engine) Wrap(ctx context.Context, kek, key Key, spec Spec) (Wrapped, error) {
	if spec.Class != Recoverable || spec.Kind.class() != pkcs11.CKO_SECRET_KEY {
		return Wrapped{}, fmt.Errorf("%w: %s", ErrBound, key.Label())
	}
	for _, wrapping := range []Wrapping{AESKeyWrap, AESKeyWrapPad} {
		wrapped, err := e.wrap(ctx, kek, key, wrapping)
		switch {
		case isCode(err, pkcs11.CKR_MECHANISM_INVALID):
			continue
		case isCode(err, pkcs11.CKR_KEY_UNEXTRACTABLE):
			return Wrapped{}, fmt.Errorf("%w: %s", ErrBound, key.Label())
		case isCode(err, pkcs11.CKR_KEY_NOT_WRAPPABLE):
			return Wrapped{}, fmt.Errorf("hsm: %s can be wrapped by a key with CKA_TRUSTED only: %w", key.Label(), err)
		case err != nil:
			return Wrapped{}, fmt.Errorf("hsm: wrap %s: %w", key.Label(), err)
		}
		return Wrapped{wrapping, wrapped}, nil
	}
	return Wrapped{}, fmt.Errorf("hsm: wrap %s: this HSM has neither %s nor %s: back it up by the vendor's own means", key.Label(), AESKeyWrap, AESKeyWrapPad)
}

func (e *Engine) wrap(ctx context.Context, kek, key Key, wrapping Wrapping) ([]byte, error) {
	mechanism, err := wrapping.mechanism()
	if err != nil {
		return nil, err
	}
	var wrapped []byte
	err = e.do(ctx, func(s *session) error {
		under, err := e.lookUp(s, kek, pkcs11.CKO_SECRET_KEY)
		if err != nil {
			return err
		}
		handle, err := e.lookUp(s, key, pkcs11.CKO_SECRET_KEY)
		if err != nil {
			return err
		}
		wrapped, err = e.module.WrapKey(s.handle, mechanism, under, handle)
		return err
	})
	if err != nil {
		return nil, err
	}
	return wrapped, nil
}

// roleTrial names the session object on which a wrapped key is tried.
const roleTrial Role = "unwrap-trial"

// TryUnwrap unwraps a key into a session object, returns its check value and destroys it: the hsm token is not changed.
func (e *Engine) TryUnwrap(ctx context.Context, kek Key, wrapped Wrapped, spec Spec) (string, error) {
	trial := Key{roleTrial, 1}
	if err := e.unwrap(ctx, kek, wrapped, trial, spec.Kind, false); err != nil {
		return "", err
	}
	value, err := e.CheckValue(ctx, trial, spec.Kind)
	return value, errors.Join(err, e.destroy(ctx, trial, spec.Kind))
}

// Unwrap brings a recoverable key back onto the hsm token, after a trial that proves its check value. The birth that it
// returns reads LOCAL=false: the HSM says itself that the key came from outside. A key that is there already is
// [ErrExists]; one that cannot be proved is not left behind.
func (e *Engine) Unwrap(ctx context.Context, kek Key, wrapped Wrapped, key Key, spec Spec, checkValue string) (Birth, error) {
	if spec.Class != Recoverable {
		return Birth{}, fmt.Errorf("%w: %s", ErrBound, key.Label())
	}
	there, err := e.Exists(ctx, key, spec.Kind)
	if err != nil {
		return Birth{}, err
	}
	if there {
		return Birth{}, fmt.Errorf("%w: %s", ErrExists, key.Label())
	}
	got, err := e.TryUnwrap(ctx, kek, wrapped, spec)
	if err != nil {
		return Birth{}, fmt.Errorf("restore %s: %w", key.Label(), err)
	}
	if got != checkValue {
		return Birth{}, fmt.Errorf("hsm: restore %s: its check value is %s, not %s: it is another key", key.Label(), got, checkValue)
	}
	if err := e.unwrap(ctx, kek, wrapped, key, spec.Kind, true); err != nil {
		return Birth{}, fmt.Errorf("restore %s: %w", key.Label(), err)
	}
	birth, err := e.Inspect(ctx, key, spec)
	if err == nil {
		err = e.CheckBirth(birth, spec, true)
	}
	if err == nil && birth.CheckValue != checkValue {
		err = fmt.Errorf("its check value is %s, not %s", birth.CheckValue, checkValue)
	}
	if err != nil {
		return Birth{}, errors.Join(fmt.Errorf("hsm: %s is not as it was backed up: %w", key.Label(), err), e.destroy(ctx, key, spec.Kind))
	}
	return birth, nil
}

func (e *Engine) unwrap(ctx context.Context, kek Key, wrapped Wrapped, key Key, kind Kind, token bool) error {
	mechanism, err := wrapped.Wrapping.mechanism()
	if err != nil {
		return err
	}
	keyType := uint(pkcs11.CKK_AES)
	if kind == HMAC {
		keyType = pkcs11.CKK_GENERIC_SECRET
	}
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType),
		pkcs11.NewAttribute(pkcs11.CKA_ID, key.ID()),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, key.Label()),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, token),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, token), // recoverable again; the trial leaves by no way
		pkcs11.NewAttribute(ckaWrapWithTrusted, token),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, kind != HMAC),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, kind == AESWrap && token),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, kind == HMAC),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, kind == HMAC),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false),
		pkcs11.NewAttribute(pkcs11.CKA_MODIFIABLE, false), // last: SoftHSM2 takes nothing after it
	}
	return e.do(ctx, func(s *session) error {
		under, err := e.lookUp(s, kek, pkcs11.CKO_SECRET_KEY)
		if err != nil {
			return err
		}
		err = e.alone(func() error {
			_, err := e.module.UnwrapKey(s.handle, mechanism, under, wrapped.Bytes, template)
			return err
		})
		if isCode(err, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_WRAPPED_KEY_INVALID,
			pkcs11.CKR_WRAPPED_KEY_LEN_RANGE, pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DATA_INVALID) {
			return ErrNotAuthentic // SoftHSM2 answers GENERAL_ERROR, which must not look like a lost device
		}
		return err
	})
}
