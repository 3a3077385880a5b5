//go:build !race

package wire

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// These tests look into memory while others write there, which is what the race detector is against.

// finds reports whether any of the memory has a text.
func (s *spy) finds(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.memory {
		if bytes.Contains(m, []byte(text)) {
			return true
		}
	}
	return false
}

// leftOver waits until the connection asks for the next request, and says in which buffers a text is left.
func leftOver(t testing.TB, s *spy, c *Conn, text string) (where []string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for s.finds(text) && time.Now().Before(deadline) { // the one who reads has still to ask for more
		time.Sleep(time.Millisecond) //nolint:forbidigo // what is waited for shows in memory alone
	}
	if s.finds(text) {
		where = append(where, "crypto/tls")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Contains(c.buffer, []byte(text)) {
		where = append(where, "net/http")
	}
	return where
}

func TestNothingIsLeftOfABody(t *testing.T) {
	for name, body := range map[string]string{
		"short":          marked,
		"of four pieces": strings.Repeat("x", 3000) + marked + strings.Repeat("y", 12_000) + marked,
	} {
		s := serve(t, nil, true)
		conn := dial(t, s.address)
		from := bufio.NewReader(conn)
		spied, own := (*spy)(nil), (*Conn)(nil)
		for i := range 3 {
			if _, err := io.WriteString(conn, request("/card", body)); err != nil {
				t.Fatal(err)
			}
			answers(t, from, fmt.Sprintf("/card %d", len(body)))
			if i == 0 {
				spied, own = <-s.spies, <-s.conns
			}
			if left := leftOver(t, spied, own, "4929123456781234"); len(left) > 0 {
				t.Errorf("%s: the number is left in the buffer of %v", name, left)
			}
		}
		_ = conn.Close()
	}
}

// The test above can fail: where no handler wipes, the reader's buffer still has the body, and crypto/tls's does where nobody
// asks for more.
func TestTheBuffersHaveItWhereNobodyWipes(t *testing.T) {
	s := serve(t, nil, false)
	conn := dial(t, s.address)
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, request("/card", marked)); err != nil {
		t.Fatal(err)
	}
	answers(t, bufio.NewReader(conn), fmt.Sprintf("/card %d", len(marked)))
	if left := leftOver(t, <-s.spies, <-s.conns, "4929123456781234"); len(left) != 1 || left[0] != "net/http" {
		t.Errorf("left in %v", left)
	}

	ours, theirs := net.Pipe()
	below := &spy{Conn: theirs}
	plain := tls.Server(below, serverTLS)
	sent := make(chan error, 1)
	go func() {
		client := tls.Client(ours, clientTLS)
		_, err := io.WriteString(client, marked)
		sent <- err
	}()
	if _, err := io.ReadFull(plain, make([]byte, len(marked))); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !below.finds("4929123456781234") {
		t.Error("crypto/tls keeps nothing: this package is not needed any more")
	}
	_, _ = ours.Close(), theirs.Close()
}

func TestAConnectionThatEndsLeavesNothing(t *testing.T) {
	for name, end := range map[string]func(ours *Conn, theirs net.Conn){
		"this side closes": func(ours *Conn, _ net.Conn) { _ = ours.Close() },
		"the other side closes": func(ours *Conn, theirs net.Conn) {
			_ = theirs.Close()
			_, _ = io.Copy(io.Discard, ours)
		},
		"this side closes while it reads": func(ours *Conn, _ net.Conn) {
			read := make(chan struct{})
			go func() {
				defer close(read)
				_, _ = ours.Read(make([]byte, 1))
			}()
			_ = ours.Close()
			<-read
		},
	} {
		near, far := tcpPipe(t)
		below := &spy{Conn: near}
		ours := Client(below, clientTLS)
		sent := make(chan error, 1)
		peer := tls.Server(far, serverTLS)
		go func() {
			_, err := io.WriteString(peer, marked+strings.Repeat("more", 100))
			sent <- err
		}()
		if err := ours.Handshake(t.Context()); err != nil || !ours.ConnectionState().HandshakeComplete {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(ours, make([]byte, 40)); err != nil { // the rest is not read
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if !below.finds("4929123456781234") {
			t.Errorf("%s: there is nothing to wipe", name)
		}
		end(ours, far)
		if below.finds("4929123456781234") {
			t.Errorf("%s: the number is left", name)
		}
		_, _ = near.Close(), far.Close()
	}
}

func tcpPipe(t *testing.T) (near, far net.Conn) {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	if near, err = net.Dial("tcp", socket.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = socket.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestAKeptConnectionHoldsNothingOfTheAnswer(t *testing.T) {
	near, far := tcpPipe(t)
	defer func() { _ = far.Close() }()
	below := &spy{Conn: near}
	ours := Client(below, clientTLS)
	defer func() { _ = ours.Close() }()
	peer := tls.Server(far, serverTLS)
	served := make(chan error, 1)
	go func() {
		_, err := http.ReadRequest(bufio.NewReader(peer))
		if err == nil {
			_, err = fmt.Fprintf(peer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(marked), marked)
		}
		served <- err
	}()
	if err := ours.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://localhost/", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &Transport{Idle: time.Minute}
	resp, answer, err := transport.exchange(ours, req, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(answer); err != nil || string(text) != marked || resp.Close {
		t.Fatalf("%s, %v", text, err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if !below.finds("4929123456781234") {
		t.Error("there is nothing to wipe")
	}
	if !bytes.Contains(ours.buffer, []byte("4929123456781234")) {
		t.Error("the read buffer is another one")
	}
	if whole := answer.end(); !whole || bytes.Contains(ours.buffer, []byte("4929123456781234")) {
		t.Errorf("whole %v, or the read buffer has it", whole)
	}
	transport.idle.put("localhost", &kept{conn: ours, raw: near}, time.Minute)
	defer transport.CloseIdleConnections()
	if transport.kept() != 1 {
		t.Fatal("the connection is not kept")
	}
	if below.finds("4929123456781234") {
		t.Error("the number is left in crypto/tls's buffer")
	}
	if transport.idle.take("localhost") == nil {
		t.Error("a connection at rest is taken for dead")
	}
}
