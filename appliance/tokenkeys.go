package main

import (
	"context"
	"time"

	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/tokenization"
)

// tokenizers opens the versions of the tokenization key: new tokens are made under the active one, and those of older ones
// are still turned back.
func (a *appliance) tokenizers(ctx context.Context) (tokenization.Keys, error) {
	keys := tokenization.Keys{Active: a.node.keys.key(roleTokenize).Version, Versions: make(map[uint32]tokenization.Key)}
	a.ciphers = make(map[uint32]*hsm.BlockCipher)
	for _, key := range a.node.keys.usable(roleTokenize) {
		cipher, err := a.node.engine.BlockCipher(ctx, key)
		if err != nil {
			return keys, err
		}
		a.ciphers[key.Version] = cipher
		keys.Versions[key.Version] = tokenizer(cipher)
	}
	return keys, nil
}

func tokenizer(cipher *hsm.BlockCipher) tokenization.Key {
	return tokenization.Key{AES: blocks{cipher}, Runners: cipher.Sessions()}
}

// useTokenizer makes tokens under a new version of the tokenization key from now on.
func (a *appliance) useTokenizer(key hsm.Key, cipher *hsm.BlockCipher) error {
	a.ciphers[key.Version] = cipher
	return a.cipher.Rotate(key.Version, tokenizer(cipher))
}

// tokenKeys meets [tokens.Keys].
type tokenKeys struct{ *appliance }

// Retokenize implements [tokens.Keys].
func (k tokenKeys) Retokenize(ctx context.Context, domain string, tokens []pci.Token) ([]pci.Tokenized, error) {
	return k.cipher.Retokenize(ctx, domain, tokens)
}

// Destroy implements [tokens.Keys].
func (k tokenKeys) Destroy(ctx context.Context, version uint32, also func(*ledger.Tx) error) error {
	k.operations.mu.Lock()
	defer k.operations.mu.Unlock()
	if err := k.cipher.Drop(ctx, version); err != nil {
		return err
	}
	if cipher, ok := k.ciphers[version]; ok {
		cipher.Close()
		delete(k.ciphers, version)
	}
	return k.node.endTokenKey(ctx, version, also)
}

// endTokenKey destroys a version whose retirement is over, and enters its death.
func (n *node) endTokenKey(ctx context.Context, version uint32, also func(*ledger.Tx) error) error {
	failpoint.Here("before a retired key is destroyed")
	death, err := putToDeath(ctx, n, hsm.Key{Role: roleTokenize, Version: version})
	if err != nil {
		return err
	}
	failpoint.Here("after a retired key was destroyed")
	if _, err := n.ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if err := also(tx); err != nil {
			return err
		}
		return death.apply(tx, func() map[string]any { return map[string]any{"why": "retired: no token is left under it"} })
	}); err != nil {
		return err
	}
	return n.readKeys(ctx)
}

// finishRetirements destroys what an earlier process had still to destroy when it ended: such a key may be gone already, which
// must not look like a loss.
func (n *node) finishRetirements(ctx context.Context) error {
	list, err := n.store.Read(ctx).Retirements()
	if err != nil {
		return err
	}
	for _, r := range list {
		if r.CountedAt.IsZero() || !r.EndedAt.IsZero() {
			continue
		}
		if err := n.endTokenKey(ctx, r.KeyVersion, func(tx *ledger.Tx) error {
			r.EndedAt = time.Now()
			return tx.PutRetirement(r)
		}); err != nil {
			return err
		}
	}
	return nil
}
