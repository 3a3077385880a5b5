package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	firmwareconfig "github.com/finterra/finpay/firmware-config"
	"github.com/finterra/finpay/hsm"
)

func TestEveryBuiltInProfileStatesEverySettingAndWhatWasTried(t *testing.T) {
	names := Providers()
	for _, wanted := range []string{"softhsm", "nss", "opencryptoki", "p11-kit", "luna", "cloudhsm", "nshield", "yubihsm"} {
		if !slices.Contains(names, wanted) {
			t.Errorf("there is no profile %s", wanted)
		}
	}
	for _, name := range names {
		profile, text, err := Provider(name, "/state")
		if err != nil {
			t.Error(err)
			continue
		}
		if profile.Name != name || len(profile.Modules) == 0 {
			t.Errorf("%s: %+v", name, profile)
		}
		var file map[string]any
		if err := yaml.Unmarshal(text, &file); err != nil {
			t.Fatal(err)
		}
		of := reflect.TypeFor[hsm.Profile]()
		for i := range of.NumField() {
			if _, ok := file[of.Field(i).Tag.Get("yaml")]; !ok {
				t.Errorf("%s lacks %s", name, of.Field(i).Tag.Get("yaml"))
			}
		}
		head, _, _ := strings.Cut(string(text), "\nname:")
		if !strings.Contains(head, "# Tried: ") && !strings.Contains(head, "# NOT TRIED: ") {
			t.Errorf("%s does not say whether it was tried", name)
		}
	}
}

func parseWith(t *testing.T, state, old, changed string) (Config, error) {
	t.Helper()
	text := strings.Replace(string(firmwareconfig.Default), old, changed, 1)
	if text == string(firmwareconfig.Default) {
		t.Fatalf("%q is not in the file", old)
	}
	return Parse([]byte(text), state)
}

func TestTheConfigurationsOwnSettingsWinOverTheProfiles(t *testing.T) {
	cfg, err := parseWith(t, "/state", "provider: softhsm ", "provider: nss ")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(cfg.HSM.InitArgument, "configdir='sql:/state/hsm'") || cfg.HSM.Profile().DataObjects != hsm.PublicData {
		t.Errorf("the profile was not applied: %+v", cfg.HSM)
	}
	cfg, err = parseWith(t, "/state", `init_argument: ""`, `init_argument: "ours in ${STATE}"`)
	if err != nil || cfg.HSM.InitArgument != "ours in /state" {
		t.Errorf("%q, %v", cfg.HSM.InitArgument, err)
	}
	cfg, err = parseWith(t, "/state", "environment: {}", "environment: {SOFTHSM2_CONF: /elsewhere}")
	if err != nil || cfg.HSM.Environment["SOFTHSM2_CONF"] != "/elsewhere" {
		t.Errorf("%v, %v", cfg.HSM.Environment, err)
	}
	cfg, err = parseWith(t, "/state", `module: ""`, "module: /ours.so")
	if err != nil || cfg.HSM.Module != "/ours.so" {
		t.Errorf("%q, %v", cfg.HSM.Module, err)
	}
}

func TestAProfileOfOnesOwn(t *testing.T) {
	state := t.TempDir()
	_, text, err := Provider("softhsm", state)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(state, "ours.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(string(text), "user_type: 1 ", "user_type: 2147483649 ", 1))
	first, err := parseWith(t, state, "provider: softhsm ", "provider: ours.yaml ")
	if err != nil || first.HSM.Profile().UserType != 2147483649 {
		t.Fatalf("%+v, %v", first.HSM.Profile(), err)
	}
	write(string(text))
	second, err := parseWith(t, state, "provider: softhsm ", "provider: ours.yaml ")
	if err != nil || first.Digest() == second.Digest() {
		t.Errorf("a change of the profile does not show in the configuration's digest (%v)", err)
	}
	for _, change := range []struct{ old, new, want string }{
		{"user_type: 1", "user_typ: 1", "user_typ"},
		{"aead: gcm", "aead: ecb", "aead"},
		{"omit_attributes: []", "omit_attributes: [CKA_SENSITIVE]", "CKA_SENSITIVE"},
		{"omit_attributes: []", "omit_attributes: [CKA_WRAP_WITH_TRUSTED]", "backup: clone"},
		{`pin_pattern: ""`, `pin_pattern: "("`, "pin_pattern"},
		{`pin_pattern: ""`, `pin_pattern: "^a"`, "pin_form"},
	} {
		write(strings.Replace(string(text), change.old, change.new, 1))
		if _, err := parseWith(t, state, "provider: softhsm ", "provider: ours.yaml "); err == nil || !strings.Contains(err.Error(), change.want) {
			t.Errorf("%s: %v", change.new, err)
		}
	}
	if _, err := parseWith(t, state, "provider: softhsm ", "provider: soft "); err == nil || !strings.Contains(err.Error(), "softhsm") {
		t.Errorf("an unknown profile: %v", err)
	}
}
