package ledger

import (
	"errors"
	"fmt"

	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/tlog"
)

// VerifyEntry checks, with nothing but the log's public key, that an entry stands at an index of the log: the proof of
// inclusion, and the checkpoint's signature.
func VerifyEntry(index int64, entry, proven []byte, origin, vkey string) error {
	var p proof.TLogProof
	if err := p.Unmarshal(proven); err != nil {
		return fmt.Errorf("ledger: proof: %w", err)
	}
	checkpoint, err := OpenCheckpoint(p.Checkpoint, origin, vkey)
	if err != nil {
		return err
	}
	if p.Index != uint64(index) || len(checkpoint.Hash) != tlog.HashSize || string(p.Marshal()) != string(proven) {
		return errors.New("ledger: the proof is about another entry, or was altered")
	}
	record := make(tlog.RecordProof, len(p.Hashes))
	for i := range p.Hashes {
		record[i] = p.Hashes[i]
	}
	return tlog.CheckRecord(record, int64(checkpoint.Size), tlog.Hash(checkpoint.Hash), index, tlog.RecordHash(entry))
}
