package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/finterra/finpay/appliance/store"
)

// Database is the log in a state directory's database. What is stored of the tree is checked too. Key is the verifier key
// that lies beside it; it may be empty where one is pinned. Log is the log's number: 0 for the first one.
type Database struct {
	Store *store.Store
	Key   string
	Log   int64
}

// page is how many rows are read at once.
const page = 1000

// rows reads the database in one pass.
type rows struct {
	*walk
	read        store.Queries
	checkpoints []store.LedgerCheckpoint // read ahead
	asked       int64                    // up to which size
	done        bool                     // there are no more
}

func (d Database) read(ctx context.Context, w *walk) error {
	r := &rows{walk: w, read: d.Store.Read(ctx).InLog(d.Log)}
	entered, err := r.read.LedgerSize() // before the checkpoint, which commits with its entries
	if err != nil {
		return fmt.Errorf("read the log's size: %w", err)
	}
	size, text, err := r.read.LedgerCheckpoint()
	if errors.Is(err, store.ErrNotFound) {
		return wrong(-1, "there is no signed checkpoint")
	}
	if err != nil {
		return fmt.Errorf("read the newest checkpoint: %w", err)
	}
	if err := w.begin(d.Key, 0, nil); err != nil {
		return err
	}
	if err := r.isOf(store.LedgerCheckpoint{Size: size, Note: text}); err != nil {
		return err
	}
	for from := int64(0); from < size; from += page {
		if err := r.entries(from, int(min(page, size-from)), size); err != nil {
			return err
		}
	}
	if size < entered {
		return wrong(size, "the entry is under no checkpoint")
	}
	return nil
}

func (r *rows) entries(from int64, count int, size int64) error {
	entries, err := r.read.LedgerEntries(from, count)
	if err != nil {
		return fmt.Errorf("read entries from %d: %w", from, err)
	}
	for i, e := range entries {
		if want := from + int64(i); e.Index != want {
			return wrong(want, "the entry is missing")
		}
		if err := r.readAhead(size); err != nil {
			return err
		}
		stored, err := r.take(e.Entry, e.Leaf)
		if err != nil {
			return err
		}
		for _, node := range stored {
			if err := r.isStored(node); err != nil {
				return err
			}
		}
	}
	if len(entries) < count {
		return wrong(from+int64(len(entries)), "the entry is missing")
	}
	return nil
}

// readAhead sees to it that the walk knows the next checkpoint.
func (r *rows) readAhead(size int64) error {
	if len(r.ahead) > 0 || r.done {
		return nil
	}
	if len(r.checkpoints) == 0 {
		var err error
		if r.checkpoints, err = r.read.LedgerCheckpoints(r.asked, page); err != nil {
			return fmt.Errorf("read checkpoints after %d: %w", r.asked, err)
		}
	}
	if r.done = len(r.checkpoints) == 0 || r.checkpoints[0].Size > size; r.done {
		return nil
	}
	next := r.checkpoints[0]
	r.checkpoints, r.asked = r.checkpoints[1:], next.Size
	got, err := r.signed(next.Note)
	if f, ok := errors.AsType[*finding](err); ok {
		return wrong(-1, "the checkpoint of size %d: %s", next.Size, f.reason)
	}
	if err == nil && got != next.Size {
		err = wrong(-1, "the checkpoint of size %d is not the one it is stored as", next.Size)
	}
	return err
}

// isOf checks a checkpoint by itself.
func (r *rows) isOf(c store.LedgerCheckpoint) error {
	got, err := r.open(c.Note, nil)
	if err != nil {
		return wrong(-1, "the checkpoint of size %d: %v", c.Size, err)
	}
	if got.size != c.Size {
		return wrong(-1, "the checkpoint of size %d is not the one it is stored as", c.Size)
	}
	return nil
}

func (r *rows) isStored(n node) error {
	stored, err := r.read.LedgerHashes(n.level, n.index, 1)
	if err != nil {
		return fmt.Errorf("read stored hash %d of level %d: %w", n.index, n.level, err)
	}
	if len(stored) != 1 || string(stored[0]) != string(n.hash[:]) {
		return wrong(-1, "stored hash %d of level %d is not that of its entries", n.index, n.level)
	}
	return nil
}
