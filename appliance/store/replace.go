package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/finterra/finpay/appliance/failpoint"
)

// Lock keeps other processes from the database of a state directory until it is closed. [Open] has a lock of its own.
func Lock(dir string) (io.Closer, error) { return lockDirectory(dir) }

// walSuffixes are what SQLite keeps beside a database: the second is made anew where it is missing.
const (
	walSuffix = "-wal"
	shmSuffix = "-shm"
)

// Replace puts the database file of one directory into the place of another one's, which the caller has locked. What was there
// is kept aside, under its name and suffix, with its write-ahead log where it has one that SQLite cannot take in. Whoever
// is interrupted has the old database or the new one, and never parts of both: an old write-ahead log beside a new
// database would be taken for its own.
func Replace(ctx context.Context, dir, from, suffix string) error {
	path, fresh := filepath.Join(dir, FileName), filepath.Join(from, FileName)
	if err := settle(ctx, fresh); err != nil {
		return err
	}
	if info, err := os.Stat(fresh + walSuffix); err == nil && info.Size() > 0 {
		return fmt.Errorf("store: somebody has %s open", fresh)
	}
	if _, err := os.Stat(path); err == nil {
		_ = settle(ctx, path) // one that is damaged is kept as it is
	}
	for _, part := range []string{"", walSuffix} {
		if err := os.Link(path+part, path+suffix+part); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("store: keep the former database: %w", err)
		}
	}
	failpoint.Here("after database is kept aside")
	for _, part := range []string{walSuffix, shmSuffix} {
		if err := os.Remove(path + part); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := syncNames(dir); err != nil {
		return err
	}
	failpoint.Here("before database is replaced")
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	failpoint.Here("after database is replaced")
	return syncNames(dir)
}

// settle has SQLite take the write-ahead log into the database.
func settle(ctx context.Context, path string) (err error) {
	db, err := sql.Open("sqlite3", source(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

// syncNames makes the names in a directory durable.
func syncNames(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
