package wire

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const marked = "number=4929123456781234&cvv=917"

var (
	serverTLS, clientTLS = certified()
)

func certified() (server, client *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "localhost"}
}

// spy is a connection below everything. It keeps all memory that it was ever asked to fill.
type spy struct {
	net.Conn
	cut func() int // bytes that one Read brings at most

	mu     sync.Mutex
	memory [][]byte
}

func (s *spy) Read(p []byte) (int, error) {
	s.mu.Lock()
	s.memory = append(s.memory, p[:cap(p)])
	if s.cut != nil {
		p = p[:min(len(p), s.cut())]
	}
	s.mu.Unlock()
	return s.Conn.Read(p)
}

type spyListener struct {
	net.Listener
	cut   func() int
	spies chan *spy
}

func (l spyListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s := &spy{Conn: raw, cut: l.cut}
	l.spies <- s
	return s, nil
}

// server answers each request with its body's length, and wipes the way that it came by where wipe says so.
type server struct {
	address string
	spies   chan *spy
	conns   chan *Conn
}

func serve(t testing.TB, cut func() int, wipe bool) *server {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: socket.Addr().String(), spies: make(chan *spy, 16), conns: make(chan *Conn, 16)}
	h := &http.Server{ReadHeaderTimeout: time.Minute, ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
		s.conns <- conn.(*Conn)
		return ConnContext(ctx, conn)
	}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.ProtoMajor != 1 {
			t.Errorf("%s, %v", r.Proto, r.TLS)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if wipe && len(body) > 0 {
			Wipe(r.Context(), body)
		}
		_, _ = fmt.Fprintf(w, "%s %d", r.URL.Path, len(body))
		clear(body)
	})}
	done := make(chan error, 1)
	go func() { done <- h.Serve(NewListener(spyListener{socket, cut, s.spies}, serverTLS)) }()
	t.Cleanup(func() {
		_ = h.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s
}

func request(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func dial(t interface{ Fatal(...any) }, address string) *tls.Conn {
	conn, err := tls.Dial("tcp", address, clientTLS)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func answers(t interface{ Fatalf(string, ...any) }, from *bufio.Reader, want string) {
	response, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatalf("%s: %v", want, err)
	}
	got, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || string(got) != want {
		t.Fatalf("%q, %v, want %q", got, err, want)
	}
}

// Whatever way bytes come, cut by TCP, by records and by requests that follow each other without waiting, each request is
// read whole, and what was wiped is gone.
func TestWhatNobodyHasReadIsKept(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(7, 3000), 1, 20).Draw(rt, "cuts")
		next := 0
		cut := func() int { // under the spy's lock
			next++
			return sizes[next%len(sizes)]
		}
		s := serve(t, cut, rapid.Bool().Draw(rt, "wipe"))
		conn := dial(rt, s.address)
		defer func() { _ = conn.Close() }()
		var text strings.Builder
		var want []string
		for i := range rapid.IntRange(1, 8).Draw(rt, "requests") {
			body := rapid.StringMatching(`[a-z0-9=&]{0,40}`).Draw(rt, "body") + strings.Repeat("z", rapid.IntRange(0, 6000).Draw(rt, "more"))
			if rapid.Bool().Draw(rt, "same") {
				body = marked
			}
			path := fmt.Sprintf("/%d", i)
			text.WriteString(request(path, body))
			want = append(want, fmt.Sprintf("%s %d", path, len(body)))
		}
		all := text.String()
		sent := make(chan error, 1)
		pieces := rapid.SliceOfN(rapid.IntRange(20, 20_000), 1, 10).Draw(rt, "records")
		go func() {
			for i := 0; len(all) > 0; i++ {
				n := min(len(all), pieces[i%len(pieces)])
				if _, err := io.WriteString(conn, all[:n]); err != nil {
					sent <- err
					return
				}
				all = all[n:]
			}
			sent <- nil
		}()
		from := bufio.NewReader(conn)
		for _, w := range want {
			answers(rt, from, w)
		}
		if err := <-sent; err != nil {
			rt.Fatal(err)
		}
	})
}

func TestWhatIsBehindABody(t *testing.T) {
	for _, c := range []struct{ piece, body, want string }{
		{"head body", "body", ""},
		{"head bodynext", "body", "next"},
		{"dyPOST /next", "body", "POST /next"},
		{"dyPOST / bodyGET", "body", "POST / bodyGET"},
		{"POST / GP", "GP", ""},
		{"dyPO", "body", "PO"},
		{"body", "body", ""},
		{"other", "body", ""},
		{"head", "", ""},
		{"", "body", ""},
	} {
		if got := behind([]byte(c.piece), []byte(c.body)); string(got) != c.want {
			t.Errorf("%q behind %q: %q, want %q", c.piece, c.body, got, c.want)
		}
	}
}
