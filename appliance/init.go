package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/simulator"
	"github.com/finterra/finpay/appliance/store"
	firmwareconfig "github.com/finterra/finpay/firmware-config"
	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci"
)

type initCommand struct {
	MerchantName string `help:"Name of the first merchant, as on card statements." default:"Pelangi Tea"`
	WebhookURL   string `help:"Where the first merchant receives webhooks; empty: nowhere yet. The simulated shop gets an endpoint of its own." placeholder:"URL"`
	AwaitRestore bool   `help:"Leave out the recoverable keys, and the merchant, whose secret they seal: a ceremony restores them, then run init again."`
}

// Run sets up what is missing and leaves alone what is there.
func (c initCommand) Run(ctx context.Context, g globals) error {
	report, err := c.setUp(ctx, g)
	if err != nil {
		return err
	}
	report.print(os.Stdout)
	if c.AwaitRestore {
		fmt.Println("\nNext: `finpay ceremony PLAN` with a restore, then `finpay init` again.")
	}
	if report.apiKey != "" {
		fmt.Println("\nNext: `finpay serve`, and `finpay simulator` beside it; or `finpay run` for both.")
	}
	return nil
}

// setUpReport says what was made.
type setUpReport struct {
	state       string
	made        [][2]string // what, and its name
	absent      [][2]string
	verifierKey string
	witnessKey  string // empty where the HSM has no Ed25519
	merchantID  string
	apiKey      string // only when it was made just now
	returns     string
	webhooks    string
}

func (r *setUpReport) add(what, name string) { r.made = append(r.made, [2]string{what, name}) }

// cannot notes what this HSM does not make; it is shown beside what was made.
func (r *setUpReport) cannot(what, why string) { r.absent = append(r.absent, [2]string{what, why}) }

func (r *setUpReport) print(w io.Writer) {
	if len(r.made) == 0 {
		fmt.Fprintf(w, "%s is set up; nothing was changed.\n", r.state)
		return
	}
	fmt.Fprintf(w, "Set up in %s:\n\n", r.state)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range slices.Concat(r.made, r.absent) {
		fmt.Fprintf(table, "  %s\t%s\n", row[0], row[1])
	}
	_ = table.Flush()
	fmt.Fprintf(w, "\nThe signed log's public key, for auditors to pin:\n\n  %s\n", r.verifierKey)
	if r.witnessKey != "" {
		fmt.Fprintf(w, "\nIts Ed25519 key, for witnesses, who see published checkpoints only:\n\n  %s\n", r.witnessKey)
	}
	if r.apiKey == "" {
		return
	}
	fmt.Fprintf(w, "\nFor merchant %s. What is secret is shown this once.\n\n", r.merchantID)
	fmt.Fprintf(w, "  test API key    %s\n  return secret   %s\n", r.apiKey, r.returns)
	if r.webhooks != "" {
		fmt.Fprintf(w, "  webhook secret  %s\n", r.webhooks)
	}
}

func (c initCommand) setUp(ctx context.Context, g globals) (*setUpReport, error) {
	report := &setUpReport{state: g.State}
	if err := os.MkdirAll(g.State, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if g.Config == "" {
		made, err := writeNew(filepath.Join(g.State, config.FileName), defaultConfig(time.Now().Year()), 0o600)
		if err != nil {
			return nil, err
		}
		if made {
			report.add("configuration", config.FileName)
		}
	}
	cfg, err := g.load()
	if err != nil {
		return nil, err
	}
	if err := c.equip(ctx, cfg, report); err != nil {
		return nil, err
	}
	return report, c.enter(ctx, cfg, report)
}

// equip makes the hsm token, the keys and the certificates that are missing. The database's lock keeps every other
// process of this state directory away from the HSM meanwhile.
func (c initCommand) equip(ctx context.Context, cfg config.Config, report *setUpReport) (err error) {
	s, err := store.Open(ctx, cfg.State())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	size, err := s.Read(ctx).LedgerSize()
	if err != nil {
		return err
	}
	if err := provisionToken(cfg, size > 0, report); err != nil {
		return err
	}
	if err := c.generateKeys(ctx, cfg, s.Read(ctx), report); err != nil {
		return err
	}
	keys, err := s.Read(ctx).Keys()
	if err != nil {
		return err
	}
	return makeCertificates(ctx, cfg, keys, report)
}

// defaultConfig is the documented configuration with the year in the log's name.
func defaultConfig(year int) []byte {
	return bytes.Replace(firmwareconfig.Default, []byte("finpay.example/finpay-1/2026"), fmt.Appendf(nil, "finpay.example/finpay-1/%d", year), 1)
}

// writeNew writes a file that is not there yet, whole or not at all.
func writeNew(path string, content []byte, mode os.FileMode) (made bool, err error) {
	if _, err := os.Lstat(path); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(content)
	if err := errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return false, err
	}
	if err := os.Link(file.Name(), path); err != nil { // fails where rename would overwrite
		if errors.Is(err, os.ErrExist) {
			return false, nil
		}
		return false, err
	}
	return true, nil
}

// provisionToken makes SoftHSM2's hsm token of a trial. The token of a hardware HSM is made with its vendor's tools.
// Where a log was signed already, a missing one is not made anew: other keys could neither continue the log nor resolve
// its tokens.
func provisionToken(cfg config.Config, signed bool, report *setUpReport) error {
	conf, soft := cfg.HSM.Environment["SOFTHSM2_CONF"]
	if !soft {
		return nil
	}
	tokens := filepath.Join(filepath.Dir(conf), "tokens")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return err
	}
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	if _, err := writeNew(conf, []byte(text), 0o600); err != nil {
		return fmt.Errorf("SoftHSM2's configuration: %w", err)
	}
	if _, err := writeNew(cfg.HSM.PINFile, []byte(randomPIN()+"\n"), 0o600); err != nil {
		return fmt.Errorf("the HSM's PIN: %w", err)
	}
	officer := filepath.Join(filepath.Dir(conf), "so-pin")
	if _, err := writeNew(officer, []byte(randomPIN()+"\n"), 0o600); err != nil {
		return fmt.Errorf("the security officer's PIN: %w", err)
	}
	settings, err := hsmConfig(cfg, nil)
	if err != nil {
		return err
	}
	done, err := hsm.Provisioned(settings)
	if err != nil || done {
		return err
	}
	if signed {
		return fmt.Errorf("the hsm token %q is gone from %s, and the log in %s was signed with its keys: put it back, or begin with an empty state directory",
			settings.Label, tokens, cfg.State())
	}
	pin, err := os.ReadFile(officer)
	if err != nil {
		return err
	}
	if err := hsm.Provision(settings, strings.TrimSpace(string(pin))); err != nil {
		return err
	}
	report.add("hsm token", cfg.HSM.Token+" (SoftHSM2, for trials: whoever copies this directory has the keys)")
	return nil
}

// randomPIN returns 20 digits, 66 bits.
func randomPIN() string {
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(20), nil)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		panic(err) // crypto/rand never fails since Go 1.24
	}
	return fmt.Sprintf("%020d", n)
}

// generateKeys makes the first key of each role that never had one. One that the books or the log know is never made
// anew: if it is gone, openNode says so.
func (c initCommand) generateKeys(ctx context.Context, cfg config.Config, read store.Queries, report *setUpReport) error {
	books, err := read.Keys()
	if err != nil {
		return err
	}
	engine, err := openHSM(cfg, nil)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }()
	for _, spec := range keySpecs {
		first := hsm.Key{Role: spec.Role, Version: 1}
		entered, err := read.LedgerEntriesOf(keyResource(first))
		if err != nil {
			return err
		}
		if keyring(books).knows(spec.Role) || len(entered) > 0 || (c.AwaitRestore && spec.Class == hsm.Recoverable) {
			continue
		}
		if err := generateFirst(ctx, engine, first, spec, report); err != nil {
			return err
		}
	}
	return nil
}

func generateFirst(ctx context.Context, engine *hsm.Engine, first hsm.Key, spec hsm.Spec, report *setUpReport) error {
	exists, err := engine.Exists(ctx, first, spec.Kind)
	if err != nil || exists {
		return err
	}
	birth, err := engine.Generate(ctx, first, spec)
	if err != nil && spec.Optional {
		report.cannot("no key", fmt.Sprintf("%s: this HSM cannot make it (%v)", spec.Role, err))
		return nil
	}
	if err != nil {
		return err
	}
	report.add("key", fmt.Sprintf("%s, %s, %s, check value %s", birth.Label, birth.Kind, birth.Class, birth.CheckValue))
	return nil
}

// firstMerchant is the id of the merchant that init makes.
const firstMerchant = "mer_first"

// enter puts what was made into the signed log, and makes the first merchant.
func (c initCommand) enter(ctx context.Context, cfg config.Config, report *setUpReport) error {
	if err := enterKeys(ctx, cfg); err != nil {
		return err
	}
	open := openNode
	if c.AwaitRestore {
		open = openBooks
	}
	n, err := open(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer func() { _ = n.close() }()
	if err := writeVerifierKeys(cfg, n, report); err != nil {
		return err
	}
	if err := makeSimulatorCA(cfg); err != nil || c.AwaitRestore {
		return err
	}
	return c.makeMerchant(ctx, cfg, n, report)
}

// writeVerifierKeys keeps the log's public keys beside the database.
func writeVerifierKeys(cfg config.Config, n *node, report *setUpReport) error {
	report.verifierKey = n.ledger.VerifierKey()
	if made, err := writeNew(filepath.Join(cfg.State(), verifierKeyFile), []byte(report.verifierKey+"\n"), 0o644); err != nil {
		return err
	} else if made {
		report.add("log", n.ledger.Origin())
	}
	if key := n.ledger.WitnessKey(); key != "" {
		report.witnessKey = key
		if made, err := writeNew(filepath.Join(cfg.State(), witnessKeyFile), []byte(key+"\n"), 0o644); err != nil {
			return err
		} else if made {
			report.add("log, for witnesses", witnessKeyFile)
		}
	}
	return nil
}

func (c initCommand) makeMerchant(ctx context.Context, cfg config.Config, n *node, report *setUpReport) error {
	_, err := n.store.Read(ctx).Merchant(firstMerchant)
	if err == nil {
		return nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if _, err := n.merchants.Enter(ctx, thisUser(), c.merchant()); err != nil {
		return err
	}
	report.merchantID = firstMerchant
	report.add("merchant", fmt.Sprintf("%s, %s", firstMerchant, c.MerchantName))
	if report.apiKey, err = n.merchants.CreateKey(ctx, thisUser(), firstMerchant,
		merchant.KeyTerms{Scopes: []api.Scope{api.ScopePayments, api.ScopeTokens}}); err != nil {
		return err
	}
	secrets, err := n.merchants.Secrets(ctx, firstMerchant)
	if err != nil {
		return err
	}
	report.returns = secrets.Return
	if c.WebhookURL == "" {
		return nil
	}
	endpoint, err := n.endpoints(cfg, nil).Equip(ctx, thisUser(), firstMerchant, c.WebhookURL)
	report.webhooks = endpoint.Secret
	return err
}

// verifierKeyFile keeps the log's public key beside the database, for checks that must not ask the database.
const verifierKeyFile = "ledger.vkey"

// witnessKeyFile keeps the public key of the second signature on published checkpoints.
const witnessKeyFile = "ledger-ed25519.vkey"

// enterKeys records the birth of each role's first key of which neither books nor log know yet.
func enterKeys(ctx context.Context, cfg config.Config) (err error) {
	n, err := openBooks(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	for _, spec := range keySpecs {
		if n.keys.knows(spec.Role) {
			continue
		}
		first := hsm.Key{Role: spec.Role, Version: 1}
		birth, err := n.engine.Inspect(ctx, first, spec)
		if errors.Is(err, hsm.ErrNoKey) {
			continue
		}
		if err == nil {
			err = n.engine.CheckBirth(birth, spec, false)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", first.Label(), err)
		}
		if _, err := n.ledger.Commit(ctx, func(tx *ledger.Tx) error {
			return recordKey(tx, "key.created", bookOf(birth, store.KeyActive, store.KeyGenerated, time.Now()), map[string]any{"key": birth})
		}); err != nil {
			return err
		}
	}
	return nil
}

// makeSimulatorCA makes the certificate authority of the simulated counterparties, so that serve finds it.
func makeSimulatorCA(cfg config.Config) error {
	certificates, err := simulator.OpenCertificates(simulatorDir(cfg))
	if err != nil {
		return err
	}
	return certificates.WriteCA(filepath.Join(simulatorDir(cfg), "ca.pem"))
}

func (c initCommand) merchant() store.Merchant {
	return store.Merchant{
		ID:          firstMerchant,
		Domain:      "first",
		ReturnHosts: []string{},
		Profile: pci.Merchant{
			ID:            firstMerchant,
			Sandbox:       true,
			Name:          c.MerchantName,
			City:          "Kuala Lumpur",
			Country:       "MY",
			CountryCode:   "458",
			MCC:           "5499",
			AcquirerBIN:   "123456",
			AcquirerMID:   "000000000000001",
			TerminalID:    "00000001",
			RequestorID:   "finpay-trial-0001",
			RequestorName: c.MerchantName,
			RequestorURL:  "https://shop.example",
		},
	}
}
