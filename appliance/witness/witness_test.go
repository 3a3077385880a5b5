package witness

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	formatsnote "github.com/transparency-dev/formats/note"
	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const origin = "finpay.test/node/2026"

// stranger is a witness by the letter of C2SP tlog-witness.
type stranger struct {
	url, vkey string

	mu     sync.Mutex
	log    note.Verifier // Ed25519
	signer note.Signer
	size   int64
	root   tlog.Hash
	down   bool
	lies   bool
}

func newStranger(t *testing.T, name string, mldsa bool) *stranger {
	t.Helper()
	s := &stranger{}
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if mldsa {
		skey, vkey, err = formatsnote.GenerateMLDSAKey(name)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.signer, err = formatsnote.NewSignerForCosignatureV1(skey); err != nil {
		t.Fatal(err)
	}
	if s.vkey = vkey; !mldsa {
		if s.vkey, err = formatsnote.VKeyToCosignatureV1(vkey); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *stranger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	head, text, _ := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	old, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	switch {
	case s.down:
		w.WriteHeader(http.StatusBadGateway)
	case r.Method != http.MethodPost || r.URL.Path != "/add-checkpoint" || err != nil || len(lines) > 64:
		w.WriteHeader(http.StatusBadRequest)
	default:
		s.add(w, old, lines[1:], text)
	}
}

func (s *stranger) add(w http.ResponseWriter, old int64, lines []string, text string) {
	opened, err := note.Open([]byte(text), note.VerifierList(s.log))
	if err != nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	fields := strings.Split(opened.Text, "\n")
	size, _ := strconv.ParseInt(fields[1], 10, 64)
	root, _ := tlog.ParseHash(fields[2])
	if old != s.size {
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprintf(w, "%d\n", s.size)
		return
	}
	var proof tlog.TreeProof
	for _, line := range lines {
		hash, _ := tlog.ParseHash(line)
		proof = append(proof, hash)
	}
	if old > 0 && tlog.CheckTree(proof, size, root, old, s.root) != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	s.size, s.root = size, root
	if s.lies {
		opened.Text = strings.Replace(opened.Text, fields[1], "1"+fields[1], 1)
	}
	signed, err := note.Sign(&note.Note{Text: opened.Text}, s.signer)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_, lines2, _ := strings.Cut(string(signed), "\n\n")
	_, _ = io.WriteString(w, lines2)
}

// world is a log with its keys.
type world struct {
	dir      string
	store    *store.Store
	ledger   *ledger.Ledger
	ecdsa    *ecdsa.PrivateKey
	ed25519  ed25519.PrivateKey
	verifier note.Verifier // Ed25519
	now      time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: t.TempDir(), ecdsa: private, ed25519: second, now: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
	w.open(t)
	if w.verifier, err = note.NewVerifier(w.ledger.WitnessKey()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) open(t *testing.T) {
	t.Helper()
	var err error
	if w.store, err = store.Open(t.Context(), w.dir); err != nil {
		t.Fatal(err)
	}
	w.ledger, err = ledger.Open(t.Context(), w.store, ledger.Config{Origin: origin, Node: "node", Signer: w.ecdsa, Witnessable: w.ed25519})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
}

func (w *world) close() {
	w.ledger.Close()
	_ = w.store.Close()
}

func (w *world) write(t *testing.T, entries int) {
	t.Helper()
	for range entries {
		if _, err := w.ledger.Commit(context.Background(), func(tx *ledger.Tx) error {
			tx.Record(ledger.Entry{Type: "test", Resource: "r"})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) publisher(t *testing.T, policy string) *Publisher {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(path, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := ReadPolicy(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(t.Context(), Config{Policy: read, Store: w.store, Ledger: w.ledger, Period: time.Second, Timeout: 5 * time.Second,
		Patience: time.Minute, Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.cfg.Client.CloseIdleConnections)
	return p
}

func policyOf(quorum string, witnesses ...*stranger) string {
	text := "# ours\n"
	names := ""
	for i, s := range witnesses {
		text += fmt.Sprintf("witness w%d %s %s\n", i, s.vkey, s.url)
		names += fmt.Sprintf(" w%d", i)
	}
	return text + "group g " + quorum + names + "\nquorum g\n"
}

func (w *world) publish(t *testing.T, p *Publisher) {
	t.Helper()
	if err := p.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// types are the entries about witnesses.
func (w *world) types(t *testing.T) (types []string) {
	t.Helper()
	entries, err := w.store.Read(t.Context()).LedgerEntriesOf(Resource)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		_, rest, _ := strings.Cut(string(e.Entry), `"type":"`)
		kind, _, _ := strings.Cut(rest, `"`)
		types = append(types, kind)
	}
	return types
}

func TestCheckpointsAreCosigned(t *testing.T) {
	w := newWorld(t)
	one, two := newStranger(t, "one.example", false), newStranger(t, "two.example", true)
	one.log, two.log = w.verifier, w.verifier
	p := w.publisher(t, policyOf("all", one, two))
	if err := p.Publish(t.Context()); err != nil {
		t.Fatalf("an empty log: %v", err)
	}
	for _, entries := range []int{1, 300, 7} {
		w.write(t, entries)
		w.publish(t, p)
		w.publish(t, p) // nothing new
		found, err := w.store.Read(t.Context()).CosignedCheckpoint()
		size, _ := w.store.Read(t.Context()).LedgerSize()
		if err != nil || found.Size != size || !p.cfg.Policy.group.Satisfied(found.Note) {
			t.Fatalf("after %d entries more: size %d of %d, %v\n%s", entries, found.Size, size, err, found.Note)
		}
	}
	if types := w.types(t); len(types) > 0 || p.Gap() {
		t.Errorf("entries tell of %v", types)
	}
	// Another process begins with no memory of what the witnesses know.
	w.write(t, 5)
	w.publish(t, w.publisher(t, policyOf("all", one, two)))
	if one.size != 313 || two.size != 313 {
		t.Errorf("they know %d and %d entries", one.size, two.size)
	}
}

func TestAGapIsEnteredOnceAndClosed(t *testing.T) {
	w := newWorld(t)
	one, two := newStranger(t, "one.example", false), newStranger(t, "two.example", false)
	one.log, two.log = w.verifier, w.verifier
	p := w.publisher(t, policyOf("any", one, two))
	w.write(t, 3)
	one.down = true
	w.publish(t, p)
	if size, err := w.store.Read(t.Context()).CosignedCheckpoint(); err != nil || size.Size != 3 {
		t.Errorf("one of two is enough: %+v, %v", size, err)
	}
	two.down = true
	for range 3 {
		w.write(t, 1)
		w.publish(t, p)
		w.now = w.now.Add(29 * time.Second)
	}
	if types := w.types(t); len(types) > 0 || p.Gap() {
		t.Errorf("within the patience: %v", types)
	}
	for range 3 {
		w.publish(t, p)
		w.now = w.now.Add(29 * time.Second)
	}
	if types := w.types(t); fmt.Sprint(types) != "[witness.gap_opened]" || !p.Gap() {
		t.Errorf("beyond it: %v", types)
	}
	p = w.publisher(t, policyOf("any", one, two)) // a restart
	w.now = w.now.Add(time.Hour)
	w.publish(t, p)
	w.now = w.now.Add(time.Hour)
	w.publish(t, p)
	two.down = false
	w.publish(t, p)
	if types := w.types(t); fmt.Sprint(types) != "[witness.gap_opened witness.gap_closed]" || p.Gap() {
		t.Errorf("when they are back: %v", types)
	}
	w.publish(t, p) // the entry itself
	if found, err := w.store.Read(t.Context()).CosignedCheckpoint(); err != nil || found.Size != 8 {
		t.Errorf("the newest that is cosigned has %d entries, %v", found.Size, err)
	}
}

func TestAnotherHistoryIsNotCosigned(t *testing.T) {
	w := newWorld(t)
	one := newStranger(t, "one.example", false)
	one.log = w.verifier
	w.write(t, 20)
	w.publish(t, w.publisher(t, policyOf("all", one)))
	// The same keys sign another log under the same name.
	fork := &world{dir: t.TempDir(), ecdsa: w.ecdsa, ed25519: w.ed25519, now: w.now}
	fork.open(t)
	p := fork.publisher(t, policyOf("all", one))
	for _, entries := range []int{10, 11} { // shorter than what is known, then longer
		fork.write(t, entries)
		fork.publish(t, p)
		if _, err := fork.store.Read(t.Context()).CosignedCheckpoint(); err == nil {
			t.Errorf("a fork of %d entries was cosigned", entries)
		}
	}
	fork.now = fork.now.Add(time.Hour)
	fork.publish(t, p)
	if !p.Gap() {
		t.Error("no gap is entered")
	}
}

func TestOnlyTheWitnessesOwnSignatureIsKept(t *testing.T) {
	w := newWorld(t)
	one, other := newStranger(t, "one.example", false), newStranger(t, "one.example", false)
	one.log, other.log = w.verifier, w.verifier
	w.write(t, 2)
	one.lies = true // it signs another text
	w.publish(t, w.publisher(t, policyOf("all", one)))
	w.publish(t, w.publisher(t, strings.Replace(policyOf("all", one), one.url, other.url, 1))) // another key of the same name
	if found, err := w.store.Read(t.Context()).CosignedCheckpoint(); err == nil {
		t.Errorf("kept: %s", found.Note)
	}
}

func TestPoliciesAndKeysThatCannotWork(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "policy")
	one := newStranger(t, "one.example", false)
	for _, text := range []string{"", "quorum none\n", "witness w x http://localhost\nquorum w\n", policyOf("all", one) + "nonsense\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPolicy(path); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if err := os.WriteFile(path, []byte(policyOf("all", one)), 0o600); err != nil {
		t.Fatal(err)
	}
	policy, err := ReadPolicy(path)
	if err != nil {
		t.Fatal(err)
	}
	if lines := policy.Lines(); strings.Contains(lines, "#") || !strings.Contains(lines, one.vkey) || !strings.HasSuffix(lines, "quorum g\n") {
		t.Errorf("%q", lines)
	}
	w.close()
	var plain crypto.Signer // no Ed25519
	s, err := store.Open(t.Context(), w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: origin, Node: "node", Signer: w.ecdsa, Witnessable: plain})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := New(t.Context(), Config{Policy: policy, Store: s, Ledger: l, Period: time.Second, Timeout: time.Second}); err == nil {
		t.Error("a log that no witness takes is published")
	}
}
