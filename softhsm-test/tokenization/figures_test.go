//go:build bench

// Package tokenization_test measures FF1's lanes through SoftHSM2, against FF1 in software as Go libraries write it.
package tokenization_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/big"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci/ff1"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
	"github.com/finterra/finpay/softhsm-test/figures"
)

// TestFigures is what `make bench` runs.
func TestFigures(t *testing.T) {
	engine := softhsmtest.Open(t)
	blocks, err := engine.BlockCipher(t.Context(), softhsmtest.Key(t, engine, hsm.Spec{Role: "tokenize", Kind: hsm.AESEncrypt, Class: hsm.Recoverable}))
	if err != nil {
		t.Fatal(err)
	}
	c := ff1.New(blocks, blocks.Sessions())
	defer c.Close()
	ctx := context.Background()
	full, one := lanes(ff1.MaxLanes), lanes(1)
	encrypt := func(ctx context.Context, lanes []ff1.Lane) func() error {
		return func() error { return c.Encrypt(ctx, lanes) }
	}
	software := library(t)

	rates := figures.Turns(t, figures.Times(encrypt(ctx, full)), figures.Times(software), figures.Times(encrypt(ctx, one)))
	tokens := rates[0] * ff1.MaxLanes
	allocations := testing.AllocsPerRun(100, func() { _ = c.Encrypt(ctx, full) }) + testing.AllocsPerRun(1000, func() { _ = c.Encrypt(ctx, one) })
	idle, loaded := underLoad(t, c)
	figures.Report(t,
		figures.Alone("FF1, 1,024 lanes, format last4", tokens/1e6, "million tokens/s", ">= 1.5"),
		figures.Against("FF1, 1,024 lanes, to software with math/big", tokens, rates[1], "tokens/s", ">= 8"),
		figures.Alone("FF1, one lane", rates[2], "tokens/s", ">= 40000"),
		figures.Alone("FF1, one lane and 1,024: heap", allocations, "allocations", "<= 0"),
		figures.Against("FF1, single under bulk load: p99, to idle", loaded.Seconds()*1e6, idle.Seconds()*1e6, "µs", "<= 10"),
	)
}

// lanes are what the format last4 makes of PANs of 16 digits.
func lanes(n int) []ff1.Lane {
	all := make([]ff1.Lane, n)
	for i := range all {
		all[i] = ff1.Lane{Digits: fmt.Appendf(nil, "%011d", 41111111111+i), Tweak: []byte("ten bytes.")}
	}
	return all
}

// underLoad is the p99 of single strings, whose caller can leave as a request's can, alone and beside one caller that
// keeps the lanes full. They take turns, so that a busy machine is busy for both; each is the median of the rounds.
func underLoad(t *testing.T, c *ff1.Cipher) (idle, loaded time.Duration) {
	const rounds = 9
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	bulk := lanes(64 * ff1.MaxLanes)
	var alone, beside []time.Duration
	for range rounds {
		alone = append(alone, p99(t, ctx, c))
		var stop atomic.Bool
		ended := make(chan error)
		go func() {
			var err error
			for err == nil && !stop.Load() {
				err = c.Encrypt(ctx, bulk)
			}
			ended <- err
		}()
		beside = append(beside, p99(t, ctx, c))
		stop.Store(true)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(alone)
	slices.Sort(beside)
	return alone[rounds/2], beside[rounds/2]
}

// p99 is what one in a hundred single strings takes longer than.
func p99(t *testing.T, ctx context.Context, c *ff1.Cipher) time.Duration {
	one := lanes(1)
	took := make([]time.Duration, 3000)
	for i := range took {
		begun := time.Now()
		if err := c.Encrypt(ctx, one); err != nil {
			t.Fatal(err)
		}
		took[i] = time.Since(begun)
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// library encrypts one PAN as published Go libraries do it: the key in memory, big integers, one call for each value.
func library(t *testing.T) func() error {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	tweak := []byte("ten bytes.")
	return func() error {
		if got := bigFF1(block, tweak, "41111111111"); len(got) != 11 {
			return fmt.Errorf("%d digits", len(got))
		}
		return nil
	}
}

// bigFF1 is SP 800-38G, algorithm 7, for radix 10.
func bigFF1(block cipher.Block, tweak []byte, x string) string {
	n, t := len(x), len(tweak)
	u := n / 2
	v := n - u
	a, b := x[:u], x[u:]
	limits := [2]*big.Int{new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(u)), nil), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(v)), nil)}
	bytes := (limits[1].BitLen() + 7) / 8
	d := 4*((bytes+3)/4) + 4
	p := []byte{1, 2, 1, 0, 0, 10, 10, byte(u), 0, 0, 0, byte(n), 0, 0, 0, byte(t)}
	pad := (16 - (t+bytes+1)%16) % 16
	numA, _ := new(big.Int).SetString(a, 10)
	numB, _ := new(big.Int).SetString(b, 10)
	for i := range 10 {
		q := make([]byte, t+pad+1+bytes)
		copy(q, tweak)
		q[t+pad] = byte(i)
		numB.FillBytes(q[t+pad+1:])
		mac := make([]byte, len(p)+len(q))
		copy(mac[copy(mac, p):], q)
		cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(mac, mac)
		y := new(big.Int).SetBytes(mac[len(mac)-16:][:d])
		c := y.Add(y, numA)
		c.Mod(c, limits[i%2])
		numA, numB = numB, c
	}
	return fmt.Sprintf("%0*s%0*s", u, numA, v, numB)
}
