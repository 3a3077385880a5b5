package softhsmtest_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/softhsm-test/fault"
)

// database is the files of a database.
type database map[string][]byte

// takeDatabase copies the database's files as somebody does who knows nothing of SQLite, after the server was killed.
func (s *system) takeDatabase() database {
	s.t.Helper()
	files := make(database)
	for _, suffix := range []string{"", "-wal"} {
		text, err := os.ReadFile(filepath.Join(s.cfg.State(), store.FileName+suffix))
		if err == nil {
			files[suffix] = text
		} else if !os.IsNotExist(err) {
			s.t.Fatal(err)
		}
	}
	return files
}

// putDatabase puts a copy back.
func (s *system) putDatabase(files database) {
	s.t.Helper()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		path := filepath.Join(s.cfg.State(), store.FileName+suffix)
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			s.t.Fatal(err)
		}
		if text, ok := files[suffix]; ok {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// kill ends the server as a power cut would.
func (s *system) kill() {
	_ = s.serve.cmd.Process.Kill()
	<-s.serve.done
	s.client.CloseIdleConnections()
}

// refused runs a command that must fail, and returns what it says.
func (s *system) refused(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(finpay, append(args, "--state", s.cfg.State())...)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	if err == nil {
		s.t.Errorf("finpay %s was done:\n%s", strings.Join(args, " "), out)
	}
	return string(out)
}

// headIsKept waits until the head that is kept is of all that has been entered so far.
func (s *system) headIsKept() {
	s.t.Helper()
	entries := s.metric("finpay_ledger_entries")
	s.until("the head is kept", func() bool { return s.metric("finpay_ledger_head_entries") >= entries })
}

func (s *system) metric(name string) float64 {
	s.t.Helper()
	response, err := http.Get("http://" + s.cfg.Monitor + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return value
		}
	}
	s.t.Fatalf("there is no metric %s", name)
	return 0
}

func TestAnOldCopyOfTheDatabaseIsNoticedAndRefused(t *testing.T) {
	s := newSystem(t)
	s.create()
	s.kill()
	old := s.takeDatabase()
	s.serve = s.start("serve")
	s.awaitReady()
	s.create()
	s.headIsKept()
	s.kill()
	newest := s.takeDatabase()

	s.putDatabase(old)
	for _, args := range [][]string{{"serve"}, {"init"}, {"api-key", "create"}, {"import", "list"}, {"ledger", "accept-head"}} {
		if out := s.refused(args...); !strings.Contains(out, "the database is not the newest") || !strings.Contains(out, "finpay restore") {
			t.Errorf("%v: %s", args, out)
		}
	}
	if out := s.refused("key", "list"); !strings.Contains(out, "tokenize v1") || !strings.Contains(out, "BEHIND") {
		t.Errorf("key list: %s", out)
	}
	s.command("doctor")

	s.putDatabase(newest) // none of this has harmed the right one
	s.serve = s.start("serve")
	s.awaitReady()
	s.create()
	s.serve.stop()
	s.verifyLog()
}

func TestADatabaseThatIsGoneIsNotBegunAnew(t *testing.T) {
	s := prepare(t)
	s.putDatabase(nil)
	if out := s.refused("serve"); !strings.Contains(out, "the database is not the newest") {
		t.Error(out)
	}
}

// The head is ahead of what it was when the power failed: nobody is told to restore anything.
func TestACrashBeforeTheHeadIsKeptIsNoFault(t *testing.T) {
	for _, place := range []string{"before head", "after head"} {
		s := prepare(t)
		s.trust()
		s.start("simulator")
		s.serve = s.start("serve", "FINPAY_FAILPOINT="+place)
		<-s.serve.done
		s.serve = s.start("serve")
		s.awaitReady()
		s.create()
		s.serve.stop()
	}
}

// destroyHead is what somebody with the PIN can do.
func (s *system) destroyHead() (found int) {
	s.t.Helper()
	s.t.Setenv("SOFTHSM2_CONF", s.cfg.HSM.Environment["SOFTHSM2_CONF"])
	pin, err := os.ReadFile(s.cfg.HSM.PINFile)
	if err != nil {
		s.t.Fatal(err)
	}
	module := pkcs11.New(s.cfg.HSM.Module)
	if err := module.Initialize(); err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = module.Finalize() }()
	slots, err := module.GetSlotList(true)
	if err != nil {
		s.t.Fatal(err)
	}
	session, err := module.OpenSession(slots[0], pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := module.Login(session, pkcs11.CKU_USER, strings.TrimSpace(string(pin))); err != nil {
		s.t.Fatal(err)
	}
	if err := module.FindObjectsInit(session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA)}); err != nil {
		s.t.Fatal(err)
	}
	handles, _, err := module.FindObjects(session, 10)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := module.FindObjectsFinal(session); err != nil {
		s.t.Fatal(err)
	}
	for _, handle := range handles {
		if err := module.DestroyObject(session, handle); err != nil {
			s.t.Fatal(err)
		}
	}
	return len(handles)
}

func TestAHeadThatSomebodyHasDestroyedIsMissed(t *testing.T) {
	s := prepare(t)
	if n := s.destroyHead(); n != 1 {
		t.Fatalf("%d data objects were on the hsm token", n)
	}
	if out := s.refused("serve"); !strings.Contains(out, "accept-head") {
		t.Error(out)
	}
	if out := s.command("ledger", "accept-head"); !strings.Contains(out, "Accepted") {
		t.Error(out)
	}
	if out := s.command("ledger", "accept-head"); !strings.Contains(out, "nothing was changed") {
		t.Error(out)
	}
	s.up()
	s.serve.stop()
	s.verifyLog()
	read := s.readOnly()
	entries, err := read.LedgerEntriesOf("head")
	if err != nil || len(entries) != 3 || !strings.Contains(string(entries[1].Entry), `"head.accepted"`) {
		t.Errorf("%d entries tell of it: %v", len(entries), err)
	}
}

func (s *system) readOnly() store.Queries {
	s.t.Helper()
	db, err := store.OpenReadOnly(s.cfg.State())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = db.Close() })
	return db.Read(s.t.Context())
}

// An HSM without data objects: a file notices a database that was put back, and only that.
func TestWithoutDataObjectsAFileKeepsTheHead(t *testing.T) {
	s := prepare(t, onNSS(t)...)
	if _, err := os.Stat(filepath.Join(s.cfg.State(), "ledger.head")); err != nil {
		t.Fatal(err)
	}
	old := s.takeDatabase()
	s.command("api-key", "create")
	s.putDatabase(old)
	if out := s.refused("api-key", "create"); !strings.Contains(out, "the database is not the newest") {
		t.Error(out)
	}
	r, _, _ := s.doctor()
	for _, role := range r.Roles {
		if role.Role == string(hsm.RoleHead) && (role.OK || role.Detail == "") {
			t.Errorf("%+v", role)
		}
	}
}

// That the head cannot be kept is told, and is nobody's delay.
func TestAnHSMThatDoesNotKeepTheHeadDelaysNobody(t *testing.T) {
	module, device := faultModule(t)
	s := newSystem(t, module)
	s.headIsKept()
	told := func(text string) int {
		log, err := os.ReadFile(filepath.Join(s.cfg.State(), "serve.log"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(log), text)
	}
	// SoftHSM2 itself fails to keep an object now and then, which is told too.
	before, again := told("the log's head cannot be kept"), told("the log's head is kept again")
	failures := s.metric("finpay_ledger_head_failures_total")
	const never = 1 << 30
	device.Inject(fault.CreateObject, 1, never, fault.Returns(pkcs11.CKR_DEVICE_MEMORY))
	s.until("it has failed twice", func() bool {
		if s.create().Status != api.StatusCreated {
			t.Error("a payment was not created")
		}
		return s.metric("finpay_ledger_head_failures_total") >= failures+2
	})
	device.Heal()
	s.headIsKept()
	if n := told("the log's head cannot be kept") - before; n != 1 {
		t.Errorf("%d warnings", n)
	}
	if told("the log's head is kept again") == again {
		t.Error("that it is kept again is not told")
	}
}
