package main

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

// keyring is what the books say of the keys, by role and version.
type keyring []store.Key

// active returns the version of a role that serves.
func (k keyring) active(role hsm.Role) (hsm.Key, bool) {
	for _, row := range k {
		if row.Role == string(role) && row.State == store.KeyActive {
			return keyOf(row), true
		}
	}
	return hsm.Key{}, false
}

// key returns the active version. Before the books know of the role at all, that is the first one; a role whose versions
// are all retired has a key that no HSM has, so that its use fails.
func (k keyring) key(role hsm.Role) hsm.Key {
	active, ok := k.active(role)
	switch {
	case ok:
		return active
	case k.knows(role):
		return hsm.Key{Role: role}
	default:
		return hsm.Key{Role: role, Version: 1}
	}
}

// usable returns the versions of a role that may be used: the active one first, then the retired ones, newest first.
func (k keyring) usable(role hsm.Role) []hsm.Key {
	var keys []hsm.Key
	active, ok := k.active(role)
	if ok {
		keys = append(keys, active)
	}
	for i := len(k) - 1; i >= 0; i-- {
		if k[i].Role == string(role) && k[i].State == store.KeyRetired {
			keys = append(keys, keyOf(k[i]))
		}
	}
	return keys
}

// knows reports whether a role has, or had, any version.
func (k keyring) knows(role hsm.Role) bool { return k.last(role) > 0 }

// last returns the highest version that a role ever had.
func (k keyring) last(role hsm.Role) (version uint32) {
	for _, row := range k {
		if row.Role == string(role) {
			version = max(version, row.Version)
		}
	}
	return version
}

// row returns the place of a key's row, or -1.
func (k keyring) row(key hsm.Key) int {
	for i, row := range k {
		if keyOf(row) == key {
			return i
		}
	}
	return -1
}

func keyOf(row store.Key) hsm.Key { return hsm.Key{Role: hsm.Role(row.Role), Version: row.Version} }

// keyResource is what entries about a key are about.
func keyResource(key hsm.Key) string { return "hsm:" + key.Label() }

// bookOf makes the row of a key.
func bookOf(b hsm.Birth, state, origin string, at time.Time) store.Key {
	row := store.Key{Role: string(b.Key.Role), Version: b.Key.Version, Kind: string(b.Kind), Class: string(b.Class), State: state,
		CheckValue: b.CheckValue, Origin: origin, CreatedAt: at}
	if state == store.KeyRetired {
		row.RetiredAt = at
	}
	return row
}

// recordKey writes a key's row with the entry that covers it.
func recordKey(tx *ledger.Tx, event string, row store.Key, data map[string]any) error {
	if err := tx.PutKey(row); err != nil {
		return err
	}
	tx.Record(ledger.Entry{Type: event, Actor: "operator", Origin: "local", Outcome: ledger.Success, Resource: keyResource(keyOf(row)), Data: data})
	return nil
}

// readKeys reads the books anew.
func (n *node) readKeys(ctx context.Context) (err error) {
	n.keys, err = n.store.Read(ctx).Keys()
	return err
}

// listEntered brings keys into the books that the log knows from before there were books, as the log knows them. Whether
// the HSM agrees is for keyProblems to say.
func (n *node) listEntered(ctx context.Context) error {
	for _, spec := range keySpecs {
		if n.keys.knows(spec.Role) {
			continue
		}
		first := hsm.Key{Role: spec.Role, Version: 1}
		entries, err := n.store.Read(ctx).LedgerEntriesOf(keyResource(first))
		if err != nil || len(entries) == 0 {
			if err != nil {
				return err
			}
			continue
		}
		var entry struct {
			Type string    `json:"type"`
			Time time.Time `json:"time"`
			Data struct {
				Key hsm.Birth `json:"key"`
			} `json:"data"`
		}
		if err := json.Unmarshal(entries[0].Entry, &entry); err != nil || entry.Type != "key.created" || entry.Data.Key.CheckValue == "" {
			return fmt.Errorf("the log's first entry about %s is no birth (%v): the books cannot be filled from it", first.Label(), err)
		}
		entry.Data.Key.Key = first
		row := bookOf(entry.Data.Key, store.KeyActive, store.KeyGenerated, entry.Time)
		if _, err := n.ledger.Commit(ctx, func(tx *ledger.Tx) error {
			return recordKey(tx, "key.listed", row, map[string]any{"check_value": row.CheckValue})
		}); err != nil {
			return err
		}
	}
	return n.readKeys(ctx)
}

// keyProblem is what is wrong with one key.
type keyProblem struct {
	key    string // as entries name it
	reason string
}

func (p *keyProblem) Error() string { return p.key + " " + p.reason }

// onlyAbout reports whether there are problems, and none of another role's keys.
func onlyAbout(role hsm.Role, problems []error) bool {
	for _, err := range problems {
		if p, ok := errors.AsType[*keyProblem](err); !ok || !strings.HasPrefix(p.key, string(role)+" ") {
			return false
		}
	}
	return len(problems) > 0
}

// keyProblems holds the books against the log that signed them and against the HSM. The error is about asking.
func (n *node) keyProblems(ctx context.Context) (problems []error, err error) {
	for _, row := range n.keys {
		reason, err := n.keyProblem(ctx, row)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			problems = append(problems, &keyProblem{row.Name(), reason})
		}
	}
	for _, spec := range keySpecs {
		if _, ok := n.keys.active(spec.Role); !ok && !spec.Optional {
			problems = append(problems, &keyProblem{string(spec.Role), "has no active version: restore or generate one in a ceremony"})
		}
	}
	return problems, nil
}

func (n *node) keyProblem(ctx context.Context, row store.Key) (reason string, err error) {
	if reason, err := n.unsigned(ctx, row); reason != "" || err != nil {
		return reason, err
	}
	key := keyOf(row)
	spec, err := specOf(key.Role)
	if err != nil {
		return "is of no role of this appliance", nil //nolint:nilerr // the reason is the finding
	}
	birth, err := n.engine.Inspect(ctx, key, spec)
	destroyed := row.State == store.KeyDestroyed
	switch {
	case errors.Is(err, hsm.ErrNoKey) && destroyed:
		return "", nil
	case errors.Is(err, hsm.ErrNoKey) && spec.Class == hsm.Recoverable:
		return "is in the books and not on the hsm token: restore it from its backup in a ceremony", nil
	case errors.Is(err, hsm.ErrNoKey):
		return "is in the books and not on the hsm token", nil
	case errors.Is(err, hsm.ErrDuplicateKey):
		return "is there twice: which one is meant cannot be known", nil
	case err != nil:
		return "", err
	case destroyed:
		return "was destroyed and is there again", nil
	case birth.CheckValue != row.CheckValue:
		return fmt.Sprintf("has the check value %s, and the books say %s: it is another key", birth.CheckValue, row.CheckValue), nil
	}
	if err := n.engine.CheckBirth(birth, spec, row.Origin == store.KeyRestored); err != nil {
		return "is not as it was made: " + err.Error(), nil
	}
	return "", nil
}

// unsigned says so where a row is not the one that the log's newest entry about it covers.
func (n *node) unsigned(ctx context.Context, row store.Key) (reason string, err error) {
	hash, err := store.HashRow(row)
	if err != nil {
		return "", err
	}
	entries, err := n.store.Read(ctx).LedgerEntriesOf(keyResource(keyOf(row)))
	if err != nil {
		return "", err
	}
	for i := len(entries) - 1; i >= 0; i-- {
		var entry ledger.Entry
		if err := json.Unmarshal(entries[i].Entry, &entry); err != nil {
			return "", err
		}
		if covered := entry.Rows["keys/"+row.Name()]; covered == hash {
			return "", nil
		} else if covered != "" {
			break
		}
	}
	return "is not in the books as the log has signed it: keep the state directory as evidence, find out who changed it", nil
}

// certified returns the signer of the version that a certificate is for, and that version; where it is for none, those of the
// active one, so that the caller says what is wrong with the certificate.
func (n *node) certified(ctx context.Context, role hsm.Role, path string) (crypto.Signer, hsm.Key, error) {
	for _, key := range n.keys.usable(role) {
		signer, err := n.engine.Signer(ctx, key)
		if err != nil {
			return nil, key, err
		}
		if _, err := certificate(path, signer); err == nil {
			return signer, key, nil
		}
	}
	active := n.keys.key(role)
	signer, err := n.engine.Signer(ctx, active)
	return signer, active, err
}
