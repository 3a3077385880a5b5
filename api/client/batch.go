package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/pci"
)

// Result is what became of one card of a batch: its token, or an [*Error].
type Result struct {
	Line   int // of the cards sent, from 1
	Token  pci.Token
	Issued bool // just now; else the card had it already
	Brand  pci.Brand
	// Truncated is the PAN's first six and last four digits.
	Truncated pci.Truncated
	Err       error
}

// Batch is many cards on their way to their tokens: [Batch.Send] in one goroutine, [Batch.Receive] in another. What was
// received is issued, signed and durable; after an error the rest can be sent again in another batch.
type Batch struct {
	sealer *sealer // nil where cards travel open
	out    *sender
	answer chan answered
	lines  *bufio.Scanner
	body   io.Closer
}

type answered struct {
	response *http.Response
	err      error
}

// Batch begins a batch. The caller ends it with [Batch.CloseSend], and has received all when [Batch.Receive] says [io.EOF];
// or it ends with ctx.
func (c *Client) Batch(ctx context.Context) (*Batch, error) {
	b := &Batch{answer: make(chan answered, 1)}
	reader, writer := io.Pipe()
	b.out = newSender(writer)
	if !c.cfg.Open {
		var err error
		if b.sealer, err = c.newSealer(ctx); err != nil {
			return nil, err
		}
		if err := b.out.line(map[string]string{"key": b.sealer.key, "enc": b.sealer.enc}); err != nil {
			return nil, err
		}
	}
	r, err := c.request(ctx, http.MethodPost, "/v1/tokens/batch", reader)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	go func() {
		response, err := c.http.Do(r)
		if err != nil {
			err = withoutURL(err)
		} else if response.StatusCode >= http.StatusBadRequest {
			err = problem(response)
			_ = response.Body.Close()
			if p, ok := errors.AsType[*Error](err); ok && p.Code == api.ErrIntakeKey.Code {
				c.forgetIntakeKey() // another batch gets another
			}
		}
		if err != nil {
			_ = reader.CloseWithError(err) // nobody reads what is sent
		}
		b.answer <- answered{response, err}
	}()
	context.AfterFunc(ctx, b.out.close)
	go b.out.run()
	return b, nil
}

// Send sends a card. It returns before the card has left; an error says that no more can be sent.
func (b *Batch) Send(card Card) error {
	if b.sealer == nil {
		return b.out.line(card)
	}
	ct, err := b.sealer.seal(card)
	if err != nil {
		return err
	}
	return b.out.line(map[string]string{"ct": ct})
}

// CloseSend says that there are no more cards.
func (b *Batch) CloseSend() { b.out.close() }

// Receive returns what became of the next card, in the order in which they were sent; [io.EOF] after the last one.
func (b *Batch) Receive() (Result, error) {
	if b.lines == nil {
		a := <-b.answer
		if a.err != nil {
			b.answer <- a
			return Result{}, a.err
		}
		b.body = a.response.Body
		b.lines = bufio.NewScanner(a.response.Body)
	}
	if !b.lines.Scan() {
		_ = b.body.Close()
		if err := b.lines.Err(); err != nil {
			return Result{}, fmt.Errorf("client: the batch was broken off: %w", err)
		}
		return Result{}, io.EOF
	}
	return readResult(b.lines.Bytes())
}

func readResult(line []byte) (Result, error) {
	var text struct {
		Line   int       `json:"line"`
		Token  pci.Token `json:"token"`
		Issued bool      `json:"issued"`
		Card   struct {
			Brand     pci.Brand     `json:"brand"`
			Truncated pci.Truncated `json:"truncated"`
		} `json:"card"`
		Error *struct{ Code, Detail, Pointer string } `json:"error"`
	}
	if err := json.Unmarshal(line, &text); err != nil {
		return Result{}, errors.New("client: a line of the answer cannot be read")
	}
	r := Result{Line: text.Line, Token: text.Token, Issued: text.Issued, Brand: text.Card.Brand, Truncated: text.Card.Truncated}
	if text.Error != nil {
		r.Err = &Error{Code: text.Error.Code, Detail: text.Error.Detail, Pointer: text.Error.Pointer}
	}
	return r, nil
}

// sender writes lines while the connection takes them: those that come meanwhile go together.
type sender struct {
	pipe *io.PipeWriter

	mu      sync.Mutex
	changed sync.Cond
	waiting []byte
	closed  bool
	err     error
}

// maxWaiting is how many bytes wait for the connection before Send does.
const maxWaiting = 256 << 10

func newSender(pipe *io.PipeWriter) *sender {
	s := &sender{pipe: pipe}
	s.changed.L = &s.mu
	return s
}

func (s *sender) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) > maxWaiting && s.err == nil {
		s.changed.Wait()
	}
	if s.err != nil {
		return s.err
	}
	if s.closed {
		return errors.New("client: the batch takes no more cards")
	}
	s.waiting = append(append(s.waiting, text...), '\n')
	s.changed.Broadcast()
	return nil
}

func (s *sender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.changed.Broadcast()
}

func (s *sender) run() {
	var spare []byte
	for {
		s.mu.Lock()
		for len(s.waiting) == 0 && !s.closed {
			s.changed.Wait()
		}
		text := s.waiting
		s.waiting = spare[:0]
		s.changed.Broadcast()
		s.mu.Unlock()
		if len(text) == 0 {
			_ = s.pipe.Close()
			return
		}
		_, err := s.pipe.Write(text)
		clear(text)
		spare = text
		if err != nil {
			s.mu.Lock()
			s.err = err
			s.changed.Broadcast()
			s.mu.Unlock()
			return
		}
	}
}
