package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/finterra/finpay/appliance/ceremony"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

// task is a step that can be done, as far as that can be known before.
type task struct {
	n       int
	action  string // as the plan has it
	what    string // for people
	prepare func(context.Context, *node) (change, error)
}

// change is what a step has done in the HSM and in files, still to be entered.
type change struct {
	result string
	keys   []string // that it is about
	made   []string // of these, the ones that are new on the hsm token
	// apply writes rows and entries; data begins the data of an entry about a key.
	apply func(tx *ledger.Tx, data func() map[string]any) error
}

// reviewer checks the steps of a plan one after the other, against books that already have what the steps before will
// have done.
type reviewer struct {
	*rite
	node  *node
	books keyring
}

// review returns the steps that are left, or says which one cannot be done.
func (v *reviewer) review(ctx context.Context) ([]task, error) {
	var tasks []task
	var wrong []error
	for i := v.past.done; i < len(v.plan.Steps); i++ {
		step := v.plan.Steps[i]
		// Only the first step that is left can have been interrupted between the HSM and its entry.
		t, err := v.step(ctx, step, v.past.started && i == v.past.done)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("step %d (%s) cannot be done: %w", i+1, step, err))
			continue
		}
		t.n, t.action = i+1, step.String()
		tasks = append(tasks, t)
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("the plan is refused, nothing was done: %w", errors.Join(wrong...))
	}
	return tasks, nil
}

func (v *reviewer) step(ctx context.Context, s ceremony.Step, interrupted bool) (task, error) {
	switch {
	case s.Generate != nil:
		return v.generate(ctx, s.Generate.Role, interrupted)
	case s.Rotate != nil:
		return v.rotate(ctx, s.Rotate.Role, interrupted)
	case s.Reseal != nil:
		return v.reseal(s.Reseal.Role)
	case s.Retire != nil:
		return v.retire(s.Retire.Key())
	case s.Destroy != nil:
		return v.destroy(ctx, s.Destroy.Key())
	case s.Backup != nil:
		return v.backup(ctx, *s.Backup)
	default:
		return v.restore(ctx, *s.Restore, interrupted)
	}
}

// generate is for a role that has no key in use.
func (v *reviewer) generate(ctx context.Context, role hsm.Role, interrupted bool) (task, error) {
	spec, err := specOf(role)
	if err != nil {
		return task{}, err
	}
	if active, ok := v.books.active(role); ok {
		return task{}, fmt.Errorf("%s is active: rotate the role instead", active.Label())
	}
	if usable := v.books.usable(role); len(usable) > 0 && rotationRefused[role] != "" {
		return task{}, errors.New(rotationRefused[role])
	}
	return v.birth(ctx, spec, nil, interrupted)
}

func (v *reviewer) rotate(ctx context.Context, role hsm.Role, interrupted bool) (task, error) {
	spec, err := specOf(role)
	if err != nil {
		return task{}, err
	}
	if reason := rotationRefused[role]; reason != "" {
		return task{}, errors.New(reason)
	}
	active, ok := v.books.active(role)
	if !ok {
		return task{}, errors.New("the role has no active version: generate one")
	}
	return v.birth(ctx, spec, &active, interrupted)
}

// birth makes a role's next version, which takes the place of the active one, if there is one.
func (v *reviewer) birth(ctx context.Context, spec hsm.Spec, before *hsm.Key, interrupted bool) (task, error) {
	key := hsm.Key{Role: spec.Role, Version: v.books.last(spec.Role) + 1}
	there, err := v.node.engine.Exists(ctx, key, spec.Kind)
	if err != nil {
		return task{}, err
	}
	if there && !interrupted {
		return task{}, fmt.Errorf("%s is on the hsm token and in no books: find out who made it, and remove it with the vendor's tools", key.Label())
	}
	t := task{what: fmt.Sprintf("generate %s (%s, %s), and use it from now on", key.Label(), spec.Kind, spec.Class)}
	if before != nil {
		t.what += fmt.Sprintf("; %s is retired", before.Label())
		v.books[v.books.row(*before)].State = store.KeyRetired
	}
	v.books = append(v.books, store.Key{Role: string(spec.Role), Version: key.Version, State: store.KeyActive, Class: string(spec.Class)})
	t.prepare = func(ctx context.Context, n *node) (change, error) { return giveBirth(ctx, n, key, spec, before) }
	return t, nil
}

// giveBirth generates a key. One that is there already was made by this step before it was interrupted: nobody has used
// it, and it is taken if it is what it should be.
func giveBirth(ctx context.Context, n *node, key hsm.Key, spec hsm.Spec, before *hsm.Key) (change, error) {
	there, err := n.engine.Exists(ctx, key, spec.Kind)
	if err != nil {
		return change{}, err
	}
	var birth hsm.Birth
	if there {
		if birth, err = n.engine.Inspect(ctx, key, spec); err == nil {
			err = n.engine.CheckBirth(birth, spec, false)
		}
	} else {
		birth, err = n.engine.Generate(ctx, key, spec)
	}
	if err != nil {
		return change{}, err
	}
	c := change{result: fmt.Sprintf("%s generated, check value %s", key.Label(), birth.CheckValue), keys: []string{key.Label()}, made: []string{key.Label()}}
	if before != nil {
		c.result += "; " + before.Label() + " retired"
		c.keys = append(c.keys, before.Label())
	}
	now := time.Now()
	c.apply = func(tx *ledger.Tx, data func() map[string]any) error {
		if before != nil {
			if err := recordRetired(tx, n.keys, *before, now, data()); err != nil {
				return err
			}
		}
		d := data()
		d["key"] = birth
		return recordKey(tx, "key.created", bookOf(birth, store.KeyActive, store.KeyGenerated, now), d)
	}
	return c, nil
}

func recordRetired(tx *ledger.Tx, books keyring, key hsm.Key, at time.Time, data map[string]any) error {
	row := books[books.row(key)]
	row.State, row.RetiredAt = store.KeyRetired, at
	return recordKey(tx, "key.retired", row, data)
}
