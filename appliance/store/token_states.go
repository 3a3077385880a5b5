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

// TokenState is what has changed about a token since it was issued.
type TokenState struct {
	Status     string
	Expiry     pci.Expiry
	ReplacedBy pci.Token // where Status is [TokenReplaced]
	UpdatedAt  time.Time
}

// SetTokenState changes a token's state. A token that was never issued gives [ErrNotFound].
func (tx *Tx) SetTokenState(domain string, token pci.Token, s TokenState) error {
	t, err := tx.Token(domain, token)
	if err != nil {
		return err
	}
	return tx.putTokenState(t, s)
}

// putTokenState writes the state of a token that is known as it stands now.
func (tx *Tx) putTokenState(t Token, s TokenState) error {
	switch {
	case s.Status != TokenActive && s.Status != TokenInactive && s.Status != TokenReplaced:
		return fmt.Errorf("store: a token is never %q", s.Status)
	case (s.Status == TokenReplaced) != (s.ReplacedBy != ""):
		return errors.New("store: a token that is replaced has a successor, and no other has one")
	}
	if _, err := pci.ParseExpiry(s.Expiry.String()); err != nil {
		return err
	}
	inUTC(&s.UpdatedAt)
	tx.countReplaced(t, s)
	row := struct {
		Domain string
		Token  pci.Token
		TokenState
	}{t.Domain, t.Token, s}
	return tx.write("token_states", t.Domain+"/"+string(t.Token), row, `INSERT INTO token_states (domain, token, status, expiry, replaced_by, updated_at)
		VALUES (?,?,?,?,?,?) ON CONFLICT (domain, token) DO UPDATE SET status = excluded.status, expiry = excluded.expiry,
		replaced_by = excluded.replaced_by, updated_at = excluded.updated_at`,
		t.Domain, t.Token, s.Status, s.Expiry.String(), s.ReplacedBy, formatTime(s.UpdatedAt))
}

func (tx *Tx) countReplaced(was Token, is TokenState) {
	change := 0
	if is.Status == TokenReplaced {
		change++
	}
	if was.Status == TokenReplaced {
		change--
	}
	if change != 0 {
		tx.counts = append(tx.counts, tokenCount{version: was.KeyVersion, replaced: change})
	}
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

// TokenChange tells that a token was replaced by another one of the same card.
type TokenChange struct {
	Seq    int64
	Domain string
	Old    pci.Token
	New    pci.Token
	At     time.Time
}

// PutTokenChange appends a replacement to the list that domains follow, and returns its number.
func (tx *Tx) PutTokenChange(c TokenChange) (int64, error) {
	hash, err := tx.appendTokenChange(&c)
	if err != nil {
		return 0, err
	}
	tx.touched[fmt.Sprintf("token_changes/%d", c.Seq)] = hex.EncodeToString(hash[:])
	return c.Seq, nil
}

// PutTokenChanges appends many replacements, so that one row of an entry covers them whatever their number: it is
// "token_changes/first-last" with the Merkle root over the SHA-256 of each row's JSON (RFC 6962, section 2.1, these
// hashes being the leaves). It returns the first and the last number.
func (tx *Tx) PutTokenChanges(cs []TokenChange) (first, last int64, err error) {
	hashes := make([][32]byte, len(cs))
	for i, c := range cs {
		if hashes[i], err = tx.appendTokenChange(&c); err != nil {
			return 0, 0, err
		}
		if last = c.Seq; i == 0 {
			first = c.Seq
		}
	}
	if len(cs) > 0 {
		root := merkleRoot(hashes)
		tx.touched[fmt.Sprintf("token_changes/%d-%d", first, last)] = hex.EncodeToString(root[:])
	}
	return first, last, nil
}

// appendTokenChange writes a replacement, gives it its number, and returns the SHA-256 of its JSON.
func (tx *Tx) appendTokenChange(c *TokenChange) (hash [32]byte, err error) {
	inUTC(&c.At)
	if err := tx.insert(&c.Seq, "INSERT INTO token_changes (domain, old, new, at) VALUES (?,?,?,?) RETURNING seq",
		c.Domain, c.Old, c.New, formatTime(c.At)); err != nil {
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
	rows, err := q.q.QueryContext(q.ctx, "SELECT seq, old, new, at FROM token_changes WHERE domain = ? AND seq > ? ORDER BY seq LIMIT ?", domain, after, limit)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var list []TokenChange
	for rows.Next() {
		c := TokenChange{Domain: domain}
		if err := rows.Scan(&c.Seq, &c.Old, &c.New, scanTime{&c.At}); err != nil {
			return nil, translate(err)
		}
		list = append(list, c)
	}
	return list, translate(rows.Err())
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
