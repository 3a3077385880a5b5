// Package postings is the search index of the signed log: for each term, the entries that have it.
//
// It lies in a file of its own beside the database, so that the commit path writes nothing for it. All of it follows from
// the log: it is filled behind the log's back by whoever searches, takes no part in a backup, and is thrown away and made
// again where it does not belong to the log, is of another version, or cannot be read.
//
// # What is promised
//
// An entry that was added is found by each of its terms and by its time, whatever the clock did.
//
// # What is not
//
// Terms are kept as the first eight bytes of their SHA-256, so that an entry may be found that has another term, and the file is
// not signed: the caller reads the entry itself and looks. Of a file that somebody has changed the caller gets too little
// without a notice; who must be sure reads all entries, as `finpay verify` does.
package postings

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver
)

// FileName is the index's name in the state directory.
const FileName = "search.db"

// version is that of the tables, as in SQLite's user_version.
const version = 1

// BlockSize is how many entries share one span of time.
const BlockSize = 1024

const tables = `
CREATE TABLE postings (
    term INTEGER NOT NULL,
    idx  INTEGER NOT NULL,
    PRIMARY KEY (term, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE terms (
    term    INTEGER PRIMARY KEY,
    entries INTEGER NOT NULL               -- of terms that many entries have: the rarest one leads a search
) STRICT;
CREATE TABLE blocks (
    n      INTEGER PRIMARY KEY,            -- entries n*1024 to n*1024+1023
    oldest INTEGER NOT NULL,               -- time, in nanoseconds since 1970
    newest INTEGER NOT NULL
) STRICT;
CREATE TABLE progress (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,                 -- entries before this one are in
    leaf BLOB NOT NULL                     -- of the last of them: whose log this is of
) STRICT;
INSERT INTO progress VALUES (1, 0, x'');
PRAGMA user_version = 1;`

// Index is an open index. It is safe for concurrent use; one caller at a time adds.
type Index struct {
	path string

	mu sync.RWMutex // of db, which Reset replaces
	db *sql.DB
}

// Entry is what is known of one entry.
type Entry struct {
	Index int64
	Leaf  []byte
	At    time.Time
	Terms []Term
}

// Term is what entries are found by. Common says that many entries have it, so that it is worth counting how many.
type Term struct {
	Field, Value string
	Common       bool
}

// key is the term as the tables have it.
func (t Term) key() int64 {
	sum := sha256.Sum256([]byte(t.Field + "\x00" + t.Value))
	return int64(binary.BigEndian.Uint64(sum[:8])) // any 64 bits will do
}

// Open opens the index of a state directory, or makes it.
func Open(ctx context.Context, dir string) (*Index, error) {
	x := &Index{path: filepath.Join(dir, FileName)}
	err := x.open(ctx)
	if err != nil && ctx.Err() == nil {
		err = x.Reset(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", x.path, err)
	}
	return x, nil
}

func (x *Index) open(ctx context.Context) (err error) {
	file, err := os.OpenFile(x.path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite itself would follow the umask
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	// What a power cut takes is indexed again.
	source := url.URL{Scheme: "file", Opaque: (&url.URL{Path: x.path}).EscapedPath(), RawQuery: "_journal_mode=WAL&_synchronous=OFF&_busy_timeout=2000&_stmt_cache_size=16"}
	if x.db, err = sql.Open("sqlite3", source.String()); err != nil {
		return err
	}
	x.db.SetMaxOpenConns(4)
	var found int
	if err := x.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&found); err != nil {
		return errors.Join(err, x.db.Close())
	}
	if found == 0 {
		_, err = x.db.ExecContext(ctx, tables)
	} else if found != version {
		err = fmt.Errorf("the index is of version %d", found)
	}
	if err != nil {
		return errors.Join(err, x.db.Close())
	}
	return nil
}

// Reset throws the index away and begins a new one.
func (x *Index) Reset(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.db != nil {
		_ = x.db.Close()
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(x.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return x.open(ctx)
}

// Close ends all connections.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.db.Close()
}

// Progress returns how many entries are in, and the leaf of the last one.
func (x *Index) Progress(ctx context.Context) (size int64, leaf []byte, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.progress(ctx)
}

func (x *Index) progress(ctx context.Context) (size int64, leaf []byte, err error) {
	err = x.db.QueryRowContext(ctx, "SELECT size, leaf FROM progress").Scan(&size, &leaf)
	return size, leaf, err
}

// posting is a row of postings.
type posting struct{ term, index int64 }

// Add takes the next entries in, in order and without a gap.
func (x *Index) Add(ctx context.Context, entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // one batch is short, and the driver starts a goroutine for each statement that may be cancelled
	tx, err := x.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var size int64
	if err := tx.QueryRowContext(ctx, "SELECT size FROM progress").Scan(&size); err != nil {
		return err
	}
	for i, e := range entries {
		if e.Index != size+int64(i) {
			return fmt.Errorf("postings: entry %d comes where %d is wanted", e.Index, size+int64(i))
		}
	}
	if err := addPostings(ctx, tx, entries); err != nil {
		return err
	}
	if err := addTimes(ctx, tx, entries); err != nil {
		return err
	}
	last := entries[len(entries)-1]
	if _, err := tx.ExecContext(ctx, "UPDATE progress SET size = ?, leaf = ?", last.Index+1, last.Leaf); err != nil {
		return err
	}
	return tx.Commit()
}

// addPostings writes in the order of the tree, which costs a third of what the order of the log does.
func addPostings(ctx context.Context, tx *sql.Tx, entries []Entry) error {
	var rows []posting
	common := make(map[int64]int64)
	for _, e := range entries {
		for _, t := range e.Terms {
			key := t.key()
			rows = append(rows, posting{key, e.Index})
			if t.Common {
				common[key]++
			}
		}
	}
	slices.SortFunc(rows, func(a, b posting) int { return cmp.Or(cmp.Compare(a.term, b.term), cmp.Compare(a.index, b.index)) })
	for chunk := range slices.Chunk(rows, rowsAtOnce) {
		if err := insertPostings(ctx, tx, chunk); err != nil {
			return err
		}
	}
	for term, n := range common {
		if _, err := tx.ExecContext(ctx, "INSERT INTO terms VALUES (?,?) ON CONFLICT (term) DO UPDATE SET entries = entries + excluded.entries", term, n); err != nil {
			return err
		}
	}
	return nil
}

// rowsAtOnce is how many postings one statement writes: most of the cost of one row is that of its statement.
const rowsAtOnce = 128

func insertPostings(ctx context.Context, tx *sql.Tx, rows []posting) error {
	args := make([]any, 0, 2*len(rows))
	for _, row := range rows {
		args = append(args, row.term, row.index)
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO postings (term, idx) VALUES (?,?)"+strings.Repeat(",(?,?)", len(rows)-1)+" ON CONFLICT DO NOTHING", args...)
	return err
}

func addTimes(ctx context.Context, tx *sql.Tx, entries []Entry) error {
	for len(entries) > 0 {
		n := entries[0].Index / BlockSize
		oldest, newest := entries[0].At.UnixNano(), entries[0].At.UnixNano()
		for len(entries) > 0 && entries[0].Index/BlockSize == n {
			at := entries[0].At.UnixNano()
			oldest, newest = min(oldest, at), max(newest, at)
			entries = entries[1:]
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO blocks VALUES (?,?,?) ON CONFLICT (n) DO UPDATE SET oldest = min(oldest, excluded.oldest),
			newest = max(newest, excluded.newest)`, n, oldest, newest); err != nil {
			return err
		}
	}
	return nil
}

// Span returns the entries among which all of a span of time are: from first to before end. Times that are zero do not
// bound it.
func (x *Index) Span(ctx context.Context, from, to time.Time) (first, end int64, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if end, _, err = x.progress(ctx); err != nil {
		return 0, 0, err
	}
	if !from.IsZero() {
		var n sql.NullInt64
		if err := x.db.QueryRowContext(ctx, "SELECT min(n) FROM blocks WHERE newest >= ?", from.UnixNano()).Scan(&n); err != nil {
			return 0, 0, err
		}
		if !n.Valid {
			return end, end, nil
		}
		first = n.Int64 * BlockSize
	}
	if !to.IsZero() {
		var n sql.NullInt64
		if err := x.db.QueryRowContext(ctx, "SELECT max(n) FROM blocks WHERE oldest < ?", to.UnixNano()).Scan(&n); err != nil {
			return 0, 0, err
		}
		if !n.Valid {
			return first, first, nil
		}
		end = min(end, (n.Int64+1)*BlockSize)
	}
	return first, max(first, end), nil
}

// Scan is a part of the log that is searched.
type Scan struct {
	First, End  int64 // entries from First to before End
	NewestFirst bool
	Look        int64 // entries of the rarest term that are looked at, at most
	Limit       int   // entries that are returned, at most
}

// Find returns the entries of a scan that have all of the terms, of which there must be one, and where the search stopped:
// the rest of the scan is from there on, or before it.
func (x *Index) Find(ctx context.Context, terms []Term, s Scan) (found []int64, rest Scan, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if terms, err = x.rarestFirst(ctx, terms); err != nil {
		return nil, s, err
	}
	order := "ASC"
	if s.NewestFirst {
		order = "DESC"
	}
	// The rarest term leads; whether the others have the entry is one look-up each.
	query := strings.Builder{}
	args := []any{}
	query.WriteString("SELECT p.idx, 1")
	for _, t := range terms[1:] {
		query.WriteString(" AND EXISTS (SELECT 1 FROM postings q WHERE q.term = ? AND q.idx = p.idx)")
		args = append(args, t.key())
	}
	query.WriteString(" FROM postings p WHERE p.term = ? AND p.idx >= ? AND p.idx < ? ORDER BY p.idx " + order + " LIMIT ?")
	args = append(args, terms[0].key(), s.First, s.End, s.Look)
	rows, err := x.db.QueryContext(ctx, query.String(), args...)
	if err != nil {
		return nil, s, err
	}
	defer func() { _ = rows.Close() }()
	looked := int64(0)
	for rows.Next() {
		var index int64
		var all bool
		if err := rows.Scan(&index, &all); err != nil {
			return nil, s, err
		}
		looked++
		if s = s.past(index); !all {
			continue
		}
		if found = append(found, index); len(found) == s.Limit {
			return found, s, nil
		}
	}
	if looked < s.Look {
		s.First = s.End // all of it was seen
	}
	return found, s, rows.Err()
}

// past returns what is left of a scan after an entry.
func (s Scan) past(index int64) Scan {
	if s.NewestFirst {
		s.End = index
	} else {
		s.First = index + 1
	}
	return s
}

// rarestFirst puts the term that the fewest entries have first. What is not counted is rare.
func (x *Index) rarestFirst(ctx context.Context, terms []Term) ([]Term, error) {
	if len(terms) == 0 {
		return nil, errors.New("postings: a search without a term")
	}
	counts := make(map[Term]int64, len(terms))
	for _, t := range terms {
		var n int64
		err := x.db.QueryRowContext(ctx, "SELECT entries FROM terms WHERE term = ?", t.key()).Scan(&n)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		counts[t] = n
	}
	terms = slices.Clone(terms)
	slices.SortStableFunc(terms, func(a, b Term) int { return cmp.Compare(counts[a], counts[b]) })
	return terms, nil
}
