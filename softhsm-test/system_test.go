package softhsmtest_test

import (
	"bytes"
	"context"
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
	"github.com/finterra/finpay/appliance/simulator"
	firmwareconfig "github.com/finterra/finpay/firmware-config"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

// finpay is the built program, with failpoints.
var finpay string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "finpay-test-")
	if err != nil {
		panic(err)
	}
	finpay = filepath.Join(dir, "finpay")
	build := exec.Command("go", "build", "-tags", "failpoints", "-o", finpay, "github.com/finterra/finpay/appliance")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	code := 1
	if err := build.Run(); err == nil {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// system is an appliance and its counterparties, as real processes over real sockets.
type system struct {
	t      testing.TB
	cfg    config.Config
	env    []string
	apiKey string // printed by init, as the merchant's developer would copy it
	serve  *process
	client *http.Client
	shop   *simulator.Shopper
}

// setting is a change to the documented configuration.
type setting struct{ old, new string }

// impatient makes a silent acquirer cost a second.
var impatient = setting{"answer_timeout: 15s", "answer_timeout: 1s"}

// newSystem sets up a fresh state directory and starts both processes.
func newSystem(t testing.TB, settings ...setting) *system {
	t.Helper()
	s := prepare(t, settings...)
	s.start("simulator")
	s.serve = s.start("serve")
	s.awaitReady()
	return s
}

// prepare does what comes before the first start.
func prepare(t testing.TB, settings ...setting) *system {
	t.Helper()
	s := configured(t, settings...)
	s.setUp()
	return s
}

// configured is a state directory with nothing but its configuration.
func configured(t testing.TB, settings ...setting) *system {
	t.Helper()
	state := t.TempDir()
	documented := bytes.ReplaceAll(firmwareconfig.Default, []byte(`module: ""`), []byte("module: "+softhsmtest.Module(t)))
	text, err := config.OnFreePorts(documented)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range append(settings, impatient) {
		if !bytes.Contains(text, []byte(change.old)) {
			t.Fatalf("%q is not in the configuration", change.old)
		}
		text = bytes.Replace(text, []byte(change.old), []byte(strings.ReplaceAll(change.new, "STATE", state)), 1)
	}
	if err := os.WriteFile(filepath.Join(state, config.FileName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, env: os.Environ()}
	if s.cfg, err = config.Load("", state); err != nil {
		t.Fatal(err)
	}
	return s
}

// setUp makes keys, first merchant and the shop's credentials.
func (s *system) setUp() {
	s.t.Helper()
	made := s.command("init")
	found := regexp.MustCompile(`fp_test_\S+`).FindString(made)
	if found == "" {
		s.t.Fatalf("init shows no API key:\n%s", made)
	}
	s.apiKey = found
	s.command("api-key", "create", "--for-simulator")
	s.trust()
}

// trust takes the certificates that are there now.
func (s *system) trust() {
	s.t.Helper()
	s.client = s.newClient()
	s.shop = &simulator.Shopper{Client: s.client}
}

// up starts both processes.
func (s *system) up() (simulator *process) {
	s.t.Helper()
	s.trust()
	simulator = s.start("simulator")
	s.serve = s.start("serve")
	s.awaitReady()
	return simulator
}

// command runs finpay to its end and returns what it printed.
func (s *system) command(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(finpay, append(args, "--state", s.cfg.State())...)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("finpay %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// process is a running finpay.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs finpay until the test ends. Its log goes into the state directory, where scans look for card data.
func (s *system) start(name string, env ...string) *process {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.cfg.State(), name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	p := &process{cmd: exec.Command(finpay, name, "--state", s.cfg.State()), done: make(chan struct{})}
	p.cmd.Env = append(append([]string{}, s.env...), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	s.t.Cleanup(func() {
		p.stop()
		if s.t.Failed() {
			text, _ := os.ReadFile(filepath.Join(s.cfg.State(), name+".log"))
			s.t.Logf("%s:\n%s", name, text)
		}
	})
	return p
}

// stop ends a process gracefully.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(40 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// until polls a condition for as long as a person would wait.
func (s *system) until(what string, holds func() bool) {
	s.t.Helper()
	s.within(20*time.Second, what, holds)
}

// patiently is until, for what is tried again after minutes.
func (s *system) patiently(what string, holds func() bool) {
	s.t.Helper()
	s.within(3*time.Minute, what, holds)
}

func (s *system) within(limit time.Duration, what string, holds func() bool) {
	s.t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-s.serve.done:
			if holds() {
				return
			}
			s.t.Fatalf("serve ended before %s", what)
		case <-deadline:
			s.t.Fatalf("never: %s", what)
		}
	}
}

func (s *system) awaitReady() {
	s.t.Helper()
	s.until("ready", func() bool {
		response, err := http.Get("http://" + s.cfg.Monitor + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = response.Body.Close() }()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode == http.StatusOK && bytes.Contains(body, []byte(`"connectors":"ok"`))
	})
}

func (s *system) newClient() *http.Client {
	s.t.Helper()
	roots := x509.NewCertPool()
	for _, path := range []string{s.cfg.TLS.Certificate, filepath.Join(s.cfg.State(), "simulator", "ca.pem")} {
		text, err := os.ReadFile(path)
		if err != nil || !roots.AppendCertsFromPEM(text) {
			s.t.Fatalf("%s: %v", path, err)
		}
	}
	return &http.Client{
		Timeout:       40 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (s *system) shopURL() string {
	_, port, _ := strings.Cut(s.cfg.Simulator.Web, ":")
	return "https://localhost:" + port
}

// call sends a request to the API and returns status and body.
func (s *system) call(method, path, body string, header ...string) (int, []byte) {
	s.t.Helper()
	status, answer, err := s.try(s.client, method, path, body, header...)
	if err != nil {
		s.t.Fatal(err)
	}
	return status, answer
}

func (s *system) try(client *http.Client, method, path, body string, header ...string) (int, []byte, error) {
	return s.tryWithin(s.t.Context(), client, method, path, body, header...)
}

// do is a request of one who gives up when ctx ends.
func (s *system) do(ctx context.Context, method, path, body string, header ...string) (int, []byte, error) {
	return s.tryWithin(ctx, s.client, method, path, body, header...)
}

func (s *system) tryWithin(ctx context.Context, client *http.Client, method, path, body string, header ...string) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.cfg.PublicURL+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+s.apiKey)
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// create makes a payment as a merchant's developer would.
func (s *system) create() api.Payment {
	s.t.Helper()
	status, body := s.call("POST", "/v1/payments", `{"amount":1250,"currency":"EUR","reference":"order-1","return_url":"https://localhost/thanks"}`)
	if status != http.StatusCreated {
		s.t.Fatalf("create: %d %s", status, body)
	}
	return decode[api.Payment](s.t, body)
}

func (s *system) payment(id string) api.Payment {
	s.t.Helper()
	status, body := s.call("GET", "/v1/payments/"+id, "")
	if status != http.StatusOK {
		s.t.Fatalf("payment %s: %d %s", id, status, body)
	}
	return decode[api.Payment](s.t, body)
}

func decode[T any](t testing.TB, body []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}

// buy begins a payment at the shop and returns its id and link.
func (s *system) buy() (id, link string) {
	s.t.Helper()
	link, err := s.shop.Buy(s.t.Context(), s.shopURL())
	if err != nil {
		s.t.Fatal(err)
	}
	status, body := s.call("GET", "/v1/payments?limit=1", "")
	if status != http.StatusOK {
		s.t.Fatalf("list: %d %s", status, body)
	}
	return decode[api.PaymentList](s.t, body).Payments[0].ID, link
}

// typed is a card that the shopper types.
func typed(number string) simulator.Typed {
	cvv := "123"
	if strings.HasPrefix(number, "37") {
		cvv = "1234"
	}
	return simulator.Typed{Number: number, Expiry: fmt.Sprintf("12/%02d", (time.Now().Year()+3)%100), CVV: cvv, Name: "Aisyah Tan"}
}

// books are what the acquirer has booked.
type books struct {
	Bookings []simulator.Booking `json:"bookings"`
	Net      map[string]int64    `json:"net"`
}

func (s *system) books() books {
	s.t.Helper()
	response, err := s.client.Get(s.shopURL() + "/acquirer/books")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return decode[books](s.t, body)
}

// payments are all of the merchant's, newest first.
func (s *system) payments() (all []api.Payment) {
	s.t.Helper()
	for cursor := ""; ; {
		status, body := s.call("GET", "/v1/payments?limit=100"+cursor, "")
		if status != http.StatusOK {
			s.t.Fatalf("list: %d %s", status, body)
		}
		page := decode[api.PaymentList](s.t, body)
		all = append(all, page.Payments...)
		if page.NextCursor == "" {
			return all
		}
		cursor = "&cursor=" + page.NextCursor
	}
}

// captured is the sum of what was captured and not refunded, as the API tells it.
func (s *system) captured() (sum int64) {
	s.t.Helper()
	for _, p := range s.payments() {
		sum += p.Captured - p.Refunded
	}
	return sum
}

// settled waits until a payment is in a state that needs nobody any more, or waits for a card.
func (s *system) settled(id string) api.Payment {
	s.t.Helper()
	var p api.Payment
	s.until("payment "+id+" is settled", func() bool {
		p = s.payment(id)
		return isSettled(p)
	})
	return p
}

// isSettled reports whether nobody is working on a payment: it has ended, or a card is wanted.
func isSettled(p api.Payment) bool {
	return p.Status != api.StatusAuthenticating && p.Status != api.StatusAuthorizing && p.Status != api.StatusIndeterminate
}

// agree holds the appliance's word against the acquirer's books.
func (s *system) agree() {
	s.t.Helper()
	if told, booked := s.captured(), s.books().Net["EUR"]; told != booked {
		s.t.Errorf("the appliance says %d was captured, the acquirer has booked %d", told, booked)
	}
}
