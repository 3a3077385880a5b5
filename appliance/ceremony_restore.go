package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/finterra/finpay/appliance/ceremony"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

// restore checks a backup against the books, and its shares against the backup.
func (v *reviewer) restore(ctx context.Context, step ceremony.RestoreStep, interrupted bool) (task, error) {
	backup, digest, err := ceremony.ReadBackup(step.From)
	if err != nil {
		return task{}, err
	}
	if err := v.sharesOf(backup, digest); err != nil {
		return task{}, err
	}
	var keys []ceremony.BackupKey
	var names []hsm.Key
	for _, k := range backup.Keys {
		if len(step.Roles) > 0 && !slices.Contains(step.Roles, k.Role) {
			continue
		}
		if err := v.restorable(ctx, k, interrupted); err != nil {
			return task{}, err
		}
		keys, names = append(keys, k), append(names, k.Key())
	}
	for _, role := range step.Roles {
		if !slices.ContainsFunc(keys, func(k ceremony.BackupKey) bool { return k.Role == role }) {
			return task{}, fmt.Errorf("the backup has no key of role %s", role)
		}
	}
	return task{what: fmt.Sprintf("restore %s from the backup of %s (sha256 %s) with the shares of %d custodians", labels(names), backup.MadeAt, digest, len(v.plan.Custodians)),
		prepare: func(ctx context.Context, n *node) (change, error) {
			return v.restoreKeys(ctx, n, keys, digest)
		}}, nil
}

// restorable checks one key of a backup, and enters it in the reviewer's books.
func (v *reviewer) restorable(ctx context.Context, k ceremony.BackupKey, interrupted bool) error {
	key := k.Key()
	spec, err := specOf(k.Role)
	if err != nil {
		return err
	}
	if k.Kind != spec.Kind || k.Class != spec.Class || spec.Class != hsm.Recoverable {
		return fmt.Errorf("%s: the backup says %s, %s; the role's keys are %s, %s", key.Label(), k.Kind, k.Class, spec.Kind, spec.Class)
	}
	if k.State != store.KeyActive && k.State != store.KeyRetired {
		return fmt.Errorf("%s: the backup says that it is %q", key.Label(), k.State)
	}
	there, err := v.node.engine.Exists(ctx, key, spec.Kind)
	if err != nil {
		return err
	}
	if there && !interrupted {
		return fmt.Errorf("%s is on the hsm token: a key is never overwritten", key.Label())
	}
	i := v.books.row(key)
	if i < 0 {
		if active, ok := v.books.active(k.Role); ok && k.State == store.KeyActive {
			return fmt.Errorf("%s was active when it was backed up, and %s is active here", key.Label(), active.Label())
		}
		v.books = append(v.books, store.Key{Role: string(k.Role), Version: k.Version, State: k.State, Class: string(k.Class), CheckValue: k.CheckValue})
		return nil
	}
	switch row := v.books[i]; {
	case row.State == store.KeyDestroyed:
		return fmt.Errorf("%s was destroyed at %s, and is not brought back", key.Label(), row.DestroyedAt.Format(time.RFC3339))
	case row.CheckValue != k.CheckValue:
		return fmt.Errorf("%s has the check value %s in the books and %s in the backup: they are two keys", key.Label(), row.CheckValue, k.CheckValue)
	}
	return nil
}

// restoreKeys unwraps the keys onto the hsm token. One that is there already was restored by this step before it was
// interrupted, and is taken if it is what it should be.
func (r *rite) restoreKeys(ctx context.Context, n *node, keys []ceremony.BackupKey, digest string) (change, error) {
	births := make([]hsm.Birth, len(keys))
	var names []string
	for i, k := range keys {
		birth, err := r.restoreKey(ctx, n, k)
		if err != nil {
			return change{}, err
		}
		births[i] = birth
		names = append(names, birth.Label)
	}
	now := time.Now()
	return change{result: strings.Join(names, ", ") + " restored and proved by check value", keys: names, made: names,
		apply: func(tx *ledger.Tx, data func() map[string]any) error {
			for i, birth := range births {
				row := bookOf(birth, keys[i].State, store.KeyRestored, now)
				if at := n.keys.row(birth.Key); at >= 0 {
					row = n.keys[at]
					row.Origin = store.KeyRestored
				}
				d := data()
				d["key"], d["backup"] = birth, digest
				if err := recordKey(tx, "key.restored", row, d); err != nil {
					return err
				}
			}
			return nil
		}}, nil
}

func (r *rite) restoreKey(ctx context.Context, n *node, k ceremony.BackupKey) (hsm.Birth, error) {
	spec, err := specOf(k.Role)
	if err != nil {
		return hsm.Birth{}, err
	}
	there, err := n.engine.Exists(ctx, k.Key(), spec.Kind)
	if err != nil {
		return hsm.Birth{}, err
	}
	if !there {
		wrapped, err := k.Blob()
		if err != nil {
			return hsm.Birth{}, err
		}
		return n.engine.Unwrap(ctx, r.kek.imported.Key(0), wrapped, k.Key(), spec, k.CheckValue)
	}
	birth, err := n.engine.Inspect(ctx, k.Key(), spec)
	if err == nil {
		err = n.engine.CheckBirth(birth, spec, true)
	}
	if err == nil && birth.CheckValue != k.CheckValue {
		err = fmt.Errorf("its check value is %s, and the backup says %s", birth.CheckValue, k.CheckValue)
	}
	if err != nil {
		return hsm.Birth{}, fmt.Errorf("%s is on the hsm token and not what this step has restored: %w", k.Key().Label(), err)
	}
	return birth, nil
}
