// Command finpay-probe looks at payment pages as a shopper's browser receives them, and compares scripts, style sheets and
// headers with the inventory of its own release (PCI DSS 11.6.1).
//
// It is a program of its own, for another machine than the appliance's: what has changed the pages on the way, or the
// appliance, has not changed the probe. The appliance itself does not link what drives a browser.
//
// It exits with 0 where all is as listed, with 3 where something differs, and with 1 where it could not be found out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/finterra/finpay/api/checkout"
)

// exitChanged says that a page is not what it should be.
const exitChanged = 3

type cli struct {
	Browser  string        `required:"" help:"Chromium's program."`
	JSON     bool          `name:"json" help:"Print the result as JSON."`
	Timeout  time.Duration `default:"1m" help:"For one page."`
	Insecure bool          `help:"Accept any certificate: for a trial alone."`
	Root     bool          `help:"Run the browser without its sandbox, which it wants as root."`
	API      string        `help:"Make a payment with this appliance, and look at its page: https://host:port." placeholder:"URL"`
	KeyFile  string        `help:"API key with the scope payments, for --api." placeholder:"FILE" type:"existingfile"`
	Return   string        `help:"Return URL of that payment, on a host that the merchant allows." placeholder:"URL"`
	URLs     []string      `arg:"" optional:"" name:"url" help:"Pages to look at."`
}

// result is what the probe says of one page.
type result struct {
	Page        string    `json:"page"` // without path: that is a secret
	Kind        string    `json:"kind"`
	At          time.Time `json:"at"`
	Differences []string  `json:"differences"`
}

func main() {
	var c cli
	kong.Parse(&c, kong.Name("finpay-probe"), kong.Description("Compare payment pages, as a browser receives them, with the inventory of this release."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := c.probe(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "finpay-probe:", err)
		code = 1
	}
	os.Exit(code)
}

// probe looks at each page and prints what it found.
func (c cli) probe(ctx context.Context) (code int, err error) {
	if c.API != "" {
		page, err := c.newPayment(ctx)
		if err != nil {
			return 1, err
		}
		c.URLs = append(c.URLs, page)
	}
	if len(c.URLs) == 0 {
		return 1, errors.New("name a page, or an appliance with --api")
	}
	results := make([]result, 0, len(c.URLs))
	for _, address := range c.URLs {
		seen, err := c.look(ctx, address)
		if err != nil {
			return 1, fmt.Errorf("the page of %s could not be looked at: %w", siteOf(address), err)
		}
		r := result{Page: siteOf(address), Kind: seen.Kind, At: time.Now().UTC(), Differences: compare(seen, checkout.ListInventory())}
		if len(r.Differences) > 0 {
			code = exitChanged
		}
		results = append(results, r)
	}
	return code, c.print(results)
}

func (c cli) print(results []result) error {
	if c.JSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(results)
	}
	for _, r := range results {
		if len(r.Differences) == 0 {
			fmt.Printf("%s (%s): as listed\n", r.Page, r.Kind)
		}
		for _, difference := range r.Differences {
			fmt.Printf("%s (%s): %s\n", r.Page, r.Kind, difference)
		}
	}
	return nil
}
