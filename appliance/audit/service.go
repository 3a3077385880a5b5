package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/finterra/finpay/api"
)

// Service is an appliance that serves its log (C2SP tlog-tiles). Of its checkpoints it shows the newest, and the newest that is
// cosigned.
type Service struct {
	URL    string       // of the appliance
	Client *http.Client // bounds each request
	Key    string       // API key with the scope audit
}

// Bounds of what a service may send, and how often and how long it may ask to wait.
const (
	maxText  = 64 << 10
	maxTile  = api.TileWidth * (2 + 1<<16 - 1)
	maxTries = 60
	maxWait  = 30 * time.Second
)

func (s Service) read(ctx context.Context, w *walk) error {
	own := ""
	if !w.pinned() {
		text, err := s.get(ctx, "key", maxText)
		if err != nil {
			return err
		}
		own = strings.TrimSpace(string(text))
	}
	if err := w.begin(own, 0, nil); err != nil {
		return err
	}
	size, err := s.checkpoints(ctx, w)
	if err != nil {
		return err
	}
	for at := int64(0); at < size; at += api.TileWidth {
		tile := api.Tile{Index: at / api.TileWidth, Width: int(min(api.TileWidth, size-at))}
		if err := s.tile(ctx, w, tile); err != nil {
			return err
		}
	}
	return nil
}

// checkpoints takes the newest checkpoint, and before it the newest that witnesses have cosigned, if they are asked for.
func (s Service) checkpoints(ctx context.Context, w *walk) (size int64, err error) {
	cosigned := int64(0)
	if len(w.witnesses) > 0 {
		text, err := s.get(ctx, "checkpoint/cosigned", maxText)
		if err == nil {
			cosigned, err = w.signed(text)
		}
		if err != nil && !errors.Is(err, errNotThere) {
			return 0, err
		}
	}
	text, err := s.get(ctx, "checkpoint", maxText)
	if err != nil {
		return 0, err
	}
	newest, err := w.open(text, nil)
	if err == nil && newest.size == cosigned {
		return cosigned, nil
	}
	return w.signed(text)
}

// errNotThere means that the service has no such part of the log.
var errNotThere = errors.New("it is not there")

func (s Service) tile(ctx context.Context, w *walk, t api.Tile) error {
	leaves, err := s.get(ctx, "tile/"+t.Path(), maxTile)
	if err != nil {
		return err
	}
	if len(leaves) != t.Width*len(digest{}) {
		return wrong(-1, "the tile %s has %d bytes; %d hashes have %d", t.Path(), len(leaves), t.Width, t.Width*len(digest{}))
	}
	t.Level = api.EntriesLevel
	entries, err := s.get(ctx, "tile/"+t.Path(), maxTile)
	if err != nil {
		return err
	}
	return takeTile(w, entries, leaves)
}

// get asks for a part of the log, and again when the service says that it is too early.
func (s Service) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	for range maxTries {
		body, wait, err := s.ask(ctx, path, limit)
		if err != nil || wait == 0 {
			return body, err
		}
		timer := time.NewTimer(min(wait, maxWait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
	return nil, fmt.Errorf("GET /ledger/%s: the service has no time for it", path)
}

func (s Service) ask(ctx context.Context, path string, limit int64) (body []byte, wait time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(s.URL, "/")+"/ledger/"+path, nil)
	if err != nil {
		return nil, 0, err
	}
	if s.Key != "" && strings.HasPrefix(path, "tile/") {
		request.Header.Set("Authorization", "Bearer "+s.Key)
	}
	response, err := s.Client.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
		if err != nil {
			seconds = 1
		}
		return nil, time.Duration(max(seconds, 1)) * time.Second, nil
	case http.StatusNotFound:
		return nil, 0, fmt.Errorf("GET /ledger/%s: %w (HTTP 404)", path, errNotThere)
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, 0, errors.New("the entries are shown to API keys with the scope audit: name a file with one as --api-key-file")
	default:
		return nil, 0, fmt.Errorf("GET /ledger/%s: HTTP %d", path, response.StatusCode)
	}
	if body, err = io.ReadAll(io.LimitReader(response.Body, limit+1)); err != nil {
		return nil, 0, err
	}
	if int64(len(body)) > limit {
		return nil, 0, fmt.Errorf("GET /ledger/%s: more than %d bytes", path, limit)
	}
	return body, 0, nil
}
