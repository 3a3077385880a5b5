package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/finterra/finpay/appliance/store"
)

// OriginOf returns the name in a checkpoint, which proves nothing yet.
func OriginOf(checkpoint []byte) string {
	origin, _, _ := strings.Cut(string(checkpoint), "\n")
	return origin
}

// holdKnown holds the log against what is known of it outside of the database.
func (l *Ledger) holdKnown(ctx context.Context) error {
	read := l.store.Read(ctx)
	for _, known := range l.cfg.Known {
		var err error
		if origin := OriginOf(known); origin == l.cfg.Origin {
			err = l.beginsWith(read, known)
		} else {
			err = l.followed(read, origin, known)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// beginsWith proves from the stored hashes that the signed head is of a log which begins with a known one.
func (l *Ledger) beginsWith(read store.Queries, known []byte) error {
	old, err := OpenCheckpoint(known, l.cfg.Origin, l.vkey)
	if err != nil {
		return fmt.Errorf("what is kept outside of the database is no checkpoint of its log: %w", err)
	}
	size, newest, err := read.LedgerCheckpoint()
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if uint64(size) < old.Size {
		return fmt.Errorf("%w: it has %d entries, and %d were signed", ErrBehind, size, old.Size)
	}
	proof, err := ProveConsistency(read, int64(old.Size), size, newest)
	if err != nil {
		return err
	}
	if _, err := VerifyConsistency(known, proof, l.cfg.Origin, l.vkey); err != nil {
		return fmt.Errorf("%w: its first %d entries are not those that were signed: %w", ErrBehind, old.Size, err)
	}
	return nil
}

// followed makes sure that this log has come after another one. How much of that one the database has does not matter: whoever
// closed it has said so in the first entry of its successor.
func (l *Ledger) followed(read store.Queries, origin string, known []byte) error {
	if _, err := OpenCheckpoint(known, origin, KeyNamed(l.vkey, origin)); err != nil {
		return fmt.Errorf("what is kept outside of the database is no checkpoint under its log's key: %w", err)
	}
	closed, err := read.ClosedLogs()
	if err != nil {
		return err
	}
	for _, c := range closed {
		if c.Origin == origin {
			return nil
		}
	}
	return fmt.Errorf("%w: its log is %s, and since then %s was opened", ErrBehind, l.cfg.Origin, origin)
}
