//go:build bench

package tokenization

import (
	"context"
	"fmt"
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/softhsm-test/figures"
)

// TestFigures is what `make bench` runs.
func TestFigures(t *testing.T) {
	const cards = 4096
	domains := []Domain{{ID: "last4", Format: pci.TokenLast4}, {ID: "bin", Format: pci.TokenBIN6Last4}, {ID: "opaque", Format: pci.TokenOpaque}}
	batch, err := pan.NewBatch(cards)
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Release()
	for i := range cards {
		number := fmt.Appendf(nil, "411111%09d0", 7919*i)
		number[15] = pan.Missing(number)
		if err := batch.Add(number, expiry); err != nil {
			t.Fatal(err)
		}
	}
	issues := make([]pci.Tokenized, cards)
	ctx := context.Background()
	var table []figures.Figure
	for _, domain := range domains {
		b := newBench(t, oneKey(t), domains...)
		full := memory{}
		for i := range 100_000 {
			full[pci.Token(fmt.Sprintf("9%015d", 1_000_003*i))] = Issued{}
		}
		b.Service.registry = full
		all := func() error { return b.batches.TokenizeAll(ctx, domain.ID, batch, issues) }
		target := ""
		if domain.ID == "last4" {
			target = ">= 300000"
		}
		rate := figures.Turns(t, figures.Times(all))[0] * cards
		allocations := testing.AllocsPerRun(10, func() { _ = all() }) / cards
		table = append(table, figures.Alone("tokenize 4,096 cards, software key, "+domain.ID, rate, "cards/s", target),
			figures.Alone("tokenize 4,096 cards, "+domain.ID+": heap", allocations, "allocations a card", "<= 5"))
	}
	figures.Report(t, table...)
}

// memory is a registry of 100,000 tokens, none of which is any of the cards'.
type memory map[pci.Token]Issued

func (memory) Find(context.Context, string, pci.Token) (Issued, error) {
	return Issued{}, pci.ErrNotIssued
}

func (m memory) Lookup(_ context.Context, _ string, tokens []pci.Token, row func(int, Issued)) error {
	for i, token := range tokens {
		if issued, ok := m[token]; ok {
			row(i, issued)
		}
	}
	return nil
}

func (m memory) LookupImages(_ context.Context, _ string, images []pci.TokenImage, row func(int, Issued)) error {
	for i, image := range images {
		if issued, ok := m[pci.Token(image)]; ok {
			row(i, issued)
		}
	}
	return nil
}
