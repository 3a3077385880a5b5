package ceremony

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/finterra/finpay/hsm"
)

// Plan is what the custodians of a ceremony agree to. It is read strictly: what is not understood is refused.
type Plan struct {
	Title      string      `yaml:"title"`
	Custodians []Custodian `yaml:"custodians"`
	Quorum     int         `yaml:"quorum"`           // so many shares restore what is backed up
	OfficerPIN string      `yaml:"officer_pin_file"` // the security officer's PIN, for backups
	Steps      []Step      `yaml:"steps"`

	text   []byte
	digest string
}

// Custodian is a person who agrees to a plan, and keeps a share.
type Custodian struct {
	Name  string `yaml:"name"`
	Share string `yaml:"share"` // file, on a medium of the custodian's own
}

// Step is one of its fields.
type Step struct {
	Generate *RoleStep    `yaml:"generate"`
	Rotate   *RoleStep    `yaml:"rotate"`
	Reseal   *RoleStep    `yaml:"reseal"`
	Retire   *VersionStep `yaml:"retire"`
	Destroy  *VersionStep `yaml:"destroy"`
	Backup   *BackupStep  `yaml:"backup"`
	Restore  *RestoreStep `yaml:"restore"`
}

// RoleStep names a role.
type RoleStep struct {
	Role hsm.Role `yaml:"role"`
}

// VersionStep names a key.
type VersionStep struct {
	Role    hsm.Role `yaml:"role"`
	Version uint32   `yaml:"version"`
}

// Key returns it.
func (v VersionStep) Key() hsm.Key { return hsm.Key{Role: v.Role, Version: v.Version} }

// BackupStep names the roles whose keys are wrapped, and the file.
type BackupStep struct {
	Roles []hsm.Role `yaml:"roles"`
	To    string     `yaml:"to"`
}

// RestoreStep names the file of a backup, and the roles whose keys are wanted of it; none means all.
type RestoreStep struct {
	From  string     `yaml:"from"`
	Roles []hsm.Role `yaml:"roles"`
}

// String says what a step does, in few words.
func (s Step) String() string {
	switch {
	case s.Generate != nil:
		return "generate " + string(s.Generate.Role)
	case s.Rotate != nil:
		return "rotate " + string(s.Rotate.Role)
	case s.Reseal != nil:
		return "reseal under " + string(s.Reseal.Role)
	case s.Retire != nil:
		return "retire " + s.Retire.Key().Label()
	case s.Destroy != nil:
		return "destroy " + s.Destroy.Key().Label()
	case s.Backup != nil:
		return "back up " + names(s.Backup.Roles)
	case s.Restore != nil && len(s.Restore.Roles) > 0:
		return "restore " + names(s.Restore.Roles)
	case s.Restore != nil:
		return "restore all keys of a backup"
	default:
		return "nothing"
	}
}

func names(roles []hsm.Role) string {
	list := make([]string, len(roles))
	for i, role := range roles {
		list[i] = string(role)
	}
	return strings.Join(list, ", ")
}

const (
	maxCustodians = 16
	maxPlan       = 32 << 10 // a transcript holds it, and a reviewer must be able to
	// DigestPrefix is how many characters of a plan's digest a custodian repeats.
	DigestPrefix = 8
)

// ReadPlan reads a plan's file. Relative paths mean the plan's own folder, and ${STATE} the state directory.
func ReadPlan(path, state string) (Plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Plan{}, fmt.Errorf("plan: %w", err)
	}
	p, err := ParsePlan(text)
	if err != nil {
		return Plan{}, fmt.Errorf("plan %s: %w", path, err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Plan{}, err
	}
	p.resolve(dir, state)
	if err := p.separateMedia(); err != nil {
		return Plan{}, fmt.Errorf("plan %s: %w", path, err)
	}
	return p, nil
}

// ParsePlan reads a plan.
func ParsePlan(text []byte) (Plan, error) {
	var p Plan
	if len(text) > maxPlan {
		return p, fmt.Errorf("it has %d bytes; %d are the most", len(text), maxPlan)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
		return p, errors.New("the file is empty")
	} else if err != nil {
		return p, err
	}
	if err := decoder.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return p, errors.New("there is more than one document in the file")
	}
	p.text, p.digest = text, fmt.Sprintf("%x", sha256.Sum256(text))
	return p, p.validate()
}

// Digest returns the SHA-256 of the plan's text, in hex.
func (p Plan) Digest() string { return p.digest }

// Text returns the plan as it was read.
func (p Plan) Text() []byte { return p.text }

// Consent is what a custodian types.
func (p Plan) Consent(custodian string) string { return custodian + " " + p.digest[:DigestPrefix] }

// Asks reports whether the plan has a backup, and whether it has a restore.
func (p Plan) Asks() (backup, restore bool) {
	for _, s := range p.Steps {
		backup, restore = backup || s.Backup != nil, restore || s.Restore != nil
	}
	return backup, restore
}

var custodianName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func (p Plan) validate() error {
	var wrong []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	want(p.Title != "", "title: say what the ceremony is for")
	for _, shown := range p.shown() {
		want(!strings.ContainsFunc(shown, hidden), "%.40q…: a character that a screen does not show could hide from custodians what they agree to", shown)
	}
	want(len(p.Custodians) >= 2 && len(p.Custodians) <= maxCustodians, "custodians: 2 to %d are wanted: nobody changes keys alone", maxCustodians)
	names, shares := make(map[string]bool), make(map[string]bool)
	for i, c := range p.Custodians {
		want(len(c.Name) <= 64 && custodianName.MatchString(c.Name), "custodian %d: a name of a–z, 0–9 and - is wanted", i+1)
		want(!names[c.Name], "custodian %s is named twice", c.Name)
		want(c.Share == "" || !shares[c.Share], "custodian %s: another one's share has the same path", c.Name)
		names[c.Name], shares[c.Share] = true, true
	}
	want(len(p.Steps) > 0 && len(p.Steps) <= 32, "steps: 1 to 32 are wanted")
	for i, s := range p.Steps {
		if err := s.validate(); err != nil {
			wrong = append(wrong, fmt.Errorf("step %d: %w", i+1, err))
		}
		for k := range i {
			want(!reflect.DeepEqual(s, p.Steps[k]), "steps %d and %d are the same", k+1, i+1)
		}
	}
	wrong = append(wrong, p.validateShares()...)
	return errors.Join(wrong...)
}

// shown is what of a plan people are shown beside its text, in which YAML allows escapes.
func (p Plan) shown() []string {
	list := []string{p.Title, p.OfficerPIN}
	for _, c := range p.Custodians {
		list = append(list, c.Share)
	}
	for _, s := range p.Steps {
		list = append(list, backupPath(s))
	}
	return append(list, strings.NewReplacer("\r\n", " ", "\n", " ").Replace(string(p.text)))
}

// hidden characters move the cursor or turn the direction of writing.
func hidden(r rune) bool { return r != '\t' && !unicode.IsPrint(r) }

// validateShares checks what only a backup or a restore asks for.
func (p Plan) validateShares() (wrong []error) {
	backup, restore := p.Asks()
	if backup && restore {
		wrong = append(wrong, errors.New("steps: a backup and a restore would use the same files for their shares: make two plans"))
	}
	if backup && (p.Quorum < 2 || p.Quorum > len(p.Custodians)) {
		wrong = append(wrong, fmt.Errorf("quorum: 2 to %d of the custodians restore a backup", len(p.Custodians)))
	}
	if !backup && p.Quorum != 0 {
		wrong = append(wrong, errors.New("quorum: only a backup has one"))
	}
	if backup != (p.OfficerPIN != "") {
		wrong = append(wrong, errors.New("officer_pin_file: a backup needs the security officer's PIN, and nothing else does"))
	}
	for _, c := range p.Custodians {
		if (backup || restore) != (c.Share != "") {
			wrong = append(wrong, fmt.Errorf("custodian %s: share: a backup or a restore needs the path of each custodian's share, and nothing else does", c.Name))
		}
	}
	backups := 0
	for _, s := range p.Steps {
		if s.Backup != nil || s.Restore != nil {
			backups++
		}
	}
	if backups > 1 {
		wrong = append(wrong, errors.New("steps: one backup or one restore in a plan: each has shares of its own"))
	}
	return wrong
}

func (s Step) validate() error {
	count := 0
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if !v.Field(i).IsNil() {
			count++
		}
	}
	switch {
	case count != 1:
		return fmt.Errorf("it has %d actions: one of generate, rotate, reseal, retire, destroy, backup, restore is wanted, with what it asks for", count)
	case s.Generate != nil && s.Generate.Role == "", s.Rotate != nil && s.Rotate.Role == "", s.Reseal != nil && s.Reseal.Role == "":
		return errors.New("role: missing")
	case s.Retire != nil && (s.Retire.Role == "" || s.Retire.Version == 0), s.Destroy != nil && (s.Destroy.Role == "" || s.Destroy.Version == 0):
		return errors.New("role and version are wanted")
	case s.Backup != nil && (len(s.Backup.Roles) == 0 || s.Backup.To == ""):
		return errors.New("roles and to are wanted")
	case s.Restore != nil && s.Restore.From == "":
		return errors.New("from: missing")
	}
	if s.Backup != nil {
		return distinct(s.Backup.Roles)
	}
	if s.Restore != nil {
		return distinct(s.Restore.Roles)
	}
	return nil
}

func distinct(roles []hsm.Role) error {
	seen := make(map[hsm.Role]bool)
	for _, role := range roles {
		if seen[role] {
			return fmt.Errorf("role %s is named twice", role)
		}
		seen[role] = true
	}
	return nil
}

func (p *Plan) resolve(dir, state string) {
	path := func(s string) string {
		s = strings.ReplaceAll(s, "${STATE}", state)
		if s != "" && !filepath.IsAbs(s) {
			s = filepath.Join(dir, s)
		}
		return filepath.Clean(s)
	}
	if p.OfficerPIN != "" {
		p.OfficerPIN = path(p.OfficerPIN)
	}
	for i := range p.Custodians {
		if p.Custodians[i].Share != "" {
			p.Custodians[i].Share = path(p.Custodians[i].Share)
		}
	}
	for i, s := range p.Steps {
		if s.Backup != nil {
			p.Steps[i].Backup.To = path(s.Backup.To)
		}
		if s.Restore != nil {
			p.Steps[i].Restore.From = path(s.Restore.From)
		}
	}
}

// folderOf is where a file really stands: two paths may lead to one medium.
func folderOf(path string) string {
	folder := filepath.Dir(path)
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		return real
	}
	return folder // the medium is not there yet
}

// separateMedia refuses two custodians' shares, or a share and the backup, in one folder.
func (p Plan) separateMedia() error {
	folders := make(map[string]string)
	for _, c := range p.Custodians {
		if c.Share == "" {
			continue
		}
		folder := folderOf(c.Share)
		if other := folders[folder]; other != "" {
			return fmt.Errorf("the shares of %s and %s are in one folder: each belongs on a medium of its custodian's own", other, c.Name)
		}
		folders[folder] = c.Name
	}
	for _, s := range p.Steps {
		path := backupPath(s)
		if other := folders[folderOf(path)]; path != "" && other != "" {
			return fmt.Errorf("the backup is in the folder of %s's share: keep them apart", other)
		}
	}
	return nil
}

func backupPath(s Step) string {
	switch {
	case s.Backup != nil:
		return s.Backup.To
	case s.Restore != nil:
		return s.Restore.From
	default:
		return ""
	}
}
