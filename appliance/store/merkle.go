package store

import "crypto/sha256"

// merkleEdge is the right edge of a Merkle tree (RFC 6962, section 2.1) whose leaves are hashes already: the roots of its
// complete subtrees, largest first. It is all that a root needs, however many leaves there were.
type merkleEdge struct {
	leaves int
	roots  [][32]byte
}

func (e *merkleEdge) push(leaf [32]byte) {
	e.leaves++
	for n := e.leaves; n%2 == 0; n /= 2 {
		last := len(e.roots) - 1
		leaf = merkleNode(e.roots[last], leaf)
		e.roots = e.roots[:last]
	}
	e.roots = append(e.roots, leaf)
}

func (e *merkleEdge) root() [32]byte {
	if e.leaves == 0 {
		return sha256.Sum256(nil)
	}
	root := e.roots[len(e.roots)-1]
	for i := len(e.roots) - 2; i >= 0; i-- {
		root = merkleNode(e.roots[i], root)
	}
	return root
}

func merkleNode(left, right [32]byte) [32]byte {
	var node [65]byte
	node[0] = 1
	copy(node[1:], left[:])
	copy(node[33:], right[:])
	return sha256.Sum256(node[:])
}

// merkleRoot returns the root over hashes.
func merkleRoot(hashes [][32]byte) [32]byte {
	var edge merkleEdge
	for _, hash := range hashes {
		edge.push(hash)
	}
	return edge.root()
}
