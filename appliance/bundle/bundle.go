// Package bundle is the file in which a log goes to whoever checks it: docs/ledger-bundle.md is its format.
//
// [Export] writes one from a stored log, beside the process that writes the log, without the HSM and without its
// configuration. [Reader] reads one. Both go through a log of any length in the memory of a few tiles; the writer remembers
// some 250 bytes of each tile for the directory at the end, 10 MB for ten million entries.
//
// # What is promised
//
// The same part of the same log gives the same bytes, and [Reader] takes no others: a bundle is a ZIP of stored files
// of which every field has one value that is allowed, so that nothing can be hidden between its files or behind them.
//
// # What is not
//
// Reading a bundle verifies nothing: that is package audit's.
package bundle

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/finterra/finpay/api"
)

// ErrMalformed means that a file is no bundle, or was changed.
var ErrMalformed = errors.New("the bundle is damaged")

// Format is the version of what this package reads and writes.
const Format = "finpay-ledger-bundle/1"

// Names of the files of a bundle, in their order, with those of [CheckpointsName], [TileName], [KeyEntryName] and [KeyProofName]
// between edge and checkpoint.
const (
	ReadmeName     = "README.txt"
	ManifestName   = "bundle.json"
	PolicyName     = "policy.txt"
	PageName       = "verify.html"
	EdgeName       = "edge" // where the bundle begins after the log's first entry
	CheckpointName = "checkpoint"
)

// CheckpointsName names the file with the checkpoints of sizes that end in a tile.
func CheckpointsName(tile int64) string { return "checkpoints/" + api.TileIndex(tile) }

// TileName names a tile of the log.
func TileName(t api.Tile) string { return "tile/" + t.Path() }

// KeyEntryName and KeyProofName name an entry about a key, and the proof that it is in the log.
func KeyEntryName(index int64) string { return fmt.Sprintf("keys/%d.json", index) }

// KeyProofName is told of at [KeyEntryName].
func KeyProofName(index int64) string { return fmt.Sprintf("keys/%d.tlog-proof", index) }

// Manifest says what a bundle holds: entries From to Size-1 of the log Origin.
type Manifest struct {
	Format string  `json:"format"`
	Origin string  `json:"origin"`
	From   int64   `json:"from"` // a multiple of [api.TileWidth]
	Size   int64   `json:"size"` // of the tree under the last checkpoint
	Key    string  `json:"key"`  // the log's verifier key: to know it by, not to trust
	Keys   []int64 `json:"keys"` // entries about keys of the HSM, wherever in the log they are
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
	if m.From < 0 || m.From%api.TileWidth != 0 || m.Size <= m.From || m.Keys == nil {
		return m, fmt.Errorf("%w: entries %d to %d are no part of a log", ErrMalformed, m.From, m.Size)
	}
	return m, nil
}

// Pieces calls use with each piece of a file that holds pieces after their lengths in two bytes, big-endian (C2SP tlog-tiles
// has entries so).
func Pieces(file []byte, use func(piece []byte) error) error {
	for len(file) > 0 {
		if len(file) < 2 {
			return fmt.Errorf("%w: a length is cut off", ErrMalformed)
		}
		n := int(binary.BigEndian.Uint16(file))
		if file = file[2:]; len(file) < n {
			return fmt.Errorf("%w: a piece of %d bytes is cut off after %d", ErrMalformed, n, len(file))
		}
		if err := use(file[:n:n]); err != nil {
			return err
		}
		file = file[n:]
	}
	return nil
}

// appendPiece is the reverse of [Pieces].
func appendPiece(file, piece []byte) ([]byte, error) {
	if len(piece) > 1<<16-1 {
		return nil, fmt.Errorf("bundle: %d bytes are more than two bytes can count", len(piece))
	}
	return append(binary.BigEndian.AppendUint16(file, uint16(len(piece))), piece...), nil
}
