package auditor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/appliance/store/postings"
)

// Bounds of indexing.
const (
	indexBatch = 4096            // entries of one transaction
	indexEvery = time.Second     // how often what was entered meanwhile is taken in
	indexWait  = 3 * time.Second // how long a search takes entries in before it says that it is too early
	indexRest  = 9               // times as long as a batch took is rested after it: payments come first
)

// entry is one entry as it was read.
type entry struct {
	row store.LedgerEntry
	ledger.Entry
	at time.Time
}

func readEntry(row store.LedgerEntry) (e entry, err error) {
	e.row = row
	if err := json.Unmarshal(row.Entry, &e.Entry); err != nil {
		return e, fmt.Errorf("%w: entry %d: %w", ledger.ErrDamaged, row.Index, err)
	}
	if e.at, err = time.Parse(time.RFC3339Nano, e.Time); err != nil {
		return e, fmt.Errorf("%w: entry %d: %w", ledger.ErrDamaged, row.Index, err)
	}
	return e, nil
}

// card is the truncated card that an entry is about, if there is one.
func (e entry) card() string {
	card, _ := e.Data["card"].(string)
	return card
}

// shown is the entry as an auditor sees it.
func (e entry) shown() api.AuditEntry {
	return api.AuditEntry{Index: e.row.Index, Leaf: base64.StdEncoding.EncodeToString(e.row.Leaf), Entry: string(e.row.Entry)}
}

// entry reads one entry and holds it against its leaf.
func (s *Service) entry(read store.Queries, index int64) (entry, error) {
	rows, err := read.LedgerEntries(index, 1)
	if err != nil {
		return entry{}, unavailable(err)
	}
	if len(rows) == 0 || rows[0].Index != index {
		return entry{}, fmt.Errorf("%w: entry %d is missing", ledger.ErrDamaged, index)
	}
	return checked(rows[0])
}

// checked reads an entry and holds it against its leaf (RFC 6962, section 2.1).
func checked(row store.LedgerEntry) (entry, error) {
	hash := sha256.New()
	hash.Write([]byte{0})
	hash.Write(row.Entry)
	if !bytes.Equal(hash.Sum(nil), row.Leaf) {
		return entry{}, fmt.Errorf("%w: entry %d does not match its leaf", ledger.ErrDamaged, row.Index)
	}
	return readEntry(row)
}

// Fields by which entries are found.
const (
	fieldType     = "type"
	fieldFamily   = "family"
	fieldResource = "resource"
	fieldCard     = "card"
	fieldOutcome  = "outcome"
	fieldActor    = "actor"
)

// indexed is what the index reads of an entry: it goes through all of the log, and does not make maps of it.
type indexed struct {
	Type     string `json:"type"`
	Actor    string `json:"actor"`
	Outcome  string `json:"outcome"`
	Resource string `json:"resource"`
	Time     string `json:"time"`
	Data     struct {
		Card any `json:"card"`
	} `json:"data"`
}

func readIndexed(row store.LedgerEntry) (postings.Entry, error) {
	var e indexed
	if err := json.Unmarshal(row.Entry, &e); err != nil {
		return postings.Entry{}, fmt.Errorf("%w: entry %d: %w", ledger.ErrDamaged, row.Index, err)
	}
	at, err := time.Parse(time.RFC3339Nano, e.Time)
	if err != nil {
		return postings.Entry{}, fmt.Errorf("%w: entry %d: %w", ledger.ErrDamaged, row.Index, err)
	}
	return postings.Entry{Index: row.Index, Leaf: row.Leaf, At: at, Terms: e.terms()}, nil
}

// terms are what an entry is found by. Most entries are successes: those are found by looking at them.
func (e indexed) terms() []postings.Term {
	terms := []postings.Term{
		{Field: fieldType, Value: e.Type, Common: true}, {Field: fieldFamily, Value: familyOf(e.Type), Common: true},
		{Field: fieldActor, Value: e.Actor, Common: true},
	}
	if e.Resource != "" {
		terms = append(terms, postings.Term{Field: fieldResource, Value: e.Resource})
	}
	if card, _ := e.Data.Card.(string); card != "" {
		terms = append(terms, postings.Term{Field: fieldCard, Value: card})
	}
	if e.Outcome == ledger.Failure {
		terms = append(terms, postings.Term{Field: fieldOutcome, Value: ledger.Failure, Common: true})
	}
	return terms
}

// familyOf is the beginning of a type up to its dot.
func familyOf(kind string) string {
	family, _, _ := strings.Cut(kind, ".")
	return family + "."
}

// Run takes entries into the index until ctx ends, so that a search finds it ready.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(indexEvery)
	defer tick.Stop()
	for {
		if _, err := s.catchUp(ctx, indexRest); err != nil && ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "the search index does not follow the log", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ready takes in what is missing, and returns how many entries can be searched. It is a problem where too many are missing.
func (s *Service) ready(ctx context.Context) (size int64, err error) {
	limited, cancel := context.WithTimeout(ctx, indexWait)
	defer cancel()
	size, err = s.catchUp(limited, 0)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return 0, api.ErrUnavailable.With("The search index is being made. Single entries are shown meanwhile. Try again as Retry-After says.")
	}
	if err != nil {
		return 0, unavailable(err)
	}
	return size, nil
}

// catchUp brings the index to the newest checkpoint, and rests between two batches for so many times as long as one took.
func (s *Service) catchUp(ctx context.Context, rest int) (size int64, err error) {
	read := s.cfg.Store.Read(ctx)
	if size, _, err = read.LedgerCheckpoint(); errors.Is(err, store.ErrNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	for {
		began := time.Now()
		done, err := s.addBatch(ctx, read, size)
		if err != nil || done {
			return size, err
		}
		if rest == 0 {
			continue
		}
		timer := time.NewTimer(time.Duration(rest) * time.Since(began))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, ctx.Err()
		}
	}
}

// addBatch takes some entries in; done says that there were no more.
func (s *Service) addBatch(ctx context.Context, read store.Queries, size int64) (done bool, err error) {
	select {
	case s.adds <- struct{}{}:
		defer func() { <-s.adds }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	from, leaf, err := s.cfg.Index.Progress(ctx)
	if err != nil {
		return false, err
	}
	belongs, err := ours(read, from, leaf)
	if err != nil {
		return false, err
	}
	if !belongs {
		s.cfg.Log.WarnContext(ctx, "the search index is of another log, and is made again")
		if err := s.cfg.Index.Reset(ctx); err != nil {
			return false, err
		}
		from = 0
	}
	if from >= size {
		return true, nil // another caller was faster
	}
	rows, err := read.LedgerEntries(from, int(min(indexBatch, size-from)))
	if err != nil {
		return false, err
	}
	batch := make([]postings.Entry, len(rows))
	for i, row := range rows {
		if batch[i], err = readIndexed(row); err != nil {
			return false, err
		}
	}
	return from+int64(len(rows)) >= size, s.cfg.Index.Add(ctx, batch)
}

// ours reports whether what is indexed is of this log, up to entry from.
func ours(read store.Queries, from int64, leaf []byte) (bool, error) {
	if from == 0 {
		return true, nil
	}
	last, err := read.LedgerEntries(from-1, 1)
	return len(last) == 1 && last[0].Index == from-1 && bytes.Equal(last[0].Leaf, leaf), err
}
