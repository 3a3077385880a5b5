// Package store holds the rows: their types, their SQL and their migrations, in SQLite.
//
// Reading is open to all of appliance. Writing is not: only package ledger gets a [Tx], and it commits one together
// with the signed entries that tell of it. The writing methods remember the hash of each row they touch that
// an entry must cover.
//
// # What is promised
//
// A database has one open log and the closed ones that it has followed; what reads or writes the log means the open one.
//
// A committed transaction survives a crash and a power cut (WAL, synchronous=FULL). One process writes: a second
// one that opens the same directory for writing is refused.
//
// # What no entry covers
//
// Tables of which entries tell nothing, because what they hold can be deleted, can be derived, or is bookkeeping: customers,
// deliveries, delivery_tries, idempotency, envelopes, api_key_uses, sequences, detokenizations, token_bounds, auditors (names of people), the ledger's own ledger_entries, ledger_nodes, ledger_checkpoints
// and ledger_cosignatures (signed as a whole), token_domains and token_counts, and the four tables in which package runs keeps the
// records of tokens: token_tail, token_runs, token_chunks, token_pages. A record itself is covered by the entry of
// its issue, wherever it is moved; the state of a replaced token by the entry of its replacement, from which it follows.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"

	"github.com/finterra/finpay/appliance/store/runs"
)

// Errors of this package.
var (
	// ErrNotFound means that no row has this key.
	ErrNotFound = errors.New("store: not found")
	// ErrUnavailable means that the database cannot be used now: another process holds it for longer than this one
	// waits, or its disk is full or fails.
	ErrUnavailable = errors.New("store: the database is not available")
	// ErrInUse means that another process serves from this directory.
	ErrInUse = errors.New("store: another process is using this state directory")
)

// FileName is the database's name in the state directory.
const FileName = "finpay.db"

// busyTimeout is how long a statement waits for another process's lock.
const busyTimeout = 2 * time.Second

// tuning is how the writing connection differs. What a savepoint must undo is kept in memory in small pieces: else SQLite
// allocates 64 KiB for each savepoint, which costs more than most units write. The write-ahead log is cut back after a
// checkpoint where a long reader had let it grow.
const tuning = "PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 67108864"

// statementsKept is how many prepared statements the driver keeps for each connection: more than there are texts of
// look-ups.
const statementsKept = 128

//go:embed migrations/*.sql
var migrations embed.FS

// Store is an open database.
type Store struct {
	readers *sql.DB
	writer  *sql.DB // one connection
	conn    *sql.Conn
	writing *statements // of conn
	lock    *os.File
	tokens  *runs.Tree // nil in a store that only reads: another process moves the records
	domains domains

	merchants merchantsParsed

	log      atomic.Int64    // number of the log that is open
	retiring map[uint32]bool // versions of the tokenization key under which no token is issued any more; of the writer
}

// Open opens the database of a state directory for reading and writing, and brings its tables up to date.
func Open(ctx context.Context, dir string) (*Store, error) {
	return OpenTuned(ctx, dir, runs.Config{})
}

// OpenTuned is [Open] with thresholds of the token registry.
func OpenTuned(ctx context.Context, dir string, cfg runs.Config) (*Store, error) {
	lock, err := lockDirectory(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{lock: lock}
	path := filepath.Join(dir, FileName)
	if err := s.open(ctx, path, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.Close())
	}
	return s, nil
}

// OpenReadOnly opens the database of a state directory beside a process that serves from it.
func OpenReadOnly(dir string) (*Store, error) {
	path := filepath.Join(dir, FileName)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("no database: %w", err)
	}
	readers, err := sql.Open("sqlite3", source(path, "mode=ro", "_query_only=true"))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &Store{readers: readers}
	if err := s.loadOpen(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), readers.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, path string, cfg runs.Config) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite itself would follow the umask
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if s.writer, err = sql.Open("sqlite3", source(path, "_journal_mode=WAL", "_synchronous=FULL", "_foreign_keys=true", "_secure_delete=true")); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(1)
	if err := migrate(ctx, s.writer); err != nil {
		return err
	}
	if s.conn, err = s.writer.Conn(ctx); err != nil {
		return err
	}
	s.writing = &statements{conn: s.conn, prepared: make(map[string]*sqlite3.SQLiteStmt)}
	if _, err := s.conn.ExecContext(ctx, tuning); err != nil {
		return err
	}
	if s.readers, err = sql.Open("sqlite3", source(path, "_query_only=true")); err != nil {
		return err
	}
	s.readers.SetMaxOpenConns(8)
	s.readers.SetMaxIdleConns(8)
	if err := s.loadOpen(ctx); err != nil {
		return err
	}
	if err := s.loadRetiring(ctx); err != nil {
		return err
	}
	s.tokens, err = runs.Open(ctx, s.conn, cfg)
	return translate(err)
}

func source(path string, options ...string) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	u.RawQuery = fmt.Sprintf("_busy_timeout=%d&_stmt_cache_size=%d", busyTimeout.Milliseconds(), statementsKept)
	for _, option := range options {
		u.RawQuery += "&" + option
	}
	return u.String()
}

func lockDirectory(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("%w: %s", ErrInUse, dir)
	}
	return lock, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return translate(err)
}

// Close ends all connections and gives the directory free.
func (s *Store) Close() error {
	var errs []error
	if s.conn != nil {
		errs = append(errs, s.writing.close(), s.conn.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.Close())
	}
	if s.readers != nil {
		errs = append(errs, s.readers.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Ping reads from the database.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	return translate(s.readers.QueryRowContext(ctx, "SELECT 1").Scan(&one))
}

// Read returns the queries, each bounded by ctx.
func (s *Store) Read(ctx context.Context) Queries {
	return Queries{ctx: ctx, q: s.readers, store: s, log: s.log.Load()}
}

// Queries are the reading statements, outside or inside a transaction.
type Queries struct {
	ctx context.Context //nolint:containedctx // a Queries lives for one call; in a Tx the context must not be the caller's
	q   querier

	store    *Store
	tx       *Tx       // whose rows are seen too; nil outside
	snapshot *sql.Conn // that holds one state of the database; nil outside of [Store.Snapshot]
	log      int64     // whose entries are meant
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// translate turns the driver's errors into those of this package.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if e, ok := errors.AsType[sqlite3.Error](err); ok {
		switch e.Code {
		case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrFull, sqlite3.ErrIoErr, sqlite3.ErrReadonly, sqlite3.ErrCantOpen, sqlite3.ErrNomem:
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return err
}

// timeFormat keeps the order of times as text.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// formatTime returns a time in the form in which columns keep it.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeFormat)
}

// inUTC makes times of a row what they will be when the row is read: a row's hash must not depend on this machine's
// time zone.
func inUTC(times ...*time.Time) {
	for _, t := range times {
		*t = t.UTC()
	}
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	return time.Parse(timeFormat, s)
}

// scanTime reads a column that formatTime wrote.
type scanTime struct{ t *time.Time }

func (s scanTime) Scan(value any) error {
	text, ok := value.(string)
	if !ok {
		return fmt.Errorf("store: a time of type %T", value)
	}
	t, err := parseTime(text)
	*s.t = t
	return err
}
