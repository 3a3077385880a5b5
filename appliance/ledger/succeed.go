package ledger

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/store"
)

// Opened is the type of the first entry of a log that follows another one.
const Opened = "log.opened"

// Succession is how one log follows another.
type Succession struct {
	Origin string // name of the new log, which none had before
	Why    string // for auditors
	By     string // who closes the old one, as entries name an origin; empty for the appliance itself
	Known  []byte // newest checkpoint of the old log that is known outside of the database; nil for none
	Data   map[string]any
}

// Link is what a log's first entry says of another log.
type Link struct {
	Origin     string `json:"origin"`
	Size       int64  `json:"size"`
	Root       string `json:"root"` // base64, as in checkpoints
	Checkpoint string `json:"checkpoint"`
}

// Succeed closes the log of a store, which cfg names, and opens its successor under the same key. The new log's first
// entry has the old one's name, size, root and checkpoint, and how far it was known outside: what is missing
// between the two is lost, and who reads the log sees how much. It commits both or neither. Nothing else may have the log
// open.
func Succeed(ctx context.Context, s *store.Store, cfg Config, next Succession) (*Ledger, error) {
	l, err := follow(ctx, s, cfg, next)
	if err != nil {
		return nil, err
	}
	go l.run()
	return l, nil
}

// roll is a succession, waiting for the committer.
type roll struct {
	next   Succession
	result chan error
}

// Succeed closes the log between two groups of changes and goes on in its successor, as the function of this name does. Nothing
// that waits for its commit notices.
func (l *Ledger) Succeed(next Succession) error {
	r := &roll{next, make(chan error, 1)}
	select {
	case l.rolls <- r:
		return <-r.result
	case <-l.stop:
		return fmt.Errorf("%w: shutting down", ErrUnavailable)
	}
}

func (l *Ledger) succeed(next Succession) error {
	cfg := l.cfg
	cfg.Origin = l.Origin()
	follower, err := follow(context.Background(), l.store, cfg, next)
	if err != nil {
		return err
	}
	l.id.Store(follower.id.Load())
	l.head = follower.head
	return nil
}

// follow closes the log that cfg names and returns its successor, without a committer.
func follow(ctx context.Context, s *store.Store, cfg Config, next Succession) (*Ledger, error) {
	old, err := newLedger(s, cfg)
	if err != nil {
		return nil, err
	}
	if old.head, err = old.verifiedHead(ctx); err != nil {
		return nil, err
	}
	size, note, err := s.Read(ctx).LedgerCheckpoint()
	if err != nil {
		return nil, fmt.Errorf("the log %s has nothing to follow: %w", cfg.Origin, err)
	}
	previous, err := linkTo(note, old.VerifierKey())
	if err != nil {
		return nil, err
	}
	data := map[string]any{"previous": previous, "why": next.Why}
	if next.Known != nil {
		if data["known"], err = linkTo(next.Known, old.VerifierKey()); err != nil {
			return nil, err
		}
	}
	for name, value := range next.Data {
		data[name] = value
	}
	cfg.Origin, cfg.Known = next.Origin, nil
	l, err := newLedger(s, cfg)
	if err != nil {
		return nil, err
	}
	results, head, err := l.attempt([]*unit{{apply: func(tx *Tx) error {
		if err := tx.CloseLog(store.ClosedLog{Origin: previous.Origin, Key: old.VerifierKey(), Size: size, Note: note, Successor: next.Origin, ClosedAt: l.cfg.Now()}); err != nil {
			return err
		}
		actor, by := "operator", next.By
		if by == "" {
			actor, by = "system", "local"
		}
		tx.Record(Entry{Type: Opened, Actor: actor, Origin: by, Outcome: Success, Resource: "log:" + next.Origin, Data: data})
		return nil
	}}})
	if err == nil {
		err = results[0].err
	}
	if err != nil {
		return nil, err
	}
	l.head = head
	return l, nil
}

// linkTo verifies a checkpoint, whatever its log is called, under a public key.
func linkTo(note []byte, vkey string) (Link, error) {
	origin := OriginOf(note)
	checkpoint, err := OpenCheckpoint(note, origin, logproof.KeyNamed(vkey, origin))
	if err != nil {
		return Link{}, err
	}
	if checkpoint.Size == 0 {
		return Link{}, errors.New("ledger: a checkpoint of no entries")
	}
	return Link{origin, int64(checkpoint.Size), base64.StdEncoding.EncodeToString(checkpoint.Hash), string(note)}, nil
}
