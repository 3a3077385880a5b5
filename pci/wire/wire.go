// Package wire ends TLS for connections that carry cards, and wipes what reading them leaves behind.
//
// Two buffers below a handler keep what they have read, until they are used again: that of crypto/tls, in which each record
// is opened in place, and that of net/http, through which a body comes in pieces. Neither can be asked for. But both are filled
// by calls of Read, whose argument is that very memory; so a connection that lies below each of them knows where its bytes went.
//
//	records  wipes crypto/tls's buffer as soon as it asks for more: then all that was opened has been taken
//	Conn     wipes net/http's buffer when a handler says that it has read a card: [Wipe]
//
// # What is promised
//
// When a handler that has called [Wipe] answers, no byte of the request's body is left in either buffer. Bytes that nobody has
// read yet are never touched.
//
// What is written to a [Client] or sent by a [Transport] is sealed from the caller's memory: no plaintext of it is copied.
//
// # What is not
//
// HTTP/2 has more buffers, in pools of its own, so connections of this package speak HTTP/1.1 only. What a caller puts into the
// address or a header is in strings, which nobody can wipe. Buffers of the kernel are overwritten by the kernel.
package wire

import (
	"context"
	"crypto/tls"
	"net"
)

// NewListener ends TLS for the connections of another listener, as [tls.NewListener] does. config is not changed.
func NewListener(inner net.Listener, config *tls.Config) net.Listener {
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	return &listener{inner, config}
}

type listener struct {
	net.Listener
	config *tls.Config
}

// Accept returns a [*Conn] whose handshake comes with its first Read or Write.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(raw, func(raw net.Conn) *tls.Conn { return tls.Server(raw, l.config) }), nil
}

// sealing are the cipher suites of TLS 1.2 that seal from the caller's memory: ECDHE with AES-GCM or ChaCha20-Poly1305.
var sealing = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Client begins TLS on a connection to a counterparty, as [tls.Client] does, in version 1.2. Its handshake comes with
// [Conn.Handshake], or with its first Read or Write. config is not changed.
//
// In version 1.3 crypto/tls (Go 1.26) appends what it writes to a buffer, then the record's type, and seals in place: where the
// buffer is too small for type or tag, which its pool decides, it grows, and the one before keeps the plaintext. Nobody can
// reach that one to wipe it. In version 1.2 it seals from the caller's memory into the buffer, and no plaintext is copied.
func Client(raw net.Conn, config *tls.Config) *Conn {
	config = config.Clone()
	config.MinVersion, config.MaxVersion, config.CipherSuites = tls.VersionTLS12, tls.VersionTLS12, sealing
	return newConn(raw, func(raw net.Conn) *tls.Conn { return tls.Client(raw, config) })
}

type contextKey struct{}

// ConnContext is for [http.Server.ConnContext]: handlers find their connection by it.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(*Conn); ok {
		return context.WithValue(ctx, contextKey{}, c)
	}
	return ctx
}

// Wipe wipes what is left of a body in the buffer that it came through. ctx is that of the request. body is all that was read of it,
// as it came; what lies behind it in the buffer is the next request, and is kept. Without one all is wiped, and a client that
// has sent its next request already has to send it again. On a connection that is none of this package it does nothing.
func Wipe(ctx context.Context, body []byte) {
	if c, ok := ctx.Value(contextKey{}).(*Conn); ok {
		c.wipeRead(body)
	}
}
