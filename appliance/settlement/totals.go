package settlement

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// key names what is compared together.
type key struct {
	terminal string
	currency pci.Currency
}

// batch are the totals of a key since both sides agreed last.
type batch struct {
	key
	log, from, through int64
	totals             pci.Totals
}

// running are a connector's totals, as far as the log was read.
type running struct {
	log   int64
	read  int64 // entries
	byKey map[key]*batch
	last  map[key]int64 // the first entry after the last agreement
	terms map[string]string
}

// entriesAtOnce is how many entries of the log are in memory.
const entriesAtOnce = 1000

// advance reads what is new in the log.
func (s *Service) advance(ctx context.Context, name string) error {
	read := s.cfg.Store.Read(ctx)
	r := s.totals[name]
	if r == nil || r.log != read.Log() {
		begin, err := firstUnsettled(read, name)
		if err != nil {
			return err
		}
		r = &running{log: read.Log(), read: begin, byKey: make(map[key]*batch), last: make(map[key]int64), terms: make(map[string]string)}
		s.totals[name] = r
	}
	for {
		entries, err := read.LedgerEntries(r.read, entriesAtOnce)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := r.count(read, name, e); err != nil {
				return fmt.Errorf("settlement: entry %d: %w", e.Index, err)
			}
			r.read = e.Index + 1
		}
		if len(entries) < entriesAtOnce {
			return nil
		}
	}
}

// firstUnsettled is the first entry of the open log on whose money both sides may not have agreed. A terminal and currency without
// a settlement had none before the newest: all are announced at once.
func firstUnsettled(read store.Queries, connector string) (int64, error) {
	known, err := read.SettledKeys(connector)
	if err != nil || len(known) == 0 {
		return 0, err
	}
	first := int64(math.MaxInt64)
	for _, k := range known {
		last, err := read.LastBalanced(connector, k.Terminal, k.Currency)
		switch {
		case errors.Is(err, store.ErrNotFound) || err == nil && last.Log != read.Log():
			return 0, nil
		case err != nil:
			return 0, err
		}
		first = min(first, last.Through)
	}
	return first, nil
}

// movement is what is read of an entry that says that money moved.
type movement struct {
	Type string `json:"type"`
	Data struct {
		Connector    string       `json:"connector"`
		Merchant     string       `json:"merchant"`
		Currency     pci.Currency `json:"currency"`
		Captured     int64        `json:"captured"`
		RefundAmount int64        `json:"refund_amount"`
	} `json:"data"`
}

// count adds an entry to the totals.
func (r *running) count(read store.Queries, connector string, e store.LedgerEntry) error {
	if !bytes.Contains(e.Entry, []byte(`"type":"payment.`)) {
		return nil
	}
	var m movement
	if err := json.Unmarshal(e.Entry, &m); err != nil {
		return err
	}
	if m.Data.Connector != connector {
		return nil
	}
	var add func(*pci.Totals)
	switch m.Type {
	case "payment.captured", "payment.resolved_captured":
		add = func(t *pci.Totals) { tally(&t.Debits, m.Data.Captured) }
	case "payment.partially_refunded", "payment.refunded":
		add = func(t *pci.Totals) { tally(&t.Credits, m.Data.RefundAmount) }
	case "payment.authorized":
		add = func(t *pci.Totals) { t.Authorizations++ }
	default:
		return nil
	}
	terminal, err := r.terminalOf(read, m.Data.Merchant)
	if err != nil {
		return err
	}
	k := key{terminal, m.Data.Currency}
	if err := r.since(read, connector, k); err != nil {
		return err
	}
	if e.Index < r.last[k] {
		return nil // agreed on before
	}
	if r.byKey[k] == nil {
		r.byKey[k] = &batch{key: k, log: r.log, from: r.last[k]}
	}
	add(&r.byKey[k].totals)
	return nil
}

func tally(t *pci.Tally, minor int64) {
	t.Count++
	t.Minor += minor
}

// since finds where the totals of a key begin.
func (r *running) since(read store.Queries, connector string, k key) error {
	if _, known := r.last[k]; known {
		return nil
	}
	last, err := read.LastBalanced(connector, k.terminal, k.currency)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	r.last[k] = 0
	if err == nil && last.Log == r.log {
		r.last[k] = last.Through
	}
	return nil
}

func (r *running) terminalOf(read store.Queries, merchant string) (string, error) {
	if terminal, ok := r.terms[merchant]; ok {
		return terminal, nil
	}
	m, err := read.Merchant(merchant)
	if err != nil {
		return "", err
	}
	r.terms[merchant] = m.Profile.TerminalID
	return m.Profile.TerminalID, nil
}

// batches returns what is to be compared.
func (r *running) batches() (list []batch) {
	for _, b := range r.byKey {
		if b.totals == (pci.Totals{Authorizations: b.totals.Authorizations}) {
			continue // no money moved
		}
		b.through = r.read
		list = append(list, *b)
	}
	slices.SortFunc(list, func(a, b batch) int {
		return cmp.Or(cmp.Compare(a.terminal, b.terminal), cmp.Compare(a.currency, b.currency))
	})
	return list
}

// agreed begins the totals of a key anew, behind what both sides agreed on. Where that is not all that was read, it is read again.
func (r *running) agreed(p store.Settlement) {
	k := key{p.Terminal, p.Currency}
	r.last[k] = p.Through
	delete(r.byKey, k)
	if p.Through < r.read {
		clear(r.byKey)
		r.read = slices.Min(slices.Collect(maps.Values(r.last)))
	}
}
