package main

import (
	"context"
	"crypto/ecdh"
	"encoding/base64"
	"fmt"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

// intakeKeys are the keys that cards are sealed to: the active version is given out, older ones still open.
type intakeKeys struct {
	node    *node
	active  hsm.Key
	book    store.Key // of active; empty where there is none
	byLabel map[string]*hsm.KeyExchanger
}

// openIntakeKeys finds them. An HSM without ECDH has none, and takes no sealed card.
func openIntakeKeys(ctx context.Context, n *node) (*intakeKeys, error) {
	k := &intakeKeys{node: n, active: n.keys.key(roleIntake), byLabel: make(map[string]*hsm.KeyExchanger)}
	if row := n.keys.row(k.active); row >= 0 {
		k.book = n.keys[row]
	}
	for _, key := range n.keys.usable(roleIntake) {
		exchanger, err := n.engine.KeyExchanger(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key.Label(), err)
		}
		k.byLabel[key.Label()] = exchanger
	}
	return k, nil
}

// IntakeKey meets intake.Keys.
func (k *intakeKeys) IntakeKey(name string) ecdh.KeyExchanger {
	if exchanger, ok := k.byLabel[name]; ok {
		return exchanger
	}
	return nil
}

// intakeDocument meets [api.IntakeKeys].
type intakeDocument struct{ keys *intakeKeys }

func (d intakeDocument) SealingKey() (api.SealingKey, bool) {
	name := d.keys.active.Label()
	exchanger, ok := d.keys.byLabel[name]
	if !ok {
		return api.SealingKey{}, false
	}
	return api.SealingKey{Name: name, PublicKey: base64.RawURLEncoding.EncodeToString(exchanger.PublicKey().Bytes())}, true
}

func (d intakeDocument) IntakeKey(ctx context.Context) (api.IntakeKey, error) {
	k := d.keys
	exchanger, ok := k.byLabel[k.active.Label()]
	if !ok || k.book.Version == 0 {
		return api.IntakeKey{}, api.ErrNotFound.With("The HSM of this appliance takes no sealed cards: send them open, inside TLS.")
	}
	document := api.IntakeKey{Key: k.active.Label(), KEM: "DHKEM(P-256, HKDF-SHA256)", KDF: "HKDF-SHA256", AEAD: "AES-256-GCM",
		PublicKey:  base64.RawURLEncoding.EncodeToString(exchanger.PublicKey().Bytes()),
		CheckValue: k.book.CheckValue, CreatedAt: k.book.CreatedAt, Receipt: []api.ReceiptEntry{}}
	proven, err := k.node.ledger.EntriesOf(ctx, keyResource(k.active))
	if err != nil {
		return api.IntakeKey{}, err
	}
	for _, e := range proven {
		document.Receipt = append(document.Receipt, api.ReceiptEntry{Index: e.Index, Entry: string(e.Entry), Proof: string(e.Proof), VerifierKey: e.Key})
	}
	return document, nil
}
