// Package verifier holds the page on which a person verifies a bundle of the log in a browser.
//
// The page is one file without anything from elsewhere: it works from a disk, sends nothing, and keeps nothing. What it
// checks, and what it says, is what `finpay verify` does; docs/ledger-bundle.md is the format.
package verifier

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
)

// Page is the page, in HTML.
//
//go:embed verify.html
var Page []byte

// Policy is the page's Content-Security-Policy: its own script and style sheet, named by their hashes, and nothing else.
var Policy = "default-src 'none'; script-src " + source("script") + "; style-src " + source("style") +
	"; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"

// Core is the part of the page's script that checks hashes and signatures, for pages that check single entries.
var Core = func() []byte {
	_, script, _ := bytes.Cut(Page, []byte("<script>"))
	core, _, _ := bytes.Cut(script, []byte("// ---- the walk through a bundle"))
	return core
}()

// source names what stands in the page's one element of a kind.
func source(element string) string {
	_, after, _ := bytes.Cut(Page, []byte("<"+element+">"))
	text, _, _ := bytes.Cut(after, []byte("</"+element+">"))
	sum := sha256.Sum256(text)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
