// Package logproof checks what an appliance proves of its signed log: that an entry stands there (C2SP tlog-proof), under the
// log's public key alone. It needs no appliance, and no network.
package logproof

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/transparency-dev/formats/log"
	formatsnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Verify checks that an entry stands at an index of a log: the proof of inclusion, and the checkpoint's signature. origin is the
// log's name, vkey its public key (C2SP signed-note).
func Verify(index int64, entry, proven []byte, origin, vkey string) error {
	verifier, err := formatsnote.NewVerifier(vkey)
	if err != nil {
		return fmt.Errorf("logproof: verifier key: %w", err)
	}
	var p proof.TLogProof
	if err := p.Unmarshal(proven); err != nil {
		return fmt.Errorf("logproof: proof: %w", err)
	}
	checkpoint, _, err := Open(p.Checkpoint, origin, verifier)
	if err != nil {
		return fmt.Errorf("logproof: checkpoint: %w", err)
	}
	if p.Index != uint64(index) || len(checkpoint.Hash) != tlog.HashSize || string(p.Marshal()) != string(proven) { //nolint:gosec // a negative one fits no proof
		return errors.New("logproof: the proof is about another entry, or was altered")
	}
	record := make(tlog.RecordProof, len(p.Hashes))
	for i := range p.Hashes {
		record[i] = p.Hashes[i]
	}
	return tlog.CheckRecord(record, int64(checkpoint.Size), tlog.Hash(checkpoint.Hash), index, tlog.RecordHash(entry)) //nolint:gosec // as it was signed
}

// Open verifies a signed checkpoint under a log's name and key. One that says the same in other bytes is refused: who compares
// copies must not be shown two. It tells whose of the other signatures hold as well; one that is of a given witness and
// does not hold is an error.
func Open(text []byte, origin string, verifier note.Verifier, witnesses ...note.Verifier) (*log.Checkpoint, []note.Signature, error) {
	checkpoint, _, signed, err := log.ParseCheckpoint(text, origin, verifier, witnesses...)
	if err != nil {
		return nil, nil, err
	}
	for _, signatures := range [][]note.Signature{signed.Sigs, signed.UnverifiedSigs} {
		for _, signature := range signatures {
			if raw, err := base64.StdEncoding.DecodeString(signature.Base64); err != nil || base64.StdEncoding.EncodeToString(raw) != signature.Base64 {
				return nil, nil, errors.New("a signature's base64 has another form than its bytes have")
			}
		}
	}
	return checkpoint, signed.Sigs, nil
}

// Origin returns the name of the log that a proof is of, empty where it has none. It says nothing until the proof is verified.
func Origin(proven []byte) string {
	var p proof.TLogProof
	if p.Unmarshal(proven) != nil {
		return ""
	}
	name, _, _ := bytes.Cut(p.Checkpoint, []byte("\n"))
	return string(name)
}

// KeyNamed returns the same public key for another log's name: an appliance's logs follow each other under one key. The hash in a
// key of type 0x02 does not depend on the name.
func KeyNamed(vkey, name string) string {
	_, rest, _ := strings.Cut(vkey, "+")
	return name + "+" + rest
}
