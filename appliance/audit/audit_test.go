package audit

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	origin = "finpay.test/node/2026"
	size   = 600 // stored hashes of level 1, and more than one checkpoint
	group  = 7   // entries of a commit
)

// logbook writes a log and returns its directory and its key.
func logbook(t testing.TB) (dir, vkey string) {
	t.Helper()
	return written(t, size, group, "test")
}

// written is a log of so many entries of a kind.
func written(t testing.TB, size, group int, kind string) (dir, vkey string) {
	t.Helper()
	return signedBy(t, newKey(t), size, group, kind)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func signedBy(t testing.TB, private *ecdsa.PrivateKey, size, group int, kind string) (dir, vkey string) {
	t.Helper()
	dir = t.TempDir()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: origin, Node: "node", Signer: private})
	if err != nil {
		t.Fatal(err)
	}
	for from := 0; from < size; from += group {
		if _, err := l.Commit(t.Context(), func(tx *ledger.Tx) error {
			for i := from; i < min(from+group, size); i++ {
				tx.Record(ledger.Entry{Type: kind, Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: fmt.Sprintf("r_%d", i)})
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, l.VerifierKey()
}

// edit changes the database behind the log's back.
func edit(t *testing.T, dir, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	done, err := db.ExecContext(t.Context(), statement, args...)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := done.RowsAffected(); n == 0 || err != nil {
		t.Fatalf("%s changed %d rows, %v", statement, n, err)
	}
}

func verify(t *testing.T, dir string, terms Terms) Verdict {
	t.Helper()
	s, err := store.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	v, err := Verify(t.Context(), Database{Store: s}, terms)
	if err != nil {
		t.Fatal(err)
	}
	coherent(t, v)
	return v
}

// coherent refuses a verdict that contradicts itself.
func coherent(t *testing.T, v Verdict) {
	t.Helper()
	if v.OK != (v.Reason == "") || v.Consistent && v.FirstBad != -1 || v.OK != (v.Consistent && v.Pinned) {
		t.Errorf("a verdict that contradicts itself: %+v", v)
	}
}

func TestAGoodLogVerifies(t *testing.T) {
	dir, vkey := logbook(t)
	if v := verify(t, dir, Terms{Key: vkey}); !v.OK || v.Size != size || v.Origin != origin {
		t.Errorf("%+v", v)
	}
}

func TestWhatIsChangedIsFoundAndNamed(t *testing.T) {
	dir, vkey := logbook(t)
	for name, test := range map[string]struct {
		table, column, where string
		at                   int // the byte that is changed
		entry                int64
		reason               string
	}{
		"the first entry":            {"ledger_entries", "entry", "idx = 0", 10, 0, "does not match its leaf"},
		"an entry":                   {"ledger_entries", "entry", "idx = 300", 12, 300, "does not match its leaf"},
		"the last entry":             {"ledger_entries", "entry", "idx = 599", 3, 599, "does not match its leaf"},
		"the first leaf":             {"ledger_entries", "leaf", "idx = 0", 0, 0, "does not match its leaf"},
		"a leaf":                     {"ledger_entries", "leaf", "idx = 431", 31, 431, "does not match its leaf"},
		"the last leaf":              {"ledger_entries", "leaf", "idx = 599", 16, 599, "does not match its leaf"},
		"a stored hash":              {"ledger_nodes", "hash", "level = 1 AND idx = 0", 5, -1, "stored hash 0 of level 1"},
		"another stored hash":        {"ledger_nodes", "hash", "level = 1 AND idx = 1", 31, -1, "stored hash 1 of level 1"},
		"the newest checkpoint":      {"ledger_checkpoints", "note", "size = 600", 30, -1, "the checkpoint of size 600"},
		"its signature":              {"ledger_checkpoints", "note", "size = 600", 150, -1, "the checkpoint of size 600"},
		"an old checkpoint":          {"ledger_checkpoints", "note", "size = 294", 30, -1, "the checkpoint of size 294"},
		"an old checkpoint's origin": {"ledger_checkpoints", "note", "size = 7", 2, -1, "the checkpoint of size 7"},
	} {
		t.Run(name, func(t *testing.T) {
			whole := value(t, dir, test.table, test.column, test.where)
			for _, bit := range []byte{1, 0x20} {
				bad := append([]byte(nil), whole...)
				bad[test.at] ^= bit
				put(t, dir, test.table, test.column, test.where, bad)
				v := verify(t, dir, Terms{Key: vkey})
				if v.OK || v.FirstBad != Index(test.entry) || !strings.Contains(v.Reason, test.reason) {
					t.Errorf("%+v", v)
				}
			}
			put(t, dir, test.table, test.column, test.where, whole)
		})
	}
	if v := verify(t, dir, Terms{Key: vkey}); !v.OK {
		t.Errorf("put back as it was: %+v", v)
	}
}

func value(t *testing.T, dir, table, column, where string) (raw []byte) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRowContext(t.Context(), "SELECT "+column+" FROM "+table+" WHERE "+where).Scan(&raw); err != nil {
		t.Fatal(err)
	}
	return raw
}

func put(t *testing.T, dir, table, column, where string, raw []byte) {
	t.Helper()
	kind := any(raw)
	if column == "entry" {
		kind = string(raw) // the tables are strict
	}
	edit(t, dir, "UPDATE "+table+" SET "+column+" = ? WHERE "+where, kind)
}

func TestAnEntryRewrittenWithItsLeafIsFoundByTheCheckpointAfterIt(t *testing.T) {
	dir, vkey := logbook(t)
	other := value(t, dir, "ledger_entries", "entry", "idx = 100")
	leaf := value(t, dir, "ledger_entries", "leaf", "idx = 100")
	put(t, dir, "ledger_entries", "entry", "idx = 300", other)
	put(t, dir, "ledger_entries", "leaf", "idx = 300", leaf)
	if v := verify(t, dir, Terms{Key: vkey}); v.OK || v.FirstBad != 294 || !strings.Contains(v.Reason, "entries 294 to 300") {
		t.Errorf("%+v", v)
	}
}

func TestAnotherKeyOrNameVerifiesNothing(t *testing.T) {
	dir, vkey := logbook(t)
	_, other := logbook(t)
	renamed := "finpay.test/other/2026" + strings.TrimPrefix(vkey, origin)
	for name, key := range map[string]string{"key": other, "origin": renamed, "no key": ""} {
		if v := verify(t, dir, Terms{Key: key}); v.OK || v.Consistent || v.FirstBad != -1 {
			t.Errorf("%s: %+v", name, v)
		}
	}
	for _, terms := range []Terms{{Key: "finpay.test/node/2026+00000000+AAAA"}, {Key: vkey, Witnesses: []string{"w+00000000+BAAA"}}} {
		if v, err := Verify(t.Context(), Database{}, terms); err == nil || v.OK || v.Reason == "" {
			t.Errorf("%+v: %+v, %v", terms, v, err)
		}
	}
}

func TestWhatIsMissingIsFound(t *testing.T) {
	for name, test := range map[string]struct {
		statements []string
		entry      int64
		reason     string
	}{
		"an entry":           {[]string{"DELETE FROM ledger_entries WHERE idx = 17"}, 17, "is missing"},
		"the first entry":    {[]string{"DELETE FROM ledger_entries WHERE idx = 0"}, 0, "is missing"},
		"the last entry":     {[]string{"DELETE FROM ledger_entries WHERE idx = 599"}, 599, "is missing"},
		"all entries":        {[]string{"DELETE FROM ledger_entries"}, 0, "is missing"},
		"a stored hash":      {[]string{"DELETE FROM ledger_nodes WHERE idx = 1"}, -1, "stored hash 1"},
		"every checkpoint":   {[]string{"DELETE FROM ledger_checkpoints"}, -1, "no signed checkpoint"},
		"the newest":         {[]string{"DELETE FROM ledger_checkpoints WHERE size = 600"}, 595, "under no checkpoint"},
		"a swap":             {[]string{"UPDATE ledger_entries SET idx = -1 WHERE idx = 5", "UPDATE ledger_entries SET idx = 5 WHERE idx = 6", "UPDATE ledger_entries SET idx = 6 WHERE idx = -1"}, 0, "entries 0 to 6"},
		"another's place":    {[]string{"UPDATE ledger_checkpoints SET size = 601 WHERE size = 600"}, -1, "not the one it is stored as"},
		"an entry too many":  {[]string{"INSERT INTO ledger_entries SELECT 600, leaf, entry FROM ledger_entries WHERE idx = 1"}, 600, "under no checkpoint"},
		"everything, almost": {[]string{"DELETE FROM ledger_entries WHERE idx > 9", "DELETE FROM ledger_checkpoints WHERE size > 7"}, 7, "under no checkpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, vkey := logbook(t)
			for _, statement := range test.statements {
				edit(t, dir, statement)
			}
			if v := verify(t, dir, Terms{Key: vkey}); v.OK || v.FirstBad != Index(test.entry) || !strings.Contains(v.Reason, test.reason) {
				t.Errorf("%+v", v)
			}
		})
	}
}

// A log that was cut back to an old checkpoint with all that belongs to it is consistent in itself: only a checkpoint
// that somebody kept shows it. The size in the verdict is what to compare.
func TestALogCutBackToAnOldCheckpointSaysItsSize(t *testing.T) {
	dir, vkey := logbook(t)
	edit(t, dir, "DELETE FROM ledger_entries WHERE idx >= 294")
	edit(t, dir, "DELETE FROM ledger_checkpoints WHERE size > 294")
	if v := verify(t, dir, Terms{Key: vkey}); !v.OK || v.Size != 294 {
		t.Errorf("%+v", v)
	}
}

func TestAnEmptyLogIsNotVerified(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, vkey := logbook(t)
	if v := verify(t, dir, Terms{Key: vkey}); v.OK || !strings.Contains(v.Reason, "no signed checkpoint") {
		t.Errorf("%+v", v)
	}
}

func TestADatabaseThatCannotBeReadIsAnErrorNotAVerdict(t *testing.T) {
	dir, vkey := logbook(t)
	s, err := store.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v, err := Verify(ctx, Database{Store: s}, Terms{Key: vkey}); !errors.Is(err, context.Canceled) || v.OK {
		t.Errorf("%+v, %v", v, err)
	}
}
