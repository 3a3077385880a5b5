package stripe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/pci/wire"
)

// The paths that are asked.
const (
	pathMethods = "/v1/payment_methods"
	pathIntents = "/v1/payment_intents"
	pathRefunds = "/v1/refunds"
)

// maxAnswer bounds an answer, in bytes: a page of a hundred payment intents of some 5 kB each.
const maxAnswer = 1 << 20

// form is a body of typed fields (application/x-www-form-urlencoded), in locked memory.
type form struct{ message *pan.Message }

func newForm() (*form, error) {
	m, err := pan.NewMessage()
	if err != nil {
		return nil, err
	}
	return &form{m}, nil
}

func (f *form) name(name string) {
	if f.message.Len() > 0 {
		f.message.Append([]byte("&"))
	}
	f.message.Append([]byte(url.QueryEscape(name)))
	f.message.Append([]byte("="))
}

func (f *form) text(name, value string) {
	f.name(name)
	f.message.Append([]byte(url.QueryEscape(value)))
}

func (f *form) optional(name, value string) {
	if value != "" {
		f.text(name, value)
	}
}

func (f *form) number(name string, value int64) { f.text(name, strconv.FormatInt(value, 10)) }

// card adds the number and, where there is one, the security code.
func (f *form) card(card *pan.Card) {
	f.name("card[number]")
	f.message.AppendPAN(card)
	f.number("card[exp_month]", int64(card.Expiry().Month))
	f.number("card[exp_year]", int64(card.Expiry().Year))
	if card.HasCVV() {
		f.name("card[cvc]")
		f.message.AppendCVV(card)
	}
}

// wipe is harmless on a form that was never made.
func (f *form) wipe() {
	if f != nil {
		f.message.Wipe()
	}
}

// apiError is an answer of Stripe that is none of success.
type apiError struct {
	status  int
	failure failure // zero where it could not be read
	read    bool
}

func (e *apiError) Error() string {
	return fmt.Sprintf("stripe: HTTP %d, type %s, code %s, decline code %s", e.status, shown(e.failure.Error.Type), shown(e.failure.Error.Code), shown(e.failure.Error.DeclineCode))
}

// untouched reports whether Stripe says that it has done nothing for the request: it was not valid, or not allowed.
func (e *apiError) untouched() bool {
	switch e.status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return e.read && e.failure.Error.Type == typeInvalidRequest && e.failure.Error.PaymentIntent == nil
	}
	return false
}

// refused reports whether the card was.
func (e *apiError) refused() bool {
	return e.status == http.StatusPaymentRequired && e.read && e.failure.Error.Type == typeCard
}

// passing reports whether another try may be answered better.
func (e *apiError) passing() bool {
	return e.status == http.StatusConflict || e.status == http.StatusTooManyRequests || e.status >= 500 || e.status >= 400 && !e.read
}

// post sends a form under an idempotency key, which may be empty, and reads the answer into what. An error is
// [ErrUnreachable], [ErrNoAnswer] or an [*apiError].
func (c *Connector) post(ctx context.Context, path string, f *form, key string, what any) error {
	if err := f.message.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	request.Body, request.ContentLength = f.message.Body(), int64(f.message.Len())
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	return c.exchange(request, f.message.Mask, what)
}

// get reads an object, or a page of a list.
func (c *Connector) get(ctx context.Context, path string, query url.Values, what any) error {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return c.exchange(request, func([]byte) {}, what)
}

// exchange sends a request, masks the answer, and reads it into what. It goes to the transport itself: nothing follows a
// redirect, and no proxy of the environment is used.
func (c *Connector) exchange(request *http.Request, mask func([]byte), what any) error {
	ctx, cancel := context.WithTimeout(request.Context(), c.cfg.AnswerTimeout)
	defer cancel()
	request.Header.Set("Authorization", "Bearer "+c.cfg.Key.text)
	request.Header.Set("Stripe-Version", Version)
	request.Header.Set("Accept", "application/json")
	response, err := c.transport.RoundTrip(request.WithContext(ctx))
	if errors.Is(err, wire.ErrNotSent) {
		c.healthy.Store(false)
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	body, err := read(response)
	defer clear(body)
	mask(body) // before anyone reads it, a damaged one too
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	if response.StatusCode != http.StatusOK {
		failed := &apiError{status: response.StatusCode}
		failed.read = json.Unmarshal(body, &failed.failure) == nil
		if failed.status == http.StatusUnauthorized || failed.status == http.StatusForbidden {
			c.healthy.Store(false)
		}
		return failed
	}
	if err := json.Unmarshal(body, what); err != nil {
		return fmt.Errorf("%w: the body is not the object that was asked for", ErrNoAnswer) // err would quote it
	}
	return nil
}

// read returns a bounded body, in memory that is cleared if it moves.
func read(response *http.Response) ([]byte, error) {
	defer func() { _ = response.Body.Close() }()
	body := make([]byte, 0, 32<<10)
	for {
		n, err := response.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case err == io.EOF: //nolint:errorlint // io.Reader returns it bare
			return bytes.TrimSpace(body), nil
		case err != nil:
			return body, errors.New("the body ended early")
		case len(body) > maxAnswer:
			return body, errors.New("the body is too long")
		case len(body) == cap(body):
			larger := make([]byte, len(body), 2*cap(body))
			copy(larger, body)
			clear(body)
			body = larger
		}
	}
}
