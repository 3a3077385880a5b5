package tokens

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// errClash means that a value was given to another card between its computation and its entry; sent again, the card gets
// another.
var errClash = api.ErrUnavailable.With("Another card got this token in the same moment. Send this card again.")

// piece is a batch on its way into the registry.
type piece struct {
	caller  api.Caller
	domain  string
	results []api.TokenResult
	fresh   []int         // of results: cards that the registry does not know
	rows    []store.Token // of fresh
	renewed []store.Token // known tokens that become active again, or whose card has another expiry
	bounds  []store.TokenBound
	refused []refusal // that are entered
	once    once
}

// refusal is the first of a series in a day.
type refusal struct {
	series
	limit int
}

// enter commits a batch: new tokens, and what has changed of known ones. What a card's result says of it is committed when
// enter returns.
func (s *Service) enter(ctx context.Context, caller api.Caller, domain string, batch []pci.Tokenized, once once) *piece {
	p := &piece{caller: caller, domain: domain, results: make([]api.TokenResult, len(batch)), once: once}
	s.sort(ctx, p, batch)
	if len(p.rows) == 0 && len(p.renewed) == 0 && len(p.refused) == 0 && once.isNothing() {
		return p
	}
	taken, err := s.commit(ctx, p)
	if err != nil {
		s.undo(p, translate(err))
		return p
	}
	for _, i := range taken {
		p.results[p.fresh[i]] = api.TokenResult{Err: errClash}
		s.bound.giveBack(series{domain, caller.KeyID, p.rows[i].Card.Truncated})
	}
	s.issued.Add(uint64(len(p.rows) - len(taken)))
	return p
}

// sort says of each card what is to be done about it.
func (s *Service) sort(ctx context.Context, p *piece, batch []pci.Tokenized) {
	now := s.cfg.Now()
	var known []int
	seen := make(map[pci.Token]int, len(batch))
	for i := range batch {
		t := &batch[i]
		if t.Err != nil {
			p.results[i].Err = t.Err
			continue
		}
		p.results[i] = api.TokenResult{Token: t.Token.Token, Card: t.Token.Card}
		if first, twice := seen[t.Token.Token]; twice {
			p.results[i].Err = p.results[first].Err
			continue
		}
		seen[t.Token.Token] = i
		if t.Known {
			known = append(known, i)
			continue
		}
		if !s.mayIssue(p, t.Token.Card.Truncated) {
			p.results[i] = api.TokenResult{Err: s.errBound()}
			continue
		}
		p.results[i].Issued = true
		p.fresh = append(p.fresh, i)
		p.rows = append(p.rows, rowOf(p.domain, t.Token, now))
	}
	if len(known) > 0 {
		s.renew(ctx, p, known)
	}
}

func rowOf(domain string, t pci.IssuedToken, at time.Time) store.Token {
	return store.Token{Domain: domain, Token: t.Token, Format: t.Format, KeyVersion: t.KeyVersion, Steps: t.Steps, Image: t.Image, Card: t.Card,
		Status: store.TokenActive, CreatedAt: at.UTC().Truncate(time.Millisecond)} // as the registry keeps it
}

// renew notes what is to change of known tokens: their cards were sent, so they are in use, perhaps with a new expiry.
func (s *Service) renew(ctx context.Context, p *piece, known []int) {
	tokens := make([]pci.Token, len(known))
	for n, i := range known {
		tokens[n] = p.results[i].Token
	}
	err := s.cfg.Store.Read(ctx).Tokens(p.domain, tokens, func(n int, row store.Token) error {
		expiry := p.results[known[n]].Card.Expiry
		later := expiry.After(row.Card.Expiry)
		if row.Status != store.TokenInactive && !later {
			return nil
		}
		row.Status = store.TokenActive
		if later { // an older copy of a renewed card says nothing new
			row.Card.Expiry = expiry
		}
		p.renewed = append(p.renewed, row)
		return nil
	})
	if err != nil {
		p.renewed = nil
		for _, i := range known {
			p.results[i] = api.TokenResult{Err: translate(err)}
		}
	}
}

// mayIssue counts a new card against the bound.
func (s *Service) mayIssue(p *piece, truncated pci.Truncated) bool {
	of := series{p.domain, p.caller.KeyID, truncated}
	t, ok := s.bound.take(of)
	if !ok {
		s.refused.Add(1)
		if s.bound.firstRefusal(of) {
			p.refused = append(p.refused, refusal{of, t.limit})
		}
		return false
	}
	if t.kept() {
		p.bounds = append(p.bounds, store.TokenBound{Period: t.period, Domain: of.domain, KeyID: of.key, Truncated: truncated, Cards: t.n})
	}
	return true
}

func (s *Service) errBound() error {
	wait := *api.ErrTokenBound
	wait.RetryAfter = s.bound.untilTomorrow()
	return &wait
}

// undo takes back what was counted, and answers all that was to be committed with the error.
func (s *Service) undo(p *piece, err error) {
	for i, row := range p.rows {
		s.bound.giveBack(series{p.domain, p.caller.KeyID, row.Card.Truncated})
		p.results[p.fresh[i]] = api.TokenResult{Err: err}
	}
	renewed := make(map[pci.Token]bool, len(p.renewed))
	for _, row := range p.renewed {
		renewed[row.Token] = true
	}
	for i := range p.results {
		if !p.once.isNothing() && p.results[i].Err == nil {
			p.results[i] = api.TokenResult{Err: err}
		}
		if renewed[p.results[i].Token] {
			p.results[i] = api.TokenResult{Err: err}
		}
	}
}

// maxCovered is how many rows one entry covers: each takes some hundred bytes of it.
const maxCovered = 256

func (s *Service) commit(ctx context.Context, p *piece) (taken []int, err error) {
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		taken = nil
		if err := s.issueIn(tx, p, &taken); err != nil {
			return err
		}
		for from := 0; from < len(p.renewed); from += maxCovered {
			if err := s.renewIn(tx, p, p.renewed[from:min(from+maxCovered, len(p.renewed))]); err != nil {
				return err
			}
		}
		if len(p.bounds) > 0 {
			if err := tx.ForgetTokenBounds(today(s.cfg.Now())); err != nil {
				return err
			}
		}
		for _, b := range p.bounds {
			if err := tx.PutTokenBound(b); err != nil {
				return err
			}
		}
		for _, r := range p.refused {
			tx.Record(s.entry("token.bound_reached", p.caller, ledger.Failure, "domain:"+r.domain, map[string]any{"card": string(r.truncated), "bound": r.limit}))
		}
		if len(taken) > 0 { // they are to be sent again, as they are
			return nil
		}
		return s.takeOnce(tx, p)
	})
	return taken, err
}

// issueIn writes the new tokens: one by its own entry, many by one entry for all of them.
func (s *Service) issueIn(tx *ledger.Tx, p *piece, taken *[]int) error {
	switch len(p.rows) {
	case 0:
		return nil
	case 1:
		return s.issueOne(tx, p, taken)
	}
	batch, root, clashes, err := tx.PutTokens(p.rows)
	if err != nil {
		return err
	}
	*taken = clashes
	if batch == 0 {
		return nil // all are there already
	}
	first := p.rows[0]
	tx.Record(s.entry("tokens.issued", p.caller, ledger.Success, "domain:"+p.domain, map[string]any{"batch": batch, "count": len(p.rows) - len(clashes),
		"root": hex.EncodeToString(root[:]), "format": string(first.Format), "key_version": first.KeyVersion}))
	return nil
}

func (s *Service) issueOne(tx *ledger.Tx, p *piece, taken *[]int) error {
	row := p.rows[0]
	_, err := tx.Token(row.Domain, row.Token)
	if err == nil { // another request was first, for the same card or for another
		p.results[p.fresh[0]].Issued = false
	}
	switch err := tx.PutToken(row); {
	case errors.Is(err, store.ErrTokenTaken):
		*taken = []int{0}
		return nil
	case err != nil:
		return err
	}
	if !tx.Uncovered() {
		return nil
	}
	tx.Record(s.entry("token.issued", p.caller, ledger.Success, resourceOf(row.Domain, row.Token), map[string]any{"card": string(row.Card.Truncated),
		"brand": string(row.Card.Brand), "format": string(row.Format), "key_version": row.KeyVersion}))
	return nil
}

func (s *Service) renewIn(tx *ledger.Tx, p *piece, rows []store.Token) error {
	for _, row := range rows {
		now, err := s.standing(tx.Queries, row.Domain, row.Token) // it may be replaced since it was read
		if err != nil {
			return err
		}
		if err := tx.SetTokenState(row.Domain, now.Token, store.TokenState{Status: row.Status, Expiry: row.Card.Expiry, UpdatedAt: s.cfg.Now()}); err != nil {
			return fmt.Errorf("renew a token: %w", err)
		}
	}
	tx.Record(s.entry("tokens.renewed", p.caller, ledger.Success, "domain:"+p.domain, map[string]any{"count": len(rows)}))
	return nil
}
