package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/finterra/finpay/appliance/siem"
	firmwareconfig "github.com/finterra/finpay/firmware-config"
)

var dotted = regexp.MustCompile(`^[a-z_]+\.[a-z_]+$`)

// notTypes are dotted texts that name something else: files, and hosts of examples.
var notTypes = []string{".head", ".pem", ".json", ".yaml", ".html", ".txt", ".zip", ".db", ".sock", ".vkey", ".share", ".example"}

// settings are the names of the configuration's settings.
func settings(t *testing.T) map[string]bool {
	t.Helper()
	var sections map[string]any
	if err := yaml.Unmarshal(firmwareconfig.Default, &sections); err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for section, content := range sections {
		members, _ := content.(map[string]any)
		for name := range members {
			names[section+"."+name] = true
		}
	}
	return names
}

// typesInCode are the dotted texts of the appliance's code that can only be types of entries, or of events for merchants.
func typesInCode(t *testing.T) map[string]bool {
	t.Helper()
	other := settings(t)
	found := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"simulator", "config", "siem"}, path):
			return filepath.SkipDir // other machines, settings, and the list that is checked here
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			text, _ := strconv.Unquote(literal.Value)
			if dotted.MatchString(text) && !other[text] && !slices.ContainsFunc(notTypes, func(end string) bool { return strings.HasSuffix(text, end) }) {
				found[text] = true
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var documentedRow = regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| [^|]+ \\| ([^|]+) \\|$")

// documentedTypes are those of docs/entries.md, with their classes.
func documentedTypes(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/entries.md")
	if err != nil {
		t.Fatal(err)
	}
	types := make(map[string]string)
	for _, row := range documentedRow.FindAllStringSubmatch(string(text), -1) {
		if types[row[1]] != "" {
			t.Errorf("docs/entries.md has %s twice", row[1])
		}
		types[row[1]] = row[2]
	}
	return types
}

func TestEachTypeOfEntriesIsDocumentedAndMapped(t *testing.T) {
	documented, inCode := documentedTypes(t), typesInCode(t)
	inCode["webhook.delivered"], inCode["webhook.failed"] = true, true // "webhook." and a delivery's status
	for _, kind := range slices.Sorted(maps.Keys(inCode)) {
		if documented[kind] == "" {
			t.Errorf("%s is in the code and not in docs/entries.md", kind)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(documented)) {
		if !inCode[kind] {
			t.Errorf("%s is in docs/entries.md and not in the code", kind)
		}
		if got := siem.Class(kind); got != documented[kind] {
			t.Errorf("%s becomes %s, and docs/entries.md says %s", kind, got, documented[kind])
		}
		if siem.Class(kind) == siem.Class("no.type") && !strings.HasPrefix(kind, "webhook.") {
			t.Errorf("%s is mapped to nothing in particular", kind)
		}
	}
	if len(documented) < 50 {
		t.Errorf("docs/entries.md has %d types", len(documented))
	}
}

var (
	quoted  = regexp.MustCompile("`([^`]+)`")
	command = regexp.MustCompile(`^finpay((?: [a-z-]+)+)`)
)

func TestTheMapOfPCIDSSNamesWhatIsThere(t *testing.T) {
	text, err := os.ReadFile("../docs/pci-dss.md")
	if err != nil {
		t.Fatal(err)
	}
	parser, err := kong.New(&cli{}, kong.Name("finpay"), kong.Vars{"version": version})
	if err != nil {
		t.Fatal(err)
	}
	commands := make(map[string]bool)
	for _, leaf := range parser.Model.Leaves(true) {
		name := leaf.Name
		for above := leaf.Parent; above != nil; above = above.Parent {
			name = above.Name + " " + name
		}
		commands[name] = true
	}
	documented, types := documentedTypes(t), 0
	for _, q := range quoted.FindAllStringSubmatch(string(text), -1) {
		if m := command.FindStringSubmatch(q[1]); m != nil {
			name, _, _ := strings.Cut("finpay"+m[1], " --")
			if !commands[name] {
				t.Errorf("docs/pci-dss.md names %q, which is no command", q[1])
			}
		}
		if dotted.MatchString(q[1]) {
			if types++; documented[q[1]] == "" {
				t.Errorf("docs/pci-dss.md names %s, which is no type of entries", q[1])
			}
		}
	}
	if types < 50 {
		t.Errorf("docs/pci-dss.md names %d types", types)
	}
}
