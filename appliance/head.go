package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/finterra/finpay/appliance/control"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

const (
	// headLabel is the label of the data object on the hsm token that has the newest checkpoint.
	headLabel = "finpay head"
	// headFile has it where the hsm token takes no data objects: that notices an old database, and no old state directory.
	headFile = "ledger.head"
	// headResource is what entries about the head are about.
	headResource = "head"
	// headPeriod is how often a log that grows is looked at, and headTimeout how long the HSM may take. A crash leaves the
	// head that is kept behind the log by as much, which is no fault.
	headPeriod  = 5 * time.Second
	headTimeout = 5 * time.Second
)

// Places of the head.
const (
	headOnToken = "hsm"
	headInFile  = "file"
)

// errHeadMissing means that the log says where its head is kept, and nothing is there.
var errHeadMissing = errors.New("the log's newest head is not where it was kept outside of the database")

// head keeps the newest checkpoint outside of the database, so that an old copy of the database is noticed. What is kept
// proves itself under the log's key.
type head struct {
	engine *hsm.Engine
	store  *store.Store
	state  string
	log    *slog.Logger // nil in commands

	mu      sync.Mutex
	kept    []byte
	place   string // that the log has been told of
	failing bool   // since the last time that it could be kept

	size     atomic.Int64 // of the log, under kept
	failures atomic.Int64
}

// known returns what is kept, and an error where nothing is and something should be.
func (h *head) known(ctx context.Context) (known [][]byte, err error) {
	if known, err = h.engine.Data(ctx, headLabel); err != nil {
		return nil, err
	}
	there := map[string]bool{headOnToken: len(known) > 0}
	text, err := os.ReadFile(filepath.Join(h.state, headFile))
	if err == nil {
		known, there[headInFile] = append(known, text), true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(known) == 1 {
		h.kept = known[0]
	}
	if h.place, err = keptAt(h.store.Read(ctx)); err != nil {
		return nil, err
	}
	if h.place != "" && !there[h.place] {
		return known, errHeadMissing
	}
	return known, nil
}

// keptAt returns where the head is kept, as the log has it; empty where it does not say.
func keptAt(read store.Queries) (string, error) {
	entries, err := read.LedgerEntriesOf(headResource)
	if err != nil || len(entries) == 0 {
		return "", err
	}
	var entry struct {
		Data struct {
			Place string `json:"place"`
		} `json:"data"`
	}
	err = json.Unmarshal(entries[len(entries)-1].Entry, &entry)
	return entry.Data.Place, err
}

// keep puts the newest checkpoint where it is kept, if it is not there yet. The log is told of a new place once.
func (h *head) keep(ctx context.Context, l *ledger.Ledger) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	place, err := h.put(ctx)
	if err == nil && place != "" && place != h.place {
		if err = h.tell(ctx, l, "head.kept", place, "local"); err == nil {
			_, err = h.put(ctx)
		}
	}
	h.report(ctx, err)
	return err
}

// put returns the place, or an empty one where nothing is to be put.
func (h *head) put(ctx context.Context) (place string, err error) {
	size, text, err := h.store.Read(ctx).LedgerCheckpoint()
	if errors.Is(err, store.ErrNotFound) || (err == nil && bytes.Equal(text, h.kept)) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	failpoint.Here("before head")
	place = headOnToken
	if err = h.engine.PutData(ctx, headLabel, text); errors.Is(err, hsm.ErrNoDataObjects) {
		place, err = headInFile, replaceFile(filepath.Join(h.state, headFile), text, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("keep the log's head: %w", err)
	}
	failpoint.Here("after head")
	h.kept = text
	h.size.Store(size)
	return place, nil
}

// tell enters where the head is kept.
func (h *head) tell(ctx context.Context, l *ledger.Ledger, event, place, by string) error {
	_, err := l.Commit(ctx, func(tx *ledger.Tx) error {
		tx.Record(ledger.Entry{Type: event, Actor: "operator", Origin: by, Outcome: ledger.Success, Resource: headResource, Data: map[string]any{"place": place}})
		return nil
	})
	if err == nil {
		h.place = place
	}
	return err
}

// report counts failures, and says so once until it can be kept again.
func (h *head) report(ctx context.Context, err error) {
	if err != nil {
		h.failures.Add(1)
	}
	if h.log != nil && err != nil && !h.failing {
		h.log.WarnContext(ctx, "the log's head cannot be kept outside of the database: an old copy would be noticed less well", "error", err)
	}
	if h.log != nil && err == nil && h.failing {
		h.log.InfoContext(ctx, "the log's head is kept again")
	}
	h.failing = err != nil
}

// run keeps the head while the log grows, until ctx ends.
func (h *head) run(ctx context.Context, l *ledger.Ledger) {
	tick := time.NewTicker(headPeriod)
	defer tick.Stop()
	for {
		_ = h.keep(ctx, l) // reported
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// advised says what to do about a database that is not the newest.
func advised(err error) error {
	switch {
	case errors.Is(err, ledger.ErrBehind):
		return fmt.Errorf("%w. Nothing is served from it. If the newer one is lost, `finpay restore BACKUP` opens a new log that says so", err)
	case errors.Is(err, errHeadMissing):
		return fmt.Errorf("%w: somebody has destroyed it, or this is a copy of the hsm token. Hold the log against a checkpoint that was kept elsewhere "+
			"(`finpay verify DIR --key VKEY --checkpoint FILE`); if nothing is missing, `finpay ledger accept-head` goes on", err)
	}
	return err
}

// replaceFile writes a file in the place of one that may be there, whole or not at all.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(content)
	if err := errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// syncDirectory makes names durable.
func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

type acceptHeadCommand struct{}

// Run goes on without the head that is missing. The entry says so for ever.
func (acceptHeadCommand) Run(ctx context.Context, g globals) (err error) {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	n, err := openToLook(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if n.behind == nil {
		fmt.Println("The log's head is where it is kept; nothing was changed.")
		return nil
	}
	if !errors.Is(n.behind, errHeadMissing) {
		return n.behind
	}
	if err := n.head.tell(ctx, n.ledger, "head.accepted", "", control.Origin(os.Getuid())); err != nil {
		return err
	}
	n.behind = nil // from here on it is kept again, and the log is told
	fmt.Println("Accepted, and entered in the log: what it has is taken for the newest.")
	return nil
}
