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

// Client begins TLS on a connection to a counterparty, as [tls.Client] does. Its handshake comes with [Conn.Handshake], or
// with its first Read or Write.
func Client(raw net.Conn, config *tls.Config) *Conn {
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
