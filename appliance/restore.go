package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/backup"
	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/appliance/control"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/payment"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

type restoreCommand struct {
	File    string `arg:"" type:"existingfile" help:"The backup."`
	Why     string `required:"" help:"Why, in a sentence: the new log begins with it." placeholder:"TEXT"`
	Replace bool   `help:"There is a database: keep it aside, under another name."`
}

// restorePattern names the directories in which databases are made ready. Those that are left belong to commands that were
// interrupted.
const restorePattern = ".restore-*"

// Run restores a backup. The state directory has its old database or the new one, whenever it is interrupted.
func (c restoreCommand) Run(ctx context.Context, g globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	r := &restoration{command: c, cfg: cfg}
	if err := r.run(ctx); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	// The node holds what is known outside against the new log, and keeps the new head in its place when it is closed.
	n, err := openBooks(ctx, cfg, nil)
	if err != nil {
		return fmt.Errorf("the database was restored, and cannot be opened: %w", err)
	}
	failpoint.Here("before restored head")
	err = n.writeLogKeys(r.cfg.State())
	if err := errors.Join(err, n.close()); err != nil {
		return fmt.Errorf("the database was restored, and not all that belongs to it: %w", err)
	}
	failpoint.Here("after restored head")
	r.print()
	return nil
}

// restoration is one restore under way.
type restoration struct {
	command restoreCommand
	cfg     config.Config
	engine  *hsm.Engine

	manifest backup.Manifest
	key      string    // verifier key of the backup's log, from the HSM
	until    time.Time // of its newest entry
	known    [][]byte  // checkpoints outside of the backup
	aside    string    // suffix of the former database; empty where there was none
	origin   string    // name of the new log
	lost     int64     // entries that are known to be missing
	marked   int       // payments
}

func (r *restoration) run(ctx context.Context) (err error) {
	lock, err := store.Lock(r.cfg.State())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := r.mayReplace(); err != nil {
		return err
	}
	if r.engine, err = openHSM(r.cfg, nil); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.engine.Close()) }()
	dir, err := r.directory()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if r.manifest, err = unpackBackup(r.command.File, dir); err != nil {
		return err
	}
	failpoint.Here("after restore is unpacked")
	if err := r.makeReady(ctx, dir); err != nil {
		return err
	}
	return store.Replace(ctx, r.cfg.State(), dir, r.aside)
}

// mayReplace refuses to take a database out of service that nobody has said is to go.
func (r *restoration) mayReplace() error {
	_, err := os.Lstat(filepath.Join(r.cfg.State(), store.FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !r.command.Replace {
		err = fmt.Errorf("there is a database in %s; --replace keeps it aside and puts the backup in its place", r.cfg.State())
	}
	r.aside = ".replaced-" + time.Now().UTC().Format("20060102T150405.000Z")
	return err
}

// directory makes one in the state directory, so that its database can be renamed into its place.
func (r *restoration) directory() (string, error) {
	left, err := filepath.Glob(filepath.Join(r.cfg.State(), restorePattern))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(r.cfg.State(), restorePattern)
}

// makeReady verifies the unpacked database under the HSM's own key, and opens its new log.
func (r *restoration) makeReady(ctx context.Context, dir string) (err error) {
	signer, err := r.engine.Signer(ctx, hsm.Key{Role: roleLedger, Version: 1})
	if err != nil {
		return fmt.Errorf("the log's key: %w. A backup is restored beside the HSM that signed it", err)
	}
	public, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok {
		return errors.New("the log's key is not ECDSA")
	}
	if r.key, err = ledger.VerifierKey(r.manifest.Head.Origin, public); err != nil {
		return err
	}
	found, err := checkCopy(ctx, dir, r.manifest, r.key)
	if err == nil && !found.verdict.OK {
		err = fmt.Errorf("the backup does not verify under the HSM's key: %s", found.verdict.Reason)
	}
	if err != nil {
		return err
	}
	r.until = found.until
	if err := r.findKnown(ctx); err != nil {
		return err
	}
	s, err := store.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	settings := ledger.Config{Origin: r.manifest.Head.Origin, Node: r.cfg.Node, Signer: signer}
	return r.openLog(ctx, s, settings)
}

// findKnown collects what is known of the log outside of the backup: what is kept outside of the database, and the database
// that is to be replaced, as far as it can be read.
func (r *restoration) findKnown(ctx context.Context) (err error) {
	if r.known, err = r.engine.Data(ctx, headLabel); err != nil {
		return err
	}
	if text, err := os.ReadFile(filepath.Join(r.cfg.State(), headFile)); err == nil {
		r.known = append(r.known, text)
	}
	if r.aside == "" {
		return nil
	}
	if head, err := headOf(ctx, r.cfg.State()); err == nil {
		r.known = append(r.known, []byte(head.Checkpoint))
	}
	return nil
}

// newest returns the checkpoint from outside that shows most of what the backup has not, or nil. One of a log that the
// backup does not know says that there was another restore in between; a checkpoint that does not verify says nothing.
func (r *restoration) newest(read store.Queries) ([]byte, error) {
	closed, err := read.ClosedLogs()
	if err != nil {
		return nil, err
	}
	origins := map[string]bool{}
	for _, l := range closed {
		origins[l.Origin] = true
	}
	var best []byte
	var size uint64
	for _, known := range r.known {
		origin := ledger.OriginOf(known)
		checkpoint, err := ledger.OpenCheckpoint(known, origin, logproof.KeyNamed(r.key, origin))
		if err != nil || origins[origin] {
			continue
		}
		foreign, was := origin != r.manifest.Head.Origin, best != nil && ledger.OriginOf(best) != r.manifest.Head.Origin
		if best == nil || (foreign && !was) || (foreign == was && checkpoint.Size > size) {
			best, size = known, checkpoint.Size
		}
	}
	if best != nil && ledger.OriginOf(best) == r.manifest.Head.Origin {
		r.lost = max(0, int64(size)-r.manifest.Head.Size)
	}
	return best, nil
}

// openLog closes the backup's log, opens its successor, and marks what may have moved.
func (r *restoration) openLog(ctx context.Context, s *store.Store, settings ledger.Config) error {
	known, err := r.newest(s.Read(ctx))
	if err != nil {
		return err
	}
	r.origin = r.successor()
	l, err := ledger.Succeed(ctx, s, settings, ledger.Succession{Origin: r.origin, Why: r.command.Why, By: control.Origin(os.Getuid()), Known: known,
		Data: map[string]any{"restored": map[string]any{"sha256": r.manifest.Database.SHA256, "until": r.until.Format(time.RFC3339Nano)}, "lost": r.lost}})
	if err != nil {
		return err
	}
	defer l.Close()
	failpoint.Here("after log is opened")
	r.marked, err = payment.Restored(ctx, l, s, r.until, r.cfg.Checkout.Attempts)
	failpoint.Here("after payments are marked")
	return err
}

// successor returns a name that no log ever had: a restore that is interrupted and done again must not sign another log under
// the name of the first.
func (r *restoration) successor() string {
	base := r.manifest.Head.Origin
	if parts := yearInName.FindStringSubmatch(base); parts != nil {
		base = parts[1] + parts[2] // without what an earlier restore has put behind it
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // crypto/rand never fails since Go 1.24
	return fmt.Sprintf("%s/r%s-%x", base, time.Now().UTC().Format("20060102"), b)
}

func (r *restoration) print() {
	m := r.manifest
	fmt.Printf("Restored: entries 0 to %d of %s, as of %s.\n", m.Head.Size-1, m.Head.Origin, r.until.Format(time.RFC3339))
	if r.lost > 0 {
		fmt.Printf("LOST: %d entries that were signed since; the checkpoint that proves it is in the new log.\n", r.lost)
	} else {
		fmt.Println("How many entries were signed since is not known.")
	}
	fmt.Printf("That log is closed; %s follows it. Give auditors its key: finpay ledger key\n", r.origin)
	if r.aside != "" {
		fmt.Printf("The former database is kept: %s%s\n", store.FileName, r.aside)
	}
	fmt.Printf("%d payments may have been paid since, and are indeterminate: ask the acquirer, then finpay payment resolve.\n", r.marked)
	fmt.Print(`Of what was done since the backup, the database knows nothing:
  payments that were created since are unknown here: compare with the acquirer's books
  API keys made since do not work; API keys REVOKED since work again: revoke them now
  tokens issued since are unknown until their cards come again; customers' data deleted since is back
  keys of the HSM may have changed: finpay key list
Next: finpay serve
`)
}

type paymentCommand struct {
	Resolve resolveCommand `cmd:"" help:"Say whether it was charged, after asking the acquirer."`
}

type resolveCommand struct {
	Payment string `arg:"" help:"Its id."`
	Outcome string `arg:"" enum:"captured,failed" help:"captured: the acquirer has booked it. failed: nothing was charged, or it was given back."`
	Why     string `required:"" help:"Who says so, and how it was found out: for the log." placeholder:"TEXT"`
}

// Run resolves a payment.
func (c resolveCommand) Run(ctx context.Context, g globals) error {
	status, err := operate[string](ctx, g, "payment resolve", c)
	if err != nil {
		return err
	}
	fmt.Printf("%s is %s.\n", c.Payment, status)
	return nil
}

func (o *operations) resolvePayment(ctx context.Context, by ledger.Operator, q resolveCommand) (string, error) {
	p, err := payment.Resolve(ctx, o.node.ledger, q.Payment, q.Outcome == "captured", by.Origin, q.Why)
	if err == nil && o.serving != nil {
		o.serving.webhooks.Wake()
	}
	return p.Status, err
}
