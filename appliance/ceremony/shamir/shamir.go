// Package shamir divides a secret among n holders so that any m of them restore it and m−1 learn nothing of it (Shamir,
// "How to share a secret", CACM 22, 1979), byte by byte over GF(2^8) with the polynomial of AES (FIPS 197, section 4.2).
//
// # What is promised
//
// Time and memory accesses do not depend on secret bytes. All that is secret stays in the caller's buffers: give it
// locked memory.
//
// # What is not
//
// A wrong or altered share is not noticed: [Combine] then returns another secret. The caller must be able to tell.
package shamir

import (
	"crypto/rand"
	"errors"
	"fmt"
)

// Split fills shares, each as long as secret. Share i is the polynomial's value at x = i+1; any threshold of them lead
// back to the secret. The first threshold−1 are drawn at random and the others follow, which is the same distribution as
// drawing the coefficients, and needs no memory for them.
func Split(shares [][]byte, secret []byte, threshold int) error {
	if threshold < 2 || threshold > len(shares) || len(shares) > 255 {
		return fmt.Errorf("shamir: any %d of %d is not served: at least 2, and at most 255 shares", threshold, len(shares))
	}
	if len(secret) == 0 {
		return errors.New("shamir: an empty secret")
	}
	xs, ys := []byte{0}, [][]byte{secret}
	for i, share := range shares {
		if len(share) != len(secret) {
			return fmt.Errorf("shamir: a share of %d bytes for a secret of %d", len(share), len(secret))
		}
		x := byte(i + 1)
		if i < threshold-1 {
			_, _ = rand.Read(share) // crypto/rand never fails since Go 1.24
			xs, ys = append(xs, x), append(ys, share)
			continue
		}
		interpolate(share, x, xs, ys)
	}
	return nil
}

// Combine computes the secret from shares ys at xs. Shares of less than the threshold, or of different secrets, lead to
// another secret without an error; the same x twice, or x = 0, is one.
func Combine(secret, xs []byte, ys [][]byte) error {
	if len(xs) != len(ys) || len(xs) < 2 {
		return fmt.Errorf("shamir: %d shares at %d places; at least 2 are wanted", len(ys), len(xs))
	}
	var seen [256]bool
	for i, x := range xs {
		if x == 0 || seen[x] {
			return fmt.Errorf("shamir: share %d is there twice, or is none", x)
		}
		seen[x] = true
		if len(ys[i]) != len(secret) {
			return fmt.Errorf("shamir: share %d has %d bytes; %d are wanted", x, len(ys[i]), len(secret))
		}
	}
	interpolate(secret, 0, xs, ys)
	return nil
}

// interpolate sets dst to the values at x of the polynomials through (xs, ys), by Lagrange's formula. dst is none of ys.
func interpolate(dst []byte, x byte, xs []byte, ys [][]byte) {
	clear(dst)
	for i, y := range ys {
		weight := byte(1)
		for j, other := range xs {
			if j != i {
				weight = multiply(weight, multiply(x^other, inverse(xs[i]^other)))
			}
		}
		for k := range dst {
			dst[k] ^= multiply(weight, y[k])
		}
	}
}

// multiply is the product in GF(2^8), without branches and tables.
func multiply(a, b byte) byte {
	var product byte
	for range 8 {
		product ^= -(b & 1) & a
		a = a<<1 ^ -(a>>7)&0x1b
		b >>= 1
	}
	return product
}

// inverse is a^254; that of 0 is 0.
func inverse(a byte) byte {
	result, power := byte(1), a
	for range 7 { // 254 = 2 + 4 + … + 128
		power = multiply(power, power)
		result = multiply(result, power)
	}
	return result
}
