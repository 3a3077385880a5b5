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
		{`versions: ["2.2.0", "2.3.1"]`, `versions: ["2.2.0", "2.1.0"]`, "three_d_secure.versions"},
		{`versions: ["2.2.0", "2.3.1"]`, `versions: []`, "three_d_secure.versions"},
		{`acquirer_country: ""`, `acquirer_country: MY`, "three_d_secure.acquirer_country"},
		{`soft_declines: ["1A", "65"]`, `soft_declines: ["refused"]`, "acquirer.soft_declines"},
		{"log:\n", "---\nlog:\n", "document"},
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

func TestEverySettingIsDocumented(t *testing.T) {
	var file map[string]any
	if err := yaml.Unmarshal(firmwareconfig.Default, &file); err != nil {
		t.Fatal(err)
	}
	inFile(t, reflect.TypeFor[Config](), file, "")
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
		if section, is := value.(map[string]any); is && field.Type.Kind() == reflect.Struct {
			inFile(t, field.Type, section, path+name+".")
		}
	}
}
