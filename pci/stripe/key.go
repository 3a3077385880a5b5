package stripe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Key is a secret or restricted key of an account. Printing it shows nothing of it.
type Key struct{ text string }

// Format implements [fmt.Formatter] for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "(secret key)") }

// MarshalText implements [encoding.TextMarshaler], which encoders use.
func (Key) MarshalText() ([]byte, error) { return []byte("(secret key)"), nil }

var keyForm = regexp.MustCompile(`^(sk|rk)_(live|test)_[A-Za-z0-9]{10,200}$`)

// ReadKey reads a key from a file that nobody but its owner may read, or from a credential of systemd's. In the sandbox it must be a
// test key, and a live one elsewhere: what a test key sells moves no money. The error shows nothing of the file.
func ReadKey(path string, sandbox bool) (Key, error) {
	file, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("stripe: the key: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return Key{}, fmt.Errorf("stripe: the key: %w", err)
	}
	open := os.FileMode(0o077)
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(path) == filepath.Clean(dir) {
		open = 0o037 // systemd lets the unit's user read by an access list, whose mask stands in the group's place
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&open != 0 {
		return Key{}, fmt.Errorf("stripe: the key's file %s must be a plain file that nobody but its owner may read (chmod 600)", path)
	}
	text := make([]byte, 512)
	n, err := file.Read(text)
	if err != nil {
		return Key{}, errors.New("stripe: the key's file cannot be read, or is empty")
	}
	key := strings.TrimSpace(string(text[:n]))
	clear(text)
	if !keyForm.MatchString(key) {
		return Key{}, errors.New("stripe: the key's file holds no secret or restricted key (sk_…, rk_…)")
	}
	if strings.Contains(key[:8], "_test_") != sandbox {
		return Key{}, errors.New("stripe: a sandbox connector wants a test key, and any other a live one")
	}
	return Key{key}, nil
}
