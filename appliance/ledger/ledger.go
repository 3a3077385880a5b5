// Package ledger is the signed, append-only record, and the only way to commit a change.
//
// A change is a function that writes rows and records entries. Whatever waits when the committer comes free is one
// group: the entries become leaves of a Merkle tree (RFC 6962 hashing), the new tree head is signed in the HSM as
// a checkpoint (C2SP tlog-checkpoint), and rows, entries and checkpoint commit in one transaction.
//
// # What is promised
//
//   - Only signed entries commit: if signing or COMMIT fails, all of the group rolls back and every caller gets an error.
//   - A row that entries must cover cannot be written without one.
//   - A unit that fails leaves nothing behind and does not sink its neighbours; one that cannot be undone does.
//   - What a unit reads of the log was committed before its group. Rows it reads as its neighbours have left them.
//   - No tree is signed twice, and a checkpoint that did not commit is shown to nobody.
//   - Each answer is held until COMMIT, errors too: a unit may have read a neighbour's rows.
//
// # What is not
//
// An old copy of the whole database, put back, is not noticed from inside: [Config] takes what is known of the log outside.
package ledger

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/store"
)

// Errors of this package.
var (
	// ErrUnavailable means that nothing can be committed now, because the HSM does not sign, the database is
	// locked or the disk is full. Nothing was changed.
	ErrUnavailable = errors.New("ledger: cannot commit now")
	// ErrDamaged means that the log does not agree with its own signed head.
	ErrDamaged = errors.New("ledger: the log does not match its signed checkpoint")
	// ErrBehind means that more of the log is known outside than this database has: it is an old copy, or one whose history
	// was another. To go on would sign a second log of the same name.
	ErrBehind = errors.New("ledger: the database is not the newest")
	// ErrUncovered means that a unit wrote rows without recording an entry.
	ErrUncovered = errors.New("ledger: rows were written without an entry")
)

// maxGroup bounds the units of one transaction, and so the time for which a caller waits for its neighbours.
const maxGroup = 512

// maxEntry is the largest entry in bytes: tlog-tiles gives an entry's length two bytes.
const maxEntry = 1<<16 - 1

// Config of a [Ledger].
type Config struct {
	Origin string        // the log's name, as in checkpoints
	Node   string        // this appliance's name, as in entries
	Signer crypto.Signer // ECDSA P-256; signs checkpoints and nothing else
	// Witnessable signs what is published a second time, with Ed25519, which public witnesses require. It may be nil:
	// then the log cannot be witnessed.
	Witnessable crypto.Signer
	// Known are checkpoints of this log, or of one that it may have followed, that were kept outside of the database.
	Known [][]byte
	Now   func() time.Time
	Log   *slog.Logger
}

// Ledger is an open log. It is safe for concurrent use.
type Ledger struct {
	cfg   Config // but for the origin, which changes when a log follows this one
	store *store.Store
	id    atomic.Pointer[identity]

	queue chan *unit
	rolls chan *roll
	done  chan struct{}
	stop  chan struct{}
	once  sync.Once

	head tree // of the committer alone, after Open

	publish   sync.Mutex
	published []byte // the newest checkpoint with both signatures
}

// identity is the name of the open log, and its key under this name.
type identity struct {
	origin string
	vkey   string
	note   signer
}

// unit is one change, waiting for its group.
type unit struct {
	apply  func(*Tx) error
	result chan result
}

type result struct {
	receipt Receipt
	err     error
}

// Receipt says where a change stands in the log.
type Receipt struct {
	Indexes    []int64     // of the entries, in the order in which they were recorded
	Leaves     []tlog.Hash // of them
	Size       int64       // of the tree that covers them
	Checkpoint []byte      // signed note
}

// Tx is a change under construction.
type Tx struct {
	*store.Tx
	entries []Entry
}

// Record adds an entry. It covers the rows written since the last one.
func (tx *Tx) Record(e Entry) {
	if touched := tx.Touched(); len(touched) > 0 {
		e.Rows = touched
	}
	tx.entries = append(tx.entries, e)
}

// Open verifies the log's own tail against its signed head, and that head against what is known outside, and starts the
// committer. The caller ends it with [Ledger.Close].
func Open(ctx context.Context, s *store.Store, cfg Config) (*Ledger, error) {
	l, err := newLedger(s, cfg)
	if err != nil {
		return nil, err
	}
	if l.head, err = l.verifiedHead(ctx); err != nil {
		return nil, err
	}
	if err := l.holdKnown(ctx); err != nil {
		return nil, err
	}
	go l.run()
	return l, nil
}

func newLedger(s *store.Store, cfg Config) (*Ledger, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Ledger{cfg: cfg, store: s, queue: make(chan *unit, maxGroup), rolls: make(chan *roll), done: make(chan struct{}), stop: make(chan struct{})}
	public, ok := cfg.Signer.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("ledger: the signing key is not ECDSA")
	}
	vkey, err := VerifierKey(cfg.Origin, public)
	if err != nil {
		return nil, err
	}
	l.id.Store(&identity{cfg.Origin, vkey, newSigner(cfg.Origin, cfg.Signer, vkey)})
	return l, nil
}

// Close waits for the group under way and ends the committer. Units that still wait get [ErrUnavailable].
func (l *Ledger) Close() {
	l.once.Do(func() { close(l.stop) })
	<-l.done
}

// Record returns what a request carries of the last entry: see [logproof.Record].
func (r Receipt) Record() ([]byte, error) {
	if len(r.Indexes) == 0 {
		return nil, errors.New("ledger: nothing was entered")
	}
	last := len(r.Indexes) - 1
	record, err := logproof.NewRecord(r.Indexes[last], r.Leaves[last], r.Checkpoint)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return record.Marshal(), nil
}

// VerifierKey returns the log's public key in note form: name+hash+base64(0x02 ‖ SubjectPublicKeyInfo), where the
// hash is the first four bytes of SHA-256 over the SubjectPublicKeyInfo (C2SP signed-note, type 0x02).
func (l *Ledger) VerifierKey() string { return l.id.Load().vkey }

// WitnessKey returns the public key of the Ed25519 signature on published checkpoints, in note form (C2SP signed-note,
// type 0x01); empty where there is none.
func (l *Ledger) WitnessKey() string {
	if l.cfg.Witnessable == nil {
		return ""
	}
	public, ok := l.cfg.Witnessable.Public().(ed25519.PublicKey)
	if !ok {
		return ""
	}
	key, err := note.NewEd25519VerifierKey(l.Origin(), public)
	if err != nil {
		return ""
	}
	return key
}

// Origin returns the name of the log that is open.
func (l *Ledger) Origin() string { return l.id.Load().origin }

// Commit runs apply within the next group and returns when the group is durable and signed. apply runs once, alone
// among units; it must do no I/O beside tx, and must not call the HSM. ctx bounds the wait for a place in a group
// only: once apply may have run, the outcome is waited for.
func (l *Ledger) Commit(ctx context.Context, apply func(tx *Tx) error) (Receipt, error) {
	u := &unit{apply: apply, result: make(chan result, 1)}
	select {
	case l.queue <- u:
	case <-ctx.Done():
		return Receipt{}, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	case <-l.stop:
		return Receipt{}, fmt.Errorf("%w: shutting down", ErrUnavailable)
	}
	select {
	case r := <-u.result:
		return r.receipt, r.err
	case <-l.done:
		select { // the last group may have answered
		case r := <-u.result:
			return r.receipt, r.err
		default:
			return Receipt{}, fmt.Errorf("%w: shutting down", ErrUnavailable)
		}
	}
}

func (l *Ledger) run() {
	defer close(l.done)
	for {
		select {
		case <-l.stop:
			return
		case r := <-l.rolls:
			r.result <- l.succeed(r.next)
		case first := <-l.queue:
			runtime.Gosched() // what can run may have a change for this group; where nothing can, this costs nothing
			group := []*unit{first}
			for len(group) < maxGroup {
				select {
				case u := <-l.queue:
					group = append(group, u)
					continue
				default:
				}
				break
			}
			l.commit(group)
		}
	}
}

// commit takes one group through one transaction and answers all of it.
func (l *Ledger) commit(group []*unit) {
	results, head, err := l.attempt(group)
	if err != nil {
		l.cfg.Log.Error("a group of changes was rolled back", "units", len(group), "error", err)
		for _, u := range group {
			u.result <- result{err: err}
		}
		return
	}
	l.head = head
	for i, u := range group {
		u.result <- results[i]
		failpoint.Here("commit: a caller has its answer")
	}
}

// sign makes the checkpoint of a tree. ECDSA is randomised: one tree is signed once, and the note is stored.
func (l *Ledger) sign(head tree) ([]byte, error) {
	root := head.root()
	id := l.id.Load()
	text := log.Checkpoint{Origin: id.origin, Size: uint64(head.size), Hash: root[:]}.Marshal()
	return note.Sign(&note.Note{Text: string(text)}, id.note)
}

// verifiedHead rebuilds the tree's right edge from the stored hashes and holds it against the signed checkpoint.
func (l *Ledger) verifiedHead(ctx context.Context) (tree, error) {
	read := l.store.Read(ctx)
	size, err := read.LedgerSize()
	if err != nil {
		return tree{}, err
	}
	signed, text, err := read.LedgerCheckpoint()
	if errors.Is(err, store.ErrNotFound) && size == 0 {
		return tree{}, nil
	}
	if err != nil {
		return tree{}, err
	}
	if signed != size {
		return tree{}, fmt.Errorf("%w: %d entries, checkpoint of %d", ErrDamaged, size, signed)
	}
	head, err := treeFrom(size, Hashes(read))
	if err != nil {
		return tree{}, err
	}
	checkpoint, err := OpenCheckpoint(text, l.Origin(), l.VerifierKey())
	if err != nil {
		return tree{}, err
	}
	if root := head.root(); string(checkpoint.Hash) != string(root[:]) {
		return tree{}, fmt.Errorf("%w: another root at size %d", ErrDamaged, size)
	}
	return head, nil
}
