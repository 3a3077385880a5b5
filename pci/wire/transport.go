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
// It speaks HTTP/1.1 over TLS and opens a connection for each request; resumed sessions make that one round trip
// cheaper. What was read is overwritten in every buffer when the response's body is closed.
type Transport struct {
	// TLS has the client certificate and the CA of the counterparty. It is not changed.
	TLS *tls.Config
	// DialTimeout bounds connection and handshake; 5 seconds when zero.
	DialTimeout time.Duration
	// MaxBody bounds a response's body, in bytes; 1 MiB when zero. A longer one ends with an error.
	MaxBody int64

	once   sync.Once
	config *tls.Config
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
	conn, err := t.dial(req.Context(), req.URL.Host)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	// The context ends the connection, and with it whatever read or write is under way.
	stop := context.AfterFunc(req.Context(), func() { _ = conn.Close() })
	resp, err := exchange(conn, req, body, cmp.Or(t.MaxBody, defaultMaxBody))
	if err != nil {
		stop()
		_ = conn.Close()
		if cause := context.Cause(req.Context()); cause != nil {
			err = cause
		}
		return nil, err
	}
	resp.Body = &responseBody{ReadCloser: resp.Body, stop: stop, conn: conn}
	return resp, nil
}

func (t *Transport) dial(ctx context.Context, host string) (net.Conn, error) {
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
	return conn, nil
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
func exchange(conn net.Conn, req *http.Request, body io.Reader, most int64) (*http.Response, error) {
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n", req.Method, req.URL.RequestURI(), req.URL.Host)
	header := req.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Connection", "close")
	header.Set("Content-Length", strconv.FormatInt(req.ContentLength, 10))
	if err := header.Write(&head); err != nil {
		return nil, err
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
	resp, readErr := readResponse(conn, req, most)
	if readErr != nil {
		return nil, errors.Join(err, readErr)
	}
	return resp, nil
}

func readResponse(conn net.Conn, req *http.Request, most int64) (*http.Response, error) {
	limited := &io.LimitedReader{R: conn, N: maxResponseHeader}
	buffer := bufio.NewReader(limited)
	for {
		resp, err := http.ReadResponse(buffer, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= 200 {
			limited.N = most // callers may bound it closer
			resp.Body = &wipingBody{ReadCloser: resp.Body, buffer: buffer}
			return resp, nil
		}
	}
}

// wipingBody overwrites the read buffer when it is closed: the answer may have echoed what was sent.
type wipingBody struct {
	io.ReadCloser
	buffer *bufio.Reader
}

func (b *wipingBody) Close() error {
	// ReadCloser.Close would read the rest of the body; the connection is dropped, so nobody needs that.
	b.buffer.Reset(zeros{})
	_, _ = b.buffer.Peek(b.buffer.Size())
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type responseBody struct {
	io.ReadCloser
	stop func() bool
	conn net.Conn
}

func (b *responseBody) Close() error {
	b.stop()
	return errors.Join(b.ReadCloser.Close(), b.conn.Close())
}
