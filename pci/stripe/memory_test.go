package stripe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/softhsm-test/fakestripe"
)

// peerProcess, when set, makes the test binary a Stripe: in the tests' own process it would hold the digits that are sought.
const peerProcess = "STRIPE_TEST_PEER_PROCESS"

// servePeer prints its URL and certificate and serves until its standard input ends.
func servePeer() {
	peer := fakestripe.New()
	defer peer.Close()
	_, _ = fmt.Fprintln(os.Stdout, peer.URL)
	_ = pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: peer.Certificate().Raw})
	_ = os.Stdout.Close()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// startPeer returns the URL of a Stripe in another process, and who vouches for it.
func startPeer(t *testing.T) (string, *x509.CertPool) {
	t.Helper()
	command := exec.Command(os.Args[0], "-test.run=^$")
	command.Env = append(os.Environ(), peerProcess+"=1")
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
		t.Fatal("the peer printed no certificate")
	}
	return strings.TrimSpace(url), pool
}

// veil hides the sought digits from the search itself.
const veil = 0x5a

// veiledCard lends a card whose digits exist in clear in locked memory only.
type veiledCard struct{ digits []byte }

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
	card, err := pan.New(clearText, []byte(cvv), pci.Expiry{Year: 2031, Month: 4})
	if err != nil {
		return err
	}
	defer card.Release()
	return use(card)
}

// newVeiledCard makes up a Visa number.
func newVeiledCard() veiledCard {
	digits := []byte("4024007150982750")
	digits[15] = '0'
	digits[15] = pan.Missing(digits)
	for i := range digits {
		digits[i] ^= veil
	}
	return veiledCard{digits}
}

// occurrences counts the card's digits, in clear, in the writable memory of this process.
func occurrences(t *testing.T, card veiledCard) int {
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
		for at := low; at < high; at += int64(len(chunk)) - int64(len(card.digits)) {
			n, _ := mem.ReadAt(chunk[:min(int64(len(chunk)), high-at)], at)
			count += card.count(chunk[:n])
			clear(chunk)
		}
	}
	return count
}

// count returns how often the card's digits stand in memory, without putting them together.
func (v veiledCard) count(memory []byte) int {
	found := 0
	for {
		i := bytes.IndexByte(memory, v.digits[0]^veil)
		if i < 0 || len(memory)-i < len(v.digits) {
			return found
		}
		same := 0
		for same < len(v.digits) && memory[i+same] == v.digits[same]^veil {
			same++
		}
		if same == len(v.digits) {
			found++
		}
		memory = memory[i+1:]
	}
}

func TestNoDigitIsLeftInMemory(t *testing.T) {
	url, trust := startPeer(t)
	card := newVeiledCard()
	c, err := newConnector(Config{URL: url, Key: Key{secret}, TLS: &tls.Config{RootCAs: trust}})
	if err != nil {
		t.Fatal(err)
	}
	c.cards = card
	for i := range 5 {
		r := saleRequest()
		r.Payment = fmt.Sprintf("pay_%d", i)
		result, err := c.Sale(t.Context(), r)
		if err != nil || result.Outcome != pci.Approved {
			t.Fatalf("%+v, %v", result, err)
		}
		if done, err := c.Reverse(t.Context(), reversalOf(r, result.Reference)); !done || err != nil {
			t.Fatalf("%t, %v", done, err)
		}
	}
	if n := occurrences(t, card); n != 0 {
		t.Errorf("the PAN is in memory %d times", n)
	}

	planted := bytes.Clone(card.digits)
	for i := range planted {
		planted[i] ^= veil
	}
	if occurrences(t, card) == 0 {
		t.Error("the search does not find a planted PAN")
	}
	clear(planted)
	runtime.KeepAlive(planted)
}
