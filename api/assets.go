package api

import (
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/finterra/finpay/api/audit"
	"github.com/finterra/finpay/api/checkout"
)

// getAsset serves what pages load: files whose names carry their hashes. Those of the checkout page come compressed. Pages
// themselves never do: the length of a compressed page tells of the secrets in it (BREACH).
func getAsset(w http.ResponseWriter, r *http.Request) error {
	name := mux.Vars(r)["file"]
	if file, ok := checkout.Asset(name); ok {
		keep(w, file.MediaType)
		w.Header().Set("Vary", "Accept-Encoding")
		if !takesGzip(r.Header) {
			_, _ = w.Write(file.Body)
			return nil
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(file.Compressed)
		return nil
	}
	body, mediaType, ok := audit.Asset(name)
	if !ok {
		return ErrNotFound
	}
	keep(w, mediaType)
	_, _ = w.Write(body)
	return nil
}

// keep lets browsers keep a file for ever.
func keep(w http.ResponseWriter, mediaType string) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
}

// takesGzip reports whether a client names gzip and does not refuse it (RFC 9110 section 12.5.3).
func takesGzip(h http.Header) bool {
	for _, line := range h.Values("Accept-Encoding") {
		for wish := range strings.SplitSeq(line, ",") {
			coding, quality, _ := strings.Cut(wish, ";")
			if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
				return strings.Trim(strings.TrimPrefix(strings.TrimSpace(quality), "q="), "0.") != "" || strings.TrimSpace(quality) == ""
			}
		}
	}
	return false
}
