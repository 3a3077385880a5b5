package postings_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/finterra/finpay/appliance/store/postings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *postings.Index {
	t.Helper()
	x, err := postings.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// drawn are entries whose clock goes wrong now and then, and whose terms are few, so that they meet.
func drawn(t *rapid.T, begin time.Time) []postings.Entry {
	n := rapid.IntRange(1, 3*postings.BlockSize).Draw(t, "entries")
	step := rapid.IntRange(1, 7).Draw(t, "step")
	entries := make([]postings.Entry, n)
	for i := range entries {
		at := begin.Add(time.Duration(i) * time.Second)
		if i%97 == 0 {
			at = at.Add(-time.Duration(step) * time.Hour) // the clock was set back for a moment
		}
		entries[i] = postings.Entry{Index: int64(i), Leaf: fmt.Appendf(nil, "leaf %d", i), At: at, Terms: []postings.Term{
			{Field: "type", Value: fmt.Sprint(i % step), Common: true}, {Field: "resource", Value: fmt.Sprint(i / 3)}, {Field: "actor", Value: fmt.Sprint(i * step % 5), Common: true}}}
	}
	return entries
}

// A search through the index finds what a look at each entry finds, in either direction, page by page.
func TestASearchFindsWhatALookAtEachEntryFinds(t *testing.T) {
	dir := t.TempDir()
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		runs++
		own := filepath.Join(dir, fmt.Sprint(runs))
		if err := os.Mkdir(own, 0o700); err != nil {
			r.Fatal(err)
		}
		x, err := postings.Open(t.Context(), own)
		if err != nil {
			r.Fatal(err)
		}
		defer func() { _ = x.Close() }()
		begin := time.Unix(1_900_000_000, 0)
		entries := drawn(r, begin)
		for rest := entries; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(r, "batch")
			if err := x.Add(t.Context(), rest[:n]); err != nil {
				r.Fatal(err)
			}
			rest = rest[n:]
		}
		from, to := begin.Add(time.Duration(rapid.IntRange(-4000, 4000).Draw(r, "from"))*time.Second), begin.Add(time.Duration(rapid.IntRange(-4000, 4000).Draw(r, "to"))*time.Second)
		first, end, err := x.Span(t.Context(), from, to)
		if err != nil {
			r.Fatal(err)
		}
		for _, e := range entries {
			if !e.At.Before(from) && e.At.Before(to) && (e.Index < first || e.Index >= end) {
				r.Fatalf("entry %d is of the span, and not from %d to %d", e.Index, first, end)
			}
		}
		some := entries[rapid.IntRange(0, len(entries)-1).Draw(r, "some")]
		terms := some.Terms[:rapid.IntRange(1, 3).Draw(r, "terms")]
		scan := postings.Scan{First: first, End: end, NewestFirst: rapid.Bool().Draw(r, "newest first"), Look: rapid.Int64Range(1, 50).Draw(r, "look"), Limit: rapid.IntRange(1, 20).Draw(r, "limit")}
		var want, got []int64
		for _, e := range entries {
			if e.Index >= first && e.Index < end && !slices.ContainsFunc(terms, func(t postings.Term) bool { return !slices.Contains(e.Terms, t) }) {
				want = append(want, e.Index)
			}
		}
		if scan.NewestFirst {
			slices.Reverse(want)
		}
		for scan.First < scan.End {
			page, rest, err := x.Find(t.Context(), terms, scan)
			if err != nil || len(page) > scan.Limit || rest.End-rest.First >= scan.End-scan.First {
				r.Fatalf("%v of %+v, and then %+v: %v", page, scan, rest, err)
			}
			got, scan = append(got, page...), rest
		}
		if !slices.Equal(got, want) {
			r.Fatalf("%v, and not %v", got, want)
		}
	})
}

func TestAnIndexGoesOnWhereItWas(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir)
	entry := postings.Entry{Leaf: []byte("leaf"), At: time.Unix(1, 0), Terms: []postings.Term{{Field: "type", Value: "a"}}}
	for range 2 {
		if err := x.Add(t.Context(), []postings.Entry{entry}); err != nil {
			t.Fatal(err)
		}
		entry.Index++
	}
	if err := x.Add(t.Context(), nil); err != nil {
		t.Error(err)
	}
	for _, gap := range []int64{0, 1, 3} {
		entry.Index = gap
		if err := x.Add(t.Context(), []postings.Entry{entry}); err == nil {
			t.Errorf("entry %d was added after two", gap)
		}
	}
	again := open(t, dir)
	if size, leaf, err := again.Progress(t.Context()); err != nil || size != 2 || string(leaf) != "leaf" {
		t.Errorf("%d %s %v", size, leaf, err)
	}
	if err := again.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if size, _, err := again.Progress(t.Context()); err != nil || size != 0 {
		t.Errorf("%d %v", size, err)
	}
	if _, _, err := again.Find(t.Context(), nil, postings.Scan{}); err == nil {
		t.Error("a search without a term")
	}
}

func TestAnIndexThatCannotBeReadIsMadeAgain(t *testing.T) {
	for name, text := range map[string]string{"no database": "this is no database, and longer than a header of SQLite would be: " + fmt.Sprint(make([]int, 200)), "empty": ""} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, postings.FileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if size, _, err := open(t, dir).Progress(t.Context()); err != nil || size != 0 {
			t.Errorf("%s: %d %v", name, size, err)
		}
	}
	if _, err := postings.Open(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a directory that is not there was opened")
	}
}
