package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/payment"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

type settlementCommand struct {
	List listSettlementsCommand `cmd:"" help:"List the comparisons of books with acquirers, newest first."`
	Run  runSettlementCommand   `cmd:"" help:"Compare a connector's books now, beside a running appliance; exit 1 unless all agree."`
}

type listSettlementsCommand struct {
	Connector string `help:"Of this connector only." placeholder:"NAME"`
	Limit     int    `default:"20" help:"How many."`
	JSON      bool   `help:"Print JSON."`
}

// settlementRow is what is shown of a settlement; its JSON form is documented in docs/operations.md.
type settlementRow struct {
	ID        string       `json:"id"`
	Connector string       `json:"connector"`
	Terminal  string       `json:"terminal"`
	Currency  pci.Currency `json:"currency"`
	Status    string       `json:"status"`
	From      int64        `json:"entries_from"`
	Through   int64        `json:"entries_through"`
	Ours      totalsRow    `json:"ours"`
	Theirs    *totalsRow   `json:"theirs,omitempty"` // once the acquirer has answered
	At        time.Time    `json:"at"`
}

// totalsRow are counts, and sums in minor units.
type totalsRow struct {
	Debits      int64 `json:"debits"`
	DebitMinor  int64 `json:"debit_minor"`
	Credits     int64 `json:"credits"`
	CreditMinor int64 `json:"credit_minor"`
	Net         int64 `json:"net"`
}

// rowOf shows totals less their reversals: what an acquirer has booked and reversed again is none of ours.
func rowOf(t pci.Totals) totalsRow {
	return totalsRow{Debits: t.Debits.Count - t.DebitReversals.Count, DebitMinor: t.Debits.Minor - t.DebitReversals.Minor,
		Credits: t.Credits.Count - t.CreditReversals.Count, CreditMinor: t.Credits.Minor - t.CreditReversals.Minor, Net: t.Net()}
}

func settlementRows(list []store.Settlement) []settlementRow {
	rows := []settlementRow{}
	for _, p := range list {
		row := settlementRow{ID: p.ID, Connector: p.Connector, Terminal: p.Terminal, Currency: p.Currency, Status: p.Status, From: p.From, Through: p.Through,
			Ours: rowOf(p.Ours), At: p.UpdatedAt}
		if p.Status != store.SettlementPending {
			theirs := rowOf(p.Theirs)
			row.Theirs = &theirs
		}
		rows = append(rows, row)
	}
	return rows
}

// Run lists settlements.
func (c listSettlementsCommand) Run(ctx context.Context, g globals) error {
	rows, err := operate[[]settlementRow](ctx, g, "settlement list", listSettlements{c.Connector, c.Limit})
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(rows)
	}
	if len(rows) == 0 {
		fmt.Println("No books were compared yet.")
		return nil
	}
	return printSettlements(rows)
}

func printSettlements(rows []settlementRow) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "AT\tCONNECTOR\tTERMINAL\tSTATUS\tNET, OURS\tTHEIRS\tSALES\tREFUNDS\tSETTLEMENT")
	for _, r := range rows {
		theirs := "–"
		if r.Theirs != nil {
			theirs = pci.Amount{Minor: r.Theirs.Net, Currency: r.Currency}.Format("en")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", r.At.UTC().Format(time.DateTime), r.Connector, r.Terminal, r.Status,
			pci.Amount{Minor: r.Ours.Net, Currency: r.Currency}.Format("en"), theirs, r.Ours.Debits, r.Ours.Credits, r.ID)
	}
	return table.Flush()
}

type listSettlements struct {
	Connector string
	Limit     int
}

func (o *operations) listSettlements(ctx context.Context, _ ledger.Operator, q listSettlements) ([]settlementRow, error) {
	list, err := o.node.store.Read(ctx).Settlements(q.Connector, q.Limit)
	return settlementRows(list), err
}

type runSettlementCommand struct {
	Connector string `arg:"" help:"The connector's name, as in finpay.yaml."`
}

// settled is what became of the settlements of a connector.
type settled struct {
	Rows  []settlementRow
	Fault string // why some are still to be done; empty for none
}

// Run compares a connector's books.
func (c runSettlementCommand) Run(ctx context.Context, g globals) error {
	done, err := operate[settled](ctx, g, "settlement run", c.Connector)
	if err != nil {
		return err
	}
	if len(done.Rows) == 0 && done.Fault == "" {
		fmt.Println("Nothing was cleared since the books agreed last.")
		return nil
	}
	if len(done.Rows) > 0 {
		if err := printSettlements(done.Rows); err != nil {
			return err
		}
	}
	if done.Fault != "" {
		return errors.New(done.Fault)
	}
	for _, r := range done.Rows {
		if r.Status != store.SettlementBalanced {
			return errors.New("the books differ: the entry settlement.out_of_balance has both sides' totals")
		}
	}
	return nil
}

func (o *operations) runSettlement(ctx context.Context, _ ledger.Operator, connector string) (settled, error) {
	if o.serving == nil {
		return settled{}, errors.New("books are compared over the line to the acquirer: start the appliance first")
	}
	list, err := o.serving.settlement.Settle(ctx, connector)
	done := settled{Rows: settlementRows(list)}
	switch {
	case errors.Is(err, payment.ErrBusy):
		done.Fault = "the connector has payments under way, or such of unknown outcome; try again: " + err.Error()
	case err != nil && len(list) == 0:
		return done, err
	case err != nil:
		done.Fault = err.Error()
	}
	return done, nil
}
