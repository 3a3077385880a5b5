package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/finterra/finpay/appliance/ceremony"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
)

type ceremonyCommand struct {
	Plan   string `arg:"" optional:"" type:"path" help:"The plan, a YAML file."`
	Check  bool   `help:"Say what would be done, and touch nothing."`
	Verify string `type:"path" placeholder:"TRANSCRIPT" help:"Verify a transcript instead, with nothing but the log's public key."`
	Key    string `type:"path" placeholder:"FILE" help:"The log's public key for --verify. Without it, ledger.vkey in the state directory."`
}

// Run holds a ceremony, or verifies what is left of one.
func (c ceremonyCommand) Run(ctx context.Context, g globals) error {
	switch {
	case c.Verify != "" && c.Plan == "" && !c.Check:
		return c.verify(g)
	case c.Verify != "" || c.Plan == "":
		return errors.New("either a plan or --verify with a transcript is wanted")
	}
	if _, err := harden(); err != nil {
		return err
	}
	cfg, err := g.load()
	if err != nil {
		return err
	}
	plan, err := ceremony.ReadPlan(c.Plan, cfg.State())
	if err != nil {
		return err
	}
	r := &rite{cfg: cfg, plan: plan, out: os.Stdout, in: bufio.NewReader(os.Stdin),
		transcript: strings.TrimSuffix(c.Plan, filepath.Ext(c.Plan)) + ".transcript.json"}
	return r.hold(ctx, c.Check)
}

func (c ceremonyCommand) verify(g globals) error {
	if c.Key == "" {
		c.Key = filepath.Join(g.State, verifierKeyFile)
	}
	vkey, err := os.ReadFile(c.Key)
	if err != nil {
		return fmt.Errorf("the log's public key (--key): %w", err)
	}
	account, err := ceremony.VerifyTranscriptFile(c.Verify, strings.TrimSpace(string(vkey)))
	if err != nil {
		return err
	}
	fmt.Println("The transcript verifies: each entry is in the log", account.Log+", under its signature, and none is left out.")
	printLines(os.Stdout, account)
	return nil
}

func printLines(w io.Writer, account ceremony.Account) {
	for _, line := range account.Lines() {
		fmt.Fprintln(w, " ", line)
	}
}

// rite is one ceremony under way. What was done is known from the log alone, so that a second run of the same plan
// goes on where the first one ended.
type rite struct {
	cfg        config.Config
	plan       ceremony.Plan
	transcript string // path
	in         *bufio.Reader
	out        io.Writer

	kek      kekMaterial
	tasks    []task
	past     past
	problems []error // books and HSM disagree already
}

// past is what the log says of this plan.
type past struct {
	started, finished bool
	done              int // steps
}

// consent is a custodian's.
type consent struct {
	Name        string `json:"name"`
	ConsentedAt string `json:"consented_at"` // RFC 3339, UTC
}

// hold reviews the plan against books and HSM, asks the custodians, and carries it out.
func (r *rite) hold(ctx context.Context, checkOnly bool) error {
	if err := r.withBooks(ctx, r.review); err != nil {
		return err
	}
	if r.past.finished && checkOnly {
		fmt.Fprintln(r.out, "This plan was carried out already. Nothing was touched.")
		return nil
	}
	if r.past.finished {
		return r.withBooks(ctx, r.writeMissingTranscript)
	}
	r.explain()
	if checkOnly {
		fmt.Fprintln(r.out, "\nNothing was touched.")
		return nil
	}
	consents, err := r.ask()
	if err != nil {
		return err
	}
	if err := r.carryOut(ctx, consents); err != nil {
		return err
	}
	checks, certificates, err := r.confirm(ctx)
	if err != nil {
		return err
	}
	return r.withBooks(ctx, func(ctx context.Context, n *node) error {
		if err := r.finish(ctx, n, checks, certificates); err != nil {
			return err
		}
		return r.writeTranscript(ctx, n)
	})
}

// withBooks opens the node for one part of the ceremony: while people are asked, and while the independent client has the
// HSM, nothing is held.
func (r *rite) withBooks(ctx context.Context, use func(context.Context, *node) error) (err error) {
	n, err := openBooks(ctx, r.cfg, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	return use(ctx, n)
}

// review finds out what was done and whether all that is left can be done. It changes nothing.
func (r *rite) review(ctx context.Context, n *node) (err error) {
	if r.past, err = r.readPast(ctx, n); err != nil || r.past.finished {
		return err
	}
	if _, err := os.Lstat(r.transcript); err == nil {
		return fmt.Errorf("%s is there already: a transcript is never overwritten; move it, or give the plan another name", r.transcript)
	}
	if r.problems, err = n.keyProblems(ctx); err != nil {
		return err
	}
	v := &reviewer{rite: r, node: n, books: slices.Clone(n.keys)}
	r.tasks, err = v.review(ctx)
	return err
}

func (r *rite) readPast(ctx context.Context, n *node) (past, error) {
	var p past
	entries, err := n.store.Read(ctx).LedgerEntriesOf(ceremony.Resource(r.plan.Digest()))
	if err != nil {
		return p, err
	}
	for _, e := range entries {
		var entry ledger.Entry
		if err := json.Unmarshal(e.Entry, &entry); err != nil {
			return p, err
		}
		switch entry.Type {
		case ceremony.Started:
			p.started = true
		case ceremony.StepDone:
			p.done++
		case ceremony.Finished:
			p.finished = true
		}
	}
	return p, nil
}

// explain shows what people consent to.
func (r *rite) explain() {
	fmt.Fprintf(r.out, "%s\n\n%s\nsha256 of the plan: %s\n\n", r.plan.Title, indent(string(r.plan.Text())), r.plan.Digest())
	if r.past.started {
		fmt.Fprintf(r.out, "This plan was begun before: %d of %d steps are done.\n", r.past.done, len(r.plan.Steps))
	}
	for _, problem := range r.problems {
		fmt.Fprintf(r.out, "  before  books and HSM disagree: %v\n", problem)
	}
	for _, t := range r.tasks {
		fmt.Fprintf(r.out, "  step %d  %s\n", t.n, t.what)
	}
}

func indent(text string) string {
	return "  | " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  | ") + "\n"
}

// ask asks each custodian. Whoever types anything else than their name and the digest's beginning refuses.
func (r *rite) ask() ([]consent, error) {
	consents := make([]consent, 0, len(r.plan.Custodians))
	for _, c := range r.plan.Custodians {
		fmt.Fprintf(r.out, "\n%s: to consent, type your name and the first %d characters of the plan's sha256 (anything else refuses):\n> ",
			c.Name, ceremony.DigestPrefix)
		line, err := r.in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if strings.TrimSpace(line) != r.plan.Consent(c.Name) {
			return nil, fmt.Errorf("%s did not consent: nothing was done", c.Name)
		}
		consents = append(consents, consent{c.Name, time.Now().UTC().Format(time.RFC3339)})
	}
	return consents, nil
}

// carryOut does the steps that are left, each with its entries in one commit.
func (r *rite) carryOut(ctx context.Context, consents []consent) (err error) {
	defer func() { err = errors.Join(err, r.kek.destroy()) }()
	if err := r.prepareKEK(); err != nil {
		return err
	}
	shown := r.what()
	return r.withBooks(ctx, func(ctx context.Context, n *node) (err error) {
		defer func() { err = errors.Join(err, r.kek.close()) }() // before the engine
		if err := r.review(ctx, n); err != nil {                 // once more: other commands may have run meanwhile
			return err
		}
		if !slices.Equal(shown, r.what()) {
			return errors.New("the keys have changed since the custodians were asked: nothing was done; run the plan again")
		}
		if err := r.proveKEK(ctx, n); err != nil {
			return err
		}
		if err := r.begin(ctx, n, consents); err != nil {
			return err
		}
		for _, t := range r.tasks {
			if err := r.carryOutStep(ctx, n, t); err != nil {
				return fmt.Errorf("step %d (%s): %w", t.n, t.action, err)
			}
		}
		return nil
	})
}

// what is what people were told of the steps.
func (r *rite) what() []string {
	list := make([]string, len(r.tasks))
	for i, t := range r.tasks {
		list[i] = t.what
	}
	return list
}

// begin enters that the ceremony begins, or goes on, and who has agreed to it.
func (r *rite) begin(ctx context.Context, n *node, consents []consent) error {
	event := ceremony.Started
	if r.past.started {
		event = ceremony.Resumed
	}
	_, err := n.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		tx.Record(r.entry(event, map[string]any{"title": r.plan.Title, "custodians": consents, "steps": len(r.plan.Steps)}))
		return nil
	})
	return err
}

func (r *rite) entry(event string, data map[string]any) ledger.Entry {
	data["ceremony"] = r.plan.Digest()
	return ledger.Entry{Type: event, Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: ceremony.Resource(r.plan.Digest()), Data: data}
}

func (r *rite) carryOutStep(ctx context.Context, n *node, t task) error {
	place := fmt.Sprintf("ceremony step %d", t.n)
	failpoint.Here("before " + place)
	change, err := t.prepare(ctx, n)
	if err != nil {
		return err
	}
	failpoint.Here("within " + place)
	_, err = n.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if err := change.apply(tx, func() map[string]any {
			return map[string]any{"ceremony": r.plan.Digest(), "step": t.n}
		}); err != nil {
			return err
		}
		tx.Record(r.entry(ceremony.StepDone, map[string]any{"step": t.n, "action": t.action, "result": change.result, "keys": change.keys, "made": change.made}))
		return nil
	})
	if err != nil {
		return err
	}
	failpoint.Here("after " + place)
	fmt.Fprintf(r.out, "\nstep %d  done: %s", t.n, change.result)
	return n.readKeys(ctx)
}
