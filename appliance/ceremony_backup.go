package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/finterra/finpay/appliance/ceremony"
	"github.com/finterra/finpay/appliance/ceremony/shamir"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/hsm"
)

// kekMaterial is the key encryption key of a backup, for the length of one ceremony: its value in locked memory, and as a
// session object in the HSM.
type kekMaterial struct {
	value    *ceremony.Locked
	imported *hsm.Import
	backup   *ceremony.Backup // that it must open; nil when one is made
}

// close destroys the session object; destroy wipes the value.
func (k *kekMaterial) close() error {
	if k.imported == nil {
		return nil
	}
	imported := k.imported
	k.imported = nil
	return imported.Close()
}

func (k *kekMaterial) destroy() error { return errors.Join(k.close(), k.value.Destroy()) }

// prepareKEK makes a key encryption key, or puts one together from its shares, and imports it before the engine logs in.
func (r *rite) prepareKEK() (err error) {
	backup, from := r.backupLeft()
	if !backup && from == "" {
		return nil
	}
	if r.kek.value, err = ceremony.NewLocked(ceremony.KEKSize); err != nil {
		return err
	}
	officer := ""
	if backup {
		pin, err := os.ReadFile(r.plan.OfficerPIN)
		if err != nil {
			return fmt.Errorf("officer_pin_file: %w", err)
		}
		officer = strings.TrimSpace(string(pin))
		_, _ = rand.Read(r.kek.value.Bytes()) // crypto/rand never fails since Go 1.24
	} else {
		b, digest, err := ceremony.ReadBackup(from)
		if err != nil {
			return err
		}
		r.kek.backup = &b
		if err := r.combine(b, digest, r.kek.value.Bytes()); err != nil {
			return err
		}
	}
	settings, err := hsmConfig(r.cfg, nil)
	if err != nil {
		return err
	}
	r.kek.imported, err = hsm.OpenImport(settings, officer, []hsm.ImportedKEK{{Value: r.kek.value.Bytes(), Wraps: backup}})
	return err
}

// backupLeft finds the step that needs a key encryption key, among those that are not done.
func (r *rite) backupLeft() (backup bool, from string) {
	for _, t := range r.tasks {
		step := r.plan.Steps[t.n-1]
		if step.Backup != nil {
			backup = true
		}
		if step.Restore != nil {
			from = step.Restore.From
		}
	}
	return backup, from
}

// proveKEK holds what the shares made against the backup, before anything is begun.
func (r *rite) proveKEK(ctx context.Context, n *node) error {
	if r.kek.backup == nil {
		return nil
	}
	got, err := n.engine.ImportedCheckValue(ctx, r.kek.imported, 0)
	if err != nil {
		return err
	}
	if want := r.kek.backup.KEK.CheckValue; got != want {
		return fmt.Errorf("the shares lead to a key with check value %s, and the backup's has %s: at least one share is wrong; nothing was done", got, want)
	}
	return nil
}

// sharesOf reads every custodian's share and holds it against the backup. The values are wiped again.
func (r *rite) sharesOf(b ceremony.Backup, digest string) error {
	value, err := ceremony.NewLocked(ceremony.KEKSize)
	if err != nil {
		return err
	}
	err = r.combine(b, digest, value.Bytes())
	return errors.Join(err, value.Destroy())
}

// combine puts the key encryption key together from all shares of the plan.
func (r *rite) combine(b ceremony.Backup, digest string, into []byte) (err error) {
	if len(r.plan.Custodians) < b.KEK.Threshold {
		return fmt.Errorf("%d of the shares of %s are needed; the plan names %d custodians", b.KEK.Threshold, strings.Join(b.KEK.Custodians, ", "), len(r.plan.Custodians))
	}
	memory, err := ceremony.NewLocked(len(r.plan.Custodians) * ceremony.KEKSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, memory.Destroy()) }()
	var xs []byte
	var ys [][]byte
	for i, c := range r.plan.Custodians {
		share, err := ceremony.ReadShare(c.Share, memory.Bytes()[i*ceremony.KEKSize:(i+1)*ceremony.KEKSize])
		if err == nil {
			err = b.Belongs(share, digest, c.Name)
		}
		if err != nil {
			return err
		}
		xs, ys = append(xs, byte(share.Number)), append(ys, share.Value)
	}
	return shamir.Combine(into, xs, ys)
}

// backup takes all keys of its roles that may still be used.
func (v *reviewer) backup(ctx context.Context, step ceremony.BackupStep) (task, error) {
	var keys []hsm.Key
	for _, role := range step.Roles {
		spec, err := specOf(role)
		if err != nil {
			return task{}, err
		}
		if spec.Class != hsm.Recoverable {
			return task{}, fmt.Errorf("%s is bound to its HSM: its key is not extractable, and a lost one is replaced, not restored", role)
		}
		of := v.books.usable(role)
		if len(of) == 0 {
			return task{}, fmt.Errorf("%s has no key to back up", role)
		}
		for _, key := range of {
			if v.node.keys.row(key) < 0 {
				continue // a step before will have made it
			}
			there, err := v.node.engine.Exists(ctx, key, spec.Kind)
			if err != nil {
				return task{}, err
			}
			if !there {
				return task{}, fmt.Errorf("%s is not on the hsm token: restore it first", key.Label())
			}
		}
		keys = append(keys, of...)
	}
	if err := v.roomForBackup(step); err != nil {
		return task{}, err
	}
	return task{what: fmt.Sprintf("wrap %s under a new key encryption key, write %s, and give each of %d custodians a share; any %d of them restore",
		labels(keys), step.To, len(v.plan.Custodians), v.plan.Quorum),
		prepare: func(ctx context.Context, n *node) (change, error) { return v.backUp(ctx, n, step, keys) }}, nil
}

func labels(keys []hsm.Key) string {
	list := make([]string, len(keys))
	for i, key := range keys {
		list[i] = key.Label()
	}
	return strings.Join(list, ", ")
}

// roomForBackup checks that nothing is in the way of the files, and that the folders are there: a missing one means a
// medium that is not in its drive.
func (v *reviewer) roomForBackup(step ceremony.BackupStep) error {
	paths := []string{step.To}
	for _, c := range v.plan.Custodians {
		paths = append(paths, c.Share)
	}
	var wrong []error
	for _, path := range paths {
		if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
			wrong = append(wrong, fmt.Errorf("the folder %s is not there: is the medium in its drive?", filepath.Dir(path)))
		}
		if path == v.transcript {
			wrong = append(wrong, fmt.Errorf("%s is where the transcript will be written: name another file", path))
		}
		if _, err := os.Lstat(path); err == nil {
			wrong = append(wrong, fmt.Errorf("%s is there already and is never overwritten (if this step was interrupted, it belongs to no recorded backup: destroy it, and run the plan again)", path))
		}
	}
	if _, err := os.Stat(v.plan.OfficerPIN); err != nil {
		wrong = append(wrong, fmt.Errorf("officer_pin_file: %w", err))
	}
	return errors.Join(wrong...)
}

// backUp wraps the keys, proves each wrapped one, and writes shares and backup.
func (r *rite) backUp(ctx context.Context, n *node, step ceremony.BackupStep, keys []hsm.Key) (change, error) {
	kek := r.kek.imported.Key(0)
	checkValue, err := n.engine.ImportedCheckValue(ctx, r.kek.imported, 0)
	if err != nil {
		return change{}, err
	}
	b := ceremony.Backup{MadeAt: time.Now().UTC().Format(time.RFC3339), Node: r.cfg.Node, Log: n.ledger.Origin(), Ceremony: r.plan.Digest(),
		KEK: ceremony.BackupKEK{Kind: "aes-256", CheckValue: checkValue, Threshold: r.plan.Quorum}}
	for _, c := range r.plan.Custodians {
		b.KEK.Custodians = append(b.KEK.Custodians, c.Name)
	}
	for _, key := range keys {
		wrapped, err := wrapProved(ctx, n, kek, key)
		if err != nil {
			return change{}, err
		}
		b.Keys = append(b.Keys, wrapped)
	}
	text, digest, err := b.Encode()
	if err != nil {
		return change{}, err
	}
	if err := r.writeBackup(step.To, text, digest, checkValue); err != nil {
		return change{}, err
	}
	names := strings.Split(labels(keys), ", ")
	return change{result: fmt.Sprintf("%s wrapped, sha256 %s, key encryption key %s, any %d of %d shares restore", labels(keys), digest, checkValue, r.plan.Quorum, len(r.plan.Custodians)),
		keys: names, apply: func(tx *ledger.Tx, data func() map[string]any) error {
			for i, key := range keys {
				d := data()
				d["backup"], d["check_value"], d["kek_check_value"] = digest, b.Keys[i].CheckValue, checkValue
				tx.Record(ledger.Entry{Type: "key.backed_up", Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: keyResource(key), Data: d})
			}
			return nil
		}}, nil
}

// wrapProved wraps one key, and unwraps it again to see that it is the same: a backup that cannot be restored is none.
func wrapProved(ctx context.Context, n *node, kek, key hsm.Key) (ceremony.BackupKey, error) {
	spec, err := specOf(key.Role)
	if err != nil {
		return ceremony.BackupKey{}, err
	}
	row := n.keys[n.keys.row(key)]
	wrapped, err := n.engine.Wrap(ctx, kek, key, spec)
	if err != nil {
		return ceremony.BackupKey{}, err
	}
	got, err := n.engine.TryUnwrap(ctx, kek, wrapped, spec)
	if err != nil {
		return ceremony.BackupKey{}, fmt.Errorf("the backup of %s was tried: %w", key.Label(), err)
	}
	if got != row.CheckValue {
		return ceremony.BackupKey{}, fmt.Errorf("what was wrapped of %s has check value %s, and the books say %s", key.Label(), got, row.CheckValue)
	}
	return ceremony.BackupKey{Role: key.Role, Version: key.Version, Kind: spec.Kind, Class: spec.Class, State: row.State, CheckValue: row.CheckValue,
		Wrapping: wrapped.Wrapping, Wrapped: hex.EncodeToString(wrapped.Bytes)}, nil
}

// writeBackup divides the key encryption key and writes all files, or none.
func (r *rite) writeBackup(path string, text []byte, digest, checkValue string) (err error) {
	memory, err := ceremony.NewLocked(len(r.plan.Custodians) * ceremony.KEKSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, memory.Destroy()) }()
	shares := make([][]byte, len(r.plan.Custodians))
	for i := range shares {
		shares[i] = memory.Bytes()[i*ceremony.KEKSize : (i+1)*ceremony.KEKSize]
	}
	if err := shamir.Split(shares, r.kek.value.Bytes(), r.plan.Quorum); err != nil {
		return err
	}
	var written []string
	defer func() {
		if err != nil {
			for _, path := range written {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	for i, c := range r.plan.Custodians {
		if err := ceremony.WriteShare(c.Share, ceremony.Share{Custodian: c.Name, Number: i + 1, Threshold: r.plan.Quorum, Of: len(shares),
			CheckValue: checkValue, Backup: digest, Value: shares[i]}); err != nil {
			return err
		}
		written = append(written, c.Share)
	}
	return ceremony.WriteBackup(path, text)
}
