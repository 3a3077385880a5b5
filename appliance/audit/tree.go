package audit

import "crypto/sha256"

// digest is a hash of the tree.
type digest = [sha256.Size]byte

// leafHash is the hash of an entry (RFC 6962 section 2.1). room is used again by the next call.
func leafHash(entry []byte, room *[]byte) digest {
	*room = append(append((*room)[:0], 0), entry...)
	return sha256.Sum256(*room)
}

func nodeHash(left, right digest) digest {
	var both [1 + 2*sha256.Size]byte
	both[0] = 1
	copy(both[1:], left[:])
	copy(both[1+sha256.Size:], right[:])
	return sha256.Sum256(both[:])
}

// edge is the right edge of a Merkle tree (RFC 6962): the roots of its complete subtrees, largest first.
type edge []subtree

type subtree struct {
	height int
	index  int64 // among those of its height
	hash   digest
}

// node is a hash that the log stores: the root of 256^level leaves.
type node struct {
	level int
	index int64
	hash  digest
}

// tileHeight is that of C2SP tlog-tiles.
const tileHeight = 8

// edgeOf makes the edge of a tree of this size from its roots, or nil if they are not as many as it has.
func edgeOf(size int64, roots []digest) edge {
	e := edge{}
	at := int64(0)
	for height := 62; height >= 0; height-- {
		if size>>height&1 == 0 {
			continue
		}
		if len(e) == len(roots) {
			return nil
		}
		e = append(e, subtree{height, at >> height, roots[len(e)]})
		at += 1 << height
	}
	if len(e) != len(roots) {
		return nil
	}
	return e
}

// push adds a leaf and returns the hashes that the log stores from now on.
func (e *edge) push(leaf digest) (stored []node) {
	last := subtree{hash: leaf}
	if n := len(*e); n > 0 {
		before := (*e)[n-1]
		last.index = (before.index + 1) << before.height
	}
	for n := len(*e); n > 0 && (*e)[n-1].height == last.height; n-- {
		last = subtree{last.height + 1, last.index / 2, nodeHash((*e)[n-1].hash, last.hash)}
		*e = (*e)[:n-1]
		if last.height%tileHeight == 0 {
			stored = append(stored, node{last.height / tileHeight, last.index, last.hash})
		}
	}
	*e = append(*e, last)
	return stored
}

func (e edge) root() digest {
	if len(e) == 0 {
		return sha256.Sum256(nil)
	}
	root := e[len(e)-1].hash
	for i := len(e) - 2; i >= 0; i-- {
		root = nodeHash(e[i].hash, root)
	}
	return root
}

// rootFrom computes the root that a proof of inclusion leads to (RFC 9162 section 2.1.3.2). It is false for a proof of
// another length than that of this place.
func rootFrom(leaf digest, index, size int64, path []digest) (root digest, ok bool) {
	if index < 0 || index >= size {
		return root, false
	}
	root = leaf
	at, last := index, size-1
	for _, sibling := range path {
		if last == 0 {
			return root, false
		}
		if at&1 == 1 || at == last {
			root = nodeHash(sibling, root)
			for at&1 == 0 && at != 0 {
				at, last = at>>1, last>>1
			}
		} else {
			root = nodeHash(root, sibling)
		}
		at, last = at>>1, last>>1
	}
	return root, last == 0
}
