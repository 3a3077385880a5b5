package main

import (
	"context"
	"fmt"
	"time"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/appliance/tokens"
)

type importCommand struct {
	Open  openImportCommand  `cmd:"" help:"Let an API key have more cards tokenized that begin and end alike, for some time."`
	Close closeImportCommand `cmd:"" help:"End an import before its time."`
	List  listImportsCommand `cmd:"" help:"List the imports that are open."`
}

type openImportCommand struct {
	Key    string        `arg:"" help:"The API key, or the part of it between the second and the third underscore."`
	Bound  int           `required:"" help:"How many different new cards of one first six and last four digits, in all of the import."`
	For    time.Duration `default:"24h" help:"How long it is open."`
	Reason string        `required:"" help:"Why, for the signed log. No card data."`
}

// Run opens an import.
func (c openImportCommand) Run(ctx context.Context, g globals) error {
	i, err := operate[store.Import](ctx, g, "import open", openImport{merchant.KeyID(c.Key), c.Bound, c.For, c.Reason})
	if err != nil {
		return err
	}
	printImport(i)
	return nil
}

func printImport(i store.Import) {
	fmt.Printf("%s  API key %s: %d cards that begin and end alike, until %s\n", i.ID, i.KeyID, i.Bound, i.Until.UTC().Format(time.RFC3339))
}

type openImport struct {
	KeyID  string
	Bound  int
	For    time.Duration
	Reason string
}

func (o *operations) openImport(ctx context.Context, by ledger.Operator, q openImport) (store.Import, error) {
	i, err := tokens.OpenImport(ctx, o.node.ledger, by, q.KeyID, q.Bound, q.For, q.Reason)
	if err != nil {
		return i, err
	}
	return i, o.loadImports(ctx)
}

func (o *operations) loadImports(ctx context.Context) error {
	if o.serving == nil {
		return nil
	}
	return o.serving.tokens.LoadImports(ctx)
}

type closeImportCommand struct {
	Import string `arg:"" help:"The import, imp_…"`
}

// Run closes an import.
func (c closeImportCommand) Run(ctx context.Context, g globals) error {
	if _, err := operate[nothing](ctx, g, "import close", c.Import); err != nil {
		return err
	}
	fmt.Println("The import is closed.")
	return nil
}

func (o *operations) closeImport(ctx context.Context, by ledger.Operator, id string) (nothing, error) {
	if err := tokens.CloseImport(ctx, o.node.ledger, by, id); err != nil {
		return nothing{}, err
	}
	return nothing{}, o.loadImports(ctx)
}

type listImportsCommand struct{}

// Run lists imports.
func (listImportsCommand) Run(ctx context.Context, g globals) error {
	list, err := operate[[]store.Import](ctx, g, "import list", nothing{})
	if err != nil {
		return err
	}
	for _, i := range list {
		printImport(i)
	}
	if len(list) == 0 {
		fmt.Println("No import is open.")
	}
	return nil
}

func (o *operations) listImports(ctx context.Context, _ ledger.Operator, _ nothing) ([]store.Import, error) {
	return tokens.Imports(o.node.store.Read(ctx), time.Now())
}
