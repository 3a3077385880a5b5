package auditor

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/siem"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/appliance/store/postings"
)

// Bounds of one search: what is not found within them is on the next page.
const (
	maxLooked  = 100_000 // entries of the rarest term
	maxRead    = 5_000   // entries that are read
	readAtOnce = 256
)

// matcher decides about entries one by one: what the index leads to may be another entry.
type matcher struct{ api.AuditQuery }

func (m matcher) fits(e entry) bool {
	equal := func(wanted, is string) bool { return wanted == "" || wanted == is }
	return equal(m.Resource, e.Resource) && equal(m.Card, e.card()) && equal(m.Outcome, e.Outcome) && equal(m.Actor, e.Actor) &&
		m.fitsType(e.Type) && within(e.at, m.From, m.To)
}

func (m matcher) fitsType(kind string) bool {
	return m.Type == "" || m.Type == kind || strings.HasSuffix(m.Type, ".") && strings.HasPrefix(kind, m.Type)
}

func within(at, from, to time.Time) bool {
	return (from.IsZero() || !at.Before(from)) && (to.IsZero() || at.Before(to))
}

// terms are what the index is asked for. A success is none: most entries are.
func (m matcher) terms() (terms []postings.Term) {
	add := func(field, value string) {
		if value != "" {
			terms = append(terms, postings.Term{Field: field, Value: value})
		}
	}
	add(fieldResource, m.Resource)
	add(fieldCard, m.Card)
	add(fieldActor, m.Actor)
	if strings.HasSuffix(m.Type, ".") {
		add(fieldFamily, m.Type)
	} else {
		add(fieldType, m.Type)
	}
	if m.Outcome == ledger.Failure {
		add(fieldOutcome, m.Outcome)
	}
	return terms
}

// Search implements [api.Audit].
func (s *Service) Search(ctx context.Context, by api.Viewer, q api.AuditQuery) (api.AuditList, error) {
	if _, err := s.ready(ctx); err != nil {
		return api.AuditList{}, err
	}
	scan, err := s.scan(ctx, q)
	if err != nil {
		return api.AuditList{}, err
	}
	found, rest, err := s.find(ctx, matcher{q}, scan)
	if err != nil {
		return api.AuditList{}, err
	}
	asked, err := s.asked(ctx, q)
	if err != nil {
		return api.AuditList{}, err
	}
	list := api.AuditList{Entries: make([]api.AuditEntry, len(found))}
	for i, e := range found {
		list.Entries[i] = e.shown()
	}
	if rest.First < rest.End {
		list.NextCursor = strconv.FormatInt(cursorOf(rest), 10)
	}
	shown := map[string]any{"what": "search", "asked": asked, "entries": len(found)}
	if len(found) > 0 {
		first, last := found[0].row.Index, found[len(found)-1].row.Index
		shown["from"], shown["to"] = min(first, last), max(first, last)
	}
	return list, s.looked(ctx, by, viewed, "log", shown)
}

// scan is where a page begins, and up to where there is something.
func (s *Service) scan(ctx context.Context, q api.AuditQuery) (scan postings.Scan, err error) {
	scan = postings.Scan{NewestFirst: !q.OldestFirst, Look: maxLooked, Limit: q.Limit}
	if scan.First, scan.End, err = s.cfg.Index.Span(ctx, q.From, q.To); err != nil {
		return scan, unavailable(err)
	}
	if q.Cursor == "" {
		return scan, nil
	}
	at, err := strconv.ParseInt(q.Cursor, 10, 64)
	if err != nil || at < 0 || strconv.FormatInt(at, 10) != q.Cursor {
		return scan, api.ErrInvalid.With("Send as cursor what next_cursor of the page before said.")
	}
	if scan.NewestFirst {
		scan.End = min(scan.End, at)
	} else {
		scan.First = max(scan.First, at)
	}
	return scan, nil
}

// cursorOf is the bound from which the rest of a scan goes on.
func cursorOf(rest postings.Scan) int64 {
	if rest.NewestFirst {
		return rest.End
	}
	return rest.First
}

// find fills a page, and returns what is left of the scan.
func (s *Service) find(ctx context.Context, m matcher, scan postings.Scan) (found []entry, rest postings.Scan, err error) {
	terms, read := m.terms(), s.cfg.Store.Read(ctx)
	limit := scan.Limit
	for budget := maxRead; len(found) < limit && scan.First < scan.End && budget > 0 && scan.Look > 0; {
		scan.Limit = limit - len(found)
		candidates, next, err := s.candidates(ctx, read, terms, scan)
		if err != nil {
			return nil, scan, err
		}
		for i, e := range candidates {
			if !m.fits(e) {
				continue
			}
			if found = append(found, e); len(found) == limit {
				if i < len(candidates)-1 {
					next = past(scan, e.row.Index)
				}
				break
			}
		}
		budget -= max(len(candidates), 1)
		if len(candidates) == 0 && next.First < next.End {
			return found, next, nil // it has looked at all that one request may
		}
		scan = next
	}
	return found, scan, nil
}

// past returns what is left of a scan after an entry.
func past(scan postings.Scan, index int64) postings.Scan {
	if scan.NewestFirst {
		scan.End = index
	} else {
		scan.First = index + 1
	}
	return scan
}

// candidates returns the next entries that may fit, and what is left of the scan after them.
func (s *Service) candidates(ctx context.Context, read store.Queries, terms []postings.Term, scan postings.Scan) ([]entry, postings.Scan, error) {
	if len(terms) == 0 {
		return neighbours(read, scan)
	}
	indexes, rest, err := s.cfg.Index.Find(ctx, terms, scan)
	if err != nil {
		return nil, scan, unavailable(err)
	}
	list := make([]entry, len(indexes))
	for i, index := range indexes {
		if list[i], err = s.entry(read, index); err != nil {
			return nil, scan, err
		}
	}
	return list, rest, nil
}

// neighbours returns the next entries of a scan, whatever they are.
func neighbours(read store.Queries, scan postings.Scan) (list []entry, rest postings.Scan, err error) {
	from, to := scan.First, min(scan.End, scan.First+readAtOnce)
	if scan.NewestFirst {
		from, to = max(scan.First, scan.End-readAtOnce), scan.End
	}
	list, err = entries(read, from, to)
	if scan.NewestFirst {
		slices.Reverse(list)
		scan.End = from
	} else {
		scan.First = to
	}
	return list, scan, err
}

// entries reads those from an index to before another one.
func entries(read store.Queries, from, to int64) ([]entry, error) {
	rows, err := read.LedgerEntries(from, int(to-from))
	if err != nil {
		return nil, unavailable(err)
	}
	list := make([]entry, len(rows))
	for i, row := range rows {
		if row.Index != from+int64(i) {
			return nil, fmt.Errorf("%w: entry %d is missing", ledger.ErrDamaged, from+int64(i))
		}
		if list[i], err = checked(row); err != nil {
			return nil, err
		}
	}
	if int64(len(list)) != to-from {
		return nil, fmt.Errorf("%w: entry %d is missing", ledger.ErrDamaged, from+int64(len(list)))
	}
	return list, nil
}

// unheard stands in an entry for what was asked for and the log does not know: it may be anything, a name too.
const unheard = "nothing that the log has"

// asked is what the entry says of a query.
func (s *Service) asked(ctx context.Context, q api.AuditQuery) (map[string]any, error) {
	asked := map[string]any{}
	m := matcher{q}
	for _, term := range m.terms() {
		found, _, err := s.cfg.Index.Find(ctx, []postings.Term{term}, postings.Scan{End: 1 << 62, Look: 1, Limit: 1})
		if err != nil {
			return nil, unavailable(err)
		}
		field := term.Field
		if field == fieldFamily {
			field = fieldType
		}
		if asked[field] = term.Value; len(found) == 0 {
			asked[field] = unheard
		}
	}
	if q.Outcome == ledger.Success {
		asked[fieldOutcome] = q.Outcome
	}
	for name, at := range map[string]time.Time{"from": q.From, "to": q.To} {
		if !at.IsZero() {
			asked[name] = at.UTC().Format(time.RFC3339Nano)
		}
	}
	return asked, nil
}

// Export implements [api.Audit].
func (s *Service) Export(ctx context.Context, by api.Viewer, q api.AuditExport, w io.Writer) error {
	if _, err := s.ready(ctx); err != nil {
		return err
	}
	first, end, err := s.cfg.Index.Span(ctx, q.From, q.To)
	if err != nil {
		return unavailable(err)
	}
	asked, err := s.asked(ctx, api.AuditQuery{From: q.From, To: q.To})
	if err != nil {
		return err
	}
	if err := s.looked(ctx, by, exported, "log", map[string]any{"format": q.Format, "asked": asked, "from": first, "to": max(end-1, first)}); err != nil {
		return err
	}
	return Lines(s.cfg.Store.Read(ctx), w, Part{Log: s.cfg.Ledger.Origin(), Format: siem.Format(q.Format), First: first, End: end, From: q.From, To: q.To})
}

// Part is what [Lines] writes.
type Part struct {
	Log        string // the log's name
	Format     siem.Format
	First, End int64     // entries from First to before End …
	From, To   time.Time // … of this span of time; zero times do not bound it
}

// Lines writes entries, one a line, each held against its leaf before.
func Lines(read store.Queries, w io.Writer, p Part) error {
	var lines []byte
	for from := p.First; from < p.End; from += readAtOnce {
		list, err := entries(read, from, min(from+readAtOnce, p.End))
		if err != nil {
			return err
		}
		lines = lines[:0]
		for _, e := range list {
			if !within(e.at, p.From, p.To) {
				continue
			}
			if lines, err = p.Format.Append(lines, siem.Record{Log: p.Log, Index: e.row.Index, Leaf: e.row.Leaf, Entry: e.row.Entry}); err != nil {
				return err
			}
		}
		if _, err := w.Write(lines); err != nil {
			return err
		}
	}
	return nil
}
