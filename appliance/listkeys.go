package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

type listKeysCommand struct {
	JSON bool `help:"Print JSON."`
}

// keyLine is one key, as the books and the HSM tell of it.
type keyLine struct {
	Key        string     `json:"key"`
	State      string     `json:"state,omitempty"` // in the books
	Kind       string     `json:"kind"`
	Class      string     `json:"class"`
	CheckValue string     `json:"check_value"`
	Origin     string     `json:"origin,omitempty"`
	CreatedAt  string     `json:"created_at,omitempty"` // RFC 3339
	HSM        *hsm.Birth `json:"hsm,omitempty"`        // attributes read back; absent: not on the hsm token
	Problem    string     `json:"problem,omitempty"`
}

// inventory is the books against the HSM.
type inventory struct {
	Keys    []keyLine   `json:"keys"`
	Strays  []hsm.Stray `json:"strays"` // objects on the hsm token that are no key of the books
	Missing []string    `json:"missing_roles"`
	Behind  string      `json:"behind,omitempty"` // the database is not the newest, and why
}

// Run lists the keys.
func (c listKeysCommand) Run(ctx context.Context, g globals) error {
	list, err := operate[inventory](ctx, g, "key list", nothing{})
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(list)
	} else {
		list.print(os.Stdout)
	}
	if count := list.wrong(); err == nil && count > 0 {
		err = fmt.Errorf("books and HSM disagree in %d places", count)
	}
	return err
}

func (o *operations) listKeys(ctx context.Context, _ ledger.Operator, _ nothing) (inventory, error) {
	return o.node.inventory(ctx)
}

// inventory holds every row and every object against each other.
func (n *node) inventory(ctx context.Context) (inventory, error) {
	list := inventory{Keys: []keyLine{}, Strays: []hsm.Stray{}, Missing: []string{}}
	if n.behind != nil {
		list.Behind = n.behind.Error()
	}
	births, strays, err := n.engine.Keys(ctx, keySpecs)
	if err != nil {
		return list, err
	}
	for _, stray := range strays {
		if stray.Class != "data" || stray.Label != headLabel {
			list.Strays = append(list.Strays, stray)
		}
	}
	found := make(map[hsm.Key]hsm.Birth)
	for _, b := range births {
		found[b.Key] = b
		if n.keys.row(b.Key) < 0 {
			list.Strays = append(list.Strays, hsm.Stray{Class: "key", Label: b.Label, ID: fmt.Sprintf("%x", b.Key.ID()),
				Reason: "it is in no books; a ceremony that was interrupted goes on when its plan is run again"})
		}
	}
	problems, err := n.keyProblems(ctx)
	if err != nil {
		return list, err
	}
	for _, row := range n.keys {
		line := keyLine{Key: row.Name(), State: row.State, Kind: row.Kind, Class: row.Class, CheckValue: row.CheckValue, Origin: row.Origin,
			CreatedAt: row.CreatedAt.Format(time.RFC3339)}
		if b, ok := found[keyOf(row)]; ok {
			line.HSM = &b
		}
		list.Keys = append(list.Keys, line)
	}
	for _, err := range problems {
		if p, ok := errors.AsType[*keyProblem](err); ok {
			list.add(p)
		}
	}
	return list, nil
}

// add puts a problem beside its key, or among the roles that have none.
func (l *inventory) add(p *keyProblem) {
	for i := range l.Keys {
		if l.Keys[i].Key == p.key {
			l.Keys[i].Problem = p.reason
			return
		}
	}
	l.Missing = append(l.Missing, p.key)
}

func (l *inventory) wrong() int {
	count := len(l.Strays) + len(l.Missing)
	if l.Behind != "" {
		count++
	}
	for _, k := range l.Keys {
		if k.Problem != "" {
			count++
		}
	}
	return count
}

func (l *inventory) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tSTATE\tKIND\tCLASS\tCHECK VALUE\tORIGIN\tSINCE\tHSM")
	for _, k := range l.Keys {
		at := "there"
		switch {
		case k.Problem != "":
			at = "WRONG: it " + k.Problem
		case k.State == store.KeyDestroyed:
			at = "gone"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.Key, k.State, k.Kind, k.Class, k.CheckValue, k.Origin, k.CreatedAt, at)
	}
	_ = table.Flush()
	if l.Behind != "" {
		fmt.Fprintf(w, "BEHIND   %s\n", l.Behind)
	}
	for _, role := range l.Missing {
		fmt.Fprintf(w, "MISSING  %s has no active version\n", role)
	}
	for _, s := range l.Strays {
		fmt.Fprintf(w, "STRAY    %s %q (id %s): %s\n", s.Class, s.Label, s.ID, s.Reason)
	}
}
