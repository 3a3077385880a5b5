package wire

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Transport is an [http.RoundTripper] that keeps no copy of what it sends. That of net/http copies a body into the
// connection's write buffer, where the last request stays for as long as the connection does. Here the body goes
// from the caller's memory to [Client]'s connection, which seals it from there.
//
// It speaks HTTP/1.1 over TLS. What was read is overwritten in every buffer when the response's body is closed, whether
// the connection ends then or is kept. A request is never sent twice: one that meets a connection which just ended is an
// error, as with any connection that breaks.
type Transport struct {
	// TLS has the client certificate and the CA of the counterparty. It is not changed.
	TLS *tls.Config
	// DialTimeout bounds connection and handshake; 5 seconds when zero.
	DialTimeout time.Duration
	// MaxBody bounds a response's body, in bytes; 1 MiB when zero. A longer one ends with an error.
	MaxBody int64
	// Idle is how long a connection is kept for the next request; 0 opens one for each. It should be shorter than the
	// counterparty's own limit. Resumed sessions make a new connection one round trip cheaper.
	Idle time.Duration

	once   sync.Once
	config *tls.Config
	idle   idle
}

const (
	defaultDialTimeout = 5 * time.Second
	defaultMaxBody     = 1 << 20
	maxResponseHeader  = 64 << 10
)

// ErrNotSent means that there is no connection to the counterparty: not a byte of the request has left.
var ErrNotSent = errors.New("wire: nothing was sent")

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	body := req.Body
	if body == nil {
		body = http.NoBody
	}
	defer func() { _ = body.Close() }()
	if req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%w: %q is not an https URL", ErrNotSent, req.URL.Redacted())
	}
	k := t.idle.take(req.URL.Host)
	if k == nil {
		var err error
		if k, err = t.dial(req.Context(), req.URL.Host); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
		}
	}
	// The context ends the connection, and with it whatever read or write is under way.
	stop := context.AfterFunc(req.Context(), func() { _ = k.conn.Close() })
	resp, answer, err := t.exchange(k.conn, req, body)
	if err != nil {
		stop()
		_ = k.conn.Close()
		if cause := context.Cause(req.Context()); cause != nil {
			err = cause
		}
		return nil, err
	}
	resp.Body = &responseBody{answer: answer, release: func(whole bool) error {
		if stop() && whole && t.Idle > 0 && !resp.Close {
			t.idle.put(req.URL.Host, k, t.Idle)
			return nil
		}
		return k.conn.Close()
	}}
	return resp, nil
}

// CloseIdleConnections is what [http.Client.CloseIdleConnections] calls.
func (t *Transport) CloseIdleConnections() { t.idle.close() }

func (t *Transport) dial(ctx context.Context, host string) (*kept, error) {
	t.once.Do(func() {
		t.config = &tls.Config{}
		if t.TLS != nil {
			t.config = t.TLS.Clone()
		}
		t.config.MinVersion = max(t.config.MinVersion, tls.VersionTLS12)
		t.config.NextProtos = []string{"http/1.1"}
		if t.config.ClientSessionCache == nil {
			t.config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		}
	})
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(host, "443")
	}
	timeout := t.DialTimeout
	if timeout == 0 {
		timeout = defaultDialTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	conn := Client(tcp, t.named(host))
	if err := conn.Handshake(ctx); err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	return &kept{conn: conn, raw: tcp}, nil
}

// named is the configuration with the host's name where it has none, as [tls.Dial] does.
func (t *Transport) named(host string) *tls.Config {
	if t.config.ServerName != "" {
		return t.config
	}
	named := t.config.Clone()
	named.ServerName, _, _ = net.SplitHostPort(host) // it has been dialled
	return named
}

// exchange writes the request and reads the response's header. A response that comes before the request is
// written, as a refusal may, is read all the same.
func (t *Transport) exchange(conn net.Conn, req *http.Request, body io.Reader) (*http.Response, *answer, error) {
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n", req.Method, req.URL.RequestURI(), req.URL.Host)
	header := req.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if t.Idle == 0 {
		header.Set("Connection", "close")
	}
	header.Set("Content-Length", strconv.FormatInt(req.ContentLength, 10))
	if err := header.Write(&head); err != nil {
		return nil, nil, err
	}
	head.WriteString("\r\n")
	_, err := conn.Write(head.Bytes())
	if err == nil {
		var n int64
		n, err = io.Copy(conn, body) // takes [io.WriterTo] where body has it, which our messages do
		if err == nil && n != req.ContentLength {
			err = fmt.Errorf("wire: a body of %d bytes was announced with %d", n, req.ContentLength)
		}
	}
	if err != nil {
		_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // only what is there already
	}
	resp, a, readErr := readResponse(conn, req, cmp.Or(t.MaxBody, defaultMaxBody))
	if readErr != nil {
		return nil, nil, errors.Join(err, readErr)
	}
	resp.Close = resp.Close || err != nil // half a request is behind it
	return resp, a, nil
}

func readResponse(conn net.Conn, req *http.Request, most int64) (*http.Response, *answer, error) {
	limited := &io.LimitedReader{R: conn, N: maxResponseHeader}
	buffer := bufio.NewReader(limited)
	for {
		resp, err := http.ReadResponse(buffer, req)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode >= 200 {
			limited.N = most // callers may bound it closer
			return resp, &answer{Reader: resp.Body, buffer: buffer}, nil
		}
	}
}

// answer is a response's body as it comes through the read buffer.
type answer struct {
	io.Reader
	buffer *bufio.Reader
	whole  bool // it was read to its end
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	a.whole = a.whole || err == io.EOF
	return n, err
}

// end overwrites the read buffer, since the answer may have echoed what was sent, and reports whether the connection has brought
// this answer and no more. What of it was not read stays unread.
func (a *answer) end() (whole bool) {
	whole = a.whole && a.buffer.Buffered() == 0
	a.buffer.Reset(zeros{})
	_, _ = a.buffer.Peek(a.buffer.Size())
	return whole
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// responseBody gives its connection back when it is closed.
type responseBody struct {
	*answer
	release func(whole bool) error
	once    sync.Once
}

func (b *responseBody) Close() (err error) {
	b.once.Do(func() { err = b.release(b.end()) })
	return err
}
