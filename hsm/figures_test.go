//go:build bench

package hsm_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"testing"

	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
	"github.com/finterra/finpay/softhsm-test/figures"
)

// TestFigures is what `make bench` runs.
func TestFigures(t *testing.T) {
	engine := softhsmtest.Open(t)
	key := softhsmtest.Key(t, engine, tokenize)
	mac := engine.MAC(softhsmtest.Key(t, engine, apikey))
	blocks, err := engine.BlockCipher(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	ephemeral, err := engine.SessionKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	encrypt := func(n int) func() error {
		buf := make([]byte, 16*n)
		return func() error { return blocks.EncryptBlocks(ctx, buf, buf) }
	}
	one := make([]byte, 16)
	begun := func() error { return engine.InitAndEncrypt(ctx, ephemeral, one) }
	single := func() error { return blocks.EncryptBlocks(ctx, make([]byte, 16), one) }
	sum := func() error { _, err := mac.Sum(ctx, one); return err }

	rates := figures.Turns(t, figures.Times(encrypt(1)), figures.Times(begun), figures.Times(encrypt(1024)), software(t, 1024))
	alone := figures.Turns(t, figures.Times(single), figures.Among(64, single), figures.Times(sum), figures.Among(64, sum))
	figures.Report(t,
		figures.Against("block path, 1 block: kept open, to init and encrypt under a session key", rates[0], rates[1], "calls/s", ">= 8"),
		figures.Alone("block path, 1,024 blocks", rates[2]*1024/1e6, "million blocks/s", ">= 50"),
		figures.Against("block path, 1,024 blocks, to crypto/aes in this process", rates[2], rates[3], "calls/s", ""),
		figures.Alone("block path, 1 block: heap", testing.AllocsPerRun(1000, func() { _ = encrypt1(ctx, blocks, one) }), "allocations", "<= 0"),
		figures.Against("block path, 64 goroutines, to one", alone[1], alone[0], "blocks/s", ">= 0.85"),
		figures.Against("MAC, 64 goroutines, to one", alone[3], alone[2], "calls/s", ">= 0.85"),
	)
	t.Logf("sessions of the block path: %d", blocks.Sessions())
}

func encrypt1(ctx context.Context, blocks *hsm.BlockCipher, b []byte) error {
	return blocks.EncryptBlocks(ctx, b, b)
}

// software encrypts as many blocks with crypto/aes.
func software(t *testing.T, n int) func(int) error {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16*n)
	return figures.Times(func() error { ecb(block, buf); return nil })
}

func ecb(block cipher.Block, buf []byte) {
	for from := 0; from < len(buf); from += 16 {
		block.Encrypt(buf[from:from+16], buf[from:from+16])
	}
}
