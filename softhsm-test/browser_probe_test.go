//go:build browser

package softhsmtest_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBrowserProbeFindsWhatHasChanged(t *testing.T) {
	s := newSystem(t)
	probe := filepath.Join(t.TempDir(), "finpay-probe")
	if out, err := exec.Command("go", "build", "-o", probe, "github.com/finterra/finpay/appliance/probe").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	link := s.create().CheckoutURL
	run := func(args ...string) (int, string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		command := exec.CommandContext(ctx, probe, append([]string{"--browser", chromium(t), "--insecure", "--root"}, args...)...)
		command.WaitDelay = time.Second // a browser that it leaves behind keeps its output open
		out, err := command.CombinedOutput()
		if command.ProcessState == nil {
			t.Fatal(err)
		}
		return command.ProcessState.ExitCode(), string(out)
	}
	if code, out := run(link); code != 0 || !strings.Contains(out, "as listed") || strings.Contains(out, "/checkout/") {
		t.Errorf("an unchanged page: %d %s", code, out)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(s.apiKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := run("--json", "--api", s.cfg.PublicURL, "--key-file", key, "--return", s.shopURL()+"/return"); code != 0 || !strings.Contains(out, `"kind": "payable"`) {
		t.Errorf("a page of its own payment: %d %s", code, out)
	}
	target, _ := url.Parse(s.cfg.PublicURL)
	for what, change := range map[string]func(*http.Response){
		"Content-Security-Policy has changed": func(r *http.Response) {
			if strings.HasPrefix(r.Request.URL.Path, "/checkout/") {
				r.Header.Set("Content-Security-Policy", r.Header.Get("Content-Security-Policy")+"; img-src *")
			}
		},
		"has changed: sha384-": func(r *http.Response) {
			if strings.HasSuffix(r.Request.URL.Path, ".css") {
				r.Body, r.ContentLength = http.NoBody, 0
				r.Header.Del("Content-Length")
				r.Header.Del("Content-Encoding")
			}
		},
	} {
		proxy := httputil.NewSingleHostReverseProxy(target)
		proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		proxy.ModifyResponse = func(r *http.Response) error { change(r); return nil }
		between := httptest.NewTLSServer(proxy)
		code, out := run(strings.Replace(link, s.cfg.PublicURL, between.URL, 1))
		between.Close()
		if code != 3 || !strings.Contains(out, what) {
			t.Errorf("%s: %d %s", what, code, out)
		}
	}
	if code, _ := run("https://127.0.0.1:1/checkout/x"); code != 1 {
		t.Errorf("nobody there: %d", code)
	}
}
