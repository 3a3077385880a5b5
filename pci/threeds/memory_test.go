package threeds

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/pci/wire"
)

// directoryProcess, when set, makes the test binary a directory server: in the tests' own process it would hold
// the digits that are sought.
const directoryProcess = "THREEDS_TEST_DIRECTORY_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(directoryProcess) != "" {
		serveDirectory()
		return
	}
	goleak.VerifyTestMain(m)
}

// serveDirectory prints its URL and certificate and serves until its standard input ends.
func serveDirectory() {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var message map[string]any
		_ = json.NewDecoder(r.Body).Decode(&message)
		if message["messageType"] == "PReq" {
			reply(w, presOf(message, "1", range231("4000000000000000", "4999999999999999", "2.2.0", "2.3.1")))
			return
		}
		answer := validARes(message, "Y")
		answer["acctNumber"], answer["cardSecurityCode"] = message["acctNumber"], message["cardSecurityCode"] // no directory server should
		reply(w, answer)
	}))
	defer server.Close()
	_, _ = fmt.Fprintln(os.Stdout, server.URL)
	_ = pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	_ = os.Stdout.Close()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// startDirectoryProcess returns the URL of a directory server in another process, and who vouches for it.
func startDirectoryProcess(t *testing.T) (string, *x509.CertPool) {
	t.Helper()
	command := exec.Command(os.Args[0], "-test.run=^$")
	command.Env = append(os.Environ(), directoryProcess+"=1")
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = command.Wait() })
	reader := bufio.NewReader(stdout)
	url, err := reader.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(certificate) {
		t.Fatal("the directory server printed no certificate")
	}
	return strings.TrimSpace(url), pool
}

// veil hides the sought digits from the search itself.
const veil = 0x5a

// veiledCard lends a card whose digits exist in clear in locked memory only.
type veiledCard struct {
	digits []byte
	code   []byte // in the words of an AReq: three digits alone stand everywhere
}

func (v veiledCard) Hold(context.Context, *pan.Card, string) (pci.CardRef, error) {
	return pci.CardRef{}, pci.ErrFull
}

func (v veiledCard) Lend(_ context.Context, _ pci.CardRef, _ string, use func(*pan.Card) error) error {
	slot, err := pan.NewSlot()
	if err != nil {
		return err
	}
	defer slot.Release()
	clearText := slot.Bytes()[:len(v.digits)]
	for i, d := range v.digits {
		clearText[i] = d ^ veil
	}
	code := slot.Bytes()[len(v.digits) : len(v.digits)+3]
	for i, d := range v.code[len(v.code)-3:] {
		code[i] = d ^ veil
	}
	card, err := pan.New(clearText, code, pci.Expiry{Year: 2031, Month: 4})
	if err != nil {
		return err
	}
	defer card.Release()
	return use(card)
}

// newVeiledCard makes up a Visa number and a security code.
func newVeiledCard() veiledCard {
	digits := []byte("4024007150982730")
	digits[15] = pan.Missing(digits)
	for i := range digits {
		digits[i] ^= veil
	}
	code := []byte(`cardSecurityCode":"973`)
	for i := range code {
		code[i] ^= veil
	}
	return veiledCard{digits, code}
}

// occurrences counts what is veiled, in clear, in the writable memory of this process.
func occurrences(t *testing.T, veiled []byte) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatalf("this system shows no process memory: %v", err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatalf("this system shows no process memory: %v", err)
	}
	defer func() { _ = mem.Close() }()
	count, chunk := 0, make([]byte, 1<<20)
	for line := range strings.Lines(string(maps)) {
		var low, high int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &low, &high, &mode); err != nil || !strings.HasPrefix(mode, "rw") || high-low > 1<<30 {
			continue // larger ones are the race detector's shadow
		}
		for at := low; at < high; at += int64(len(chunk)) - int64(len(veiled)) {
			n, _ := mem.ReadAt(chunk[:min(int64(len(chunk)), high-at)], at)
			count += countVeiled(veiled, chunk[:n])
			clear(chunk)
		}
	}
	return count
}

// countVeiled returns how often what is veiled stands in memory, without putting it together.
func countVeiled(veiled, memory []byte) int {
	found := 0
	for {
		i := bytes.IndexByte(memory, veiled[0]^veil)
		if i < 0 || len(memory)-i < len(veiled) {
			return found
		}
		same := 0
		for same < len(veiled) && memory[i+same] == veiled[same]^veil {
			same++
		}
		if same == len(veiled) {
			found++
		}
		memory = memory[i+1:]
	}
}

func TestNoDigitIsLeftInMemory(t *testing.T) {
	url, trust := startDirectoryProcess(t)
	for _, versions := range [][]string{Versions[:1], Versions} {
		t.Run(strings.Join(versions, " "), func(t *testing.T) {
			noDigitIsLeft(t, Config{
				DirectoryServer: url, Client: &http.Client{Transport: &wire.Transport{TLS: &tls.Config{RootCAs: trust}}},
				ResultsURL: "https://finpay.example/results", ServerRefNumber: "x", Versions: versions, CardSecurityCode: true,
			})
		})
	}
}

func noDigitIsLeft(t *testing.T, cfg Config) {
	card := newVeiledCard()
	s, err := newServer(cfg, card, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		auth, err := s.Authenticate(t.Context(), testRequest())
		if err != nil || auth.Outcome != pci.Authenticated || auth.Version != cfg.Versions[len(cfg.Versions)-1] {
			t.Fatalf("%+v, %v", auth, err)
		}
	}
	for what, veiled := range map[string][]byte{"PAN": card.digits, "security code": card.code} {
		if n := occurrences(t, veiled); n != 0 {
			t.Errorf("the %s is in memory %d times", what, n)
		}
		planted := bytes.Clone(veiled)
		for i := range planted {
			planted[i] ^= veil
		}
		if occurrences(t, veiled) == 0 {
			t.Errorf("the search does not find a planted %s", what)
		}
		clear(planted)
		runtime.KeepAlive(planted)
	}
}
