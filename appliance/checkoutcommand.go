package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/finterra/finpay/api/checkout"
)

type checkoutCommand struct {
	Inventory inventoryCommand `cmd:"" help:"List each script and style sheet of the payment pages with its purpose, origin, licence and hash, and the headers each page is sent with."`
}

type inventoryCommand struct {
	JSON bool `name:"json" help:"As JSON, for the probe and for tools."`
}

// Run prints what is embedded in this program. It needs no configuration and no HSM.
func (c inventoryCommand) Run() error {
	inventory := checkout.ListInventory()
	if c.JSON {
		out := json.NewEncoder(os.Stdout)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		return out.Encode(inventory)
	}
	for _, f := range inventory.Files {
		fmt.Printf("%s %s\n  %s\n  %s, %d bytes\n", f.Kind, f.Path, f.Purpose, f.Integrity, f.Bytes)
		for _, p := range f.Parts {
			fmt.Printf("  from %s %s (%s), %s\n", p.Name, p.Version, p.Origin, p.Licence)
		}
	}
	for _, page := range inventory.Pages {
		fmt.Printf("\npage %s\n", page.Kind)
		for _, file := range page.Files {
			fmt.Printf("  loads %s\n", file)
		}
		for _, name := range slices.Sorted(maps.Keys(page.Headers)) {
			fmt.Printf("  %s: %s\n", name, page.Headers[name])
		}
	}
	return nil
}
