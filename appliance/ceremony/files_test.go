package ceremony

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/finterra/finpay/hsm"
)

func testShare(t *testing.T) Share {
	t.Helper()
	value := make([]byte, KEKSize)
	_, _ = rand.Read(value)
	return Share{Custodian: "key-custodian-a", Number: 1, Threshold: 2, Of: 3, CheckValue: "141c59",
		Backup: "e112c6b69dcb52f0a3fa4a309b361f7b", Value: value}
}

func TestAShareIsReadAsItWasWritten(t *testing.T) {
	want := testShare(t)
	path := filepath.Join(t.TempDir(), "a.share")
	if err := WriteShare(path, want); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	got, err := ReadShare(path, make([]byte, KEKSize))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Value, want.Value) {
		t.Error("another value")
	}
	got.Value, want.Value = nil, nil
	if got.Custodian != want.Custodian || got.Number != 1 || got.Threshold != 2 || got.Of != 3 || got.CheckValue != want.CheckValue || got.Backup != want.Backup {
		t.Errorf("%+v, want %+v", got, want)
	}
	if err := WriteShare(path, testShare(t)); err == nil {
		t.Error("a share was overwritten")
	}
}

func TestEveryAlteredByteOfAShareIsRefused(t *testing.T) {
	s := testShare(t)
	text := s.format(nil)
	for i := range text {
		for _, bit := range []byte{1, 0x20, 0x80} { // 0x20 changes the case of a letter
			altered := bytes.Clone(text)
			altered[i] ^= bit
			_, err := parseShare(altered, make([]byte, KEKSize))
			if err == nil {
				t.Fatalf("byte %d (%q): accepted", i, text[max(0, i-10):i+1])
			}
			if secret := hex.EncodeToString(s.Value[:2]); strings.Contains(err.Error(), secret) {
				t.Errorf("byte %d: the error tells of the value: %v", i, err)
			}
		}
	}
	for n := range text {
		if _, err := parseShare(text[:n], make([]byte, KEKSize)); err == nil {
			t.Fatalf("cut at %d: accepted", n)
		}
	}
	if _, err := parseShare(append(bytes.Clone(text), '\n'), make([]byte, KEKSize)); err == nil {
		t.Error("a line more: accepted")
	}
}

func TestATypingErrorIsFoundInItsLine(t *testing.T) {
	text := testShare(t).format(nil)
	at := bytes.Index(text, []byte("Value 3: ")) + len("Value 3: ")
	text[at] ^= 1 // another hexadecimal digit
	if _, err := parseShare(text, make([]byte, KEKSize)); err == nil || !strings.Contains(err.Error(), "line 3 of the value") {
		t.Errorf("%v", err)
	}
}

func testBackup(t *testing.T) ([]byte, string, Backup) {
	t.Helper()
	b := Backup{MadeAt: "2026-01-02T03:04:05Z", Node: "finpay-1", Log: "finpay.example/finpay-1/2026", Ceremony: strings.Repeat("0", 64),
		KEK: BackupKEK{Kind: "aes-256", CheckValue: "141c59", Threshold: 2, Custodians: []string{"key-custodian-a", "key-custodian-b", "key-custodian-c"}},
		Keys: []BackupKey{{Role: "tokenize", Version: 1, Kind: hsm.AESEncrypt, Class: hsm.Recoverable, State: "active", CheckValue: "ab7588",
			Wrapping: hsm.AESKeyWrap, Wrapped: strings.Repeat("a7", 40)}}}
	text, digest, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text, digest, b
}

// A backup is refused by its own form, or by the first share that is held against it.
func TestEveryAlteredByteOfABackupIsRefused(t *testing.T) {
	text, digest, _ := testBackup(t)
	share := testShare(t)
	share.Backup = digest
	accepted := func(text []byte) bool {
		path := filepath.Join(t.TempDir(), "backup.json")
		if err := WriteBackup(path, text); err != nil {
			t.Fatal(err)
		}
		b, digest, err := ReadBackup(path)
		return err == nil && b.Belongs(share, digest, "key-custodian-a") == nil
	}
	if !accepted(text) {
		t.Fatal("the backup itself is refused")
	}
	for i := range text {
		altered := bytes.Clone(text)
		altered[i] ^= 1
		if accepted(altered) {
			t.Errorf("byte %d (%q): accepted", i, text[max(0, i-10):i+1])
		}
	}
	if accepted(append(text, ' ')) || accepted(text[:len(text)-1]) {
		t.Error("accepted with another end")
	}
}

func TestSharesOfOthersAreRefused(t *testing.T) {
	_, digest, b := testBackup(t)
	for name, change := range map[string]func(*Share){
		"another custodian's":  func(s *Share) { s.Custodian = "key-custodian-b" },
		"of another backup":    func(s *Share) { s.Backup = strings.Repeat("0", 32) },
		"another number":       func(s *Share) { s.Number = 2 },
		"another threshold":    func(s *Share) { s.Threshold = 3 },
		"another key's":        func(s *Share) { s.CheckValue = "000000" },
		"of another number of": func(s *Share) { s.Of = 4 },
	} {
		s := testShare(t)
		s.Backup = digest
		if err := b.Belongs(s, digest, "key-custodian-a"); err != nil {
			t.Fatal(err)
		}
		change(&s)
		if err := b.Belongs(s, digest, "key-custodian-a"); err == nil {
			t.Errorf("a share %s: accepted", name)
		}
	}
}

func TestABackupSaysWhatItIs(t *testing.T) {
	text, _, _ := testBackup(t)
	for name, change := range map[string][2]string{
		"format":        {"finpay key backup", "finpay key backup 2"},
		"version":       {`"version": 1,`, `"version": 2,`},
		"unknown field": {`"node"`, `"nodes"`},
		"threshold":     {`"threshold": 2`, `"threshold": 4`},
		"blob":          {"a7a7", "a7"},
		"not hex":       {"a7a7", "zzzz"},
		"no role's key": {`"version": 1,` + "\n      ", `"version": 0,` + "\n      "},
	} {
		altered := bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(altered, text) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := ParseBackup(altered); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestLockedMemoryIsWiped(t *testing.T) {
	l, err := NewLocked(KEKSize)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Bytes()) != KEKSize || !bytes.Equal(l.Bytes(), make([]byte, KEKSize)) {
		t.Error("not so many zero bytes")
	}
	if err := l.Destroy(); err != nil || l.Bytes() != nil {
		t.Errorf("%v", err)
	}
	if err := l.Destroy(); err != nil {
		t.Errorf("twice: %v", err)
	}
	if err := (*Locked)(nil).Destroy(); err != nil {
		t.Errorf("nil: %v", err)
	}
}

func FuzzShare(f *testing.F) {
	s := Share{Custodian: "a", Number: 2, Threshold: 2, Of: 2, CheckValue: "00", Backup: "00", Value: make([]byte, KEKSize)}
	f.Add(s.format(nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		value := make([]byte, KEKSize)
		s, err := parseShare(text, value)
		if err == nil && !bytes.Equal(s.format(nil), text) {
			t.Errorf("%q is read as %q", text, s.format(nil))
		}
	})
}
