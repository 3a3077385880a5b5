package store

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/finterra/finpay/appliance/store/runs"
	"github.com/finterra/finpay/pci"
)

// writerVariable makes the test binary a writer in the directory that it names, until it is killed.
const writerVariable = "FINPAY_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerVariable); dir != "" {
		fmt.Fprintln(os.Stderr, writeForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// seventeen is how many rows a batch of these tests has: pages and runs end within batches.
const seventeen = 17

func batchOf(n int) []Token {
	var rows []Token
	for i := range seventeen {
		rows = append(rows, numbered("shop", n*seventeen+i+1))
	}
	return rows
}

// writeForEver commits batches and says on standard output how many there are.
func writeForEver(dir string) error {
	s, err := OpenTuned(context.Background(), dir, tiny)
	if err != nil {
		return err
	}
	for n := countRows(s) / seventeen; ; n++ {
		if err := putBatch(s, n); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(os.Stdout, n+1); err != nil {
			return err
		}
	}
}

func countRows(s *Store) int {
	n, _ := s.Read(context.Background()).CountTokensOfVersion(1)
	return n
}

func putBatch(s *Store, n int) error {
	tx, err := s.Begin()
	if err != nil {
		return err
	}
	_, _, taken, err := tx.PutTokens(batchOf(n))
	if err == nil && len(taken) > 0 {
		err = fmt.Errorf("batch %d: %v are taken", n, taken)
	}
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return nil
}

// checkBatches holds a registry against the first batches, and nothing else.
func checkBatches(t *testing.T, s *Store, batches int) {
	t.Helper()
	q := s.Read(t.Context())
	if n := countRows(s); n != batches*seventeen {
		t.Fatalf("%d rows are counted, want %d", n, batches*seventeen)
	}
	for n := range batches {
		want := make(map[pci.Token]Token)
		var tokens []pci.Token
		for _, row := range batchOf(n) {
			row.Batch = int64(n + 1)
			want[row.Token], tokens = row, append(tokens, row.Token)
		}
		found := 0
		if err := q.Tokens("shop", tokens, func(_ int, got Token) error {
			if found++; got != want[got.Token] {
				return fmt.Errorf("%+v, want %+v", got, want[got.Token])
			}
			return nil
		}); err != nil || found != seventeen {
			t.Fatalf("batch %d: %d rows, %v", n, found, err)
		}
	}
	listed, err := q.ListTokens("shop", "", 1<<20)
	if err != nil || len(listed) != batches*seventeen {
		t.Fatalf("%d rows are listed, want %d: %v", len(listed), batches*seventeen, err)
	}
}

func TestARegistryWhoseWriterIsKilledIsWhole(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		command := exec.CommandContext(t.Context(), os.Args[0])
		command.Env = append(os.Environ(), writerVariable+"="+dir)
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		told, lines := 0, bufio.NewScanner(out)
		for range 1 + random.IntN(25) {
			if !lines.Scan() {
				t.Fatal("the writer has ended by itself")
			}
			told, _ = strconv.Atoi(lines.Text())
		}
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before it died
			told, _ = strconv.Atoi(lines.Text())
		}
		_ = command.Wait()
		s, err := OpenTuned(t.Context(), dir, tiny)
		if err != nil {
			t.Fatal(err)
		}
		batches := countRows(s) / seventeen
		if batches < told || batches > told+1 {
			t.Errorf("%d batches, and %d were reported as committed", batches, told)
		}
		checkBatches(t, s, batches)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// copyDatabase takes what a power cut would leave.
func copyDatabase(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{FileName, FileName + "-wal"} {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// breaking is a connection on which one statement fails, and which may be copied there.
type breaking struct {
	runs.WritingSQL
	left  int // statements before that
	broke func()
}

var errBroken = errors.New("the disk is full")

func (b *breaking) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if b.left--; b.left == -1 {
		b.broke()
		return nil, errBroken
	}
	return b.WritingSQL.ExecContext(ctx, query, args...)
}

// Each statement of each commit fails once, across flushes and merges; so does COMMIT itself. The registry goes on from
// the commit before, and so does a process that opens what was on disk at that point.
func TestARegistryStandsAFailureAtEachStatement(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenTuned(t.Context(), dir, tiny)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	const batches = 16
	breaks := 0
	for n := range batches {
		for left := 0; ; left++ {
			tx, err := s.Begin()
			if err != nil {
				t.Fatal(err)
			}
			tx.tokens = s.tokens.Writer(&breaking{s.conn, left, func() {
				if breaks++; breaks%7 == 0 {
					reopened(t, dir, n)
				}
			}})
			if _, _, _, err = tx.PutTokens(batchOf(n)); err != nil {
				t.Fatal(err)
			}
			err = tx.Flush()
			if err == nil {
				if err := tx.Exec("COMMIT"); err != nil {
					t.Fatal(err)
				}
				if err := tx.Committed(); err != nil {
					t.Fatal(err)
				}
				break
			}
			tx.tokens = s.tokens.Writer(s.conn)
			if rollback := tx.Rollback(); !errors.Is(err, errBroken) || rollback != nil {
				t.Fatalf("%v, %v", err, rollback)
			}
			checkBatches(t, s, n)
		}
	}
	checkBatches(t, s, batches)
	if breaks < 3*batches {
		t.Errorf("only %d statements have failed", breaks)
	}
}

// The outcome of a COMMIT is unknown and the database cannot be read at that moment: the next transaction finds out.
func TestARegistryFindsOutWhatBecameOfACommit(t *testing.T) {
	for _, landed := range []bool{true, false} {
		t.Run(fmt.Sprintf("landed %v", landed), func(t *testing.T) {
			s, err := OpenTuned(t.Context(), t.TempDir(), tiny)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			batches := 0
			for range 40 {
				tx, err := s.Begin()
				if err != nil {
					t.Fatal(err)
				}
				if _, _, _, err := tx.PutTokens(batchOf(batches)); err != nil {
					t.Fatal(err)
				}
				if err := tx.Flush(); err != nil {
					t.Fatal(err)
				}
				end := "ROLLBACK"
				if landed {
					end = "COMMIT"
					batches++
				}
				if err := tx.Exec(end); err != nil {
					t.Fatal(err)
				}
				away, cancel := context.WithCancel(t.Context())
				cancel()
				if err := tx.tokens.RolledBack(away); err == nil {
					t.Fatal("the tree was read without a database")
				}
				if err := putBatch(s, batches); err != nil {
					t.Fatal(err)
				}
				batches++
				checkBatches(t, s, batches)
			}
		})
	}
}

// reopened checks a copy of the database and goes on in it.
func reopened(t *testing.T, dir string, batches int) {
	t.Helper()
	s, err := OpenTuned(t.Context(), copyDatabase(t, dir), tiny)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	checkBatches(t, s, batches)
	for n := range 3 {
		if err := putBatch(s, batches+n); err != nil {
			t.Fatal(err)
		}
	}
	checkBatches(t, s, batches+3)
}

func TestAReaderMissesNothingWhileRowsMove(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenTuned(t.Context(), dir, tiny)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	beside, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = beside.Close() }()
	const batches = 150
	var mu sync.Mutex
	committed := 0
	done := make(chan struct{})
	var readers sync.WaitGroup
	for reader, from := range []*Store{s, s, s, beside} {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(reader)))
			for {
				select {
				case <-done:
					return
				default:
				}
				mu.Lock()
				n := committed
				mu.Unlock()
				if n > 0 && !t.Failed() {
					readSome(t, from, random, n)
				}
			}
		})
	}
	for n := range batches {
		if err := putBatch(s, n); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		committed = n + 1
		mu.Unlock()
	}
	close(done)
	readers.Wait()
	checkBatches(t, s, batches)
	checkBatches(t, beside, batches)
	if stats := s.TokenStats(); stats.Runs < 2 || stats.Runs > 14 {
		t.Errorf("%d runs of %d rows: nothing was merged", stats.Runs, batches*seventeen)
	}
}

func readSome(t *testing.T, s *Store, random *rand.Rand, committed int) {
	row := numbered("shop", 1+random.IntN(committed*seventeen))
	got, err := s.Read(t.Context()).Token("shop", row.Token)
	if row.Batch = got.Batch; err != nil || got != row {
		t.Errorf("%+v, %v; want %+v", got, err, row)
	}
	if row.Image != "" {
		if got, err := s.Read(t.Context()).TokenByImage("shop", row.Image); err != nil || got.Token != row.Token {
			t.Errorf("by image: %+v, %v", got, err)
		}
	}
	if random.IntN(10) == 0 {
		if list, err := s.Read(t.Context()).ListTokens("shop", "", 1<<20); err != nil || len(list) < committed*seventeen {
			t.Errorf("%d rows are listed of %d: %v", len(list), committed*seventeen, err)
		}
	}
}
