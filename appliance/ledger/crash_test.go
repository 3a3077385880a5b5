//go:build failpoints

package ledger_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

const crashOrigin = "finpay.test/crash/2026"

// places are all points of a commit at which the process is killed.
var places = []string{"commit: begun", "commit: a unit has run", "commit: entries made", "commit: registry written", "commit: an entry written",
	"commit: entries written", "commit: signed", "commit: before COMMIT", "commit: after COMMIT", "commit: a caller has its answer"}

// crashWriters is how many change something at once.
const crashWriters = 16

func TestMain(m *testing.M) {
	if dir := os.Getenv("FINPAY_CRASH_WRITER"); dir != "" {
		if err := write(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func crashKey(dir string) (*ecdsa.PrivateKey, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		return nil, err
	}
	return x509.ParseECPrivateKey(raw)
}

// write is the process that is killed: it says of each change how it ended, in a line.
func write(dir string) error {
	private, err := crashKey(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	s, err := store.Open(ctx, dir)
	if err != nil {
		return err
	}
	l, err := ledger.Open(ctx, s, ledger.Config{Origin: crashOrigin, Node: "node", Signer: private})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for w := range crashWriters {
		all.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("%s-%d-%d", os.Getenv("FINPAY_CRASH_RUN"), w, n)
				said := "done"
				if err := change(l, id, n); err != nil {
					said = "not"
				}
				if _, err := os.Stdout.WriteString(said + " " + id + "\n"); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return nil
}

var errRefused = errors.New("refused by the change itself")

// change writes a row and a token, and sometimes fails, panics, or is given up by its caller.
func change(l *ledger.Ledger, id string, n int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if n%7 == 3 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(mathrand.IntN(int(time.Millisecond))))
		defer cancel()
	}
	_, err := l.Commit(ctx, func(tx *ledger.Tx) error {
		if err := tx.PutMerchant(store.Merchant{ID: id, Domain: "d", CreatedAt: time.Now()}); err != nil {
			return err
		}
		if err := tx.PutToken(tokenOf(id)); err != nil {
			return err
		}
		switch n % 11 {
		case 5:
			return errRefused
		case 7:
			panic("a change that panics")
		}
		tx.Record(ledger.Entry{Type: "test.changed", Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: "r:" + id})
		return nil
	})
	return err
}

func tokenOf(id string) store.Token {
	return store.Token{Domain: "d", Token: pci.Token("tok_" + id), Format: pci.TokenOpaque, Image: pci.TokenImage(digits(id)), KeyVersion: 1, Status: store.TokenActive,
		CreatedAt: time.Now(), Card: pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2031, Month: 1}}}
}

// digits is a string of digits that is this id's alone.
func digits(id string) string {
	parts := strings.Split(id, "-")
	run, _ := strconv.Atoi(parts[0])
	w, _ := strconv.Atoi(parts[1])
	n, _ := strconv.Atoi(parts[2])
	return fmt.Sprintf("%05d%02d%08d", run, w, n)
}

// kill runs the writer until it is killed at a place, and returns what it said of its changes.
func kill(t *testing.T, dir string, run int, place string) (done, not []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "FINPAY_CRASH_WRITER="+dir, fmt.Sprintf("FINPAY_CRASH_RUN=%d", run),
		fmt.Sprintf("FINPAY_FAILPOINT=%s#%d", place, 1+mathrand.IntN(60)))
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		said, id, ok := strings.Cut(lines.Text(), " ")
		switch {
		case !ok || digits(id) == "":
		case said == "done":
			done = append(done, id)
		default:
			not = append(not, id)
		}
	}
	err = cmd.Wait()
	if ctx.Err() != nil || err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Fatalf("%s: %v (%v)\n%s", place, err, ctx.Err(), &problems)
	}
	return done, not
}

// TestKilledAtAnyPointOfACommitNothingAcknowledgedIsLost kills a process with many writers FAULTS times (30), each time at the
// next place of a commit, and wants all that it had acknowledged, nothing that it had refused, and a log that verifies.
func TestKilledAtAnyPointOfACommitNothingAcknowledgedIsLost(t *testing.T) {
	faults := 30
	if text := os.Getenv("FAULTS"); text != "" {
		var err error
		if faults, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for run := range faults {
		place := places[run%len(places)]
		done, not := kill(t, dir, run, place)
		acknowledged += len(done)
		s, err := store.OpenReadOnly(dir)
		if err != nil {
			t.Fatal(err)
		}
		held(t, s.Read(t.Context()), place, done, not)
		if run%20 == 0 || run == faults-1 {
			sound(t, s, private, dir)
		}
		_ = s.Close()
	}
	t.Logf("%d changes were acknowledged", acknowledged)
	if acknowledged == 0 {
		t.Error("nothing was acknowledged: the test finds nothing")
	}
}

// held wants all of the changes that were acknowledged, and none of those that were refused.
func held(t *testing.T, read store.Queries, place string, done, not []string) {
	t.Helper()
	there := make(map[string]bool)
	var tokens []pci.Token
	for _, id := range append(done[:len(done):len(done)], not...) {
		tokens = append(tokens, tokenOf(id).Token)
	}
	if err := read.Tokens("d", tokens, func(_ int, row store.Token) error {
		there[strings.TrimPrefix(string(row.Token), "tok_")] = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, id := range done {
		m, err := read.Merchant(id)
		entries, err2 := read.LedgerEntriesOf("r:" + id)
		if err := errors.Join(err, err2); err != nil || m.ID != id || !there[id] || len(entries) != 1 {
			t.Fatalf("%s: change %s was acknowledged: %v, token %v, %d entries", place, id, err, there[id], len(entries))
		}
	}
	for _, id := range not {
		if _, err := read.Merchant(id); !errors.Is(err, store.ErrNotFound) || there[id] {
			t.Fatalf("%s: change %s was refused, and is there: %v, token %v", place, id, err, there[id])
		}
	}
}

// sound wants a log that verifies, and rows that are those of its entries.
func sound(t *testing.T, s *store.Store, private *ecdsa.PrivateKey, dir string) {
	t.Helper()
	vkey, err := ledger.VerifierKey(crashOrigin, &private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if size, err := s.Read(t.Context()).LedgerSize(); err != nil || size == 0 {
		return // killed before its first commit
	}
	if verdict, err := audit.Verify(t.Context(), audit.Database{Store: s}, audit.Terms{Key: vkey}); err != nil || !verdict.OK {
		t.Fatalf("%+v, %v", verdict, err)
	}
	if found, err := audit.Check(t.Context(), s, dir); err != nil || found.Wrong > 0 {
		t.Fatalf("%+v, %v", found, err)
	}
}
