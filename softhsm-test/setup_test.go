package softhsmtest_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// A log continues under its own keys or not at all: new ones would make tokens and signatures of nobody.
func TestInitDoesNotReplaceAnHSMTokenThatIsGone(t *testing.T) {
	s := prepare(t)
	tokens := filepath.Join(s.cfg.State(), "hsm", "tokens")
	if err := os.Rename(tokens, tokens+".away"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(finpay, "init", "--state", s.cfg.State()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "put it back") {
		t.Errorf("init without the hsm token: %v\n%s", err, out)
	}
	if made, _ := os.ReadDir(tokens); len(made) > 0 {
		t.Errorf("init made another hsm token: %v", made)
	}
	_ = os.Remove(tokens)
	if err := os.Rename(tokens+".away", tokens); err != nil {
		t.Fatal(err)
	}
	if out := s.command("init"); !strings.Contains(out, "nothing was changed") {
		t.Errorf("init with the hsm token back: %s", out)
	}
}

func TestRunSaysWhichAddressIsTaken(t *testing.T) {
	for _, setting := range []string{"listen", "monitor", "simulator.web"} {
		s := prepare(t)
		address := map[string]string{"listen": s.cfg.Listen, "monitor": s.cfg.Monitor, "simulator.web": s.cfg.Simulator.Web}[setting]
		other, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(finpay, "run", "--state", s.cfg.State()).CombinedOutput()
		_ = other.Close()
		if err == nil || !strings.Contains(string(out), setting+": ") || !strings.Contains(string(out), address) {
			t.Errorf("%s is taken: %v\n%s", setting, err, out)
		}
	}
}

func TestAWitnessCanCheckThePublishedCheckpoint(t *testing.T) {
	s := newSystem(t)
	vkey, err := os.ReadFile(filepath.Join(s.cfg.State(), "ledger-ed25519.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.client.Get(s.cfg.PublicURL + "/ledger/checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(text.Bytes(), note.VerifierList(verifier)); err != nil {
		t.Errorf("%v\n%s", err, text.Bytes())
	}
}
