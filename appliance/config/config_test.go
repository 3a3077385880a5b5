package config

import (
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	firmwareconfig "github.com/finterra/finpay/firmware-config"
)

func TestTheDocumentedConfigurationIsValid(t *testing.T) {
	cfg, err := Parse(firmwareconfig.Default, "/state")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.HSM.PINFile != "/state/hsm/pin" || cfg.HSM.Environment["SOFTHSM2_CONF"] != "/state/hsm/softhsm2.conf" {
		t.Errorf("paths: %+v", cfg.HSM)
	}
	if !cfg.PINInState() {
		t.Error("the PIN's place is not recognised")
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for _, change := range []struct{ old, new, want string }{
		{"node: finpay-1", "nodes: finpay-1", "nodes"},
		{"key: hsm ", "key: tpm ", "tls.key"},
		{"monitor: 127.0.0.1:8480", "monitor: 0.0.0.0:8480", "loopback"},
		{"deadline: 15m", "deadline: soon", "soon"},
		{"capacity: 10000", "capacity: 0", "custody.capacity"},
		{"https://localhost:8443 ", "http://localhost:8443 ", "public_url"},
		{"challenge: 10m", "challenge: 16m", "custody.deadline"},
		{"unavailable: proceed", "unavailable: maybe", "three_d_secure.unavailable"},
		{`versions: ["2.2.0", "2.3.1"]`, `versions: ["2.2.0", "2.1.0"]`, "versions"},
		{`versions: ["2.2.0", "2.3.1"]`, `versions: []`, "versions"},
		{`acquirer_country: ""`, `acquirer_country: MY`, "acquirer_country"},
		{`soft_declines: ["1A", "65"]`, `soft_declines: ["refused"]`, "iso8583.soft_declines"},
		{"log:\n", "---\nlog:\n", "document"},
		{"- name: acquirer", "- name: Acquirer", "connectors[0] (Acquirer).name"},
		{"type: iso8583", "type: swift", "swift"},
		{"type: iso8583", "type: stripe", "block of this type"},
		{"address: 127.0.0.1:8583", "address: nowhere", "iso8583.address"},
		{"brands: []", "brands: [vis]", "vis"},
		{"currencies: []", "currencies: [EUro]", "EUro"},
		{"min_amount: {}", "min_amount: {minor: 5}", "min_amount"},
		{"max_amount: {}", "max_amount: {minor: 5, currency: EUR, major: 1}", "major"},
		{"merchants: []", "merchants: [me]", "mer_"},
	} {
		text := strings.Replace(string(firmwareconfig.Default), change.old, change.new, 1)
		if text == string(firmwareconfig.Default) {
			t.Fatalf("%q is not in the file", change.old)
		}
		if _, err := Parse([]byte(text), "/state"); err == nil || !strings.Contains(err.Error(), change.want) {
			t.Errorf("%q: %v", change.new, err)
		}
	}
}

// withStripe is the documented configuration with its example of a connector to Stripe in effect, instead of the other one.
func withStripe(t *testing.T) []byte {
	t.Helper()
	text := string(firmwareconfig.Default)
	from, to := strings.Index(text, "connectors:"), strings.Index(text, "# A connector to Stripe")
	end := strings.Index(text, "webhooks:")
	if from < 0 || to < from || end < to {
		t.Fatal("finpay.yaml has no example of a connector to Stripe")
	}
	var example strings.Builder
	for line := range strings.Lines(text[to:end]) {
		if line, ok := strings.CutPrefix(line, "#  "); ok {
			example.WriteString("  " + line)
		}
	}
	return []byte(text[:from] + "connectors:\n" + example.String() + text[end:])
}

func TestTheExampleOfStripeIsValidAndItsMistakesAreNamed(t *testing.T) {
	text := withStripe(t)
	cfg, err := Parse(text, "/state")
	if err != nil {
		t.Fatal(err)
	}
	if c := cfg.Connectors[0]; len(cfg.Connectors) != 1 || c.Stripe.KeyFile != "/state/stripe/key" || c.MinAmount != (Amount{50, "EUR"}) || c.ISO8583 != nil {
		t.Errorf("%+v", c)
	}
	if cfg.SimulatedAcquirer() != nil {
		t.Error("Stripe is taken for an ISO 8583 line")
	}
	for _, change := range []struct{ old, new, want string }{
		{"https://api.stripe.com", "http://api.stripe.com", "stripe.url"},
		{"https://api.stripe.com", "https://api.stripe.com/v1", "stripe.url"},
		{"https://api.stripe.com", "https://me@api.stripe.com", "stripe.url"},
		{"answer_timeout: 15s", "answer_timeout: 1h", "stripe.answer_timeout"},
		{"key_file: stripe/key", "key_file: ''", "stripe.key_file"},
		{"max_amount: {minor: 100000, currency: EUR}", "max_amount: {minor: 10, currency: EUR}", "max_amount"},
		{"max_amount: {minor: 100000, currency: EUR}", "max_amount: {minor: 100000, currency: GBP}", "not among currencies"},
	} {
		changed := strings.Replace(string(text), change.old, change.new, 1)
		if changed == string(text) {
			t.Fatalf("%q is not in the file", change.old)
		}
		if _, err := Parse([]byte(changed), "/state"); err == nil || !strings.Contains(err.Error(), change.want) {
			t.Errorf("%q: %v", change.new, err)
		}
	}
}

func TestTwoConnectorsOfOneNameAreRefused(t *testing.T) {
	text := string(firmwareconfig.Default)
	from, to := strings.Index(text, "  - name: acquirer"), strings.Index(text, "# A connector to Stripe")
	_, err := Parse([]byte(text[:to]+text[from:to]+text[to:]), "/state")
	if err == nil || !strings.Contains(err.Error(), "another connector has it") {
		t.Errorf("%v", err)
	}
}

func TestEverySettingIsDocumented(t *testing.T) {
	var file, stripe map[string]any
	if err := yaml.Unmarshal(firmwareconfig.Default, &file); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(withStripe(t), &stripe); err != nil {
		t.Fatal(err)
	}
	connector := file["connectors"].([]any)[0].(map[string]any)
	connector["stripe"] = stripe["connectors"].([]any)[0].(map[string]any)["stripe"]
	inFile(t, reflect.TypeFor[Config](), file, "")
	inFile(t, reflect.TypeFor[Connector](), connector, "connectors.")
}

func inFile(t *testing.T, of reflect.Type, file map[string]any, path string) {
	t.Helper()
	for i := range of.NumField() {
		field := of.Field(i)
		name := field.Tag.Get("yaml")
		if !field.IsExported() {
			continue
		}
		value, ok := file[name]
		if !ok {
			t.Errorf("finpay.yaml lacks %s%s", path, name)
		}
		of := field.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if section, is := value.(map[string]any); is && of.Kind() == reflect.Struct && of != reflect.TypeFor[Amount]() {
			inFile(t, of, section, path+name+".")
		}
	}
}
