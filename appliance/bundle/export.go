package bundle

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/verifier"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// Part is what of a log is exported.
type Part struct {
	Log  int64    // number of the log; 0 for the first one
	Key  string   // the log's verifier key; its name is the log's
	From int64    // first entry; the bundle begins with its tile
	To   int64    // entries before this one; the bundle ends with the checkpoint that covers them. 0: all
	Keys []string // resources of entries about keys, which are taken from the whole log

	Witnesses string // lines of the policy that name them and their quorum; empty where none is configured
}

//go:embed readme.txt
var readme string

// exporter writes one bundle.
type exporter struct {
	read     store.Queries
	out      *Archive
	manifest Manifest
	births   []store.LedgerEntry
	last     []byte // checkpoint

	witnesses string
}

// Export writes a part of a stored log. Entries that are committed meanwhile are not in it.
func Export(ctx context.Context, w io.Writer, s *store.Store, part Part) (Manifest, error) {
	e := &exporter{read: s.Read(ctx).InLog(part.Log), out: NewArchive(w), witnesses: part.Witnesses}
	if e.witnesses == "" {
		e.witnesses = "# No witness is configured: nothing outside the appliance has signed these checkpoints.\nquorum none\n"
	}
	if err := e.plan(part); err != nil {
		return e.manifest, err
	}
	for _, step := range []func() error{e.front, e.entries, e.keys} {
		if err := step(); err != nil {
			return e.manifest, err
		}
	}
	if err := e.out.Add(CheckpointName, e.last); err != nil {
		return e.manifest, err
	}
	return e.manifest, e.out.Close()
}

// plan finds out what the bundle will hold.
func (e *exporter) plan(part Part) error {
	origin, _, _ := strings.Cut(part.Key, "+")
	size, _, err := e.read.LedgerCheckpoint()
	if errors.Is(err, store.ErrNotFound) {
		return errors.New("the log has no entry yet")
	}
	if err != nil {
		return err
	}
	to := part.To
	if to <= 0 || to > size {
		to = size
	}
	if part.From >= to || part.From < 0 {
		return fmt.Errorf("the log has no entries from %d to %d: it has %d", part.From, to, size)
	}
	covering, err := e.read.LedgerCheckpoints(to-1, 1)
	if err != nil {
		return err
	}
	if len(covering) == 0 {
		return fmt.Errorf("%w: no checkpoint covers entry %d", ledger.ErrDamaged, to-1)
	}
	e.last = covering[0].Note
	if _, err := ledger.OpenCheckpoint(e.last, origin, part.Key); err != nil {
		return fmt.Errorf("the log is not signed under this key: %w", err)
	}
	e.manifest = Manifest{Format: Format, Origin: origin, From: part.From - part.From%api.TileWidth, Size: covering[0].Size, Key: part.Key}
	return e.findBirths(part.Keys)
}

// findBirths finds the entries about keys, in the log's order.
func (e *exporter) findBirths(resources []string) error {
	e.manifest.Keys = []int64{}
	for _, resource := range resources {
		entries, err := e.read.LedgerEntriesOf(resource)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if entry.Log == e.read.Log() && entry.Index < e.manifest.Size {
				e.births = append(e.births, entry)
			}
		}
	}
	slices.SortFunc(e.births, func(a, b store.LedgerEntry) int { return int(a.Index - b.Index) })
	for _, entry := range e.births {
		e.manifest.Keys = append(e.manifest.Keys, entry.Index)
	}
	return nil
}

// front writes what people read, and the tree's edge where the bundle does not begin with the log.
func (e *exporter) front() error {
	policy := "log " + e.manifest.Key + "\n" + e.witnesses
	for _, file := range []struct {
		name string
		data []byte
	}{
		{ReadmeName, []byte(e.readme())},
		{ManifestName, MarshalManifest(e.manifest)},
		{PolicyName, []byte(policy)},
		{PageName, verifier.Page},
	} {
		if err := e.out.Add(file.name, file.data); err != nil {
			return err
		}
	}
	if e.manifest.From == 0 {
		return nil
	}
	roots, err := ledger.Edge(e.read, e.manifest.From)
	if err != nil {
		return err
	}
	var edge []byte
	for _, root := range roots {
		edge = append(edge, root[:]...)
	}
	return e.out.Add(EdgeName, edge)
}

func (e *exporter) readme() string {
	return strings.NewReplacer("{origin}", e.manifest.Origin, "{first}", fmt.Sprint(e.manifest.From), "{last}", fmt.Sprint(e.manifest.Size-1)).Replace(readme)
}

// entries writes tile after tile, each after the checkpoints of the sizes that end in it.
func (e *exporter) entries() error {
	for at := e.manifest.From; at < e.manifest.Size; at += api.TileWidth {
		tile := api.Tile{Level: 0, Index: at / api.TileWidth, Width: int(min(api.TileWidth, e.manifest.Size-at))}
		if err := e.checkpoints(tile); err != nil {
			return err
		}
		hashes, err := ledger.HashTile(e.read, 0, at, tile.Width)
		if err != nil {
			return err
		}
		if err := e.out.Add(TileName(tile), hashes); err != nil {
			return err
		}
		tile.Level = api.EntriesLevel
		entries, err := ledger.EntryTile(e.read, at, tile.Width)
		if err != nil {
			return err
		}
		if err := e.out.Add(TileName(tile), entries); err != nil {
			return err
		}
	}
	return nil
}

func (e *exporter) checkpoints(tile api.Tile) error {
	before := tile.Index * api.TileWidth
	list, err := e.read.LedgerCheckpoints(before, api.TileWidth)
	if err != nil {
		return err
	}
	var file []byte
	for _, c := range list {
		if c.Size > before+int64(tile.Width) {
			break
		}
		if file, err = appendPiece(file, c.Note); err != nil {
			return err
		}
	}
	if file == nil {
		return nil
	}
	return e.out.Add(CheckpointsName(tile.Index), file)
}

func (e *exporter) keys() error {
	for _, entry := range e.births {
		proof, err := ledger.Prove(e.read, entry.Index, e.manifest.Size, e.last)
		if err != nil {
			return err
		}
		if err := e.out.Add(KeyEntryName(entry.Index), entry.Entry); err != nil {
			return err
		}
		if err := e.out.Add(KeyProofName(entry.Index), proof); err != nil {
			return err
		}
	}
	return nil
}
