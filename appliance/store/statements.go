package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/mattn/go-sqlite3"
)

// statements are those that write, each prepared when it is first run and kept until the store is closed. They go to the
// driver itself: database/sql costs as much again as SQLite does for one row.
type statements struct {
	conn     *sql.Conn
	prepared map[string]*sqlite3.SQLiteStmt
	bound    []driver.NamedValue // arguments of the statement under way
}

// exec runs a statement to its end. It takes no context: nothing may interrupt a write.
func (s *statements) exec(query string, args []any) error {
	return s.conn.Raw(func(conn any) error {
		statement, err := s.prepare(conn.(*sqlite3.SQLiteConn), query)
		if err != nil {
			return err
		}
		defer clear(s.bound)
		if err := s.bind(args); err != nil {
			return err
		}
		_, err = statement.ExecContext(context.Background(), s.bound)
		return err
	})
}

func (s *statements) prepare(conn *sqlite3.SQLiteConn, query string) (*sqlite3.SQLiteStmt, error) {
	if statement, ok := s.prepared[query]; ok {
		return statement, nil
	}
	prepared, err := conn.Prepare(query)
	if err != nil {
		return nil, err
	}
	statement := prepared.(*sqlite3.SQLiteStmt)
	s.prepared[query] = statement
	return statement, nil
}

// bind turns arguments into what the driver takes.
func (s *statements) bind(args []any) error {
	s.bound = s.bound[:0]
	for i, arg := range args {
		switch v := arg.(type) {
		case string, []byte, int64:
		case int:
			arg = int64(v)
		default: // a named type, or a smaller integer
			var err error
			if arg, err = driver.DefaultParameterConverter.ConvertValue(v); err != nil {
				return err
			}
		}
		s.bound = append(s.bound, driver.NamedValue{Ordinal: i + 1, Value: arg})
	}
	return nil
}

// inTransaction reports whether the connection has a transaction open.
func (s *statements) inTransaction() bool {
	open := false
	_ = s.conn.Raw(func(conn any) error {
		open = !conn.(*sqlite3.SQLiteConn).AutoCommit()
		return nil
	})
	return open
}

func (s *statements) close() error {
	var errs []error
	for _, statement := range s.prepared {
		errs = append(errs, statement.Close())
	}
	clear(s.prepared)
	return errors.Join(errs...)
}
