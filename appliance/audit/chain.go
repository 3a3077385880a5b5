package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// VerifyAll checks every log of a database: each under its own name, and that the first entry of each says how the one before
// it ended. The verdict is that of the open log, with those of the closed ones beside it; it is OK only if all are. own is the
// verifier key that lies beside the database, for where none is pinned. A key is pinned for all, whichever of the logs it
// names: it is one key. A checkpoint that was kept is of the log that it names; witnesses are asked for the open log only.
func VerifyAll(ctx context.Context, s *store.Store, own string, terms Terms) (Verdict, error) {
	closed, err := s.Read(ctx).ClosedLogs()
	if err != nil {
		return Verdict{FirstBad: -1, Reason: err.Error()}, err
	}
	if len(closed) == 0 {
		return Verify(ctx, Database{Store: s, Key: own}, terms)
	}
	c := chain{store: s, own: own, terms: terms, closed: closed}
	for _, l := range closed {
		c.names = append(c.names, l.Origin)
	}
	c.names = append(c.names, closed[len(closed)-1].Successor)
	return c.verify(ctx)
}

// chain is logs of which each follows the one before.
type chain struct {
	store  *store.Store
	own    string
	terms  Terms
	closed []store.ClosedLog
	names  []string // of all, the open one last
}

func (c *chain) verify(ctx context.Context) (Verdict, error) {
	for what, name := range map[string]string{"the verifier key": nameIn(c.terms.Key, "+"), "the checkpoint that was kept": nameIn(string(c.terms.Kept), "\n")} {
		if name != "" && !slices.Contains(c.names, name) {
			return Verdict{FirstBad: -1, Reason: fmt.Sprintf("%s is of the log %q, and here are %s", what, name, strings.Join(c.names, ", "))}, nil
		}
	}
	var before []Verdict
	for n, name := range c.names {
		v, err := Verify(ctx, Database{Store: c.store, Key: logproof.KeyNamed(c.own, name), Log: int64(n)}, c.termsFor(n))
		if err == nil && v.Consistent && n > 0 {
			err = c.follows(ctx, int64(n), before[n-1], &v)
		}
		last := n == len(c.closed)
		if err == nil && v.Consistent && !last && v.Size != c.closed[n].Size {
			v.OK, v.Consistent, v.Reason = false, false, fmt.Sprintf("it has %d entries, and was closed with %d", v.Size, c.closed[n].Size)
		}
		if err != nil || !v.Consistent || last {
			if v.Closed = before; !last && v.Reason != "" {
				v.Reason = fmt.Sprintf("the closed log %s: %s", name, v.Reason)
			}
			return v, err
		}
		before = append(before, v)
	}
	panic("unreachable: the open log is the last one")
}

// nameIn returns what stands before a separator; nothing, where there is no text.
func nameIn(text, separator string) string {
	name, _, _ := strings.Cut(text, separator)
	return name
}

// termsFor are the auditor's, for one of the logs.
func (c *chain) termsFor(n int) Terms {
	var terms Terms
	if c.terms.Key != "" {
		terms.Key = logproof.KeyNamed(c.terms.Key, c.names[n])
	}
	if nameIn(string(c.terms.Kept), "\n") == c.names[n] {
		terms.Kept = c.terms.Kept
	}
	if n == len(c.closed) {
		terms.Witnesses = c.terms.Witnesses
	}
	return terms
}

// follows checks that the first entry of log n names the end of the one before it, as it was found.
func (c *chain) follows(ctx context.Context, n int64, before Verdict, v *Verdict) error {
	first, err := c.store.Read(ctx).InLog(n).LedgerEntries(0, 1)
	if err != nil {
		return err
	}
	var entry struct {
		Type string `json:"type"`
		Data struct {
			Previous ledger.Link `json:"previous"`
		} `json:"data"`
	}
	want := ledger.Link{Origin: before.Origin, Size: before.Size, Root: before.Root, Checkpoint: string(c.closed[n-1].Note)}
	if len(first) == 1 {
		err = json.Unmarshal(first[0].Entry, &entry)
	}
	if err != nil || entry.Type != ledger.Opened || entry.Data.Previous != want {
		v.OK, v.Consistent, v.FirstBad = false, false, 0
		v.Reason = fmt.Sprintf("its first entry does not say how %s ended: with %d entries and the root %s", before.Origin, before.Size, before.Root)
	}
	return nil
}
