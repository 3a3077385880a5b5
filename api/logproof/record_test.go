package logproof

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const origin = "finpay.test/log"

// hand signs notes as an appliance does.
type hand struct {
	*ecdsa.PrivateKey
	hash uint32
}

func (h hand) Name() string    { return origin }
func (h hand) KeyHash() uint32 { return h.hash }
func (h hand) Sign(message []byte) ([]byte, error) {
	digest := sha256.Sum256(message)
	return h.PrivateKey.Sign(rand.Reader, digest[:], crypto.SHA256)
}

func newHand(t testing.TB) (h hand, vkey string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(spki)
	h = hand{key, binary.BigEndian.Uint32(sum[:])}
	return h, fmt.Sprintf("%s+%08x+%s", origin, h.hash, base64.StdEncoding.EncodeToString(append([]byte{2}, spki...)))
}

func (h hand) record(t testing.TB, index int64, size uint64) (Record, error) {
	t.Helper()
	root := tlog.RecordHash([]byte("root"))
	signed, err := note.Sign(&note.Note{Text: string(log.Checkpoint{Origin: origin, Size: size, Hash: root[:]}.Marshal())}, h)
	if err != nil {
		t.Fatal(err)
	}
	return NewRecord(index, tlog.RecordHash([]byte("entry")), signed)
}

func TestARecordIsVerifiedWithoutTheLog(t *testing.T) {
	h, vkey := newHand(t)
	for range 50 { // signatures differ in length
		r, err := h.record(t, 12, 13)
		if err != nil {
			t.Fatal(err)
		}
		raw := r.Marshal()
		if len(raw) > MaxRecord || MaxRecord >= 200 {
			t.Fatalf("%d bytes", len(raw))
		}
		read, err := ParseRecord(raw)
		if err != nil || read.Verify(vkey) != nil || read.Index != 12 || read.Size != 13 || !read.Is([]byte("entry")) || read.Is([]byte("another")) {
			t.Fatalf("%+v, %v, %v", read, err, read.Verify(vkey))
		}
		if !bytes.Equal(read.Marshal(), raw) {
			t.Fatal("written again it is another one")
		}
	}
}

func TestWhatIsAlteredInARecordIsFound(t *testing.T) {
	h, vkey := newHand(t)
	r, err := h.record(t, 12, 13)
	if err != nil {
		t.Fatal(err)
	}
	raw := r.Marshal()
	for i := range raw {
		if i >= 1 && i < 9 || i >= 17 && i < 17+tlog.HashSize {
			continue // index and leaf are what the keeper of the log is held to; no signature is over them alone
		}
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		if read, err := ParseRecord(changed); err == nil && read.Verify(vkey) == nil {
			t.Errorf("byte %d", i)
		}
	}
	for n := range raw {
		if read, err := ParseRecord(raw[:n]); err == nil && read.Verify(vkey) == nil {
			t.Errorf("cut to %d", n)
		}
	}
	_, another := newHand(t)
	if r.Verify(another) == nil || r.Verify("other.name"+vkey[len(origin):]) == nil {
		t.Error("it holds under another key or name")
	}
	if _, err := h.record(t, 13, 13); err == nil {
		t.Error("an entry beyond the log")
	}
}

func FuzzRecord(f *testing.F) {
	h, _ := newHand(f)
	r, err := h.record(f, 1, 2)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Marshal())
	f.Add(bytes.Repeat([]byte{1}, MaxRecord))
	f.Fuzz(func(t *testing.T, raw []byte) {
		read, err := ParseRecord(raw)
		if err == nil && !bytes.Equal(read.Marshal(), raw) {
			t.Error("written again it is another one")
		}
	})
}
