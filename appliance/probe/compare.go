package main

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/finterra/finpay/api/checkout"
)

// seen is a page as the browser received it.
type seen struct {
	Kind    string            // class of its body
	Headers map[string]string // of the document, by canonical name
	Loaded  []loaded          // scripts, style sheets and all else that was fetched
	Inline  int               // scripts and style sheets that stand in the page itself, event handlers
}

// loaded is what the page fetched.
type loaded struct {
	Type, Path string
	Integrity  string // of the bytes received
	Status     int64
}

// compare says in what a page differs from the inventory: what it loads, by hash, and the headers it came with.
func compare(s seen, inventory checkout.Inventory) (differences []string) {
	i := slices.IndexFunc(inventory.Pages, func(h checkout.Headers) bool { return string(h.Kind) == s.Kind })
	if i < 0 {
		return []string{fmt.Sprintf("the page is of no kind that is listed: %.40q", s.Kind)}
	}
	listed := inventory.Pages[i]
	hashes := make(map[string]string)
	for _, f := range inventory.Files {
		hashes[f.Path] = f.Integrity
	}
	wanted := slices.Clone(listed.Files)
	for _, l := range s.Loaded {
		at := slices.Index(wanted, l.Path)
		switch {
		case at < 0:
			differences = append(differences, fmt.Sprintf("%s %.80q is loaded and not listed", l.Type, l.Path))
			continue
		case hashes[l.Path] != l.Integrity || l.Status != 200:
			differences = append(differences, fmt.Sprintf("%s %s has changed: %s", l.Type, l.Path, l.Integrity))
		}
		wanted = slices.Delete(wanted, at, at+1)
	}
	for _, path := range wanted {
		differences = append(differences, path+" is listed and was not loaded")
	}
	if s.Inline > 0 {
		differences = append(differences, fmt.Sprintf("%d scripts, styles or handlers stand in the page itself; none is listed", s.Inline))
	}
	for _, name := range slices.Sorted(maps.Keys(listed.Headers)) {
		if got, ok := s.Headers[name]; !ok {
			differences = append(differences, "the header "+name+" is missing")
		} else if !fits(listed.Headers[name], got) {
			differences = append(differences, fmt.Sprintf("the header %s has changed: %.500q", name, got))
		}
	}
	return differences
}

// fits reports whether a header is as listed, with sites in the place of {shop} and {issuer}; a page without a way back has
// none.
func fits(listed, got string) bool {
	pattern := regexp.QuoteMeta(listed)
	for _, place := range []string{"{shop}", "{issuer}"} {
		pattern = strings.ReplaceAll(pattern, regexp.QuoteMeta(place), `https?://[A-Za-z0-9.:\[\]-]+`)
	}
	return regexp.MustCompile("^" + pattern + "$").MatchString(got)
}

// siteOf is what may be said of a page's address: its path is a secret.
func siteOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "?"
	}
	return u.Scheme + "://" + u.Host
}
