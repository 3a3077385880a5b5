package acquiring

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/pci/wire"
)

// builder appends a message to dst, within its capacity. scratch is for parts of it; both are in locked memory.
type builder func(ctx context.Context, dst, scratch []byte) ([]byte, error)

// messageRoom is the part of a slot in which a message is built; the rest is a builder's scratch. The longest message
// is about 1,300 bytes, most of them a full DE 48.
const messageRoom = 3072

// line is one connection to the host, from its dialling to its end.
type line struct {
	conn    net.Conn
	sent    *countingConn // below conn: what really left
	header  iso8583.Header
	timeout time.Duration // of a write, and of a message that has begun to come

	writing sync.Mutex
	opened  time.Time
	heard   atomic.Int64 // when the last message came, nanoseconds after opened; 0 before the first one

	ending sync.Once
	err    error         // why it ended; read after done
	done   chan struct{} // closed when the reader has ended
}

// countingConn counts the bytes that the kernel took. Above it TLS reports zero bytes for a record that was sent
// in part, which must not pass for a request that never left.
type countingConn struct {
	net.Conn
	written atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// dial connects, with TLS where it is configured.
func (c *Connector) dial(ctx context.Context) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", c.cfg.Address)
	if err != nil {
		return nil, err
	}
	l, err := c.open(ctx, tcp)
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	return l, nil
}

// open makes a line of a connection and starts its reader, which wipes each message after receive.
func (c *Connector) open(ctx context.Context, tcp net.Conn) (*line, error) {
	counting := &countingConn{Conn: tcp}
	l := &line{conn: counting, sent: counting, header: c.header, timeout: c.cfg.AnswerTimeout,
		opened: time.Now(), done: make(chan struct{})}
	if c.cfg.TLS != nil {
		secured := wire.Client(counting, c.tlsConfig()) // an answer that echoes the number is not left in its buffer
		if err := secured.Handshake(ctx); err != nil {
			return nil, err
		}
		l.conn = secured
	}
	slot, err := pan.NewSlot()
	if err != nil {
		return nil, err
	}
	m := new(iso8583.Message)
	go l.read(slot, func(message []byte) { c.receive(l, m, message) })
	return l, nil
}

// tlsConfig names the host as dialled where the configuration does not, as [tls.Dial] does.
func (c *Connector) tlsConfig() *tls.Config {
	if c.cfg.TLS.ServerName != "" {
		return c.cfg.TLS
	}
	cfg := c.cfg.TLS.Clone()
	if host, _, err := net.SplitHostPort(c.cfg.Address); err == nil {
		cfg.ServerName = host
	}
	return cfg
}

// frameReader reads one message. One that has begun has its time to end: a length that is wrong would make the reader take the
// next answers for its rest, or wait for ever.
type frameReader struct {
	*line
	begun bool
}

func (r *frameReader) Read(p []byte) (int, error) {
	n, err := r.conn.Read(p)
	if n > 0 && !r.begun {
		r.begun = true
		_ = r.sent.SetReadDeadline(time.Now().Add(r.timeout)) // where it fails, the next read does
	}
	return n, err
}

// read receives until the connection ends.
func (l *line) read(slot *pan.Slot, receive func(message []byte)) {
	defer close(l.done)
	defer slot.Release()
	reader := &frameReader{line: l}
	for {
		reader.begun = false
		_ = l.sent.SetReadDeadline(time.Time{})
		message, err := l.header.ReadFrame(reader, slot.Bytes())
		if err != nil {
			l.end(fmt.Errorf("read: %w", err))
			return
		}
		l.heard.Store(int64(time.Since(l.opened)))
		if len(message) > 0 {
			receive(message)
		}
		clear(slot.Bytes())
	}
}

// receive takes one message from the host, with m's memory.
func (c *Connector) receive(l *line, m *iso8583.Message, message []byte) {
	if err := m.Parse(c.spec, message); err != nil {
		c.garbled.Add(1)
		return
	}
	if m.MTI() == c.mti(management) {
		c.serve(context.Background(), l, m)
		return
	}
	a := c.additional.answerOf(m)
	if a.code == "" {
		c.garbled.Add(1)
		return
	}
	c.flights.settle(a, c.cfg.MatchTerminal)
}

// transmit builds a message in locked memory, writes it at once and wipes it. sent is false only when certainly
// not a byte left. A line that could not take a whole message is ended: what follows would have no meaning.
func (l *line) transmit(ctx context.Context, build builder) (sent bool, err error) {
	slot, err := pan.NewSlot()
	if err != nil {
		return false, err
	}
	defer slot.Release()
	memory := slot.Bytes()
	frame, err := build(ctx, memory[:l.header.Size():messageRoom], memory[messageRoom:])
	if err != nil {
		return false, err
	}
	if err := l.header.Put(frame); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	before := l.sent.written.Load()
	if err = l.conn.SetWriteDeadline(time.Now().Add(l.timeout)); err == nil {
		_, err = l.conn.Write(frame)
	}
	if err != nil {
		l.end(fmt.Errorf("write: %w", err))
		return l.sent.written.Load() != before, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return true, nil
}

// end closes the connection; the reader follows. The first reason is kept.
func (l *line) end(reason error) {
	l.ending.Do(func() {
		l.err = reason
		// Closing TLS would wait for a last write; the TCP connection is what matters.
		_ = l.sent.Close()
	})
}

// broken reports whether the reader has ended.
func (l *line) broken() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// silence returns for how long no message has come.
func (l *line) silence() time.Duration { return time.Since(l.opened) - time.Duration(l.heard.Load()) }

var errClosed = errors.New("closed by this side")
