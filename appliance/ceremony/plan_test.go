package ceremony

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const rotation = `title: Yearly rotation
custodians:
  - name: key-custodian-a
  - name: key-custodian-b
steps:
  - rotate: {role: kek}
  - destroy: {role: origin, version: 1}
`

const backupPlan = `title: Backup
custodians:
  - {name: key-custodian-a, share: a/x.share}
  - {name: key-custodian-b, share: b/x.share}
quorum: 2
officer_pin_file: ${STATE}/so-pin
steps:
  - backup: {roles: [tokenize, kek], to: c/backup.json}
`

func TestAPlanIsReadStrictly(t *testing.T) {
	for name, test := range map[string]struct{ plan, old, new, want string }{
		"unknown key, with its line":     {rotation, "title: Yearly", "titel: Yearly", "line 1"},
		"unknown key in a step":          {rotation, "{role: kek}", "{role: kek, force: true}", "line 6"},
		"unknown action":                 {rotation, "rotate:", "revolve:", "line 6"},
		"no title":                       {rotation, "title: Yearly rotation", "title: ''", "title"},
		"a title that clears the screen": {rotation, "title: Yearly", "title: \"\\e[2J\" # Yearly", "does not show"},
		"a comment from right to left":   {rotation, "steps:", "# \u202e\nsteps:", "does not show"},
		"one custodian":                  {rotation, "  - name: key-custodian-b\n", "", "nobody changes keys alone"},
		"the same custodian twice":       {rotation, "custodian-b", "custodian-a", "named twice"},
		"a name with a space":            {rotation, "key-custodian-b", "key custodian b", "a name of"},
		"two actions in one step":        {rotation, "rotate: {role: kek}", "{rotate: {role: kek}, generate: {role: kek}}", "2 actions"},
		"an empty step":                  {rotation, "rotate: {role: kek}", "rotate:", "0 actions"},
		"the same step twice":            {rotation, "destroy: {role: origin, version: 1}", "rotate: {role: kek}", "steps 1 and 2 are the same"},
		"no version":                     {rotation, ", version: 1", "", "role and version"},
		"a negative version":             {rotation, "version: 1", "version: -1", "line 7"},
		"no role":                        {rotation, "{role: kek}", "{}", "role: missing"},
		"a quorum for nothing":           {rotation, "steps:", "quorum: 2\nsteps:", "quorum"},
		"a share for nothing":            {rotation, "name: key-custodian-b", "{name: key-custodian-b, share: x}", "share"},
		"a second document":              {rotation, "steps:", "---\nsteps:", "more than one document"},
		"a quorum of one":                {backupPlan, "quorum: 2", "quorum: 1", "quorum"},
		"a quorum of more than all":      {backupPlan, "quorum: 2", "quorum: 3", "quorum"},
		"no share":                       {backupPlan, ", share: b/x.share", "", "share"},
		"the same share":                 {backupPlan, "b/x.share", "a/x.share", "same path"},
		"no officer":                     {backupPlan, "officer_pin_file: ${STATE}/so-pin\n", "", "officer_pin_file"},
		"a role twice":                   {backupPlan, "[tokenize, kek]", "[kek, kek]", "named twice"},
		"no roles":                       {backupPlan, "[tokenize, kek]", "[]", "roles and to"},
		"backup and restore in one":      {backupPlan, "steps:", "steps:\n  - restore: {from: d/other.json}", "two plans"},
		"two backups, one set of keys":   {backupPlan, "steps:", "steps:\n  - backup: {roles: [kek], to: d/other.json}", "one backup"},
	} {
		text := strings.Replace(test.plan, test.old, test.new, 1)
		if text == test.plan {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := ParsePlan([]byte(text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want something about %q", name, err, test.want)
		}
	}
	for _, text := range []string{"", "# nothing\n", strings.Repeat("#", maxPlan+1)} {
		if _, err := ParsePlan([]byte(text)); err == nil {
			t.Errorf("%.10q: accepted", text)
		}
	}
}

func TestPathsOfAPlanMeanItsFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plan.yaml")
	read := func(text string) (Plan, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return ReadPlan(path, "/var/lib/finpay")
	}
	p, err := read(backupPlan)
	if err != nil {
		t.Fatal(err)
	}
	if p.Custodians[1].Share != filepath.Join(dir, "b/x.share") || p.Steps[0].Backup.To != filepath.Join(dir, "c/backup.json") || p.OfficerPIN != "/var/lib/finpay/so-pin" {
		t.Errorf("%+v", p)
	}
	if p.Consent("key-custodian-a") != "key-custodian-a "+p.Digest()[:8] {
		t.Errorf("%q", p.Consent("key-custodian-a"))
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "a"), 0o700), os.Symlink("a", filepath.Join(dir, "linked"))); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"two shares in one folder":  {"b/x.share", "a/y.share"},
		"the backup with a share":   {"c/backup.json", "b/backup.json"},
		"the same, by another path": {"b/x.share", "c/../a/y.share"},
		"the same, by a link":       {"b/x.share", "linked/y.share"},
		"the backup, by a link":     {"c/backup.json", "linked/backup.json"},
	} {
		if _, err := read(strings.Replace(backupPlan, change[0], change[1], 1)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte(rotation))
	f.Add([]byte(backupPlan))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePlan(text)
		if err == nil && (len(p.Custodians) < 2 || len(p.Steps) == 0 || len(p.Digest()) != 64) {
			t.Errorf("accepted: %+v", p)
		}
	})
}
