// Package backup is the file in which a copy of the database leaves the appliance: docs/operations.md is its format.
//
// A backup is a tar of two files: a manifest in JSON, and the database. [Write] makes one of a copy that somebody else has
// taken; [Open] reads one as a stream.
//
// # What is promised
//
// What [Open] gives out as the database has the SHA-256 of the manifest, or its reader ends with an error. There is
// nothing in a backup but these two files.
//
// # What is not
//
// A manifest proves nothing: whoever changes the database changes its SHA-256 too. The database proves itself, by the signed
// log inside. A backup has no key and no card, but all else that the database has: the business of every merchant, names and
// addresses of customers.
package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"time"
)

// ErrMalformed means that a file is no backup, or was changed.
var ErrMalformed = errors.New("the backup is damaged")

// Format is the version of what this package reads and writes.
const Format = "finpay-backup/1"

// Names of the files of a backup, in their order.
const (
	ManifestName = "backup.json"
	DatabaseName = "finpay.db"
)

// maxManifest bounds a manifest, in bytes.
const maxManifest = 64 << 10

// Manifest says what a backup holds.
type Manifest struct {
	Format        string   `json:"format"`
	MadeAt        string   `json:"made_at"` // RFC 3339, UTC
	Node          string   `json:"node"`
	Version       string   `json:"version"`       // of the program
	Configuration string   `json:"configuration"` // digest of finpay.yaml, as entries have it
	Key           string   `json:"key"`           // verifier key of the open log: to know it by, not to trust
	Head          Head     `json:"head"`
	Database      Database `json:"database"`
}

// Head is the newest checkpoint in the database.
type Head struct {
	Origin     string `json:"origin"`
	Size       int64  `json:"size"`
	Checkpoint string `json:"checkpoint"` // signed note
}

// Database is the file.
type Database struct {
	SHA256 string `json:"sha256"` // in hex
	Bytes  int64  `json:"bytes"`
}

// MarshalManifest writes a manifest in its one form.
func MarshalManifest(m Manifest) []byte {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic(err) // strings and numbers
	}
	return append(text, '\n')
}

// ParseManifest reads what [MarshalManifest] writes, and nothing else.
func ParseManifest(text []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrMalformed, ManifestName, err)
	}
	if !bytes.Equal(MarshalManifest(m), text) {
		return m, fmt.Errorf("%w: %s is not in its one form", ErrMalformed, ManifestName)
	}
	if m.Format != Format {
		return m, fmt.Errorf("%w: its format is %q, and this program knows %q", ErrMalformed, m.Format, Format)
	}
	if sum, err := hex.DecodeString(m.Database.SHA256); err != nil || len(sum) != sha256.Size || m.Database.Bytes <= 0 || m.Head.Size < 0 {
		return m, fmt.Errorf("%w: %s describes no database", ErrMalformed, ManifestName)
	}
	return m, nil
}

// Write writes a backup of a database of m.Database.Bytes bytes.
func Write(w io.Writer, m Manifest, database io.Reader) error {
	made, err := time.Parse(time.RFC3339, m.MadeAt)
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	text := MarshalManifest(m)
	if err := out.WriteHeader(header(ManifestName, int64(len(text)), made)); err != nil {
		return err
	}
	if _, err := out.Write(text); err != nil {
		return err
	}
	if err := out.WriteHeader(header(DatabaseName, m.Database.Bytes, made)); err != nil {
		return err
	}
	if _, err := io.CopyN(out, database, m.Database.Bytes); err != nil {
		return err
	}
	return out.Close()
}

// header has no owner, and is as private as the file that it is in.
func header(name string, size int64, at time.Time) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: at, Format: tar.FormatPAX}
}

// Open reads a backup up to its database, which it returns to be read to its end.
func Open(r io.Reader) (Manifest, io.Reader, error) {
	in := tar.NewReader(r)
	size, err := next(in, ManifestName)
	if err != nil {
		return Manifest{}, nil, err
	}
	if size > maxManifest {
		return Manifest{}, nil, fmt.Errorf("%w: a manifest of %d bytes", ErrMalformed, size)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return Manifest{}, nil, malformed(err)
	}
	m, err := ParseManifest(text)
	if err != nil {
		return m, nil, err
	}
	if size, err = next(in, DatabaseName); err != nil {
		return m, nil, err
	}
	if size != m.Database.Bytes {
		return m, nil, fmt.Errorf("%w: the database has %d bytes, and should have %d", ErrMalformed, size, m.Database.Bytes)
	}
	return m, &database{in: in, want: m.Database.SHA256, sum: sha256.New()}, nil
}

func next(in *tar.Reader, name string) (size int64, err error) {
	h, err := in.Next()
	if err != nil {
		return 0, malformed(err)
	}
	if h.Name != name || h.Typeflag != tar.TypeReg {
		return 0, fmt.Errorf("%w: %q stands where %q should", ErrMalformed, h.Name, name)
	}
	return h.Size, nil
}

// malformed tells a file that is wrong from one that cannot be read.
func malformed(err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("read the backup: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}

// database is the reader of the second file. Its end is reached only where all of it is right, and nothing is behind it.
type database struct {
	in   *tar.Reader
	want string
	sum  hash.Hash
}

func (d *database) Read(p []byte) (int, error) {
	n, err := d.in.Read(p)
	d.sum.Write(p[:n])
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		return n, malformed(err)
	}
	if hex.EncodeToString(d.sum.Sum(nil)) != d.want {
		return n, fmt.Errorf("%w: the database has another SHA-256 than the manifest says", ErrMalformed)
	}
	if h, err := d.in.Next(); err == nil {
		return n, fmt.Errorf("%w: %q stands behind the database", ErrMalformed, h.Name)
	} else if !errors.Is(err, io.EOF) {
		return n, malformed(err)
	}
	return n, io.EOF
}
