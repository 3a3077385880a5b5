// Package finpay_test checks the house's floors: who may import whom.
package finpay_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/finterra/finpay"

// deps returns what the packages of a pattern need, tests left out.
func deps(t *testing.T, patterns ...string) []string {
	t.Helper()
	return list(t, append([]string{"-deps"}, patterns...)...)
}

func list(t *testing.T, arguments ...string) []string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", append([]string{"list"}, arguments...)...)
	var problems strings.Builder
	command.Stderr = &problems
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", arguments, err, &problems)
	}
	return strings.Fields(string(out))
}

// under reports whether a package is that of a folder, or below it.
func under(path, folder string) bool {
	root := module + "/" + folder
	return path == root || strings.HasPrefix(path, root+"/")
}

func TestArrowsOnlyRunDown(t *testing.T) {
	for _, floor := range []struct {
		folder    string
		forbidden []string
	}{
		{"pci", []string{"hsm", "api", "appliance", "softhsm-test"}},
		{"hsm", []string{"pci", "api", "appliance", "softhsm-test"}},
		{"api", []string{"hsm", "appliance", "softhsm-test", "pci/internal"}},
		{"appliance/store", []string{"appliance/ledger", "appliance/audit", "appliance/payment", "appliance/webhook", "appliance/merchant"}},
		{"appliance/ledger", []string{"appliance/audit", "appliance/payment", "appliance/webhook", "appliance/merchant"}},
		{"pci/internal", []string{"pci/ff1", "pci/tokenization", "pci/custody", "pci/intake", "pci/threeds", "pci/acquiring", "pci/stripe", "pci/wire"}},
		{"pci/custody", []string{"pci/tokenization", "pci/intake", "pci/threeds", "pci/acquiring", "pci/stripe"}},
	} {
		needed := deps(t, "./"+floor.folder+"/...")
		if !slices.ContainsFunc(needed, func(p string) bool { return under(p, floor.folder) }) {
			t.Fatalf("%s: go list shows nothing of it", floor.folder)
		}
		for _, p := range needed {
			for _, folder := range floor.forbidden {
				if under(p, folder) {
					t.Errorf("%s needs %s, which is not below it", floor.folder, p)
				}
			}
		}
	}
}

// Only the command itself, which wires all parts together, links card digits into the appliance.
func TestTheApplianceCannotReachCardDigits(t *testing.T) {
	packages := list(t, "./appliance/...")
	if len(packages) < 3 {
		t.Fatalf("go list shows %v", packages)
	}
	for _, p := range packages {
		if p == module+"/appliance" {
			continue
		}
		if i := slices.IndexFunc(deps(t, p), func(d string) bool { return under(d, "pci/internal") }); i >= 0 {
			t.Errorf("%s needs pci/internal", p)
		}
	}
}

func TestTheCheckOfFloorsSees(t *testing.T) {
	if !slices.ContainsFunc(deps(t, "./pci/custody"), func(d string) bool { return under(d, "pci/internal") }) {
		t.Error("custody works on card digits, and go list -deps does not say so")
	}
	if under(module+"/pci/internalised", "pci/internal") || !under(module+"/hsm", "hsm") {
		t.Error("under is wrong")
	}
}
