package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/finterra/finpay/pci"
)

// ErrTokenReplaced means that the card has another token by now, whose state is meant.
var ErrTokenReplaced = errors.New("store: the token is replaced by another one of its card")

// TokenState is what has changed about a token since it was issued.
type TokenState struct {
	Status     string
	Expiry     pci.Expiry
	ReplacedBy pci.Token // where Status is [TokenReplaced]
	UpdatedAt  time.Time
}

// SetTokenState changes a token's state. A token that was never issued gives [ErrNotFound], one that is replaced
// [ErrTokenReplaced]: it has no state of its own any more. [Tx.ReplaceTokens] replaces tokens.
func (tx *Tx) SetTokenState(domain string, token pci.Token, s TokenState) error {
	t, err := tx.Token(domain, token)
	if err != nil {
		return err
	}
	if t.Status == TokenReplaced {
		return ErrTokenReplaced
	}
	return tx.putTokenState(t, s)
}

// putTokenState writes the state of a token that is known as it stands now.
func (tx *Tx) putTokenState(t Token, s TokenState) error {
	if s.Status != TokenActive && s.Status != TokenInactive || s.ReplacedBy != "" {
		return fmt.Errorf("store: a token is never made %q", s.Status)
	}
	if _, err := pci.ParseExpiry(s.Expiry.String()); err != nil {
		return err
	}
	inUTC(&s.UpdatedAt)
	row := tokenStateRow{t.Domain, t.Token, s}
	return tx.write("token_states", t.Domain+"/"+string(t.Token), row, upsertTokenState,
		t.Domain, t.Token, s.Status, s.Expiry.String(), s.ReplacedBy, formatTime(s.UpdatedAt))
}

// tokenStateRow is one row of token_states, as entries hash it.
type tokenStateRow struct {
	Domain string
	Token  pci.Token
	TokenState
}

// tokenCount is by how much the counts of a key version change.
type tokenCount struct {
	version          uint32
	issued, replaced int
}

// flushTokenCounts writes the counts of all units: one row of a version is written once in a transaction.
func (tx *Tx) flushTokenCounts() error {
	sums := make(map[uint32]tokenCount)
	for _, c := range tx.counts {
		sum := sums[c.version]
		sums[c.version] = tokenCount{c.version, sum.issued + c.issued, sum.replaced + c.replaced}
	}
	tx.counts = nil
	for _, sum := range sums {
		if err := tx.Exec(`INSERT INTO token_counts (key_version, issued, replaced) VALUES (?1, ?2, ?3)
			ON CONFLICT (key_version) DO UPDATE SET issued = issued + ?2, replaced = replaced + ?3`, sum.version, sum.issued, sum.replaced); err != nil {
			return err
		}
	}
	return nil
}

func scanTokenStateRow(row scanner) (s tokenStateRow, err error) {
	var expiry string
	if err := row.Scan(&s.Domain, &s.Token, &s.Status, &expiry, &s.ReplacedBy, scanTime{&s.UpdatedAt}); err != nil {
		return s, translate(err)
	}
	s.Expiry, err = pci.ParseExpiry(expiry)
	return s, err
}

const upsertTokenState = `INSERT INTO token_states (domain, token, status, expiry, replaced_by, updated_at)
	VALUES (?,?,?,?,?,?) ON CONFLICT (domain, token) DO UPDATE SET status = excluded.status, expiry = excluded.expiry,
	replaced_by = excluded.replaced_by, updated_at = excluded.updated_at`

// TokenChange tells that a token was replaced by another one of the same card. The state of the old token follows from it.
type TokenChange struct {
	Seq    int64
	Domain string
	Old    pci.Token
	New    pci.Token
	Expiry pci.Expiry // of the card, at that time
	At     time.Time
}

// ReplaceTokens replaces tokens of a domain, each by the one at the same place of by, which is in the registry already. The
// caller has read the old ones in this transaction; none of them is replaced. Each change gets a number, for those who follow
// them, and one row of an entry covers all of them and the states that follow from them: it is "token_changes/first-last" with
// the Merkle root over the SHA-256 of each change's JSON (RFC 6962, section 2.1, these hashes being the leaves).
func (tx *Tx) ReplaceTokens(old []Token, by []pci.Token, at time.Time) (first, last int64, err error) {
	if len(old) == 0 {
		return 0, 0, nil
	}
	if first, err = tx.NewestTokenChange(); err != nil {
		return 0, 0, err
	}
	first++
	var root merkleEdge
	replaced := make(map[uint32]int)
	for i, t := range old {
		last = first + int64(i)
		hash, err := tx.replaceToken(TokenChange{Seq: last, Domain: t.Domain, Old: t.Token, New: by[i], Expiry: t.Card.Expiry, At: at.UTC()}, first)
		if err != nil {
			return 0, 0, err
		}
		root.push(hash)
		replaced[t.KeyVersion]++
	}
	for version, n := range replaced {
		tx.counts = append(tx.counts, tokenCount{version: version, replaced: n})
	}
	hash := root.root()
	tx.touched[fmt.Sprintf("token_changes/%d-%d", first, last)] = hex.EncodeToString(hash[:])
	return first, last, nil
}

// replaceToken writes a change, which is of the root that begins with the change of number first, and the state that follows
// from it. It returns the change's hash.
func (tx *Tx) replaceToken(c TokenChange, first int64) (hash [32]byte, err error) {
	if err := tx.Exec("INSERT INTO token_changes (seq, first, domain, old, new, expiry, at) VALUES (?,?,?,?,?,?,?)",
		c.Seq, first, c.Domain, c.Old, c.New, c.Expiry.String(), formatTime(c.At)); err != nil {
		return hash, err
	}
	if err := tx.Exec(upsertTokenState, c.Domain, c.Old, TokenReplaced, c.Expiry.String(), c.New, formatTime(c.At)); err != nil {
		return hash, err
	}
	return hashOfChange(c)
}

// hashOfChange returns the SHA-256 of a change's JSON.
func hashOfChange(c TokenChange) (hash [32]byte, err error) {
	text, err := json.Marshal(c)
	if err != nil {
		return hash, err
	}
	return sha256.Sum256(text), nil
}

// TokenChanges returns replacements in a domain after a number, in order.
func (q Queries) TokenChanges(domain string, after int64, limit int) ([]TokenChange, error) {
	var list []TokenChange
	err := each(q, scanTokenChange, func(c TokenChange) error { list = append(list, c); return nil },
		"SELECT seq, domain, old, new, expiry, at FROM token_changes WHERE domain = ? AND seq > ? ORDER BY seq LIMIT ?", domain, after, limit)
	return list, err
}

func scanTokenChange(row scanner) (c TokenChange, err error) {
	var expiry string
	if err := row.Scan(&c.Seq, &c.Domain, &c.Old, &c.New, &expiry, scanTime{&c.At}); err != nil {
		return c, translate(err)
	}
	c.Expiry, err = pci.ParseExpiry(expiry)
	return c, err
}

// LastTokenChange returns the number of a domain's newest replacement up to a number, 0 where it has none.
func (q Queries) LastTokenChange(domain string, through int64) (seq int64, err error) {
	err = translate(q.q.QueryRowContext(q.ctx, "SELECT coalesce(max(seq), 0) FROM token_changes WHERE domain = ? AND seq <= ?", domain, through).Scan(&seq))
	return seq, err
}

// NewestTokenChange returns the number of the newest replacement of all domains, 0 where there is none.
func (q Queries) NewestTokenChange() (seq int64, err error) {
	err = translate(q.q.QueryRowContext(q.ctx, "SELECT coalesce(max(seq), 0) FROM token_changes").Scan(&seq))
	return seq, err
}

// DomainAck says how far a domain has followed the replacements of its tokens.
type DomainAck struct {
	Domain string
	Seq    int64
	At     time.Time
}

// PutDomainAck notes how far a domain has come. It never goes back.
func (tx *Tx) PutDomainAck(a DomainAck) error {
	known, err := tx.DomainAck(a.Domain)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if a.Seq < known.Seq {
		return fmt.Errorf("store: domain %s has acknowledged change %d already", a.Domain, known.Seq)
	}
	inUTC(&a.At)
	return tx.write("domain_acks", a.Domain, a, "INSERT INTO domain_acks (domain, seq, at) VALUES (?,?,?) ON CONFLICT (domain) DO UPDATE SET seq = excluded.seq, at = excluded.at",
		a.Domain, a.Seq, formatTime(a.At))
}

// DomainAck returns how far a domain has come, or [ErrNotFound].
func (q Queries) DomainAck(domain string) (DomainAck, error) {
	return scanDomainAck(q.q.QueryRowContext(q.ctx, "SELECT domain, seq, at FROM domain_acks WHERE domain = ?", domain))
}

func scanDomainAck(row scanner) (DomainAck, error) {
	var a DomainAck
	err := row.Scan(&a.Domain, &a.Seq, scanTime{&a.At})
	return a, translate(err)
}
