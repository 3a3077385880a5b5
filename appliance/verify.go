package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/store"
)

type verifyCommand struct {
	Source     string       `arg:"" help:"A bundle of finpay ledger export, a state directory, or the https URL of an appliance."`
	Key        verifierKey  `help:"The log's verifier key, or a file with it: the one that you wrote down, not one that came with the log." placeholder:"VKEY"`
	Witness    []string     `help:"Verifier key of a witness who must have cosigned; may be repeated." placeholder:"VKEY" sep:"none"`
	Checkpoint string       `help:"A checkpoint that you kept from an earlier time: what it covers must be unchanged." type:"existingfile" placeholder:"FILE"`
	APIKeyFile string       `name:"api-key-file" help:"For a URL: file with an API key of the scope audit." type:"existingfile" placeholder:"FILE"`
	CA         string       `help:"For a URL: authority of its certificate, in PEM. Without it, the system's." type:"existingfile" placeholder:"FILE"`
	JSON       bool         `name:"json" help:"One JSON object on standard output."`
	output     io.Writer    // nil: standard output
	client     *http.Client // nil: one of its own
}

// verifierKey is a key, or the name of a file with one.
type verifierKey string

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *verifierKey) UnmarshalText(text []byte) error {
	content, err := os.ReadFile(string(text))
	if err != nil {
		content = text
	}
	*k = verifierKey(strings.TrimSpace(string(content)))
	if strings.Count(string(*k), "+") < 2 {
		return fmt.Errorf("%q is neither a verifier key (NAME+HASH+KEY) nor a file with one", text)
	}
	return nil
}

// errNotPinned and errNotVerified end the command with a code of their own; the verdict has said why.
var (
	errNotPinned   = errors.New("consistent, but the signer is not pinned: give --key")
	errNotVerified = errors.New("the log does not verify")
)

// requestTimeout bounds each request for a part of the log.
const requestTimeout = time.Minute

// Run verifies a log and prints the verdict.
func (c verifyCommand) Run(ctx context.Context) error {
	if c.output == nil {
		c.output = os.Stdout
	}
	verdict, err := c.verify(ctx)
	if err != nil {
		verdict.OK, verdict.Reason = false, err.Error()
	}
	if c.JSON {
		if err := json.NewEncoder(c.output).Encode(verdict); err != nil {
			return err
		}
	} else if err == nil {
		printVerdict(c.output, verdict, len(c.Witness))
	}
	switch {
	case err != nil:
		return err
	case verdict.OK:
		return nil
	case verdict.Consistent:
		return errNotPinned
	default:
		return errNotVerified
	}
}

func (c verifyCommand) verify(ctx context.Context) (audit.Verdict, error) {
	none := audit.Verdict{FirstBad: -1}
	terms := audit.Terms{Key: string(c.Key), Witnesses: c.Witness}
	if c.Checkpoint != "" {
		kept, err := os.ReadFile(c.Checkpoint)
		if err != nil {
			return none, err
		}
		terms.Kept = kept
	}
	if strings.Contains(c.Source, "://") {
		service, err := c.service()
		if err != nil {
			return none, err
		}
		return audit.Verify(ctx, service, terms)
	}
	found, err := os.Stat(c.Source)
	if err != nil {
		return none, err
	}
	if found.IsDir() {
		return verifyDirectory(ctx, c.Source, terms)
	}
	file, err := os.Open(c.Source)
	if err != nil {
		return none, err
	}
	defer func() { _ = file.Close() }()
	return audit.Verify(ctx, audit.Bundle{Reader: file}, terms)
}

func verifyDirectory(ctx context.Context, state string, terms audit.Terms) (audit.Verdict, error) {
	s, err := store.OpenReadOnly(state)
	if err != nil {
		return audit.Verdict{FirstBad: -1}, err
	}
	defer func() { _ = s.Close() }()
	own := ""
	if terms.Key == "" {
		if own, err = readVerifierKey(state); err != nil {
			return audit.Verdict{FirstBad: -1}, err
		}
	}
	return audit.VerifyAll(ctx, s, own, terms)
}

func (c verifyCommand) service() (audit.Service, error) {
	s := audit.Service{URL: c.Source, Client: c.client}
	if !strings.HasPrefix(c.Source, "https://") {
		return s, fmt.Errorf("%s: an API key goes over https only", c.Source)
	}
	if c.APIKeyFile != "" {
		text, err := os.ReadFile(c.APIKeyFile)
		if err != nil {
			return s, err
		}
		s.Key = strings.TrimSpace(string(text))
	}
	if s.Client != nil {
		return s, nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.CA != "" {
		roots, err := pool(x509.NewCertPool(), c.CA)
		if err != nil {
			return s, err
		}
		settings.RootCAs = roots
	}
	s.Client = &http.Client{Timeout: requestTimeout, Transport: &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}}
	return s, nil
}

// printVerdict says it in words.
func printVerdict(w io.Writer, v audit.Verdict, witnesses int) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range v.Closed {
		fmt.Fprintf(table, "closed log\t%s, entries %d to %d\n", c.Origin, c.First, c.Size-1)
	}
	fmt.Fprintf(table, "log\t%s\n", v.Origin)
	if v.Entries == 0 {
		fmt.Fprintf(table, "entries\tnone was read\n")
	} else {
		fmt.Fprintf(table, "entries\t%d to %d\n", v.First, v.Size-1)
	}
	fmt.Fprintf(table, "checkpoints\t%d signed, each of a log that begins with the one before\n", v.Checkpoints)
	if v.KeyEntries > 0 {
		fmt.Fprintf(table, "keys\t%d entries about keys of the HSM, each proven\n", v.KeyEntries)
	}
	pinned := "NOT PINNED: it came with the log"
	if v.Pinned {
		pinned = "pinned by you"
	}
	fmt.Fprintf(table, "signer\t%s\n\tSHA-256 %s\n", pinned, v.Fingerprint)
	fmt.Fprintf(table, "rewriting\t%s\n", strings.Join(rewriting(v, witnesses), "\n\t"))
	_ = table.Flush()
	switch {
	case v.OK:
		fmt.Fprintf(w, "\nVERIFIED: every entry is the one that was signed, and none is missing.\n")
	case v.Consistent:
		fmt.Fprintf(w, "\nCONSISTENT, SIGNER NOT PINNED: compare the SHA-256 with the one that you were given, or give the key with --key.\n")
	case v.FirstBad >= 0:
		fmt.Fprintf(w, "\nDOES NOT VERIFY, from entry %d on: %s.\n", v.FirstBad, v.Reason)
	default:
		fmt.Fprintf(w, "\nDOES NOT VERIFY: %s.\n", v.Reason)
	}
}

// rewriting says what excludes that the owner of the key has signed another log.
func rewriting(v audit.Verdict, witnesses int) []string {
	var lines []string
	if v.Kept > 0 {
		lines = append(lines, fmt.Sprintf("excluded before entry %d, by the checkpoint that you kept", v.Kept))
	}
	if v.Cosigned > 0 {
		lines = append(lines, fmt.Sprintf("excluded before entry %d, by the cosignatures of %d witnesses", v.Cosigned, witnesses))
	}
	if lines == nil {
		lines = append(lines, "NOT EXCLUDED: neither a witness nor a checkpoint of your own was given")
	}
	return lines
}
