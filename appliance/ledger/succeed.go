package ledger

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/finterra/finpay/appliance/store"
)

// Opened is the type of the first entry of a log that follows another one.
const Opened = "log.opened"

// Succession is how one log follows another.
type Succession struct {
	Origin string // name of the new log, which none had before
	Why    string // for auditors
	By     string // who closes the old one, as entries name an origin
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
	previous, err := linkTo(note, old.vkey)
	if err != nil {
		return nil, err
	}
	data := map[string]any{"previous": previous, "why": next.Why}
	if next.Known != nil {
		if data["known"], err = linkTo(next.Known, old.vkey); err != nil {
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
		if err := tx.CloseLog(store.ClosedLog{Origin: previous.Origin, Key: old.vkey, Size: size, Note: note, Successor: next.Origin, ClosedAt: l.cfg.Now()}); err != nil {
			return err
		}
		tx.Record(Entry{Type: Opened, Actor: "operator", Origin: next.By, Outcome: Success, Resource: "log:" + next.Origin, Data: data})
		return nil
	}}})
	if err == nil {
		err = results[0].err
	}
	if err != nil {
		return nil, err
	}
	l.head = head
	go l.run()
	return l, nil
}

// linkTo verifies a checkpoint, whatever its log is called, under a public key.
func linkTo(note []byte, vkey string) (Link, error) {
	origin := OriginOf(note)
	checkpoint, err := OpenCheckpoint(note, origin, KeyNamed(vkey, origin))
	if err != nil {
		return Link{}, err
	}
	if checkpoint.Size == 0 {
		return Link{}, errors.New("ledger: a checkpoint of no entries")
	}
	return Link{origin, int64(checkpoint.Size), base64.StdEncoding.EncodeToString(checkpoint.Hash), string(note)}, nil
}
