package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

type checkCommand struct {
	JSON bool `name:"json" help:"One JSON object on standard output."`
}

// errRowsDiffer ends the command with exit code 1; what is wrong has been printed.
var errRowsDiffer = errors.New("the database is not as the log has signed it: keep the state directory as evidence, and find out who changed it")

// Run holds the rows against the log.
func (c checkCommand) Run(ctx context.Context, g globals) error {
	s, err := store.OpenReadOnly(g.State)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	found, err := audit.Check(ctx, s, g.State)
	if err != nil {
		return err
	}
	if c.JSON {
		err = json.NewEncoder(os.Stdout).Encode(found)
	} else {
		printRows(os.Stdout, found)
	}
	if err == nil && found.Wrong > 0 {
		err = errRowsDiffer
	}
	return err
}

func printRows(w io.Writer, found audit.Rows) {
	for _, f := range found.Findings {
		entry := "no entry"
		if f.Entry >= 0 {
			entry = fmt.Sprintf("entry %d", f.Entry)
		}
		fmt.Fprintf(w, "WRONG  %s (%s): %s\n", f.Row, entry, f.Reason)
	}
	if more := found.Wrong - len(found.Findings); more > 0 {
		fmt.Fprintf(w, "       and %d more\n", more)
	}
	if found.Wrong == 0 {
		fmt.Fprintf(w, "Rows and log agree: %d rows, %d entries.\n", found.Rows, found.Entries)
	}
}

// rowChecks holds the rows against the log from time to time while the appliance serves.
type rowChecks struct {
	cfg  config.Config
	node *node
	log  *slog.Logger

	wrong atomic.Int64 // by the last check; -1 where it could not be made
	ended atomic.Int64 // when the last check ended, Unix seconds
}

// run checks until ctx ends, first after one period: a start must not be slow.
func (c *rowChecks) run(ctx context.Context) {
	if c.cfg.Ledger.Check == 0 {
		return
	}
	tick := time.NewTicker(c.cfg.Ledger.Check)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := c.check(ctx); err != nil && ctx.Err() == nil {
				c.wrong.Store(-1)
				c.log.ErrorContext(ctx, "the rows could not be held against the log", "error", err)
			}
		}
	}
}

func (c *rowChecks) check(ctx context.Context) error {
	found, err := audit.Check(ctx, c.node.store, c.cfg.State())
	if err != nil {
		return err
	}
	c.wrong.Store(int64(found.Wrong))
	c.ended.Store(time.Now().Unix())
	outcome, first := ledger.Success, ""
	if found.Wrong > 0 {
		outcome = ledger.Failure
		if len(found.Findings) > 0 {
			first = found.Findings[0].Row
		}
		c.log.ErrorContext(ctx, "THE DATABASE IS NOT AS THE LOG HAS SIGNED IT: finpay ledger check says what differs", "rows", found.Wrong, "first", first)
	}
	_, err = c.node.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		data := map[string]any{"entries": found.Entries, "rows": found.Rows, "wrong": found.Wrong}
		if first != "" {
			data["first"] = first
		}
		tx.Record(ledger.Entry{Type: "ledger.checked", Actor: "system", Origin: "local", Outcome: outcome, Resource: "node:" + c.cfg.Node, Data: data})
		return nil
	})
	return err
}
