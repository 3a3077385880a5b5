package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

// bySchedule is who rotates intake keys.
var bySchedule = ledger.Operator{Origin: "schedule"}

// intakePeriod is the time between looks at the ages of intake keys, intakeRetry the one after a failure.
const (
	intakePeriod = time.Minute
	intakeRetry  = 5 * time.Second
)

// runIntakeKeys replaces the key that cards are sealed to when it is old enough, and destroys the replaced ones when their
// time is over, until ctx ends. What was sealed to a destroyed key opens never again, whoever has a copy of it.
func (a *appliance) runIntakeKeys(ctx context.Context) {
	for {
		wait := intakePeriod
		if err := a.ageIntakeKeys(ctx, time.Now().Add(failpoint.Ahead())); err != nil && ctx.Err() == nil {
			a.log.ErrorContext(ctx, "the keys that cards are sealed to could not be rotated; it is tried again", "error", err)
			wait = intakeRetry
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// ageIntakeKeys does what is due at a time.
func (a *appliance) ageIntakeKeys(ctx context.Context, now time.Time) error {
	a.operations.mu.Lock()
	defer a.operations.mu.Unlock()
	active, ok := a.node.keys.active(roleIntake)
	if !ok || a.sealed.rotate == 0 {
		return nil // there is none, or ceremonies see to it
	}
	for _, row := range a.node.keys {
		if row.Role != string(roleIntake) || row.State != store.KeyRetired || now.Before(row.RetiredAt.Add(a.sealed.overlap)) {
			continue
		}
		if err := a.operations.endIntakeKey(ctx, keyOf(row)); err != nil {
			return err
		}
	}
	if row := a.node.keys[a.node.keys.row(active)]; now.Before(row.CreatedAt.Add(a.sealed.rotate)) {
		return nil
	}
	_, err := a.operations.rotateIntakeKey(ctx, bySchedule)
	return err
}

// rotateIntakeKey makes the next version the one that cards are sealed to.
func (o *operations) rotateIntakeKey(ctx context.Context, by ledger.Operator) (store.Key, error) {
	before, ok := o.node.keys.active(roleIntake)
	if !ok {
		return store.Key{}, errors.New("there is no key that cards are sealed to: generate one in a ceremony, if the HSM has ECDH")
	}
	spec, err := specOf(roleIntake)
	if err != nil {
		return store.Key{}, err
	}
	next, err := o.node.nextIntakeKey(ctx)
	if err != nil {
		return store.Key{}, err
	}
	if err := o.node.announceKey(ctx, next, spec, by); err != nil {
		return store.Key{}, err
	}
	failpoint.Here("after an intake key was announced")
	birth, err := giveBirth(ctx, o.node, next, spec, &before)
	if err != nil {
		return store.Key{}, err
	}
	failpoint.Here("after an intake key was made")
	if err := o.commitIntakeKey(ctx, birth, by); err != nil {
		return store.Key{}, err
	}
	return o.node.keys[o.node.keys.row(next)], nil
}

// endIntakeKey destroys a version whose time is over, and forgets what was sealed to it.
func (o *operations) endIntakeKey(ctx context.Context, key hsm.Key) error {
	failpoint.Here("before an intake key is destroyed")
	if o.serving != nil {
		o.serving.sealed.drop(key)
	}
	death, err := putToDeath(ctx, o.node, key)
	if err != nil {
		return err
	}
	failpoint.Here("after an intake key was destroyed")
	return o.commitIntakeKey(ctx, death, bySchedule)
}

// commitIntakeKey enters a change of intake keys, and has it served by.
func (o *operations) commitIntakeKey(ctx context.Context, c change, by ledger.Operator) error {
	if _, err := o.node.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		return c.apply(tx, func() map[string]any { return map[string]any{"by": by.Origin} })
	}); err != nil {
		return err
	}
	slog.InfoContext(ctx, "the keys that cards are sealed to have changed", "change", c.result, "by", by.Origin)
	if err := o.node.readKeys(ctx); err != nil || o.serving == nil {
		return err
	}
	return o.serving.sealed.read(ctx)
}

// nextIntakeKey is after all that the books know and all that the hsm token has: a database that was restored from a backup
// knows nothing of those that were made since.
func (n *node) nextIntakeKey(ctx context.Context) (hsm.Key, error) {
	births, _, err := n.engine.Keys(ctx, keySpecs)
	if err != nil {
		return hsm.Key{}, err
	}
	last := n.keys.last(roleIntake)
	announced := hsm.Key{Role: roleIntake, Version: last + 1} // by a process that was ended before it was entered
	entries, err := n.store.Read(ctx).LedgerEntriesOf(keyResource(announced))
	if err != nil || len(entries) > 0 {
		return announced, err
	}
	for _, b := range births {
		if b.Key.Role == roleIntake {
			last = max(last, b.Key.Version)
		}
	}
	return hsm.Key{Role: roleIntake, Version: last + 1}, nil
}

// buryIntakeKeys enters the death of intake keys that the hsm token has not any more, and makes a new one where the active
// one is among them. Nothing that is kept needs them: such a key was destroyed in its time, and this database is a copy from
// before, or the process ended in between.
func (n *node) buryIntakeKeys(ctx context.Context) error {
	spec, err := specOf(roleIntake)
	if err != nil {
		return err
	}
	for _, row := range n.keys {
		if row.Role != string(roleIntake) || row.State == store.KeyDestroyed {
			continue
		}
		there, err := n.engine.Exists(ctx, keyOf(row), spec.Kind)
		if err == nil && !there {
			err = n.buryIntakeKey(ctx, row, spec)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", row.Name(), err)
		}
	}
	return n.readKeys(ctx)
}

func (n *node) buryIntakeKey(ctx context.Context, row store.Key, spec hsm.Spec) error {
	death, err := putToDeath(ctx, n, keyOf(row))
	if err != nil {
		return err
	}
	changes := []change{death}
	if row.State == store.KeyActive {
		next, err := n.nextIntakeKey(ctx)
		if err != nil {
			return err
		}
		if err := n.announceKey(ctx, next, spec, bySchedule); err != nil {
			return err
		}
		birth, err := giveBirth(ctx, n, next, spec, nil)
		if err != nil {
			return err
		}
		changes = append(changes, birth)
	}
	_, err = n.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		for _, c := range changes {
			if err := c.apply(tx, func() map[string]any { return map[string]any{"why": row.Name() + " is not on the hsm token any more"} }); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
