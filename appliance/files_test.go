package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/finterra/finpay/appliance/config"
	firmwareconfig "github.com/finterra/finpay/firmware-config"
)

func TestAFileIsWrittenOnceAndWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "file")
	for i, content := range []string{"first", "second"} {
		made, err := writeNew(path, []byte(content), 0o640)
		if err != nil || made != (i == 0) {
			t.Errorf("%s: %v, %v", content, made, err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "first" {
		t.Errorf("%q, %v", text, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil || folder.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", folder.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestALinkIsNotWrittenThrough(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if made, err := writeNew(link, []byte("x"), 0o600); made || err != nil {
		t.Errorf("%v, %v", made, err)
	}
	if _, err := os.Lstat(target); err == nil {
		t.Error("the link's target was made")
	}
}

func TestOfManyWritersOneWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var wg sync.WaitGroup
	var mu sync.Mutex
	winners := 0
	for i := range 16 {
		wg.Go(func() {
			made, err := writeNew(path, bytes.Repeat([]byte{byte('a' + i)}, 100_000), 0o600)
			if err != nil {
				t.Error(err)
			}
			if made {
				mu.Lock()
				winners++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(path)
	if err != nil || winners != 1 || len(text) != 100_000 || bytes.Count(text, text[:1]) != len(text) {
		t.Errorf("%d winners, %d bytes, %v", winners, len(text), err)
	}
}

func TestTheConfigurationThatInitWritesIsTheDocumentedOneWithItsYear(t *testing.T) {
	text := defaultConfig(2031)
	if !bytes.Contains(text, []byte("finpay.example/finpay-1/2031")) || bytes.Contains(text, []byte("finpay-1/2026")) {
		t.Error("the log's name has another year")
	}
	was, is := strings.Split(string(firmwareconfig.Default), "\n"), strings.Split(string(text), "\n")
	if len(was) != len(is) {
		t.Fatalf("%d lines became %d", len(was), len(is))
	}
	for i := range was {
		if was[i] != is[i] && !strings.Contains(was[i], "origin:") && !strings.Contains(was[i], "module:") {
			t.Errorf("%q became %q", was[i], is[i])
		}
	}
	dir := t.TempDir()
	if _, err := writeNew(filepath.Join(dir, config.FileName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load("", dir)
	if err != nil || cfg.Ledger.Origin != "finpay.example/finpay-1/2031" {
		t.Errorf("%s, %v", cfg.Ledger.Origin, err)
	}
}

func TestACertificateMustBeForItsKey(t *testing.T) {
	dir := t.TempDir()
	newKey := func() *ecdsa.PrivateKey {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return private
	}
	own, other := newKey(), newKey()
	good := filepath.Join(dir, "good.pem")
	if made, err := writeCertificate(good, own, "localhost", x509.ExtKeyUsageServerAuth); !made || err != nil {
		t.Fatal(made, err)
	}
	if made, err := writeCertificate(good, other, "localhost", x509.ExtKeyUsageServerAuth); made || err != nil {
		t.Errorf("a certificate was overwritten: %v, %v", made, err)
	}
	c, err := certificate(good, own)
	if err != nil || c.Leaf.VerifyHostname("localhost") != nil || c.Leaf.VerifyHostname("127.0.0.1") != nil || c.Leaf.VerifyHostname("other.example") == nil {
		t.Errorf("%v", err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		path, want string
		key        *ecdsa.PrivateKey
	}{
		"another key": {good, "is for another key", other},
		"no file":     {filepath.Join(dir, "none.pem"), "no such file", own},
		"empty":       {write("empty.pem", ""), "holds no certificate", own},
		"a key":       {write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "holds no certificate", own},
		"garbage":     {write("bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "bad.pem", own},
	} {
		if _, err := certificate(test.path, test.key); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAKeyFileIsReadOrSaidToBeWrong(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"not PEM":   "hello",
		"not a key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		path := filepath.Join(dir, "key.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readKey(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := readKey(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

func TestPINsAreTwentyDigits(t *testing.T) {
	seen := make(map[string]bool)
	for range 100 {
		pin := randomPIN()
		if len(pin) != 20 || strings.Trim(pin, "0123456789") != "" || seen[pin] {
			t.Errorf("%q", pin)
		}
		seen[pin] = true
	}
}
