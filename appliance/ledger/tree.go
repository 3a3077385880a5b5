package ledger

import (
	"context"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/finterra/finpay/appliance/store"
)

// tileHeight is the height of a tile of C2SP tlog-tiles: complete subtrees of 256^level leaves are stored, and
// what lies between is computed from at most 256 of them.
const tileHeight = 8

// tree is the right edge of a Merkle tree: the roots of its complete subtrees, largest first. It is all that is
// needed to append and to know the root.
type tree struct {
	size  int64
	roots []tlog.Hash
}

func (t tree) clone() tree { return tree{t.size, append([]tlog.Hash(nil), t.roots...)} }

// push appends a leaf. keep is called for each subtree that is complete now and whose height is that of a tile.
func (t *tree) push(leaf tlog.Hash, keep func(level int, index int64, hash tlog.Hash)) {
	hash := leaf
	for height := range bits.TrailingZeros64(^uint64(t.size)) {
		last := len(t.roots) - 1
		hash = tlog.NodeHash(t.roots[last], hash)
		t.roots = t.roots[:last]
		if (height+1)%tileHeight == 0 {
			keep((height+1)/tileHeight, t.size>>(height+1), hash)
		}
	}
	t.roots = append(t.roots, hash)
	t.size++
}

// root returns the tree head of RFC 6962, section 2.1.
func (t tree) root() tlog.Hash {
	if len(t.roots) == 0 {
		hash, _ := tlog.TreeHash(0, nil)
		return hash
	}
	hash := t.roots[len(t.roots)-1]
	for i := len(t.roots) - 2; i >= 0; i-- {
		hash = tlog.NodeHash(t.roots[i], hash)
	}
	return hash
}

// treeFrom reads the right edge of a stored tree.
func treeFrom(size int64, hashes tlog.HashReader) (tree, error) {
	t := tree{size: size}
	var indexes []int64
	for at, height := int64(0), 62; height >= 0; height-- {
		if size&(1<<height) != 0 {
			indexes = append(indexes, tlog.StoredHashIndex(height, at>>height))
			at += 1 << height
		}
	}
	roots, err := hashes.ReadHashes(indexes)
	t.roots = roots
	return t, err
}

// Hashes reads the hashes of a stored tree, in the numbering of [tlog.StoredHashIndex]. Most of those that are asked for at
// once are in few tiles, each of which is read once.
func Hashes(read store.Queries) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		tiles := make(map[tile][][]byte)
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			height, n := tlog.SplitStoredHashIndex(index)
			count := int64(1) << (height % tileHeight)
			t, from := tile{height / tileHeight, n * count >> tileHeight}, n*count%tileWidth
			if _, ok := tiles[t]; !ok {
				var err error
				if tiles[t], err = read.LedgerHashes(t.level, t.n*tileWidth, tileWidth); err != nil {
					return nil, err
				}
			}
			if int64(len(tiles[t])) < from+count {
				return nil, fmt.Errorf("%w: hashes are missing at height %d", ErrDamaged, height)
			}
			var err error
			if out[i], err = subtree(tiles[t][from : from+count]); err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// tile is a part of the tree of which the hashes at the bottom are stored.
type tile struct {
	level int
	n     int64
}

// tileWidth is how many hashes are at the bottom of a tile.
const tileWidth = 1 << tileHeight

// subtree returns the root of a complete subtree from the stored hashes at its bottom.
func subtree(stored [][]byte) (tlog.Hash, error) {
	level := make([]tlog.Hash, len(stored))
	for i, raw := range stored {
		if len(raw) != tlog.HashSize {
			return tlog.Hash{}, fmt.Errorf("%w: a hash of %d bytes", ErrDamaged, len(raw))
		}
		copy(level[i][:], raw)
	}
	for len(level) > 1 {
		for i := range len(level) / 2 {
			level[i] = tlog.NodeHash(level[2*i], level[2*i+1])
		}
		level = level[:len(level)/2]
	}
	return level[0], nil
}

// Proven is an entry with its proof.
type Proven struct {
	Index int64
	Entry []byte // canonical JSON
	Proof []byte // C2SP tlog-proof: index, hashes, signed checkpoint
	Key   string // verifier key of its log, where that is a closed one
}

// EntriesOf returns every entry about a resource with its proof of inclusion under the newest checkpoint of its log.
func (l *Ledger) EntriesOf(ctx context.Context, resource string) ([]Proven, error) {
	read := l.store.Read(ctx)
	entries, err := read.LedgerEntriesOf(resource)
	if err != nil {
		return nil, err
	}
	closed, err := read.ClosedLogs()
	if err != nil {
		return nil, err
	}
	heads := make(map[int64]store.LedgerCheckpoint) // read after the entries, so they cover them
	var proven []Proven
	for _, e := range entries {
		read := read.InLog(e.Log)
		head, ok := heads[e.Log]
		if !ok {
			if head.Size, head.Note, err = read.LedgerCheckpoint(); err != nil {
				return nil, err
			}
			heads[e.Log] = head
		}
		p := Proven{Index: e.Index, Entry: e.Entry}
		if p.Proof, err = Prove(read, e.Index, head.Size, head.Note); err != nil {
			return nil, err
		}
		if e.Log < int64(len(closed)) {
			p.Key = closed[e.Log].Key
		}
		proven = append(proven, p)
	}
	return proven, nil
}
