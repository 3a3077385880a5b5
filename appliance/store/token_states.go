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
	row := struct {
		Domain string
		Token  pci.Token
		TokenState
	}{t.Domain, t.Token, s}
	return tx.write("token_states", t.Domain+"/"+string(t.Token), row, upsertTokenState,
		t.Domain, t.Token, s.Status, s.Expiry.String(), s.ReplacedBy, formatTime(s.UpdatedAt))
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
	hashes := make([][32]byte, len(old))
	replaced := make(map[uint32]int)
	for i, t := range old {
		c := TokenChange{Domain: t.Domain, Old: t.Token, New: by[i], Expiry: t.Card.Expiry, At: at}
		if hashes[i], err = tx.replaceToken(&c); err != nil {
			return 0, 0, err
		}
		replaced[t.KeyVersion]++
		if last = c.Seq; i == 0 {
			first = c.Seq
		}
	}
	for version, n := range replaced {
		if err := tx.Exec("UPDATE token_counts SET replaced = replaced + ? WHERE key_version = ?", n, version); err != nil {
			return 0, 0, err
		}
	}
	if len(old) > 0 {
		root := merkleRoot(hashes)
		tx.touched[fmt.Sprintf("token_changes/%d-%d", first, last)] = hex.EncodeToString(root[:])
	}
	return first, last, nil
}

// replaceToken writes a change, gives it its number, and returns the SHA-256 of its JSON.
func (tx *Tx) replaceToken(c *TokenChange) (hash [32]byte, err error) {
	inUTC(&c.At)
	if err := translate(tx.q.QueryRowContext(tx.ctx, "INSERT INTO token_changes (domain, old, new, expiry, at) VALUES (?,?,?,?,?) RETURNING seq",
		c.Domain, c.Old, c.New, c.Expiry.String(), formatTime(c.At)).Scan(&c.Seq)); err != nil {
		return hash, err
	}
	if err := tx.Exec(upsertTokenState, c.Domain, c.Old, TokenReplaced, c.Expiry.String(), c.New, formatTime(c.At)); err != nil {
		return hash, err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return hash, err
	}
	return sha256.Sum256(text), nil
}

// TokenChanges returns replacements in a domain after a number, in order.
func (q Queries) TokenChanges(domain string, after int64, limit int) ([]TokenChange, error) {
	rows, err := q.q.QueryContext(q.ctx, "SELECT seq, old, new, expiry, at FROM token_changes WHERE domain = ? AND seq > ? ORDER BY seq LIMIT ?", domain, after, limit)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var list []TokenChange
	for rows.Next() {
		c := TokenChange{Domain: domain}
		var expiry string
		if err := rows.Scan(&c.Seq, &c.Old, &c.New, &expiry, scanTime{&c.At}); err != nil {
			return nil, translate(err)
		}
		if c.Expiry, err = pci.ParseExpiry(expiry); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, translate(rows.Err())
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
	a := DomainAck{Domain: domain}
	err := q.q.QueryRowContext(q.ctx, "SELECT seq, at FROM domain_acks WHERE domain = ?", domain).Scan(&a.Seq, scanTime{&a.At})
	return a, translate(err)
}
