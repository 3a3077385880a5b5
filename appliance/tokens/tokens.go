// Package tokens issues tokens to those who ask for them by API, and keeps their registry: it decides who may, commits what
// was decided with its signed entry, and answers after that.
//
// # What is promised
//
//   - A token that was answered is signed and durable.
//   - A card has one token in a domain, whoever asks and however often.
//   - One API key cannot search for a card: see [Config.Bound].
//   - A card leaves only sealed to a recipient that was registered for the API key, after the entry that tells of it.
//
// No digit passes through here.
package tokens

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// Cards reads cards from unread bodies and computes their tokens.
type Cards interface {
	// One reads one card. A sealed one must have been sealed under info.
	One(r *http.Request, domain string, info []byte) (pci.Tokenized, error)
	// Stream reads one card a line, and calls each with what became of them, in order. A sealed stream first asks begin.
	Stream(ctx context.Context, body io.ReadCloser, domain string, info []byte, begin func(pci.Envelope) error, each func([]pci.Tokenized) error) error
}

// Release seals the card behind a token to a recipient's public key.
type Release interface {
	Seal(ctx context.Context, domain string, token pci.Token, recipient, info []byte) (enc, ct []byte, err error)
}

// Requests tells repeats of requests.
type Requests interface {
	// RequestMAC is what is kept of a request to recognise its repeat.
	RequestMAC(ctx context.Context, request []byte) ([]byte, error)
}

// Config of a [Service].
type Config struct {
	Store   *store.Store
	Ledger  *ledger.Ledger
	Cards   Cards
	Release Release
	Keys    Keys

	Requests Requests
	Domains  []api.Domain // that are configured
	// Bound is how many different new cards of one first six and last four digits an API key may have tokenized in a domain
	// and day.
	Bound int
	Now   func() time.Time
	Log   *slog.Logger
}

// Service is safe for concurrent use.
type Service struct {
	cfg     Config
	domains map[string]api.Domain
	bound   *bound
	wake    chan struct{}

	issued, refused, notIssued atomic.Uint64
}

// New returns a service, which knows how near to the bound today's callers are.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{cfg: cfg, domains: make(map[string]api.Domain), bound: newBound(cfg.Bound, cfg.Now), wake: make(chan struct{}, 1)}
	for _, d := range cfg.Domains {
		s.domains[d.ID] = d
	}
	if err := s.LoadImports(ctx); err != nil {
		return nil, err
	}
	return s, s.restoreBounds(ctx)
}

// Stats are counts since the start.
type Stats struct {
	Issued    uint64 // new tokens
	Refused   uint64 // cards beyond the bound
	NotIssued uint64 // questions about tokens that were never issued
}

// Stats returns the counts.
func (s *Service) Stats() Stats {
	return Stats{s.issued.Load(), s.refused.Load(), s.notIssued.Load()}
}

// domain returns the domain that a request means, if its caller may use it.
func (s *Service) domain(caller api.Caller, named string) (string, error) {
	if named == "" {
		named = caller.Domain
	}
	if _, ok := s.domains[named]; !ok || named != caller.Domain {
		return "", api.ErrNoDomain
	}
	return named, nil
}

// Issue implements [api.Tokens].
func (s *Service) Issue(r *http.Request, caller api.Caller, named, idempotencyKey string) (api.Token, bool, error) {
	domain, err := s.domain(caller, named)
	if err != nil {
		return api.Token{}, false, err
	}
	card, err := s.cfg.Cards.One(r, domain, pci.SealedCardInfo(named, caller.KeyID))
	if err != nil {
		return api.Token{}, false, err
	}
	once := once{envelope: card.Envelope}
	if idempotencyKey != "" {
		if once.request, err = s.request(r.Context(), caller, domain, idempotencyKey, card); err != nil {
			return api.Token{}, false, err
		}
		if token, issued, done, err := s.repeat(r.Context(), caller, named, once.request); done {
			return token, issued, err
		}
	}
	p := s.enter(r.Context(), caller, domain, []pci.Tokenized{card}, once)
	result := p.results[0]
	switch {
	case errors.Is(result.Err, errRepeat):
		token, issued, _, err := s.repeat(r.Context(), caller, named, once.request)
		return token, issued, err
	case result.Err != nil:
		return api.Token{}, false, result.Err
	case result.Issued:
		return shown(p.rows[0]), true, nil
	}
	token, err := s.Get(r.Context(), caller, named, result.Token)
	return token, false, err
}

// IssueAll implements [api.Tokens].
func (s *Service) IssueAll(r *http.Request, caller api.Caller, named string, answer func([]api.TokenResult) error) error {
	domain, err := s.domain(caller, named)
	if err != nil {
		return err
	}
	begin := func(e pci.Envelope) error {
		_, err := s.cfg.Ledger.Commit(r.Context(), func(tx *ledger.Tx) error { return tx.TakeEnvelope(e) })
		return translate(err)
	}
	return s.cfg.Cards.Stream(r.Context(), r.Body, domain, pci.SealedCardInfo(named, caller.KeyID), begin, func(batch []pci.Tokenized) error {
		return answer(s.enter(r.Context(), caller, domain, batch, once{}).results)
	})
}

// Get implements [api.Tokens].
func (s *Service) Get(ctx context.Context, caller api.Caller, named string, token pci.Token) (api.Token, error) {
	domain, err := s.domain(caller, named)
	if err != nil {
		return api.Token{}, err
	}
	row, err := s.row(s.cfg.Store.Read(ctx), domain, token)
	if err != nil {
		return api.Token{}, err
	}
	return shown(row), nil
}

func (s *Service) row(read store.Queries, domain string, token pci.Token) (store.Token, error) {
	row, err := read.Token(domain, token)
	if errors.Is(err, store.ErrNotFound) {
		s.notIssued.Add(1)
		return row, pci.ErrNotIssued
	}
	return row, translate(err)
}

// standing returns the token that a request about one is for: where that is replaced and still works, its successor.
func (s *Service) standing(read store.Queries, domain string, token pci.Token) (store.Token, error) {
	row, err := s.row(read, domain, token)
	for err == nil && row.Status == store.TokenReplaced {
		over, e := s.over(read, row)
		switch {
		case e != nil:
			return row, e
		case over:
			return row, api.ErrTokenReplaced
		}
		row, err = s.row(read, domain, row.ReplacedBy)
	}
	return row, err
}

func shown(t store.Token) api.Token {
	return api.Token{Token: t.Token, Domain: t.Domain, Format: t.Format, Status: api.TokenStatus(t.Status), ReplacedBy: t.ReplacedBy, CreatedAt: t.CreatedAt,
		Card: api.Card{Brand: t.Card.Brand, Truncated: t.Card.Truncated, Expiry: t.Card.Expiry.String()}}
}

// Deactivate implements [api.Tokens].
func (s *Service) Deactivate(ctx context.Context, caller api.Caller, named string, token pci.Token) (api.Token, error) {
	domain, err := s.domain(caller, named)
	if err != nil {
		return api.Token{}, err
	}
	var row store.Token
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		var err error
		if row, err = s.standing(tx.Queries, domain, token); err != nil || row.Status == store.TokenInactive {
			return err
		}
		row.Status = store.TokenInactive
		if err := tx.SetTokenState(domain, row.Token, store.TokenState{Status: row.Status, Expiry: row.Card.Expiry, UpdatedAt: s.cfg.Now()}); err != nil {
			return err
		}
		tx.Record(s.entry("token.deactivated", caller, ledger.Success, resourceOf(domain, row.Token), map[string]any{"card": string(row.Card.Truncated)}))
		return nil
	})
	if err != nil {
		return api.Token{}, translate(err)
	}
	return shown(row), nil
}

// List implements [api.Tokens].
func (s *Service) List(ctx context.Context, caller api.Caller, named string, page api.TokenPage) (api.TokenList, error) {
	domain, err := s.domain(caller, named)
	if err != nil {
		return api.TokenList{}, err
	}
	rows, err := s.cfg.Store.Read(ctx).ListTokens(domain, pci.Token(page.Cursor), page.Limit+1)
	if err != nil {
		return api.TokenList{}, translate(err)
	}
	list := api.TokenList{Tokens: []api.Token{}}
	for _, row := range rows[:min(len(rows), page.Limit)] {
		list.Tokens = append(list.Tokens, shown(row))
	}
	if len(rows) > page.Limit {
		list.NextCursor = string(rows[page.Limit-1].Token)
	}
	return list, nil
}

// Domains implements [api.Tokens].
func (s *Service) Domains(_ context.Context, caller api.Caller) ([]api.Domain, error) {
	if d, ok := s.domains[caller.Domain]; ok {
		return []api.Domain{d}, nil
	}
	return []api.Domain{}, nil
}

// Detokenize implements [api.Tokens]. The entry is committed before the card is opened: nothing leaves unrecorded.
func (s *Service) Detokenize(ctx context.Context, caller api.Caller, named string, token pci.Token, reason api.DetokenizeReason) (api.SealedCard, error) {
	domain, err := s.domain(caller, named)
	if err != nil {
		return api.SealedCard{}, err
	}
	recipient, err := s.recipient(ctx, caller)
	if err != nil {
		return api.SealedCard{}, err
	}
	if err := s.announce(ctx, caller, domain, token, reason, recipient); err != nil {
		return api.SealedCard{}, err
	}
	enc, ct, err := s.cfg.Release.Seal(ctx, domain, token, recipient.PublicKey, pci.DetokenizedInfo(domain, caller.KeyID))
	if err != nil {
		return api.SealedCard{}, err
	}
	return api.SealedCard{Token: token, Domain: domain, Key: RecipientName(recipient.PublicKey), Enc: base64.RawURLEncoding.EncodeToString(enc),
		CT: base64.RawURLEncoding.EncodeToString(ct)}, nil
}

func (s *Service) recipient(ctx context.Context, caller api.Caller) (store.Recipient, error) {
	recipient, err := s.cfg.Store.Read(ctx).Recipient(caller.KeyID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return recipient, api.ErrNoRecipient
	case err != nil:
		return recipient, translate(err)
	case s.cfg.Now().Before(recipient.UsableAt):
		return recipient, api.ErrNoRecipient.With("The recipient that was registered for the API key can be used from %s on.", recipient.UsableAt.UTC().Format(time.RFC3339))
	}
	return recipient, nil
}

// announce counts and enters what is about to be done, if it may be done.
func (s *Service) announce(ctx context.Context, caller api.Caller, domain string, token pci.Token, reason api.DetokenizeReason, recipient store.Recipient) error {
	day := today(s.cfg.Now())
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		row, err := s.standing(tx.Queries, domain, token)
		if err != nil {
			return err
		}
		if row.Status != store.TokenActive {
			return api.ErrInactive
		}
		n, err := tx.Detokenizations(caller.KeyID, day)
		if err != nil {
			return err
		}
		if n >= recipient.Quota {
			wait := *api.ErrQuota
			wait.RetryAfter = s.bound.untilTomorrow()
			return &wait
		}
		if err := tx.CountDetokenization(caller.KeyID, day); err != nil {
			return err
		}
		tx.Record(s.entry("token.detokenized", caller, ledger.Success, resourceOf(domain, token), map[string]any{"reason": string(reason),
			"card": string(row.Card.Truncated), "recipient": RecipientName(recipient.PublicKey)}))
		return nil
	})
	return translate(err)
}

// entry describes what an API key has had done.
func (s *Service) entry(kind string, caller api.Caller, outcome, resource string, data map[string]any) ledger.Entry {
	data["merchant"] = caller.MerchantID
	return ledger.Entry{Type: kind, Actor: "key:" + caller.KeyID, Origin: caller.Origin, Outcome: outcome, Resource: resource, Data: data}
}

// resourceOf is what entries about a token are about.
func resourceOf(domain string, token pci.Token) string {
	return "token:" + domain + "/" + string(token)
}

// translate turns the errors of store and ledger into those of the contract. All others pass.
func translate(err error) error {
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, ledger.ErrUnavailable) {
		if problem, ok := errors.AsType[*api.Problem](err); ok {
			return problem // a unit's own refusal
		}
		for _, refusal := range []error{pci.ErrNotIssued, pci.ErrReplayed, errRepeat} {
			if errors.Is(err, refusal) {
				return refusal
			}
		}
		return fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	return err
}
