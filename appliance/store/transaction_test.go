package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
)

func savepointIsOpen(tx *Tx) bool { return tx.writing.exec("RELEASE unit", nil) == nil }

func TestAUnitInMemoryNeedsNoSavepoint(t *testing.T) {
	tx := begin(t)
	if err := tx.PutToken(numbered("d", 1)); err != nil { // the domain is known now
		t.Fatal(err)
	}
	mark := tx.Mark()
	if err := tx.PutToken(numbered("d", 2)); err != nil {
		t.Fatal(err)
	}
	if savepointIsOpen(tx) {
		t.Error("a savepoint was opened for rows in memory")
	}
	if err := tx.Rewind(mark); err != nil {
		t.Fatal(err)
	}
	if n, err := tx.CountTokensOfVersion(1); err != nil || n != 1 {
		t.Errorf("%d tokens: %v", n, err)
	}
	if _, err := tx.Token("d", numbered("d", 2).Token); !errors.Is(err, ErrNotFound) {
		t.Errorf("the row is there: %v", err)
	}
}

// Each way to write is undone with its unit, and keeps what was written before it.
func TestAUnitIsUndoneWhicheverWayItWrote(t *testing.T) {
	for name, write := range map[string]func(tx *Tx) error{
		"a row":    func(tx *Tx) error { return tx.PutMerchant(Merchant{ID: "mer_2"}) },
		"a number": func(tx *Tx) error { _, err := tx.Next("n"); return err },
		"a domain": func(tx *Tx) error { return tx.PutToken(numbered("new", 1)) },
		"a change of tokens": func(tx *Tx) error {
			_, _, err := tx.ReplaceTokens([]Token{numbered("d", 1)}, []pci.Token{"9"}, issuedAt)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			tx := begin(t)
			dump := func() (n int64) {
				err := tx.q.QueryRowContext(tx.ctx, "SELECT (SELECT count(*) FROM merchants) + (SELECT count(*) FROM sequences) + "+
					"(SELECT count(*) FROM token_domains) + (SELECT count(*) FROM token_changes)").Scan(&n)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			if err := tx.PutMerchant(Merchant{ID: "mer_1"}); err != nil {
				t.Fatal(err)
			}
			mark := tx.Mark()
			if err := write(tx); err != nil || dump() != 2 {
				t.Fatalf("%d rows: %v", dump(), err)
			}
			if err := tx.Rewind(mark); err != nil || dump() != 1 || tx.Uncovered() {
				t.Errorf("%d rows are left: %v", dump(), err)
			}
			tx.Mark()
			if err := write(tx); err != nil {
				t.Fatal(err)
			}
			if err := tx.Keep(); err != nil || dump() != 2 || savepointIsOpen(tx) {
				t.Errorf("%d rows were kept: %v", dump(), err)
			}
		})
	}
}

func TestAWriteAmongTheLookUpsIsRefused(t *testing.T) {
	tx := begin(t)
	defer func() {
		if recover() == nil {
			t.Error("it was run, outside its unit's savepoint")
		}
	}()
	tx.q.QueryRowContext(tx.ctx, "INSERT INTO sequences (name, value) VALUES ('n', 1) RETURNING value")
}

func TestAClosedStoreKeepsNoFileOpen(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := putBatch(s, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context()).LedgerSize(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(open) == 0 {
		t.Fatalf("%d files: %v", len(open), err)
	}
	for _, fd := range open {
		if path, err := os.Readlink(fd); err == nil && strings.HasPrefix(path, dir) {
			t.Errorf("%s is open", path)
		}
	}
}
