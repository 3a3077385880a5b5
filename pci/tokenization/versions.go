package tokenization

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/ff1"
)

// Key is one version of the tokenization key.
type Key struct {
	AES     ff1.Encrypter // encrypts AES blocks inside the HSM
	Runners int           // how many calls of it run at once, faster than one after the other
}

// Keys are the versions of the tokenization key.
type Keys struct {
	Active   uint32
	Versions map[uint32]Key
}

// Rotate makes a new version of the key the active one. Cards that have no token get theirs under it from now on; the
// tokens of older versions stay what they are.
func (s *Service) Rotate(number uint32, key Key) error { return s.keys.add(number, key) }

// Drop ends a version that is not the active one: no token leads back under it any more. It returns when nobody uses it.
func (s *Service) Drop(ctx context.Context, number uint32) error { return s.keys.drop(ctx, number) }

// Active returns the number of the version under which new tokens are made.
func (s *Service) Active() uint32 {
	versions := s.keys.borrow()
	defer versions.giveBack()
	return versions.list[0].number
}

// version is a live version of the key.
type version struct {
	number uint32
	cipher *ff1.Cipher
}

// encrypt and decrypt take lanes through FF1. A deadline that passes is the HSM's.
func (v version) encrypt(ctx context.Context, lanes []ff1.Lane) error {
	return late(v.cipher.Encrypt(ctx, lanes))
}

func (v version) decrypt(ctx context.Context, lanes []ff1.Lane) error {
	return late(v.cipher.Decrypt(ctx, lanes))
}

func late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, pci.ErrUnavailable) {
		return fmt.Errorf("%w: %w", pci.ErrUnavailable, err)
	}
	return err
}

// keyring is the live versions. A call borrows them as they stand when it begins, so that none ends under its hands.
type keyring struct {
	mu      sync.Mutex
	current *versions
}

// versions is one state of a keyring, which never changes but for its users.
type versions struct {
	of    *keyring
	list  []version // the active one first, then from the newest on
	users int       // guarded by of.mu
	idle  chan struct{}
}

func (k *keyring) fill(keys Keys) error {
	if _, ok := keys.Versions[keys.Active]; !ok {
		return fmt.Errorf("tokenization: the active key version %d is not there", keys.Active)
	}
	var list []version
	for number, key := range keys.Versions {
		list = append(list, version{number, ff1.New(key.AES, key.Runners)})
	}
	slices.SortFunc(list, func(a, b version) int {
		switch keys.Active {
		case a.number:
			return -1
		case b.number:
			return 1
		default:
			return int(b.number) - int(a.number)
		}
	})
	k.current = k.state(list)
	return nil
}

func (k *keyring) state(list []version) *versions {
	return &versions{of: k, list: list, idle: make(chan struct{})}
}

func (k *keyring) borrow() *versions {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current.users++
	return k.current
}

func (v *versions) giveBack() {
	v.of.mu.Lock()
	defer v.of.mu.Unlock()
	if v.users--; v.users == 0 && v != v.of.current {
		close(v.idle)
	}
}

// replace puts a state in the place of the current one, which is returned. The lock is held.
func (k *keyring) replace(list []version) (before *versions) {
	before, k.current = k.current, k.state(list)
	if before.users == 0 {
		close(before.idle)
	}
	return before
}

func (k *keyring) add(number uint32, key Key) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.current.version(number); ok {
		return fmt.Errorf("tokenization: version %d of the key is there already", number)
	}
	k.replace(append([]version{{number, ff1.New(key.AES, key.Runners)}}, k.current.list...))
	return nil
}

func (k *keyring) drop(ctx context.Context, number uint32) error {
	k.mu.Lock()
	old, ok := k.current.version(number)
	if !ok || k.current.list[0].number == number {
		defer k.mu.Unlock()
		if ok {
			return fmt.Errorf("tokenization: version %d of the key is the active one", number)
		}
		return nil
	}
	before := k.replace(slices.DeleteFunc(slices.Clone(k.current.list), func(v version) bool { return v.number == number }))
	k.mu.Unlock()
	defer old.cipher.Close()
	select {
	case <-before.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *keyring) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range k.current.list {
		v.cipher.Close()
	}
}

// version returns a live version of the key by its number.
func (v *versions) version(number uint32) (version, bool) {
	for _, one := range v.list {
		if one.number == number {
			return one, true
		}
	}
	return version{}, false
}
