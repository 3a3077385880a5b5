package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// direct is a body that may be written to a connection, but not read into a buffer.
type direct struct {
	t    *testing.T
	text string
	to   io.Writer
}

func (d *direct) Read([]byte) (int, error) {
	d.t.Error("the body was copied into a buffer")
	return 0, io.EOF
}

func (d *direct) WriteTo(w io.Writer) (int64, error) {
	d.to = w
	n, err := io.WriteString(w, d.text)
	return int64(n), err
}

func (d *direct) Close() error { return nil }

func TestABodyGoesToTheConnectionWithoutACopy(t *testing.T) {
	var received string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		received = string(body)
		_, _ = io.WriteString(w, "answer")
	}))
	defer server.Close()
	client := &http.Client{Transport: &Transport{TLS: server.Client().Transport.(*http.Transport).TLSClientConfig}}
	body := &direct{t: t, text: "4111111111111111"}
	for range 2 { // the second resumes the session
		req, err := http.NewRequest(http.MethodPost, server.URL+"/areq?x=1", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = int64(len(body.text))
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil || string(answer) != "answer" || received != body.text {
			t.Errorf("answer %q, received %q, error %v", answer, received, err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if _, ok := body.to.(*Conn); !ok {
			t.Errorf("the body was written to a %T", body.to)
		}
	}
}

func TestTheTransportRefusesPlainHTTPAndStrangers(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	server.Config.ErrorLog = nil
	for _, url := range []string{server.URL, strings.Replace(server.URL, "https", "http", 1)} {
		resp, err := (&http.Client{Transport: &Transport{}}).Get(url)
		if err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s was served", url)
		}
		if !errors.Is(err, ErrNotSent) {
			t.Errorf("%s: %v, want %v", url, err, ErrNotSent)
		}
	}
}

func TestTheContextEndsAnExchange(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	}))
	defer server.Close()
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	go func() { <-arrived; cancel() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &Transport{TLS: server.Client().Transport.(*http.Transport).TLSClientConfig}}
	resp, err := client.Do(req)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrNotSent) {
		t.Errorf("error %v", err)
	}
	if err == nil {
		_ = resp.Body.Close()
	}
}

// In TLS 1.3 crypto/tls may leave plaintext in a buffer that nobody can reach: see [Client].
func TestClientsSealFromTheCallersMemory(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, tls.VersionName(r.TLS.Version)+" "+tls.CipherSuiteName(r.TLS.CipherSuite))
	}))
	server.TLS = &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}
	server.StartTLS()
	defer server.Close()
	own := server.Client().Transport.(*http.Transport).TLSClientConfig
	own.MinVersion = tls.VersionTLS13 // what a caller asks for does not bring it back
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&Transport{TLS: own}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if said := string(text); err != nil || !strings.HasPrefix(said, "TLS 1.2 TLS_ECDHE_") || !strings.Contains(said, "_GCM_") && !strings.Contains(said, "_POLY1305_") {
		t.Errorf("%s, %v", text, err)
	}
	if own.MinVersion != tls.VersionTLS13 {
		t.Error("the caller's configuration was changed")
	}
}
