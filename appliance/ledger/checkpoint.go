package ledger

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/transparency-dev/formats/log"
	formatsnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/finterra/finpay/api/logproof"
)

// Checkpoint returns the newest signed checkpoint as it is published, or [store.ErrNotFound] in an empty log. The
// second signature is made when somebody asks: it would cost every commit more than the first one does. Ed25519 is
// deterministic, so signing again says nothing new.
func (l *Ledger) Checkpoint(ctx context.Context) ([]byte, error) {
	_, text, err := l.store.Read(ctx).LedgerCheckpoint()
	if err != nil || l.cfg.Witnessable == nil {
		return text, err
	}
	l.publish.Lock()
	defer l.publish.Unlock()
	if bytes.HasPrefix(l.published, text) {
		return l.published, nil
	}
	origin := OriginOf(text) // its log's, which may be about to follow the one of the key
	verifier, err := formatsnote.NewVerifier(logproof.KeyNamed(l.VerifierKey(), origin))
	if err != nil {
		return nil, err
	}
	signed, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	second, err := newEd25519Signer(origin, l.cfg.Witnessable)
	if err != nil {
		return nil, err
	}
	both, err := note.Sign(signed, second)
	if err != nil {
		return nil, fmt.Errorf("%w: sign for witnesses: %w", ErrUnavailable, err)
	}
	l.published = both
	return both, nil
}

// OpenCheckpoint verifies a signed checkpoint under a log's name and public key. One that says the same in other bytes is
// refused: who compares copies must not be shown two.
func OpenCheckpoint(text []byte, origin, vkey string) (*log.Checkpoint, error) {
	verifier, err := formatsnote.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("ledger: verifier key: %w", err)
	}
	checkpoint, _, err := OpenSigned(text, origin, verifier)
	return checkpoint, err
}

// OpenSigned is [OpenCheckpoint] for a caller who has many to open. It tells whose of the other signatures hold as well;
// one that is of a given witness and does not hold is an error.
func OpenSigned(text []byte, origin string, verifier note.Verifier, witnesses ...note.Verifier) (*log.Checkpoint, []note.Signature, error) {
	checkpoint, signatures, err := logproof.Open(text, origin, verifier, witnesses...)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return checkpoint, signatures, nil
}

// VerifierKey returns a public key in the note form that [Ledger.VerifierKey] describes.
func VerifierKey(name string, public *ecdsa.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("ledger: public key: %w", err)
	}
	sum := sha256.Sum256(spki)
	return fmt.Sprintf("%s+%08x+%s", name, binary.BigEndian.Uint32(sum[:]),
		base64.StdEncoding.EncodeToString(append([]byte{noteECDSA}, spki...))), nil
}

// noteECDSA is the signature type of ECDSA with SHA-256 in C2SP signed-note.
const noteECDSA = 0x02

// signer is a [note.Signer] whose key is in the HSM.
type signer struct {
	name string
	hash uint32
	key  crypto.Signer
}

func newSigner(name string, key crypto.Signer, vkey string) signer {
	verifier, err := formatsnote.NewVerifier(vkey)
	if err != nil {
		panic("ledger: our own verifier key does not parse: " + err.Error())
	}
	return signer{name, verifier.KeyHash(), key}
}

func (s signer) Name() string    { return s.name }
func (s signer) KeyHash() uint32 { return s.hash }

func (s signer) Sign(message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	return s.key.Sign(nil, digest[:], crypto.SHA256)
}

// ed25519Signer is a [note.Signer] of signature type 0x01.
type ed25519Signer struct{ signer }

func (s ed25519Signer) Sign(message []byte) ([]byte, error) {
	return s.key.Sign(nil, message, crypto.Hash(0))
}

func newEd25519Signer(name string, key crypto.Signer) (ed25519Signer, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return ed25519Signer{}, errors.New("ledger: the key for witnesses is not Ed25519")
	}
	vkey, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return ed25519Signer{}, fmt.Errorf("ledger: key for witnesses: %w", err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return ed25519Signer{}, fmt.Errorf("ledger: key for witnesses: %w", err)
	}
	return ed25519Signer{signer{name, verifier.KeyHash(), key}}, nil
}
