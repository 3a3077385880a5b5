package softhsmtest_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/finterra/finpay/appliance/config"
)

// report is doctor's JSON, as a program of the operator reads it.
type report struct {
	Provider string `json:"provider"`
	Roles    []struct {
		Role, Mechanism, Detail string
		OK                      bool
	} `json:"roles"`
	FF1         struct{ Passed, Failed, Skipped int } `json:"ff1"`
	RoundTripUS float64                               `json:"round_trip_us"`
	Batch       int                                   `json:"recommended_batch"`
	Process     []struct {
		Name, By, Detail string
		OK, Required     bool
	} `json:"process"`
	Connectors []struct {
		Name, Type, Health string
		Open, Sandbox      bool
	} `json:"connectors"`
	Failures []string `json:"failures"`
}

func (s *system) doctor(args ...string) (report, string, int) {
	s.t.Helper()
	cmd := exec.Command(finpay, append([]string{"doctor", "--json", "--state", s.cfg.State()}, args...)...)
	cmd.Env = s.env
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	code := 0
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		code = failed.ExitCode()
	} else if err != nil {
		s.t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		s.t.Fatalf("doctor --json: %v\n%s%s", err, out, &problems)
	}
	return r, problems.String(), code
}

func TestDoctorFindsAGoodHSMGood(t *testing.T) {
	s := prepare(t)
	r, problems, code := s.doctor("--ff1-vectors", filepath.Join("..", "appliance", "testdata", "nist-ff1-samples.json"))
	if code != 0 || problems != "" || len(r.Failures) != 0 {
		t.Errorf("exit %d, %q, %s", code, r.Failures, problems)
	}
	if r.Provider != "softhsm" || r.FF1.Passed != 6 || r.FF1.Failed != 0 || r.FF1.Skipped != 3 || r.RoundTripUS <= 0 || r.Batch < 1 {
		t.Errorf("%+v", r)
	}
	if len(r.Roles) < 11 {
		t.Errorf("%d roles", len(r.Roles))
	}
	for _, role := range r.Roles {
		if !role.OK || role.Mechanism == "" || role.Detail == "" {
			t.Errorf("%+v", role)
		}
	}
	for _, safeguard := range r.Process {
		if (safeguard.Required || safeguard.Name == "heap" || safeguard.Name == "registers") && !safeguard.OK || safeguard.By == "" || safeguard.Detail == "" {
			t.Errorf("%+v", safeguard)
		}
	}
	if len(r.Connectors) != 1 || r.Connectors[0].Name != "acquirer" || r.Connectors[0].Type != "iso8583" || r.Connectors[0].Health != "not asked" {
		t.Errorf("connectors: %+v", r.Connectors)
	}
	if len(r.Process) != 6 {
		t.Errorf("%d safeguards", len(r.Process))
	}
	text := s.command("doctor")
	for _, want := range []string{"CKM_ECDH1_DERIVE", "PR_GET_DUMPABLE 0", "freed blocks are overwritten", "Round trip", "This HSM can serve the appliance"} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	if out := s.command("init"); !strings.Contains(out, "nothing was changed") {
		t.Errorf("doctor left something behind: %s", out)
	}
}

// lacking changes the profile of a state directory to one of an HSM that has no session objects and no Ed25519.
func (s *system) lacking() {
	s.t.Helper()
	_, text, err := config.Provider("softhsm", s.cfg.State())
	if err != nil {
		s.t.Fatal(err)
	}
	profile := strings.NewReplacer("data_objects: private", "data_objects: none", "ed25519: name", "ed25519: none").Replace(string(text))
	if err := os.WriteFile(filepath.Join(s.cfg.State(), "ours.yaml"), []byte(profile), 0o600); err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(s.cfg.State(), config.FileName)
	settings, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	changed := strings.Replace(string(settings), "provider: softhsm ", "provider: ours.yaml ", 1)
	changed = strings.Replace(changed, `kind: ""`, "kind: objects", 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func TestAnHSMThatLacksARequiredRoleIsRefusedByDoctorAndServe(t *testing.T) {
	s := prepare(t)
	s.lacking()
	r, problems, code := s.doctor()
	if code != 1 || len(r.Failures) != 1 || !strings.Contains(r.Failures[0], "custody") || !strings.Contains(problems, "data_objects") {
		t.Errorf("exit %d, %q, %s", code, r.Failures, problems)
	}
	cmd := exec.Command(finpay, "serve", "--state", s.cfg.State())
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "role custody needs CKO_DATA") || !strings.Contains(string(out), "ledger-ed25519") {
		t.Errorf("serve without custody: %v\n%s", err, out)
	}
}

func TestDoctorSaysThatThePINWasRefused(t *testing.T) {
	s := prepare(t)
	if err := os.WriteFile(s.cfg.HSM.PINFile, []byte("000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, problems, code := s.doctor()
	if code != 1 || len(r.Failures) != 1 || !strings.Contains(problems, "PIN was refused") {
		t.Errorf("exit %d, %q, %s", code, r.Failures, problems)
	}
	if strings.Contains(problems, "000000") {
		t.Error("the PIN is shown")
	}
}
