package merchant

import (
	"errors"
	"strings"
	"testing"

	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

func goodProfile() store.Merchant {
	return store.Merchant{ID: "mer_pelangi", Domain: "first", Profile: pci.Merchant{Sandbox: true, Name: "Pelangi Tea", City: "Kuala Lumpur", Country: "MY", MCC: "5499",
		AcquirerBIN: "123456", AcquirerMID: "000000000000002", TerminalID: "00000002", RequestorID: "r-2", RequestorName: "Pelangi Tea", RequestorURL: "https://pelangi.example"},
		Limits: map[pci.Currency]int64{"EUR": 100}, ReturnHosts: []string{"shop.example"}, WebhookHosts: []string{"127.0.0.1"}}
}

func TestAProfileIsChecked(t *testing.T) {
	m := goodProfile()
	if err := CheckProfile(&m); err != nil || m.Profile.CountryCode != "458" || m.Profile.ID != m.ID {
		t.Errorf("%+v, %v", m, err)
	}
	for field, change := range map[string]func(*store.Merchant){
		"id":                 func(m *store.Merchant) { m.ID = "pelangi" },
		"name":               func(m *store.Merchant) { m.Profile.Name = strings.Repeat("a", 26) },
		"city":               func(m *store.Merchant) { m.Profile.City = "Kuala Lumpur!!" },
		"country":            func(m *store.Merchant) { m.Profile.Country = "my" },
		"mcc":                func(m *store.Merchant) { m.Profile.MCC = "54" },
		"acquirer bin":       func(m *store.Merchant) { m.Profile.AcquirerBIN = "12a" },
		"acquirer mid":       func(m *store.Merchant) { m.Profile.AcquirerMID = "" },
		"acquirer terminal":  func(m *store.Merchant) { m.Profile.TerminalID = "123456789" },
		"requestor id":       func(m *store.Merchant) { m.Profile.RequestorID = "" },
		"requestor name":     func(m *store.Merchant) { m.Profile.RequestorName = "" },
		"requestor url":      func(m *store.Merchant) { m.Profile.RequestorURL = "http://pelangi.example" },
		"domain":             func(m *store.Merchant) { m.Domain = "" },
		"return_hosts":       func(m *store.Merchant) { m.ReturnHosts = []string{"Shop.example"} },
		"webhook_hosts":      func(m *store.Merchant) { m.WebhookHosts = []string{"shop.example:443"} },
		"limits: EUR: 0":     func(m *store.Merchant) { m.Limits = map[pci.Currency]int64{"EUR": 0} },
		"limits: euro: 1 is": func(m *store.Merchant) { m.Limits = map[pci.Currency]int64{"euro": 1} },
	} {
		m := goodProfile()
		change(&m)
		if err := CheckProfile(&m); !errors.Is(err, ErrProfile) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestAMerchantStaysWhatItIs(t *testing.T) {
	b := newBench(t)
	m := goodProfile()
	if created, err := b.Enter(t.Context(), operator, m); err != nil || !created {
		t.Fatal(created, err)
	}
	m.Profile.Name = "Pelangi Coffee"
	if created, err := b.Enter(t.Context(), operator, m); err != nil || created {
		t.Errorf("changed: created %v, %v", created, err)
	}
	live, moved := m, m
	live.Profile.Sandbox = false
	moved.Domain = "second"
	taken := goodProfile()
	taken.ID, taken.Profile.Sandbox = "mer_other", false
	for name, wrong := range map[string]store.Merchant{"live": live, "moved": moved, "a terminal of the sandbox": taken} {
		if _, err := b.Enter(t.Context(), operator, wrong); !errors.Is(err, ErrProfile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now, err := b.cfg.Store.Read(t.Context()).Merchant(m.ID); err != nil || now.Profile.Name != "Pelangi Coffee" || !now.Profile.Sandbox || now.Limits["EUR"] != 100 {
		t.Errorf("%+v, %v", now, err)
	}
	taken.Profile.TerminalID = "00000003"
	if _, err := b.Enter(t.Context(), operator, taken); err != nil {
		t.Fatal(err)
	}
	for id, prefix := range map[string]string{m.ID: "fp_test_", taken.ID: "fp_live_"} {
		if key, err := b.CreateKey(t.Context(), operator, id, KeyTerms{}); err != nil || !strings.HasPrefix(key, prefix) {
			t.Errorf("%s has the key %.8s…, %v", id, key, err)
		}
	}
}
