package intake

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

const (
	// maxLine is the longest line, or body, that carries one card.
	maxLine = 1 << 10
	// maxLines is how many lines come in one piece, at most.
	maxLines = 4096
	// streamBuffer is what is read of a body at once; a TLS record has 16 KiB.
	streamBuffer = 64 << 10
)

// readAll fills buf, of locked memory, with a whole body.
func readAll(body io.Reader, buf []byte) ([]byte, error) {
	n := 0
	for n < len(buf) {
		m, err := body.Read(buf[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return buf[:n], nil
		}
		if err != nil {
			return nil, brokenBody(err)
		}
	}
	if m, err := body.Read(make([]byte, 1)); m == 0 && errors.Is(err, io.EOF) {
		return buf, nil
	}
	return nil, pci.ErrTooLarge
}

func brokenBody(err error) error {
	if _, limited := errors.AsType[*http.MaxBytesError](err); limited {
		return pci.ErrTooLarge
	}
	return malformed("it ends early")
}

// batch is a piece of a body: a place in cards for each line, empty where errs has what is wrong with it.
type batch struct {
	cards *pan.Batch
	errs  []error
}

func newBatch() (*batch, error) {
	cards, err := pan.NewBatch(maxLines)
	if err != nil {
		return nil, err
	}
	return &batch{cards: cards}, nil
}

// put takes what became of a line: a card has its place already, an error takes one.
func (b *batch) put(err error) {
	b.errs = append(b.errs, err)
	if err != nil {
		b.cards.Empty(b.cards.Len())
	}
}

// lines is a body on its way from the connection to the HSM. One goroutine reads, another takes what has been read.
type lines struct {
	buf  *pan.Area
	held []byte // of buf: the beginning of a line whose end has not come yet
	skip bool   // the rest of a line that is too long is passed over

	unseal func(cardText) (*recipient, error)
	plain  bool       // a line may be an open card
	first  bool       // the next line is the first one
	sealed *recipient // of a sealed stream

	mu      sync.Mutex
	changed sync.Cond
	open    *batch // takes lines
	taken   *batch // the last one that was taken; whoever takes the next has done with it
	ended   bool
}

func newLines(open bool, unseal func(cardText) (*recipient, error)) (*lines, error) {
	l := &lines{plain: open, unseal: unseal, first: true}
	l.changed.L = &l.mu
	var err error
	if l.buf, err = pan.NewArea(streamBuffer); err != nil {
		return nil, err
	}
	if l.open, err = newBatch(); err == nil {
		l.taken, err = newBatch()
	}
	if err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// release wipes what was read. Nobody reads or takes any more.
func (l *lines) release() {
	l.buf.Release()
	if l.sealed != nil {
		l.sealed.release()
	}
	for _, b := range []*batch{l.open, l.taken} {
		if b != nil {
			b.cards.Release()
		}
	}
}

// end lets nobody wait any more.
func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.changed.Broadcast()
}

// take waits for lines and returns all that are there, until the next call; nil where no more will come.
func (l *lines) take() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.open.cards.Len() == 0 && !l.ended {
		l.changed.Wait()
	}
	if l.open.cards.Len() == 0 {
		return nil
	}
	l.taken.cards.Reset()
	l.taken.errs = l.taken.errs[:0]
	l.open, l.taken = l.taken, l.open
	l.changed.Broadcast()
	return l.taken
}

// put adds a line to those that wait, once there is room. It reports false after the end.
func (l *lines) put(line []byte, wrong error) (more bool, err error) {
	var c cardText
	if wrong == nil {
		c, wrong = parseCardJSON(line)
	}
	first := l.first
	l.first = false
	if first && wrong == nil && c.beginsStream() {
		sealed, err := l.unseal(c)
		if err == nil { // no line could be opened without it, so an error is the stream's
			l.sealed = sealed
		}
		return err == nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.open.cards.Len() == maxLines && !l.ended {
		l.changed.Wait()
	}
	if l.ended {
		return false, nil
	}
	if l.open.cards.Len() == 0 {
		l.changed.Broadcast()
	}
	if wrong == nil {
		wrong = l.add(c)
	}
	l.open.put(wrong)
	return true, nil
}

// add reads a line's card into the next place of the open batch.
func (l *lines) add(c cardText) error {
	switch {
	case l.sealed == nil && !l.plain && !c.isSealed():
		return pci.ErrOpenCard
	case l.sealed == nil:
		return c.addTo(l.open.cards)
	case c.ct == nil || c.key != nil || c.enc != nil || c.number != nil || c.expiry != nil:
		return malformed("a line of a sealed stream is a ct alone")
	default:
		return l.sealed.addTo(l.open.cards, c.ct)
	}
}

// readFrom reads a body to its end. The last line needs no newline.
func (l *lines) readFrom(body io.Reader) error {
	buf := l.buf.Bytes()[:streamBuffer]
	for {
		n, err := body.Read(buf[len(l.held):])
		more, putErr := l.split(buf[:len(l.held)+n])
		switch {
		case putErr != nil || !more:
			return putErr
		case errors.Is(err, io.EOF):
			if len(l.held) > 0 {
				_, putErr = l.put(l.held, nil)
			}
			return putErr
		case err != nil:
			return brokenBody(err)
		}
	}
}

// split puts the whole lines of text, which begins with what was held, and holds the rest at the beginning of the buffer.
func (l *lines) split(text []byte) (more bool, err error) {
	rest := text
	for {
		at := bytes.IndexByte(rest, '\n')
		if at < 0 {
			break
		}
		line := rest[:at]
		rest = rest[at+1:]
		if l.skip {
			l.skip = false
			continue
		}
		if more, err := l.put(line, tooLong(line)); !more || err != nil {
			return more, err
		}
	}
	if len(rest) > maxLine && !l.skip { // its end is not waited for
		if more, err := l.put(nil, pci.ErrTooLarge); !more || err != nil {
			return more, err
		}
		l.skip = true
	}
	if l.skip {
		rest = rest[:0]
	}
	l.held = text[:copy(text, rest)]
	return true, nil
}

func tooLong(line []byte) error {
	if len(line) > maxLine {
		return pci.ErrTooLarge
	}
	return nil
}
