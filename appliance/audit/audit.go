// Package audit checks the signed log without trusting the process that wrote it.
package audit

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// Verdict is what a check of a log found.
type Verdict struct {
	Origin   string
	Size     int64
	Verified bool
	FirstBad int64  // the first entry that does not hold, or -1
	Reason   string // why not, for people
}

// page is how many rows are read at once.
const page = 1000

// Verify checks a log in a database, under a verifier key that the caller got elsewhere: every entry's text against
// its leaf, every stored hash and every checkpoint's root against the leaves, every checkpoint's signature, and that
// the newest checkpoint covers all entries. The error is about reading; what is wrong with the log is in the verdict.
//
// The tree is computed from the leaves alone, by other code than that which wrote it.
func Verify(ctx context.Context, s *store.Store, origin, vkey string) (Verdict, error) {
	v := &verifier{read: s.Read(ctx), origin: origin, vkey: vkey}
	verdict := Verdict{Origin: origin, FirstBad: -1}
	size, err := v.run()
	verdict.Size = size
	if wrong, ok := errors.AsType[*finding](err); ok {
		verdict.FirstBad, verdict.Reason = wrong.entry, wrong.reason
		return verdict, nil
	}
	verdict.Verified = err == nil
	return verdict, err
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

// verifier walks through a log once.
type verifier struct {
	read         store.Queries
	origin, vkey string

	edge        edge
	checkpoints []store.LedgerCheckpoint // read ahead
	signed      int64                    // size of the last checkpoint that held
}

func (v *verifier) run() (size int64, err error) {
	entered, err := v.read.LedgerSize() // before the checkpoint, which commits with its entries
	if err != nil {
		return 0, fmt.Errorf("read the log's size: %w", err)
	}
	size, text, err := v.read.LedgerCheckpoint()
	if errors.Is(err, store.ErrNotFound) {
		return 0, wrong(-1, "there is no signed checkpoint")
	}
	if err != nil {
		return 0, fmt.Errorf("read the newest checkpoint: %w", err)
	}
	if _, err := v.open(store.LedgerCheckpoint{Size: size, Note: text}); err != nil {
		return 0, err
	}
	for from := int64(0); from < size; from += page {
		entries, err := v.read.LedgerEntries(from, int(min(page, size-from)))
		if err != nil {
			return size, fmt.Errorf("read entries from %d: %w", from, err)
		}
		for i, e := range entries {
			if want := from + int64(i); e.Index != want {
				return size, wrong(want, "the entry is missing")
			}
			if err := v.take(e); err != nil {
				return size, err
			}
		}
		if got := from + int64(len(entries)); got < min(from+page, size) {
			return size, wrong(got, "the entry is missing")
		}
	}
	if size < entered {
		return size, wrong(size, "the entry is under no checkpoint")
	}
	return size, nil
}

// take adds an entry to the tree and holds against it what is stored of the tree so far.
func (v *verifier) take(e store.LedgerEntry) error {
	leaf := tlog.RecordHash(e.Entry)
	if string(leaf[:]) != string(e.Leaf) {
		return wrong(e.Index, "the entry's text does not match its leaf")
	}
	for _, node := range v.edge.push(leaf) {
		stored, err := v.read.LedgerHashes(node.level, node.index, 1)
		if err != nil {
			return fmt.Errorf("read stored hash %d of level %d: %w", node.index, node.level, err)
		}
		if len(stored) != 1 || string(stored[0]) != string(node.hash[:]) {
			return wrong(-1, "stored hash %d of level %d is not that of its entries", node.index, node.level)
		}
	}
	return v.meet(e.Index + 1)
}

// meet checks the checkpoint of this size, if there is one.
func (v *verifier) meet(size int64) error {
	if len(v.checkpoints) == 0 {
		var err error
		if v.checkpoints, err = v.read.LedgerCheckpoints(size-1, page); err != nil {
			return fmt.Errorf("read checkpoints from %d: %w", size, err)
		}
	}
	if len(v.checkpoints) == 0 || v.checkpoints[0].Size != size {
		return nil
	}
	root, err := v.open(v.checkpoints[0])
	if err != nil {
		return err
	}
	if root != v.edge.root() {
		return wrong(v.signed, "entries %d to %d are not those that were signed", v.signed, size-1)
	}
	v.checkpoints, v.signed = v.checkpoints[1:], size
	return nil
}

// open returns the root that a stored checkpoint signs.
func (v *verifier) open(c store.LedgerCheckpoint) (tlog.Hash, error) {
	checkpoint, err := ledger.OpenCheckpoint(c.Note, v.origin, v.vkey)
	if err != nil {
		return tlog.Hash{}, wrong(-1, "the checkpoint of size %d: %v", c.Size, err)
	}
	if checkpoint.Size != uint64(c.Size) || len(checkpoint.Hash) != tlog.HashSize {
		return tlog.Hash{}, wrong(-1, "the checkpoint of size %d is not the one it is stored as", c.Size)
	}
	return tlog.Hash(checkpoint.Hash), nil
}

// edge is the right edge of a Merkle tree (RFC 6962): the roots of its complete subtrees, largest first.
type edge []subtree

type subtree struct {
	height int
	index  int64 // among those of its height
	hash   tlog.Hash
}

// node is a hash that the log stores: the root of 256^level leaves.
type node struct {
	level int
	index int64
	hash  tlog.Hash
}

// tileHeight is that of C2SP tlog-tiles.
const tileHeight = 8

// push adds a leaf and returns the hashes that the log stores from now on.
func (e *edge) push(leaf tlog.Hash) (stored []node) {
	last := subtree{hash: leaf}
	if n := len(*e); n > 0 {
		before := (*e)[n-1]
		last.index = (before.index + 1) << before.height
	}
	for n := len(*e); n > 0 && (*e)[n-1].height == last.height; n-- {
		last = subtree{last.height + 1, last.index / 2, tlog.NodeHash((*e)[n-1].hash, last.hash)}
		*e = (*e)[:n-1]
		if last.height%tileHeight == 0 {
			stored = append(stored, node{last.height / tileHeight, last.index, last.hash})
		}
	}
	*e = append(*e, last)
	return stored
}

func (e edge) root() tlog.Hash {
	root := e[len(e)-1].hash
	for i := len(e) - 2; i >= 0; i-- {
		root = tlog.NodeHash(e[i].hash, root)
	}
	return root
}
