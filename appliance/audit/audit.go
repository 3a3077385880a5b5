// Package audit checks the signed log without trusting the process that wrote it.
//
// There is one verifier, and three sources that it reads a log from: the database, a bundle, an appliance that serves the
// log. All end in the same verdict. The tree is computed from the entries alone, by other code than that which wrote it, in
// memory that does not grow with the log.
//
// # What is promised
//
// A verdict that is OK says that, under the key that the caller pinned, every entry is the one that was signed, and every
// checkpoint is of a log that begins with the one before.
//
// # What is not
//
// Whoever has the signing key can sign another log. Only a witness, or a checkpoint that the auditor kept, excludes
// that; the verdict says up to which entry.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	formatsnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/finterra/finpay/appliance/bundle"
)

// Source is where a log is read from: [Database], [Bundle] or [Service].
type Source interface {
	// read walks through the log once.
	read(ctx context.Context, w *walk) error
}

// Terms are what the auditor brings along.
type Terms struct {
	Key       string   // the log's verifier key, from elsewhere; empty: the source's own, and the signer is not pinned
	Witnesses []string // verifier keys of those who must have cosigned (C2SP tlog-cosignature)
	Kept      []byte   // a checkpoint from earlier; nil for none
}

// Index is that of an entry; -1 stands for none.
type Index int64

// MarshalJSON writes null for none.
func (i Index) MarshalJSON() ([]byte, error) {
	if i < 0 {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, int64(i), 10), nil
}

// Verdict is what a check of a log found.
type Verdict struct {
	OK          bool   `json:"ok"`          // all holds, under a pinned key
	Consistent  bool   `json:"consistent"`  // all holds, under some key
	Pinned      bool   `json:"pinned"`      // the key is the auditor's
	Witnessed   bool   `json:"witnessed"`   // each witness that was named has cosigned
	Entries     int64  `json:"entries"`     // that were read
	Checkpoints int64  `json:"checkpoints"` // that hold
	FirstBad    Index  `json:"first_bad"`   // the first entry that does not hold
	Reason      string `json:"reason"`      // why it is not OK, for people

	Origin      string `json:"origin"`
	First       int64  `json:"first"`       // index of the first entry
	Size        int64  `json:"size"`        // of the log, up to the last entry
	Root        string `json:"root"`        // of the tree of this size, in base64 as in checkpoints
	Key         string `json:"key"`         // the verifier key that signatures were checked under
	Fingerprint string `json:"fingerprint"` // SHA-256 of the public key (SubjectPublicKeyInfo), in hex
	KeyEntries  int64  `json:"key_entries"` // about keys, each proven, beside the others
	Kept        int64  `json:"kept"`        // entries before this one are those under the checkpoint that was kept
	Cosigned    int64  `json:"cosigned"`    // entries before this one are those that each witness has seen

	Closed []Verdict `json:"closed,omitempty"` // logs that this one has followed, oldest first; see [VerifyAll]
}

// NotPinned is the reason of a verdict on a log that is consistent under a key of its own.
const NotPinned = "consistent, signer not pinned"

// Verify checks a log. What is wrong with it is in the verdict; the error is about reading it, or about the terms. The
// verdict is not OK then either.
func Verify(ctx context.Context, source Source, terms Terms) (Verdict, error) {
	w, err := newWalk(terms)
	if err != nil {
		return Verdict{FirstBad: -1, Reason: err.Error()}, err
	}
	if err = source.read(ctx, w); err == nil {
		err = w.finish()
	}
	verdict := w.verdict()
	if err != nil {
		verdict.Witnessed, verdict.Cosigned = false, 0 // cosignatures are read ahead of the entries
	}
	if wrong, ok := errors.AsType[*finding](err); ok {
		verdict.FirstBad, verdict.Reason = Index(wrong.entry), wrong.reason
		return verdict, nil
	}
	if err != nil {
		verdict.Reason = err.Error()
		if errors.Is(err, bundle.ErrMalformed) {
			err = nil // it could be read, and is wrong
		}
		return verdict, err
	}
	verdict.Consistent, verdict.OK = true, verdict.Pinned
	if !verdict.Pinned {
		verdict.Reason = NotPinned
	}
	return verdict, nil
}

// finding is what is wrong with a log.
type finding struct {
	entry  int64 // -1: no entry in particular
	reason string
}

func (f *finding) Error() string { return f.reason }

func wrong(entry int64, format string, args ...any) error {
	return &finding{entry, fmt.Sprintf(format, args...)}
}

// Fingerprint returns the SHA-256, in hex, of the public key in a verifier key.
func Fingerprint(vkey string) string {
	parts := strings.SplitN(vkey, "+", 3)
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) < 2 {
		return ""
	}
	sum := sha256.Sum256(raw[1:]) // without the type of signature
	return hex.EncodeToString(sum[:])
}

// witnessVerifier reads the key of a witness: types 0x04 and 0x06, or the plain Ed25519 key 0x01 that a witness also gives.
func witnessVerifier(vkey string) (note.Verifier, error) {
	verifier, err := formatsnote.NewVerifierForCosignatureV1(vkey)
	if err != nil {
		return nil, fmt.Errorf("the key of a witness: %w", err)
	}
	_, rest, _ := strings.Cut(vkey, "+")
	hash, _, _ := strings.Cut(rest, "+")
	if plain, err := note.NewVerifier(vkey); err == nil && hash == fmt.Sprintf("%08x", plain.KeyHash()) {
		return verifier, nil
	}
	if hash != fmt.Sprintf("%08x", verifier.KeyHash()) {
		return nil, fmt.Errorf("the key of a witness: %q does not match its own check value", vkey)
	}
	return verifier, nil
}
