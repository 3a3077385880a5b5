package simulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTheAuthorityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := OpenCertificates(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, caKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file %v, %v", info, err)
	}
	second, err := OpenCertificates(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !first.ca.Equal(second.ca) {
		t.Error("the authority was made anew")
	}
}

// TestEverythingIsServed runs the simulator as the command does and visits it with and without a certificate.
func TestEverythingIsServed(t *testing.T) {
	dir := t.TempDir()
	certs, err := OpenCertificates(dir)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := certs.Client()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{
			AcquirerAddr: "127.0.0.1:0", WebAddr: "127.0.0.1:0", StateDir: dir, ApplianceCA: filepath.Join(dir, caFile),
			ApplianceClientCert: filepath.Join(dir, caFile), APIBase: "https://localhost:1", APIKey: "k",
			ReturnSecret: returnSecret, WebhookSecret: webhookSecret, Ready: func(url string) { ready <- url },
		}, slog.New(slog.DiscardHandler))
	}()
	var base string
	select {
	case base = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	stranger, known := clientOf(certs.Pool()), clientOf(certs.Pool(), identity)
	areq, _ := json.Marshal(testAReq("4111111111111111"))
	for name, test := range map[string]struct {
		client *http.Client
		method string
		path   string
		status int
	}{
		"shop":                  {stranger, "GET", "/", 200},
		"orders":                {stranger, "GET", "/orders", 200},
		"ACS":                   {stranger, "GET", "/acs", 405},
		"directory server":      {known, "POST", "/ds", 200},
		"directory, a stranger": {stranger, "POST", "/ds", 403},
		"something else":        {stranger, "GET", "/nothing", 404},
	} {
		req, err := http.NewRequest(test.method, base+test.path, bytes.NewReader(areq))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := test.client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != test.status {
			t.Errorf("%s: status %d: %s", name, resp.StatusCode, body)
		}
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the simulator does not end")
	}
}

func TestAForeignClientCertificateIsRefused(t *testing.T) {
	ours, err := OpenCertificates(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := OpenCertificates(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server, err := newWebServer(Config{ReturnSecret: returnSecret, WebhookSecret: webhookSecret}, ours, NewAcquirerHost(AcquirerOptions{}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server.TLSConfig)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	identity, err := theirs.Client()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := clientOf(ours.Pool(), identity).Get("https://" + listener.Addr().String() + "/ds")
	if err == nil {
		_ = resp.Body.Close()
		t.Errorf("status %d", resp.StatusCode)
	}
}
