package audit

import (
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// The writer's tree is that of package tlog; this package's must agree with it about every size and every place.
func TestTheTreeIsThatOfTheWriter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 700).Draw(t, "size")
		var stored []tlog.Hash
		reader := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, err error) {
			for _, i := range indexes {
				out = append(out, stored[i])
			}
			return out, nil
		})
		var grown edge
		var room []byte
		for i := range size {
			entry := []byte{byte(i), byte(i >> 8)}
			leaf := leafHash(entry, &room)
			if tlog.Hash(leaf) != tlog.RecordHash(entry) {
				t.Fatal("another leaf")
			}
			hashes, err := tlog.StoredHashes(i, entry, reader)
			if err != nil {
				t.Fatal(err)
			}
			stored = append(stored, hashes...)
			grown.push(leaf)
		}
		want, err := tlog.TreeHash(size, reader)
		if err != nil {
			t.Fatal(err)
		}
		if grown.root() != digest(want) {
			t.Fatalf("another root of %d entries", size)
		}
		var roots []digest
		for _, s := range grown {
			roots = append(roots, s.hash)
		}
		if again := edgeOf(size, roots); again == nil || again.root() != digest(want) || again[len(again)-1] != grown[len(grown)-1] {
			t.Fatalf("another edge of %d entries", size)
		}
		if edgeOf(size, roots[1:]) != nil || edgeOf(size, append(roots, digest{})) != nil {
			t.Fatal("an edge of another number of roots is taken")
		}
		index := rapid.Int64Range(0, size-1).Draw(t, "index")
		proof, err := tlog.ProveRecord(size, index, reader)
		if err != nil {
			t.Fatal(err)
		}
		var path []digest
		for _, h := range proof {
			path = append(path, digest(h))
		}
		leaf := leafHash([]byte{byte(index), byte(index >> 8)}, &room)
		if root, ok := rootFrom(leaf, index, size, path); !ok || root != digest(want) {
			t.Fatalf("the proof of %d in %d does not hold", index, size)
		}
		if _, ok := rootFrom(leaf, index, size, append(path, digest{})); ok {
			t.Fatal("a proof that is too long is taken")
		}
		if len(path) > 0 {
			if _, ok := rootFrom(leaf, index, size, path[1:]); ok {
				t.Fatal("a proof that is too short is taken")
			}
		}
		if _, ok := rootFrom(leaf, size, size, path); ok {
			t.Fatal("an entry behind the last one is taken")
		}
	})
}

func TestTheTreeOfNothingHasTheRootOfRFC6962(t *testing.T) {
	if want, _ := tlog.TreeHash(0, nil); edge(nil).root() != digest(want) {
		t.Error("another root")
	}
}
