package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/transparency-dev/formats/proof"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/bundle"
)

// Bundle is an exported log, read as a stream.
type Bundle struct{ Reader io.Reader }

// chapters reads a bundle in one pass.
type chapters struct {
	*walk
	files    *bundle.Reader
	manifest bundle.Manifest
	last     []byte // checkpoint
}

func (b Bundle) read(ctx context.Context, w *walk) error {
	c := &chapters{walk: w, files: bundle.NewReader(b.Reader)}
	if err := c.front(); err != nil {
		return err
	}
	for at := c.manifest.From; at < c.manifest.Size; at += api.TileWidth {
		if err := ctx.Err(); err != nil {
			return err
		}
		tile := api.Tile{Index: at / api.TileWidth, Width: int(min(api.TileWidth, c.manifest.Size-at))}
		if err := c.tile(tile); err != nil {
			return err
		}
	}
	if err := c.finish(); err != nil {
		return err
	}
	for _, index := range c.manifest.Keys {
		if err := c.keyEntry(index); err != nil {
			return err
		}
	}
	checkpoint, err := c.files.Next(bundle.CheckpointName)
	if err != nil {
		return err
	}
	if string(checkpoint) != string(c.last) {
		return wrong(-1, "the file %q is not the last of the checkpoints", bundle.CheckpointName)
	}
	return c.files.Close()
}

// front reads what stands before the entries. What is for people is passed over.
func (c *chapters) front() error {
	if _, err := c.files.Next(bundle.ReadmeName); err != nil {
		return err
	}
	text, err := c.files.Next(bundle.ManifestName)
	if err != nil {
		return err
	}
	if c.manifest, err = bundle.ParseManifest(text); err != nil {
		return err
	}
	for _, name := range []string{bundle.PolicyName, bundle.PageName} {
		if _, err := c.files.Next(name); err != nil {
			return err
		}
	}
	before, err := c.before()
	if err != nil {
		return err
	}
	if c.pinned() && c.manifest.Origin != c.verifier.Name() {
		return wrong(-1, "this is of the log %q, and the key of %q", c.manifest.Origin, c.verifier.Name())
	}
	if err := c.begin(c.manifest.Key, c.manifest.From, before); err != nil {
		return err
	}
	if c.manifest.Origin != c.verifier.Name() {
		return wrong(-1, "this is of the log %q, and its key of %q", c.manifest.Origin, c.verifier.Name())
	}
	return nil
}

// before reads the roots of what was left out. The first checkpoint that is met proves them.
func (c *chapters) before() (edge, error) {
	if c.manifest.From == 0 {
		return nil, nil
	}
	text, err := c.files.Next(bundle.EdgeName)
	if err != nil {
		return nil, err
	}
	var roots []digest
	for ; len(text) >= len(digest{}); text = text[len(digest{}):] {
		roots = append(roots, digest(text[:len(digest{})]))
	}
	before := edgeOf(c.manifest.From, roots)
	if before == nil || len(text) > 0 {
		return nil, wrong(-1, "the roots of the entries before %d are not as many as there must be", c.manifest.From)
	}
	return before, nil
}

// tile reads the entries of a tile, with the checkpoints of the sizes that end in it.
func (c *chapters) tile(t api.Tile) error {
	name, err := c.files.Peek()
	if err != nil {
		return err
	}
	if name == bundle.CheckpointsName(t.Index) {
		if err := c.signedIn(t, name); err != nil {
			return err
		}
	}
	hashes, err := c.files.Next(bundle.TileName(t))
	if err != nil {
		return err
	}
	if len(hashes) != t.Width*len(digest{}) {
		return wrong(-1, "%q has %d bytes; %d hashes have %d", bundle.TileName(t), len(hashes), t.Width, t.Width*len(digest{}))
	}
	leaves := append([]byte(nil), hashes...)
	t.Level = api.EntriesLevel
	entries, err := c.files.Next(bundle.TileName(t))
	if err != nil {
		return err
	}
	return takeTile(c.walk, entries, leaves)
}

// takeTile adds the entries of a tile, each of which has its hash among leaves.
func takeTile(w *walk, entries, leaves []byte) error {
	end := w.size + int64(len(leaves)/len(digest{}))
	err := bundle.Pieces(entries, func(entry []byte) error {
		if w.size == end {
			return wrong(-1, "there are more entries before %d than there can be", end)
		}
		_, err := w.take(entry, leaves[:len(digest{})])
		leaves = leaves[len(digest{}):]
		return err
	})
	if errors.Is(err, bundle.ErrMalformed) {
		return wrong(w.size, "the entry cannot be read: %v", err)
	}
	if err == nil && w.size < end {
		err = wrong(w.size, "the entry is missing")
	}
	return err
}

func (c *chapters) signedIn(t api.Tile, name string) error {
	text, err := c.files.Next(name)
	if err != nil {
		return err
	}
	end := t.Index*api.TileWidth + int64(t.Width)
	return bundle.Pieces(text, func(checkpoint []byte) error {
		size, err := c.signed(checkpoint)
		if err != nil {
			return err
		}
		if size > end {
			return wrong(-1, "a checkpoint of %d entries stands before entries up to %d", size, end)
		}
		c.last = append(c.last[:0], checkpoint...)
		return nil
	})
}

// keyEntry checks that an entry about a key is in the log.
func (c *chapters) keyEntry(index int64) error {
	entry, err := c.files.Next(bundle.KeyEntryName(index))
	if err != nil {
		return err
	}
	var fields struct {
		Type     string `json:"type"`
		Sequence int64  `json:"seq"`
	}
	if err := json.Unmarshal(entry, &fields); err != nil || !strings.HasPrefix(fields.Type, "key.") || fields.Sequence != index {
		return wrong(index, "the entry is not about a key, or not the one it is listed as")
	}
	leaf := leafHash(entry, &c.room)
	text, err := c.files.Next(bundle.KeyProofName(index))
	if err != nil {
		return err
	}
	if err := c.included(leaf, index, text); err != nil {
		return wrong(index, "the entry about a key: %v", err)
	}
	c.keyEntries++
	return nil
}

// included checks a proof under the last checkpoint.
func (c *chapters) included(leaf digest, index int64, text []byte) error {
	var p proof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		return err
	}
	if p.Index != uint64(index) || string(p.Checkpoint) != string(c.last) || string(p.Marshal()) != string(text) {
		return fmt.Errorf("its proof is about another entry or another checkpoint, or was altered")
	}
	root, ok := rootFrom(leaf, index, c.size, p.Hashes)
	if !ok || root != c.edge.root() {
		return errors.New("its proof does not lead to the log's root")
	}
	return nil
}
