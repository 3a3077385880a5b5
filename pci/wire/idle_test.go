package wire

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// counted is a server that counts its connections.
func counted(t *testing.T, handler http.HandlerFunc) (server *httptest.Server, opened func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	server = httptest.NewUnstartedServer(handler)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateNew {
			n++
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func keeping(server *httptest.Server) *Transport {
	return &Transport{TLS: server.Client().Transport.(*http.Transport).TLSClientConfig, Idle: time.Minute}
}

// exchanged sends one request and reads so many bytes of the answer; -1 reads all.
func exchanged(t *testing.T, transport *Transport, ctx context.Context, url string, read int) string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("question"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	if read < 0 {
		text, err = io.ReadAll(resp.Body)
	} else {
		text = make([]byte, read)
		_, err = io.ReadFull(resp.Body, text)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // the server may have closed the connection before
	_ = resp.Body.Close() // once more gives nothing back a second time
	return string(text)
}

func TestAConnectionIsKeptForTheNextRequest(t *testing.T) {
	server, opened := counted(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, "answer to "+string(body))
	})
	transport := keeping(server)
	defer transport.CloseIdleConnections()
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		if got := exchanged(t, transport, ctx, server.URL, -1); got != "answer to question" {
			t.Error(got)
		}
		cancel() // it has nothing to do with the connection any more
	}
	if n := opened(); n != 1 {
		t.Errorf("%d connections", n)
	}
	transport.CloseIdleConnections()
	exchanged(t, transport, t.Context(), server.URL, -1)
	if n := opened(); n != 2 {
		t.Errorf("%d connections after the first was closed", n)
	}
}

func TestAConnectionIsNotKept(t *testing.T) {
	for name, c := range map[string]struct {
		read    int
		idle    time.Duration
		handler http.HandlerFunc
	}{
		"where nobody asks for it": {-1, 0, nil},
		"with a rest of an answer": {3, time.Minute, nil},
		"that the server ends":     {-1, time.Minute, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }},
	} {
		t.Run(name, func(t *testing.T) {
			server, opened := counted(t, func(w http.ResponseWriter, r *http.Request) {
				if c.handler != nil {
					c.handler(w, r)
				}
				_, _ = io.WriteString(w, "answer")
			})
			transport := keeping(server)
			transport.Idle = c.idle
			defer transport.CloseIdleConnections()
			for range 3 {
				exchanged(t, transport, t.Context(), server.URL, c.read)
			}
			if n := opened(); n != 3 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// A request that is written to a connection which the counterparty has closed would be lost.
func TestAConnectionThatHasEndedMeanwhileIsNotUsed(t *testing.T) {
	server, opened := counted(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "answer") })
	transport := keeping(server)
	defer transport.CloseIdleConnections()
	for i := range 3 {
		exchanged(t, transport, t.Context(), server.URL, -1)
		server.CloseClientConnections() // returns when they are closed
		host := strings.TrimPrefix(server.URL, "https://")
		deadline := time.Now().Add(10 * time.Second)
		for transport.idle.hosts[host][0].lives() {
			if time.Now().After(deadline) {
				t.Fatal("that the server has closed is never seen")
			}
		}
		if n := opened(); n != i+1 {
			t.Errorf("%d connections", n)
		}
	}
}

func TestAKeptConnectionEndsByItself(t *testing.T) {
	server, opened := counted(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "answer") })
	transport := keeping(server)
	transport.Idle = time.Nanosecond
	for range 2 {
		exchanged(t, transport, t.Context(), server.URL, -1)
		for deadline := time.Now().Add(10 * time.Second); transport.kept() > 0; {
			if time.Now().After(deadline) {
				t.Fatal("it is kept for ever")
			}
		}
	}
	if n := opened(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

func (t *Transport) kept() (n int) {
	t.idle.mu.Lock()
	defer t.idle.mu.Unlock()
	for _, list := range t.idle.hosts {
		n += len(list)
	}
	return n
}

func TestOnlySoManyConnectionsAreKept(t *testing.T) {
	var arrived sync.WaitGroup
	arrived.Add(maxIdle + 3)
	server, _ := counted(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived.Done()
		arrived.Wait()
		_, _ = io.WriteString(w, "answer")
	})
	transport := keeping(server)
	defer transport.CloseIdleConnections()
	var all sync.WaitGroup
	for range maxIdle + 3 {
		all.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		})
	}
	all.Wait()
	if n := transport.kept(); n != maxIdle {
		t.Errorf("%d are kept, not %d", n, maxIdle)
	}
}
