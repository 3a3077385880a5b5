package main

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/finterra/finpay/api/logproof"
)

// recordCommand is for whoever was sent a ledger record: an acquirer, or who audits one.
type recordCommand struct {
	Record string      `arg:"" help:"The record in base64, as the data element has it."`
	Key    verifierKey `required:"" help:"The log's verifier key, or a file with it: the one that you wrote down." placeholder:"VKEY"`
}

// Run verifies a record and prints what its sender is held to.
func (c recordCommand) Run() error {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(c.Record))
	if err != nil {
		return fmt.Errorf("the record is not base64: %w", err)
	}
	record, err := logproof.ParseRecord(raw)
	if err != nil {
		return err
	}
	if err := record.Verify(string(c.Key)); err != nil {
		return err
	}
	name, _, _ := strings.Cut(string(c.Key), "+")
	fmt.Printf("The log %s signed, when it had %d entries, the root %s.\n", name, record.Size, base64.StdEncoding.EncodeToString(record.Root[:]))
	fmt.Printf("Its entry %d must have the leaf hash %s: ask for its proof, and verify that.\n", record.Index, base64.StdEncoding.EncodeToString(record.Leaf[:]))
	return nil
}
