package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/backup"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

type backupCommand struct {
	File   string      `arg:"" type:"path" help:"Where the backup is written, or with --verify: what is verified."`
	Verify bool        `help:"Verify a backup: its database, the log under --key, each row against the log."`
	Key    verifierKey `help:"With --verify: the log's verifier key, or a file with it." placeholder:"VKEY"`
}

// Run makes a backup, or verifies one.
func (c backupCommand) Run(ctx context.Context, g globals) error {
	if c.Verify {
		return verifyBackup(ctx, c.File, string(c.Key))
	}
	if c.Key != "" {
		return errors.New("--key is for --verify")
	}
	if _, err := os.Lstat(c.File); err == nil {
		return fmt.Errorf("%s is there already", c.File)
	}
	made, err := operate[copied](ctx, g, "backup", nothing{})
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(made.Directory) }()
	if err := writeBackup(c.File, made); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	m := made.Manifest
	fmt.Printf("%s: %d bytes, entries 0 to %d of %s. It has no key and no card, but every merchant's business and customers' names.\n",
		c.File, m.Database.Bytes, m.Head.Size-1, m.Head.Origin)
	fmt.Printf("Verify it with: finpay backup --verify %s --key VKEY\n", c.File)
	return nil
}

// writeBackup writes the file of a copy. A database goes through once more, so that the copy's owner need not see FILE: the
// appliance that serves may write to its state directory only.
func writeBackup(path string, made copied) error {
	database, err := os.Open(filepath.Join(made.Directory, store.FileName))
	if err != nil {
		return err
	}
	defer func() { _ = database.Close() }()
	bar := newProgress(database)
	defer bar.end()
	return writeStream(path, func(w io.Writer) error {
		if err := backup.Write(w, made.Manifest, bar.moving(database)); err != nil {
			return err
		}
		failpoint.Here("before backup is named")
		return nil
	})
}

// copied is a copy of the database in the state directory, until whoever asked for it has taken it away.
type copied struct {
	Directory string          `json:"directory"`
	Manifest  backup.Manifest `json:"manifest"`
}

// copyPattern names directories with copies. Those that are left belong to commands that were interrupted.
const copyPattern = ".backup-*"

func removeCopies(state string) error {
	left, err := filepath.Glob(filepath.Join(state, copyPattern))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// makeBackup copies the database and enters that. Other operations go on meanwhile.
func (o *operations) makeBackup(ctx context.Context, by ledger.Operator, _ nothing) (made copied, err error) {
	if !o.copying.TryLock() {
		return made, errors.New("another backup is being made")
	}
	defer o.copying.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-o.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := removeCopies(o.cfg.State()); err != nil {
		return made, err
	}
	if made.Directory, err = os.MkdirTemp(o.cfg.State(), copyPattern); err != nil {
		return made, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(made.Directory))
		}
	}()
	failpoint.Here("before backup copy")
	sum, err := o.node.store.Copy(ctx, made.Directory, func(int, int) { failpoint.Here("in backup copy") })
	if err != nil {
		return made, err
	}
	failpoint.Here("after backup copy")
	if made.Manifest, err = o.describeCopy(ctx, made.Directory, sum); err != nil {
		return made, err
	}
	m := made.Manifest
	_, err = o.node.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		tx.Record(ledger.Entry{Type: "backup.made", Actor: "operator", Origin: by.Origin, Outcome: ledger.Success, Resource: "backup:" + sum,
			Data: map[string]any{"sha256": sum, "bytes": m.Database.Bytes, "head": m.Head, "configuration": m.Configuration}})
		return nil
	})
	failpoint.Here("after backup.made")
	return made, err
}

func (o *operations) describeCopy(ctx context.Context, dir, sum string) (backup.Manifest, error) {
	m := backup.Manifest{Format: backup.Format, MadeAt: time.Now().UTC().Format(time.RFC3339), Node: o.cfg.Node, Version: version,
		Configuration: o.cfg.Digest(), Key: o.node.ledger.VerifierKey()}
	info, err := os.Stat(filepath.Join(dir, store.FileName))
	if err != nil {
		return m, err
	}
	m.Database = backup.Database{SHA256: sum, Bytes: info.Size()}
	m.Head, err = headOf(ctx, dir)
	return m, err
}

// headOf reads the newest checkpoint of a database.
func headOf(ctx context.Context, dir string) (backup.Head, error) {
	s, err := store.OpenReadOnly(dir)
	if err != nil {
		return backup.Head{}, err
	}
	defer func() { _ = s.Close() }()
	size, text, err := s.Read(ctx).LedgerCheckpoint()
	return backup.Head{Origin: ledger.OriginOf(text), Size: size, Checkpoint: string(text)}, err
}

// unpackBackup writes the database of a backup into a directory.
func unpackBackup(path, dir string) (m backup.Manifest, err error) {
	file, err := os.Open(path)
	if err != nil {
		return m, err
	}
	defer func() { _ = file.Close() }()
	bar := newProgress(file)
	defer bar.end()
	m, database, err := backup.Open(bar.moving(file))
	if err != nil {
		return m, err
	}
	out, err := os.OpenFile(filepath.Join(dir, store.FileName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return m, err
	}
	_, err = io.Copy(out, database)
	return m, errors.Join(err, out.Sync(), out.Close())
}

// checkCopy verifies a database that was unpacked: the file, the log, the rows against the log, and the manifest against
// all of them. The verdict is about the log; what else is wrong is the error.
func checkCopy(ctx context.Context, dir string, m backup.Manifest, key string) (c checkedCopy, err error) {
	c.verdict.FirstBad = -1
	s, err := store.OpenReadOnly(dir)
	if err != nil {
		return c, err
	}
	defer func() { _ = s.Close() }()
	if err := s.Intact(ctx); err != nil {
		return c, err
	}
	if c.verdict, err = audit.VerifyAll(ctx, s, m.Key, audit.Terms{Key: key}); err != nil || !c.verdict.Consistent {
		return c, err
	}
	if c.rows, err = audit.Check(ctx, s, dir); err != nil {
		return c, err
	}
	if c.rows.Wrong > 0 {
		return c, fmt.Errorf("%d rows are not as the log has them; the first is %s: %s", c.rows.Wrong, c.rows.Findings[0].Row, c.rows.Findings[0].Reason)
	}
	_, newest, err := s.Read(ctx).LedgerCheckpoint()
	if err != nil {
		return c, err
	}
	if string(newest) != m.Head.Checkpoint || c.verdict.Size != m.Head.Size || c.verdict.Origin != m.Head.Origin {
		return c, fmt.Errorf("%w: its manifest tells of another head than the database has", backup.ErrMalformed)
	}
	c.until, err = entryTime(s.Read(ctx), c.verdict.Size-1)
	return c, err
}

// checkedCopy is what was found of a copy, all of it in the database: what the manifest says beside that, anybody may have
// written.
type checkedCopy struct {
	verdict audit.Verdict
	rows    audit.Rows
	until   time.Time // of the newest entry
}

// verifyBackup unpacks a backup beside itself and checks it.
func verifyBackup(ctx context.Context, path, key string) (err error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), copyPattern)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := unpackBackup(path, dir)
	if err != nil {
		return err
	}
	c, err := checkCopy(ctx, dir, m, key)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	printVerdict(os.Stdout, c.verdict, 0)
	if !c.verdict.Consistent {
		return errNotVerified
	}
	fmt.Printf("\nnewest entry  %s\nrows          %d, each as the log has signed it\n", c.until.Format(time.RFC3339), c.rows.Rows)
	if !c.verdict.OK {
		return errNotPinned
	}
	return nil
}
