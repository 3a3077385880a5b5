package store

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/finterra/finpay/appliance/store/runs"
	"github.com/finterra/finpay/pci"
)

// scanner is a row of a result.
type scanner interface{ Scan(...any) error }

// each calls f with every row of a query.
func each[T any](q Queries, scan func(scanner) (T, error), f func(T) error, query string, args ...any) error {
	rows, err := q.q.QueryContext(q.ctx, query, args...)
	if err != nil {
		return translate(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			return translate(err)
		}
		if err := f(row); err != nil {
			return err
		}
	}
	return translate(rows.Err())
}

// Superseded stands for the hash of a row that follows from another one, whatever entries say of what it was.
const Superseded = ""

// CoveredRows calls row with the name that entries have for each row that they cover by name, and the hash that the newest
// of them should have: "table/key" and the SHA-256 of the row's JSON in hex. Tokens of bulk issues and replacements are
// covered by their roots instead, which are among these rows, made again from what is stored. The state of a replaced token is
// [Superseded]: entries may have its earlier ones.
func (q Queries) CoveredRows(row func(name, hash string) error) error {
	hashed := func(table, key string, value any) error {
		hash, err := HashRow(value)
		if err != nil {
			return err
		}
		return row(table+"/"+key, hash)
	}
	for _, table := range []func(hashed func(table, key string, value any) error) error{
		q.coveredMerchants, q.coveredAuditors, q.coveredPayments, q.coveredKeys, q.coveredTokenStates, q.coveredTokenRows, q.coveredLogs, q.coveredSettlements,
	} {
		if err := table(hashed); err != nil {
			return err
		}
	}
	if err := q.coveredTokens(row); err != nil {
		return err
	}
	return q.coveredChanges(row)
}

func (q Queries) coveredMerchants(hashed func(table, key string, value any) error) error {
	if err := each(q, q.scanMerchant, func(m Merchant) error { return hashed("merchants", m.ID, m) },
		"SELECT "+merchantColumns+" FROM merchants"); err != nil {
		return err
	}
	if err := each(q, scanAPIKey, func(k APIKey) error { return hashed("api_keys", k.ID, k) },
		"SELECT "+apiKeyColumns+" FROM api_keys"); err != nil {
		return err
	}
	if err := each(q, scanEndpoint, func(e Endpoint) error { return hashed("webhook_endpoints", e.ID, e) },
		"SELECT "+endpointColumns+" FROM webhook_endpoints"); err != nil {
		return err
	}
	return each(q, scanRecipient, func(r Recipient) error { return hashed("recipients", r.KeyID, r) },
		"SELECT "+recipientColumns+" FROM recipients")
}

func (q Queries) coveredPayments(hashed func(table, key string, value any) error) error {
	if err := each(q, scanPayment, func(p Payment) error { return hashed("payments", p.ID, p) },
		"SELECT "+paymentColumns+" FROM payments"); err != nil {
		return err
	}
	if err := each(q, scanAttempt, func(a Attempt) error { return hashed("attempts", fmt.Sprintf("%s/%d", a.PaymentID, a.N), a) },
		"SELECT "+attemptColumns+" FROM attempts"); err != nil {
		return err
	}
	if err := each(q, scanModification, func(m Modification) error { return hashed("modifications", m.ID, m) },
		"SELECT "+modificationColumns+" FROM modifications"); err != nil {
		return err
	}
	return each(q, scanEvent, func(e Event) error { return hashed("events", e.ID, e) }, "SELECT "+eventColumns+" FROM events e")
}

func (q Queries) coveredKeys(hashed func(table, key string, value any) error) error {
	keys, err := q.Keys()
	for _, k := range keys {
		if err := hashed("keys", k.Name(), k); err != nil {
			return err
		}
	}
	return err
}

// coveredTokenStates leaves out the states of replaced tokens: they follow from the replacements.
func (q Queries) coveredTokenStates(hashed func(table, key string, value any) error) error {
	return each(q, scanTokenStateRow, func(s tokenStateRow) error { return hashed("token_states", s.Domain+"/"+string(s.Token), s) },
		"SELECT domain, token, status, expiry, replaced_by, updated_at FROM token_states WHERE status <> ?", TokenReplaced)
}

func (q Queries) coveredTokenRows(hashed func(table, key string, value any) error) error {
	if err := each(q, scanDomainAck, func(a DomainAck) error { return hashed("domain_acks", a.Domain, a) },
		"SELECT domain, seq, at FROM domain_acks"); err != nil {
		return err
	}
	if err := each(q, scanRetirement, func(r Retirement) error {
		return hashed("token_retirements", strconv.FormatUint(uint64(r.KeyVersion), 10), r)
	}, "SELECT "+retirementColumns+" FROM token_retirements"); err != nil {
		return err
	}
	return each(q, scanImport, func(i Import) error { return hashed("token_imports", i.ID, i) },
		"SELECT "+importColumns+" FROM token_imports")
}

// coveredTokens goes through the registry once: a token of its own entry is a row, those of a bulk issue add to its root.
func (q Queries) coveredTokens(row func(name, hash string) error) error {
	roots := make(map[int64]*merkleEdge)
	err := q.withTokens(func(q Queries, r runs.Reader) error {
		names, _, err := q.domainNames()
		if err != nil {
			return err
		}
		return r.Ascend(q.ctx, []byte{keyOfToken}, func(key, value []byte) (bool, error) {
			if key[0] != keyOfToken {
				return false, nil
			}
			t, err := readRow(key, value, names[binary.BigEndian.Uint32(key[1:])])
			if err != nil {
				return false, err
			}
			hash := t.Hash()
			if t.Batch == 0 {
				return true, row("tokens/"+t.Domain+"/"+string(t.Token), hex.EncodeToString(hash[:]))
			}
			if roots[t.Batch] == nil {
				roots[t.Batch] = &merkleEdge{}
			}
			roots[t.Batch].push(hash)
			return true, nil
		})
	})
	if err != nil {
		return err
	}
	for n, edge := range roots {
		root := edge.root()
		if err := row(fmt.Sprintf("token_batches/%d", n), hex.EncodeToString(root[:])); err != nil {
			return err
		}
	}
	return nil
}

// ErrTokenState means that the state of a replaced token is not the one that follows from its replacement.
type ErrTokenState struct{ Name string }

func (e *ErrTokenState) Error() string {
	return "store: the state of " + e.Name + " is not the one that follows from its replacement"
}

// coveredChanges makes the roots of replacements again, over the ranges in which they were made, and holds the states of replaced
// tokens against them.
func (q Queries) coveredChanges(row func(name, hash string) error) error {
	var edge merkleEdge
	var first, last int64
	flush := func() error {
		if first == 0 {
			return nil
		}
		root := edge.root()
		name := fmt.Sprintf("token_changes/%d-%d", first, last)
		edge, first = merkleEdge{}, 0
		return row(name, hex.EncodeToString(root[:]))
	}
	changes := 0
	err := each(q, scanChangeAndState, func(c changeAndState) error {
		changes++
		if c.Seq == c.First {
			if err := flush(); err != nil {
				return err
			}
			first = c.Seq
		}
		name := "token_states/" + c.Domain + "/" + string(c.Old)
		if want := stateAfter(c.TokenChange); c.state != want {
			return &ErrTokenState{name}
		}
		if err := row(name, Superseded); err != nil {
			return err
		}
		last = c.Seq
		hash, err := hashOfChange(c.TokenChange)
		edge.push(hash)
		return err
	}, `SELECT c.seq, c.first, c.domain, c.old, c.new, c.expiry, c.at, coalesce(s.status, ''), coalesce(s.expiry, ''), coalesce(s.replaced_by, ''),
		coalesce(s.updated_at, '') FROM token_changes c LEFT JOIN token_states s ON s.domain = c.domain AND s.token = c.old ORDER BY c.seq`)
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	var replaced int
	if err := q.q.QueryRowContext(q.ctx, "SELECT count(*) FROM token_states WHERE status = ?", TokenReplaced).Scan(&replaced); err != nil {
		return translate(err)
	}
	if replaced != changes {
		return &ErrTokenState{fmt.Sprintf("%d tokens", replaced-changes)}
	}
	return nil
}

// changeAndState is a replacement, and the state of the token that it replaced.
type changeAndState struct {
	TokenChange
	First int64 // number of the first replacement of the same root
	state tokenStateText
}

// tokenStateText is a state as its columns keep it.
type tokenStateText struct{ status, expiry, replacedBy, updatedAt string }

func stateAfter(c TokenChange) tokenStateText {
	return tokenStateText{TokenReplaced, c.Expiry.String(), string(c.New), formatTime(c.At)}
}

func scanChangeAndState(row scanner) (c changeAndState, err error) {
	var expiry string
	if err := row.Scan(&c.Seq, &c.First, &c.Domain, &c.Old, &c.New, &expiry, scanTime{&c.At},
		&c.state.status, &c.state.expiry, &c.state.replacedBy, &c.state.updatedAt); err != nil {
		return c, err
	}
	c.Expiry, err = pci.ParseExpiry(expiry)
	return c, err
}
