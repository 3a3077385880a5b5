package softhsmtest_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/store"
)

// coveredTables are those whose rows entries cover.
var coveredTables = []string{"merchants", "api_keys", "recipients", "payments", "attempts", "webhook_endpoints", "events", "keys", "token_states", "domain_acks",
	"token_retirements", "token_imports", "token_changes", "auditor_grants", "settlements"}

// busy is a state directory in which every table has rows, after everything has stopped.
func busy(t *testing.T) *vault {
	v := newVault(t)
	for _, card := range []string{"4111111111111111", "4539515151515151", "4539686868686864"} {
		id, link := v.buy()
		if _, _, err := v.shop.Pay(t.Context(), link, typed(card)); err != nil {
			t.Fatal(err)
		}
		v.settled(id)
	}
	var numbers []string
	for n := range 30 {
		numbers = append(numbers, luhnNumber("411111", n))
	}
	old := v.issue(t, numbers...)
	v.issue(t, "5555555555554444")
	if _, err := v.client.Deactivate(t.Context(), old[numbers[3]]); err != nil {
		t.Fatal(err)
	}
	v.command("key", "rotate", "tokenize")
	v.command("key", "retire", "tokenize", "1", "--window", "0s")
	v.until("all tokens are replaced", func() bool { return v.status().Left == 0 })
	_, newest := v.replacedBy(t)
	if _, err := v.client.AcknowledgeChanges(t.Context(), newest); err != nil {
		t.Fatal(err)
	}
	v.until("the key is destroyed", func() bool { return !v.status().EndedAt.IsZero() })
	v.command("import", "open", v.apiKey, "--bound", "100", "--reason", "a test")
	v.command("auditor", "link", "--name", "Ada Lovelace")
	v.issue(t, "378282246310005") // one that is not of a batch
	v.command("settlement", "run", "acquirer")
	v.serve.stop()
	return v
}

// checked is what a check finds in a copy of the database in which a statement has changed something.
func checked(t *testing.T, database []byte, statement string, args ...any) (audit.Rows, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, store.FileName), database, 0o600); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, "PRAGMA ignore_check_constraints = ON; "+statement, args...)
	db, err := store.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	return audit.Check(t.Context(), db, dir)
}

// edit changes a database behind its owner's back.
func edit(t *testing.T, dir, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestWhateverIsChangedInARowIsFound(t *testing.T) {
	v := busy(t)
	edit(t, v.cfg.State(), "PRAGMA wal_checkpoint(TRUNCATE)")
	database, err := os.ReadFile(filepath.Join(v.cfg.State(), store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if found, err := checked(t, database, "SELECT 1"); err != nil || found.Wrong != 0 || found.Rows < 40 || found.Entries < 30 {
		t.Fatalf("before anything was changed: %+v, %v", found, err)
	}
	for _, table := range coveredTables {
		for column, was := range columns(t, v.cfg.State(), table) {
			found, err := checked(t, database, fmt.Sprintf("UPDATE %s SET %s = ? WHERE %s IS ?", table, column, column), altered(was), was)
			if err == nil && (found.Wrong == 0 || len(found.Findings) == 0) {
				t.Errorf("%s.%s was %v: %+v", table, column, was, found)
			}
		}
		if found, err := checked(t, database, "DELETE FROM "+table); err != nil || found.Wrong == 0 {
			t.Errorf("%s was emptied: %+v, %v", table, found, err)
		}
	}
	for what, statement := range map[string]string{
		"a token's state is back":  "UPDATE token_states SET status = 'active', replaced_by = '' WHERE token = (SELECT old FROM token_changes LIMIT 1)",
		"a token's state is gone":  "DELETE FROM token_states WHERE token = (SELECT old FROM token_changes LIMIT 1)",
		"a token was replaced":     "UPDATE token_states SET status = 'replaced', replaced_by = '9' WHERE status = 'active' OR status = 'inactive'",
		"a replacement was put in": "INSERT INTO token_changes SELECT 1 + max(seq), 1 + max(seq), domain, 'x', new, expiry, at FROM token_changes",
		"a row was put in":         "INSERT INTO merchants SELECT 'mer_x', domain, profile, limits, return_hosts, webhook_hosts, created_at FROM merchants LIMIT 1",
		"a registry's page":        "UPDATE token_tail SET records = CAST(substr(records, 1, length(records) - 1) || x'7f' AS BLOB)",
		"the registry is empty":    "DELETE FROM token_tail",
	} {
		if found, err := checked(t, database, statement); err == nil && found.Wrong == 0 {
			t.Errorf("%s: %+v", what, found)
		}
	}
}

// A row that is changed while the appliance serves is found by the schedule, and told in three places.
func TestAChangedRowRaisesTheAlarm(t *testing.T) {
	s := newSystem(t, setting{"check: 24h", "check: 1s"})
	id := s.create().ID
	s.until("a check has found nothing", func() bool {
		return s.entriesOfType("ledger.checked") > 0 && s.metric("finpay_ledger_rows_wrong") == 0
	})
	if s.metric("finpay_ledger_checked_seconds") == 0 {
		t.Error("nobody is told when it was")
	}
	edit(t, s.cfg.State(), "UPDATE payments SET amount = 1 WHERE id = ?", id)
	s.until("the alarm", func() bool { return s.metric("finpay_ledger_rows_wrong") == 1 })
	text, err := os.ReadFile(filepath.Join(s.cfg.State(), "serve.log"))
	if err != nil || !bytes.Contains(text, []byte("first=payments/"+id)) {
		t.Errorf("the log does not say so: %v", err)
	}
	cmd := exec.Command(finpay, "ledger", "check", "--json", "--state", s.cfg.State())
	out, _ := cmd.Output()
	found := decode[audit.Rows](t, out)
	if cmd.ProcessState.ExitCode() != 1 || found.Wrong != 1 || found.Findings[0].Row != "payments/"+id || found.Findings[0].Entry < 1 {
		t.Errorf("%d: %s", cmd.ProcessState.ExitCode(), out)
	}
}

// altered is a value that differs in one bit.
func altered(v any) any {
	flip := func(b []byte) []byte {
		changed := slices.Clone(b)
		if len(changed) == 0 {
			return []byte("x")
		}
		changed[len(changed)-1] ^= 1
		return changed
	}
	switch v := v.(type) {
	case int64:
		return v ^ 1
	case []byte:
		return flip(v)
	case string:
		return string(flip([]byte(v)))
	}
	return "x"
}

// columns returns a table's columns, each with a value that it has.
func columns(t *testing.T, dir, table string) map[string]any {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+table+" LIMIT 1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	names, err := rows.Columns()
	if err != nil || !rows.Next() {
		t.Fatalf("%s has no row: %v", table, err)
	}
	values, into := make([]any, len(names)), make([]any, len(names))
	for i := range into {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]any)
	for i, name := range names {
		all[name] = values[i]
	}
	return all
}
