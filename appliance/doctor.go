package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/control"
	"github.com/finterra/finpay/hsm"
)

type doctorCommand struct {
	JSON       bool   `name:"json" help:"Print one JSON document."`
	FF1Vectors string `name:"ff1-vectors" help:"Take these FF1 vectors through the HSM, in both directions." type:"path" placeholder:"FILE"`
}

// ff1Rounds is how many calls a batch of tokens takes (NIST SP 800-38G, algorithm 7).
const ff1Rounds = 10

// diagnosis is what doctor found; its JSON form is documented in docs/operations.md.
type diagnosis struct {
	Provider    string              `json:"provider"`
	Module      string              `json:"module"`
	HSM         hsm.Description     `json:"hsm"`
	Roles       []hsm.Capability    `json:"roles"`
	FF1         ff1Report           `json:"ff1"` // zeros without --ff1-vectors
	RoundTripUS float64             `json:"round_trip_us"`
	Batches     []batchTime         `json:"batches"`
	Batch       int                 `json:"recommended_batch"`
	TokensPerS  int                 `json:"tokens_per_second"`
	Process     []standing          `json:"process"`
	Connectors  []connectorStanding `json:"connectors"`
	Failures    []string            `json:"failures"`

	timing  hsm.Timing
	vectors bool // FF1 vectors were given
}

// batchTime is one call of the block path.
type batchTime struct {
	Blocks int     `json:"blocks"`
	US     float64 `json:"us"`
}

// Run asks the HSM for everything that the appliance needs of it, and protects its own process as serve does. It makes session objects, and one data object on the hsm
// token that it destroys: a running appliance goes on.
func (c doctorCommand) Run(ctx context.Context, g globals) error {
	safe, unsafe := harden()
	cfg, err := g.load()
	if err != nil {
		return err
	}
	var vectors []ff1Vector
	if c.FF1Vectors != "" {
		if vectors, err = readVectors(c.FF1Vectors); err != nil {
			return err
		}
	}
	d := &diagnosis{Provider: cfg.HSM.Profile().Name, Module: cfg.HSM.Module, Roles: []hsm.Capability{}, Batches: []batchTime{}, Process: safe, Failures: []string{}}
	if unsafe != nil {
		d.Failures = append(d.Failures, unsafe.Error())
	}
	d.askConnectors(ctx, cfg)
	broken := d.examine(ctx, cfg, vectors)
	if broken != nil {
		d.Failures = append(d.Failures, broken.Error())
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(d); err != nil {
			return errors.Join(broken, err)
		}
	} else if broken == nil {
		d.print(os.Stdout)
	}
	switch {
	case len(d.Failures) > 0: // a refused PIN too: no supervisor starts doctor again
		return errors.New(strings.Join(d.Failures, "\n"))
	default:
		return nil
	}
}

// examine opens the HSM and fills d. An error means that it could not be asked.
func (d *diagnosis) examine(ctx context.Context, cfg config.Config, vectors []ff1Vector) (err error) {
	settings, err := hsmConfig(cfg, nil)
	if err != nil {
		return err
	}
	settings.Beside = control.Serves(ctx, cfg.State())
	engine, err := hsm.Open(settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	if d.HSM, err = engine.Describe(ctx); err != nil {
		return err
	}
	if d.Roles, err = engine.Probe(ctx, keySpecs); err != nil {
		return err
	}
	d.Failures = append(d.Failures, missing(d.Roles, cfg)...)
	if vectors != nil {
		d.FF1, d.vectors = runVectors(ctx, engine, vectors), true
		for _, failure := range d.FF1.failures {
			d.Failures = append(d.Failures, failure+"; tokens made here could not be read elsewhere: check the vector, then report the HSM's model and firmware")
		}
	}
	return d.measure(ctx, engine)
}

func (d *diagnosis) measure(ctx context.Context, engine *hsm.Engine) (err error) {
	if d.timing, err = engine.Measure(ctx); err != nil {
		return err
	}
	d.RoundTripUS = microseconds(d.timing.RoundTrip)
	for _, b := range d.timing.Batches {
		d.Batches = append(d.Batches, batchTime{b.Blocks, microseconds(b.Time)})
	}
	if d.Batch = d.timing.Batch(); d.Batch > 0 {
		d.TokensPerS = tokensPerSecond(d.timing, d.Batch)
	}
	return nil
}

func microseconds(t time.Duration) float64 { return float64(t.Nanoseconds()) / 1000 }

// tokensPerSecond counts the HSM's time alone, on one session.
func tokensPerSecond(t hsm.Timing, batch int) int {
	return int(float64(batch) * float64(time.Second) / float64(ff1Rounds*max(t.At(batch), 1)))
}

// missing says in a sentence each what required roles lack, and what to change.
func missing(rows []hsm.Capability, cfg config.Config) (failures []string) {
	for _, row := range rows {
		if !row.OK && !row.Optional {
			failures = append(failures, fmt.Sprintf("role %s needs %s, and this HSM does not do it: %s. %s", row.Role, row.Mechanism,
				strings.TrimSuffix(row.Detail, "."), advice(row, cfg)))
		}
	}
	return failures
}

// advice says what to change for a role whose operation failed.
func advice(row hsm.Capability, cfg config.Config) string {
	profile := "profile " + cfg.HSM.Provider
	switch {
	case row.Role == hsm.RoleCustody && cfg.Custody.Kind == config.ObjectCustody:
		return "Set custody.kind: sealed, which needs no data objects, or try data_objects: public in a copy of " + profile
	case strings.Contains(row.Detail, "CKR_ATTRIBUTE") || strings.Contains(row.Detail, "CKR_TEMPLATE"):
		return "Name the attribute that it refuses under omit_attributes in a copy of " + profile
	case row.Mechanism == "CKM_AES_GCM":
		return "Set aead: eax in a copy of " + profile + ", which needs CKM_AES_ECB only"
	default:
		return "Allow " + row.Mechanism + " in the HSM's policy or its firmware, correct " + profile + ", or choose an HSM that has it"
	}
}

// checkCapabilities keeps the appliance from starting on an HSM that cannot do what it will be asked.
func checkCapabilities(ctx context.Context, cfg config.Config, engine *hsm.Engine, log *slog.Logger) error {
	rows, err := engine.Probe(ctx, keySpecs)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !row.OK && row.Optional {
			log.WarnContext(ctx, "the HSM lacks an optional role's operation", "role", row.Role, "mechanism", row.Mechanism, "detail", row.Detail)
		}
	}
	if failures := missing(rows, cfg); len(failures) > 0 {
		return fmt.Errorf("the HSM cannot serve this appliance; `finpay doctor` shows all of it:\n%s", strings.Join(failures, "\n"))
	}
	return nil
}

// print is for somebody who has never seen it.
func (d *diagnosis) print(w io.Writer) {
	fmt.Fprintf(w, "HSM       %s %s, serial %s, firmware %s\n", d.HSM.Manufacturer, d.HSM.Model, d.HSM.Serial, d.HSM.Firmware)
	fmt.Fprintf(w, "hsm token %s\n", d.HSM.Token)
	fmt.Fprintf(w, "library   %s (%s; PKCS#11 %s)\n", d.Module, d.HSM.Library, d.HSM.Cryptoki)
	fmt.Fprintf(w, "profile   %s\n", d.Provider)
	fmt.Fprintf(w, "listed    %d mechanisms; of those that are used: %s\n", d.HSM.Listed, strings.Join(d.HSM.Mechanisms, ", "))

	fmt.Fprint(w, "\nEach role's operation, really done on throwaway session objects:\n\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range d.Roles {
		mark := "ok"
		switch {
		case !row.OK && row.Optional:
			mark = "absent (optional)"
		case !row.OK:
			mark = "FAILED"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", row.Role, row.Mechanism, mark, row.Detail)
	}
	_ = table.Flush()

	d.printSafeguards(w)
	d.printConnectors(w)
	d.printSpeed(w)
	if d.vectors {
		fmt.Fprintf(w, "\nFF1 vectors through the HSM: %d passed, %d failed, %d skipped\n", d.FF1.Passed, d.FF1.Failed, d.FF1.Skipped)
		for _, note := range d.FF1.notes {
			fmt.Fprintf(w, "  skipped: %s\n", note)
		}
	}
	if len(d.Failures) == 0 {
		fmt.Fprint(w, "\nThis HSM can serve the appliance.\n")
		return
	}
	fmt.Fprint(w, "\nThis HSM cannot serve the appliance as it is; the reasons follow.\n")
}

func (d *diagnosis) printSafeguards(w io.Writer) {
	fmt.Fprint(w, "\nSafeguards of the process's memory, as the system says when it is asked back. Of this process: serve does the same where it starts.\n\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range d.Process {
		mark := "ok"
		switch {
		case !s.OK && s.Required:
			mark = "FAILED"
		case !s.OK:
			mark = "warning"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", s.Name, s.By, mark, s.Detail)
	}
	_ = table.Flush()
	for _, s := range d.Process {
		if !s.OK {
			fmt.Fprintf(w, "\n%s: %s.\n", s.Name, s.means)
		}
	}
}

// askConnectors asks the appliance that serves, if one does, how its connectors stand. doctor itself connects to nobody: a second
// sign-on would end the first at many hosts.
func (d *diagnosis) askConnectors(ctx context.Context, cfg config.Config) {
	d.Connectors = configuredConnectors(cfg)
	var serving []connectorStanding
	err := control.Call(ctx, cfg.State(), "connector list", nothing{}, &serving)
	switch {
	case err == nil:
		d.Connectors = serving
	case !errors.Is(err, control.ErrNotRunning):
		d.Failures = append(d.Failures, fmt.Sprintf("the appliance that serves does not say how its connectors stand: %v", err))
	}
	for _, c := range d.Connectors {
		if c.Health == healthNotConfigured {
			d.Failures = append(d.Failures, fmt.Sprintf("payments wait for connector %q, which is not configured any more. Configure it again: what follows a sale goes to its connector and to no other", c.Name))
		}
	}
}

func (d *diagnosis) printConnectors(w io.Writer) {
	fmt.Fprint(w, "\nConnectors, in order of preference, as the appliance that serves sees them:\n\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range d.Connectors {
		mode, work := "live", ""
		if c.Sandbox {
			mode = "sandbox"
		}
		if c.Open {
			work = "has work to finish"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\n", c.Name, c.Type, mode, c.Health, work)
	}
	_ = table.Flush()
}

func (d *diagnosis) printSpeed(w io.Writer) {
	fmt.Fprintf(w, "\nRound trip: %.1f µs (C_GenerateRandom of one byte, the cheapest call that the device itself answers)\n", d.RoundTripUS)
	if d.Batch == 0 {
		return
	}
	fmt.Fprint(w, "\nTokens are made in batches: each of FF1's 10 rounds is one call, however many cards are in it.\n\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "  cards in a call\tone call\teach card\ttokens a second\t\n")
	for _, b := range d.timing.Batches {
		fmt.Fprintf(table, "  %d\t%.1f µs\t%.3f µs\t%d\t\n", b.Blocks, microseconds(b.Time), microseconds(b.Time)/float64(b.Blocks), tokensPerSecond(d.timing, b.Blocks))
	}
	_ = table.Flush()
	fmt.Fprintf(w, "\nRecommended: %d cards in a call, of whose time %.0f %% is its fixed cost: about %d tokens a second\n(the HSM's time alone, on one session).\n",
		d.Batch, 100*d.timing.FixedShare(d.Batch), d.TokensPerS)
}
