package store

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// ErrVersionRetired means that a version of the tokenization key is being retired: no token is issued under it any more.
var ErrVersionRetired = errors.New("store: this version of the tokenization key is being retired")

// Retirement is the end of one version of the tokenization key, as far as it has come. Times that have not come are zero.
type Retirement struct {
	KeyVersion uint32
	Window     time.Duration // for which replaced tokens work on after ReplacedAt, in nanoseconds in the row's JSON
	StartedAt  time.Time     // from now on no token is issued under the version
	ReplacedAt time.Time     // no token leads back under it any more
	Changes    int64         // number of the newest replacement at ReplacedAt
	CountedAt  time.Time     // every domain had acknowledged, the window was over, and the count was entered
	EndedAt    time.Time     // the key was destroyed
}

const retirementColumns = "key_version, window, started_at, replaced_at, changes, counted_at, ended_at"

func scanRetirement(row scanner) (Retirement, error) {
	var r Retirement
	err := row.Scan(&r.KeyVersion, &r.Window, scanTime{&r.StartedAt}, scanTime{&r.ReplacedAt}, &r.Changes, scanTime{&r.CountedAt}, scanTime{&r.EndedAt})
	return r, translate(err)
}

// PutRetirement writes how far a retirement has come.
func (tx *Tx) PutRetirement(r Retirement) error {
	inUTC(&r.StartedAt, &r.ReplacedAt, &r.CountedAt, &r.EndedAt)
	tx.store.retiring[r.KeyVersion] = true // even if this is undone: it is not the active version
	return tx.write("token_retirements", strconv.FormatUint(uint64(r.KeyVersion), 10), r, `INSERT INTO token_retirements
		(`+retirementColumns+`) VALUES (?,?,?,?,?,?,?)
		ON CONFLICT (key_version) DO UPDATE SET window = excluded.window, replaced_at = excluded.replaced_at, changes = excluded.changes,
		counted_at = excluded.counted_at, ended_at = excluded.ended_at`,
		r.KeyVersion, r.Window, formatTime(r.StartedAt), formatTime(r.ReplacedAt), r.Changes, formatTime(r.CountedAt), formatTime(r.EndedAt))
}

// Retirements returns all of them, by version.
func (q Queries) Retirements() ([]Retirement, error) {
	var list []Retirement
	err := each(q, scanRetirement, func(r Retirement) error { list = append(list, r); return nil },
		"SELECT "+retirementColumns+" FROM token_retirements ORDER BY key_version")
	return list, err
}

// Retirement returns that of one version, or [ErrNotFound].
func (q Queries) Retirement(version uint32) (Retirement, error) {
	return scanRetirement(q.q.QueryRowContext(q.ctx, "SELECT "+retirementColumns+" FROM token_retirements WHERE key_version = ?", version))
}

// TokensIssued returns how many tokens were issued under a version of the key, whatever has become of them.
func (q Queries) TokensIssued(version uint32) (n int, err error) {
	err = translate(q.q.QueryRowContext(q.ctx, "SELECT issued FROM token_counts WHERE key_version = ?", version).Scan(&n))
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	if q.tx != nil {
		for _, c := range q.tx.counts {
			if c.version == version {
				n += c.issued
			}
		}
	}
	return n, err
}

// loadRetiring notes under which versions no token is issued any more.
func (s *Store) loadRetiring(ctx context.Context) error {
	list, err := s.Read(ctx).Retirements()
	s.retiring = make(map[uint32]bool)
	for _, r := range list {
		s.retiring[r.KeyVersion] = true
	}
	return err
}
