package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// Changes implements [api.Tokens].
func (s *Service) Changes(ctx context.Context, caller api.Caller, named string, page api.ChangePage) (api.TokenChanges, error) {
	domain, err := s.domain(caller, named)
	if err != nil {
		return api.TokenChanges{}, err
	}
	read := s.cfg.Store.Read(ctx)
	changes, err := standOf(read, domain)
	if err != nil {
		return changes, translate(err)
	}
	after := changes.Acknowledged
	if page.After != nil {
		after = *page.After
	}
	rows, err := read.TokenChanges(domain, after, page.Limit)
	if err != nil {
		return changes, translate(err)
	}
	for _, c := range rows {
		changes.Changes = append(changes.Changes, api.TokenChange{Seq: c.Seq, Old: c.Old, New: c.New, At: c.At})
	}
	return changes, nil
}

// standOf says how far a domain has come.
func standOf(read store.Queries, domain string) (api.TokenChanges, error) {
	changes := api.TokenChanges{Domain: domain, Changes: []api.TokenChange{}}
	ack, err := read.DomainAck(domain)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return changes, err
	}
	changes.Acknowledged = ack.Seq
	changes.Newest, err = read.LastTokenChange(domain, everything)
	return changes, err
}

// AcknowledgeChanges implements [api.Tokens].
func (s *Service) AcknowledgeChanges(ctx context.Context, caller api.Caller, named string, through int64) (api.TokenChanges, error) {
	domain, err := s.domain(caller, named)
	if err != nil {
		return api.TokenChanges{}, err
	}
	entry := s.entry("tokens.changes_acknowledged", caller, ledger.Success, "domain:"+domain, map[string]any{"through": through})
	changes, err := acknowledge(ctx, s.cfg.Ledger, domain, through, s.cfg.Now(), entry)
	s.Wake()
	return changes, translate(err)
}

// Acknowledge says for a domain that it uses its new tokens. It is for domains that nobody speaks for any more.
func Acknowledge(ctx context.Context, l *ledger.Ledger, by ledger.Operator, domain string, through int64) (api.TokenChanges, error) {
	return acknowledge(ctx, l, domain, through, time.Now(), by.Entry("tokens.changes_acknowledged", "domain:"+domain, map[string]any{"through": through}))
}

func acknowledge(ctx context.Context, l *ledger.Ledger, domain string, through int64, at time.Time, entry ledger.Entry) (changes api.TokenChanges, err error) {
	_, err = l.Commit(ctx, func(tx *ledger.Tx) error {
		var err error
		if changes, err = standOf(tx.Queries, domain); err != nil {
			return err
		}
		switch {
		case through > changes.Newest:
			return api.ErrInvalid.At("/through").With("The domain's newest change has the number %d.", changes.Newest)
		case through <= changes.Acknowledged:
			return nil // it was said before
		}
		if err := tx.PutDomainAck(store.DomainAck{Domain: domain, Seq: through, At: at}); err != nil {
			return fmt.Errorf("acknowledge changes of %s: %w", domain, err)
		}
		changes.Acknowledged = through
		tx.Record(entry)
		return nil
	})
	return changes, err
}
