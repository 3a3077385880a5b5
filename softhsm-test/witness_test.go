package softhsmtest_test

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	formatsnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/bundle"
	"github.com/finterra/finpay/appliance/store"
)

// signs is a witness that takes every log's word.
func signs(t *testing.T, up *atomic.Bool) (url, vkey string) {
	t.Helper()
	skey, plain, err := note.GenerateKey(rand.Reader, "witness.example")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := formatsnote.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	if vkey, err = formatsnote.VKeyToCosignatureV1(plain); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, text, _ := bytes.Cut(body, []byte("\n\n"))
		text, _, _ = bytes.Cut(text, []byte("\n\n"))
		signed, err := note.Sign(&note.Note{Text: string(text) + "\n"}, signer)
		if err != nil || !up.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, lines, _ := bytes.Cut(signed, []byte("\n\n"))
		_, _ = w.Write(lines)
	}))
	t.Cleanup(server.Close)
	return server.URL, vkey
}

func TestTheLogIsWitnessedWhileItServes(t *testing.T) {
	var up atomic.Bool
	url, vkey := signs(t, &up)
	s := configured(t, setting{`witnesses: ""`, "witnesses: policy"}, setting{"witness_period: 10s", "witness_period: 50ms"}, setting{"witness_patience: 5m", "witness_patience: 100ms"})
	if err := os.WriteFile(filepath.Join(s.cfg.State(), "policy"), []byte("witness w "+vkey+" "+url+"\nquorum w\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.setUp()
	s.up()
	s.until("the gap is entered", func() bool { return s.entriesOfType("witness.gap_opened") == 1 })
	if status, body := s.call("GET", "/ledger/checkpoint/cosigned", ""); status != http.StatusNotFound {
		t.Errorf("before the witness came: %d %s", status, body)
	}
	up.Store(true)
	s.until("the gap is closed", func() bool { return s.entriesOfType("witness.gap_closed") == 1 })
	id, link := s.buy()
	if _, _, err := s.shop.Pay(t.Context(), link, typed(visaCard)); err != nil {
		t.Fatal(err)
	}
	s.payment(id)
	size := func() int64 {
		db, err := store.OpenReadOnly(s.cfg.State())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		n, err := db.Read(t.Context()).LedgerSize()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	cosigned := func(args ...string) audit.Verdict {
		cmd := exec.Command(finpay, append([]string{"verify", "--json", "--key", filepath.Join(s.cfg.State(), "ledger.vkey"), "--witness", vkey}, args...)...)
		out, _ := cmd.Output()
		return decode[audit.Verdict](t, bytes.ReplaceAll(out, []byte(`"first_bad":null`), []byte(`"first_bad":-1`)))
	}
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(s.command("api-key", "create", "--scopes", "audit")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.until("the directory is witnessed", func() bool { v := cosigned(s.cfg.State()); return v.OK && v.Witnessed && v.Cosigned == size() })
	if v := cosigned(s.cfg.PublicURL, "--api-key-file", keyFile, "--ca", s.cfg.TLS.Certificate); !v.OK || !v.Witnessed || v.Cosigned < 10 {
		t.Errorf("by URL: %+v", v)
	}
	out := filepath.Join(t.TempDir(), "bundle.zip")
	s.command("ledger", "export", "-o", out)
	if v := cosigned(out); !v.OK || !v.Witnessed || v.Cosigned < 10 {
		t.Errorf("the bundle: %+v", v)
	}
	archive, err := zip.OpenReader(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = archive.Close() }()
	policy, err := fs.ReadFile(archive, bundle.PolicyName)
	if err != nil || !strings.Contains(string(policy), "witness w "+vkey) {
		t.Errorf("the bundle's policy: %s, %v", policy, err)
	}
	s.serve.stop()
	if out := s.command("ledger", "check"); !strings.Contains(out, "Rows and log agree") {
		t.Errorf("%s", out)
	}
	s.verifyLog()
}
