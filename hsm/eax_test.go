package hsm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/ProtonMail/go-crypto/eax"
	"pgregory.net/rapid"
)

// eaxSeal and eaxOpen allocate what they return.
func eaxSeal(encrypt encryptBlocks, nonce, header, plaintext []byte) ([]byte, error) {
	out := make([]byte, len(plaintext)+eaxTagSize)
	n, err := eaxSealInto(encrypt, out, nonce, header, plaintext)
	if err != nil {
		return nil, err
	}
	return out[:n], nil
}

func eaxOpen(encrypt encryptBlocks, nonce, header, sealed []byte) ([]byte, error) {
	out := make([]byte, len(sealed))
	n, err := eaxOpenInto(encrypt, out, nonce, header, sealed)
	if err != nil {
		return nil, err
	}
	return out[:n], nil
}

func inSoftware(t interface{ Fatal(...any) }, key []byte) (encryptBlocks, cipher.Block) {
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return func(dst, src []byte) error {
		for i := 0; i < len(src); i += 16 {
			block.Encrypt(dst[i:i+16], src[i:i+16])
		}
		return nil
	}, block
}

// The vectors of the paper, appendix G.
func TestEAXVectorsOfThePaper(t *testing.T) {
	for _, v := range []struct{ message, key, nonce, header, sealed string }{
		{"", "233952DEE4D5ED5F9B9C6D6FF80FF478", "62EC67F9C3A4A407FCB2A8C49031A8B3", "6BFB914FD07EAE6B", "E037830E8389F27B025A2D6527E79D01"},
		{"F7FB", "91945D3F4DCBEE0BF45EF52255F095A4", "BECAF043B0A23D843194BA972C66DEBD", "FA3BFD4806EB53FA", "19DD5C4C9331049D0BDAB0277408F67967E5"},
		{"1A47CB4933", "01F74AD64077F2E704C0F60ADA3DD523", "70C3DB4F0D26368400A10ED05D2BFF5E", "234A3463C1264AC6", "D851D5BAE03A59F238A23E39199DC9266626C40F80"},
		{"481C9E39B1", "D07CF6CBB7F313BDDE66B727AFD3C5E8", "8408DFFF3C1A2B1292DC199E46B7D617", "33CCE2EABFF5A79D", "632A9D131AD4C168A4225D8E1FF755939974A7BEDE"},
		{"40D0C07DA5E4", "35B6D0580005BBC12B0587124557D2C2", "FDB6B06676EEDC5C61D74276E1F8E816", "AEB96EAEBE2970E9", "071DFE16C675CB0677E536F73AFE6A14B74EE49844DD"},
		{"4DE3B35C3FC039245BD1FB7D", "BD8E6E11475E60B268784C38C62FEB22", "6EAC5C93072D8E8513F750935E46DA1B", "D4482D1CA78DCE0F", "835BB4F15D743E350E728414ABB8644FD6CCB86947C5E10590210A4F"},
		{"8B0A79306C9CE7ED99DAE4F87F8DD61636", "7C77D6E813BED5AC98BAA417477A2E7D", "1A8C98DCD73D38393B2BF1569DEEFC19", "65D2017990D62528", "02083E3979DA014812F59F11D52630DA30137327D10649B0AA6E1C181DB617D7F2"},
		{"1BDA122BCE8A8DBAF1877D962B8592DD2D56", "5FFF20CAFAB119CA2FC73549E20F5B0D", "DDE59B97D722156D4D9AFF2BC7559826", "54B9F04E6A09189A", "2EC47B2C4954A489AFC7BA4897EDCDAE8CC33B60450599BD02C96382902AEF7F832A"},
		{"6CF36720872B8513F6EAB1A8A44438D5EF11", "A4A4782BCFFD3EC5E7EF6D8C34A56123", "B781FCF2F75FA5A8DE97A9CA48E522EC", "899A175897561D7E", "0DE18FD0FDD91E7AF19F1D8EE8733938B1E8E7F6D2231618102FDB7FE55FF1991700"},
		{"CA40D7446E545FFAED3BD12A740A659FFBBB3CEAB7", "8395FCF1E95BEBD697BD010BC766AAC3", "22E7ADD93CFC6393C57EC0B3C17D6B44", "126735FCC320D25A", "CB8920F87A6C75CFF39627B56E3ED197C552D295A7CFC46AFC253B4652B1AF3795B124AB6E"},
	} {
		blocks, _ := inSoftware(t, unhex(t, v.key))
		nonce, header, message, want := unhex(t, v.nonce), unhex(t, v.header), unhex(t, v.message), unhex(t, v.sealed)
		got, err := eaxSeal(blocks, nonce, header, message)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("message %q: sealed %x, want %x (%v)", v.message, got, want, err)
		}
		opened, err := eaxOpen(blocks, nonce, header, want)
		if err != nil || !bytes.Equal(opened, message) {
			t.Errorf("message %q: opened %x (%v)", v.message, opened, err)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Another implementation, of any lengths; and every change to a ciphertext, its nonce or its header is refused.
func TestEAXAgreesWithAnotherImplementation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := func(name string, from, to int) []byte { return rapid.SliceOfN(rapid.Byte(), from, to).Draw(t, name) }
		key, nonce, header, message := some("key", 32, 32), some("nonce", 16, 16), some("header", 0, 50), some("message", 0, 100)
		blocks, block := inSoftware(t, key)
		other, err := eax.NewEAX(block)
		if err != nil {
			t.Fatal(err)
		}
		want := other.Seal(nil, nonce, message, header)
		got, err := eaxSeal(blocks, nonce, header, message)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("sealed %x, the other %x (%v)", got, want, err)
		}
		part := rapid.SampledFrom([]*[]byte{&got, &nonce, &header}).Draw(t, "part")
		if len(*part) == 0 {
			part = &got
		}
		(*part)[rapid.IntRange(0, len(*part)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if plain, err := eaxOpen(blocks, nonce, header, got); !errors.Is(err, ErrNotAuthentic) || plain != nil {
			t.Fatalf("a changed input was opened: %x, %v", plain, err)
		}
	})
}

func TestEAXCounterCarriesOverAllBytes(t *testing.T) {
	blocks, block := inSoftware(t, make([]byte, 16))
	counter := [16]byte{0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255}
	got, want := make([]byte, 40), make([]byte, 40)
	if err := ctr(blocks, counter, got, make([]byte, 40)); err != nil {
		t.Fatal(err)
	}
	cipher.NewCTR(block, counter[:]).XORKeyStream(want, make([]byte, 40))
	if !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestEAXReleasesNothingBeforeTheTagIsVerified(t *testing.T) {
	blocks, _ := inSoftware(t, make([]byte, 16))
	nonce := make([]byte, 16)
	sealed, err := eaxSeal(blocks, nonce, nil, make([]byte, 48))
	if err != nil {
		t.Fatal(err)
	}
	sealed[0] ^= 1
	longest := 0
	watched := func(dst, src []byte) error {
		longest = max(longest, len(src))
		return blocks(dst, src)
	}
	if _, err := eaxOpen(watched, nonce, nil, sealed); !errors.Is(err, ErrNotAuthentic) {
		t.Fatal(err)
	}
	if longest > 16 { // the key stream is made in one call
		t.Error("a key stream was made for a ciphertext that is not authentic")
	}
	if _, err := eaxOpen(blocks, nonce, nil, sealed[:15]); !errors.Is(err, ErrNotAuthentic) {
		t.Errorf("15 bytes: %v", err)
	}
}
