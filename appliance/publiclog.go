package main

import (
	"context"
	"errors"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// publicLog meets [api.Log]: the signed log as it is read from outside. It shows what a signed checkpoint covers, and
// nothing else.
type publicLog struct {
	*ledger.Ledger
	store *store.Store
}

func (l publicLog) Checkpoint(ctx context.Context) ([]byte, error) {
	text, err := l.Ledger.Checkpoint(ctx)
	return text, notThere(err)
}

func (l publicLog) Cosigned(ctx context.Context) ([]byte, error) {
	checkpoint, err := l.store.Read(ctx).CosignedCheckpoint()
	if errors.Is(err, store.ErrNotFound) {
		return nil, api.ErrNotFound.With("No witness has cosigned this log yet.")
	}
	return checkpoint.Note, err
}

func (l publicLog) Tile(ctx context.Context, tile api.Tile) ([]byte, error) {
	read := l.store.Read(ctx)
	size, _, err := read.LedgerCheckpoint()
	if err != nil {
		return nil, notThere(err)
	}
	if !tile.In(size) {
		return nil, api.ErrNotFound.With("The log has no such tile yet.")
	}
	if tile.Level == api.EntriesLevel {
		return ledger.EntryTile(read, tile.Index*api.TileWidth, tile.Width)
	}
	return ledger.HashTile(read, tile.Level, tile.Index*api.TileWidth, tile.Width)
}

func (l publicLog) Consistency(ctx context.Context, from, to int64) ([]byte, error) {
	read := l.store.Read(ctx)
	size, checkpoint, err := read.LedgerCheckpoint()
	if err != nil {
		return nil, notThere(err)
	}
	if to > 0 && to != size {
		exact, err := read.LedgerCheckpoints(to-1, 1)
		if err != nil {
			return nil, err
		}
		if len(exact) == 0 || exact[0].Size != to {
			return nil, api.ErrNotFound.With("No checkpoint of this size was signed.")
		}
		size, checkpoint = to, exact[0].Note
	}
	if from > size {
		return nil, api.ErrNotFound.With("The log has fewer entries than that.")
	}
	return ledger.ProveConsistency(read, from, size, checkpoint)
}

// notThere translates the error of an empty log.
func notThere(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return api.ErrNotFound.With("The log has no entry yet.")
	}
	return err
}
