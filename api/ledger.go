package api

import (
	"net/http"
	"strconv"

	"github.com/gorilla/mux"

	"github.com/finterra/finpay/api/verifier"
)

// getCheckpoint serves the newest checkpoint. Another one is there at most a group of changes later, so what caches keep of
// it they keep for a second.
func (s *server) getCheckpoint(w http.ResponseWriter, r *http.Request) error {
	checkpoint, err := s.cfg.Log.Checkpoint(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "public, max-age=1")
	return writeText(w, checkpoint)
}

// getCosigned serves the newest checkpoint that witnesses have cosigned: the newest of all is mostly too young for that.
func (s *server) getCosigned(w http.ResponseWriter, r *http.Request) error {
	checkpoint, err := s.cfg.Log.Cosigned(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "public, max-age=1")
	return writeText(w, checkpoint)
}

// getVerifierKey serves the log's public key. Whoever checks the log compares it with the one that they were given.
func (s *server) getVerifierKey(w http.ResponseWriter, _ *http.Request) error {
	return writeText(w, []byte(s.cfg.Log.VerifierKey()+"\n"))
}

// getTile serves hashes and entries in the layout of C2SP tlog-tiles. A full tile never changes; a partial one is
// overtaken by a wider one.
func (s *server) getTile(w http.ResponseWriter, r *http.Request, caller Caller) error {
	tile, ok := ParseTile(mux.Vars(r)["tile"])
	if !ok {
		return ErrNotFound.With("Paths of tiles are those of C2SP tlog-tiles.")
	}
	if err := s.cfg.Audit.Tiles(r.Context(), caller.viewer()); err != nil {
		return err
	}
	body, err := s.cfg.Log.Tile(r.Context(), tile)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if tile.Width == TileWidth {
		w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	}
	_, _ = w.Write(body)
	return nil
}

// getConsistency serves the proof that a later log begins with all of an earlier one. It shows hashes only, so that
// everybody who has kept a checkpoint can ask.
func (s *server) getConsistency(w http.ResponseWriter, r *http.Request) error {
	query, err := readQuery(r, "from", "to")
	if err != nil {
		return err
	}
	from, ok := logIndex(query["from"])
	if !ok {
		return ErrInvalid.With("Send the size of the earlier log as from.")
	}
	to := int64(0)
	if text, given := query["to"]; given {
		if to, ok = logIndex(text); !ok || to < from || to == 0 {
			return ErrInvalid.With("Send the size of the later log as to, or leave it out for the newest.")
		}
	}
	proof, err := s.cfg.Log.Consistency(r.Context(), from, to)
	if err != nil {
		return err
	}
	return writeText(w, proof)
}

// logIndex reads an index or a size of the log: decimal digits without leading zeros.
func logIndex(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == text
}

func writeText(w http.ResponseWriter, text []byte) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(text)
	return nil
}

// getVerifier serves the page on which a bundle of the log is verified. It sends nothing anywhere.
func getVerifier(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", verifier.Policy)
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write(verifier.Page)
	return nil
}
