package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/store"
)

type demoCommand struct {
	JSON bool `name:"json" help:"One JSON object on standard output, everything else on standard error."`
}

// demoResult is what --json prints.
type demoResult struct {
	Payments []demoPayment `json:"payments"`
	Ledger   demoLedger    `json:"ledger"`
}

type demoPayment struct {
	ID      string     `json:"id"`
	Status  string     `json:"status"`
	Card    string     `json:"card"`
	Token   string     `json:"token"`
	Steps   []demoStep `json:"steps"`
	Webhook string     `json:"webhook"` // type of the event whose signature the shop has verified
	Return  string     `json:"return"`  // status in the return whose signature the shop has verified
}

type demoStep struct {
	N      int    `json:"n"`
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	detail string // what travelled where, for people
}

type demoLedger struct {
	Origin   string `json:"origin"`
	Size     int64  `json:"size"`
	Verified bool   `json:"verified"`
}

// scenario is a payment of the demo and how it has to end.
type scenario struct {
	title, number, cvv string
	status             api.Status
	challenge          bool
}

var scenarios = []scenario{
	{"approved without friction", "4111111111111111", "123", api.StatusCaptured, false},
	{"approved after a challenge", "4539123456789017", "123", api.StatusCaptured, true},
	{"declined by the issuer", "4539515151515151", "123", api.StatusDeclined, false},
}

// Run exits 0 only if every step of every payment, and every entry of the log, held.
func (c demoCommand) Run(ctx context.Context, g globals) error {
	text := io.Writer(os.Stdout)
	if c.JSON {
		text = os.Stderr
	}
	g, cleanUp, err := demoState(g)
	if err != nil {
		return err
	}
	defer cleanUp()
	result, err := demo(ctx, g, text)
	if c.JSON && result != nil {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetEscapeHTML(false)
		err = errors.Join(err, encoder.Encode(result))
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(text, "\nAll of it held.")
	return nil
}

// demoState makes a fresh state with free ports: in a named directory, which is kept, or in a temporary one.
func demoState(g globals) (_ globals, cleanUp func(), err error) {
	cleanUp = func() {}
	if g.Config != "" {
		return g, cleanUp, errors.New("the demo makes a configuration of its own: leave --config out")
	}
	if g.State == "" {
		if g.State, err = os.MkdirTemp("", "finpay-demo-"); err != nil {
			return g, cleanUp, err
		}
		cleanUp = func() { _ = os.RemoveAll(g.State) }
	} else if _, err := os.Stat(filepath.Join(g.State, config.FileName)); err == nil {
		return g, cleanUp, fmt.Errorf("%s is set up already: the demo wants a fresh directory", g.State)
	}
	text, err := config.OnFreePorts(defaultConfig(time.Now().Year()))
	if err != nil {
		return g, cleanUp, err
	}
	_, err = writeNew(filepath.Join(g.State, config.FileName), text, 0o600)
	return g, cleanUp, err
}

// demo runs the scenarios and checks the log of a trial.
func demo(ctx context.Context, g globals, text io.Writer) (result *demoResult, err error) {
	fmt.Fprintln(text, "A fresh appliance and its counterparties, each in its own process …")
	t, _, err := startTrial(ctx, g)
	if err != nil {
		return nil, err
	}
	stopped := false
	defer func() {
		if !stopped {
			err = errors.Join(err, t.stop())
		}
	}()
	d, err := newDemonstrator(t)
	if err != nil {
		return nil, err
	}
	result = &demoResult{}
	for i, s := range scenarios {
		payment, err := d.play(ctx, s)
		result.Payments = append(result.Payments, payment)
		if err != nil {
			return result, fmt.Errorf("payment %s: %w", s.title, err)
		}
		printPayment(text, s, payment, i == 0)
	}
	stopped = true
	if err := t.stop(); err != nil { // the log is whole only after a clean end
		return result, err
	}
	return result, d.checkLedger(ctx, result, text)
}

func printPayment(w io.Writer, s scenario, p demoPayment, withSteps bool) {
	fmt.Fprintf(w, "\n%s, %s: %s\n", p.ID, s.title, p.Status)
	if withSteps {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, step := range p.Steps {
			fmt.Fprintf(table, "  %2d\t%s\t%s\n", step.N, step.Name, step.detail)
		}
		_ = table.Flush()
		return
	}
	fmt.Fprintf(w, "  card %s, token %s; twelve steps held; return %s, webhook %s\n", p.Card, p.Token, p.Return, p.Webhook)
}

// checkLedger verifies the whole log under the pinned key.
func (d *demonstrator) checkLedger(ctx context.Context, result *demoResult, text io.Writer) error {
	s, err := store.OpenReadOnly(d.t.cfg.State())
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	verdict, err := audit.Verify(ctx, audit.Database{Store: s}, audit.Terms{Key: d.vkey})
	if err != nil {
		return err
	}
	result.Ledger = demoLedger{verdict.Origin, verdict.Size, verdict.OK}
	if !verdict.OK {
		return fmt.Errorf("the log does not hold at entry %d: %s", verdict.FirstBad, verdict.Reason)
	}
	fmt.Fprintf(text, "\nLog %s: %d entries, each included in the checkpoint that the HSM signed.\n", verdict.Origin, verdict.Size)
	return nil
}
