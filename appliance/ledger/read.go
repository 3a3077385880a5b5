package ledger

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/finterra/finpay/appliance/store"
)

// What stands here reads a stored log without its keys: beside the process that writes it, or where there is none.

// EntryTile returns entries as C2SP tlog-tiles bundles them, each after its length in two bytes, big-endian.
func EntryTile(read store.Queries, from int64, count int) ([]byte, error) {
	entries, err := read.LedgerEntries(from, count)
	if err != nil {
		return nil, err
	}
	var bundle []byte
	for i, e := range entries {
		if e.Index != from+int64(i) {
			return nil, fmt.Errorf("%w: entry %d is missing", ErrDamaged, from+int64(i))
		}
		if len(e.Entry) > maxEntry {
			return nil, fmt.Errorf("%w: entry %d has %d bytes", ErrDamaged, e.Index, len(e.Entry))
		}
		bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(e.Entry)))
		bundle = append(bundle, e.Entry...)
	}
	if len(entries) != count {
		return nil, fmt.Errorf("%w: entry %d is missing", ErrDamaged, from+int64(len(entries)))
	}
	return bundle, nil
}

// HashTile returns hashes of a level of C2SP tlog-tiles, one after the other.
func HashTile(read store.Queries, level int, from int64, count int) ([]byte, error) {
	hashes, err := read.LedgerHashes(level, from, count)
	if err != nil {
		return nil, err
	}
	tile := make([]byte, 0, count*tlog.HashSize)
	for _, h := range hashes {
		tile = append(tile, h...)
	}
	if len(tile) != count*tlog.HashSize || len(hashes) != count {
		return nil, fmt.Errorf("%w: hashes of level %d are missing from %d on", ErrDamaged, level, from)
	}
	return tile, nil
}

// Edge returns the roots of the complete subtrees that a tree of this size consists of, largest first.
func Edge(read store.Queries, size int64) ([]tlog.Hash, error) {
	t, err := treeFrom(size, Hashes(read))
	return t.roots, err
}

// Prove returns the proof that an entry is under a checkpoint (C2SP tlog-proof).
func Prove(read store.Queries, index, size int64, checkpoint []byte) ([]byte, error) {
	hashes, err := tlog.ProveRecord(size, index, Hashes(read))
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", index, err)
	}
	p := proof.TLogProof{Index: uint64(index), Checkpoint: checkpoint}
	for _, h := range hashes {
		p.Hashes = append(p.Hashes, h)
	}
	return p.Marshal(), nil
}

// ProveConsistency returns the proof that the tree under a checkpoint begins with all of the tree of size from: the
// body of C2SP tlog-witness, "old" and the size, hashes, a blank line, the checkpoint.
func ProveConsistency(read store.Queries, from, size int64, checkpoint []byte) ([]byte, error) {
	text := fmt.Appendf(nil, "old %d\n", from)
	if from > 0 && from < size {
		hashes, err := tlog.ProveTree(size, from, Hashes(read))
		if err != nil {
			return nil, fmt.Errorf("prove that %d entries are the first of %d: %w", from, size, err)
		}
		for _, h := range hashes {
			text = fmt.Appendf(text, "%s\n", h)
		}
	}
	return append(append(text, '\n'), checkpoint...), nil
}

// VerifyConsistency checks, with nothing but the log's public key, that the log has kept all that an earlier checkpoint
// covered. It returns the later checkpoint, to be kept in the earlier one's place.
func VerifyConsistency(earlier, proven []byte, origin, vkey string) (newer []byte, err error) {
	old, err := OpenCheckpoint(earlier, origin, vkey)
	if err != nil {
		return nil, err
	}
	head, text, _ := strings.Cut(string(proven), "\n\n")
	first, lines, _ := strings.Cut(head+"\n", "\n")
	if first != fmt.Sprintf("old %d", old.Size) {
		return nil, errors.New("ledger: the proof is about another checkpoint")
	}
	hashes, err := hashLines(lines)
	if err != nil {
		return nil, err
	}
	later, err := OpenCheckpoint([]byte(text), origin, vkey)
	if err != nil {
		return nil, err
	}
	if later.Size < old.Size || len(later.Hash) != tlog.HashSize || len(old.Hash) != tlog.HashSize {
		return nil, errors.New("ledger: the log is smaller than it was")
	}
	switch old.Size {
	case 0, later.Size:
		if len(hashes) > 0 || (old.Size > 0 && string(old.Hash) != string(later.Hash)) {
			return nil, errors.New("ledger: two different logs of one size")
		}
	default:
		if err := tlog.CheckTree(hashes, int64(later.Size), tlog.Hash(later.Hash), int64(old.Size), tlog.Hash(old.Hash)); err != nil {
			return nil, fmt.Errorf("ledger: the log does not begin with what it was: %w", err)
		}
	}
	return []byte(text), nil
}

// hashLines reads hashes in base64, one a line.
func hashLines(text string) (hashes tlog.TreeProof, err error) {
	for line := range strings.Lines(text) {
		raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(line, "\n"))
		if err != nil || len(raw) != tlog.HashSize {
			return nil, errors.New("ledger: a line of the proof is no hash")
		}
		hashes = append(hashes, tlog.Hash(raw))
	}
	return hashes, nil
}
