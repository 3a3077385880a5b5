package audit

import (
	"archive/zip"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	formatsnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/finterra/finpay/appliance/bundle"
	"github.com/finterra/finpay/appliance/store"
)

// export returns a bundle of a part of a log.
func export(t testing.TB, dir string, part bundle.Part) []byte {
	t.Helper()
	s, err := store.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var out bytes.Buffer
	if _, err := bundle.Export(t.Context(), &out, s, part); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func verifyBundle(t *testing.T, text []byte, terms Terms) Verdict {
	t.Helper()
	v, err := Verify(t.Context(), Bundle{bytes.NewReader(text)}, terms)
	if err != nil {
		t.Fatal(err)
	}
	coherent(t, v)
	return v
}

func TestABundleVerifies(t *testing.T) {
	dir, vkey := logbook(t)
	all := export(t, dir, bundle.Part{Key: vkey, Keys: []string{"r_3", "hsm:none"}})
	if again := export(t, dir, bundle.Part{Key: vkey, Keys: []string{"r_3", "hsm:none"}}); !bytes.Equal(all, again) {
		t.Error("the same log gives two bundles")
	}
	for name, c := range map[string]struct {
		part        bundle.Part
		first, size int64
		checkpoints int64
	}{
		"all":                      {bundle.Part{}, 0, size, 86},
		"up to a checkpoint":       {bundle.Part{To: 294}, 0, 294, 42},
		"up to between two":        {bundle.Part{To: 290}, 0, 294, 42},
		"from a tile on":           {bundle.Part{From: 256}, 256, size, 50},
		"from within a tile on":    {bundle.Part{From: 599}, 512, size, 13},
		"a part in the middle":     {bundle.Part{From: 300, To: 301}, 256, 301, 7},
		"more than there is":       {bundle.Part{To: 10_000}, 0, size, 86},
		"the first entry alone":    {bundle.Part{To: 1}, 0, 7, 1},
		"a tile and one, and more": {bundle.Part{From: 1, To: 257}, 0, 259, 37},
	} {
		c.part.Key = vkey
		v := verifyBundle(t, export(t, dir, c.part), Terms{Key: vkey})
		if !v.OK || v.First != c.first || v.Size != c.size || v.Entries != c.size-c.first || v.Checkpoints != c.checkpoints {
			t.Errorf("%s: %+v", name, v)
		}
	}
	direct := verify(t, dir, Terms{Key: vkey})
	if v := verifyBundle(t, export(t, dir, bundle.Part{Key: vkey}), Terms{Key: vkey}); !reflect.DeepEqual(v, direct) {
		t.Errorf("the bundle's verdict is %+v, the database's %+v", v, direct)
	}
}

func TestWhatCannotBeExportedIsSaid(t *testing.T) {
	dir, vkey := logbook(t)
	_, other := logbook(t)
	s, err := store.OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for name, part := range map[string]bundle.Part{
		"after the end": {Key: vkey, From: size}, "backwards": {Key: vkey, From: 20, To: 10}, "another key": {Key: other}, "a negative": {Key: vkey, From: -1},
	} {
		if _, err := bundle.Export(t.Context(), io.Discard, s, part); err == nil {
			t.Errorf("%s: exported", name)
		}
	}
}

func TestABundleIsNotPinnedByItsOwnKey(t *testing.T) {
	dir, vkey := logbook(t)
	_, other := logbook(t)
	text := export(t, dir, bundle.Part{Key: vkey})
	v := verifyBundle(t, text, Terms{})
	if v.OK || !v.Consistent || v.Pinned || v.Reason != NotPinned || v.Fingerprint != Fingerprint(vkey) || len(v.Fingerprint) != 64 {
		t.Errorf("%+v", v)
	}
	if v := verifyBundle(t, text, Terms{Key: other}); v.OK || v.Consistent || !v.Pinned || v.FirstBad != -1 {
		t.Errorf("another key: %+v", v)
	}
	renamed := "finpay.test/other/2026" + strings.TrimPrefix(vkey, origin)
	if v := verifyBundle(t, text, Terms{Key: renamed}); v.OK || v.Consistent || !strings.Contains(v.Reason, "of the log") {
		t.Errorf("another name: %+v", v)
	}
}

// small is a bundle with all kinds of files, of few bytes: one that begins with a tile, and a log of keys.
func small(t *testing.T) (text []byte, vkey string) {
	t.Helper()
	dir, vkey := written(t, 258, 129, "key.created")
	return export(t, dir, bundle.Part{Key: vkey, From: 256, Keys: []string{"r_3", "r_257"}}), vkey
}

func TestEveryByteOfABundleCounts(t *testing.T) {
	good, vkey := small(t)
	if v := verifyBundle(t, good, Terms{Key: vkey}); !v.OK || v.KeyEntries != 2 || v.First != 256 {
		t.Fatalf("%+v", v)
	}
	places := make(chan int)
	var checkers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		checkers.Go(func() {
			bad := bytes.Clone(good)
			for at := range places {
				bad[at] ^= 1 << (at % 8)
				if v, err := Verify(t.Context(), Bundle{bytes.NewReader(bad)}, Terms{Key: vkey}); err != nil || v.OK || v.Consistent || v.Reason == "" {
					t.Errorf("byte %d changed: %+v, %v", at, v, err)
				}
				bad[at] = good[at]
			}
		})
	}
	for at := range good {
		places <- at
	}
	close(places)
	checkers.Wait()
	for at := 0; at < len(good); at += 101 {
		if v := verifyBundle(t, good[:at], Terms{Key: vkey}); v.OK || v.Consistent {
			t.Errorf("cut off after %d: %+v", at, v)
		}
	}
}

// rebuilt makes the bundle anew, with sums and directory that fit, after edit has changed its files.
func rebuilt(t *testing.T, text []byte, edit func(name string, data []byte) []byte) []byte {
	t.Helper()
	in, err := zip.NewReader(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	a := bundle.NewArchive(&out)
	for _, f := range in.File {
		body, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		if data = edit(f.Name, data); data != nil {
			if err := a.Add(f.Name, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A forger repairs the sums.
func TestWhatIsForgedInABundleIsFoundAndNamed(t *testing.T) {
	dir, vkey := logbook(t)
	good := export(t, dir, bundle.Part{Key: vkey})
	odd := export(t, dir, bundle.Part{Key: vkey, Keys: []string{"r_3"}})
	part := export(t, dir, bundle.Part{Key: vkey, From: 256})
	flip := func(file string, at int) func(string, []byte) []byte {
		return func(name string, data []byte) []byte {
			if name == file {
				data[at] ^= 1
			}
			return data
		}
	}
	without := func(file string) func(string, []byte) []byte {
		return func(name string, data []byte) []byte {
			if name == file {
				return nil
			}
			return data
		}
	}
	for name, c := range map[string]struct {
		text   []byte
		edit   func(string, []byte) []byte
		entry  int64
		reason string
	}{
		"an entry":             {good, flip("tile/entries/000", 12), 0, "does not match its leaf"},
		"an entry's length":    {good, flip("tile/entries/000", 1), 0, "does not match its leaf"},
		"a leaf":               {good, flip("tile/0/001", 3*32+5), 259, "does not match its leaf"},
		"a checkpoint":         {good, flip("checkpoints/000", 30), -1, "the checkpoint after that of 0 entries"},
		"the last checkpoint":  {good, flip("checkpoint", 30), -1, "not the last of the checkpoints"},
		"the edge":             {part, flip("edge", 3), 256, "entries 256 to 258 are not those that were signed"},
		"no edge":              {part, without("edge"), -1, "stands where"},
		"no checkpoints":       {good, without("checkpoints/002"), 511, "under no checkpoint"},
		"no entries of a tile": {good, without("tile/entries/001"), -1, "stands where"},
		"an entry cut off": {good, func(name string, data []byte) []byte {
			if name == "tile/entries/002.p/88" {
				return data[:len(data)-1]
			}
			return data
		}, 599, "cannot be read"},
		"an entry left out": {good, func(name string, data []byte) []byte {
			if name == "tile/entries/000" {
				return data[2+int(data[0])<<8+int(data[1]):]
			}
			return data
		}, 0, "does not match its leaf"},
		"another origin": {good, func(name string, data []byte) []byte {
			if name == "bundle.json" {
				return bytes.Replace(data, []byte("node/2026"), []byte("edon/2026"), 1)
			}
			return data
		}, -1, "of the log"},
		"a key that is none": {odd, func(name string, data []byte) []byte { return data }, 3, "not about a key"},
	} {
		v := verifyBundle(t, rebuilt(t, c.text, c.edit), Terms{Key: vkey})
		if v.OK || v.Consistent || v.FirstBad != Index(c.entry) || !strings.Contains(v.Reason, c.reason) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// checkpointAt returns a stored checkpoint.
func checkpointAt(t *testing.T, dir string, at int64) []byte {
	t.Helper()
	return value(t, dir, "ledger_checkpoints", "note", fmt.Sprintf("size = %d", at))
}

func TestAKeptCheckpointExcludesARewrite(t *testing.T) {
	dir, vkey := logbook(t)
	part := export(t, dir, bundle.Part{Key: vkey, From: 256, To: 500})
	all := export(t, dir, bundle.Part{Key: vkey})
	for at, c := range map[int64]struct {
		text []byte
		want string
	}{
		7: {all, ""}, 294: {all, ""}, size: {all, ""}, 259: {part, ""}, 504: {part, ""},
		252: {part, "begin after them"}, 511: {part, "cut back"},
	} {
		v := verifyBundle(t, c.text, Terms{Key: vkey, Kept: checkpointAt(t, dir, at)})
		if v.OK != (c.want == "") || !strings.Contains(v.Reason, c.want) || v.OK && v.Kept != at {
			t.Errorf("%d entries kept: %+v", at, v)
		}
	}
	altered := checkpointAt(t, dir, 294)
	altered[30] ^= 1
	for name, kept := range map[string][]byte{"altered": altered, "empty": {}, "of another log": checkpointAt(t, first(logbook(t)), 294)} {
		if v := verifyBundle(t, all, Terms{Key: vkey, Kept: kept}); v.OK || v.Kept != 0 || !strings.Contains(v.Reason, "that was kept") {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func first(dir, _ string) string { return dir }

// The owner of the key can sign another log of the same name. It verifies, but not before what an auditor has kept.
func TestARewriteUnderTheSameKeyIsFoundByAKeptCheckpoint(t *testing.T) {
	key := newKey(t)
	one, vkey := signedBy(t, key, 30, 7, "test")
	other, _ := signedBy(t, key, 30, 7, "another")
	text := export(t, other, bundle.Part{Key: vkey})
	if v := verifyBundle(t, text, Terms{Key: vkey}); !v.OK || v.Kept != 0 || v.Witnessed {
		t.Fatalf("%+v", v)
	}
	for _, at := range []int64{7, 14, 30} {
		if v := verifyBundle(t, text, Terms{Key: vkey, Kept: checkpointAt(t, one, at)}); v.OK || !strings.Contains(v.Reason, "rewritten") {
			t.Errorf("%+v", v)
		}
	}
}

func TestCosignaturesOfWitnessesAreVerified(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	seed := base64.StdEncoding.EncodeToString(append([]byte{1}, private.Seed()...))
	plain, err := note.NewEd25519VerifierKey("witness.example", private.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	ed, err := formatsnote.NewSignerForCosignatureV1("PRIVATE+KEY+witness.example+00000000+" + seed)
	if err != nil {
		t.Fatal(err)
	}
	edKey, err := formatsnote.VKeyToCosignatureV1(plain)
	if err != nil {
		t.Fatal(err)
	}
	secret, mlKey, err := formatsnote.GenerateMLDSAKey("quantum.example")
	if err != nil {
		t.Fatal(err)
	}
	ml, err := formatsnote.NewSignerForCosignatureV1(secret)
	if err != nil {
		t.Fatal(err)
	}
	dir, vkey := logbook(t)
	verifier, err := formatsnote.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	cosign := func(at int64, signers ...note.Signer) {
		text, err := note.Open(checkpointAt(t, dir, at), note.VerifierList(verifier))
		if err != nil {
			t.Fatal(err)
		}
		both, err := note.Sign(text, signers...)
		if err != nil {
			t.Fatal(err)
		}
		put(t, dir, "ledger_checkpoints", "note", fmt.Sprintf("size = %d", at), both)
	}
	cosign(294, ed, ml)
	cosign(588, ed)
	text := export(t, dir, bundle.Part{Key: vkey})
	for name, c := range map[string]struct {
		witnesses []string
		cosigned  int64
	}{
		"Ed25519": {[]string{edKey}, 588}, "Ed25519, by its plain key": {[]string{plain}, 588}, "ML-DSA-44": {[]string{mlKey}, 294}, "both": {[]string{edKey, mlKey}, 294}, "none": {nil, 0},
	} {
		for _, v := range []Verdict{verifyBundle(t, text, Terms{Key: vkey, Witnesses: c.witnesses}), verify(t, dir, Terms{Key: vkey, Witnesses: c.witnesses})} {
			if !v.OK || v.Witnessed != (c.cosigned > 0) || v.Cosigned != c.cosigned {
				t.Errorf("%s: %+v", name, v)
			}
		}
	}
	_, absent, err := formatsnote.GenerateMLDSAKey("absent.example")
	if err != nil {
		t.Fatal(err)
	}
	if v := verifyBundle(t, text, Terms{Key: vkey, Witnesses: []string{edKey, absent}}); v.OK || v.Witnessed || !strings.Contains(v.Reason, "absent.example has cosigned none") {
		t.Errorf("%+v", v)
	}
	damaged := value(t, dir, "ledger_checkpoints", "note", "size = 588")
	damaged[len(damaged)-20] ^= 1
	put(t, dir, "ledger_checkpoints", "note", "size = 588", damaged)
	if v := verify(t, dir, Terms{Key: vkey, Witnesses: []string{edKey}}); v.OK {
		t.Errorf("a false cosignature: %+v", v)
	}
	for _, bad := range []string{"", "x", strings.Replace(edKey, "witness", "witless", 1), vkey} {
		if _, err := Verify(t.Context(), Bundle{bytes.NewReader(text)}, Terms{Key: vkey, Witnesses: []string{bad}}); err == nil {
			t.Errorf("%q is taken as the key of a witness", bad)
		}
	}
}

// Sums and directory fit, so that the fuzzer reaches what stands behind them; package bundle fuzzes the ZIP.
func FuzzVerify(f *testing.F) {
	dir, vkey := written(f, 8, 4, "key.created")
	text := export(f, dir, bundle.Part{Key: vkey})
	in, err := zip.NewReader(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		f.Fatal(err)
	}
	var seed [4][]byte
	for i, name := range []string{"bundle.json", "checkpoints/000", "tile/0/000.p/8", "tile/entries/000.p/8"} {
		if seed[i], err = fs.ReadFile(in, name); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(seed[0], seed[1], seed[2], seed[3])
	f.Fuzz(func(t *testing.T, manifest, checkpoints, leaves, entries []byte) {
		var out bytes.Buffer
		a := bundle.NewArchive(&out)
		for _, file := range []struct {
			name string
			data []byte
		}{
			{"README.txt", nil}, {"bundle.json", manifest}, {"policy.txt", nil}, {"verify.html", nil}, {"checkpoints/000", checkpoints},
			{"tile/0/000.p/8", leaves}, {"tile/entries/000.p/8", entries}, {"checkpoint", nil},
		} {
			if err := a.Add(file.name, file.data); err != nil {
				t.Skip(err) // larger than a file of a bundle can be
			}
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		v := verifyBundle(t, out.Bytes(), Terms{})
		if v.Consistent {
			t.Errorf("consistent, with an empty last checkpoint: %+v", v)
		}
	})
}
