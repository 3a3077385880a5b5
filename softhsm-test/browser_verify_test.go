//go:build browser

package softhsmtest_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// audits opens the page, hands it a bundle and what else there is, and returns its verdict.
func (p *person) audits(page, bundle, vkey, kept string) (v map[string]any) {
	p.t.Helper()
	p.does("open the page", chromedp.Navigate(page), chromedp.SetUploadFiles(chromedp.CSS("#bundle"), []string{bundle}))
	if kept != "" {
		p.does("choose a checkpoint", chromedp.SetUploadFiles(chromedp.CSS("#kept"), []string{kept}))
	}
	if vkey != "" {
		p.does("type the key", chromedp.SendKeys(chromedp.CSS("#key"), vkey))
	}
	p.does("verify", chromedp.Click(chromedp.CSS("#verify")), chromedp.WaitVisible(chromedp.CSS("#verdict")))
	if err := json.Unmarshal([]byte(js[string](p, `document.querySelector("#json").textContent`)), &v); err != nil {
		p.t.Fatal(err)
	}
	return v
}

// said is the verdict of the command line on the same.
func said(t *testing.T, args ...string) (v map[string]any) {
	t.Helper()
	out, _ := finpayVerify(t, args...)
	if err := json.Unmarshal(out, &v); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return v
}

func TestBrowserVerifiesABundleAsTheCommandLineDoes(t *testing.T) {
	s := newSystem(t)
	vkey := strings.TrimSpace(s.command("ledger", "key"))
	early := s.exported()
	for range 260 { // more than a tile
		s.create()
	}
	good := s.exported()
	part := s.exported("--from", "256")
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kept := write("checkpoint", fileOf(t, early, "checkpoint"))
	late := write("late", fileOf(t, good, "checkpoint"))
	page := "file://" + write("verify.html", fileOf(t, good, "verify.html"))
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(name, what string, offset int) string {
		bad := append([]byte(nil), text...)
		bad[strings.Index(string(text), what)+offset] ^= 1
		return write(name, bad)
	}
	other := strings.Replace(vkey, s.cfg.Ledger.Origin, "finpay.example/other/2026", 1)
	p := sitDown(t, s) // one browser for all: each begins with the page anew
	for name, c := range map[string]struct {
		bundle, key, kept, reads string
	}{
		"a good bundle":                {good, vkey, "", "Verified"},
		"a good bundle, from the disk": {good, vkey, "", "Verified"},
		"nobody's key":                 {good, "", "", "Consistent, signer not pinned"},
		"another log's key":            {good, other, "", "Does not verify"},
		"not a key":                    {good, "a+b+c", "", "Does not verify"},
		"a kept checkpoint":            {good, vkey, kept, "excluded before entry"},
		"a part":                       {part, vkey, "", "256 to"},
		"a part after what was kept":   {part, vkey, kept, "begin after them"},
		"a log that was cut back":      {early, vkey, late, "cut back"},
		"an entry changed":             {changed("entry.zip", `"seq":7,`, -4), vkey, "", "from entry 7 on"},
		"a checkpoint changed":         {changed("root.zip", "checkpoints/000", 80), vkey, "", "Does not verify"},
		"a header changed":             {changed("header.zip", "tile/0/001", -8), vkey, "", "damaged"},
		"a trailing byte":              {write("long.zip", append(append([]byte(nil), text...), 0)), vkey, "", "does not end as a ZIP"},
		"a text":                       {kept, vkey, "", "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			address := s.cfg.PublicURL + "/ledger/verify"
			if strings.HasSuffix(name, "from the disk") {
				address = page
			}
			got := p.audits(address, c.bundle, c.key, c.kept)
			p.reads(c.reads)
			args := []string{c.bundle}
			if c.key != "" {
				args = append(args, "--key", c.key)
			}
			if c.kept != "" {
				args = append(args, "--checkpoint", c.kept)
			}
			want := said(t, args...)
			if got["reason"] == "" != (want["reason"] == "") {
				t.Errorf("the page's reason is %q, the command's %q", got["reason"], want["reason"])
			}
			delete(got, "reason")
			delete(want, "reason")
			if name != "not a key" && !reflect.DeepEqual(got, want) {
				t.Errorf("the page says %v, the command %v", got, want)
			}
		})
	}
	s.t = t
}
