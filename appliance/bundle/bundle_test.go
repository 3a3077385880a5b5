package bundle

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// archive makes a ZIP of files.
func archive(t testing.TB, files ...stored) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewArchive(&out)
	for _, f := range files {
		if err := w.Add(f.name, bytes.Repeat([]byte{'x'}, int(f.size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// readAll reads files of any names to the end.
func readAll(in io.Reader) (names []string, err error) {
	r := NewReader(in)
	for {
		name, err := r.Peek()
		if err != nil {
			return names, err
		}
		if name == "" {
			return names, r.Close()
		}
		if _, err := r.Next(name); err != nil {
			return names, err
		}
		names = append(names, name)
	}
}

func TestOtherProgramsReadTheArchive(t *testing.T) {
	var files []stored
	for i := range 70_000 { // more than a ZIP without ZIP64 can count
		files = append(files, stored{name: fmt.Sprintf("dir/%d", i), size: uint32(i % 3)})
	}
	for _, n := range []int{1, 3, 65_534, 65_535, len(files)} {
		text := archive(t, files[:n]...)
		other, err := zip.NewReader(bytes.NewReader(text), int64(len(text)))
		if err != nil || len(other.File) != n {
			t.Fatalf("%d files: %v", n, err)
		}
		for _, f := range other.File[:min(n, 3)] {
			in, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			if data, err := io.ReadAll(in); err != nil || strings.Trim(string(data), "x") != "" || f.Mode() != 0o644 {
				t.Errorf("%s: %q, %v, %v", f.Name, data, f.Mode(), err)
			}
			_ = in.Close()
		}
		if names, err := readAll(bytes.NewReader(text)); err != nil || len(names) != n {
			t.Errorf("%d of %d files: %v", len(names), n, err)
		}
	}
}

// sparse is a file that is empty up to its tail.
type sparse struct {
	start int64
	tail  []byte
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	empty := int(max(0, min(int64(len(p)), s.start-off)))
	if empty == len(p) {
		return empty, nil
	}
	n, err := bytes.NewReader(s.tail).ReadAt(p[empty:], off+int64(empty)-s.start)
	return empty + n, err
}

func TestAnArchiveMayBeLargerThanFourGigabytes(t *testing.T) {
	var out bytes.Buffer
	const start = 5 << 30
	w := NewArchive(&out)
	w.offset = start
	if err := errors.Join(w.Add("far", []byte("away")), w.Close()); err != nil {
		t.Fatal(err)
	}
	other, err := zip.NewReader(sparse{start, out.Bytes()}, start+int64(out.Len()))
	if err != nil || len(other.File) != 1 {
		t.Fatal(err)
	}
	in, err := other.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(in); err != nil || string(text) != "away" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestEveryByteOfAnArchiveCounts(t *testing.T) {
	good := archive(t, stored{name: "a", size: 10}, stored{name: "b/c", size: 0}, stored{name: "d", size: 3})
	if _, err := readAll(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	for at := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << bit
			if names, err := readAll(bytes.NewReader(bad)); err == nil {
				t.Errorf("bit %d of byte %d changed: %v", bit, at, names)
			}
		}
		if _, err := readAll(bytes.NewReader(good[:at])); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut off after %d: %v", at, err)
		}
	}
	if _, err := readAll(bytes.NewReader(append(bytes.Clone(good), 0))); !errors.Is(err, ErrMalformed) {
		t.Errorf("with a byte behind it: %v", err)
	}
}

// What other programs write, or take, and a bundle does not: every one of them could show two readers two things.
func TestTricksOfArchivesAreRefused(t *testing.T) {
	build := func(method uint16, flags uint16, comment string, names ...string) []byte {
		var out bytes.Buffer
		w := zip.NewWriter(&out)
		for _, name := range names {
			header := &zip.FileHeader{Name: name, Method: method, Flags: flags}
			f, err := w.CreateHeader(header)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = f.Write(bytes.Repeat([]byte("0"), 1000))
		}
		if err := errors.Join(w.SetComment(comment), w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	good := archive(t, stored{name: "a", size: 1})
	for name, text := range map[string][]byte{
		"compressed":      build(zip.Deflate, 0, "", "a"),
		"data descriptor": build(zip.Store, 8, "", "a"),
		"a comment":       build(zip.Store, 0, "hello", "a"),
		"two archives":    append(bytes.Clone(good), good...),
		"data before it":  append([]byte("#!/bin/sh\n"), good...),
		"nothing":         nil,
		"text":            []byte(strings.Repeat("hello ", 100)),
		"huge size":       func() []byte { b := bytes.Clone(good); copy(b[18:], "\xff\xff\xff\xff\xff\xff\xff\xff"); return b }(),
		"huge name":       func() []byte { b := bytes.Clone(good); copy(b[26:], "\xff\xff"); return b }(),
	} {
		if names, err := readAll(bytes.NewReader(text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", name, names, err)
		}
	}
	for _, want := range []string{"b", "../a", "", "A"} {
		if _, err := NewReader(bytes.NewReader(good)).Next(want); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q was asked for: %v", want, err)
		}
	}
}

func TestAManifestHasOneForm(t *testing.T) {
	good := Manifest{Format: Format, Origin: "o", From: 256, Size: 300, Key: "o+k", Keys: []int64{1, 2}}
	text := MarshalManifest(good)
	if got, err := ParseManifest(text); err != nil || got.Size != 300 {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"a space":          strings.Replace(string(text), "{", "{ ", 1),
		"another member":   strings.Replace(string(text), "{", `{"x": 1,`, 1),
		"twice":            strings.Replace(string(text), "{", "{\n  \"from\": 0,", 1),
		"another format":   strings.Replace(string(text), Format, "x", 1),
		"not at a tile":    strings.Replace(string(text), "256", "255", 1),
		"no entries":       strings.Replace(string(text), "300", "256", 1),
		"a negative size":  strings.Replace(string(text), "300", "-300", 1),
		"no list of keys":  string(MarshalManifest(Manifest{Format: Format, Size: 1})),
		"nothing":          "",
		"a second, behind": string(text) + string(text),
	} {
		if m, err := ParseManifest([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(archive(f, stored{name: "a", size: 10}, stored{name: "b", size: 0}))
	f.Add([]byte("PK\x03\x04"))
	f.Fuzz(func(t *testing.T, text []byte) {
		names, err := readAll(bytes.NewReader(text))
		if err != nil {
			return
		}
		if other, err := zip.NewReader(bytes.NewReader(text), int64(len(text))); err != nil || len(other.File) != len(names) {
			t.Errorf("taken here, with %d files, and elsewhere: %v", len(names), err)
		}
	})
}

func FuzzPieces(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var again []byte
		err := Pieces(text, func(piece []byte) (err error) {
			again, err = appendPiece(again, piece)
			return err
		})
		if err == nil && !bytes.Equal(again, text) {
			t.Errorf("%x is not what its pieces make: %x", text, again)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(MarshalManifest(Manifest{Format: Format, Size: 1, Keys: []int64{}}))
	f.Fuzz(func(t *testing.T, text []byte) {
		if m, err := ParseManifest(text); err == nil && !bytes.Equal(MarshalManifest(m), text) {
			t.Errorf("%+v has two forms", m)
		}
	})
}
