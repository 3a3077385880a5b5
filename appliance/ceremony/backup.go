package ceremony

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/finterra/finpay/hsm"
)

// Backup is the file in which recoverable keys are kept, each wrapped under a key encryption key that exists only as
// its custodians' shares. docs/operations.md describes the format.
type Backup struct {
	Format   string      `json:"format"`  // "finpay key backup"
	Version  int         `json:"version"` // 1
	MadeAt   string      `json:"made_at"` // RFC 3339, UTC
	Node     string      `json:"node"`
	Log      string      `json:"log"`      // origin of the signed log that has the backup's entries
	Ceremony string      `json:"ceremony"` // digest of the plan
	KEK      BackupKEK   `json:"kek"`
	Keys     []BackupKey `json:"keys"`
}

// BackupKEK says what is needed to unwrap.
type BackupKEK struct {
	Kind       string   `json:"kind"`        // "aes-256"
	CheckValue string   `json:"check_value"` // first three bytes of CMAC over a block of zeros, hex
	Threshold  int      `json:"threshold"`   // m
	Custodians []string `json:"custodians"`  // n, in the order of their shares' numbers
}

// BackupKey is one wrapped key.
type BackupKey struct {
	Role       hsm.Role     `json:"role"`
	Version    uint32       `json:"version"`
	Kind       hsm.Kind     `json:"kind"`
	Class      hsm.Class    `json:"class"`
	State      string       `json:"state"` // active or retired, when the backup was made
	CheckValue string       `json:"check_value"`
	Wrapping   hsm.Wrapping `json:"wrapping"` // PKCS#11 mechanism
	Wrapped    string       `json:"wrapped"`  // hex
}

// Key names the key.
func (k BackupKey) Key() hsm.Key { return hsm.Key{Role: k.Role, Version: k.Version} }

// Blob returns what is unwrapped.
func (k BackupKey) Blob() (hsm.Wrapped, error) {
	b, err := hex.DecodeString(k.Wrapped)
	return hsm.Wrapped{Wrapping: k.Wrapping, Bytes: b}, err
}

const (
	backupFormat  = "finpay key backup"
	backupVersion = 1
	maxBackup     = 1 << 20
)

// Encode returns the file's bytes and their digest.
func (b Backup) Encode() (text []byte, digest string, err error) {
	b.Format, b.Version = backupFormat, backupVersion
	if text, err = json.MarshalIndent(b, "", "  "); err != nil {
		return nil, "", err
	}
	text = append(text, '\n')
	return text, backupDigest(text), nil
}

// backupDigest is the first 16 bytes of SHA-256, in hex: every share carries it, and a custodian may have to type it.
func backupDigest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// WriteBackup writes the file's bytes. A file that is there is never overwritten.
func WriteBackup(path string, text []byte) error {
	if err := writeNew(path, text); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// ReadBackup reads a backup's file and returns its digest. That it is the one that was made is for the shares to say.
func ReadBackup(path string) (Backup, string, error) {
	file, err := os.Open(path)
	if err != nil {
		return Backup{}, "", fmt.Errorf("backup: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxBackup+1))
	if err != nil {
		return Backup{}, "", fmt.Errorf("backup %s: %w", path, err)
	}
	b, err := ParseBackup(text)
	if err != nil {
		return Backup{}, "", fmt.Errorf("backup %s: %w", path, err)
	}
	return b, backupDigest(text), nil
}

// ParseBackup reads a backup strictly.
func ParseBackup(text []byte) (Backup, error) {
	if len(text) > maxBackup {
		return Backup{}, errors.New("longer than any backup")
	}
	var b Backup
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&b); err != nil {
		return Backup{}, fmt.Errorf("it is no backup: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Backup{}, errors.New("something follows the backup")
	}
	switch {
	case b.Format != backupFormat:
		return Backup{}, fmt.Errorf("its format is not %q", backupFormat)
	case b.Version != backupVersion:
		return Backup{}, fmt.Errorf("its version is %d; this program reads version %d", b.Version, backupVersion)
	case b.KEK.Kind != "aes-256" || b.KEK.Threshold < 2 || b.KEK.Threshold > len(b.KEK.Custodians) || len(b.KEK.Custodians) > maxCustodians:
		return Backup{}, errors.New("it does not say how many of which custodians restore it")
	case len(b.Keys) == 0:
		return Backup{}, errors.New("it holds no key")
	}
	for _, k := range b.Keys {
		if blob, err := k.Blob(); err != nil || len(blob.Bytes) != KEKSize+8 || k.Version == 0 {
			return Backup{}, fmt.Errorf("its key %s is not whole", k.Key().Label())
		}
	}
	return b, nil
}

// Belongs reports whether a share is of this backup, and of which custodian it should be.
func (b Backup) Belongs(s Share, digest, custodian string) error {
	switch {
	case s.Custodian != custodian:
		return fmt.Errorf("the share at the place of %s is that of %s", custodian, s.Custodian)
	case s.Backup != digest:
		return fmt.Errorf("the share of %s is of another backup, or the backup was altered: it says %s, the backup is %s", custodian, s.Backup, digest)
	case s.Threshold != b.KEK.Threshold || s.Of != len(b.KEK.Custodians) || s.CheckValue != b.KEK.CheckValue || b.KEK.Custodians[s.Number-1] != custodian:
		return fmt.Errorf("the share of %s does not agree with the backup", custodian)
	}
	return nil
}
