package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/store"
)

// copyOf copies a state directory's database, and nothing else, while nobody has it open.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, store.FileName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return other
}

// grown opens a log, adds entries to it, and returns its newest checkpoint after closing it.
func grown(t *testing.T, dir string, k *key, from, n int) []byte {
	t.Helper()
	l := open(t, dir, k)
	for i := range n {
		if _, err := l.Commit(t.Context(), issue(from+i)); err != nil {
			t.Fatal(err)
		}
	}
	_, text, err := l.store.Read(t.Context()).LedgerCheckpoint()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := l.store.Close(); err != nil {
		t.Fatal(err)
	}
	return text
}

// opens says what comes of opening a log beside what is known of it.
func opens(t *testing.T, dir string, k *key, known ...[]byte) error {
	t.Helper()
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	name := origin
	closed, err := s.Read(t.Context()).ClosedLogs()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(closed); n > 0 {
		name = closed[n-1].Successor
	}
	l, err := Open(t.Context(), s, Config{Origin: name, Node: "node", Signer: k, Known: known})
	if err == nil {
		l.Close()
	}
	return err
}

func TestAnOldDatabaseIsRefusedByWhatIsKnownOutside(t *testing.T) {
	dir, k := t.TempDir(), newKey(t)
	early := grown(t, dir, k, 0, 300)
	old := copyOf(t, dir)
	late := grown(t, dir, k, 300, 300)
	fork := copyOf(t, old)
	forked := grown(t, fork, k, 1000, 300)
	longer := copyOf(t, old)
	grown(t, longer, k, 2000, 500)
	for name, c := range map[string]struct {
		dir   string
		known [][]byte
		want  error
	}{
		"nothing is known":               {dir, nil, nil},
		"the newest":                     {dir, [][]byte{late}, nil},
		"an older one":                   {dir, [][]byte{early}, nil},
		"both, after an interruption":    {dir, [][]byte{late, early}, nil},
		"an old copy":                    {old, [][]byte{late}, ErrBehind},
		"an old copy, and its own":       {old, [][]byte{early, late}, ErrBehind},
		"an empty database":              {t.TempDir(), [][]byte{early}, ErrBehind},
		"another history of that size":   {fork, [][]byte{late}, ErrBehind},
		"its own history":                {fork, [][]byte{forked}, nil},
		"another history, and longer":    {longer, [][]byte{late}, ErrBehind},
		"no checkpoint":                  {dir, [][]byte{[]byte("hello")}, ErrDamaged},
		"nothing at all":                 {dir, [][]byte{{}}, ErrDamaged},
		"a checkpoint that was altered":  {dir, [][]byte{[]byte(strings.Replace(string(early), "\n300\n", "\n301\n", 1))}, ErrDamaged},
		"a checkpoint of another's key":  {dir, [][]byte{grown(t, t.TempDir(), newKey(t), 0, 3)}, ErrDamaged},
		"a checkpoint of another's name": {dir, [][]byte{[]byte(strings.Replace(string(early), origin, origin+"-2", 2))}, ErrDamaged},
	} {
		if err := opens(t, c.dir, k, c.known...); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestALogThatFollowsAnotherSaysWhatIsMissingBetweenThem(t *testing.T) {
	dir, k := t.TempDir(), newKey(t)
	early := grown(t, dir, k, 0, 300)
	old := copyOf(t, dir)
	known := grown(t, dir, k, 300, 20)
	before := copyOf(t, old)
	s, err := store.Open(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Succeed(t.Context(), s, Config{Origin: origin, Node: "node", Signer: k},
		Succession{Origin: origin + "/r1", Why: "a disk has died", By: "uid:0", Known: known, Data: map[string]any{"copy": "abc"}})
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := l.Commit(t.Context(), issue(400))
	if err != nil || receipt.Indexes[0] != 1 || receipt.Size != 2 {
		t.Fatalf("%+v, %v", receipt, err)
	}
	first, err := l.store.Read(t.Context()).LedgerEntries(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	var entry struct {
		Type string
		Rows map[string]string
		Data struct {
			Previous, Known Link
			Why, Copy       string
		}
	}
	if err := json.Unmarshal(first[0].Entry, &entry); err != nil {
		t.Fatal(err)
	}
	if entry.Type != Opened || entry.Rows["closed_logs/"+origin] == "" || entry.Data.Why != "a disk has died" || entry.Data.Copy != "abc" ||
		entry.Data.Previous.Origin != origin || entry.Data.Previous.Size != 300 || entry.Data.Previous.Checkpoint != string(early) ||
		entry.Data.Known.Size != 320 || entry.Data.Known.Checkpoint != string(known) {
		t.Errorf("%s", first[0].Entry)
	}
	for i, key := range map[int]string{7: l.VerifierKey(), 400: l.VerifierKey()} {
		proven, err := l.EntriesOf(t.Context(), "tok_"+map[int]string{7: "7", 400: "400"}[i])
		if err != nil || len(proven) != 1 {
			t.Fatalf("%d entries of token %d: %v", len(proven), i, err)
		}
		p, name := proven[0], origin+"/r1"
		if i == 7 {
			if key, name = p.Key, origin; !strings.HasPrefix(key, origin+"+") {
				t.Fatalf("the key of a closed log: %q", key)
			}
		}
		if err := logproof.Verify(p.Index, p.Entry, p.Proof, name, key); err != nil {
			t.Errorf("token %d: %v", i, err)
		}
	}
	_, newest, err := s.Read(t.Context()).LedgerCheckpoint()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Somebody with the disk has the head's name written among the closed logs, or into an entry.
	forged := copyOf(t, before)
	tamper(t, forged, fmt.Sprintf(`UPDATE ledger_entries SET idx = idx + (1 << 40); UPDATE ledger_nodes SET idx = idx + (1 << 40);
		UPDATE ledger_checkpoints SET size = size + (1 << 40);
		INSERT INTO closed_logs VALUES (0, '%s/r1', '', 1, x'00', '%s', '2026-01-01T00:00:00.000000000Z')`, origin, origin))
	other := succeeded(t, k, dir)
	tamper(t, other, fmt.Sprintf(`UPDATE ledger_entries SET entry = replace(entry, '"origin":"%s"', '"origin":"%s/r1"') WHERE idx >= (1 << 40)`, origin, origin))
	for name, c := range map[string]struct {
		dir   string
		known []byte
		want  error
	}{
		"its name among the closed logs":          {forged, newest, ErrDamaged},
		"its name in an entry":                    {other, newest, ErrDamaged},
		"it was kept":                             {old, newest, nil},
		"it was not kept before a crash":          {old, known, nil},
		"what it was restored in the place of":    {dir, newest, ErrBehind},
		"the copy that it was made of":            {before, newest, ErrBehind},
		"one that was restored from the same one": {succeeded(t, k, dir), newest, ErrBehind},
	} {
		if err := opens(t, c.dir, k, c.known); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// succeeded restores a copy under another name than the test does.
func succeeded(t *testing.T, k *key, of string) string {
	t.Helper()
	dir := copyOf(t, of)
	s, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	l, err := Succeed(t.Context(), s, Config{Origin: origin, Node: "node", Signer: k}, Succession{Origin: origin + "/r2"})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return dir
}
