package logproof

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	formatsnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// aLog is a log of a few entries in memory, signed as an appliance's is: ECDSA on P-256, signature type 0x02 of C2SP signed-note.
type aLog struct {
	key    *ecdsa.PrivateKey
	name   string
	vkey   string
	hash   uint32
	hashes []tlog.Hash
	size   int64
}

func newLog(t *testing.T, name string, key *ecdsa.PrivateKey, entries ...string) *aLog {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	l := &aLog{key: key, name: name, vkey: fmt.Sprintf("%s+%08x+%s", name, binary.BigEndian.Uint32(sum[:]), base64.StdEncoding.EncodeToString(append([]byte{2}, spki...)))}
	verifier, err := formatsnote.NewVerifier(l.vkey)
	if err != nil {
		t.Fatal(err)
	}
	l.hash = verifier.KeyHash()
	for _, entry := range entries {
		added, err := tlog.StoredHashes(l.size, []byte(entry), l)
		if err != nil {
			t.Fatal(err)
		}
		l.hashes, l.size = append(l.hashes, added...), l.size+1
	}
	return l
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (l *aLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		found[i] = l.hashes[at]
	}
	return found, nil
}

func (l *aLog) Name() string    { return l.name }
func (l *aLog) KeyHash() uint32 { return l.hash }

func (l *aLog) Sign(message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	return ecdsa.SignASN1(rand.Reader, l.key, digest[:])
}

// prove returns the tlog-proof of an entry.
func (l *aLog) prove(t *testing.T, index int64) []byte {
	t.Helper()
	root, err := tlog.TreeHash(l.size, l)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", l.name, l.size, base64.StdEncoding.EncodeToString(root[:]))}, l)
	if err != nil {
		t.Fatal(err)
	}
	path, err := tlog.ProveRecord(l.size, index, l)
	if err != nil {
		t.Fatal(err)
	}
	p := proof.TLogProof{Index: uint64(index), Checkpoint: signed} //nolint:gosec // a small one
	for _, h := range path {
		p.Hashes = append(p.Hashes, h)
	}
	return p.Marshal()
}

func TestAProofHoldsForItsEntryAlone(t *testing.T) {
	const name = "finpay.example/log"
	entries := []string{`{"n":0}`, `{"n":1}`, `{"n":2}`, `{"n":3}`, `{"n":4}`}
	key := newKey(t)
	l := newLog(t, name, key, entries...)
	for i, entry := range entries {
		proven := l.prove(t, int64(i))
		if err := Verify(int64(i), []byte(entry), proven, name, l.vkey); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		if Origin(proven) != name {
			t.Errorf("%q", Origin(proven))
		}
	}
	proven := l.prove(t, 3)
	next := newLog(t, "finpay.example/next", key, entries...)
	if err := Verify(3, []byte(entries[3]), next.prove(t, 3), next.name, KeyNamed(l.vkey, next.name)); err != nil {
		t.Errorf("the log that follows, under the same key: %v", err)
	}
	for what, err := range map[string]error{
		"another entry":        Verify(3, []byte(entries[2]), proven, name, l.vkey),
		"another index":        Verify(2, []byte(entries[3]), proven, name, l.vkey),
		"an index below zero":  Verify(-1, []byte(entries[3]), proven, name, l.vkey),
		"another log's name":   Verify(3, []byte(entries[3]), proven, next.name, KeyNamed(l.vkey, next.name)),
		"another key":          Verify(3, []byte(entries[3]), proven, name, newLog(t, name, newKey(t)).vkey),
		"a key that is none":   Verify(3, []byte(entries[3]), proven, name, name+"+zz"),
		"no proof":             Verify(3, []byte(entries[3]), nil, name, l.vkey),
		"something behind it":  Verify(3, []byte(entries[3]), append(proven[:len(proven):len(proven)], '\n'), name, l.vkey),
		"a proof of another":   Verify(3, []byte(entries[3]), l.prove(t, 2), name, l.vkey),
		"a log without it":     Verify(3, []byte(entries[3]), newLog(t, name, key, entries[:3]...).prove(t, 2), name, l.vkey),
		"an altered signature": Verify(3, []byte(entries[3]), []byte(strings.Replace(string(proven), "=\n", "A\n", 1)), name, l.vkey),
	} {
		if err == nil {
			t.Errorf("%s holds", what)
		}
	}
	for at := range proven {
		altered := append([]byte{}, proven...)
		altered[at] ^= 1
		if Verify(3, []byte(entries[3]), altered, name, l.vkey) == nil {
			t.Errorf("byte %d of the proof can be altered", at)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 0\n\nx\n1\nAAAA\n"), int64(0))
	f.Add([]byte(nil), int64(-1))
	f.Fuzz(func(t *testing.T, proven []byte, index int64) {
		const vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
		if Verify(index, []byte("{}"), proven, Origin(proven), vkey) == nil {
			t.Error("something unsigned holds")
		}
	})
}
