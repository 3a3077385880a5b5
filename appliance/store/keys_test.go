package store

import (
	"errors"
	"testing"
	"time"

	"github.com/finterra/finpay/pci"
)

func begin(t *testing.T) *Tx {
	t.Helper()
	s, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = tx.Rollback()
		_ = s.Close()
	})
	return tx
}

// Under two versions of the key, two cards can come to the same token. The second must not become the first.
func TestATokenOfAnotherVersionIsNeverTakenOver(t *testing.T) {
	tx := begin(t)
	expiry, err := pci.ParseExpiry("2030-12")
	if err != nil {
		t.Fatal(err)
	}
	first := Token{Domain: "d", Token: "9000000000001111", Format: "last4", KeyVersion: 1, Status: "active", CreatedAt: time.Now(),
		Card: pci.Card{Brand: "visa", Truncated: "411111******1111", Expiry: expiry}}
	if err := tx.PutToken(first); err != nil {
		t.Fatal(err)
	}
	if err := tx.PutToken(first); err != nil {
		t.Errorf("the same card again: %v", err)
	}
	second := first
	second.KeyVersion, second.Card.Truncated = 2, "450000******1111"
	if err := tx.PutToken(second); !errors.Is(err, ErrTokenTaken) {
		t.Errorf("another card's token: %v, want ErrTokenTaken", err)
	}
	second.Domain = "e"
	if err := tx.PutToken(second); err != nil {
		t.Errorf("in another domain: %v", err)
	}
	if got, err := tx.Token("d", first.Token); err != nil || got.KeyVersion != 1 || got.Card.Truncated != first.Card.Truncated {
		t.Errorf("%+v, %v", got, err)
	}
	for version, want := range map[uint32]int{1: 1, 2: 1, 3: 0} {
		if n, err := tx.CountTokensOfVersion(version); err != nil || n != want {
			t.Errorf("%d tokens under version %d, want %d: %v", n, version, want, err)
		}
	}
}

func TestARoleHasOneActiveKey(t *testing.T) {
	tx := begin(t)
	born := time.Now()
	key := func(version uint32, state string) Key {
		return Key{Role: "kek", Version: version, Kind: "aes-256 encrypt decrypt", Class: "recoverable", State: state, CheckValue: "455dcf",
			Origin: KeyGenerated, CreatedAt: born}
	}
	if err := tx.PutKey(key(1, KeyActive)); err != nil {
		t.Fatal(err)
	}
	if err := tx.PutKey(key(2, KeyActive)); err == nil {
		t.Error("two active versions")
	}
	if err := tx.PutKey(key(1, KeyRetired)); err != nil {
		t.Fatal(err)
	}
	if err := tx.PutKey(key(2, KeyActive)); err != nil {
		t.Fatal(err)
	}
	altered := key(2, KeyActive)
	altered.CheckValue = "000000"
	if err := tx.PutKey(altered); err == nil {
		t.Error("a key has changed its check value")
	}
	rows, err := tx.Keys()
	if err != nil || len(rows) != 2 || rows[1].CheckValue != "455dcf" || rows[0].State != KeyRetired {
		t.Errorf("%+v, %v", rows, err)
	}
	if err := tx.PutKey(key(3, "lost")); err == nil {
		t.Error("a state that there is not")
	}
	if touched := tx.Touched(); touched["keys/kek v2"] == "" {
		t.Errorf("%v", touched)
	}
}
