package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/finterra/finpay/appliance/ledger"
)

// yearPeriod is how often the calendar is looked at.
const yearPeriod = time.Minute

// yearInName finds the year that a log's name ends in. What a restored log has behind it stays with its successors: the name
// without it may be that of a log in the history that was lost.
var yearInName = regexp.MustCompile(`^(.*/)(20[0-9]{2})(/r[0-9a-f-]+)?$`)

// logOfYear returns the name of a log that follows another one in a year, or nothing where the other is of that year or a later
// one, or has no year in its name.
func logOfYear(origin string, year int) string {
	parts := yearInName.FindStringSubmatch(origin)
	if parts == nil {
		return ""
	}
	if of, err := strconv.Atoi(parts[2]); err != nil || of >= year {
		return ""
	}
	return parts[1] + strconv.Itoa(year) + parts[3]
}

// turnYear closes the log of a year that is over and goes on in that of the new one, whose first entry has the old one's last
// checkpoint. Years are those of UTC, as entries' times are.
func (a *appliance) turnYear(now time.Time) error {
	n := a.node
	origin := logOfYear(n.ledger.Origin(), now.UTC().Year())
	if origin == "" {
		return n.mendLogKeys(a.cfg.State())
	}
	if err := n.ledger.Succeed(ledger.Succession{Origin: origin, Why: "the year is over"}); err != nil {
		return fmt.Errorf("close the year's log: %w", err)
	}
	a.log.Info("the year's log is closed", "log", origin)
	return n.writeLogKeys(a.cfg.State())
}

// mendLogKeys writes the keys where a process has died between the closing of a log and that.
func (n *node) mendLogKeys(state string) error {
	text, err := os.ReadFile(filepath.Join(state, verifierKeyFile))
	if err != nil {
		return err
	}
	closed, err := n.store.Read(context.Background()).ClosedLogs()
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(string(text), "+")
	for _, l := range closed {
		if l.Origin == name {
			return n.writeLogKeys(state)
		}
	}
	return nil
}

// runYears turns the year when it is time, until ctx ends.
func (a *appliance) runYears(ctx context.Context) {
	tick := time.NewTicker(yearPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if err := a.turnYear(now); err != nil {
				a.log.ErrorContext(ctx, "the year's log could not be closed; it goes on", "error", err)
			}
		}
	}
}

// writeLogKeys writes the log's public keys, under its present name, into the files beside the database.
func (n *node) writeLogKeys(state string) error {
	for name, key := range map[string]string{verifierKeyFile: n.ledger.VerifierKey(), witnessKeyFile: n.ledger.WitnessKey()} {
		if key == "" {
			continue
		}
		if err := replaceFile(filepath.Join(state, name), []byte(key+"\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}
