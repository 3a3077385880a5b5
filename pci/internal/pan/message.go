package pan

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// ErrTooLong means that a message does not fit its slot of locked memory.
var ErrTooLong = errors.New("pan: the message is too long")

// Message is what goes to a counterparty with a card in it, in locked memory: its text and the digits are put together
// there, and nowhere else. It takes what fits a [Slot].
type Message struct {
	incomparable

	slot   *Slot
	length int
	digits [2]int // where the PAN stands
	code   [2]int // where the security code stands; nowhere if equal
	full   bool

	// reading guards the slot: net/http may still read a request's body after it gave up on the request, and by then
	// the slot may hold another card.
	reading sync.Mutex
	wiped   bool
}

// NewMessage returns an empty message. Its maker calls [Message.Wipe].
func NewMessage() (*Message, error) {
	slot, err := NewSlot()
	if err != nil {
		return nil, err
	}
	return &Message{slot: slot}, nil
}

// Append adds text. What does not fit makes the message fail as a whole: see [Message.Err].
func (m *Message) Append(text []byte) {
	if m.full = m.full || len(text) > len(m.slot.Bytes())-m.length; !m.full {
		m.length += copy(m.slot.Bytes()[m.length:], text)
	}
}

// AppendPAN adds a card's number.
func (m *Message) AppendPAN(card *Card) {
	from := m.length
	_ = card.RevealPAN(func(digits []byte) error { m.Append(digits); return nil })
	m.digits = [2]int{from, m.length}
}

// AppendCVV adds a card's security code, nothing where there is none.
func (m *Message) AppendCVV(card *Card) {
	from := m.length
	_ = card.RevealCVV(func(digits []byte) error { m.Append(digits); return nil })
	m.code = [2]int{from, m.length}
}

// Err is [ErrTooLong] where something did not fit.
func (m *Message) Err() error {
	if m.full {
		return ErrTooLong
	}
	return nil
}

// Len returns the message's length in bytes.
func (m *Message) Len() int { return m.length }

// Wipe ends the message; readers of its body get an error from then on.
func (m *Message) Wipe() {
	m.reading.Lock()
	defer m.reading.Unlock()
	m.wiped = true
	m.slot.Release()
}

// Mask overwrites each occurrence of the message's PAN in answer, and of its security code where that is a word of its own: three
// digits stand in identifiers and proofs by chance.
func (m *Message) Mask(answer []byte) {
	overwrite(answer, m.slot.Bytes()[m.digits[0]:m.digits[1]], func(int, int) bool { return true })
	overwrite(answer, m.slot.Bytes()[m.code[0]:m.code[1]], func(from, to int) bool {
		return (from == 0 || !isWord(answer[from-1])) && (to == len(answer) || !isWord(answer[to]))
	})
}

// isWord reports whether a byte can stand beside a digit in an identifier or in base64.
func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '+' || c == '/' || c == '='
}

// overwrite puts asterisks over each occurrence of digits that counts.
func overwrite(text, digits []byte, counts func(from, to int) bool) {
	for at := 0; len(digits) > 0; {
		i := bytes.Index(text[at:], digits)
		if i < 0 {
			return
		}
		if at += i; counts(at, at+len(digits)) {
			for j := range digits {
				text[at+j] = '*'
			}
		}
		at++
	}
}

// Body lends the message to an HTTP client. It has [io.WriterTo], so that a transport that knows of it hands locked memory
// to the connection without a copy.
func (m *Message) Body() io.ReadCloser { return &messageBody{m: m} }

type messageBody struct {
	m  *Message
	at int
}

// Read implements [io.Reader].
func (b *messageBody) Read(p []byte) (int, error) {
	b.m.reading.Lock()
	defer b.m.reading.Unlock()
	if b.m.wiped {
		return 0, io.ErrClosedPipe
	}
	if b.at == b.m.length {
		return 0, io.EOF
	}
	n := copy(p, b.m.slot.Bytes()[b.at:b.m.length])
	b.at += n
	return n, nil
}

// WriteTo implements [io.WriterTo].
func (b *messageBody) WriteTo(w io.Writer) (int64, error) {
	b.m.reading.Lock()
	defer b.m.reading.Unlock()
	if b.m.wiped {
		return 0, io.ErrClosedPipe
	}
	n, err := w.Write(b.m.slot.Bytes()[b.at:b.m.length])
	b.at += n
	return int64(n), err
}

// Close implements [io.Closer]; the message belongs to its maker.
func (b *messageBody) Close() error { return nil }
