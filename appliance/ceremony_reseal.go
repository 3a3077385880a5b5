package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

// envelope is the sealing of webhook secrets under some of the keys.
func (n *node) envelope(keys keyring) (tink.AEAD, error) {
	kek, err := keyEncryption(n.engine, keys)
	if err != nil {
		return nil, err
	}
	return aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), kek), nil
}

// sealedUnder counts the webhook endpoints whose secrets open under no other version of the key encryption key.
func (n *node) sealedUnder(ctx context.Context, key hsm.Key) (count int, err error) {
	others := slices.DeleteFunc(slices.Clone(n.keys), func(row store.Key) bool { return keyOf(row) == key })
	envelope, err := n.envelope(others)
	if err != nil {
		return 0, err
	}
	endpoints, err := n.store.Read(ctx).AllEndpoints()
	for _, e := range endpoints {
		if !merchant.Opens(envelope, e) {
			count++
		}
	}
	return count, err
}

// reseal opens what was sealed under any version and seals it under the active one, so that older ones can be destroyed.
func (v *reviewer) reseal(role hsm.Role) (task, error) {
	if _, err := specOf(role); err != nil {
		return task{}, err
	}
	if role != roleKEK {
		return task{}, fmt.Errorf("nothing is sealed under %s; only %s seals", role, roleKEK)
	}
	active, ok := v.books.active(role)
	if !ok {
		return task{}, errNoKEK
	}
	return task{what: fmt.Sprintf("seal every webhook secret anew under %s", active.Label()), prepare: func(ctx context.Context, n *node) (change, error) {
		return sealAnew(ctx, n, active)
	}}, nil
}

func sealAnew(ctx context.Context, n *node, active hsm.Key) (change, error) {
	if now, ok := n.keys.active(active.Role); !ok || now != active {
		return change{}, errors.New("another version is active than when the plan was reviewed")
	}
	envelope, err := n.envelope(n.keys)
	if err != nil {
		return change{}, err
	}
	rows, err := n.store.Read(ctx).AllEndpoints()
	if err != nil {
		return change{}, err
	}
	for i := range rows {
		if rows[i], err = merchant.Reseal(envelope, rows[i]); err != nil {
			return change{}, err
		}
	}
	return change{result: fmt.Sprintf("the secrets of %d webhook endpoints sealed under %s", len(rows), active.Label()), keys: []string{active.Label()},
		apply: func(tx *ledger.Tx, data func() map[string]any) error {
			for _, e := range rows {
				if err := tx.PutEndpoint(e); err != nil {
					return err
				}
			}
			d := data()
			d["endpoints"] = len(rows)
			tx.Record(ledger.Entry{Type: "key.resealed", Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: keyResource(active), Data: d})
			return nil
		}}, nil
}
