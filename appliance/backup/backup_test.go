package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func manifest(database []byte) Manifest {
	return Manifest{Format: Format, MadeAt: "2026-11-26T08:00:00Z", Node: "n", Version: "v", Configuration: "c", Key: "o+k",
		Head:     Head{Origin: "o", Size: 3, Checkpoint: "o\n3\n"},
		Database: Database{SHA256: fmt.Sprintf("%x", sha256.Sum256(database)), Bytes: int64(len(database))}}
}

func written(t testing.TB, database []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, manifest(database), bytes.NewReader(database)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func readAll(text []byte) (Manifest, []byte, error) {
	m, in, err := Open(bytes.NewReader(text))
	if err != nil {
		return m, nil, err
	}
	database, err := io.ReadAll(in)
	return m, database, err
}

func TestABackupIsReadAsItWasWritten(t *testing.T) {
	database := bytes.Repeat([]byte("SQLite format 3"), 1000)
	m, got, err := readAll(written(t, database))
	if err != nil || m != manifest(database) || !bytes.Equal(got, database) {
		t.Errorf("%+v, %d bytes, %v", m, len(got), err)
	}
	if err := Write(io.Discard, manifest(database), bytes.NewReader(database[1:])); err == nil {
		t.Error("a database that is shorter than it was said to be was written")
	}
}

// What the manifest says beside the database's SHA-256 is held against the database by whoever uses it.
func TestNoChangedByteGivesAnotherDatabase(t *testing.T) {
	database := []byte("a small database")
	good := written(t, database)
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		if m, got, err := readAll(bad); err == nil && !bytes.Equal(got, database) {
			t.Errorf("byte %d changed: %+v, %q", at, m, got)
		}
		if at%512 != 0 {
			continue
		}
		if _, _, err := readAll(good[:at]); err == nil && at < len(good)-1024 {
			t.Errorf("cut off after %d of %d, and not noticed", at, len(good))
		}
	}
}

func TestWhatIsNoBackupIsRefused(t *testing.T) {
	database := []byte("a small database")
	text := MarshalManifest(manifest(database))
	build := func(files ...string) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for i := 0; i < len(files); i += 2 {
			h := header(files[i], int64(len(files[i+1])), time.Unix(0, 0))
			if strings.HasPrefix(files[i], "link:") {
				h = &tar.Header{Typeflag: tar.TypeSymlink, Name: files[i][5:], Linkname: "/etc/passwd"}
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write([]byte(files[i+1]))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	if _, _, err := readAll(build(ManifestName, string(text), DatabaseName, string(database))); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"nothing":               nil,
		"text":                  []byte(strings.Repeat("hello ", 500)),
		"no manifest":           build(DatabaseName, string(database)),
		"no database":           build(ManifestName, string(text)),
		"the other order":       build(DatabaseName, string(database), ManifestName, string(text)),
		"something behind":      build(ManifestName, string(text), DatabaseName, string(database), "x", "y"),
		"a path":                build(ManifestName, string(text), "../"+DatabaseName, string(database)),
		"a link":                build(ManifestName, string(text), "link:"+DatabaseName, ""),
		"another database":      build(ManifestName, string(text), DatabaseName, "another database"),
		"a shorter database":    build(ManifestName, string(text), DatabaseName, "a small data"),
		"an enormous manifest":  build(ManifestName, strings.Repeat(" ", maxManifest+1)),
		"another format":        build(ManifestName, strings.Replace(string(text), Format, "x", 1), DatabaseName, string(database)),
		"a member more":         build(ManifestName, strings.Replace(string(text), "{", `{"x": 1,`, 1), DatabaseName, string(database)),
		"no hash":               build(ManifestName, strings.Replace(string(text), manifest(database).Database.SHA256, "ff", 1), DatabaseName, string(database)),
		"a database of nothing": build(ManifestName, string(MarshalManifest(manifest(nil))), DatabaseName, ""),
	} {
		if _, _, err := readAll(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(written(f, []byte("a small database")))
	f.Add([]byte("backup.json"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, got, err := readAll(text)
		if err == nil && (int64(len(got)) != m.Database.Bytes || fmt.Sprintf("%x", sha256.Sum256(got)) != strings.ToLower(m.Database.SHA256)) {
			t.Errorf("%+v, and %d bytes were read", m, len(got))
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(MarshalManifest(manifest([]byte("x"))))
	f.Fuzz(func(t *testing.T, text []byte) {
		if m, err := ParseManifest(text); err == nil && !bytes.Equal(MarshalManifest(m), text) {
			t.Errorf("%+v has two forms", m)
		}
	})
}
