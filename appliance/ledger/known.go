package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/finterra/finpay/api/logproof"
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
		if origin := OriginOf(known); origin == l.Origin() {
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
	old, err := OpenCheckpoint(known, l.Origin(), l.VerifierKey())
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
	if _, err := VerifyConsistency(known, proof, l.Origin(), l.VerifierKey()); err != nil {
		return fmt.Errorf("%w: its first %d entries are not those that were signed: %w", ErrBehind, old.Size, err)
	}
	return nil
}

// followed makes sure that this log has come after another one. How much of that one the database has does not matter: whoever
// closed it has said so in the first entry of its successor.
func (l *Ledger) followed(read store.Queries, origin string, known []byte) error {
	if _, err := OpenCheckpoint(known, origin, logproof.KeyNamed(l.VerifierKey(), origin)); err != nil {
		return fmt.Errorf("what is kept outside of the database is no checkpoint under its log's key: %w", err)
	}
	before, err := l.before(read)
	if err != nil {
		return err
	}
	if !before[origin] {
		return fmt.Errorf("%w: its log is %s, and since then %s was opened", ErrBehind, l.Origin(), origin)
	}
	return nil
}

// before returns the names of the logs that this one has followed or replaced, as signed first entries tell: a row of the
// database alone proves nothing.
func (l *Ledger) before(read store.Queries) (map[string]bool, error) {
	names := make(map[string]bool)
	size, checkpoint, err := read.LedgerCheckpoint()
	if errors.Is(err, store.ErrNotFound) {
		return names, nil
	}
	if err != nil {
		return nil, err
	}
	for n := read.Log(); n > 0; n-- {
		opened, err := l.firstEntry(read.InLog(n), size, checkpoint)
		if err != nil {
			return nil, err
		}
		names[opened.Previous.Origin], names[opened.Known.Origin] = true, true
		size, checkpoint = opened.Previous.Size, []byte(opened.Previous.Checkpoint)
	}
	return names, nil
}

// links are what the first entry of a log says of others.
type links struct {
	Previous Link `json:"previous"`
	Known    Link `json:"known"`
}

// firstEntry reads a log's first entry, and proves it under a checkpoint.
func (l *Ledger) firstEntry(read store.Queries, size int64, checkpoint []byte) (links, error) {
	var entry struct {
		Type string `json:"type"`
		Data links  `json:"data"`
	}
	first, err := read.LedgerEntries(0, 1)
	if err != nil {
		return links{}, err
	}
	if len(first) != 1 {
		return links{}, fmt.Errorf("%w: a log without its first entry", ErrDamaged)
	}
	proof, err := Prove(read, 0, size, checkpoint)
	if err != nil {
		return links{}, err
	}
	origin := OriginOf(checkpoint)
	if err := logproof.Verify(0, first[0].Entry, proof, origin, logproof.KeyNamed(l.VerifierKey(), origin)); err != nil {
		return links{}, fmt.Errorf("%w: the first entry of %s: %w", ErrDamaged, origin, err)
	}
	if err := json.Unmarshal(first[0].Entry, &entry); err != nil || entry.Type != Opened {
		return links{}, fmt.Errorf("%w: the first entry of %s does not say which log it follows (%v)", ErrDamaged, origin, err)
	}
	return entry.Data, nil
}
