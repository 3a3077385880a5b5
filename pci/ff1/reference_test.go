package ff1

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"strings"
	"testing"
)

// reference is SP 800-38G, algorithms 7 and 8, as written: any radix, big integers, strings, no shortcuts. It is the
// oracle of the tests, and nothing else.
type reference struct {
	block cipher.Block
	radix int
}

func (r reference) encrypt(tweak []byte, x string) string {
	u := len(x) / 2
	a, b := x[:u], x[u:]
	for i := range 10 {
		m := []int{u, len(x) - u}[i%2]
		c := new(big.Int).Add(r.num(a), r.y(tweak, len(x), i, b))
		a, b = b, r.str(c, m)
	}
	return a + b
}

func (r reference) decrypt(tweak []byte, x string) string {
	u := len(x) / 2
	a, b := x[:u], x[u:]
	for i := 9; i >= 0; i-- {
		m := []int{u, len(x) - u}[i%2]
		c := new(big.Int).Sub(r.num(b), r.y(tweak, len(x), i, a))
		a, b = r.str(c, m), a
	}
	return a + b
}

// y is steps 6.i to 6.iv.
func (r reference) y(tweak []byte, n, i int, half string) *big.Int {
	v := n - n/2
	b := (new(big.Int).Sub(r.power(v), big.NewInt(1)).BitLen() + 7) / 8
	d := 4*((b+3)/4) + 4
	p := []byte{1, 2, 1, 0, 0, byte(r.radix), 10, byte(n / 2), 0, 0, 0, byte(n), 0, 0, 0, byte(len(tweak))}
	q := bytes.Clone(tweak)
	for (len(q)+b+1)%16 != 0 {
		q = append(q, 0)
	}
	q = append(append(q, byte(i)), r.num(half).FillBytes(make([]byte, b))...)
	s := r.prf(append(p, q...))
	for j := byte(1); len(s) < d; j++ {
		next := bytes.Clone(s[:16])
		next[15] ^= j
		r.block.Encrypt(next, next)
		s = append(s, next...)
	}
	return new(big.Int).SetBytes(s[:d])
}

// prf is algorithm 6.
func (r reference) prf(x []byte) []byte {
	y := make([]byte, 16)
	for len(x) > 0 {
		for i := range y {
			y[i] ^= x[i]
		}
		r.block.Encrypt(y, y)
		x = x[16:]
	}
	return y
}

func (r reference) power(m int) *big.Int {
	return new(big.Int).Exp(big.NewInt(int64(r.radix)), big.NewInt(int64(m)), nil)
}

func (r reference) num(x string) *big.Int {
	n, ok := new(big.Int).SetString(x, r.radix)
	if !ok {
		panic("not a numeral string")
	}
	return n
}

func (r reference) str(n *big.Int, m int) string {
	text := new(big.Int).Mod(n, r.power(m)).Text(r.radix)
	return strings.Repeat("0", m-len(text)) + text
}

// sample is one of NIST's FF1samples.pdf.
type sample struct {
	N          int    `json:"n"`
	Key        string `json:"key"`
	Radix      int    `json:"radix"`
	Tweak      string `json:"tweak"`
	Plaintext  string `json:"plaintext"`
	Ciphertext string `json:"ciphertext"`
}

func samples(t *testing.T) []sample {
	t.Helper()
	text, err := os.ReadFile("testdata/nist-ff1-samples.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Samples []sample }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Samples) != 9 {
		t.Fatalf("%d samples, NIST has nine", len(file.Samples))
	}
	return file.Samples
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestTheOracleGivesNISTsSamples(t *testing.T) {
	for _, s := range samples(t) {
		block, err := aes.NewCipher(unhex(t, s.Key))
		if err != nil {
			t.Fatal(err)
		}
		r := reference{block, s.Radix}
		if got := r.encrypt(unhex(t, s.Tweak), s.Plaintext); got != s.Ciphertext {
			t.Errorf("sample %d encrypts to %s, want %s", s.N, got, s.Ciphertext)
		}
		if got := r.decrypt(unhex(t, s.Tweak), s.Ciphertext); got != s.Plaintext {
			t.Errorf("sample %d decrypts to %s, want %s", s.N, got, s.Plaintext)
		}
	}
}

func TestLanesGiveNISTsSamples(t *testing.T) {
	tried := 0
	for _, s := range samples(t) {
		if s.Radix != 10 {
			continue
		}
		tried++
		c := newCipher(t, newSoftware(t, unhex(t, s.Key)))
		lane := Lane{Digits: []byte(s.Plaintext), Tweak: unhex(t, s.Tweak)}
		if err := c.Encrypt(t.Context(), []Lane{lane}); err != nil {
			t.Fatal(err)
		}
		if string(lane.Digits) != s.Ciphertext {
			t.Errorf("sample %d encrypts to %s, want %s", s.N, lane.Digits, s.Ciphertext)
		}
		if err := c.Decrypt(t.Context(), []Lane{lane}); err != nil {
			t.Fatal(err)
		}
		if string(lane.Digits) != s.Plaintext {
			t.Errorf("sample %d decrypts to %s, want %s", s.N, lane.Digits, s.Plaintext)
		}
	}
	if tried != 6 {
		t.Errorf("%d samples of radix 10, NIST has six", tried)
	}
}
