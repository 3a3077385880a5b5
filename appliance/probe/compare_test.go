package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/finterra/finpay/api/checkout"
)

// asListed is a page that is what the inventory says.
func asListed(kind checkout.Kind) (seen, checkout.Inventory) {
	inventory := checkout.ListInventory()
	i := slices.IndexFunc(inventory.Pages, func(h checkout.Headers) bool { return h.Kind == kind })
	s := seen{Kind: string(kind), Headers: maps.Clone(inventory.Pages[i].Headers)}
	for name, value := range s.Headers {
		s.Headers[name] = strings.NewReplacer("{shop}", "https://shop.example:8443", "{issuer}", "https://acs.example").Replace(value)
	}
	for _, f := range inventory.Files {
		if slices.Contains(inventory.Pages[i].Files, f.Path) {
			s.Loaded = append(s.Loaded, loaded{f.Kind, f.Path, f.Integrity, 200})
		}
	}
	return s, inventory
}

func TestAPageAsListedPasses(t *testing.T) {
	for _, kind := range checkout.Kinds() {
		if found := compare(asListed(kind)); len(found) > 0 {
			t.Errorf("%s: %v", kind, found)
		}
	}
}

func TestEveryChangeIsFound(t *testing.T) {
	for what, change := range map[string]func(*seen){
		"script /assets": func(s *seen) {
			s.Loaded[slices.IndexFunc(s.Loaded, func(l loaded) bool { return l.Type == "script" })].Integrity = "sha384-x"
		},
		"is loaded and not listed":    func(s *seen) { s.Loaded = append(s.Loaded, loaded{"Script", "/x.js", "", 200}) },
		"is loaded and not":           func(s *seen) { s.Loaded = append(s.Loaded, s.Loaded[1]) },
		"was not loaded":              func(s *seen) { s.Loaded = s.Loaded[:1] },
		"has changed":                 func(s *seen) { s.Loaded[0].Status = 404 },
		"stand in the page itself":    func(s *seen) { s.Inline = 1 },
		"of no kind":                  func(s *seen) { s.Kind = "paid evil" },
		"Referrer-Policy is missing":  func(s *seen) { delete(s.Headers, "Referrer-Policy") },
		"Content-Security-Policy has": func(s *seen) { s.Headers["Content-Security-Policy"] += "; script-src https://evil.example" },
		"header Content-Security": func(s *seen) {
			s.Headers["Content-Security-Policy"] = strings.Replace(s.Headers["Content-Security-Policy"], "https://shop.example:8443", "https:", 1)
		},
		"Strict-Transport-Security has": func(s *seen) { s.Headers["Strict-Transport-Security"] = "max-age=0" },
	} {
		s, inventory := asListed(checkout.Payable)
		change(&s)
		if found := strings.Join(compare(s, inventory), "\n"); !strings.Contains(found, what) {
			t.Errorf("%s: found %q", what, found)
		}
	}
}
