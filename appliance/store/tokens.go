package store

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/finterra/finpay/pci"
)

// ErrTokenTaken means that a token's value belongs to another card, made under another version of the key, or that an opaque
// token's card has another token already, which [Queries.TokenByImage] tells.
var ErrTokenTaken = errors.New("store: the token belongs to another card, or the card has another token")

// Token is one row of the registry. What was issued never changes; status, expiry and replacement are those of its
// [TokenState], where it has one.
type Token struct {
	Domain     string
	Token      pci.Token
	Format     pci.TokenFormat
	KeyVersion uint32
	Steps      uint16
	Image      pci.TokenImage // of an opaque token
	Card       pci.Card
	Status     string // see the constants
	ReplacedBy pci.Token
	CreatedAt  time.Time // to the millisecond
	Batch      int64     // of the bulk issue whose root covers the row; 0 for a row that an entry names itself
}

// States of a [Token].
const (
	TokenActive   = "active"
	TokenInactive = "inactive"
	TokenReplaced = "replaced" // by one under a newer version of the key; final
)

// sameCard reports whether two rows of one value are one card's. Within one version of the key, format and number of steps
// a value is one card's.
func (t Token) sameCard(o Token) bool {
	return t.Token == o.Token && t.KeyVersion == o.KeyVersion && t.Format == o.Format && t.Steps == o.Steps && t.Image == o.Image
}

// domains remembers the numbers of committed domains, which never change.
type domains struct {
	mu  sync.RWMutex
	ids map[string]uint32
}

func (d *domains) known(name string) (uint32, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	id, ok := d.ids[name]
	return id, ok
}

func (d *domains) remember(name string, id uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids == nil {
		d.ids = make(map[string]uint32)
	}
	d.ids[name] = id
}

// domain returns a domain's number; [ErrNotFound] means that nothing was issued in it.
func (q Queries) domain(name string) (uint32, error) {
	if id, ok := q.store.domains.known(name); ok {
		return id, nil
	}
	if q.tx != nil {
		if id, ok := q.tx.domains[name]; ok {
			return id, nil
		}
	}
	var id uint32
	err := translate(q.q.QueryRowContext(q.ctx, "SELECT id FROM token_domains WHERE name = ?", name).Scan(&id))
	if err == nil && q.tx == nil {
		q.store.domains.remember(name, id)
	}
	return id, err
}

// makeDomain returns a domain's number and gives it one if need be.
func (tx *Tx) makeDomain(name string) (uint32, error) {
	id, err := tx.domain(name)
	if errors.Is(err, ErrNotFound) {
		err = tx.insert(&id, "INSERT INTO token_domains (name) VALUES (?) RETURNING id", name)
	}
	if err == nil {
		if tx.domains == nil {
			tx.domains = make(map[string]uint32)
		}
		tx.domains[name] = id
	}
	return id, err
}

// PutToken issues a token. One that the same card has already stays as it is, but for an expiry later than the known one,
// which becomes its state. [ErrTokenTaken] means that nothing was written: the value must never be taken for the other card's.
func (tx *Tx) PutToken(t Token) error {
	issue := issue{tx: tx, counts: len(tx.counts)}
	if err := issue.prepare([]Token{t}); err != nil {
		return err
	}
	if len(issue.taken) > 0 {
		return ErrTokenTaken
	}
	if len(issue.fresh) > 0 {
		issue.add(0)
		hash := issue.hashes[0]
		tx.touched["tokens/"+t.Domain+"/"+string(t.Token)] = hex.EncodeToString(hash[:])
	}
	return issue.renew()
}

// PutTokens issues many tokens under one number and one Merkle root, over the hashes of the new rows in key order (by domain,
// in the order in which domains were first seen, then by token). Rows that the same card has already are left out, as
// PutToken leaves them; taken are the indexes of values that belong to other cards, which are not written. Where nothing is
// new, batch is 0.
func (tx *Tx) PutTokens(ts []Token) (batch int64, root [32]byte, taken []int, err error) {
	issue := issue{tx: tx, counts: len(tx.counts)}
	if err := issue.prepare(ts); err != nil {
		return 0, root, nil, err
	}
	slices.Sort(issue.taken)
	if len(issue.fresh) == 0 {
		return 0, root, issue.taken, issue.renew()
	}
	if batch, err = tx.Next("token_batches"); err != nil {
		return 0, root, nil, err
	}
	issue.add(batch)
	root = merkleRoot(issue.hashes)
	if err := tx.Exec("INSERT INTO token_batches (n, records, root) VALUES (?,?,?)", batch, len(issue.fresh), root[:]); err != nil {
		return 0, root, nil, err
	}
	tx.touched[fmt.Sprintf("token_batches/%d", batch)] = hex.EncodeToString(root[:])
	return batch, root, issue.taken, issue.renew()
}

// issue is an issue of tokens under way.
type issue struct {
	tx     *Tx
	rows   []Token
	keys   [][]byte
	fresh  []int // indexes of what is new, in key order
	taken  []int
	again  []int // indexes of what the same card has already
	hashes [][32]byte
	counts int // of the transaction before it
}

// prepare sorts rows into those that are new, those that are there and those that are taken.
func (i *issue) prepare(ts []Token) error {
	i.rows, i.keys = slices.Clone(ts), make([][]byte, len(ts))
	order, slab, id := make([]int, len(ts)), make([]byte, 0, 14*len(ts)), uint32(0)
	for n := range i.rows {
		t := &i.rows[n]
		if err := checkToken(t); err != nil {
			return err
		}
		t.CreatedAt = t.CreatedAt.UTC().Truncate(time.Millisecond)
		if n == 0 || t.Domain != i.rows[n-1].Domain {
			var err error
			if id, err = i.tx.makeDomain(t.Domain); err != nil {
				return err
			}
		}
		begin := len(slab)
		slab = appendKey(slab, keyOfToken, id, string(t.Token))
		i.keys[n], order[n] = slab[begin:len(slab):len(slab)], n
	}
	slices.SortStableFunc(order, func(a, b int) int { return bytes.Compare(i.keys[a], i.keys[b]) })
	there, err := i.there(order)
	if err != nil {
		return err
	}
	images, err := i.images()
	if err != nil {
		return err
	}
	for at, n := range order {
		i.sort(at, n, order, there, images)
	}
	for _, n := range i.fresh {
		if i.tx.store.retiring[i.rows[n].KeyVersion] {
			return ErrVersionRetired
		}
	}
	return nil
}

// sort decides on one row.
func (i *issue) sort(at, n int, order []int, there map[int]Token, images map[string]pci.Token) {
	t := i.rows[n]
	other, known := there[at]
	if last := len(i.fresh) - 1; !known && last >= 0 && bytes.Equal(i.keys[i.fresh[last]], i.keys[n]) {
		other, known = i.rows[i.fresh[last]], true // twice among these
	}
	holder, held := pci.Token(""), false
	if t.Image != "" {
		holder, held = images[t.Domain+"/"+string(t.Image)]
	}
	switch {
	case known && other.sameCard(t):
		i.again = append(i.again, n)
	case known || (held && holder != t.Token):
		i.taken = append(i.taken, n)
	default:
		i.fresh = append(i.fresh, n)
		if t.Image != "" {
			images[t.Domain+"/"+string(t.Image)] = t.Token
		}
	}
}

// there finds the rows of these values, by place in the order.
func (i *issue) there(order []int) (map[int]Token, error) {
	keys := make([][]byte, len(order))
	for at, n := range order {
		keys[at] = i.keys[n]
	}
	there := make(map[int]Token)
	err := i.tx.tokens.Get(i.tx.ctx, keys, func(at int, value []byte) error {
		t := i.rows[order[at]]
		t.Image = ""
		err := parseTokenRecord(value, &t)
		there[at] = t
		return err
	})
	return there, translate(err)
}

// images finds which tokens the opaque rows' cards have.
func (i *issue) images() (map[string]pci.Token, error) {
	type image struct {
		key  []byte
		name string
	}
	var list []image
	for n, t := range i.rows {
		if t.Image != "" {
			list = append(list, image{i.imageKey(n), t.Domain + "/" + string(t.Image)})
		}
	}
	slices.SortFunc(list, func(a, b image) int { return bytes.Compare(a.key, b.key) })
	keys := make([][]byte, len(list))
	for n, l := range list {
		keys[n] = l.key
	}
	images := make(map[string]pci.Token)
	if len(keys) == 0 {
		return images, nil
	}
	err := i.tx.tokens.Get(i.tx.ctx, keys, func(n int, value []byte) error {
		images[list[n].name] = pci.Token(value)
		return nil
	})
	return images, translate(err)
}

func (i *issue) imageKey(n int) []byte {
	return tokenKey(keyOfImage, binary.BigEndian.Uint32(i.keys[n][1:]), string(i.rows[n].Image))
}

// add writes what is new.
func (i *issue) add(batch int64) {
	i.hashes = make([][32]byte, 0, len(i.fresh))
	var record []byte
	for _, n := range i.fresh {
		t := &i.rows[n]
		t.Batch = batch
		record = appendTokenRecord(record[:0], t)
		i.tx.tokens.Add(i.keys[n], record)
		if t.Image != "" {
			i.tx.tokens.Add(i.imageKey(n), []byte(t.Token))
		}
		i.hashes = append(i.hashes, t.Hash())
		i.count(t.KeyVersion)
	}
}

// count counts a row that was issued.
func (i *issue) count(version uint32) {
	if n := len(i.tx.counts); n > i.counts && i.tx.counts[n-1].version == version {
		i.tx.counts[n-1].issued++
		return
	}
	i.tx.counts = append(i.tx.counts, tokenCount{version: version, issued: 1})
}

// renew notes later expiries of cards that have their token already.
func (i *issue) renew() error {
	latest := make(map[string]map[pci.Token]Token) // by domain
	for _, n := range i.again {
		t := i.rows[n]
		if latest[t.Domain] == nil {
			latest[t.Domain] = make(map[pci.Token]Token)
		}
		if known, ok := latest[t.Domain][t.Token]; !ok || earlier(known.Card.Expiry, t.Card.Expiry) {
			latest[t.Domain][t.Token] = t
		}
	}
	for domain, rows := range latest {
		var changed []Token
		err := i.tx.Tokens(domain, slices.Collect(maps.Keys(rows)), func(_ int, t Token) error {
			if now := rows[t.Token]; t.Status != TokenReplaced && earlier(t.Card.Expiry, now.Card.Expiry) {
				t.Card.Expiry, t.CreatedAt = now.Card.Expiry, now.CreatedAt
				changed = append(changed, t)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, t := range changed {
			if err := i.tx.putTokenState(t, TokenState{Status: t.Status, Expiry: t.Card.Expiry, UpdatedAt: t.CreatedAt}); err != nil {
				return err
			}
		}
	}
	return nil
}

func earlier(a, b pci.Expiry) bool { return a.Year < b.Year || (a.Year == b.Year && a.Month < b.Month) }
