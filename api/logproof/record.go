package logproof

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/transparency-dev/formats/log"
	formatsnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Record says in few bytes where an entry stands in a log, and what the log was when the entry was signed. It travels with the
// request that the entry announced, so that whoever took the request (an acquirer) can hold the log's keeper to it: the entry at
// this index hashes to this leaf, and every later log must be consistent with this root. It proves the signature of the root;
// that the leaf is under the root is proven by a receipt, which the keeper owes.
//
//	1 byte    version: 1
//	8 bytes   index of the entry, big-endian
//	8 bytes   size of the log, big-endian: the index is below it
//	32 bytes  leaf hash of the entry (RFC 6962, section 2.1)
//	32 bytes  root hash of the log of that size
//	4 bytes   hash of the key, as in its verifier key (C2SP signed-note)
//	rest      signature of the log's checkpoint (ECDSA P-256 with SHA-256, DER): up to 72 bytes
type Record struct {
	Index, Size int64
	Leaf, Root  tlog.Hash
	KeyHash     uint32
	Signature   []byte
}

const (
	recordVersion = 1
	recordHead    = 1 + 8 + 8 + 2*tlog.HashSize + 4
	// MaxRecord is the length of the longest record, in bytes.
	MaxRecord = recordHead + maxSignature
	// maxSignature is that of ECDSA on P-256 in DER: two integers of 33 bytes.
	maxSignature = 2 + 2*(2+33)
)

// NewRecord makes the record of an entry from the signed checkpoint of the log that it was committed with, which its caller has
// signed: the signature, the first one, is taken over as it is.
func NewRecord(index int64, leaf tlog.Hash, checkpoint []byte) (Record, error) {
	var opened log.Checkpoint
	rest, err := opened.Unmarshal(checkpoint)
	if err != nil || len(opened.Hash) != tlog.HashSize || opened.Size > 1<<62 {
		return Record{}, fmt.Errorf("logproof: not a checkpoint: %w", err)
	}
	line, _, _ := bytes.Cut(bytes.TrimPrefix(rest, []byte("\n")), []byte("\n")) // "— name base64"
	signed, err := base64.StdEncoding.DecodeString(string(line[bytes.LastIndexByte(line, ' ')+1:]))
	if err != nil || len(signed) < 4 {
		return Record{}, errors.New("logproof: a checkpoint without a signature")
	}
	r := Record{Index: index, Size: int64(opened.Size), Leaf: leaf, KeyHash: binary.BigEndian.Uint32(signed), Signature: signed[4:]} //nolint:gosec // looked at above
	copy(r.Root[:], opened.Hash)
	return r, r.check()
}

func (r Record) check() error {
	if r.Index < 0 || r.Index >= r.Size || len(r.Signature) == 0 || len(r.Signature) > maxSignature {
		return errors.New("logproof: not a record: an index past the log's end, or a signature of another kind")
	}
	return nil
}

// Marshal returns the record's bytes.
func (r Record) Marshal() []byte {
	b := make([]byte, 0, MaxRecord)
	b = append(b, recordVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Index)) //nolint:gosec // checked to be no negative number
	b = binary.BigEndian.AppendUint64(b, uint64(r.Size))  //nolint:gosec // likewise
	b = append(b, r.Leaf[:]...)
	b = append(b, r.Root[:]...)
	b = binary.BigEndian.AppendUint32(b, r.KeyHash)
	return append(b, r.Signature...)
}

// ParseRecord reads what [Record.Marshal] writes. It says nothing of whose it is: see [Record.Verify].
func ParseRecord(b []byte) (Record, error) {
	if len(b) <= recordHead || b[0] != recordVersion {
		return Record{}, errors.New("logproof: not a record of this version")
	}
	index, size := binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])
	if index > 1<<62 || size > 1<<62 {
		return Record{}, errors.New("logproof: not a record: a number is out of range")
	}
	r := Record{Index: int64(index), Size: int64(size), KeyHash: binary.BigEndian.Uint32(b[recordHead-4:]), Signature: append([]byte(nil), b[recordHead:]...)}
	copy(r.Leaf[:], b[17:])
	copy(r.Root[:], b[17+tlog.HashSize:])
	return r, r.check()
}

// Verify checks that the root was signed under a log's name and key.
func (r Record) Verify(vkey string) error {
	verifier, err := formatsnote.NewVerifier(vkey)
	if err != nil {
		return fmt.Errorf("logproof: verifier key: %w", err)
	}
	origin, _, _ := strings.Cut(vkey, "+")
	if verifier.KeyHash() != r.KeyHash {
		return errors.New("logproof: the record was signed under another key")
	}
	text := log.Checkpoint{Origin: origin, Size: uint64(r.Size), Hash: r.Root[:]}.Marshal() //nolint:gosec // checked to be no negative number
	if !verifier.Verify(text, r.Signature) {
		return errors.New("logproof: the record's signature does not hold: it is of another log, or was altered")
	}
	return nil
}

// Is reports whether the record is that of an entry's text.
func (r Record) Is(entry []byte) bool { return tlog.RecordHash(entry) == r.Leaf }
