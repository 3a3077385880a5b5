package merchant

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
)

func TestAKeyWorksFromItsAddressesOnly(t *testing.T) {
	b := newBench(t)
	key, err := b.CreateKey(t.Context(), operator, shop, KeyTerms{Scopes: []api.Scope{api.ScopeTokens},
		Allow: []netip.Prefix{netip.MustParsePrefix("203.0.113.77/24"), netip.MustParsePrefix("2001:db8::/32")}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // also when it is remembered
		for origin, allowed := range map[string]bool{"203.0.113.1": true, "::ffff:203.0.113.1": true, "2001:db8:1::2": true, "203.0.114.1": false, "2001:db9::1": false, "": false, "nowhere": false} {
			caller, err := b.Caller(t.Context(), key, origin)
			if allowed && (err != nil || caller.Origin != origin) || !allowed && !errors.Is(err, api.ErrUnauthorized) {
				t.Errorf("%s: %+v, %v", origin, caller, err)
			}
		}
	}
	if refused := b.entries("login.failed"); len(refused) == 0 || refused[0].Resource != "key:"+KeyID(key) {
		t.Errorf("%+v", refused)
	}
	if made := b.entries("api_key.created"); len(made) != 1 || made[0].Data["allow"] != "203.0.113.0/24 2001:db8::/32" {
		t.Errorf("%+v", made)
	}
}

func TestARotatedKeyWorksOnForItsOverlap(t *testing.T) {
	b := newBench(t)
	old := b.key(api.ScopeTokens, api.ScopeDetokenize)
	if _, err := b.Caller(t.Context(), old, "x"); err != nil {
		t.Fatal(err)
	}
	next, endsAt, err := b.RotateKey(t.Context(), operator, old, time.Hour)
	if err != nil || !endsAt.Equal(b.now.Add(time.Hour)) || next == old {
		t.Fatalf("%s, %v", endsAt, err)
	}
	for _, key := range []string{old, next} {
		if caller, err := b.Caller(t.Context(), key, "x"); err != nil || len(caller.Scopes) != 2 || caller.MerchantID != shop {
			t.Errorf("%+v, %v", caller, err)
		}
	}
	if _, again, err := b.RotateKey(t.Context(), operator, KeyID(old), 48*time.Hour); err != nil || !again.Equal(endsAt) { // an end does not move away
		t.Errorf("%s, %v", again, err)
	}
	b.now = endsAt
	if _, err := b.Caller(t.Context(), old, "x"); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("after its end: %v", err)
	}
	if _, err := b.Caller(t.Context(), next, "x"); err != nil {
		t.Error(err)
	}
	if _, _, err := b.RotateKey(t.Context(), operator, old, time.Hour); err == nil {
		t.Error("a key that has ended was rotated")
	}
	if _, _, err := b.RotateKey(t.Context(), operator, "nobody", time.Hour); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if rotated := b.entries("api_key.rotated"); len(rotated) != 2 || rotated[0].Data["successor"] != KeyID(next) || len(rotated[0].Rows) == 0 {
		t.Errorf("%+v", rotated)
	}
}

func TestTheLastUseOfAKeyIsKept(t *testing.T) {
	b := newBench(t)
	used, unused := b.key(), b.key()
	if _, err := b.Caller(t.Context(), used, "x"); err != nil {
		t.Fatal(err)
	}
	if err := b.KeepUses(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.KeepUses(t.Context()); err != nil { // nothing new
		t.Fatal(err)
	}
	last := map[string]time.Time{}
	if err := b.cfg.Store.Read(t.Context()).APIKeys(func(k store.APIKey, usedAt time.Time) error {
		last[k.ID] = usedAt
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !last[KeyID(used)].Equal(b.now) || !last[KeyID(unused)].IsZero() || len(last) != 2 {
		t.Errorf("%v", last)
	}
}
