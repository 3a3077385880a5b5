package intake

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/pci/tokenization"
	"github.com/finterra/finpay/pci/wire"
)

// Tokens takes cards for which nothing but a token is wanted: they go from the body to their tokens in locked memory, and
// into no custody. They come open, or sealed to a key in the HSM.
type Tokens struct {
	batches lend.Batches
	keys    Keys
	open    bool
	turns   *turns
}

// NewTokens returns an intake whose cards become tokens of a service. Where open is false, they are taken sealed only.
func NewTokens(service *tokenization.Service, keys Keys, open bool) *Tokens {
	return newTokens(lend.OfBatches(service), keys, open)
}

func newTokens(batches lend.Batches, keys Keys, open bool) *Tokens {
	return &Tokens{batches, keys, open, newTurns(cardsAtOnce, cardsOfKey)}
}

// One reads the body of r, one card in JSON, and computes its token in a domain. A sealed card must have been sealed under
// info. What is wrong with the card is its error too. Nothing is issued until the caller has entered the token.
func (t *Tokens) One(r *http.Request, domain string, info []byte) (pci.Tokenized, error) {
	read, err := t.turns.take(r.Context(), string(info)) // which is an API key's
	if err != nil {
		return pci.Tokenized{}, err
	}
	slot, err := pan.NewSlot()
	if err != nil {
		read()
		return pci.Tokenized{}, err
	}
	defer slot.Release()
	body, err := readAll(r.Body, slot.Bytes()[:maxLine])
	wire.Wipe(r.Context(), body)
	read()
	if err != nil {
		return pci.Tokenized{}, err
	}
	cards, err := pan.NewBatch(1)
	if err != nil {
		return pci.Tokenized{}, err
	}
	defer cards.Release()
	envelope, err := t.add(cards, body, info)
	if err != nil {
		return pci.Tokenized{}, err
	}
	var out [1]pci.Tokenized
	if err := t.batches.TokenizeAll(r.Context(), domain, cards, out[:]); err != nil {
		return pci.Tokenized{}, err
	}
	out[0].Envelope = envelope
	return out[0], out[0].Err
}

// add reads a card in JSON, open or sealed, into the next place of a batch.
func (t *Tokens) add(cards *pan.Batch, text, info []byte) (envelope pci.Envelope, err error) {
	c, err := parseCardJSON(text)
	if err != nil {
		return envelope, err
	}
	switch {
	case c.isSealed():
	case !t.open:
		return envelope, pci.ErrOpenCard
	default:
		return envelope, c.addTo(cards)
	}
	if c.key == nil || c.enc == nil || c.ct == nil || c.number != nil || c.expiry != nil {
		return envelope, malformed("a sealed card has key, enc and ct, and nothing else")
	}
	r, err := newRecipient(t.keys, c.sealedText, info, nil)
	if err != nil {
		return envelope, err
	}
	defer r.release()
	return r.envelope, r.addTo(cards, c.ct)
}

// addCard reads an open card in JSON, where it stands, into the next place of a batch. After an error it has taken none.
func addCard(cards *pan.Batch, text []byte) error {
	c, err := parseCardJSON(text)
	if err != nil {
		return err
	}
	return c.addTo(cards)
}

func (c cardText) addTo(cards *pan.Batch) error {
	expiry, err := c.check()
	if err != nil {
		return err
	}
	return cards.Add(c.number, expiry)
}

// Stream reads NDJSON, one card a line, open or sealed under info, and calls each with what became of them, in the order of
// the lines: as many at a time as have arrived while the last ones were under way, so that a single line is not kept waiting
// and a flood comes in large pieces. A sealed stream is first shown to begin. What is wrong with a line is its result. It
// ends with the body, with ctx, or with the first error of begin or each, for which it closes the body; it has stopped
// reading when it returns.
func (t *Tokens) Stream(ctx context.Context, body io.ReadCloser, domain string, info []byte, begin func(pci.Envelope) error,
	each func([]pci.Tokenized) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines, err := newLines(t.open, func(c cardText) (*recipient, error) {
		r, err := newRecipient(t.keys, c.sealedText, info, nil)
		if err == nil {
			if err = begin(r.envelope); err != nil {
				r.release()
			}
		}
		return r, err
	})
	if err != nil {
		return err
	}
	defer lines.release()
	read := make(chan error, 1)
	go func() {
		err := lines.readFrom(body)
		wire.Wipe(ctx, nil) // nothing follows before it is answered
		lines.end()
		read <- err
	}()
	results := make(chan []pci.Tokenized, 1) // one batch is computed while the one before is entered
	computed := make(chan error, 1)
	go func() {
		defer close(results)
		computed <- t.compute(ctx, lines, domain, results)
	}()
	var failed error
	for batch := range results {
		if failed != nil {
			continue // until the one who computes has noticed
		}
		if failed = each(batch); failed != nil {
			cancel()
			_ = body.Close()
			lines.end()
		}
	}
	if err := <-computed; err != nil {
		_ = body.Close()
		lines.end()
		failed = errors.Join(failed, err)
	}
	return errors.Join(failed, <-read)
}

// compute turns batches of lines into results, until there are no more.
func (t *Tokens) compute(ctx context.Context, lines *lines, domain string, results chan<- []pci.Tokenized) error {
	for batch := lines.take(); batch != nil; batch = lines.take() {
		out := make([]pci.Tokenized, batch.cards.Len())
		err := t.batches.TokenizeAll(ctx, domain, batch.cards, out)
		for i := range out {
			switch {
			case batch.errs[i] != nil:
				out[i] = pci.Tokenized{Err: batch.errs[i]}
			case err != nil: // of the HSM, say: the next lines may fare better
				out[i] = pci.Tokenized{Err: err}
			}
		}
		select {
		case results <- out:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
