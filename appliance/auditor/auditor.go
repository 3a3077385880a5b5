// Package auditor shows the signed log to those who audit it: search, entries with their proofs, exports. It also knows who they
// are.
//
// # What is promised
//
// Every look is itself an entry, committed before anything is shown (PCI DSS 10.2.1.3): audit.viewed or audit.exported, with
// who asked, from where and for what. Of what was asked the entry repeats only what the log has already, so that a search
// brings nothing new into a record that cannot forget. People are named by an id there; the name that belongs to it lies in
// a row that can be deleted.
//
// What is shown is read from the log itself and held against its leaf. Package postings only says where to look.
//
// # What is not
//
// A search is only as complete as the index, which nobody signs: it is for finding. Completeness is proven by
// `finpay verify`.
package auditor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/appliance/store/postings"
	"github.com/finterra/finpay/pci"
)

// Logins records refused logins, one entry a minute and address, and returns [api.ErrUnauthorized].
type Logins interface {
	Refused(ctx context.Context, resource, origin string) error
}

// Config of a [Service].
type Config struct {
	Store  *store.Store
	Ledger *ledger.Ledger
	Index  *postings.Index
	Logins Logins
	Now    func() time.Time
	Log    *slog.Logger
}

// Service is safe for concurrent use.
type Service struct {
	cfg   Config
	adds  chan struct{} // held by whoever adds to the index
	tiles tileReaders
}

// New returns a service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, adds: make(chan struct{}, 1), tiles: tileReaders{told: make(map[string]time.Time)}}
}

// record commits one entry.
func (s *Service) record(ctx context.Context, e ledger.Entry) error {
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		tx.Record(e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: a look at the log could not be recorded: %w", pci.ErrUnavailable, err)
	}
	return nil
}

// looked enters what somebody has looked at.
func (s *Service) looked(ctx context.Context, by api.Viewer, kind, resource string, data map[string]any) error {
	return s.record(ctx, ledger.Entry{Type: kind, Actor: by.Actor, Origin: by.Origin, Outcome: ledger.Success, Resource: resource, Data: data})
}

// Types of entries about looks.
const (
	viewed   = "audit.viewed"
	exported = "audit.exported"
)

// Entry implements [api.Audit].
func (s *Service) Entry(ctx context.Context, by api.Viewer, index int64) (api.ProvenEntry, error) {
	read := s.cfg.Store.Read(ctx)
	size, checkpoint, err := read.LedgerCheckpoint()
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return api.ProvenEntry{}, unavailable(err)
	}
	if index >= size {
		return api.ProvenEntry{}, api.ErrNotFound.With("The log has no such entry yet.")
	}
	e, err := s.entry(read, index)
	if err != nil {
		return api.ProvenEntry{}, err
	}
	proof, err := ledger.Prove(read, index, size, checkpoint)
	if err != nil {
		return api.ProvenEntry{}, err
	}
	if err := s.looked(ctx, by, viewed, fmt.Sprintf("entry:%d", index), nil); err != nil {
		return api.ProvenEntry{}, err
	}
	return api.ProvenEntry{AuditEntry: e.shown(), Proof: string(proof)}, nil
}

// State implements [api.Audit].
func (s *Service) State(ctx context.Context, by api.Viewer) (api.LogState, error) {
	if err := s.looked(ctx, by, viewed, "log", map[string]any{"what": "state"}); err != nil {
		return api.LogState{}, err
	}
	size, _, err := s.cfg.Store.Read(ctx).LedgerCheckpoint()
	if err != nil {
		return api.LogState{}, unavailable(err)
	}
	checkpoint, err := s.cfg.Ledger.Checkpoint(ctx)
	if err != nil {
		return api.LogState{}, unavailable(err)
	}
	return api.LogState{Origin: s.cfg.Ledger.Origin(), Size: size, Checkpoint: string(checkpoint),
		VerifierKey: s.cfg.Ledger.VerifierKey(), WitnessKey: s.cfg.Ledger.WitnessKey()}, nil
}

// tileReaders are those who read the log by tiles, and when an entry last told of it.
type tileReaders struct {
	mu   sync.Mutex
	told map[string]time.Time
}

// tilesEvery is how often an entry tells that somebody reads tiles. Reading ten million entries takes 80,000 requests; an
// entry for each would make the log grow while it is read.
const tilesEvery = time.Minute

// Tiles implements [api.Audit].
func (s *Service) Tiles(ctx context.Context, by api.Viewer) error {
	reader, now := by.Actor+" "+by.Origin, s.cfg.Now()
	s.tiles.mu.Lock()
	defer s.tiles.mu.Unlock() // others wait: nobody is shown a tile before the entry is there
	for who, at := range s.tiles.told {
		if now.Sub(at) >= tilesEvery || at.After(now) {
			delete(s.tiles.told, who)
		}
	}
	if _, ok := s.tiles.told[reader]; ok {
		return nil
	}
	if err := s.looked(ctx, by, viewed, "log", map[string]any{"what": "tiles"}); err != nil {
		return err
	}
	s.tiles.told[reader] = now
	return nil
}

// unavailable marks faults of the database.
func unavailable(err error) error { return fmt.Errorf("%w: %w", pci.ErrUnavailable, err) }
