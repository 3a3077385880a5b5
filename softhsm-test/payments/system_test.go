//go:build bench

package payments_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/config"
	firmwareconfig "github.com/finterra/finpay/firmware-config"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

// system is a built program that serves, its counterparties, and the shop that is paid through it.
type system struct {
	cfg       config.Config
	program   string
	key       string // of the shop, scope payments
	roots     *x509.CertPool
	intake    api.IntakeKey
	shop      *shop
	serve     *process
	simulator *process

	made int // payments
}

// limits are those that one client on one address would meet long before the machine's.
var limits = strings.NewReplacer("key_rate: 200", "key_rate: 1000000", "key_burst: 400", "key_burst: 1000000",
	"address_rate: 20", "address_rate: 1000000", "address_burst: 60", "address_burst: 1000000")

// build builds the program.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "finpay")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/finterra/finpay/appliance").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// start sets up a state directory with the documented configuration, but for the limits of one client, and serves.
func start(t *testing.T, program string) *system {
	t.Helper()
	state := t.TempDir()
	text, err := config.OnFreePorts(bytes.ReplaceAll(firmwareconfig.Default, []byte(`module: ""`), []byte("module: "+softhsmtest.Module(t))))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, config.FileName), []byte(limits.Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &system{program: program}
	if s.cfg, err = config.Load("", state); err != nil {
		t.Fatal(err)
	}
	s.key = keyIn(t, s.command(t, "init"))
	s.command(t, "api-key", "create", "--for-simulator")
	admin := keyIn(t, s.command(t, "api-key", "create", "--scopes", "admin"))
	s.trust(t)
	s.simulator = s.process(t, "simulator")
	s.serve = s.process(t, "serve")
	s.awaitReady(t)
	s.intake = ask[api.IntakeKey](t, s, s.key, http.MethodGet, "/v1/intake/key", "")
	s.open(t, admin)
	return s
}

// open opens the shop, which takes the place of the simulated one: it is told of payments in this process.
func (s *system) open(t *testing.T, admin string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.cfg.State(), "simulator", "shop.json"))
	if err != nil {
		t.Fatal(err)
	}
	var secrets struct {
		Return string `json:"return_secret"`
	}
	if err := json.Unmarshal(text, &secrets); err != nil {
		t.Fatal(err)
	}
	for _, e := range ask[api.EndpointList](t, s, s.key, http.MethodGet, "/v1/webhook-endpoints", "").Endpoints {
		ask[struct{}](t, s, admin, http.MethodDelete, "/v1/webhook-endpoints/"+e.ID, "")
	}
	var address string
	s.shop, address = openShop(t, filepath.Join(s.cfg.State(), "simulator"), secrets.Return)
	endpoint := ask[api.Endpoint](t, s, admin, http.MethodPost, "/v1/webhook-endpoints", `{"url":"`+address+`"}`)
	s.shop.trustWebhooks(t, endpoint.Secret)
}

func keyIn(t *testing.T, printed string) string {
	t.Helper()
	found := regexp.MustCompile(`fp_test_\S+`).FindString(printed)
	if found == "" {
		t.Fatalf("no API key in\n%s", printed)
	}
	return found
}

func (s *system) command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), s.program, append(args, "--state", s.cfg.State())...).CombinedOutput()
	if err != nil {
		t.Fatalf("finpay %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *system) trust(t *testing.T) {
	t.Helper()
	s.roots = x509.NewCertPool()
	text, err := os.ReadFile(s.cfg.TLS.Certificate)
	if err != nil || !s.roots.AppendCertsFromPEM(text) {
		t.Fatalf("%s: %v", s.cfg.TLS.Certificate, err)
	}
}

func (s *system) awaitReady(t *testing.T) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(s.monitored("/readyz"), `"connectors":"ok"`) {
		select {
		case <-tick.C:
		case <-s.serve.done:
			t.Fatal("serve has ended")
		case <-deadline:
			t.Fatal("serve does not become ready")
		}
	}
}

// monitored asks the loopback listener for health and metrics; empty while there is none.
func (s *system) monitored(path string) string {
	response, err := http.Get("http://" + s.cfg.Monitor + path)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	text, _ := io.ReadAll(response.Body)
	return string(text)
}

// ask sends one request to the API outside of the measurement.
func ask[T any](t *testing.T, s *system, key, method, path, body string) (answer T) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.cfg.PublicURL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS13}, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %d %s %v", method, path, response.StatusCode, text, err)
	}
	if response.StatusCode != http.StatusNoContent {
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Fatal(err)
		}
	}
	return answer
}

// process is a running finpay.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (s *system) process(t *testing.T, name string) *process {
	t.Helper()
	path := filepath.Join(s.cfg.State(), name+".log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	p := &process{cmd: exec.Command(s.program, name, "--state", s.cfg.State()), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			text, _ := os.ReadFile(path)
			t.Logf("%s, its last lines:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
	return p
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(40 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// captured is how many sales the acquirer has booked as approved.
func (s *system) captured(t *testing.T) (n int) {
	t.Helper()
	pool := x509.NewCertPool()
	text, err := os.ReadFile(filepath.Join(s.cfg.State(), "simulator", "ca.pem"))
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(s.cfg.Simulator.Web, ":")
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, DisableKeepAlives: true}}
	response, err := client.Get("https://localhost:" + port + "/acquirer/books")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var books struct {
		Bookings []struct{ State string }
	}
	if err := json.NewDecoder(response.Body).Decode(&books); err != nil {
		t.Fatal(fmt.Errorf("books: %w", err))
	}
	for _, b := range books.Bookings {
		if b.State == "approved" {
			n++
		}
	}
	return n
}
