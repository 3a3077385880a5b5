package intake

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci"
)

func unhexed(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// The vector of RFC 9180 (appendix A, test-vectors.json) for mode 0, kem 0x0010, kdf 0x0001, aead 0x0002. Its 256 messages
// stand for themselves in the digest over 1,000 that crypto/hpke holds itself to (testdata/rfc9180.json).
func TestTheKeyScheduleIsThatOfRFC9180(t *testing.T) {
	private, err := ecdh.P256().NewPrivateKey(unhexed(t, "317f915db7bc629c48fe765587897e01e282d3e8445f79f27f65d031a88082b2"))
	if err != nil {
		t.Fatal(err)
	}
	enc := unhexed(t, "04c06b4f6bebc7bb495cb797ab753f911aff80aefb86fd8b6fcc35525f3ab5f03e0b21bd31a86c6048af3cb2d98e0d3bf01da5cc4c39ff5370d331a4f1f7d5a4e0")
	c, err := setUpRecipient(private, enc, unhexed(t, "4f6465206f6e2061204772656369616e2055726e"))
	if err != nil {
		t.Fatal(err)
	}
	source, sink := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	draw := func() []byte {
		length := make([]byte, 1)
		_, _ = io.ReadFull(source, length)
		input := make([]byte, length[0])
		_, _ = io.ReadFull(source, input)
		return input
	}
	room := make([]byte, 256)
	for i := range 1000 {
		aad, plain := draw(), draw()
		nonce := c.nonce
		nonce[10], nonce[11] = nonce[10]^byte(i>>8), nonce[11]^byte(i) //nolint:gosec // below 1000
		ct := c.aead.Seal(nil, nonce[:], plain, aad)
		_, _ = sink.Write(ct)
		got, err := c.open(room, aad, ct)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	digest := make([]byte, 16)
	_, _ = sink.Read(digest)
	if want := unhexed(t, "8d3263541fc1695b6e88ff3a1208577c"); !bytes.Equal(digest, want) {
		t.Errorf("the messages' digest is %x, want %x", digest, want)
	}
}

// What another implementation seals opens here, in order, into the memory that is given, and nowhere else.
func TestWhatIsSealedElsewhereOpensHere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		private, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		public, err := hpke.NewDHKEMPublicKey(private.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		info := rapid.SliceOf(rapid.Byte()).Draw(t, "info")
		kdf, aead := pci.SealingSuite()
		enc, sender, err := hpke.NewSender(public, kdf, aead, info)
		if err != nil {
			t.Fatal(err)
		}
		c, err := setUpRecipient(private, enc, info)
		if err != nil {
			t.Fatal(err)
		}
		room := make([]byte, 512)
		for range rapid.IntRange(1, 4).Draw(t, "messages") {
			aad, plain := rapid.SliceOf(rapid.Byte()).Draw(t, "aad"), rapid.SliceOfN(rapid.Byte(), 0, len(room)).Draw(t, "plain")
			ct, err := sender.Seal(aad, plain)
			if err != nil {
				t.Fatal(err)
			}
			altered := bytes.Clone(ct)
			altered[rapid.IntRange(0, len(ct)-1).Draw(t, "altered")] ^= 1
			if _, err := c.open(room, aad, altered); !errors.Is(err, errOpen) {
				t.Fatalf("an altered message: %v", err)
			}
			if _, err := c.open(room, append(aad, 0), ct); !errors.Is(err, errOpen) {
				t.Fatalf("other additional data: %v", err)
			}
			got, err := c.open(room, aad, ct)
			if err != nil || !bytes.Equal(got, plain) || len(got) > 0 && &got[0] != &room[0] {
				t.Fatalf("%x, %v", got, err)
			}
		}
		if _, err := c.open(room, nil, make([]byte, len(room)+17)); !errors.Is(err, pci.ErrTooLarge) {
			t.Fatalf("a message without room: %v", err)
		}
	})
}
