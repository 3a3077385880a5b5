package softhsmtest_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/finterra/finpay/appliance/ledger"
)

// verdict is what `finpay verify --json` prints.
type verdict struct {
	OK, Consistent, Pinned, Witnessed bool
	Entries, Checkpoints              int64
	FirstBad                          *int64 `json:"first_bad"`
	Reason, Fingerprint               string
	KeyEntries                        int64 `json:"key_entries"`
	Kept                              int64
}

// finpayVerify runs finpay verify --json and returns what it prints, and its exit code.
func finpayVerify(t *testing.T, args ...string) (out []byte, code int) {
	t.Helper()
	cmd := exec.Command(finpay, append([]string{"verify", "--json"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code, err = exit.ExitCode(), nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return out, code
}

// verifies runs finpay verify and returns its verdict and exit code.
func verifies(t *testing.T, args ...string) (v verdict, code int) {
	t.Helper()
	out, code := finpayVerify(t, args...)
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatalf("finpay verify %v: %v: %q", args, err, out)
	}
	if v.OK != (code == 0) {
		t.Errorf("finpay verify %v exits with %d: %+v", args, code, v)
	}
	return v, code
}

// auditKey makes an API key that reads the log, while the appliance is stopped, and returns a file with it.
func (s *system) auditKey() string {
	s.t.Helper()
	key := regexp.MustCompile(`fp_test_\S+`).FindString(s.command("api-key", "create", "--scopes", "audit"))
	path := filepath.Join(s.t.TempDir(), "audit.key")
	if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// exported writes a bundle beside the running appliance.
func (s *system) exported(args ...string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "bundle.zip")
	s.command(append([]string{"ledger", "export", "-o", path}, args...)...)
	return path
}

func TestAnybodyCanCheckTheLogOffline(t *testing.T) {
	s := prepare(t)
	auditor := s.auditKey()
	s.up()
	vkey := strings.TrimSpace(s.command("ledger", "key"))
	early := s.exported()
	for range 3 {
		s.create()
	}
	bundle := s.exported()
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"a bundle":                         {[]string{bundle, "--key", vkey}, 0},
		"a bundle, key in a file":          {[]string{bundle, "--key", filepath.Join(s.cfg.State(), "ledger.vkey")}, 0},
		"a bundle, nobody's key":           {[]string{bundle}, 3},
		"the directory":                    {[]string{s.cfg.State(), "--key", vkey}, 0},
		"the directory, nobody's key":      {[]string{s.cfg.State()}, 3},
		"the appliance":                    {[]string{s.cfg.PublicURL, "--ca", s.cfg.TLS.Certificate, "--api-key-file", auditor, "--key", vkey}, 0},
		"the appliance, nobody's key":      {[]string{s.cfg.PublicURL, "--ca", s.cfg.TLS.Certificate, "--api-key-file", auditor}, 3},
		"the appliance, without API key":   {[]string{s.cfg.PublicURL, "--ca", s.cfg.TLS.Certificate, "--key", vkey}, 1},
		"the appliance, unknown CA":        {[]string{s.cfg.PublicURL, "--api-key-file", auditor, "--key", vkey}, 1},
		"an address without TLS":           {[]string{"http://localhost:1/", "--key", vkey}, 1},
		"a file that is none":              {[]string{auditor, "--key", vkey}, 1},
		"a file that is not there":         {[]string{filepath.Join(t.TempDir(), "none"), "--key", vkey}, 1},
		"another file for a checkpoint":    {[]string{bundle, "--key", vkey, "--checkpoint", auditor}, 1},
		"a witness who has seen nothing":   {[]string{bundle, "--key", vkey, "--witness", "example.com/w+c2a7aa41+AWn8yScPWLJ0UDQyzTAFAAAAAAAAAAAAAAAAAAAAAAAA"}, 1},
		"a directory without an appliance": {[]string{t.TempDir(), "--key", vkey}, 1},
	} {
		v, code := verifies(t, c.args...)
		if code != c.code || (v.Reason == "") != (code == 0) || v.Consistent != (code == 0 || code == 3) || code != 1 && (v.Entries < 10 || v.Checkpoints < 1 || len(v.Fingerprint) != 64) {
			t.Errorf("%s: exit %d, %+v", name, code, v)
		}
	}
	if v, _ := verifies(t, bundle, "--key", vkey); v.KeyEntries < 8 {
		t.Errorf("%d entries about keys", v.KeyEntries)
	}
	kept := filepath.Join(t.TempDir(), "checkpoint")
	if err := os.WriteFile(kept, fileOf(t, early, "checkpoint"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, source := range [][]string{{bundle}, {s.cfg.State()}, {s.cfg.PublicURL, "--ca", s.cfg.TLS.Certificate, "--api-key-file", auditor}} {
		if v, code := verifies(t, append(source, "--key", vkey, "--checkpoint", kept)...); code != 0 || v.Kept == 0 || v.Kept >= v.Entries {
			t.Errorf("%v: exit %d, %+v", source, code, v)
		}
	}
	s.proofs(kept, vkey)
	s.changed(bundle, vkey)
}

func TestAPartOfTheLogIsExportedByTimeOrIndex(t *testing.T) {
	s := prepare(t)
	vkey := strings.TrimSpace(s.command("ledger", "key"))
	for _, c := range []struct {
		args    []string
		entries bool
	}{
		{[]string{"--from", "2020-01-01", "--to", "2100-01-01T00:00:00Z"}, true},
		{[]string{"--from", "5", "--to", "6"}, true},
		{[]string{"--to", "2020-01-01"}, false},
		{[]string{"--from", "2100-01-01"}, false},
		{[]string{"--from", "100000"}, false},
		{[]string{"--to", "0"}, false},
		{[]string{"--from", "yesterday"}, false},
		{[]string{"--from", "-1"}, false},
	} {
		path := filepath.Join(t.TempDir(), "bundle.zip")
		out, err := exec.Command(finpay, append([]string{"ledger", "export", "-o", path, "--state", s.cfg.State()}, c.args...)...).CombinedOutput()
		if (err == nil) != c.entries {
			t.Errorf("%v: %v: %s", c.args, err, out)
		}
		left, readErr := os.ReadDir(filepath.Dir(path))
		if readErr != nil || len(left) != map[bool]int{true: 1, false: 0}[c.entries] {
			t.Errorf("%v leaves %v, %v", c.args, left, readErr)
		}
		if err != nil {
			continue
		}
		if v, code := verifies(t, path, "--key", vkey); code != 0 || v.Entries == 0 {
			t.Errorf("%v: exit %d, %+v", c.args, code, v)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v: %v, %v", c.args, info.Mode(), err)
		}
		if out, err := exec.Command(finpay, "ledger", "export", "-o", path, "--state", s.cfg.State()).CombinedOutput(); err == nil {
			t.Errorf("a file that was there is gone: %s", out)
		}
	}
}

// fileOf returns a file of a bundle.
func fileOf(t *testing.T, bundle, name string) []byte {
	t.Helper()
	archive, err := zip.OpenReader(bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = archive.Close() }()
	text, err := fs.ReadFile(archive, name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// proofs asks the appliance for the proofs that it gives.
func (s *system) proofs(kept, vkey string) {
	s.t.Helper()
	earlier, err := os.ReadFile(kept)
	if err != nil {
		s.t.Fatal(err)
	}
	size := strings.Split(string(earlier), "\n")[1]
	status, proof := s.call("GET", "/ledger/consistency?from="+size, "")
	if status != http.StatusOK {
		s.t.Fatalf("%d %s", status, proof)
	}
	if _, err := ledger.VerifyConsistency(earlier, proof, s.cfg.Ledger.Origin, vkey); err != nil {
		s.t.Errorf("%v: %s", err, proof)
	}
	for path, want := range map[string]int{
		"/v1/audit/entries/3": http.StatusForbidden, "/ledger/tile/entries/000.p/3": http.StatusForbidden,
		"/ledger/consistency?from=100000": http.StatusNotFound, "/ledger/consistency?from=1&to=99999": http.StatusNotFound, "/ledger/key": http.StatusOK,
		"/ledger/verify": http.StatusOK,
	} {
		if status, body := s.call("GET", path, ""); status != want {
			s.t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// changed holds that people are told which entry fails.
func (s *system) changed(bundle, vkey string) {
	s.t.Helper()
	text, err := os.ReadFile(bundle)
	if err != nil {
		s.t.Fatal(err)
	}
	at := bytes.Index(text, []byte(`"seq":7,`))
	text[at-4] ^= 1
	if err := os.WriteFile(bundle, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if v, code := verifies(s.t.(*testing.T), bundle, "--key", vkey); code != 1 || v.FirstBad == nil || *v.FirstBad != 7 {
		s.t.Errorf("exit %d, %+v", code, v)
	}
	out, err := exec.Command(finpay, "verify", bundle, "--key", vkey).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "DOES NOT VERIFY, from entry 7 on") {
		s.t.Errorf("%v: %s", err, out)
	}
}
