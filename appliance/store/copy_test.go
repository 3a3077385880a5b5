package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// filled is a store with a database of some size.
func filled(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	insertMany(t, s, 0, 40_000)
	return s
}

func insertMany(t *testing.T, s *Store, from, n int) {
	t.Helper()
	tx, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < from+n; i++ {
		if err := tx.PutLedgerEntry(LedgerEntry{Index: int64(i), Leaf: make([]byte, 32), Entry: fmt.Appendf(nil, `{"resource":"res_%d","filler":"%0400d"}`, i, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestACopyIsOfOneStateWhateverIsWrittenMeanwhile(t *testing.T) {
	s := filled(t)
	dir := t.TempDir()
	steps := 0
	sum, err := s.Copy(t.Context(), dir, func(done, all int) {
		if steps++; done < all { // between two steps, as a payment would
			insertMany(t, s, 40_000+steps, 1)
		}
	})
	if err != nil || len(sum) != 64 || steps < 2 {
		t.Fatalf("%q after %d steps: %v", sum, steps, err)
	}
	copied, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = copied.Close() }()
	if err := copied.Intact(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := copied.Read(t.Context()).LedgerSize(); err != nil || n != 40_000 {
		t.Errorf("the copy has %d entries, and there were 40000 when it was begun: %v", n, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("the copy is %v, %v", files, err)
	}
	if info, err := os.Stat(filepath.Join(dir, FileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := s.Copy(t.Context(), dir, func(int, int) {}); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file that was there: %v", err)
	}
}

func TestACopyEndsWithItsCaller(t *testing.T) {
	s := filled(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Copy(ctx, t.TempDir(), func(done, all int) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	insertMany(t, s, 40_000, 1)
}

func TestADamagedFileIsNotIntact(t *testing.T) {
	s := filled(t)
	dir := t.TempDir()
	if _, err := s.Copy(t.Context(), dir, func(int, int) {}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, FileName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(text[len(text)/2:], make([]byte, 8192))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = damaged.Close() }()
	if err := damaged.Intact(t.Context()); err == nil {
		t.Error("it is said to be intact")
	}
}
