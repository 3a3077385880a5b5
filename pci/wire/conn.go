package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// Conn is a TLS connection that can wipe what it has given to its reader.
type Conn struct {
	tls     *tls.Conn
	records *records

	mu     sync.Mutex
	busy   int    // calls under way that may read records
	closed bool   // the last of them wipes
	buffer []byte // the reader's whole buffer, of which each Read gets the rest
	last   []byte // of buffer: what the last Read put there
}

func newConn(raw net.Conn, begin func(net.Conn) *tls.Conn) *Conn {
	r := &records{Conn: raw}
	return &Conn{tls: begin(r), records: r}
}

func (c *Conn) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy++
}

// leave holds c.mu.
func (c *Conn) leave() {
	c.busy--
	if c.closed && c.busy == 0 {
		c.records.end()
	}
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	c.enter()
	n, err := c.tls.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remember(p, n)
	c.leave()
	return n, err
}

// remember notes where bytes went. The first Read gets the whole of the reader's buffer; later ones get a rest of it, or
// memory of somebody else's, which is theirs to wipe.
func (c *Conn) remember(p []byte, n int) {
	if c.buffer == nil {
		c.buffer = p
	}
	if at := address(p) - address(c.buffer); n > 0 && at < uintptr(len(c.buffer)) { // before it, the difference is huge
		c.last = p[:n]
	}
}

// wipeRead wipes the reader's buffer, but for what came behind a body in the same piece: it is another request's.
func (c *Conn) wipeRead(body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := behind(c.last, body)
	if len(kept) == 0 {
		clear(c.buffer)
		return
	}
	from := address(kept) - address(c.buffer)
	clear(c.buffer[:from])
	clear(c.buffer[from+uintptr(len(kept)):])
}

// behind returns what a piece has behind the end of a body: the end of it is at the beginning of the piece, and another request
// follows if anything does, or all of it is in the piece. Where neither is so, nothing of the piece is known to be another's.
func behind(piece, body []byte) []byte {
	if len(body) == 0 {
		return nil
	}
	for n := min(len(piece), len(body)-1); n > 0; n-- {
		if bytes.HasPrefix(piece, body[len(body)-n:]) && mayBeRequest(piece[n:]) {
			return piece[n:]
		}
	}
	if at := bytes.Index(piece, body); at >= 0 {
		return piece[at+len(body):]
	}
	return nil
}

// mayBeRequest reports whether a text could be the beginning of requests.
func mayBeRequest(text []byte) bool {
	for _, method := range []string{"POST ", "GET ", "HEAD ", "DELETE ", "PUT ", "PATCH ", "OPTIONS "} {
		if n := min(len(text), len(method)); string(text[:n]) == method[:n] {
			return true
		}
	}
	return false
}

// Close implements [net.Conn], and wipes what was read.
func (c *Conn) Close() error {
	err := c.tls.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.busy == 0 { // else whoever reads does it, in the next moment
		c.records.end()
	}
	return err
}

// Handshake ends the handshake, if it is not over.
func (c *Conn) Handshake(ctx context.Context) error {
	c.enter()
	err := c.tls.HandshakeContext(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave()
	return err
}

// ConnectionState is what [http.Request.TLS] is made from.
func (c *Conn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// Write implements [net.Conn]. Of a [Client] it seals from p itself, so nothing is left.
func (c *Conn) Write(p []byte) (int, error) {
	c.enter() // it may be the first, with the handshake
	n, err := c.tls.Write(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave()
	return n, err
}

// CloseWrite says that no more will be written.
func (c *Conn) CloseWrite() error { return c.tls.CloseWrite() }

// LocalAddr implements [net.Conn].
func (c *Conn) LocalAddr() net.Addr { return c.tls.LocalAddr() }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return c.tls.RemoteAddr() }

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error { return c.tls.SetDeadline(t) }

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error { return c.tls.SetReadDeadline(t) }

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.tls.SetWriteDeadline(t) }
