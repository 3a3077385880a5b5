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

// envelope is the sealing of merchants' secrets under some of the keys.
func (n *node) envelope(keys keyring) (tink.AEAD, error) {
	kek, err := keyEncryption(n.engine, keys)
	if err != nil {
		return nil, err
	}
	return aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), kek), nil
}

// sealed calls f with each merchant.
func (n *node) sealed(ctx context.Context, f func(store.Merchant) error) error {
	ids, err := n.store.Read(ctx).MerchantIDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		m, err := n.store.Read(ctx).Merchant(id)
		if err != nil {
			return err
		}
		if err := f(m); err != nil {
			return err
		}
	}
	return nil
}

// sealedUnder counts the merchants whose secrets open under no other version of the key encryption key.
func (n *node) sealedUnder(ctx context.Context, key hsm.Key) (count int, err error) {
	others := slices.DeleteFunc(slices.Clone(n.keys), func(row store.Key) bool { return keyOf(row) == key })
	envelope, err := n.envelope(others)
	if err != nil {
		return 0, err
	}
	err = n.sealed(ctx, func(m store.Merchant) error {
		if !merchant.Opens(envelope, m) {
			count++
		}
		return nil
	})
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
	return task{what: fmt.Sprintf("seal every merchant's secrets anew under %s", active.Label()), prepare: func(ctx context.Context, n *node) (change, error) {
		return sealAnew(ctx, n, active)
	}}, nil
}

func sealAnew(ctx context.Context, n *node, active hsm.Key) (change, error) {
	if now, ok := n.keys.active(active.Role); !ok || now != active {
		return change{}, errors.New("another version is active than when the plan was reviewed")
	}
	var rows []store.Merchant
	envelope, err := n.envelope(n.keys)
	if err != nil {
		return change{}, err
	}
	err = n.sealed(ctx, func(m store.Merchant) error {
		again, err := merchant.Reseal(envelope, m)
		rows = append(rows, again)
		return err
	})
	if err != nil {
		return change{}, err
	}
	return change{result: fmt.Sprintf("the secrets of %d merchants sealed under %s", len(rows), active.Label()), keys: []string{active.Label()},
		apply: func(tx *ledger.Tx, data func() map[string]any) error {
			for _, m := range rows {
				if err := tx.PutMerchant(m); err != nil {
					return err
				}
			}
			d := data()
			d["merchants"] = len(rows)
			tx.Record(ledger.Entry{Type: "key.resealed", Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: keyResource(active), Data: d})
			return nil
		}}, nil
}
