package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/api/verifier"
)

const auditKey = "fpk_live_audits"

// VerifierKey, Tile and Consistency: the appliance's log has 300 entries.
func (a *appliance) VerifierKey() string { return "finpay.example/log+00000000+AAAA" }

func (a *appliance) Tile(_ context.Context, t Tile) ([]byte, error) {
	if !t.In(300) {
		return nil, ErrNotFound
	}
	return []byte(t.Path()), a.err
}

func (a *appliance) Consistency(_ context.Context, from, to int64) ([]byte, error) {
	if from > 300 || to > 300 {
		return nil, ErrNotFound
	}
	return []byte("old 1\n"), a.err
}

// audits makes a request with an auditor's key.
func audits(target string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Header.Set("Authorization", "Bearer "+auditKey)
	return r
}

func TestTiles(t *testing.T) {
	const forEver, notKept = "private, max-age=31536000, immutable", "no-store"
	for path, cache := range map[string]string{
		"0/000": forEver, "entries/000": forEver, "0/001.p/44": notKept, "entries/001.p/1": notKept, "1/000.p/1": notKept,
	} {
		w := newDesk(Limits{}).send(t, audits("/ledger/tile/"+path))
		if w.Code != http.StatusOK || w.Body.String() != path || w.Header().Get("Cache-Control") != cache || w.Header().Get("Content-Type") != "application/octet-stream" {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
	for _, path := range []string{
		"0/001", "0/001.p/45", "1/000", "2/000.p/1", "entries/002.p/1", // not there yet
		"0/0", "0/00", "0/0000", "00/000", "-1/000", "+1/000", "8/000", "x/000", "entries/x000/000", "0/x001", "0/000/", "0//000", "/000", "entries",
		"0/000.p/0", "0/000.p/256", "0/000.p/044", "0/000.p/", "0/000.p/1/", "0/000.p", "0/../0/000", "0/x001x000", "data/000",
		"7/x999/x999/x999/x999/x999/x999/999", "0/" + strings.Repeat("x999/", 30) + "999",
	} {
		w := newDesk(Limits{}).send(t, audits("/ledger/tile/"+path))
		wantProblem(t, w, ErrNotFound, "")
	}
	for _, target := range []string{"/ledger/tile/0/000", "/v1/audit/entries", "/v1/audit/entries/1", "/v1/audit/export?format=ocsf"} {
		wantProblem(t, newDesk(Limits{}).send(t, request(http.MethodGet, target, "")), ErrForbidden, "")
		wantProblem(t, newDesk(Limits{}).send(t, httptest.NewRequest(http.MethodGet, target, nil)), ErrUnauthorized, "")
	}
}

func TestATileHasOnePath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tile := Tile{rapid.IntRange(EntriesLevel, 7).Draw(t, "level"), rapid.Int64Range(0, 1<<54).Draw(t, "index"), rapid.IntRange(1, TileWidth).Draw(t, "width")}
		if got, ok := ParseTile(tile.Path()); !ok || got != tile {
			t.Fatalf("%+v is %s, which is %+v", tile, tile.Path(), got)
		}
	})
	if got := (Tile{0, 1234067, 256}).Path(); got != "0/x001/x234/067" { // the example of tlog-tiles
		t.Error(got)
	}
	for _, c := range []struct {
		tile Tile
		size int64
		want bool
	}{
		{Tile{0, 0, 256}, 255, false}, {Tile{0, 0, 256}, 256, true}, {Tile{-1, 1, 1}, 257, true}, {Tile{1, 0, 1}, 255, false},
		{Tile{1, 0, 1}, 256, true}, {Tile{7, 0, 1}, 1 << 56, true}, {Tile{7, 0, 1}, 1<<56 - 1, false}, {Tile{0, 1 << 62, 1}, 1 << 62, false},
	} {
		if got := c.tile.In(c.size); got != c.want {
			t.Errorf("%+v in %d: %v", c.tile, c.size, got)
		}
	}
}

func FuzzParseTile(f *testing.F) {
	for _, seed := range []string{"0/000", "entries/x001/x234/067", "7/255.p/1", "0/x000/001"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if tile, ok := ParseTile(path); ok && (tile.Path() != path || tile.Width < 1 || tile.Width > TileWidth || tile.Index < 0) {
			t.Errorf("%q is %+v", path, tile)
		}
	})
}

func TestProofs(t *testing.T) {
	for _, target := range []string{"/ledger/consistency?from=0", "/ledger/consistency?from=7&to=300"} {
		w := newDesk(Limits{}).send(t, audits(target))
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", target, w.Code, w.Header())
		}
	}
	for target, want := range map[string]*Problem{
		"/ledger/consistency": ErrInvalid, "/ledger/consistency?from=x": ErrInvalid, "/ledger/consistency?from=-1": ErrInvalid, "/ledger/consistency?from=2&to=1": ErrInvalid,
		"/ledger/consistency?from=0&to=0": ErrInvalid, "/ledger/consistency?from=1&to=01": ErrInvalid, "/ledger/consistency?from=301": ErrNotFound,
	} {
		wantProblem(t, newDesk(Limits{}).send(t, audits(target)), want, "")
	}
}

func TestTheLogsKeyIsForEveryone(t *testing.T) {
	w := newDesk(Limits{}).send(t, httptest.NewRequest(http.MethodGet, "/ledger/key", nil))
	if w.Code != http.StatusOK || w.Body.String() != "finpay.example/log+00000000+AAAA\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestTheVerifierPageMayDoNothingElse(t *testing.T) {
	w := newDesk(Limits{}).send(t, httptest.NewRequest(http.MethodGet, "/ledger/verify", nil))
	policy := w.Header().Get("Content-Security-Policy")
	if w.Code != http.StatusOK || policy != verifier.Policy || strings.Contains(policy, "unsafe") || strings.Count(policy, "'sha256-") != 2 ||
		!strings.HasPrefix(policy, "default-src 'none'") {
		t.Errorf("%d %s", w.Code, policy)
	}
	page := string(verifier.Page)
	for _, part := range []string{"http://", "src=", "href=", "style=", "import ", "fetch(", "innerHTML", "XMLHttpRequest"} {
		if strings.Contains(page, part) {
			t.Errorf("the page has %q", part)
		}
	}
	if strings.Count(page, "<script>") != 1 || strings.Count(page, "<style>") != 1 {
		t.Error("the page has not one script and one style sheet")
	}
}
