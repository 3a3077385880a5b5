// Command finpay is the FINPay appliance: hardware-backed card tokenization and payment.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/hsm"
)

// version is set by the linker.
var version = "unreleased"

// globals are the flags of every command.
type globals struct {
	Config string `help:"Configuration file. Without it, finpay.yaml in the state directory." type:"path" placeholder:"FILE"`
	State  string `help:"State directory: database, log, HSM of a trial. Without it ./var, and for demo a temporary one." type:"path" placeholder:"DIR"`
}

func (g globals) load() (config.Config, error) { return config.Load(g.Config, g.State) }

type cli struct {
	globals

	Run        runCommand        `cmd:"" help:"Try it: set up what is missing, serve with simulated counterparties, and print a checkout link."`
	Demo       demoCommand       `cmd:"" help:"Prove it: three payments through a fresh appliance, each step checked."`
	Init       initCommand       `cmd:"" help:"Set up a state directory: HSM token, keys, first merchant. Never overwrites."`
	Doctor     doctorCommand     `cmd:"" help:"Check the HSM: each role's operation, its speed, FF1 vectors. Leaves nothing behind."`
	Serve      serveCommand      `cmd:"" help:"Run the appliance."`
	Simulator  simulatorCommand  `cmd:"" help:"Run the simulated counterparties: acquirer, directory server, issuer, shop."`
	Merchant   merchantCommand   `cmd:"" help:"Make a merchant of a profile, change it, show it, list all."`
	APIKey     apiKeyCommand     `cmd:"" name:"api-key" help:"Make or revoke API keys."`
	Tokenize   tokenizeCommand   `cmd:"" help:"Send cards to an appliance and print their tokens: NDJSON, standard input to standard output."`
	Detokenize detokenizeCommand `cmd:"" help:"Have the cards behind tokens sealed to a recipient, and open them: NDJSON likewise."`
	Key        keyCommand        `cmd:"" aliases:"keys" help:"List the HSM's keys against the books; rotate the tokenization key, and retire an old version of it."`
	Import     importCommand     `cmd:"" help:"Open and close times in which an API key may import many cards that begin and end alike."`
	Auditor    auditorCommand    `cmd:"" help:"Let people look at the signed log, one named person each; list them, and end that."`
	Checkout   checkoutCommand   `cmd:"" help:"List what the payment pages load, for PCI DSS 6.4.3."`
	Ceremony   ceremonyCommand   `cmd:"" help:"Carry out a reviewed plan: generate, rotate, retire, destroy, back up, restore keys; or verify a transcript."`
	Ledger     ledgerCommand     `cmd:"" help:"Export the signed log for auditors, or print its public key."`
	Verify     verifyCommand     `cmd:"" help:"Verify the signed log: a bundle, a state directory or an appliance. Exit 0 only if all holds under --key, 3 if consistent but not pinned."`
	Backup     backupCommand     `cmd:"" help:"Write a copy of the database, while it serves or not; or verify one. Never overwrites."`
	Restore    restoreCommand    `cmd:"" help:"Put a backup in the place of a database that is lost, damaged or old. Closes the old log and opens a new one."`
	Payment    paymentCommand    `cmd:"" help:"End a payment of which a restored database does not know the outcome."`
	Settlement settlementCommand `cmd:"" help:"Compare books with the acquirer, and list the comparisons."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
}

type versionCommand struct{}

func (versionCommand) Run() error {
	fmt.Println("finpay", version)
	return nil
}

func main() {
	var c cli
	parser := kong.Parse(&c,
		kong.Name("finpay"),
		kong.Description("Hardware-backed card tokenization and payment: cards live in the HSM, every step is signed there first."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Vars{"version": version})
	if c.State == "" && parser.Command() != "demo" {
		c.State = "var"
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parser.BindTo(ctx, (*context.Context)(nil))
	if err := parser.Run(c.globals); err != nil {
		fmt.Fprintln(os.Stderr, "finpay:", err)
		stop()
		os.Exit(exitCode(err))
	}
}

// exitPIN tells a supervisor not to start the process again: each start would try the PIN once more, and three wrong
// tries lock the hsm token. It is EX_CONFIG of sysexits.h.
const exitPIN = 78

// exitNotPinned says that a log is consistent, and nothing about whose it is.
const exitNotPinned = 3

func exitCode(err error) int {
	switch {
	case errors.Is(err, hsm.ErrPIN):
		return exitPIN
	case errors.Is(err, errNotPinned):
		return exitNotPinned
	}
	return 1
}
