package store

import (
	"context"
	"fmt"
	"time"
)

// A database has one log that is open, and those that came before it, closed for ever. They share their tables: log n has the
// numbers from n·2^40 on, in place of those from 0 on, so that one integer still is the key of an entry.
const logSpan = 1 << 40

// begin and end bound the numbers of the log that is meant.
func (q Queries) begin() int64 { return q.log * logSpan }
func (q Queries) end() int64   { return (q.log + 1) * logSpan }

// Log returns the number of the log that is meant.
func (q Queries) Log() int64 { return q.log }

// InLog returns the same queries, about another log.
func (q Queries) InLog(n int64) Queries {
	q.log = n
	return q
}

// loadOpen finds out which log is open.
func (s *Store) loadOpen(ctx context.Context) error {
	var n int64
	err := s.readers.QueryRowContext(ctx, "SELECT count(*) FROM closed_logs").Scan(&n)
	s.log.Store(n)
	return translate(err)
}

// ClosedLog is one row of closed_logs: a log to which nothing is added any more, and the one that follows it.
type ClosedLog struct {
	N         int64
	Origin    string // its name
	Key       string // verifier key that it was signed under (C2SP signed-note)
	Size      int64
	Note      []byte // its last checkpoint
	Successor string // name of the next log
	ClosedAt  time.Time
}

func scanClosedLog(row scanner) (l ClosedLog, err error) {
	err = row.Scan(&l.N, &l.Origin, &l.Key, &l.Size, &l.Note, &l.Successor, scanTime{&l.ClosedAt})
	return l, err
}

const closedLogColumns = "n, origin, key, size, note, successor, closed_at"

// ClosedLogs returns all rows, oldest first.
func (q Queries) ClosedLogs() (list []ClosedLog, err error) {
	err = each(q, scanClosedLog, func(l ClosedLog) error { list = append(list, l); return nil },
		"SELECT "+closedLogColumns+" FROM closed_logs ORDER BY n")
	return list, err
}

// CloseLog closes the log that is open. What is written to the log from here on, in this transaction and later ones, is in its
// successor; N is filled in.
func (tx *Tx) CloseLog(l ClosedLog) error {
	l.N = tx.log
	inUTC(&l.ClosedAt)
	if err := tx.write("closed_logs", l.Origin, l, "INSERT INTO closed_logs ("+closedLogColumns+") VALUES (?,?,?,?,?,?,?)",
		l.N, l.Origin, l.Key, l.Size, l.Note, l.Successor, formatTime(l.ClosedAt)); err != nil {
		return fmt.Errorf("close the log %s: %w", l.Origin, err)
	}
	tx.log++
	return nil
}

// coveredLogs are the rows of this file that entries cover.
func (q Queries) coveredLogs(hashed func(table, key string, value any) error) error {
	return each(q, scanClosedLog, func(l ClosedLog) error { return hashed("closed_logs", l.Origin, l) },
		"SELECT "+closedLogColumns+" FROM closed_logs")
}
