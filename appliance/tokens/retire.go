package tokens

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// Keys is the tokenization key in its versions, as far as a retirement needs it.
type Keys interface {
	// Retokenize gives the cards behind tokens of a domain values under the active version; see
	// [tokenization.Service.Retokenize].
	Retokenize(ctx context.Context, domain string, tokens []pci.Token) ([]pci.Tokenized, error)
	// Destroy destroys a version in the HSM, which may have happened already, and enters its death together with what also
	// writes.
	Destroy(ctx context.Context, version uint32, also func(*ledger.Tx) error) error
}

// The pace of a retirement.
const (
	retirePage  = 512         // tokens replaced in one commit: a payment waits for no more than that
	retireAgain = time.Minute // after a failure, and to look at the clock
)

// errNotReplaced means that tokens are left which could not be replaced now.
var errNotReplaced = errors.New("tokens: not every token could be replaced")

// Retire begins the end of a version of the tokenization key, which is not the active one: its tokens are replaced by tokens
// under the active version while everything goes on. Replaced tokens work on until their domain has acknowledged the
// changes and the window is over; then the key is destroyed. A second call changes the window.
func Retire(ctx context.Context, l *ledger.Ledger, by ledger.Operator, version uint32, window time.Duration) error {
	now := time.Now()
	_, err := l.Commit(ctx, func(tx *ledger.Tx) error {
		r, err := tx.Retirement(version)
		switch {
		case errors.Is(err, store.ErrNotFound):
			r = store.Retirement{KeyVersion: version, StartedAt: now}
		case err != nil:
			return err
		case !r.CountedAt.IsZero():
			return fmt.Errorf("version %d of the tokenization key has come to its end", version)
		}
		r.Window = window
		if err := tx.PutRetirement(r); err != nil {
			return err
		}
		n, err := tx.CountTokensOfVersion(version)
		if err != nil {
			return err
		}
		tx.Record(by.Entry("key.retirement_started", keyResource(version), map[string]any{"tokens": n, "window": window.String()}))
		return nil
	})
	return err
}

func keyResource(version uint32) string { return fmt.Sprintf("hsm:tokenize v%d", version) }

// system describes what the appliance does by itself.
func system(kind, resource string, data map[string]any) ledger.Entry {
	return ledger.Entry{Type: kind, Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: resource, Data: data}
}

// Wake makes the retirements go on now: something has changed.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// RunRetirements carries every retirement on until ctx ends, from where the last process left it.
func (s *Service) RunRetirements(ctx context.Context) {
	tick := time.NewTicker(retireAgain)
	defer tick.Stop()
	for {
		if err := s.advanceAll(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "a key's retirement does not go on; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
	}
}

func (s *Service) advanceAll(ctx context.Context) error {
	list, err := s.cfg.Store.Read(ctx).Retirements()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range list {
		if err := s.advance(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("version %d of the tokenization key: %w", r.KeyVersion, err))
		}
	}
	return errors.Join(errs...)
}

// advance takes a retirement as far as it can go now.
func (s *Service) advance(ctx context.Context, r store.Retirement) error {
	if !r.EndedAt.IsZero() {
		return nil
	}
	if r.ReplacedAt.IsZero() {
		if err := s.replaceAll(ctx, r.KeyVersion); err != nil {
			return err
		}
		if err := s.noteReplaced(ctx, &r); err != nil {
			return err
		}
	}
	if r.CountedAt.IsZero() {
		waiting, err := waitsFor(s.cfg.Store.Read(ctx), r, s.cfg.Now())
		if err != nil || len(waiting) > 0 {
			return err
		}
		if err := s.count(ctx, &r); err != nil {
			return err
		}
	}
	return s.cfg.Keys.Destroy(ctx, r.KeyVersion, func(tx *ledger.Tx) error {
		r.EndedAt = s.cfg.Now()
		return tx.PutRetirement(r)
	})
}

// replaceAll replaces what is left of a version. It begins at the beginning each time: what is replaced already is passed
// over.
func (s *Service) replaceAll(ctx context.Context, version uint32) error {
	domains, err := s.cfg.Store.Read(ctx).TokenDomains()
	if err != nil {
		return err
	}
	left := 0
	for _, domain := range domains {
		for after := pci.Token(""); ; {
			rows, err := s.cfg.Store.Read(ctx).TokensOfVersion(domain, version, after, retirePage)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			after = rows[len(rows)-1].Token
			n, err := s.replacePage(ctx, domain, rows)
			if err != nil {
				return err
			}
			left += n
		}
	}
	if left > 0 {
		return fmt.Errorf("%w: %d of version %d", errNotReplaced, left, version)
	}
	return nil
}

// replacePage replaces those of a page of tokens that are not replaced yet, in one commit, and returns how many are left.
func (s *Service) replacePage(ctx context.Context, domain string, rows []store.Token) (left int, err error) {
	var tokens []pci.Token
	for _, row := range rows {
		if row.Status != store.TokenReplaced {
			tokens = append(tokens, row.Token)
		}
	}
	if len(tokens) == 0 {
		return 0, nil
	}
	issues, err := s.cfg.Keys.Retokenize(ctx, domain, tokens)
	if err != nil {
		return 0, err
	}
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		p := replacement{domain: domain, tokens: tokens, issues: issues, at: s.cfg.Now()}
		err := p.write(tx)
		left = p.left
		return err
	})
	failpoint.Here("after tokens were replaced")
	return left, err
}

// replacement is one page of tokens on its way into the registry.
type replacement struct {
	domain string
	tokens []pci.Token
	issues []pci.Tokenized
	at     time.Time

	old      []store.Token
	by       []pci.Token
	inactive []store.Token // of the new ones
	left     int
}

func (p *replacement) write(tx *ledger.Tx) error {
	fresh, err := p.sort(tx)
	if err != nil || len(p.old) == 0 {
		return err
	}
	data := map[string]any{"key_version": p.old[0].KeyVersion}
	if len(fresh) > 0 {
		batch, root, taken, err := tx.PutTokens(fresh)
		if err != nil {
			return err
		}
		p.drop(fresh, taken)
		if batch > 0 {
			data["batch"], data["root"], data["by_key_version"] = batch, hex.EncodeToString(root[:]), fresh[0].KeyVersion
		}
	}
	if _, _, err := tx.ReplaceTokens(p.old, p.by, p.at); err != nil {
		return err
	}
	data["count"] = len(p.old)
	tx.Record(system("tokens.replaced", "domain:"+p.domain, data))
	return p.deactivate(tx)
}

// sort reads the old tokens as they stand now, and returns the new ones that are to be issued.
func (p *replacement) sort(tx *ledger.Tx) (fresh []store.Token, err error) {
	now := make([]store.Token, len(p.tokens))
	if err := tx.Tokens(p.domain, p.tokens, func(i int, row store.Token) error {
		now[i] = row
		return nil
	}); err != nil {
		return nil, err
	}
	for i, row := range now {
		issue := &p.issues[i]
		switch {
		case row.Status == store.TokenReplaced:
			continue
		case row.Status == "" || issue.Err != nil:
			p.left++
			continue
		}
		next := rowOf(p.domain, issue.Token, p.at)
		next.Card.Expiry = row.Card.Expiry
		p.old, p.by = append(p.old, row), append(p.by, next.Token)
		if !issue.Known {
			fresh = append(fresh, next)
		}
		if row.Status == store.TokenInactive {
			p.inactive = append(p.inactive, next)
		}
	}
	return fresh, nil
}

// drop leaves those for another time whose new values have become other cards'.
func (p *replacement) drop(fresh []store.Token, taken []int) {
	if len(taken) == 0 {
		return
	}
	gone := make(map[pci.Token]bool)
	for _, i := range taken {
		gone[fresh[i].Token] = true
	}
	old, by, inactive := p.old[:0], p.by[:0], p.inactive[:0]
	for i, token := range p.by {
		if gone[token] {
			p.left++
			continue
		}
		old, by = append(old, p.old[i]), append(by, token)
	}
	for _, row := range p.inactive {
		if !gone[row.Token] {
			inactive = append(inactive, row)
		}
	}
	p.old, p.by, p.inactive = old, by, inactive
}

// deactivate makes successors of inactive tokens inactive.
func (p *replacement) deactivate(tx *ledger.Tx) error {
	for from := 0; from < len(p.inactive); from += maxCovered {
		rows := p.inactive[from:min(from+maxCovered, len(p.inactive))]
		for _, row := range rows {
			if err := tx.SetTokenState(p.domain, row.Token, store.TokenState{Status: store.TokenInactive, Expiry: row.Card.Expiry, UpdatedAt: p.at}); err != nil {
				return err
			}
		}
		tx.Record(system("tokens.deactivated", "domain:"+p.domain, map[string]any{"count": len(rows), "why": "what they replace was inactive"}))
	}
	return nil
}

// noteReplaced begins the time for which replaced tokens still work.
func (s *Service) noteReplaced(ctx context.Context, r *store.Retirement) error {
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) (err error) {
		if err := noneLeft(tx, r.KeyVersion); err != nil {
			return err
		}
		if *r, err = tx.Retirement(r.KeyVersion); err != nil {
			return err
		}
		r.ReplacedAt = s.cfg.Now()
		if r.Changes, err = tx.NewestTokenChange(); err != nil {
			return err
		}
		if err := tx.PutRetirement(*r); err != nil {
			return err
		}
		tx.Record(system("key.tokens_replaced", keyResource(r.KeyVersion), map[string]any{"changes": r.Changes, "window": r.Window.String()}))
		return nil
	})
	return err
}

func noneLeft(tx *ledger.Tx, version uint32) error {
	n, err := tx.CountTokensOfVersion(version)
	if err == nil && n != 0 {
		err = fmt.Errorf("%w: %d are counted", errNotReplaced, n)
	}
	return err
}

// count enters that nothing needs the version any more. From here on it can only be destroyed.
func (s *Service) count(ctx context.Context, r *store.Retirement) error {
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) (err error) {
		if err := noneLeft(tx, r.KeyVersion); err != nil {
			return err
		}
		issued, err := tx.TokensIssued(r.KeyVersion)
		if err != nil {
			return err
		}
		if *r, err = tx.Retirement(r.KeyVersion); err != nil {
			return err
		}
		r.CountedAt = s.cfg.Now()
		if err := tx.PutRetirement(*r); err != nil {
			return err
		}
		tx.Record(system("key.retirement_counted", keyResource(r.KeyVersion), map[string]any{"issued": issued, "left": 0}))
		return nil
	})
	return err
}

// waitsFor returns what a retirement whose tokens are all replaced waits for, for people; nothing where it is over.
func waitsFor(read store.Queries, r store.Retirement, now time.Time) (list []string, err error) {
	if end := r.ReplacedAt.Add(r.Window); now.Before(end) {
		list = append(list, "the end of its window, "+end.UTC().Format(time.RFC3339))
	}
	domains, err := read.TokenDomains()
	if err != nil {
		return nil, err
	}
	for _, domain := range domains {
		behind, err := unacknowledged(read, domain, r.Changes)
		if err != nil {
			return nil, err
		}
		if behind > 0 {
			list = append(list, fmt.Sprintf("domain %s to acknowledge the changes through %d", domain, behind))
		}
	}
	return list, nil
}

// unacknowledged returns the number of the newest of a domain's replacements up to a number, if it has not acknowledged it;
// else 0.
func unacknowledged(read store.Queries, domain string, through int64) (int64, error) {
	newest, err := read.LastTokenChange(domain, through)
	if err != nil || newest == 0 {
		return 0, err
	}
	ack, err := read.DomainAck(domain)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	if ack.Seq >= newest {
		return 0, nil
	}
	return newest, nil
}

// over reports whether a token that was replaced does not work any more.
func (s *Service) over(read store.Queries, t store.Token) (bool, error) {
	r, err := read.Retirement(t.KeyVersion)
	if err != nil {
		return false, err
	}
	if r.ReplacedAt.IsZero() || s.cfg.Now().Before(r.ReplacedAt.Add(r.Window)) {
		return false, nil
	}
	behind, err := unacknowledged(read, t.Domain, r.Changes)
	return behind == 0, err
}

// RetirementStatus is how far a retirement has come.
type RetirementStatus struct {
	KeyVersion uint32    `json:"key_version"`
	StartedAt  time.Time `json:"started_at"`
	Left       int       `json:"left"`                // tokens that lead back under the version
	WaitsFor   []string  `json:"waits_for,omitempty"` // for people
	EndedAt    time.Time `json:"ended_at,omitzero"`   // the key is destroyed
}

// Retirements returns all of them, by version.
func Retirements(read store.Queries, now time.Time) ([]RetirementStatus, error) {
	list, err := read.Retirements()
	if err != nil {
		return nil, err
	}
	statuses := make([]RetirementStatus, len(list))
	for i, r := range list {
		s := RetirementStatus{KeyVersion: r.KeyVersion, StartedAt: r.StartedAt, EndedAt: r.EndedAt}
		if s.Left, err = read.CountTokensOfVersion(r.KeyVersion); err != nil {
			return nil, err
		}
		switch {
		case !r.EndedAt.IsZero():
		case r.ReplacedAt.IsZero():
			s.WaitsFor = []string{"its tokens to be replaced"}
		case !r.CountedAt.IsZero():
			s.WaitsFor = []string{"the HSM, to destroy the key"}
		default:
			if s.WaitsFor, err = waitsFor(read, r, now); err != nil {
				return nil, err
			}
		}
		statuses[i] = s
	}
	return statuses, nil
}

// everything is a number that no change has.
const everything = math.MaxInt64
