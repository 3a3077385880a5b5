package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/finterra/finpay/appliance/store/runs"
	"github.com/finterra/finpay/pci"
)

// withTokens calls f with the registry's records. A store that only reads beside another process reads the tree anew, within
// one transaction: only the writing process knows which pages may be overwritten.
func (q Queries) withTokens(f func(q Queries, r runs.Reader) error) error {
	if q.tx != nil {
		return translate(f(q, q.tx.tokens.Reader))
	}
	if q.store.tokens != nil && q.snapshot == nil {
		return translate(f(q, q.store.tokens.Reader(q.q)))
	}
	if q.snapshot == nil {
		return q.store.Snapshot(q.ctx, func(q Queries) error { return q.withTokens(f) })
	}
	tree, err := runs.Open(q.ctx, q.snapshot, runs.Config{})
	if err != nil {
		return translate(err)
	}
	return translate(f(q, tree.Reader(q.snapshot)))
}

// Snapshot calls f with queries that all see the database as it is now. While it runs, the write-ahead log cannot be cut back.
func (s *Store) Snapshot(ctx context.Context, f func(Queries) error) error {
	conn, err := s.readers.Conn(ctx)
	if err != nil {
		return translate(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return translate(err)
	}
	defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") }()
	return f(Queries{ctx: ctx, q: conn, store: s, snapshot: conn, log: s.log.Load()})
}

// Token returns one issued token of a domain, or [ErrNotFound].
func (q Queries) Token(domain string, token pci.Token) (Token, error) {
	found, err := Token{Domain: domain, Token: token}, ErrNotFound
	if e := q.Tokens(domain, []pci.Token{token}, func(_ int, t Token) error {
		found, err = t, nil
		return nil
	}); e != nil {
		return found, e
	}
	return found, err
}

// Tokens looks many tokens of a domain up at once and calls row for each that was issued, with its index in tokens, in
// no order. A value that is asked for twice is answered twice.
func (q Queries) Tokens(domain string, tokens []pci.Token, row func(i int, t Token) error) error {
	texts := make([]string, len(tokens))
	for i, token := range tokens {
		texts[i] = string(token)
	}
	return q.withTokens(func(q Queries, r runs.Reader) error {
		rows := make(map[int]Token)
		err := q.get(r, keyOfToken, domain, texts, func(i int, value []byte) error {
			t := Token{Domain: domain, Token: tokens[i]}
			err := parseTokenRecord(value, &t)
			rows[i] = t
			return err
		})
		if err != nil {
			return err
		}
		return q.giveRows(domain, rows, row)
	})
}

// TokenByImage returns the opaque token of a domain whose card has this image, or [ErrNotFound].
func (q Queries) TokenByImage(domain string, image pci.TokenImage) (Token, error) {
	found, err := Token{Domain: domain, Image: image}, ErrNotFound
	if e := q.TokensByImage(domain, []pci.TokenImage{image}, func(_ int, t Token) error {
		found, err = t, nil
		return nil
	}); e != nil {
		return found, e
	}
	return found, err
}

// TokensByImage looks many images up at once, as Tokens does values.
func (q Queries) TokensByImage(domain string, images []pci.TokenImage, row func(i int, t Token) error) error {
	texts := make([]string, len(images))
	for i, image := range images {
		texts[i] = string(image)
	}
	return q.withTokens(func(q Queries, r runs.Reader) error {
		var tokens []string
		var of []int // index of the image that led to a token
		err := q.get(r, keyOfImage, domain, texts, func(i int, value []byte) error {
			tokens, of = append(tokens, string(value)), append(of, i)
			return nil
		})
		if err != nil {
			return err
		}
		rows := make(map[int]Token)
		err = q.get(r, keyOfToken, domain, tokens, func(i int, value []byte) error {
			t := Token{Domain: domain, Token: pci.Token(tokens[i])}
			err := parseTokenRecord(value, &t)
			rows[of[i]] = t
			return err
		})
		if err != nil {
			return err
		}
		return q.giveRows(domain, rows, row)
	})
}

// get looks texts up in a key space.
func (q Queries) get(r runs.Reader, space byte, domain string, texts []string, found func(i int, value []byte) error) error {
	id, err := q.domain(domain)
	if errors.Is(err, ErrNotFound) || len(texts) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	keys, order := make([][]byte, len(texts)), make([]int, len(texts))
	for i, text := range texts {
		keys[i], order[i] = tokenKey(space, id, text), i
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare(keys[a], keys[b]) })
	sorted := make([][]byte, len(keys))
	for at, i := range order {
		sorted[at] = keys[i]
	}
	return r.Get(q.ctx, sorted, func(at int, value []byte) error { return found(order[at], value) })
}

// giveRows applies the states and hands the rows out.
func (q Queries) giveRows(domain string, rows map[int]Token, row func(i int, t Token) error) error {
	tokens := make([]pci.Token, 0, len(rows))
	for _, t := range rows {
		tokens = append(tokens, t.Token)
	}
	states, err := q.tokenStates(domain, tokens)
	if err != nil {
		return err
	}
	for i, t := range rows {
		if s, ok := states[t.Token]; ok {
			t.apply(s)
		}
		if err := row(i, t); err != nil {
			return err
		}
	}
	return nil
}

func (t *Token) apply(s TokenState) {
	t.Status, t.Card.Expiry, t.ReplacedBy = s.Status, s.Expiry, s.ReplacedBy
}

// tokenStates returns what has changed about tokens.
func (q Queries) tokenStates(domain string, tokens []pci.Token) (map[pci.Token]TokenState, error) {
	if len(tokens) == 0 {
		return nil, nil
	}
	clause, args := "token_states s WHERE s.domain = ? AND s.token = ?", []any{domain, tokens[0]}
	if len(tokens) > 1 {
		list, err := json.Marshal(tokens)
		if err != nil {
			return nil, err
		}
		clause, args = "json_each(?) j CROSS JOIN token_states s ON s.domain = ? AND s.token = j.value", []any{string(list), domain}
	}
	rows, err := q.q.QueryContext(q.ctx, "SELECT s.token, s.status, s.expiry, s.replaced_by, s.updated_at FROM "+clause, args...)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	states := make(map[pci.Token]TokenState)
	for rows.Next() {
		var token pci.Token
		var s TokenState
		var expiry string
		if err := rows.Scan(&token, &s.Status, &expiry, &s.ReplacedBy, scanTime{&s.UpdatedAt}); err != nil {
			return nil, translate(err)
		}
		if s.Expiry, err = pci.ParseExpiry(expiry); err != nil {
			return nil, err
		}
		states[token] = s
	}
	return states, translate(rows.Err())
}

// ListTokens returns tokens of a domain after one ("" for all), in this order: those of digits by length and value, then
// the opaque ones by their bytes.
func (q Queries) ListTokens(domain string, after pci.Token, limit int) ([]Token, error) {
	return q.scanDomain(domain, after, limit, func(Token) bool { return true })
}

// TokensOfVersion returns tokens of a domain that were issued under a version of the key, after one, in the order of
// ListTokens. Those that are replaced are among them, with their status.
func (q Queries) TokensOfVersion(domain string, version uint32, after pci.Token, limit int) ([]Token, error) {
	return q.scanDomain(domain, after, limit, func(t Token) bool { return t.KeyVersion == version })
}

// TokenDomains returns the domains in which tokens were issued, in the order in which they were first seen.
func (q Queries) TokenDomains() ([]string, error) {
	names, ids, err := q.domainNames()
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = names[id]
	}
	return list, err
}

func (q Queries) domainNames() (names map[uint32]string, ids []uint32, err error) {
	rows, err := q.q.QueryContext(q.ctx, "SELECT id, name FROM token_domains ORDER BY id")
	if err != nil {
		return nil, nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	names = make(map[uint32]string)
	for rows.Next() {
		var id uint32
		var name string
		if err := rows.Scan(&id, &name); err != nil {
			return nil, nil, translate(err)
		}
		names[id], ids = name, append(ids, id)
	}
	return names, ids, translate(rows.Err())
}

func (q Queries) scanDomain(domain string, after pci.Token, limit int, wanted func(Token) bool) ([]Token, error) {
	var list []Token
	err := q.withTokens(func(q Queries, r runs.Reader) error {
		id, err := q.domain(domain)
		if errors.Is(err, ErrNotFound) || limit <= 0 {
			return nil
		}
		if err != nil {
			return err
		}
		from := binary.BigEndian.AppendUint32([]byte{keyOfToken}, id)
		if after != "" {
			from = append(tokenKey(keyOfToken, id, string(after)), 0) // what comes right behind it
		}
		err = r.Ascend(q.ctx, from, func(key, value []byte) (bool, error) {
			if key[0] != keyOfToken || binary.BigEndian.Uint32(key[1:]) != id {
				return false, nil
			}
			t, err := readRow(key, value, domain)
			if err == nil && wanted(t) {
				list = append(list, t)
			}
			return len(list) < limit, err
		})
		if err != nil {
			return err
		}
		tokens := make([]pci.Token, len(list))
		for i, t := range list {
			tokens[i] = t.Token
		}
		states, err := q.tokenStates(domain, tokens)
		for i := range list {
			if s, ok := states[list[i].Token]; ok {
				list[i].apply(s)
			}
		}
		return err
	})
	return list, err
}

func readRow(key, value []byte, domain string) (Token, error) {
	_, text, err := cutKey(key)
	t := Token{Domain: domain, Token: pci.Token(text)}
	if err != nil {
		return t, err
	}
	return t, parseTokenRecord(value, &t)
}

// TokenBatch returns the rows of a bulk issue as they were issued, in the order of its root, and their root made again. It goes through all
// of the registry. A root that differs from the one in [Queries.TokenBatchRoot], or from the entry's, means that rows were
// changed, added or removed.
func (q Queries) TokenBatch(n int64) (list []Token, root [32]byte, err error) {
	var hashes [][32]byte
	err = q.withTokens(func(q Queries, r runs.Reader) error {
		names, _, err := q.domainNames()
		if err != nil {
			return err
		}
		return r.Ascend(q.ctx, []byte{keyOfToken}, func(key, value []byte) (bool, error) {
			if key[0] != keyOfToken {
				return false, nil
			}
			t, err := readRow(key, value, "")
			if err == nil && t.Batch == n {
				t.Domain = names[binary.BigEndian.Uint32(key[1:])]
				list, hashes = append(list, t), append(hashes, t.Hash())
			}
			return true, err
		})
	})
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	return list, merkleRoot(hashes), err
}

// TokenBatchRoot returns the root of a bulk issue, as its entry has it, and its number of rows.
func (q Queries) TokenBatchRoot(n int64) (rows int, root [32]byte, err error) {
	var stored []byte
	err = translate(q.q.QueryRowContext(q.ctx, "SELECT records, root FROM token_batches WHERE n = ?", n).Scan(&rows, &stored))
	if err == nil && len(stored) != len(root) {
		err = fmt.Errorf("store: the root of batch %d has %d bytes", n, len(stored))
	}
	copy(root[:], stored)
	return rows, root, err
}

// CountTokensOfVersion returns how many tokens lead back to their cards under a version of the key only: those that are replaced
// do not count.
func (q Queries) CountTokensOfVersion(version uint32) (n int, err error) {
	err = translate(q.q.QueryRowContext(q.ctx, "SELECT issued - replaced FROM token_counts WHERE key_version = ?", version).Scan(&n))
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	if q.tx != nil {
		for _, c := range q.tx.counts {
			if c.version == version {
				n += c.issued - c.replaced
			}
		}
	}
	return n, err
}

// TokenStats says what the registry consists of now.
func (s *Store) TokenStats() runs.Stats { return s.tokens.Stats() }
