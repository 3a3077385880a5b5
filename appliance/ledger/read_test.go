package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/finterra/finpay/api/logproof"
)

// filled is a log of 300 entries, each under a checkpoint of its own.
func filled(t *testing.T) *Ledger {
	t.Helper()
	l := open(t, t.TempDir(), newKey(t))
	for i := range 300 {
		if _, err := l.Commit(t.Context(), issue(i)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// signedAt returns the checkpoint of a size.
func signedAt(t *testing.T, l *Ledger, size int64) []byte {
	t.Helper()
	list, err := l.store.Read(t.Context()).LedgerCheckpoints(size-1, 1)
	if err != nil || len(list) != 1 || list[0].Size != size {
		t.Fatalf("%+v, %v", list, err)
	}
	return list[0].Note
}

func TestConsistencyIsProvenBetweenAllCheckpoints(t *testing.T) {
	l := filled(t)
	read := l.store.Read(t.Context())
	sizes := []int64{1, 2, 3, 7, 255, 256, 257, 299, 300}
	for _, to := range sizes {
		for _, from := range sizes {
			if from > to {
				continue
			}
			proof, err := ProveConsistency(read, from, to, signedAt(t, l, to))
			if err != nil {
				t.Fatal(err)
			}
			later, err := VerifyConsistency(signedAt(t, l, from), proof, origin, l.VerifierKey())
			if err != nil || !bytes.Equal(later, signedAt(t, l, to)) {
				t.Errorf("%d to %d: %v", from, to, err)
			}
			for at := 0; at < len(proof)-len(later); at += 3 {
				altered := bytes.Clone(proof)
				altered[at] ^= 1
				if _, err := VerifyConsistency(signedAt(t, l, from), altered, origin, l.VerifierKey()); err == nil {
					t.Errorf("%d to %d: byte %d altered, accepted", from, to, at)
				}
			}
			if _, err := VerifyConsistency(signedAt(t, l, 5), proof, origin, l.VerifierKey()); err == nil {
				t.Errorf("%d to %d proves something of 5", from, to)
			}
		}
	}
	whole, err := ProveConsistency(read, 0, 300, signedAt(t, l, 300))
	if err != nil || !strings.HasPrefix(string(whole), "old 0\n\n"+origin+"\n300\n") {
		t.Errorf("%q, %v", whole, err)
	}
	other := filled(t)
	proof, err := ProveConsistency(read, 7, 300, signedAt(t, l, 300))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyConsistency(signedAt(t, other, 7), proof, origin, l.VerifierKey()); err == nil {
		t.Error("the checkpoint of another log is taken")
	}
}

func FuzzVerifyConsistency(f *testing.F) {
	f.Add([]byte("old 7\nAAAA\n\nfinpay.test/node/2026\n"))
	f.Fuzz(func(t *testing.T, proof []byte) {
		if _, err := VerifyConsistency([]byte("x"), proof, origin, "x+00000000+AAAA"); err == nil {
			t.Error("accepted without a checkpoint")
		}
		if hashes, err := hashLines(string(proof)); err == nil && len(hashes)*45 > len(proof)+1 {
			t.Errorf("%d hashes in %d bytes", len(hashes), len(proof))
		}
	})
}

func TestTilesHoldTheLog(t *testing.T) {
	l := filled(t)
	read := l.store.Read(t.Context())
	for _, c := range []struct {
		from  int64
		count int
	}{{0, 256}, {256, 44}, {256, 1}} {
		hashes, err := HashTile(read, 0, c.from, c.count)
		if err != nil {
			t.Fatal(err)
		}
		bundle, err := EntryTile(read, c.from, c.count)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.count {
			n := int(binary.BigEndian.Uint16(bundle))
			if tlog.RecordHash(bundle[2:2+n]) != tlog.Hash(hashes[i*32:(i+1)*32]) {
				t.Errorf("entry %d is not its hash", c.from+int64(i))
			}
			bundle = bundle[2+n:]
		}
		if len(bundle) > 0 {
			t.Errorf("%d bytes are left", len(bundle))
		}
	}
	if _, err := EntryTile(read, 256, 45); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	if _, err := HashTile(read, 1, 1, 1); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	above, err := HashTile(read, 1, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := Edge(read, 256)
	if err != nil || len(roots) != 1 || string(roots[0][:]) != string(above) {
		t.Errorf("%x, %v, want %x", roots, err, above)
	}
	proof, err := Prove(read, 123, 300, signedAt(t, l, 300))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := read.LedgerEntries(123, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := logproof.Verify(123, entries[0].Entry, proof, origin, l.VerifierKey()); err != nil {
		t.Error(err)
	}
}
