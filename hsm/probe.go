package hsm

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Capability is what came of doing a role's operation, for real, on throwaway session objects.
type Capability struct {
	Role      Role   `json:"role"`
	Mechanism string `json:"mechanism"`
	OK        bool   `json:"ok"`
	Detail    string `json:"detail"` // what was done, or what failed, as a sentence
	Optional  bool   `json:"optional,omitempty"`
}

// RoleCustody is the role of the session objects that [Objects] keeps. It has no key.
const RoleCustody Role = "custody"

// Probe does the operation of each role, and that of custody, on keys and objects that live in a session which ends
// with it: a mechanism that a module lists may still fail. Nothing on the hsm token is read or changed, but for one data
// object that is made and destroyed there, where no other process uses it ([Config.Beside]). An error means that the HSM could not be asked.
func (e *Engine) Probe(ctx context.Context, specs []Spec) ([]Capability, error) {
	type outcome struct {
		detail string
		err    error
	}
	seen := make(map[Spec]outcome) // by what differs between roles of one kind: nothing but class
	var rows []Capability
	try := func(role Role, mechanism string, optional bool, same Spec, check operation) error {
		found, ok := seen[same]
		if !ok {
			var err error
			if found.detail, found.err, err = e.tryOn(ctx, check); err != nil {
				return fmt.Errorf("hsm: try %s: %w", mechanism, err)
			}
			seen[same] = found
		}
		row := Capability{Role: role, Mechanism: mechanism, OK: found.err == nil, Detail: found.detail, Optional: optional}
		if found.err != nil {
			row.Detail = found.err.Error()
		}
		rows = append(rows, row)
		return nil
	}
	for _, spec := range specs {
		same := Spec{Kind: spec.Kind, Class: spec.Class}
		check, ok := operations[spec.Kind]
		if !ok {
			return nil, fmt.Errorf("hsm: role %s is of the unknown kind %q", spec.Role, spec.Kind)
		}
		run := func(t *trial) (string, error) { t.spec = same; return check(t) }
		if err := try(spec.Role, e.cfg.Profile.Mechanism(spec.Kind), spec.Optional, same, run); err != nil {
			return nil, err
		}
	}
	mechanism, keep := "CKO_DATA session object", (*trial).custody
	if e.cfg.SealedCustody {
		mechanism, keep = e.cfg.Profile.Mechanism(AESWrap)+", session key", (*trial).sealedCustody
	}
	if err := try(RoleCustody, mechanism, false, Spec{Role: RoleCustody}, keep); err != nil {
		return nil, err
	}
	const object = "CKO_DATA token object"
	if e.cfg.Beside {
		return append(rows, Capability{Role: RoleHead, Mechanism: object, Optional: true, Detail: "not tried while another process serves from this hsm token"}), nil
	}
	return rows, try(RoleHead, object, true, Spec{Role: RoleHead}, (*trial).head)
}

// Mechanism names what a key of the kind is used with.
func (p Profile) Mechanism(kind Kind) string {
	switch kind {
	case AESEncrypt:
		return "CKM_AES_ECB"
	case AESWrap:
		if p.construction() == EAX {
			return "CKM_AES_ECB (EAX)"
		}
		return "CKM_AES_GCM"
	case ECSign:
		return "CKM_ECDSA"
	case ECDerive:
		return "CKM_ECDH1_DERIVE"
	case Ed25519Sign:
		return "CKM_EDDSA"
	case HMAC:
		return "CKM_SHA256_HMAC"
	default:
		return string(kind)
	}
}

// trial is a session of its own: what fails in it must neither disturb a worker's session nor count as a fault.
type trial struct {
	e    *Engine
	s    pkcs11.SessionHandle
	spec Spec
}

// operation does one kind's operation and says what it did.
type operation func(*trial) (string, error)

var operations = map[Kind]operation{
	AESEncrypt:  (*trial).blocks,
	AESWrap:     (*trial).seal,
	ECSign:      (*trial).ecdsa,
	ECDerive:    (*trial).ecdh,
	Ed25519Sign: (*trial).ed25519,
	HMAC:        (*trial).hmac,
}

// tryOn runs check on a new session. refused is the module's answer, err that it could not be asked.
func (e *Engine) tryOn(ctx context.Context, check operation) (detail string, refused, err error) {
	var answer struct {
		detail  string
		refused error
	}
	err = e.withSession(ctx, func(s pkcs11.SessionHandle) error {
		answer.detail, answer.refused = check(&trial{e: e, s: s})
		if isDeviceFault(answer.refused) {
			return answer.refused
		}
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	return answer.detail, answer.refused, nil
}

// withSession runs f on a session that ends with it, and with it its objects.
func (e *Engine) withSession(ctx context.Context, f func(pkcs11.SessionHandle) error) error {
	return e.do(ctx, func(worker *session) error { return e.beside(worker, f) })
}

// generate makes a throwaway key of the trial's spec.
func (t *trial) generate() (secret, public pkcs11.ObjectHandle, err error) {
	secret, public, err = t.e.generateKey(t.s, Key{Role: "doctor", Version: 1}, t.spec, false)
	if err != nil {
		return 0, 0, fmt.Errorf("a key (%s, %s) could not be generated: %w", t.spec.Kind, t.spec.Class, err)
	}
	return secret, public, nil
}

// blocks feeds an ECB operation that stays open twice, the second time in place, as format-preserving encryption does,
// and holds it against one block at a time on another session.
func (t *trial) blocks() (string, error) {
	key, _, err := t.generate()
	if err != nil {
		return "", err
	}
	src := make([]byte, 64*16)
	_, _ = rand.Read(src)
	want, got := make([]byte, len(src)), make([]byte, len(src))
	err = t.e.overECB(t.s, key, func(encrypt encryptBlocks) error {
		for i := 0; i < len(src); i += 16 {
			if err := encrypt(want[i:i+16], src[i:i+16]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("one block at a time: %w", err)
	}
	if err := t.e.direct.encryptInitECB(t.s, key); err != nil {
		return "", fmt.Errorf("C_EncryptInit: %w", err)
	}
	if err := t.e.direct.encryptUpdate(t.s, got, src); err != nil {
		return "", fmt.Errorf("C_EncryptUpdate: %w", err)
	}
	if !bytes.Equal(got, want) || bytes.Equal(got, src) {
		return "", errors.New("many blocks in one call are not encrypted as each alone")
	}
	if err := t.e.direct.encryptUpdate(t.s, src, src); err != nil {
		return "", fmt.Errorf("a second C_EncryptUpdate, in place: %w", err)
	}
	if !bytes.Equal(src, want) {
		return "", errors.New("C_EncryptUpdate does not encrypt in place")
	}
	return "two rounds of 64 blocks over one open operation, one of them in place", nil
}

func (t *trial) seal() (string, error) {
	key, _, err := t.generate()
	if err != nil {
		return "", err
	}
	format, size := formatGCM, gcmNonceSize
	if t.e.cfg.Profile.construction() == EAX {
		format, size = formatEAX, eaxNonceSize
	}
	nonce, plain, header := make([]byte, size), []byte("a secret of no block's length"), []byte(aeadLabel)
	_, _ = rand.Read(nonce)
	sealed, err := t.e.cryptAEAD(t.s, key, format, true, nonce, plain, header)
	if err != nil {
		return "", fmt.Errorf("encryption: %w", err)
	}
	opened, err := t.e.cryptAEAD(t.s, key, format, false, nonce, sealed, header)
	if err != nil {
		return "", fmt.Errorf("decryption: %w", err)
	}
	if !bytes.Equal(opened, plain) || bytes.Contains(sealed, plain[:16]) {
		return "", errors.New("decryption does not undo encryption")
	}
	sealed[3] ^= 1
	if _, err := t.e.cryptAEAD(t.s, key, format, false, nonce, sealed, header); !errors.Is(err, ErrNotAuthentic) {
		return "", fmt.Errorf("a changed ciphertext was not refused as such (%v)", err)
	}
	return "encrypted, decrypted, a changed ciphertext refused", nil
}

// signWith is C_Sign on the trial's session.
func (t *trial) signWith(key pkcs11.ObjectHandle, mechanism uint, message []byte) ([]byte, error) {
	if err := t.e.module.SignInit(t.s, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, key); err != nil {
		return nil, fmt.Errorf("C_SignInit: %w", err)
	}
	signature, err := t.e.module.Sign(t.s, message)
	if err != nil {
		return nil, fmt.Errorf("C_Sign: %w", err)
	}
	return signature, nil
}

// pair generates a key pair and reads its public half.
func (t *trial) pair() (private pkcs11.ObjectHandle, public any, err error) {
	private, handle, err := t.generate()
	if err != nil {
		return 0, nil, err
	}
	public, err = t.e.readPublic(t.s, handle)
	if err != nil {
		return 0, nil, fmt.Errorf("the public key cannot be read: %w", err)
	}
	return private, public, nil
}

func (t *trial) ecdsa() (string, error) {
	private, public, err := t.pair()
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256([]byte("finpay doctor"))
	raw, err := t.signWith(private, pkcs11.CKM_ECDSA, digest[:])
	if err != nil {
		return "", err
	}
	signature, err := encodeECDSA(raw)
	if err != nil {
		return "", err
	}
	if key, ok := public.(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(key, digest[:], signature) {
		return "", errors.New("the signature does not verify in software")
	}
	return "signed on P-256, verified in software", nil
}

func (t *trial) ed25519() (string, error) {
	private, public, err := t.pair()
	if err != nil {
		return "", err
	}
	message := []byte("finpay doctor")
	signature, err := t.signWith(private, ckmEdDSA, message)
	if err != nil {
		return "", err
	}
	if key, ok := public.(ed25519.PublicKey); !ok || !ed25519.Verify(key, message, signature) {
		return "", errors.New("the signature does not verify in software")
	}
	return "signed with Ed25519, verified in software", nil
}

func (t *trial) ecdh() (string, error) {
	private, public, err := t.pair()
	if err != nil {
		return "", err
	}
	point, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return "", errors.New("the key is not on P-256")
	}
	theirs, err := point.ECDH()
	if err != nil {
		return "", err
	}
	ours, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	want, err := ours.ECDH(theirs)
	if err != nil {
		return "", err
	}
	encoded, err := t.e.cfg.Profile.encodePoint(ours.PublicKey())
	if err != nil {
		return "", err
	}
	got := make([]byte, ecdhSecretSize)
	if err := t.e.direct.deriveECDH(t.s, private, encoded, got); err != nil {
		return "", fmt.Errorf("C_DeriveKey with CKD_NULL: %w", err)
	}
	if !bytes.Equal(got, want) {
		return "", errors.New("the shared secret is not the one that software computes")
	}
	return "the shared secret on P-256 is the one that software computes", nil
}

// hmac cannot compute the sum itself, since the key does not leave: the module verifies its own, on two messages.
func (t *trial) hmac() (string, error) {
	key, _, err := t.generate()
	if err != nil {
		return "", err
	}
	message := []byte("finpay doctor")
	sum, err := t.signWith(key, pkcs11.CKM_SHA256_HMAC, message)
	if err != nil {
		return "", err
	}
	again, err := t.signWith(key, pkcs11.CKM_SHA256_HMAC, message)
	if err != nil {
		return "", err
	}
	other, err := t.signWith(key, pkcs11.CKM_SHA256_HMAC, message[1:])
	if err != nil {
		return "", err
	}
	if len(sum) != sha256.Size || !bytes.Equal(sum, again) || bytes.Equal(sum, other) {
		return "", errors.New("C_Sign does not give 32 bytes that depend on the message alone")
	}
	return "32 bytes, the same again, others for another message", nil
}

// sealedCustody is what [Sealed] does.
func (t *trial) sealedCustody() (string, error) {
	t.spec = sealingSpec
	return t.seal()
}

func (t *trial) custody() (string, error) {
	form := t.e.cfg.Profile.DataObjects
	if form == NoData {
		return "", errors.New("this provider has no CKO_DATA session objects, so cards have to be sealed under a session key (custody.kind: sealed)")
	}
	value, label := []byte("no card, but as long as one"), labelOf(randomID())
	handle, err := t.e.direct.createData(t.s, form, label, value)
	if err != nil {
		return "", fmt.Errorf("C_CreateObject: %w", err)
	}
	got, its := make([]byte, 64), [labelSize]byte{}
	n, err := t.e.direct.readData(t.s, handle, &its, got)
	if err != nil {
		return "", fmt.Errorf("C_GetAttributeValue: %w", err)
	}
	if !bytes.Equal(got[:n], value) || its != label {
		return "", errors.New("another value or label was read than was stored")
	}
	if err := t.e.direct.destroyObject(t.s, handle); err != nil {
		return "", fmt.Errorf("C_DestroyObject: %w", err)
	}
	if _, err := t.e.direct.readData(t.s, handle, &its, got); err == nil {
		return "", errors.New("a destroyed object can still be read")
	}
	if form == PublicData {
		return "stored, read, destroyed; the object is not CKA_PRIVATE, which this provider does not have", nil
	}
	return "stored, read, destroyed", nil
}
