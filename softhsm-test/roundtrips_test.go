package softhsmtest_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci/ff1"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
	"github.com/finterra/finpay/softhsm-test/fault"
)

// An HSM behind a network costs a round trip a call: one batch of FF1 is ten of them, one for each round.
func TestOneBatchOfFF1IsTenCallsIntoTheHSM(t *testing.T) {
	cfg := softhsmtest.Token(t)
	device := fault.New(t, cfg.Module)
	cfg.Module = device.Module
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	blocks, err := engine.BlockCipher(t.Context(), softhsmtest.Key(t, engine, hsm.Spec{Role: "tokenize", Kind: hsm.AESEncrypt, Class: hsm.Recoverable}))
	if err != nil {
		t.Fatal(err)
	}
	cipher := ff1.New(blocks, 1)
	defer cipher.Close()
	for _, n := range []int{1, 1, 100, ff1.MaxLanes} {
		var lanes []ff1.Lane
		for i := range n {
			lanes = append(lanes, ff1.Lane{Digits: fmt.Appendf(nil, "%011d", i), Tweak: []byte("tweak")})
		}
		plain := bytes.Clone(lanes[n-1].Digits)
		calls := device.AllCalls()
		if err := cipher.Encrypt(t.Context(), lanes); err != nil {
			t.Fatal(err)
		}
		want := 10
		if calls == 0 {
			t.Fatal("no call was counted")
		}
		if got := device.AllCalls() - calls; got != want && n > 1 { // the first batch of a shape encrypts its P as well
			t.Errorf("%d lanes: %d calls, want %d", n, got, want)
		}
		if bytes.Equal(lanes[n-1].Digits, plain) {
			t.Error("nothing was encrypted")
		}
	}
}
