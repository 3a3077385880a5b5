// Package softhsmtest gives tests a SoftHSM2 hsm token of their own.
//
// SoftHSM2 keeps one configuration per process, so a test binary has one token directory at a time, and tests
// that use it do not run in parallel.
package softhsmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/finterra/finpay/hsm"
)

// PIN of the fixture's normal user.
const PIN = "123456"

// OfficerPIN of the fixture's security officer.
const OfficerPIN = "87654321"

// Module returns the path of SoftHSM2's PKCS#11 library: that of the variable SOFTHSM2_MODULE, or where Debian,
// Ubuntu or Fedora put it.
func Module(t testing.TB) string {
	t.Helper()
	for _, path := range []string{
		os.Getenv("SOFTHSM2_MODULE"),
		"/usr/lib/softhsm/libsofthsm2.so",
		"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
		"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
		"/usr/lib64/pkcs11/libsofthsm2.so",
	} {
		if _, err := os.Stat(path); path != "" && err == nil {
			return path
		}
	}
	t.Fatal("SoftHSM2 is not installed: run `make deps`")
	return ""
}

// Token provisions an empty hsm token in a directory that ends with the test.
func Token(t testing.TB) hsm.Config {
	t.Helper()
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := hsm.Config{
		Module:      Module(t),
		Label:       "test",
		PIN:         PIN,
		Environment: map[string]string{"SOFTHSM2_CONF": conf},
	}
	if err := hsm.Provision(cfg, OfficerPIN); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Open opens a fresh hsm token for the length of the test.
func Open(t testing.TB) *hsm.Engine {
	t.Helper()
	engine, err := hsm.Open(Token(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return engine
}

// Key generates a key of the given spec, version 1.
func Key(t testing.TB, engine *hsm.Engine, spec hsm.Spec) hsm.Key {
	t.Helper()
	key := hsm.Key{Role: spec.Role, Version: 1}
	if _, err := engine.Generate(t.Context(), key, spec); err != nil {
		t.Fatal(err)
	}
	return key
}
