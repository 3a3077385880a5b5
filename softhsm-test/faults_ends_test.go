package softhsmtest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/payment"
	"github.com/finterra/finpay/appliance/store"
)

// atRest waits until nothing is under way, and nothing of unknown outcome.
func (s *system) atRest() {
	s.t.Helper()
	s.patiently("everything is resolved", func() bool {
		for _, p := range s.payments() {
			if !isSettled(p) {
				return false
			}
		}
		db, err := store.OpenReadOnly(s.cfg.State())
		if err != nil {
			s.t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		open, err := db.Read(s.t.Context()).OpenModifications()
		if err != nil {
			s.t.Fatal(err)
		}
		return len(open) == 0
	})
}

// entries are those of a payment, in order.
type entry struct {
	Type string         `json:"type"`
	Data map[string]any `json:"data"`
}

func entriesOf(t testing.TB, read store.Queries, id string) (entries []entry) {
	t.Helper()
	rows, err := read.LedgerEntriesOf(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		var e entry
		if err := json.Unmarshal(row.Entry, &e); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	return entries
}

// traces are the entries that give a message to the acquirer its trace number, and where it stands.
var traces = map[string]string{
	"payment.authorizing": "stan", "payment.rerouted": "stan", "payment.indeterminate": "reversal_stan", "payment.capture_requested": "capture_stan",
	"payment.void_requested": "void_stan", "payment.refund_requested": "refund_stan", "payment.refund_indeterminate": "refund_reversal_stan",
}

// followsTheTable checks that the entries of each payment follow the state table, and that no trace number was given twice. The
// server has stopped: a payment whose time is over would move between two looks.
func (s *system) followsTheTable(all []api.Payment) {
	s.t.Helper()
	leads := make(map[string]string)
	for _, t := range payment.Transitions() {
		leads[string(t.From)+" "+t.Event] = string(t.To)
	}
	db, err := store.OpenReadOnly(s.cfg.State())
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	read, stans := db.Read(s.t.Context()), make(map[string]string)
	for _, p := range all {
		row, err := read.Payment(p.ID)
		if err != nil {
			s.t.Fatal(err)
		}
		status, charged := "", 0
		for _, e := range entriesOf(s.t, read, p.ID) {
			if strings.HasPrefix(e.Type, "webhook.") {
				continue
			}
			next, ok := leads[status+" "+e.Type]
			if !ok || e.Data["status"] != next {
				s.t.Errorf("payment %s: %s after %q is entered as %v", p.ID, e.Type, status, e.Data["status"])
			}
			if status == string(api.StatusAuthorizing) && (e.Type == "payment.captured" || e.Type == "payment.authorized") {
				charged++
			}
			status = next
			if field := traces[e.Type]; field != "" {
				stan := fmt.Sprint(e.Data[field])
				if other, taken := stans[stan]; taken || len(stan) != 6 {
					s.t.Errorf("payment %s: %s has the trace number %s, as %s has", p.ID, e.Type, stan, other)
				}
				stans[stan] = p.ID + " " + e.Type
			}
		}
		if status != row.Status || charged > 1 {
			s.t.Errorf("payment %s is %s and was charged %d times; its last entry says %s", p.ID, row.Status, charged, status)
		}
	}
	s.t.Logf("%d payments, %d trace numbers", len(all), len(stans))
}

// madeOnce checks that each request made one payment, however often it was sent.
func (s *system) madeOnce(all []api.Payment) {
	s.t.Helper()
	byAmount := make(map[int64]string)
	for _, p := range all {
		if other, taken := byAmount[p.Amount]; taken {
			s.t.Errorf("payments %s and %s are of one request", p.ID, other)
		}
		byAmount[p.Amount] = p.ID
	}
}

// told checks that each event came at least once, and that those of a payment are numbered without a gap.
func (s *system) told(h *hook) {
	s.t.Helper()
	events := s.events()
	last, count := make(map[string]int64), make(map[string]int64)
	for _, e := range events {
		last[e.Payment] = max(last[e.Payment], e.Sequence)
		count[e.Payment]++
	}
	for id, n := range last {
		if count[id] != n {
			s.t.Errorf("payment %s has %d events, and the last is number %d", id, count[id], n)
		}
	}
	s.patiently("each event has come", func() bool {
		for _, e := range events {
			if !h.hears(e.ID) {
				return false
			}
		}
		return true
	})
	s.t.Logf("%d events, %d tries", len(events), h.count())
}

// rowsAreCovered has the rows held against the entries that cover them.
func (s *system) rowsAreCovered() {
	s.t.Helper()
	told := s.command("ledger", "check", "--json")
	var found struct {
		Rows, Wrong int64
	}
	if err := json.Unmarshal([]byte(told), &found); err != nil || found.Wrong != 0 || found.Rows == 0 {
		s.t.Errorf("%v: %s", err, told)
	}
}
