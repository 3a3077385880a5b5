package api

import (
	"fmt"
	"strconv"
	"strings"
)

// TileWidth is how many hashes or entries a full tile has (C2SP tlog-tiles).
const TileWidth = 256

// EntriesLevel is the level of a tile that holds entries in place of hashes.
const EntriesLevel = -1

// maxTilePath is the length of the longest path of a tile that a log of 2^62 entries has, with room to spare.
const maxTilePath = 60

// Tile names a part of the log: hashes of one level, each the root of 256^Level entries, or entries.
type Tile struct {
	Level int   // 0 to 7, or [EntriesLevel]
	Index int64 // of the tile in its level
	Width int   // hashes or entries in it: 1 to [TileWidth]; less than that is a partial tile
}

// Path returns the tile's path below /tile/ in the manner of C2SP tlog-tiles, as in "0/x001/x234/067.p/8".
func (t Tile) Path() string {
	level := "entries"
	if t.Level != EntriesLevel {
		level = strconv.Itoa(t.Level)
	}
	path := level + "/" + TileIndex(t.Index)
	if t.Width < TileWidth {
		path += ".p/" + strconv.Itoa(t.Width)
	}
	return path
}

// TileIndex writes an index in groups of three digits, all but the last one marked with an x.
func TileIndex(n int64) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	return path
}

// ParseTile reads what [Tile.Path] writes, and nothing else: each tile has one path.
func ParseTile(path string) (t Tile, ok bool) {
	level, rest, _ := strings.Cut(path, "/")
	index, width, partial := strings.Cut(rest, ".p/")
	if len(path) > maxTilePath {
		return Tile{}, false
	}
	var err error
	if t.Level, t.Width = EntriesLevel, TileWidth; level != "entries" {
		if t.Level, err = strconv.Atoi(level); err != nil || t.Level < 0 || t.Level > 7 {
			return Tile{}, false
		}
	}
	if partial {
		if t.Width, err = strconv.Atoi(width); err != nil || t.Width < 1 || t.Width >= TileWidth {
			return Tile{}, false
		}
	}
	digits := strings.NewReplacer("x", "", "/", "").Replace(index)
	if t.Index, err = strconv.ParseInt(digits, 10, 64); err != nil || t.Index < 0 {
		return Tile{}, false
	}
	return t, t.Path() == path
}

// In reports whether a log of so many entries has the tile.
func (t Tile) In(size int64) bool {
	height := 8 * max(t.Level, 0)
	return t.Index <= size>>height/TileWidth && t.Index*TileWidth+int64(t.Width) <= size>>height
}
