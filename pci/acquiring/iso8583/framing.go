package iso8583

import (
	"errors"
	"fmt"
	"io"
)

// MaxFrame is the longest message that is read or written, in bytes.
const MaxFrame = 8192

// ErrFrame means that a stream's length header cannot be true. What follows on the stream has no meaning: close it.
var ErrFrame = errors.New("iso8583: bad frame length")

// Header is how a message's length stands before it on a stream. The length does not count the header itself.
type Header string

// The headers.
const (
	Binary2 Header = "binary2" // two bytes, big endian
	ASCII4  Header = "ascii4"  // four decimal characters
	BCD2    Header = "bcd2"    // two bytes of BCD
)

// HeaderNamed returns the header with that name. The empty name is [Binary2].
func HeaderNamed(name string) (Header, error) {
	switch h := Header(name); h {
	case "":
		return Binary2, nil
	case Binary2, ASCII4, BCD2:
		return h, nil
	}
	return "", fmt.Errorf("iso8583: no length header is named %q; there are %q, %q and %q", name, Binary2, ASCII4, BCD2)
}

// Size returns the header's length in bytes.
func (h Header) Size() int {
	if h == ASCII4 {
		return 4
	}
	return 2
}

// Put writes the header of the message that follows it in frame: frame is a header's room and the whole message.
func (h Header) Put(frame []byte) error {
	n := len(frame) - h.Size()
	if n < 0 || n > MaxFrame {
		return fmt.Errorf("%w: %d", ErrFrame, n)
	}
	switch h {
	case ASCII4:
		putNumber(frame[:4], ASCII, n)
	case BCD2:
		putNumber(frame[:2], BCD, n)
	default:
		frame[0], frame[1] = byte(n>>8), byte(n)
	}
	return nil
}

// length reads a header.
func (h Header) length(head []byte) (n int, ok bool) {
	switch h {
	case ASCII4:
		return number(head, ASCII)
	case BCD2:
		return number(head, BCD)
	}
	return int(head[0])<<8 | int(head[1]), true
}

// ReadFrame reads the next message into buf and returns it as a part of buf. It uses no other memory. A message
// of length zero, by which some hosts keep a connection open, is returned as such.
//
// A stream that ends between messages is [io.EOF], within one [io.ErrUnexpectedEOF]; a length that is not a number,
// or beyond buf or [MaxFrame], is [ErrFrame].
func (h Header) ReadFrame(r io.Reader, buf []byte) ([]byte, error) {
	if len(buf) < h.Size() {
		return nil, fmt.Errorf("%w: no room for it", ErrFrame)
	}
	head := buf[:h.Size()]
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n, ok := h.length(head)
	if !ok {
		return nil, fmt.Errorf("%w: not a number", ErrFrame)
	}
	if n > MaxFrame || n > len(buf) {
		return nil, fmt.Errorf("%w: %d exceeds %d", ErrFrame, n, min(len(buf), MaxFrame))
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return buf[:n], nil
}
