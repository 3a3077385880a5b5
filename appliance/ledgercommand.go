package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/auditor"
	"github.com/finterra/finpay/appliance/bundle"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/siem"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/appliance/witness"
)

type ledgerCommand struct {
	Export exportCommand     `cmd:"" help:"Write a part of the signed log, with all that is needed to verify it offline, beside a running appliance."`
	Key    ledgerKeyCommand  `cmd:"" help:"Print the signed log's public key, for auditors to pin."`
	Record recordCommand     `cmd:"" help:"Verify the ledger record that came with a request to an acquirer, and print what it says."`
	Check  checkCommand      `cmd:"" help:"Hold every row against the entries that cover it, in both directions, beside a running appliance; exit 1 if one differs."`
	Accept acceptHeadCommand `cmd:"" name:"accept-head" help:"Go on, after a check by people, where the log's head is missing outside of the database."`
}

type ledgerKeyCommand struct {
	Fingerprint bool `help:"Print its SHA-256 too, as other tools show it."`
	All         bool `help:"Print it for the closed logs too, which had other names: oldest first."`
}

// Run prints the key that the newest checkpoint is signed under.
func (c ledgerKeyCommand) Run(ctx context.Context, g globals) error {
	s, err := store.OpenReadOnly(g.State)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	vkey, err := keyOfOpenLog(s.Read(ctx), g.State)
	if err != nil {
		return err
	}
	if c.All {
		closed, err := s.Read(ctx).ClosedLogs()
		if err != nil {
			return err
		}
		for _, l := range closed {
			fmt.Println(l.Key)
		}
	}
	_, checkpoint, err := s.Read(ctx).LedgerCheckpoint()
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	origin, _, _ := strings.Cut(vkey, "+")
	if err == nil {
		if _, err := ledger.OpenCheckpoint(checkpoint, origin, vkey); err != nil {
			return fmt.Errorf("%s is not the key of this log: %w", verifierKeyFile, err)
		}
	}
	fmt.Println(vkey)
	if c.Fingerprint {
		fmt.Println(audit.Fingerprint(vkey))
	}
	return nil
}

// readVerifierKey returns the log's public key as it lies beside the database.
func readVerifierKey(state string) (string, error) {
	vkey, err := os.ReadFile(filepath.Join(state, verifierKeyFile))
	if err != nil {
		return "", fmt.Errorf("the log's public key: %w", err)
	}
	return strings.TrimSpace(string(vkey)), nil
}

// keyOfOpenLog is that key under the name of the log that is open.
func keyOfOpenLog(read store.Queries, state string) (string, error) {
	vkey, err := readVerifierKey(state)
	if err != nil {
		return "", err
	}
	closed, err := read.ClosedLogs()
	if err != nil || len(closed) == 0 {
		return vkey, err
	}
	return logproof.KeyNamed(vkey, closed[len(closed)-1].Successor), nil
}

type exportCommand struct {
	Log    string `help:"Name of a closed log. Without it, the open one." placeholder:"ORIGIN"`
	From   string `help:"First entry: its index, or a time (2026-01-31, or RFC 3339). The bundle begins with the 256 entries that it is among." placeholder:"INDEX|TIME"`
	To     string `help:"Entries before this index or time; the bundle ends with the checkpoint that covers them. Without it, all." placeholder:"INDEX|TIME"`
	Format string `default:"bundle" enum:"bundle,ocsf,syslog" help:"bundle, which can be verified; or lines for systems that watch over others: OCSF events (NDJSON) or syslog messages (RFC 5424)."`
	Output string `short:"o" required:"" type:"path" help:"Where to write it. It shows every merchant's business: keep it accordingly." placeholder:"bundle.zip"`
}

// Run writes the bundle.
func (c exportCommand) Run(ctx context.Context, g globals) error {
	s, err := store.OpenReadOnly(g.State)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	part, err := c.part(ctx, g, s)
	if err != nil {
		return err
	}
	if c.Format != "bundle" {
		return c.lines(ctx, s, part)
	}
	var made bundle.Manifest
	if err := writeStream(c.Output, func(w io.Writer) (err error) {
		made, err = bundle.Export(ctx, w, s, part)
		return err
	}); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	fmt.Printf("%s: entries %d to %d of %s.\nVerify it with: finpay verify %s --key VKEY\n", c.Output, made.From, made.Size-1, made.Origin, c.Output)
	return nil
}

// lines writes entries for other systems, exactly those that were asked for: there is no proof that would need their neighbours.
func (c exportCommand) lines(ctx context.Context, s *store.Store, part bundle.Part) error {
	read := s.Read(ctx)
	size, _, err := read.LedgerCheckpoint()
	if err != nil {
		return err
	}
	if part.To == 0 || part.To > size {
		part.To = size
	}
	if part.From >= part.To {
		return errors.New("export: there is no entry from --from to --to")
	}
	origin, _, _ := strings.Cut(part.Key, "+")
	lines := auditor.Part{Log: origin, Format: siem.Format(c.Format), First: part.From, End: part.To}
	if err := writeStream(c.Output, func(w io.Writer) error { return auditor.Lines(read, w, lines) }); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	fmt.Printf("%s: entries %d to %d of %s.\n", c.Output, lines.First, lines.End-1, origin)
	return nil
}

func (c exportCommand) part(ctx context.Context, g globals, s *store.Store) (part bundle.Part, err error) {
	read := s.Read(ctx)
	if part.Key, err = keyOfOpenLog(read, g.State); err != nil {
		return part, err
	}
	if part.Log = read.Log(); c.Log != "" && !strings.HasPrefix(part.Key, c.Log+"+") {
		closed, err := read.ClosedLogs()
		if err != nil {
			return part, err
		}
		i := slices.IndexFunc(closed, func(l store.ClosedLog) bool { return l.Origin == c.Log })
		if i < 0 {
			return part, fmt.Errorf("--log: there is no log %q here; `finpay ledger key --all` names them", c.Log)
		}
		part.Log, part.Key = closed[i].N, closed[i].Key
	}
	read = read.InLog(part.Log)
	if part.From, err = place(read, c.From); err != nil {
		return part, fmt.Errorf("--from: %w", err)
	}
	if part.To, err = place(read, c.To); err != nil {
		return part, fmt.Errorf("--to: %w", err)
	}
	if c.To != "" && part.To == 0 {
		return part, errors.New("--to: there is no entry before it")
	}
	if part.Witnesses, err = witnessLines(g); err != nil {
		return part, err
	}
	keys, err := read.Keys()
	for _, row := range keys {
		part.Keys = append(part.Keys, keyResource(keyOf(row)))
	}
	return part, err
}

// witnessLines are those of the configured witness policy. A state directory without a configuration, a backup say, has none.
func witnessLines(g globals) (string, error) {
	cfg, err := g.load()
	if errors.Is(err, os.ErrNotExist) || err == nil && cfg.Ledger.Witnesses == "" {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	policy, err := witness.ReadPolicy(cfg.Ledger.Witnesses)
	return policy.Lines(), err
}

// place finds an entry by its index, or the first one that is not before a time; 0 for nothing said. Times are those of one
// clock, and rise but for its corrections.
func place(read store.Queries, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if index, err := strconv.ParseInt(text, 10, 64); err == nil && index >= 0 {
		return index, nil
	}
	at, err := time.Parse(time.DateOnly, text)
	if err != nil {
		if at, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return 0, fmt.Errorf("%q is neither an index, nor a day like 2026-01-31, nor a time like 2026-01-31T08:00:00Z", text)
		}
	}
	size, err := read.LedgerSize()
	if err != nil {
		return 0, err
	}
	found := sort.Search(int(size), func(i int) bool {
		entered, readErr := entryTime(read, int64(i))
		err = errors.Join(err, readErr)
		return !entered.Before(at)
	})
	return int64(found), err
}

func entryTime(read store.Queries, index int64) (time.Time, error) {
	entries, err := read.LedgerEntries(index, 1)
	if err != nil || len(entries) == 0 {
		return time.Time{}, errors.Join(err, fmt.Errorf("entry %d cannot be read", index))
	}
	var e ledger.Entry
	if err := json.Unmarshal(entries[0].Entry, &e); err != nil {
		return time.Time{}, fmt.Errorf("entry %d: %w", index, err)
	}
	return time.Parse(time.RFC3339Nano, e.Time)
}

// writeStream writes a file that is not there yet, whole or not at all.
func writeStream(path string, write func(io.Writer) error) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already", path)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	if err := errors.Join(write(file), file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Link(file.Name(), path); err != nil { // fails where rename would overwrite
		return err
	}
	return syncDirectory(filepath.Dir(path))
}
