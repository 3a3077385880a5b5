package checkout

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// packageLock pins what the script is built from, beside this project's own sources.
//
//go:embed script/package-lock.json
var packageLock []byte

// Inventory is what the payment pages load and the headers that they are sent with (PCI DSS 6.4.3, 11.6.1), built from what is
// embedded in the program.
type Inventory struct {
	Files []Item    `json:"files"`
	Pages []Headers `json:"pages"`
}

// Item is a script or a style sheet.
type Item struct {
	Kind      string    `json:"kind"` // "script" or "style"
	Path      string    `json:"path"`
	Purpose   string    `json:"purpose"`
	Integrity string    `json:"integrity"` // "sha384-…" of its bytes
	Bytes     int       `json:"bytes"`
	Parts     []Package `json:"parts"`
}

// Package is a part of a script or style sheet.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Origin  string `json:"origin"`
	Licence string `json:"licence"`
}

// Headers are those of one kind of page. "{shop}" and "{issuer}" stand for the sites of the payment's shop and issuer.
type Headers struct {
	Kind    Kind              `json:"kind"`
	Files   []string          `json:"files"` // paths of what it loads
	Headers map[string]string `json:"headers"`
}

// Kinds are all kinds of pages.
func Kinds() []Kind {
	return []Kind{Payable, Stored, Challenge, Method, Returned, Processing, Paid, Uncertain, Failed, Expired, Unknown, Busy, Unreadable, Broken, Script}
}

// ListInventory returns the inventory of this program.
func ListInventory() Inventory {
	own := Package{Name: "finpay", Origin: "api/checkout of this program", Licence: "Apache-2.0"}
	inventory := Inventory{Files: []Item{
		{"script", scriptFile.Path(), "Helps to type a card, checks it, seals it to the HSM's key; shows the issuer's pages in frames", scriptFile.Integrity, len(scriptFile.Body),
			append([]Package{own}, bundled()...)},
		{"style", styleFile.Path(), "The look of all pages", styleFile.Integrity, len(styleFile.Body), []Package{own}},
	}}
	for _, kind := range Kinds() {
		inventory.Pages = append(inventory.Pages, headersOf(kind))
	}
	return inventory
}

// headersOf returns the headers of a kind of page, and those that every answer of the appliance has.
func headersOf(kind Kind) Headers {
	p := Page{Kind: kind, Language: languages[0], ReturnSite: "{shop}", ACSSite: "{issuer}", MethodSite: "{issuer}"}
	sent := http.Header{}
	p.header(sent)
	found := Headers{Kind: kind, Files: []string{styleFile.Path()}, Headers: map[string]string{
		"X-Content-Type-Options": "nosniff", "Strict-Transport-Security": "max-age=31536000"}}
	if p.scripted() {
		found.Files = append(found.Files, scriptFile.Path())
	}
	for name := range sent {
		if name != "Content-Language" {
			found.Headers[name] = sent.Get(name)
		}
	}
	return found
}

// bundled are the packages that the script is built from, by the lock file; what only tests need is left out.
func bundled() []Package {
	var lock struct {
		Packages map[string]struct {
			Version, License string
			Dev              bool
		}
	}
	if err := json.Unmarshal(packageLock, &lock); err != nil {
		panic("checkout: package-lock.json: " + err.Error()) // part of the program: every test would meet it
	}
	var all []Package
	for path, p := range lock.Packages {
		if name, ok := strings.CutPrefix(path, "node_modules/"); ok && !p.Dev {
			all = append(all, Package{name, p.Version, "npm", p.License})
		}
	}
	slices.SortFunc(all, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return all
}
