package shamir

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestTheFieldIsThatOfAES(t *testing.T) {
	// FIPS 197, section 4.2: {57} • {83} = {c1}, {57} • {13} = {fe}.
	if multiply(0x57, 0x83) != 0xc1 || multiply(0x57, 0x13) != 0xfe {
		t.Error("products differ from FIPS 197")
	}
	for a := range 256 {
		want := byte(1)
		if a == 0 {
			want = 0
		}
		if got := multiply(byte(a), inverse(byte(a))); got != want {
			t.Errorf("%#x times its inverse is %#x", a, got)
		}
	}
}

func TestAnyThresholdOfSharesRestores(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "secret")
		n := rapid.IntRange(2, 12).Draw(t, "n")
		m := rapid.IntRange(2, n).Draw(t, "m")
		shares := split(t, secret, n, m)
		order := rapid.Permutation(places(n)).Draw(t, "order")
		k := rapid.IntRange(m, n).Draw(t, "k")
		got := combine(t, len(secret), order[:k], shares)
		if !bytes.Equal(got, secret) {
			t.Fatalf("%d of %d at %v: %x, want %x", k, n, order[:k], got, secret)
		}
	})
}

// With m−1 shares known, each value of the secret is as likely as any other: there is exactly one value of a further
// share for each.
func TestOneShareLessTellsNothing(t *testing.T) {
	shares := split(t, []byte{0x42}, 3, 3)
	seen := make(map[byte]bool)
	for guess := range 256 {
		shares[2][0] = byte(guess)
		seen[combine(t, 1, []byte{1, 2, 3}, shares)[0]] = true
	}
	if len(seen) != 256 {
		t.Errorf("two of three shares leave %d of 256 secrets possible", len(seen))
	}
}

// Over many divisions of one secret, each share alone is distributed evenly over all byte values.
func TestAShareIsDistributedEvenly(t *testing.T) {
	const rounds = 256 * 200
	for place := range 3 {
		var count [256]int
		for range rounds {
			count[split(t, []byte{0xff}, 3, 2)[place][0]]++
		}
		chi := 0.0
		for _, c := range count {
			d := float64(c - rounds/256)
			chi += d * d / (rounds / 256)
		}
		if chi < 130 || chi > 400 { // 255 degrees of freedom: a fair generator is outside once in more than 10^7 runs
			t.Errorf("share %d: chi-square %.0f", place+1, chi)
		}
	}
}

func TestWhatCannotBeRightIsRefused(t *testing.T) {
	shares := split(t, []byte("secret"), 3, 2)
	secret := make([]byte, 6)
	for name, err := range map[string]error{
		"twice":           Combine(secret, []byte{2, 2}, shares[:2]),
		"zero":            Combine(secret, []byte{0, 2}, shares[:2]),
		"one":             Combine(secret, []byte{1}, shares[:1]),
		"length":          Combine(secret, []byte{1, 2}, [][]byte{shares[0], shares[1][:5]}),
		"places":          Combine(secret, []byte{1, 2, 3}, shares[:2]),
		"threshold of 1":  Split(shares, []byte("secret"), 1),
		"threshold of 4":  Split(shares, []byte("secret"), 4),
		"length of share": Split(shares, []byte("other secret"), 2),
		"empty":           Split([][]byte{{}, {}}, nil, 2),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

type fataler interface{ Fatal(args ...any) }

func split(t fataler, secret []byte, n, m int) [][]byte {
	shares := make([][]byte, n)
	for i := range shares {
		shares[i] = make([]byte, len(secret))
	}
	if err := Split(shares, secret, m); err != nil {
		t.Fatal(err)
	}
	return shares
}

func combine(t fataler, length int, xs []byte, shares [][]byte) []byte {
	ys := make([][]byte, len(xs))
	for i, x := range xs {
		ys[i] = shares[x-1]
	}
	secret := make([]byte, length)
	if err := Combine(secret, xs, ys); err != nil {
		t.Fatal(err)
	}
	return secret
}

func places(n int) []byte {
	xs := make([]byte, n)
	for i := range xs {
		xs[i] = byte(i + 1)
	}
	return xs
}
