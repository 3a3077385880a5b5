package softhsmtest_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/store"
)

// backup makes one and returns its path.
func (s *system) backup() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "finpay.backup")
	s.command("backup", path)
	return path
}

// verifiesBackup runs finpay backup --verify and returns what it prints, and its exit code.
func verifiesBackup(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(finpay, append([]string{"backup", "--verify"}, args...)...)
	cmd.Dir = t.TempDir()
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

// restored puts a backup back and starts the server.
func (s *system) restored(args ...string) string {
	s.t.Helper()
	out := s.command(append([]string{"restore", "--why", "a test"}, args...)...)
	s.serve = s.start("serve")
	s.awaitReady()
	return out
}

// sound holds rows against logs, and logs against the key, while nothing serves.
func (s *system) sound(vkey string) {
	s.t.Helper()
	db, err := store.OpenReadOnly(s.cfg.State())
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if rows, err := audit.Check(s.t.Context(), db, s.t.TempDir()); err != nil || rows.Wrong != 0 {
		s.t.Errorf("%+v, %v", rows, err)
	}
	if v, err := audit.VerifyAll(s.t.Context(), db, "", audit.Terms{Key: vkey}); err != nil || !v.OK {
		s.t.Errorf("%+v, %v", v, err)
	}
}

// left are files of the state directory that commands should have taken away.
func (s *system) left() (names []string) {
	s.t.Helper()
	for _, pattern := range []string{".backup-*", ".restore-*", ".new-*"} {
		found, err := filepath.Glob(filepath.Join(s.cfg.State(), pattern))
		if err != nil {
			s.t.Fatal(err)
		}
		names = append(names, found...)
	}
	return names
}

func TestABackupIsMadeWhileTheApplianceServes(t *testing.T) {
	s := newSystem(t)
	vkey := strings.TrimSpace(s.command("ledger", "key"))
	_, link := s.buy()
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4111111111111111")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.cfg.State(), "finpay.backup")
	s.command("backup", path)
	s.create() // it goes on
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if out := s.refused("backup", path); !strings.Contains(out, "is there already") {
		t.Error(out)
	}
	if out, code := verifiesBackup(t, path, "--key", vkey); code != 0 || !strings.Contains(out, "VERIFIED") || !strings.Contains(out, "each as the log has signed it") {
		t.Errorf("exit %d: %s", code, out)
	}
	if out, code := verifiesBackup(t, path); code != 3 {
		t.Errorf("without a key: exit %d: %s", code, out)
	}
	if left := s.left(); left != nil {
		t.Errorf("left behind: %v", left)
	}
	noCardDataIn(t, s.cfg.State())
	s.serve.stop()
	again := s.backup() // while it is stopped
	if out, code := verifiesBackup(t, again, "--key", vkey); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	entries, err := s.readOnly().LedgerEntries(0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	made := slices.DeleteFunc(entries, func(e store.LedgerEntry) bool { return !strings.Contains(string(e.Entry), `"type":"backup.made"`) })
	if len(made) != 2 || !strings.Contains(string(made[0].Entry), `"origin":"uid:`) {
		t.Errorf("%d entries tell of backups", len(made))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{bytes.Index(text, []byte(`"sha256": "`)) + 15, bytes.Index(text, []byte(`"size": `)) + 8, len(text) / 2, len(text) - 5000} {
		changed := slices.Clone(text)
		changed[at] ^= 1
		bad := filepath.Join(t.TempDir(), "changed")
		if err := os.WriteFile(bad, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := verifiesBackup(t, bad, "--key", vkey); code != 1 {
			t.Errorf("byte %d changed: exit %d: %s", at, code, out)
		}
	}
}

func TestARestoredApplianceSaysWhatItDoesNotKnow(t *testing.T) {
	s := newSystem(t)
	vkey := strings.TrimSpace(s.command("ledger", "key"))
	done, link := s.buy()
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4111111111111111")); err != nil {
		t.Fatal(err)
	}
	id, link := s.buy()         // paid after the backup
	untouched, _ := s.buy()     // never paid; nobody here knows
	challenged, open := s.buy() // the issuer asks the shopper at the time of the backup
	if _, err := s.shop.Enter(t.Context(), open, typed("4539123456789017")); err != nil {
		t.Fatal(err)
	}
	declined, open := s.buy() // another card may be tried
	_, _, _ = s.shop.Pay(t.Context(), open, typed("4539515151515151"))
	path := s.backup()
	if _, _, err := s.shop.Pay(t.Context(), link, typed("5555555555554444")); err != nil {
		t.Fatal(err)
	}
	since := s.create()
	lateKey := regexp.MustCompile(`fp_test_\S+`).FindString(s.command("api-key", "create"))
	s.headIsKept()
	s.kill()
	before := s.takeDatabase()

	if out := s.refused("restore", path, "--why", "a test"); !strings.Contains(out, "--replace") {
		t.Error(out)
	}
	out := s.restored(path, "--replace")
	for _, want := range []string{"LOST: ", "4 payments may have been paid", "REVOKED", ".replaced-"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said:\n%s", want, out)
		}
	}
	for _, c := range []struct {
		id   string
		want api.Status
	}{{done, api.StatusCaptured}, {id, api.StatusIndeterminate}, {untouched, api.StatusIndeterminate},
		{challenged, api.StatusIndeterminate}, {declined, api.StatusIndeterminate}} {
		if got := s.payment(c.id); got.Status != c.want || got.CheckoutURL != "" {
			t.Errorf("payment %s is %s, want %s", c.id, got.Status, c.want)
		}
	}
	if status, _ := s.call("GET", "/v1/payments/"+since.ID, ""); status != http.StatusNotFound {
		t.Errorf("a payment that the backup does not know: %d", status)
	}
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4111111111111111")); err == nil {
		t.Error("it was paid a second time")
	}
	s.command("payment", "resolve", id, "captured", "--why", "the acquirer's list of today")
	for _, nothing := range []string{untouched, challenged, declined} {
		s.command("payment", "resolve", nothing, "failed", "--why", "the acquirer's list of today")
	}
	if out := s.refused("payment", "resolve", done, "failed", "--why", "x"); !strings.Contains(out, "does not follow") {
		t.Error(out)
	}
	s.agree()
	_, link = s.buy()
	if _, _, err := s.shop.Pay(t.Context(), link, typed("4111111111111111")); err != nil {
		t.Error(err)
	}
	s.agree()
	s.provenInBothLogs(id, vkey)
	s.apiKey, lateKey = lateKey, s.apiKey
	if status, _ := s.call("GET", "/v1/payments/"+done, ""); status != http.StatusUnauthorized {
		t.Errorf("an API key that the backup does not know: %d", status)
	}
	s.apiKey = lateKey
	s.headIsKept()
	s.bothLogs(vkey)
	s.serve.stop()
	s.sound(vkey)

	now := s.takeDatabase()
	s.putDatabase(before) // it has more of the old log than the HSM knew of, and is old all the same
	if out := s.refused("serve"); !strings.Contains(out, "since then") || !strings.Contains(out, "was opened") {
		t.Error(out)
	}
	s.putDatabase(now)
	s.serve = s.start("serve")
	s.awaitReady()
	s.serve.stop()

	// A backup from before the restore, once more: the log that it leaves out is named.
	s.restored(path, "--replace")
	s.serve.stop()
	s.sound(vkey)
	s.putDatabase(now)
	if out := s.refused("serve"); !strings.Contains(out, "was opened") {
		t.Error(out)
	}
}

// provenInBothLogs verifies a receipt whose entries are in two logs.
func (s *system) provenInBothLogs(id, vkey string) {
	s.t.Helper()
	status, body := s.call("GET", "/v1/payments/"+id+"/receipt", "")
	if status != http.StatusOK {
		s.t.Fatalf("%d %s", status, body)
	}
	receipt := decode[api.Receipt](s.t, body)
	logs := map[string]int{}
	for _, e := range receipt.Entries {
		key := receipt.VerifierKey
		if e.VerifierKey != "" {
			key = e.VerifierKey
		}
		name, _, _ := strings.Cut(key, "+")
		if err := logproof.Verify(e.Index, []byte(e.Entry), []byte(e.Proof), name, logproof.KeyNamed(vkey, name)); err != nil {
			s.t.Errorf("entry %d of %s: %v", e.Index, name, err)
		}
		logs[name]++
	}
	if len(logs) != 2 {
		s.t.Errorf("entries by log: %v", logs)
	}
}

// bothLogs verifies and exports the closed and the open log.
func (s *system) bothLogs(vkey string) {
	s.t.Helper()
	t := s.t.(*testing.T)
	keys := strings.Fields(s.command("ledger", "key", "--all"))
	if len(keys) != 2 || keys[0] != vkey || keys[1] == vkey {
		t.Fatalf("keys: %q", keys)
	}
	for _, key := range append(keys, filepath.Join(s.cfg.State(), "ledger.vkey")) {
		out, code := finpayVerify(t, s.cfg.State(), "--key", key)
		var v struct{ Closed []verdict }
		if err := json.Unmarshal(out, &v); err != nil || code != 0 || len(v.Closed) != 1 || !v.Closed[0].OK {
			t.Errorf("exit %d, %s, %v", code, out, err)
		}
	}
	if _, code := finpayVerify(t, s.cfg.State(), "--key", logproof.KeyNamed(vkey, "another.example/log")); code != 1 {
		t.Errorf("under the key of another log: exit %d", code)
	}
	for _, key := range keys {
		name, _, _ := strings.Cut(key, "+")
		if v, code := verifies(t, s.exported("--log", name), "--key", key); code != 0 {
			t.Errorf("the bundle of %s: exit %d, %+v", name, code, v)
		}
	}
	if v, code := verifies(t, s.exported(), "--key", keys[1]); code != 0 {
		t.Errorf("the bundle of the open log: exit %d, %+v", code, v)
	}
	edit(t, s.cfg.State(), "UPDATE closed_logs SET size = size - 1")
	if _, code := finpayVerify(t, s.cfg.State(), "--key", vkey); code != 1 {
		t.Errorf("the closed log is said to be shorter: exit %d", code)
	}
	edit(t, s.cfg.State(), "UPDATE closed_logs SET size = size + 1")
}

func TestABackupIsRestoredWhereThereIsNoDatabase(t *testing.T) {
	s := newSystem(t)
	vkey := strings.TrimSpace(s.command("ledger", "key"))
	path := s.backup()
	s.kill()
	s.putDatabase(nil)
	if out := s.restored(path); strings.Contains(out, ".replaced-") {
		t.Error(out)
	}
	s.create()
	s.serve.stop()
	s.sound(vkey)
}

func TestADamagedDatabaseIsReplacedAndKept(t *testing.T) {
	s := newSystem(t)
	vkey := strings.TrimSpace(s.command("ledger", "key"))
	path := s.backup()
	s.kill()
	damaged := s.takeDatabase()
	damaged[""] = []byte(strings.Repeat("not a database ", 1000))
	s.putDatabase(damaged)
	s.refused("serve")
	s.restored(path, "--replace")
	s.serve.stop()
	s.sound(vkey)
	kept, err := filepath.Glob(filepath.Join(s.cfg.State(), store.FileName+".replaced-*"))
	if err != nil || len(kept) == 0 {
		t.Fatalf("%v, %v", kept, err)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || string(text) != string(damaged[""]) {
		t.Errorf("%d bytes are kept of the damaged one: %v", len(text), err)
	}
}

func TestABackupOfAnotherApplianceIsNotRestored(t *testing.T) {
	path := prepare(t).backup()
	s := prepare(t)
	if out := s.refused("restore", path, "--why", "a test", "--replace"); !strings.Contains(out, "does not verify under the HSM's key") {
		t.Error(out)
	}
	s.up()
	s.serve.stop()
}

// Whenever a backup is killed, the appliance goes on, and the next backup is made.
func TestKilledAtAnyStepABackupHarmsNothing(t *testing.T) {
	s := prepare(t)
	vkey := strings.TrimSpace(s.command("ledger", "key"))
	for _, place := range []string{"before backup copy", "in backup copy", "after backup copy", "after backup.made", "before backup is named"} {
		path := filepath.Join(t.TempDir(), "finpay.backup")
		s.killedAt(place, "backup", path)
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: there is a backup (%v)", place, err)
		}
		s.sound(vkey)
		s.command("backup", path)
		if out, code := verifiesBackup(t, path, "--key", vkey); code != 0 {
			t.Errorf("%s: exit %d: %s", place, code, out)
		}
		if left := s.left(); left != nil {
			t.Errorf("%s: left behind: %v", place, left)
		}
	}
}

// killedAt runs a command that is killed at a place.
func (s *system) killedAt(place string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(finpay, append(args, "--state", s.cfg.State())...)
	cmd.Env = append(slices.Clone(s.env), "FINPAY_FAILPOINT="+place)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		s.t.Fatalf("%s: %v: %s", place, err, out)
	}
}

// Whenever a restore is killed, the state directory has the old database or the new one: it serves, or it is refused for what
// it was refused for before, and the restore can be done again.
func TestKilledAtAnyStepARestoreLeavesTheOldDatabaseOrTheNew(t *testing.T) {
	s := prepare(t)
	vkey := strings.TrimSpace(s.command("ledger", "key"))
	path := s.backup()
	s.command("api-key", "create")
	for _, c := range []struct {
		place string
		new   bool
	}{
		{"after restore is unpacked", false}, {"after log is opened", false}, {"after payments are marked", false},
		{"after database is kept aside", false}, {"before database is replaced", false}, {"after database is replaced", true},
		{"before restored head", true}, {"before head", true}, {"after head", true}, {"after restored head", true},
	} {
		logs := s.readOnly().Log()
		was := strings.TrimSpace(s.command("ledger", "key"))
		s.killedAt(c.place, "restore", path, "--why", "a test", "--replace")
		s.sound(vkey)
		s.command("key", "list") // the HSM does not refuse what is there
		now := strings.TrimSpace(s.command("ledger", "key"))
		if (now != was) != c.new || (c.new && s.readOnly().Log() != 1) || (!c.new && s.readOnly().Log() != logs) {
			t.Errorf("%s: the log was %s, and is %s", c.place, was, now)
		}
		s.command("restore", path, "--why", "once more", "--replace")
		s.sound(vkey)
		if left := s.left(); left != nil {
			t.Errorf("%s: left behind: %v", c.place, left)
		}
	}
	s.up()
	s.create()
	s.serve.stop()
	s.sound(vkey)
}
