package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/mattn/go-sqlite3"
)

// pagesAtOnce are copied between two looks at the context: 8 MiB.
const pagesAtOnce = 2048

// Copy writes one state of the database, as it is now, into dir, which has none, and returns the SHA-256 of the file in hex. It
// reads from a snapshot, so nobody who writes waits for it; while it runs, the write-ahead log cannot be cut back. What it
// writes is one file without a write-ahead log, and durable. progress is called with pages done and all pages.
func (s *Store) Copy(ctx context.Context, dir string, progress func(done, all int)) (sum string, err error) {
	path := filepath.Join(dir, FileName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := s.copyTo(ctx, path, progress); err != nil {
		return "", fmt.Errorf("copy the database: %w", translate(err))
	}
	if err := file.Sync(); err != nil {
		return "", err
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

func (s *Store) copyTo(ctx context.Context, path string, progress func(done, all int)) (err error) {
	target, err := sql.Open("sqlite3", source(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	to, err := target.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := s.Snapshot(ctx, func(q Queries) error {
		if _, err := q.LedgerSize(); err != nil { // a snapshot begins with the first look
			return err
		}
		return to.Raw(func(to any) error {
			return q.snapshot.Raw(func(from any) error {
				return copyPages(ctx, to.(*sqlite3.SQLiteConn), from.(*sqlite3.SQLiteConn), progress)
			})
		})
	}); err != nil {
		return err
	}
	_, err = to.ExecContext(ctx, "PRAGMA journal_mode = DELETE")
	return err
}

// copyPages copies what from sees in its open transaction.
func copyPages(ctx context.Context, to, from *sqlite3.SQLiteConn, progress func(done, all int)) (err error) {
	work, err := to.Backup("main", from, "main")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.Close()) }()
	for {
		done, err := work.Step(pagesAtOnce)
		if err != nil {
			return err
		}
		progress(work.PageCount()-work.Remaining(), work.PageCount())
		if done {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// Intact has SQLite read the whole file.
func (s *Store) Intact(ctx context.Context) error {
	var verdict string
	if err := s.readers.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&verdict); err != nil {
		return translate(err)
	}
	if verdict != "ok" {
		return fmt.Errorf("store: the database is damaged: %s", verdict)
	}
	return nil
}
