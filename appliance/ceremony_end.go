package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

// retire ends the active version of a role that the appliance runs without.
func (v *reviewer) retire(key hsm.Key) (task, error) {
	i, err := v.known(key)
	if err != nil {
		return task{}, err
	}
	if state := v.books[i].State; state != store.KeyActive {
		return task{}, fmt.Errorf("%s is %s already", key.Label(), state)
	}
	if !idleRoles[key.Role] {
		return task{}, fmt.Errorf("the appliance does not run without an active %s key: rotate the role, which retires %s", key.Role, key.Label())
	}
	v.books[i].State = store.KeyRetired
	return task{what: fmt.Sprintf("retire %s; the role has no active version then", key.Label()), prepare: func(_ context.Context, n *node) (change, error) {
		now := time.Now()
		return change{result: key.Label() + " retired", keys: []string{key.Label()}, apply: func(tx *ledger.Tx, data func() map[string]any) error {
			return recordRetired(tx, n.keys, key, now, data())
		}}, nil
	}}, nil
}

// known returns the row of a key that is in the books.
func (v *reviewer) known(key hsm.Key) (int, error) {
	if _, err := specOf(key.Role); err != nil {
		return 0, err
	}
	i := v.books.row(key)
	if i < 0 {
		return 0, fmt.Errorf("there is no %s", key.Label())
	}
	return i, nil
}

func (v *reviewer) destroy(ctx context.Context, key hsm.Key) (task, error) {
	i, err := v.known(key)
	if err != nil {
		return task{}, err
	}
	switch v.books[i].State {
	case store.KeyActive:
		return task{}, fmt.Errorf("%s is active: rotate the role first", key.Label())
	case store.KeyDestroyed:
		return task{}, fmt.Errorf("%s is destroyed already", key.Label())
	}
	if reason, err := v.needed(ctx, key); reason != "" || err != nil {
		return task{}, errors.Join(err, errors.New(reason))
	}
	v.books[i].State = store.KeyDestroyed
	return task{what: fmt.Sprintf("destroy %s for ever; nothing needs it", key.Label()), prepare: func(ctx context.Context, n *node) (change, error) {
		return putToDeath(ctx, n, key)
	}}, nil
}

// putToDeath destroys a key. One that is gone already was destroyed by this step before it was interrupted, or was lost.
func putToDeath(ctx context.Context, n *node, key hsm.Key) (change, error) {
	spec, err := specOf(key.Role)
	if err != nil {
		return change{}, err
	}
	there, err := n.engine.Exists(ctx, key, spec.Kind)
	if err != nil {
		return change{}, err
	}
	result := key.Label() + " destroyed"
	if !there {
		result = key.Label() + " was not on the hsm token any more; entered as destroyed"
	}
	if err := n.engine.Destroy(ctx, key, spec.Kind); err != nil {
		return change{}, err
	}
	row := n.keys[n.keys.row(key)]
	row.State, row.DestroyedAt = store.KeyDestroyed, time.Now()
	return change{result: result, keys: []string{key.Label()}, apply: func(tx *ledger.Tx, data func() map[string]any) error {
		d := data()
		d["check_value"] = row.CheckValue
		if key.Role == roleIntake {
			if err := tx.ForgetEnvelopes(key.Label()); err != nil {
				return err
			}
		}
		return recordKey(tx, "key.destroyed", row, d)
	}}, nil
}

// needed says what is lost with a key.
func (v *reviewer) needed(ctx context.Context, key hsm.Key) (reason string, err error) {
	switch key.Role {
	case roleTokenize:
		read := v.node.store.Read(ctx)
		count, err := read.CountTokensOfVersion(key.Version)
		if err != nil || count > 0 {
			return fmt.Sprintf("%d issued tokens lead back to their cards under %s only", count, key.Label()), err
		}
		if _, err := read.Retirement(key.Version); !errors.Is(err, store.ErrNotFound) {
			return key.Label() + " is being retired: it is destroyed by itself when its domains have followed", err
		}
		return "", nil
	case roleKEK:
		count, err := v.node.sealedUnder(ctx, key)
		if err != nil || count == 0 {
			return "", err
		}
		return fmt.Sprintf("%d sealed secrets open under %s only", count, key.Label()), nil
	case roleTLS, roleTLSClient:
		return v.certifies(ctx, key)
	default:
		return "", nil
	}
}

// certifies says so where the certificate in use is for this key.
func (v *reviewer) certifies(ctx context.Context, key hsm.Key) (string, error) {
	path := v.cfg.TLS.Certificate
	if key.Role == roleTLSClient {
		path = v.cfg.TLS.ClientCert
	}
	signer, err := v.node.engine.Signer(ctx, key)
	if errors.Is(err, hsm.ErrNoKey) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if _, err := certificate(path, signer); err == nil {
		return fmt.Sprintf("the certificate %s is for %s: install one for the active version first, and destroy this one in a later ceremony", path, key.Label()), nil
	}
	return "", nil
}
