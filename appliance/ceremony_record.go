package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/finterra/finpay/appliance/ceremony"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
)

// finish enters the end: what the independent client said, and which entries the ceremony has left.
func (r *rite) finish(ctx context.Context, n *node, checks []clientCheck, certificates []string) error {
	failpoint.Here("before ceremony end")
	entries, err := r.entries(ctx, n)
	if err != nil {
		return err
	}
	left, err := n.keyProblems(ctx)
	if err != nil {
		return err
	}
	problems := make([]string, len(left))
	for i, problem := range left {
		problems[i] = problem.Error()
	}
	indexes := make([]int64, len(entries))
	for i, e := range entries {
		indexes[i] = e.Index
	}
	_, err = n.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		tx.Record(r.entry(ceremony.Finished, map[string]any{"checks": checks, "certificates": certificates, "problems": problems, "entries": indexes}))
		return nil
	})
	failpoint.Here("after ceremony end")
	return err
}

// entries are all that the ceremony has left in the log, with their proofs, in order.
func (r *rite) entries(ctx context.Context, n *node) ([]ledger.Proven, error) {
	all, err := n.ledger.EntriesOf(ctx, ceremony.Resource(r.plan.Digest()))
	if err != nil {
		return nil, err
	}
	named := make(map[string]bool)
	for _, e := range all {
		keys, err := stepKeys(e.Entry, "keys")
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			named["hsm:"+key] = true
		}
	}
	for resource := range named {
		about, err := n.ledger.EntriesOf(ctx, resource)
		if err != nil {
			return nil, err
		}
		for _, e := range about {
			var entry ledger.Entry
			if err := json.Unmarshal(e.Entry, &entry); err != nil {
				return nil, err
			}
			if entry.Data["ceremony"] == r.plan.Digest() {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b ledger.Proven) int { return int(a.Index - b.Index) })
	return all, nil
}

// stepKeys reads the names of keys from an entry about a step; of another entry there are none.
func stepKeys(entry []byte, field string) ([]string, error) {
	var step struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(entry, &step); err != nil || step.Data[field] == nil {
		return nil, err
	}
	var keys []string
	return keys, json.Unmarshal(step.Data[field], &keys)
}

// writeTranscript writes what is left of the ceremony, and verifies it as anybody would.
func (r *rite) writeTranscript(ctx context.Context, n *node) error {
	entries, err := r.entries(ctx, n)
	if err != nil {
		return err
	}
	t := ceremony.Transcript{Log: n.ledger.Origin(), Plan: string(r.plan.Text())}
	for _, e := range entries {
		t.Entries = append(t.Entries, ceremony.TranscriptEntry{Index: e.Index, Entry: string(e.Entry), Proof: string(e.Proof)})
	}
	if err := ceremony.WriteTranscript(r.transcript, t); err != nil {
		return err
	}
	account, err := ceremony.VerifyTranscriptFile(r.transcript, n.ledger.VerifierKey())
	if err != nil {
		return err
	}
	fmt.Fprintf(r.out, "\n\nThe ceremony is over. Its transcript, %s:\n\n", r.transcript)
	printLines(r.out, account)
	return nil
}

// writeMissingTranscript serves a plan that was carried out before its transcript was written.
func (r *rite) writeMissingTranscript(ctx context.Context, n *node) error {
	if _, err := os.Lstat(r.transcript); err == nil {
		return fmt.Errorf("this plan was carried out already, see %s: to do the same again, give a new plan another title", r.transcript)
	}
	fmt.Fprintln(r.out, "This plan was carried out already; nothing is done but writing its transcript.")
	return r.writeTranscript(ctx, n)
}
