package store

import (
	"errors"

	"github.com/mattn/go-sqlite3"

	"github.com/finterra/finpay/pci"
)

// TakeEnvelope remembers what a card came sealed in, so that it is taken once: after that it is [pci.ErrReplayed]. One that
// came open is nothing to remember.
func (tx *Tx) TakeEnvelope(e pci.Envelope) error {
	if e.IsZero() {
		return nil
	}
	err := tx.Exec("INSERT INTO envelopes (key, hash) VALUES (?,?)", e.Key, e.Hash[:16]) // 128 bits tell any two apart
	if sqlite, ok := errors.AsType[sqlite3.Error](err); ok && sqlite.Code == sqlite3.ErrConstraint {
		return pci.ErrReplayed
	}
	return err
}

// ForgetEnvelopes forgets all that was sealed to a key. The key is destroyed: nothing sealed to it opens.
func (tx *Tx) ForgetEnvelopes(key string) error {
	return tx.Exec("DELETE FROM envelopes WHERE key = ?", key)
}
