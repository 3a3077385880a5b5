package store

import (
	"reflect"
	"testing"
	"time"

	"github.com/finterra/finpay/pci"
)

func TestAMerchantIsReadAsItWasWrittenLast(t *testing.T) {
	s, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	put := func(m Merchant, commit bool) {
		t.Helper()
		tx, err := s.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.PutMerchant(m); err != nil {
			t.Fatal(err)
		}
		if got, err := tx.Merchant(m.ID); err != nil || !reflect.DeepEqual(got, m) { // its own rows are seen at once
			t.Errorf("%+v, %v, written %+v", got, err, m)
		}
		end := tx.Rollback
		if commit {
			end = tx.Commit
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	first := Merchant{ID: "mer_1", Domain: "shop", Profile: pci.Merchant{ID: "mer_1", Name: "Tea"}, Limits: map[pci.Currency]int64{"EUR": 100},
		ReturnHosts: []string{"shop.example"}, WebhookHosts: []string{"hooks.example"}, CreatedAt: time.Unix(1_900_000_000, 0).UTC()}
	second := first
	second.Profile.Name, second.Limits, second.ReturnHosts = "Kopi", map[pci.Currency]int64{"EUR": 7}, []string{"other.example"}
	for _, m := range []Merchant{first, second, first} {
		put(m, true)
		other := m
		other.Profile.Name = "never committed"
		put(other, false)
		for range 2 {
			got, err := s.Read(t.Context()).Merchant(m.ID)
			if err != nil || !reflect.DeepEqual(got, m) {
				t.Errorf("%+v, %v, written %+v", got, err, m)
			}
			got.Limits["EUR"], got.ReturnHosts[0], got.WebhookHosts[0] = 0, "", "" // a reader's own
		}
	}
}
