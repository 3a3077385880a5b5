package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// Limits of an import. A truncation of 16 digits has 100,000 cards: an import is never a search through most of them.
const (
	MaxImportBound = 50_000
	MaxImportTime  = 31 * 24 * time.Hour
	maxReason      = 200
)

// OpenImport lets an API key have more cards tokenized that begin and end alike, for some time: bound of each truncation, in
// all of it. A key has one import at a time.
func OpenImport(ctx context.Context, l *ledger.Ledger, by ledger.Operator, keyID string, bound int, length time.Duration, reason string) (store.Import, error) {
	now := time.Now()
	i := store.Import{ID: store.NewID("imp"), KeyID: keyID, Bound: bound, OpenedAt: now, Until: now.Add(length)}
	switch {
	case bound < 1 || bound > MaxImportBound:
		return i, fmt.Errorf("the bound of an import is 1 to %d cards that begin and end alike", MaxImportBound)
	case length <= 0 || length > MaxImportTime:
		return i, fmt.Errorf("an import is open for %v at most", MaxImportTime)
	case strings.TrimSpace(reason) == "" || len(reason) > maxReason:
		return i, fmt.Errorf("a reason of at most %d bytes is wanted: it stands in the signed log", maxReason)
	case pci.LooksLikePAN(reason):
		return i, errors.New("the reason holds what looks like a card number: it would stand in the signed log for ever")
	}
	_, err := l.Commit(ctx, func(tx *ledger.Tx) error {
		key, err := tx.APIKey(keyID)
		if err != nil {
			return fmt.Errorf("API key %s: %w", keyID, err)
		}
		if !slices.Contains(strings.Fields(key.Scopes), string(api.ScopeTokens)) || !key.RevokedAt.IsZero() {
			return fmt.Errorf("API key %s is revoked, or has not the scope tokens", keyID)
		}
		open, err := tx.OpenImports()
		if err != nil {
			return err
		}
		for _, other := range open {
			if other.KeyID == keyID && now.Before(other.Until) {
				return fmt.Errorf("import %s is open for this API key until %s: close it first", other.ID, other.Until.UTC().Format(time.RFC3339))
			}
		}
		if err := tx.PutImport(i); err != nil {
			return err
		}
		tx.Record(by.Entry("import.opened", "key:"+keyID, map[string]any{"import": i.ID, "bound": bound, "until": i.Until.UTC().Format(time.RFC3339), "reason": reason}))
		return nil
	})
	return i, err
}

// CloseImport ends an import before its time.
func CloseImport(ctx context.Context, l *ledger.Ledger, by ledger.Operator, id string) error {
	_, err := l.Commit(ctx, func(tx *ledger.Tx) error {
		open, err := tx.OpenImports()
		if err != nil {
			return err
		}
		for _, i := range open {
			if i.ID != id {
				continue
			}
			i.ClosedAt = time.Now()
			if err := tx.PutImport(i); err != nil {
				return err
			}
			tx.Record(by.Entry("import.closed", "key:"+i.KeyID, map[string]any{"import": i.ID}))
			return nil
		}
		return fmt.Errorf("there is no open import %s", id)
	})
	return err
}

// Imports returns those that are open at a time, oldest first.
func Imports(read store.Queries, now time.Time) ([]store.Import, error) {
	list, err := read.OpenImports()
	return slices.DeleteFunc(list, func(i store.Import) bool { return !now.Before(i.Until) }), err
}

// LoadImports takes notice of what was opened or closed.
func (s *Service) LoadImports(ctx context.Context) error {
	open, err := Imports(s.cfg.Store.Read(ctx), s.cfg.Now())
	if err != nil {
		return fmt.Errorf("tokens: imports: %w", err)
	}
	s.bound.open(open)
	return nil
}

// restoreBounds counts what an earlier process has kept.
func (s *Service) restoreBounds(ctx context.Context) error {
	read := s.cfg.Store.Read(ctx)
	periods := []string{today(s.cfg.Now())}
	open, err := Imports(read, s.cfg.Now())
	for _, i := range open {
		periods = append(periods, i.ID)
	}
	for _, period := range periods {
		var kept []store.TokenBound
		if err == nil {
			kept, err = read.TokenBounds(period)
		}
		for _, k := range kept {
			s.bound.restore(k)
		}
	}
	if err != nil {
		return fmt.Errorf("tokens: counts of cards that begin and end alike: %w", err)
	}
	return nil
}
