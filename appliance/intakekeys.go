package main

import (
	"context"
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

// intakeKeys are the keys that cards are sealed to: the active version is given out, older ones still open for a while.
type intakeKeys struct {
	node    *node
	rotate  time.Duration // age at which the active version is replaced; 0: in ceremonies only
	overlap time.Duration // how long a replaced one still opens

	now atomic.Pointer[intakeVersions]
}

// intakeVersions are those of one moment.
type intakeVersions struct {
	active  store.Key // zero where the HSM takes no sealed cards
	byLabel map[string]*hsm.KeyExchanger
}

// openIntakeKeys finds them. An HSM without ECDH has none, and takes no sealed card.
func openIntakeKeys(ctx context.Context, n *node, rotate, overlap time.Duration) (*intakeKeys, error) {
	k := &intakeKeys{node: n, rotate: rotate, overlap: overlap}
	return k, k.read(ctx)
}

// read takes the versions that the books say are usable. Its caller sees to it that the books do not change.
func (k *intakeKeys) read(ctx context.Context) error {
	next := &intakeVersions{byLabel: make(map[string]*hsm.KeyExchanger)}
	for _, key := range k.node.keys.usable(roleIntake) {
		exchanger, err := k.node.engine.KeyExchanger(ctx, key)
		if err != nil {
			return fmt.Errorf("%s: %w", key.Label(), err)
		}
		next.byLabel[key.Label()] = exchanger
	}
	if active, ok := k.node.keys.active(roleIntake); ok {
		next.active = k.node.keys[k.node.keys.row(active)]
	}
	k.now.Store(next)
	return nil
}

// drop opens nothing with a version any more.
func (k *intakeKeys) drop(key hsm.Key) {
	was := k.now.Load()
	next := &intakeVersions{active: was.active, byLabel: maps.Clone(was.byLabel)}
	delete(next.byLabel, key.Label())
	k.now.Store(next)
}

// IntakeKey meets intake.Keys.
func (k *intakeKeys) IntakeKey(name string) ecdh.KeyExchanger {
	if exchanger, ok := k.now.Load().byLabel[name]; ok {
		return exchanger
	}
	return nil
}

// intakeDocument meets [api.IntakeKeys], whose IntakeKey is another one.
type intakeDocument struct{ *intakeKeys }

// SealingKey implements [api.IntakeKeys].
func (k *intakeKeys) SealingKey() (api.SealingKey, bool) {
	versions := k.now.Load()
	exchanger, ok := versions.byLabel[versions.active.Name()]
	if !ok {
		return api.SealingKey{}, false
	}
	return api.SealingKey{Name: versions.active.Name(), PublicKey: base64.RawURLEncoding.EncodeToString(exchanger.PublicKey().Bytes())}, true
}

// IntakeKey implements [api.IntakeKeys].
func (k intakeDocument) IntakeKey(ctx context.Context) (api.IntakeKey, error) {
	key, ok := k.SealingKey()
	if !ok {
		return api.IntakeKey{}, api.ErrNotFound.With("The HSM of this appliance takes no sealed cards: send them open, inside TLS.")
	}
	book := k.now.Load().active
	document := api.IntakeKey{Key: key.Name, KEM: "DHKEM(P-256, HKDF-SHA256)", KDF: "HKDF-SHA256", AEAD: "AES-256-GCM", PublicKey: key.PublicKey,
		CheckValue: book.CheckValue, CreatedAt: book.CreatedAt, Receipt: []api.ReceiptEntry{}}
	if k.rotate > 0 {
		replaced := book.CreatedAt.Add(k.rotate)
		expires := replaced.Add(k.overlap)
		document.ReplacedAt, document.ExpiresAt = &replaced, &expires
	}
	proven, err := k.node.ledger.EntriesOf(ctx, keyResource(keyOf(book)))
	if err != nil {
		return api.IntakeKey{}, err
	}
	for _, e := range proven {
		document.Receipt = append(document.Receipt, api.ReceiptEntry{Index: e.Index, Entry: string(e.Entry), Proof: string(e.Proof), VerifierKey: e.Key})
	}
	return document, nil
}
