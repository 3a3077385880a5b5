package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/finterra/finpay/appliance/store/runs"
)

// Tx is a transaction on the one writing connection. Only package ledger makes and commits one.
//
// Its statements do not carry a caller's context: an interrupted write makes SQLite roll back the whole
// transaction, neighbours included.
type Tx struct {
	Queries
	writing *statements
	touched map[string]string
	tokens  runs.Writer
	counts  []tokenCount      // not yet in SQLite
	domains map[string]uint32 // added in this transaction
	unit    unit
	flushed bool
}

// unit is where the transaction stands in a unit of work.
type unit struct {
	begun bool
	saved bool // its savepoint is open
}

// Begin opens the transaction. The caller is the only writer, and ends it with [Tx.Commit] or [Tx.Rollback].
func (s *Store) Begin() (*Tx, error) {
	tx := &Tx{writing: s.writing, touched: make(map[string]string), tokens: s.tokens.Writer(s.conn)}
	tx.Queries = Queries{ctx: context.Background(), q: lookUps{s.conn}, store: s, tx: tx, log: s.log.Load()}
	if err := tx.Exec("BEGIN IMMEDIATE"); err != nil {
		return nil, err
	}
	if err := tx.tokens.Begin(tx.ctx); err != nil {
		return nil, errors.Join(translate(err), tx.Exec("ROLLBACK"))
	}
	return tx, nil
}

// lookUps refuses what is not a look-up: a write that goes another way than [Tx.Exec] would not be in its unit's savepoint.
type lookUps struct{ conn *sql.Conn }

func (l lookUps) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return l.conn.QueryRowContext(ctx, lookUp(query), args...)
}

func (l lookUps) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return l.conn.QueryContext(ctx, lookUp(query), args...)
}

func lookUp(query string) string {
	if !strings.HasPrefix(query, "SELECT ") {
		panic("store: a write among the look-ups: " + query)
	}
	return query
}

// Mark is a point in a transaction to which [Tx.Rewind] can return.
type Mark struct{ tokens, counts int }

// Mark begins a unit of work, which [Tx.Keep] or [Tx.Rewind] ends. Its savepoint opens with the first statement that writes:
// part of what is written is in memory until the end of the transaction, and a unit of which all is needs none.
func (tx *Tx) Mark() Mark {
	tx.unit = unit{begun: true}
	return Mark{tx.tokens.Mark(), len(tx.counts)}
}

// Keep ends a unit and leaves what it has written to the transaction.
func (tx *Tx) Keep() error {
	ended := tx.unit
	tx.unit = unit{}
	if !ended.saved {
		return nil
	}
	return tx.Exec("RELEASE unit")
}

// Rewind ends a unit and undoes all that was written since the mark. Where that fails, nothing of the transaction may be
// committed.
func (tx *Tx) Rewind(m Mark) error {
	ended := tx.unit
	tx.unit = unit{}
	tx.tokens.Rewind(m.tokens)
	tx.counts = tx.counts[:m.counts]
	tx.touched = make(map[string]string)
	tx.domains = nil // SQLite knows which of them are left
	tx.log = tx.store.log.Load()
	if !ended.saved || !tx.Open() {
		return nil
	}
	if err := tx.Exec("ROLLBACK TO unit"); err != nil {
		return err
	}
	return tx.Exec("RELEASE unit")
}

// Flush writes what is only in memory. It comes after the last unit; [Tx.Commit] does it where it was not done.
func (tx *Tx) Flush() error {
	if tx.flushed {
		return nil
	}
	tx.flushed = true
	if err := tx.tokens.Flush(tx.ctx); err != nil {
		return translate(err)
	}
	return tx.flushTokenCounts()
}

// Commit writes what is left to write and commits. Where it fails, the caller finds out what became of the COMMIT, and calls
// [Tx.Committed] or [Tx.Rollback].
func (tx *Tx) Commit() error {
	if err := tx.Flush(); err != nil {
		return err
	}
	if err := tx.Exec("COMMIT"); err != nil {
		return err
	}
	return tx.Committed()
}

// Committed makes what the transaction has written visible to readers, after a COMMIT.
func (tx *Tx) Committed() error {
	tx.store.log.Store(tx.log)
	return tx.tokens.Committed()
}

// Rollback undoes the whole transaction, which SQLite may have done already.
func (tx *Tx) Rollback() error {
	var err error
	tx.unit = unit{}
	if tx.Open() {
		err = tx.Exec("ROLLBACK")
	}
	return errors.Join(err, translate(tx.tokens.RolledBack(tx.ctx)))
}

// Exec runs a statement of package ledger.
func (tx *Tx) Exec(query string, args ...any) error {
	if err := tx.save(); err != nil {
		return err
	}
	return translate(tx.writing.exec(query, args))
}

// save opens the savepoint of the unit under way, if it is not open yet.
func (tx *Tx) save() error {
	if !tx.unit.begun || tx.unit.saved {
		return nil
	}
	if err := tx.writing.exec("SAVEPOINT unit", nil); err != nil {
		return translate(err)
	}
	tx.unit.saved = true
	return nil
}

// insert runs a statement that writes one row and returns the number that it was given.
func (tx *Tx) insert(number any, query string, args ...any) error {
	if err := tx.save(); err != nil {
		return err
	}
	return translate(tx.q.(lookUps).conn.QueryRowContext(tx.ctx, query, args...).Scan(number))
}

// Open reports whether the transaction is still open: some errors make SQLite roll all of it back.
func (tx *Tx) Open() bool { return tx.writing.inTransaction() }

// Touched returns the rows written since the last call, as "table/key" to the SHA-256 of the row in hex.
func (tx *Tx) Touched() map[string]string {
	touched := tx.touched
	if len(touched) > 0 {
		tx.touched = make(map[string]string)
	}
	return touched
}

// Uncovered reports whether rows were written that no entry covers yet.
func (tx *Tx) Uncovered() bool { return len(tx.touched) > 0 }

// write runs a statement that writes one row which an entry must cover. row is hashed as JSON.
func (tx *Tx) write(table, key string, row any, query string, args ...any) error {
	if err := tx.Exec(query, args...); err != nil {
		return fmt.Errorf("write %s: %w", table, err)
	}
	hash, err := HashRow(row)
	if err != nil {
		return err
	}
	tx.touched[table+"/"+key] = hash
	return nil
}

// HashRow returns the SHA-256, in hex, of a row's JSON.
func HashRow(row any) (string, error) {
	text, err := json.Marshal(row)
	if err != nil {
		return "", fmt.Errorf("hash a row: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
