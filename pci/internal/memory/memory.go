// Package memory searches a process's own memory for a card, for tests of packages that send one.
//
// What is sought is kept veiled, so that neither the card here nor the search itself is found: its digits are in clear in locked
// memory alone, while the card is lent. Its counterparty runs in another process, [Serve], which may hold what it likes.
package memory

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// veil hides what is sought from the search.
const veil = 0x5a

// Veiled is a text that is sought and is not in memory in clear.
type Veiled []byte

// Veil takes a text over: the caller's bytes are what is veiled.
func Veil(text []byte) Veiled {
	for i := range text {
		text[i] ^= veil
	}
	return text
}

// Card is a made-up Visa card with a security code of three digits. It is a lend.Custody that lends itself.
type Card struct {
	Digits Veiled
	// Code is the security code in the words of a message, at their end: three digits alone stand everywhere.
	Code Veiled
}

// NewCard makes a card up: the first 15 digits, and words that end in a security code. The two belong to the card from now on.
func NewCard(fifteen, code []byte) Card {
	digits := append(fifteen, '0')
	digits[15] = pan.Missing(digits)
	return Card{Veil(digits), Veil(code)}
}

// Hold has no room.
func (c Card) Hold(context.Context, *pan.Card, string) (pci.CardRef, error) {
	return pci.CardRef{}, pci.ErrFull
}

// Lend calls use with the card.
func (c Card) Lend(_ context.Context, _ pci.CardRef, _ string, use func(*pan.Card) error) error {
	slot, err := pan.NewSlot()
	if err != nil {
		return err
	}
	defer slot.Release()
	digits, code := slot.Bytes()[:len(c.Digits)], slot.Bytes()[len(c.Digits):len(c.Digits)+3]
	for i, d := range c.Digits {
		digits[i] = d ^ veil
	}
	for i, d := range c.Code[len(c.Code)-3:] {
		code[i] = d ^ veil
	}
	card, err := pan.New(digits, code, pci.Expiry{Year: 2031, Month: 4})
	if err != nil {
		return err
	}
	defer card.Release()
	return use(card)
}

// WantNone is an error of the test where the text is in memory, or where the search would not find it.
func (v Veiled) WantNone(t *testing.T, what string) {
	t.Helper()
	if n := v.occurrences(t); n != 0 {
		t.Errorf("the %s is in memory %d times", what, n)
	}
	planted := bytes.Clone(v)
	for i := range planted {
		planted[i] ^= veil
	}
	if v.occurrences(t) == 0 {
		t.Errorf("the search does not find a planted %s", what)
	}
	clear(planted)
	runtime.KeepAlive(planted)
}

// occurrences counts the text in the writable memory of this process.
func (v Veiled) occurrences(t *testing.T) int {
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
		for at := low; at < high; at += int64(len(chunk)) - int64(len(v)) {
			n, _ := mem.ReadAt(chunk[:min(int64(len(chunk)), high-at)], at)
			count += v.count(chunk[:n])
			clear(chunk)
		}
	}
	return count
}

// count returns how often the text stands in memory, without putting it together.
func (v Veiled) count(memory []byte) int {
	found := 0
	for {
		i := bytes.IndexByte(memory, v[0]^veil)
		if i < 0 || len(memory)-i < len(v) {
			return found
		}
		same := 0
		for same < len(v) && memory[i+same] == v[same]^veil {
			same++
		}
		if same == len(v) {
			found++
		}
		memory = memory[i+1:]
	}
}

// counterparty, when set, makes a test binary the counterparty of the tests: see [Serve].
const counterparty = "FINPAY_TEST_COUNTERPARTY"

// Serve serves what start returns until standard input ends, in a process that [Start] has begun; elsewhere it returns false. It
// is for TestMain.
func Serve(start func() *httptest.Server) bool {
	if os.Getenv(counterparty) == "" {
		return false
	}
	server := start()
	defer server.Close()
	_, _ = fmt.Fprintln(os.Stdout, server.URL)
	_ = pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	_ = os.Stdout.Close()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return true
}

// Start runs the test binary as the counterparty until the test ends, and returns its URL and who vouches for it.
func Start(t *testing.T) (string, *x509.CertPool) {
	t.Helper()
	command := exec.Command(os.Args[0], "-test.run=^$")
	command.Env = append(os.Environ(), counterparty+"=1")
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
		t.Fatal("the counterparty printed no certificate")
	}
	return strings.TrimSpace(url), pool
}
