package checkout

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
)

//go:embed checkout.css
var styleSheet []byte

// script is built by `make web` from the sources in script/; CI builds it again and compares.
//
//go:embed checkout.js
var script []byte

// File is one that pages load: a script or a style sheet.
type File struct {
	Name       string // carries the file's hash, so that browsers may keep it for ever
	MediaType  string
	Body       []byte
	Compressed []byte // Body by gzip; there is nothing secret in it that a length could tell (BREACH)
	Integrity  string // as in the attribute of this name (Subresource Integrity): "sha384-…"
}

var (
	styleFile  = newFile("checkout", ".css", "text/css; charset=utf-8", styleSheet)
	scriptFile = newFile("checkout", ".js", "text/javascript; charset=utf-8", script)
)

func newFile(name, extension, mediaType string, body []byte) File {
	short, whole := sha256.Sum256(body), sha512.Sum384(body)
	var compressed bytes.Buffer
	w, _ := gzip.NewWriterLevel(&compressed, gzip.BestCompression) // the level exists, and memory takes every write
	_, _ = w.Write(body)
	_ = w.Close()
	return File{
		Name: name + "-" + hex.EncodeToString(short[:6]) + extension, MediaType: mediaType, Body: body, Compressed: compressed.Bytes(),
		Integrity: "sha384-" + base64.StdEncoding.EncodeToString(whole[:]),
	}
}

// Path is where the file is served.
func (f File) Path() string { return "/assets/" + f.Name }

// Asset returns a file of the pages.
func Asset(name string) (File, bool) {
	for _, f := range []File{styleFile, scriptFile} {
		if f.Name == name {
			return f, true
		}
	}
	return File{}, false
}
