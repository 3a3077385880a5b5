// Package intake is how a card enters: it reads a request's body, which nobody else has read, and hands the card
// to custody.
//
// The body goes straight from the connection into locked memory, is parsed there without copies, and is wiped
// before [Forms.Take] returns. What leaves the package has no digits.
//
// What comes sealed is opened into locked memory too. The buffers of the HTTP and TLS layers, through which an open card
// passes, are wiped by package wire.
//
// # What is not promised
//
// Whether what is sealed was taken before is for the caller to find out, who has what it came in ([pci.Envelope]).
package intake

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
	"github.com/finterra/finpay/pci/wire"
)

// The inputs of the card form beside those of package pci.
const (
	fieldForm = "form"
	fieldKey  = "key"
	fieldEnc  = "enc"
	fieldCT   = "ct"
)

// maxName is the longest cardholder name of EMV 3DS (cardholderName, 2 to 45 characters).
const maxName = 45

// Forms takes cards from HTML forms (application/x-www-form-urlencoded).
type Forms struct {
	cards lend.Custody
	keys  Keys
	open  bool
	now   func() time.Time
	turns *turns
}

// New returns an intake that hands cards to a store. Where open is false, they are taken sealed only. now may be nil.
func New(cards *custody.Store, keys Keys, open bool, now func() time.Time) *Forms {
	if now == nil {
		now = time.Now
	}
	return &Forms{cards: lend.OfCustody(cards), keys: keys, open: open, now: now, turns: newTurns(formsAtOnce, formsOfPayment)}
}

// TakesOpen reports whether a form may come open.
func (f *Forms) TakesOpen() bool { return f.open }

// Take reads a card from the unread body of r and holds it in custody, bound to a payment. A form that is sealed must have
// been under aad and [pci.SealedCheckoutInfo]; one that came open where none may is [pci.ErrOpenCard]. What is wrong with the card is [pci.CardErrors]; what is wrong with the body is [pci.ErrMalformed] or [pci.ErrTooLarge]. Where too many bodies
// are being read, of all or of this binding, it waits a few seconds and is [pci.ErrFull] then.
func (f *Forms) Take(r *http.Request, payment string, aad []byte) (pci.CardRef, pci.Entered, error) {
	done, err := f.turns.take(r.Context(), payment)
	if err != nil {
		return pci.CardRef{}, pci.Entered{}, err
	}
	defer done()
	slot, err := pan.NewSlot()
	if err != nil {
		return pci.CardRef{}, pci.Entered{}, err
	}
	defer slot.Release()
	body, err := readForm(r, slot.Bytes())
	wire.Wipe(r.Context(), body)
	if err != nil {
		return pci.CardRef{}, pci.Entered{}, err
	}
	card, entered, err := f.read(body, aad)
	if err != nil {
		return pci.CardRef{}, entered, err
	}
	defer card.Release()
	ref, err := f.cards.Hold(r.Context(), card, payment)
	if err != nil {
		return pci.CardRef{}, entered, fmt.Errorf("take card: %w", err)
	}
	return ref, entered, nil
}

// read returns the card of a form, open or sealed under aad.
func (f *Forms) read(body, aad []byte) (*pan.Card, pci.Entered, error) {
	in, err := parse(body)
	switch {
	case err != nil:
		return nil, pci.Entered{}, err
	case in.isSealed():
		return f.unseal(in, aad)
	case !f.open:
		return nil, pci.Entered{}, pci.ErrOpenCard
	}
	return f.card(in)
}

// unseal opens a form of key, enc and ct, and returns the card of the form in it.
func (f *Forms) unseal(in form, aad []byte) (*pan.Card, pci.Entered, error) {
	if in.key == nil || in.enc == nil || in.ct == nil || in.isOpen() {
		return nil, pci.Entered{}, malformed("a sealed form has key, enc and ct, and nothing else")
	}
	r, err := newRecipient(f.keys, in.sealedText, pci.SealedCheckoutInfo(), aad)
	if err != nil {
		return nil, pci.Entered{}, err
	}
	defer r.release()
	plain, err := r.open(in.ct)
	if err != nil {
		return nil, pci.Entered{}, err
	}
	inner, err := parse(plain)
	if err == nil && inner.isSealed() {
		err = malformed("a sealed form is in a sealed form")
	}
	if err != nil {
		return nil, pci.Entered{}, err
	}
	card, entered, err := f.card(inner)
	entered.Envelope = r.envelope
	return card, entered, err
}

// readForm fills buf, of locked memory, with the whole body.
func readForm(r *http.Request, buf []byte) ([]byte, error) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" {
		return nil, malformed("it is not application/x-www-form-urlencoded")
	}
	n := 0
	for n < len(buf) {
		m, err := r.Body.Read(buf[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return buf[:n], nil
		}
		if _, limited := errors.AsType[*http.MaxBytesError](err); limited {
			return nil, pci.ErrTooLarge
		}
		if err != nil {
			return nil, malformed("it ends early")
		}
	}
	return nil, pci.ErrTooLarge
}

// form is a parsed body: slices of the same locked memory.
type form struct {
	number, expiry, cvv, name, id []byte
	browser                       pci.BrowserFields
	sealedText
}

func (f form) isSealed() bool { return f.key != nil || f.enc != nil || f.ct != nil }

func (f form) isOpen() bool {
	return f.number != nil || f.expiry != nil || f.cvv != nil || f.name != nil || f.id != nil || f.browser.Any()
}

func parse(body []byte) (form, error) {
	var f form
	seen := make(map[string]bool, 8)
	for pair := range bytes.SplitSeq(body, []byte("&")) {
		if len(pair) == 0 {
			continue
		}
		name, value, _ := bytes.Cut(pair, []byte("="))
		value, ok := unescape(value)
		if !ok {
			return form{}, malformed("a value is not percent-encoded UTF-8")
		}
		field := f.field(name)
		if field == nil {
			return form{}, malformed("it has a field that is not of this form")
		}
		if seen[string(name)] {
			return form{}, malformed("a field stands in it twice")
		}
		seen[string(name)] = true
		*field = value
	}
	return f, nil
}

func (f *form) field(name []byte) *[]byte {
	switch string(name) {
	case string(pci.FieldNumber):
		return &f.number
	case string(pci.FieldExpiry):
		return &f.expiry
	case string(pci.FieldCVV):
		return &f.cvv
	case string(pci.FieldName):
		return &f.name
	case fieldForm:
		return &f.id
	case fieldKey:
		return &f.key
	case fieldEnc:
		return &f.enc
	case fieldCT:
		return &f.ct
	default:
		return f.browser.Field(string(name))
	}
}

// unescape decodes a form value in place (WHATWG URL, application/x-www-form-urlencoded parsing) and refuses
// control characters and what is not UTF-8.
func unescape(v []byte) ([]byte, bool) {
	out := v[:0]
	for i := 0; i < len(v); i++ {
		switch c := v[i]; c {
		case '+':
			out = append(out, ' ')
		case '%':
			if i+2 >= len(v) {
				return nil, false
			}
			high, low := unhex(v[i+1]), unhex(v[i+2])
			if high > 15 || low > 15 {
				return nil, false
			}
			out = append(out, high<<4|low)
			i += 2
		default:
			out = append(out, c)
		}
	}
	for _, c := range out {
		if c < ' ' || c == 0x7f {
			return nil, false
		}
	}
	return out, utf8.Valid(out)
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	default:
		return 0xff
	}
}

// card checks every field, so that the shopper sees all that is wrong at once.
func (f *Forms) card(in form) (*pan.Card, pci.Entered, error) {
	entered := pci.Entered{Browser: in.browser.Read()}
	var wrong pci.CardErrors
	refuse := func(err error) bool {
		if e, ok := errors.AsType[*pci.CardError](err); ok {
			wrong = append(wrong, e)
			return true
		}
		return false
	}
	if len(in.id) > 0 && isFormID(in.id) {
		entered.Form = string(in.id)
	}
	name, err := cardholder(in.name)
	if !refuse(err) {
		entered.Name = name
	}
	number := withoutSpaces(in.number)
	numberErr := pan.CheckPAN(number)
	refuse(numberErr)
	expiry, err := parseExpiry(in.expiry)
	if !refuse(err) && !expiry.Valid(f.now()) {
		refuse(&pci.CardError{Field: pci.FieldExpiry, Reason: pci.ReasonExpired})
	}
	cvv := withoutSpaces(in.cvv)
	if numberErr == nil {
		refuse(pan.CheckCVV(number, cvv))
	} else {
		refuse(pan.CheckAnyCVV(cvv))
	}
	if len(wrong) > 0 {
		return nil, entered, wrong
	}
	card, err := pan.New(number, cvv, expiry)
	if err != nil {
		return nil, entered, err
	}
	entered.Card = card.Describe()
	return card, entered, nil
}

// isFormID accepts what a page may have put into the form: up to 64 hexadecimal digits, not all of them decimal.
// Anything else, a card number among it, is dropped, so that nothing a browser sends is kept by accident.
func isFormID(id []byte) bool {
	letters := false
	for _, c := range id {
		if unhex(c) > 15 {
			return false
		}
		letters = letters || c > '9'
	}
	return letters && len(id) <= 64
}

// cardholder accepts a name of 2 to 45 characters, or none. Digits of any script are refused: a number that was typed
// into the wrong field must not be kept as a name.
func cardholder(name []byte) (string, error) {
	name = bytes.TrimSpace(name)
	switch {
	case len(name) == 0:
		return "", nil
	case utf8.RuneCount(name) > maxName:
		return "", &pci.CardError{Field: pci.FieldName, Reason: pci.ReasonTooLong}
	case utf8.RuneCount(name) < 2, bytes.ContainsFunc(name, notInNames):
		return "", &pci.CardError{Field: pci.FieldName, Reason: pci.ReasonFormat}
	}
	return string(name), nil
}

func notInNames(r rune) bool {
	return unicode.IsNumber(r) || unicode.IsControl(r) || r == '<' || r == '>' || r == utf8.RuneError
}

// withoutSpaces drops the spaces and dashes with which people group a number, in place.
func withoutSpaces(v []byte) []byte {
	out := v[:0]
	for _, c := range v {
		if c != ' ' && c != '-' {
			out = append(out, c)
		}
	}
	return out
}

// parseExpiry reads MM/YY, MM / YY, MMYY, MM/YYYY and YYYY-MM, which <input type=month> sends.
func parseExpiry(v []byte) (pci.Expiry, error) {
	v = bytes.TrimSpace(v)
	if len(v) == 0 {
		return pci.Expiry{}, &pci.CardError{Field: pci.FieldExpiry, Reason: pci.ReasonMissing}
	}
	bad := &pci.CardError{Field: pci.FieldExpiry, Reason: pci.ReasonFormat}
	if len(v) == 7 && v[4] == '-' {
		year, okYear := decimal(v[:4])
		month, okMonth := decimal(v[5:])
		if !okYear || !okMonth || month < 1 || month > 12 || year < 2000 || year > 2099 {
			return pci.Expiry{}, bad
		}
		return pci.Expiry{Year: year, Month: month}, nil
	}
	var digits [6]byte
	n := 0
	for _, c := range v {
		switch {
		case c >= '0' && c <= '9' && n < len(digits):
			digits[n] = c
			n++
		case c == '/' && n == 2, c == ' ', c == '-' && n == 2:
		default:
			return pci.Expiry{}, bad
		}
	}
	if n != 4 && n != 6 {
		return pci.Expiry{}, bad
	}
	month, _ := decimal(digits[:2])
	year, _ := decimal(digits[2:n])
	if n == 4 {
		year += 2000
	}
	if month < 1 || month > 12 || year < 2000 || year > 2099 {
		return pci.Expiry{}, bad
	}
	return pci.Expiry{Year: year, Month: month}, nil
}

func decimal(v []byte) (n int, ok bool) {
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}
