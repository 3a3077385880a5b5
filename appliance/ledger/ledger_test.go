package ledger

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"database/sql"

	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// key is a software signer that can fail.
type key struct {
	*ecdsa.PrivateKey
	mu   sync.Mutex
	fail error
	n    int
}

func (k *key) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n++
	if k.fail != nil {
		return nil, k.fail
	}
	return k.PrivateKey.Sign(rand.Reader, digest, o)
}

func newKey(t testing.TB) *key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key{PrivateKey: private}
}

const origin = "finpay.test/node/2026"

func open(t testing.TB, dir string, k *key) *Ledger {
	t.Helper()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), s, Config{Origin: origin, Node: "node", Signer: k})
	if err != nil {
		_ = s.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		_ = s.Close()
	})
	return l
}

func token(i int) store.Token {
	return store.Token{Domain: "d", Token: pci.Token(fmt.Sprintf("9%015d", i)), Format: "last4", KeyVersion: 1,
		Card: pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2030, Month: 1}}, Status: "active", CreatedAt: time.Now()}
}

func issue(i int) func(*Tx) error {
	return func(tx *Tx) error {
		if err := tx.PutToken(token(i)); err != nil {
			return err
		}
		tx.Record(Entry{Type: "token.issued", Actor: "system", Origin: "local", Outcome: Success, Resource: fmt.Sprintf("tok_%d", i)})
		return nil
	}
}

func TestTreeMatchesANaiveOne(t *testing.T) {
	l := open(t, t.TempDir(), newKey(t))
	var stored []tlog.Hash // every hash, in tlog's own order
	naive := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	var wg sync.WaitGroup
	for i := range 700 { // past 512 leaves: stored nodes of level 1, and groups of many sizes
		wg.Go(func() {
			if _, err := l.Commit(t.Context(), issue(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	read := l.store.Read(t.Context())
	entries, err := read.LedgerEntries(0, 1000)
	if err != nil || len(entries) != 700 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for i, e := range entries {
		var parsed Entry
		if err := json.Unmarshal(e.Entry, &parsed); err != nil || parsed.Sequence != int64(i) {
			t.Fatalf("entry %d says it is %d (%v)", i, parsed.Sequence, err)
		}
		hashes, err := tlog.StoredHashes(int64(i), e.Entry, naive)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
	}
	want, err := tlog.TreeHash(700, naive)
	if err != nil {
		t.Fatal(err)
	}
	text, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, err := OpenCheckpoint(text, origin, l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	if checkpoint.Size != 700 || string(checkpoint.Hash) != string(want[:]) {
		t.Error("the signed root is not that of a naive tree")
	}
	proven, err := l.EntriesOf(t.Context(), "tok_123")
	if err != nil || len(proven) != 1 {
		t.Fatalf("%d entries of tok_123, %v", len(proven), err)
	}
	var p proof.TLogProof
	if err := p.Unmarshal(proven[0].Proof); err != nil {
		t.Fatal(err)
	}
	record := make(tlog.RecordProof, len(p.Hashes))
	for i := range p.Hashes {
		record[i] = p.Hashes[i]
	}
	if err := tlog.CheckRecord(record, 700, want, int64(p.Index), tlog.RecordHash(proven[0].Entry)); err != nil {
		t.Errorf("the receipt's proof: %v", err)
	}
}

func TestNothingCommitsUnsigned(t *testing.T) {
	k := newKey(t)
	l := open(t, t.TempDir(), k)
	if _, err := l.Commit(t.Context(), issue(1)); err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	k.fail = errors.New("the HSM is away")
	k.mu.Unlock()
	if _, err := l.Commit(t.Context(), issue(2)); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("%v", err)
	}
	if _, err := l.store.Read(t.Context()).Token("d", token(2).Token); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a row was committed without a signature: %v", err)
	}
	k.mu.Lock()
	k.fail = nil
	k.mu.Unlock()
	receipt, err := l.Commit(t.Context(), issue(3))
	if err != nil || receipt.Size != 2 || receipt.Indexes[0] != 1 {
		t.Errorf("after the fault: %+v, %v", receipt, err)
	}
}

func TestAFailingUnitDoesNotSinkItsNeighbours(t *testing.T) {
	l := open(t, t.TempDir(), newKey(t))
	sour := errors.New("sour")
	running, gate := make(chan struct{}), make(chan struct{})
	var holder sync.WaitGroup
	holder.Go(func() { // holds the committer, so that the others form one group
		_, _ = l.Commit(t.Context(), func(tx *Tx) error { close(running); <-gate; return issue(0)(tx) })
	})
	<-running
	var group []*unit
	for i := range 30 {
		u := &unit{result: make(chan result, 1), apply: func(tx *Tx) error {
			if err := issue(i + 1)(tx); err != nil {
				return err
			}
			switch i % 3 {
			case 1:
				return sour
			case 2:
				panic("a bug")
			}
			return nil
		}}
		group = append(group, u)
		l.queue <- u
	}
	close(gate)
	holder.Wait()
	for i, u := range group {
		answer := <-u.result
		_, err := l.store.Read(t.Context()).Token("d", token(i+1).Token)
		if there := err == nil; there != (i%3 == 0) || (answer.err == nil) != there {
			t.Errorf("unit %d: committed %v, answered %v", i, there, answer.err)
		}
	}
	size, _ := l.store.Read(t.Context()).LedgerSize()
	if size != 11 {
		t.Errorf("%d entries, want 11", size)
	}
}

func TestRowsWithoutAnEntryAreRefused(t *testing.T) {
	l := open(t, t.TempDir(), newKey(t))
	if _, err := l.Commit(t.Context(), func(tx *Tx) error { return tx.PutToken(token(1)) }); !errors.Is(err, ErrUncovered) {
		t.Fatalf("%v", err)
	}
	if _, err := l.store.Read(t.Context()).Token("d", token(1).Token); !errors.Is(err, store.ErrNotFound) {
		t.Error("the row is there")
	}
}

func TestACancelledCallerLeavesNoHoleInItsGroup(t *testing.T) {
	l := open(t, t.TempDir(), newKey(t))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := l.Commit(ctx, func(tx *Tx) error {
		cancel() // the request ends while its change runs
		return issue(1)(tx)
	})
	if err != nil {
		t.Fatalf("a change that ran was reported as failed: %v", err)
	}
	if _, err := l.Commit(t.Context(), issue(2)); err != nil {
		t.Fatal(err)
	}
	size, _ := l.store.Read(t.Context()).LedgerSize()
	if size != 2 {
		t.Errorf("%d entries", size)
	}
}

func TestAReopenedLogGoesOnWhereItEnded(t *testing.T) {
	dir, k := t.TempDir(), newKey(t)
	l := open(t, dir, k)
	for i := range 300 {
		if _, err := l.Commit(t.Context(), issue(i)); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := l.Checkpoint(t.Context())
	l.Close()
	_ = l.store.Close()
	signed := k.n
	l = open(t, dir, k)
	if after, _ := l.Checkpoint(t.Context()); string(after) != string(before) || k.n != signed {
		t.Error("the head was signed again")
	}
	if receipt, err := l.Commit(t.Context(), issue(300)); err != nil || receipt.Size != 301 {
		t.Errorf("%+v, %v", receipt, err)
	}
}

func TestATamperedTailIsRefused(t *testing.T) {
	for name, statement := range map[string]string{
		"a leaf changed":        "UPDATE ledger_entries SET leaf = zeroblob(32) WHERE idx = 299",
		"a leaf cut short":      "UPDATE ledger_entries SET leaf = zeroblob(31) WHERE idx = 299",
		"an entry removed":      "DELETE FROM ledger_entries WHERE idx = 299",
		"a node changed":        "UPDATE ledger_nodes SET hash = zeroblob(32)",
		"a checkpoint changed":  "UPDATE ledger_checkpoints SET note = CAST(replace(CAST(note AS TEXT), '300', '301') AS BLOB) WHERE size = 300",
		"the last head removed": "DELETE FROM ledger_checkpoints WHERE size = 300",
	} {
		t.Run(name, func(t *testing.T) {
			dir, k := t.TempDir(), newKey(t)
			l := open(t, dir, k)
			for i := range 300 {
				if _, err := l.Commit(t.Context(), issue(i)); err != nil {
					t.Fatal(err)
				}
			}
			l.Close()
			_ = l.store.Close()
			tamper(t, dir, statement)
			s, err := store.Open(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if _, err := Open(t.Context(), s, Config{Origin: origin, Signer: k}); !errors.Is(err, ErrDamaged) {
				t.Errorf("opened: %v", err)
			}
		})
	}
}

func tamper(t *testing.T, dir, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

func TestALockedDatabaseIsAnErrorAndNothingIsLost(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, newKey(t))
	other, err := sql.Open("sqlite3", filepath.Join(dir, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	conn, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(t.Context(), issue(1)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(t.Context(), issue(1)); err != nil {
		t.Errorf("after the lock: %v", err)
	}
}

func TestASecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, newKey(t))
	if _, err := store.Open(t.Context(), dir); !errors.Is(err, store.ErrInUse) {
		t.Errorf("%v", err)
	}
}

func TestPublishedCheckpointsCanBeWitnessed(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, t.TempDir(), newKey(t))
	l.cfg.Witnessable = private
	if _, err := l.Commit(t.Context(), issue(1)); err != nil {
		t.Fatal(err)
	}
	text, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := note.NewEd25519VerifierKey(origin, private.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{vkey, l.VerifierKey()} { // each signature holds on its own
		if _, err := OpenCheckpoint(text, origin, key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if again, _ := l.Checkpoint(t.Context()); string(again) != string(text) {
		t.Error("the same tree is published in two forms")
	}
}

// Base64 has spare bits before its padding, and Go's reader passes over line ends: neither may vary. Signatures differ in
// length, so several are tried.
func TestACheckpointHasOneForm(t *testing.T) {
	l := open(t, t.TempDir(), newKey(t))
	for i := range 24 {
		if _, err := l.Commit(t.Context(), issue(i)); err != nil {
			t.Fatal(err)
		}
		text, err := l.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for at := range text {
			for bit := range 7 {
				altered := bytes.Clone(text)
				altered[at] ^= 1 << bit
				if _, err := OpenCheckpoint(altered, origin, l.VerifierKey()); err == nil {
					t.Errorf("checkpoint %d, bit %d of byte %d altered: accepted", i, bit, at)
				}
			}
			if _, err := OpenCheckpoint(slices.Insert(bytes.Clone(text), at, '\r'), origin, l.VerifierKey()); err == nil {
				t.Errorf("checkpoint %d, a carriage return at byte %d: accepted", i, at)
			}
		}
	}
}

// A full disk has room again some time: what came meanwhile must be told to try later, and outcomes be committed again.
func TestAFullDiskIsAnErrorThatPasses(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, newKey(t))
	wal, err := os.Stat(filepath.Join(dir, store.FileName+"-wal"))
	if err != nil {
		t.Fatal(err)
	}
	withRoom(t, wal.Size()+5000, func() { _, err = l.Commit(t.Context(), issue(1)) })
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("a full disk: %v, want ErrUnavailable", err)
	}
	if _, err := l.Commit(t.Context(), issue(1)); err != nil {
		t.Errorf("after the disk had room again: %v", err)
	}
}

// A bulk issue that fails leaves nothing of it, in memory neither: its neighbour in the group may issue the same values to
// other cards.
func TestABulkIssueThatFailsLeavesNothing(t *testing.T) {
	l := open(t, t.TempDir(), newKey(t))
	running, gate := make(chan struct{}), make(chan struct{})
	var holder sync.WaitGroup
	holder.Go(func() {
		_, _ = l.Commit(t.Context(), func(tx *Tx) error { close(running); <-gate; return issue(0)(tx) })
	})
	<-running
	var root [32]byte
	bulk := func(version uint32, sour error) *unit {
		return &unit{result: make(chan result, 1), apply: func(tx *Tx) error {
			var rows []store.Token
			for i := range 100 {
				rows = append(rows, token(i+1))
				rows[i].KeyVersion = version
			}
			_, made, taken, err := tx.PutTokens(rows)
			if err != nil || len(taken) > 0 {
				return fmt.Errorf("%v are taken: %w", taken, err)
			}
			root = made
			tx.Record(Entry{Type: "token.issued", Actor: "system", Origin: "local", Outcome: Success, Resource: "bulk"})
			return sour
		}}
	}
	failing, good := bulk(1, errors.New("sour")), bulk(2, nil)
	l.queue <- failing
	l.queue <- good
	close(gate)
	holder.Wait()
	if r := <-failing.result; r.err == nil {
		t.Error("a unit that failed was reported as committed")
	}
	if r := <-good.result; r.err != nil {
		t.Fatal(r.err)
	}
	read := l.store.Read(t.Context())
	if got, err := read.Token("d", token(1).Token); err != nil || got.KeyVersion != 2 || got.Batch != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for version, want := range map[uint32]int{1: 1, 2: 100} {
		if n, err := read.CountTokensOfVersion(version); err != nil || n != want {
			t.Errorf("%d rows under version %d, want %d: %v", n, version, want, err)
		}
	}
	entries, err := read.LedgerEntriesOf("bulk")
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	var e Entry
	if err := json.Unmarshal(entries[0].Entry, &e); err != nil || len(e.Rows) != 1 || e.Rows["token_batches/1"] != fmt.Sprintf("%x", root) {
		t.Errorf("the entry covers %v, %v", e.Rows, err)
	}
	rows, again, err := read.TokenBatch(1)
	if err != nil || len(rows) != 100 || again != root {
		t.Errorf("%d rows, root %x, want %x: %v", len(rows), again, root, err)
	}
}
