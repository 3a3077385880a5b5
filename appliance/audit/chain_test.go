package audit

import (
	"fmt"
	"strings"
	"testing"

	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/bundle"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// chained is a database whose log has followed another one, twice.
func chained(t *testing.T) (dir, vkey string) {
	t.Helper()
	private := newKey(t)
	dir, vkey = signedBy(t, private, 300, 50, "test")
	for i, name := range []string{origin, origin + "/r1"} {
		s, err := store.Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		l, err := ledger.Succeed(t.Context(), s, ledger.Config{Origin: name, Node: "node", Signer: private},
			ledger.Succession{Origin: fmt.Sprintf("%s/r%d", origin, i+1), Why: "a test", By: "uid:0"})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if _, err := l.Commit(t.Context(), func(tx *ledger.Tx) error {
				tx.Record(ledger.Entry{Type: "test", Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: "r"})
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		l.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir, vkey
}

func verifyAll(t *testing.T, dir string, terms Terms) Verdict {
	t.Helper()
	s, err := store.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	v, err := VerifyAll(t.Context(), s, "", terms)
	if err != nil {
		t.Fatal(err)
	}
	coherent(t, v)
	return v
}

func TestEveryLogOfADatabaseIsVerifiedUnderItsOwnName(t *testing.T) {
	dir, vkey := chained(t)
	for _, name := range []string{origin, origin + "/r1", origin + "/r2"} {
		v := verifyAll(t, dir, Terms{Key: logproof.KeyNamed(vkey, name)})
		if !v.OK || v.Origin != origin+"/r2" || v.Size != 6 || len(v.Closed) != 2 || !v.Closed[0].OK || v.Closed[0].Size != 300 || v.Closed[1].Size != 6 {
			t.Errorf("under the name %s: %+v", name, v)
		}
	}
	if v := verifyAll(t, dir, Terms{Key: logproof.KeyNamed(vkey, "another")}); v.OK || v.Consistent || !strings.Contains(v.Reason, `"another"`) {
		t.Errorf("under another log's name: %+v", v)
	}
	s, err := store.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	kept, err := s.Read(t.Context()).InLog(0).LedgerCheckpoints(99, 1)
	if err != nil {
		t.Fatal(err)
	}
	if v := verifyAll(t, dir, Terms{Key: vkey, Kept: kept[0].Note}); !v.OK || v.Closed[0].Kept != 100 {
		t.Errorf("with a checkpoint of the first log: %+v", v)
	}
	if v, err := VerifyAll(t.Context(), s, vkey, Terms{}); err != nil || v.OK || !v.Consistent || v.Pinned || len(v.Closed) != 2 {
		t.Errorf("without a pinned key: %+v, %v", v, err)
	}
	found, err := Check(t.Context(), s, t.TempDir())
	if err != nil || found.Wrong != 0 || found.Entries != 312 || found.Rows != 2 {
		t.Errorf("rows: %+v, %v", found, err)
	}
	for n := range int64(3) {
		name := origin + []string{"", "/r1", "/r2"}[n]
		key := logproof.KeyNamed(vkey, name)
		if v := verifyBundle(t, export(t, dir, bundle.Part{Log: n, Key: key}), Terms{Key: key}); !v.OK || v.Origin != name {
			t.Errorf("the bundle of %s: %+v", name, v)
		}
	}
}

func TestAChainOfLogsThatWasChangedIsFound(t *testing.T) {
	const missing = "the log in the middle is missing"
	for name, c := range map[string]struct{ statement, reason string }{
		"an entry of the first log":     {"UPDATE ledger_entries SET entry = replace(entry, 'system', 'nobody') WHERE idx = 17", "the closed log " + origin},
		"the first log cut back":        {"DELETE FROM ledger_entries WHERE idx >= 250 AND idx < 300", "the closed log " + origin},
		"its end said to be another":    {"UPDATE closed_logs SET size = 250 WHERE n = 0", "was closed with 250"},
		"its last checkpoint exchanged": {"UPDATE closed_logs SET note = (SELECT note FROM ledger_checkpoints WHERE size = 250) WHERE n = 0", "how " + origin + " ended"},
		"the link of the second log": {"UPDATE ledger_entries SET entry = replace(entry, 'a test', 'a tent') WHERE idx = 1 << 40",
			"the closed log " + origin + "/r1"},
		"the link of the open log":        {"UPDATE ledger_entries SET entry = replace(entry, 'a test', 'a tent') WHERE idx = 2 << 40", "does not match its leaf"},
		"the log in the middle, its name": {"UPDATE closed_logs SET origin = 'x' WHERE n = 1", "the closed log x"},
		missing:                           {"DELETE FROM closed_logs WHERE n = 1", "how " + origin + " ended"},
	} {
		dir, vkey := chained(t)
		if name == missing { // and the last one takes its place
			edit(t, dir, "DELETE FROM ledger_entries WHERE idx >= 1 << 40 AND idx < 2 << 40")
			edit(t, dir, "DELETE FROM ledger_checkpoints WHERE size >= 1 << 40 AND size < 2 << 40")
			edit(t, dir, "UPDATE ledger_entries SET idx = idx - (1 << 40) WHERE idx >= 2 << 40")
			edit(t, dir, "UPDATE ledger_checkpoints SET size = size - (1 << 40) WHERE size >= 2 << 40")
			edit(t, dir, c.statement)
			edit(t, dir, "UPDATE closed_logs SET successor = '"+origin+"/r2' WHERE n = 0")
		} else {
			edit(t, dir, c.statement)
		}
		if v := verifyAll(t, dir, Terms{Key: vkey}); v.OK || v.Consistent || !strings.Contains(v.Reason, c.reason) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestARowThatOnlyAClosedLogCoversIsHeldAgainstIt(t *testing.T) {
	dir, _ := chained(t)
	edit(t, dir, "UPDATE closed_logs SET closed_at = '2020-01-01T00:00:00.000000000Z' WHERE n = 0")
	s, err := store.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	found, err := Check(t.Context(), s, t.TempDir())
	if err != nil || found.Wrong != 1 || found.Findings[0].Row != "closed_logs/"+origin || found.Findings[0].Entry != 0 || found.Findings[0].Log != origin+"/r1" {
		t.Errorf("%+v, %v", found, err)
	}
}
