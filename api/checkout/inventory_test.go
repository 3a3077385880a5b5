package checkout

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestTheInventoryIsWhatPagesLoad(t *testing.T) {
	inventory := ListInventory()
	if len(inventory.Files) != 2 || len(inventory.Pages) != len(templates) {
		t.Fatalf("%d files, %d pages of %d", len(inventory.Files), len(inventory.Pages), len(templates))
	}
	listed := map[string]string{}
	for _, f := range inventory.Files {
		listed[f.Path] = f.Integrity
		for _, part := range f.Parts {
			if part.Licence == "" || part.Origin == "" || part.Origin == "npm" && part.Version == "" {
				t.Errorf("%s: %+v", f.Path, part)
			}
		}
	}
	for _, row := range inventory.Pages {
		p := page(t, row.Kind, "en")
		p.ReturnSite, p.ACSSite, p.MethodSite = "{shop}", "{issuer}", "{issuer}"
		body, header := write(t, p)
		var loaded []string
		for _, found := range regexp.MustCompile(`(?:href|src)="(/assets/[^"]+)" integrity="([^"]+)"`).FindAllStringSubmatch(body, -1) {
			loaded = append(loaded, found[1])
			if listed[found[1]] != strings.ReplaceAll(found[2], "&#43;", "+") {
				t.Errorf("%s: %s is listed as %s", row.Kind, found[0], listed[found[1]])
			}
		}
		if !slices.Equal(loaded, row.Files) {
			t.Errorf("%s loads %v, listed are %v", row.Kind, loaded, row.Files)
		}
		for name := range header {
			if name != "Content-Language" && row.Headers[name] != header.Get(name) {
				t.Errorf("%s: %s is listed as %q", row.Kind, name, row.Headers[name])
			}
		}
	}
	if parts := inventory.Files[0].Parts; !slices.ContainsFunc(parts, func(p Package) bool { return p.Name == "@hpke/core" }) || slices.ContainsFunc(parts, func(p Package) bool { return p.Name == "axe-core" }) {
		t.Errorf("%+v", parts)
	}
}

func TestTheScriptKeepsItsLicences(t *testing.T) {
	text := string(script)
	for _, part := range bundled() {
		if !strings.Contains(text, part.Name+" "+part.Version) {
			t.Errorf("%s %s is not among the licences", part.Name, part.Version)
		}
	}
	if !strings.Contains(text, "Permission is hereby granted") {
		t.Error("the licence is gone")
	}
}
