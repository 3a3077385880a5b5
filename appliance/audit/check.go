package audit

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/finterra/finpay/appliance/store"
)

// Finding is one row that is not as the log has it, or one that the log has and the database has not.
type Finding struct {
	Row    string `json:"row"`           // "table/key", as entries name it
	Entry  int64  `json:"entry"`         // the newest that covers it, or -1
	Log    string `json:"log,omitempty"` // whose entry that is, where the log is a closed one
	Reason string `json:"reason"`
}

// Rows is what a check of the rows found.
type Rows struct {
	Entries  int64     `json:"entries"` // that were read
	Rows     int       `json:"rows"`    // that are there
	Findings []Finding `json:"findings"`
	Wrong    int       `json:"wrong"` // findings, with those beyond maxFindings
}

// maxFindings bounds the findings that are told one by one.
const maxFindings = 100

// Check holds the rows of a database against its log, in both directions: each row that entries cover must have the hash that the
// newest of them says, each row of their tables must be covered, and what they cover must be there. It sees one state of
// the database, beside the process that writes, and needs room for some 60 bytes for each row of each entry on the disk
// of dir; memory is bounded.
//
// That the entries are those that were signed is for [Verify] to say.
func Check(ctx context.Context, s *store.Store, dir string) (Rows, error) {
	var found Rows
	err := s.Snapshot(ctx, func(q store.Queries) error {
		c := &check{q: q, found: &found}
		defer c.close()
		for i := range c.parts {
			if err := c.parts[i].open(dir); err != nil {
				return err
			}
		}
		return c.run()
	})
	if e, ok := errors.AsType[*store.ErrTokenState](err); ok {
		found.Findings, found.Wrong, err = append(found.Findings, Finding{Row: e.Name, Entry: -1, Reason: e.Error()}), found.Wrong+1, nil
	}
	return found, err
}

// partitions is among how many files the rows are spread by their names: each is then small enough for memory.
const partitions = 64

// check is one check under way.
type check struct {
	q     store.Queries
	found *Rows
	parts [partitions]partition
	wrong map[nameHash]*Finding // whose names are to be found

	begins []int64 // where each log's entries begin
}

// nameHash stands for a name.
type nameHash [16]byte

func hashName(name string) (h nameHash) {
	sum := sha256.Sum256([]byte(name))
	copy(h[:], sum[:])
	return h
}

// claim is what an entry says of a row, or, with the entry ofRow or superseded, what the row is.
type claim struct {
	name  nameHash
	entry int64 // counted through all logs, in their order
	hash  [32]byte
}

const (
	ofRow      = -1
	superseded = -2 // a row that follows from another one
	claimSize  = 16 + 8 + 32
)

func (c *check) run() error {
	if err := c.entries(func(name string, entry int64, hash [32]byte) error {
		return c.put(claim{hashName(name), entry, hash})
	}); err != nil {
		return err
	}
	if err := c.q.CoveredRows(func(name, text string) error {
		c.found.Rows++
		if text == store.Superseded {
			return c.put(claim{name: hashName(name), entry: superseded})
		}
		hash, err := parseHash(text)
		if err != nil {
			return err
		}
		return c.put(claim{hashName(name), ofRow, hash})
	}); err != nil {
		return err
	}
	c.wrong = make(map[nameHash]*Finding)
	for i := range c.parts {
		if err := c.compare(&c.parts[i]); err != nil {
			return err
		}
	}
	return c.name()
}

// entries calls f with what each entry of each log says of each row.
func (c *check) entries(f func(name string, entry int64, hash [32]byte) error) error {
	c.found.Entries, c.begins = 0, nil
	for n := range c.q.Log() + 1 {
		c.begins = append(c.begins, c.found.Entries)
		if err := c.entriesIn(c.q.InLog(n), c.found.Entries, f); err != nil {
			return err
		}
	}
	return nil
}

// entriesIn does so for one log, whose first entry is counted as begin.
func (c *check) entriesIn(log store.Queries, begin int64, f func(name string, entry int64, hash [32]byte) error) error {
	for {
		list, err := log.LedgerEntries(c.found.Entries-begin, page)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, e := range list {
			var entry struct {
				Rows map[string]string `json:"rows"`
			}
			if err := json.Unmarshal(e.Entry, &entry); err != nil {
				return fmt.Errorf("entry %d: %w", e.Index, err)
			}
			for name, text := range entry.Rows {
				hash, err := parseHash(text)
				if err != nil {
					return fmt.Errorf("entry %d: %w", e.Index, err)
				}
				if err := f(name, begin+e.Index, hash); err != nil {
					return err
				}
			}
		}
		c.found.Entries = begin + list[len(list)-1].Index + 1
	}
}

func parseHash(text string) (hash [32]byte, err error) {
	if raw, err := hex.DecodeString(text); err != nil || copy(hash[:], raw) != len(hash) || len(raw) != len(hash) {
		return hash, errors.New("a row's hash is not 32 bytes in hex")
	}
	return hash, nil
}

func (c *check) put(what claim) error { return c.parts[what.name[0]%partitions].put(what) }

// compare holds the rows of a partition against the newest claims about them.
func (c *check) compare(p *partition) error {
	newest := make(map[nameHash]claim)
	if err := p.each(func(what claim) {
		was, claimed := newest[what.name]
		switch {
		case what.entry >= 0:
			newest[what.name] = what // entries come first, in order
			return
		case what.entry == superseded:
		case !claimed:
			c.note(what.name, -1, "it is there, and no entry covers it")
		case was.hash != what.hash:
			c.note(what.name, was.entry, "it is not as the log has signed it")
		}
		delete(newest, what.name)
	}); err != nil {
		return err
	}
	for name, lost := range newest {
		c.note(name, lost.entry, "it is gone: the log covers it, and there is no such row")
	}
	return nil
}

func (c *check) note(name nameHash, entry int64, reason string) {
	c.found.Wrong++
	if len(c.wrong) < maxFindings {
		c.wrong[name] = &Finding{Entry: entry, Reason: reason}
	}
}

// name finds the names of what is wrong, which the partitions do not keep.
func (c *check) name() error {
	if len(c.wrong) == 0 {
		return nil
	}
	see := func(name string) {
		if f, ok := c.wrong[hashName(name)]; ok && f.Row == "" {
			f.Row = name
			c.found.Findings = append(c.found.Findings, *f)
		}
	}
	if err := c.q.CoveredRows(func(name, _ string) error { see(name); return nil }); err != nil {
		return err
	}
	if err := c.entries(func(name string, _ int64, _ [32]byte) error { see(name); return nil }); err != nil {
		return err
	}
	return c.place()
}

// place turns the counts of entries into their places in their logs.
func (c *check) place() error {
	closed, err := c.q.ClosedLogs()
	if err != nil {
		return err
	}
	for i := range c.found.Findings {
		f := &c.found.Findings[i]
		for n := len(c.begins) - 1; n >= 0; n-- {
			if f.Entry < c.begins[n] {
				continue
			}
			f.Entry -= c.begins[n]
			if n < len(closed) {
				f.Log = closed[n].Origin
			}
			break
		}
	}
	return nil
}

func (c *check) close() {
	for i := range c.parts {
		c.parts[i].close()
	}
}

// partition is claims in a file that has no name any more.
type partition struct {
	file *os.File
	out  *bufio.Writer
	buf  [claimSize]byte
}

func (p *partition) open(dir string) error {
	file, err := os.CreateTemp(dir, "check-")
	if err != nil {
		return err
	}
	p.file, p.out = file, bufio.NewWriter(file)
	return os.Remove(file.Name())
}

func (p *partition) put(c claim) error {
	copy(p.buf[:], c.name[:])
	binary.BigEndian.PutUint64(p.buf[16:], uint64(c.entry))
	copy(p.buf[24:], c.hash[:])
	_, err := p.out.Write(p.buf[:])
	return err
}

func (p *partition) each(f func(claim)) error {
	if err := p.out.Flush(); err != nil {
		return err
	}
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for in := bufio.NewReader(p.file); ; {
		if _, err := io.ReadFull(in, p.buf[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		f(claim{nameHash(p.buf[:16]), int64(binary.BigEndian.Uint64(p.buf[16:])), [32]byte(p.buf[24:])})
	}
}

func (p *partition) close() {
	if p.file != nil {
		_ = p.file.Close()
	}
}
