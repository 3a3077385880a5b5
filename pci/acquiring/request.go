package acquiring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/pci/internal/pan"
)

// kind is what a request asks for.
type kind uint8

const (
	authorization kind = iota
	sale
	refund
	capture
	captureRepeat
	reversal
	reversalRepeat
	reconciliation
	management
)

// kinds are the message types of the requests by edition, and their function codes (ISO 8583:1993, annex A, DE 24). The
// edition of 1993 knows reversals as advices only, and gives network management an originator of its own. The function of
// network management is the caller's.
var kinds = [...]struct{ what, mti1987, mti1993, function string }{
	authorization:  {"authorization", "0100", "1100", "100"},
	sale:           {"sale", "0200", "1200", "200"},
	refund:         {"refund", "0200", "1200", "200"},
	capture:        {"capture", "0220", "1220", "201"},
	captureRepeat:  {"capture", "0221", "1221", "201"},
	reversal:       {"reversal", "0400", "1420", "400"},
	reversalRepeat: {"reversal", "0401", "1421", "400"},
	reconciliation: {"reconciliation", "0500", "1500", "500"},
	management:     {"network management", "0800", "1804", ""},
}

func (k kind) String() string { return kinds[k].what }

// mti returns the type of a request in the edition that the acquirer speaks.
func (c *Connector) mti(k kind) string {
	if c.speaks1993() {
		return kinds[k].mti1993
	}
	return kinds[k].mti1987
}

func (c *Connector) speaks1993() bool { return c.spec.Version == '1' }

// answerTo returns the type of the answer to a request; a repeat is answered as the first one is.
func answerTo(mti string) string {
	last := mti[3]
	if last == '1' {
		last = '0'
	}
	return mti[:2] + string(mti[2]+1) + string(last)
}

// Processing codes (DE 3): from and to default accounts.
const (
	purchase   = "000000" // goods and services
	refundCode = "200000" // returns
)

// maxAmount is the largest DE 4, in minor units.
const maxAmount = 999_999_999_999

// request is a message about a card in the making: what the editions write each in its own way.
type request struct {
	kind     kind
	amount   uint64 // DE 4, minor units
	currency string // DE 49, numeric
	merchant pci.Merchant
	acquirer string    // DE 32, may be empty
	stan     string    // DE 11
	rrn      string    // DE 37
	at       time.Time // DE 7, UTC

	code       string        // DE 3
	sold       time.Time     // DE 12: when the card was charged first, UTC
	stored     bool          // DE 22: the card comes from a token and was not entered
	initiator  pci.Initiator // of a stored one
	earlier    string        // the scheme's identifier of the transaction that a merchant's own one stands on
	exemption  pci.Exemption
	approval   string             // DE 38, of the original
	original   original           // DE 90 or 56
	authorized uint64             // DE 30: of the authorization, where amount is a part of it
	sells      bool               // DE 43, and what follows, go along
	results    pci.Authentication // of 3-D Secure
	record     []byte
}

// original names the request that another one is about.
type original struct {
	mti   string // of this edition; empty where there is none
	trace pci.Trace
}

// newRequest checks what all requests have and puts it into the form of the message.
func (c *Connector) newRequest(k kind, amount pci.Amount, merchant pci.Merchant, trace pci.Trace) (*request, error) {
	r := &request{
		kind:     k,
		currency: amount.Currency.Numeric(),
		merchant: merchant,
		acquirer: cmp.Or(c.cfg.AcquirerID, merchant.AcquirerBIN),
		stan:     trace.STAN,
		rrn:      trace.RRN,
		at:       trace.TransmittedAt.UTC(),
		sold:     trace.TransmittedAt.UTC(),
		code:     purchase,
	}
	switch {
	case amount.Minor <= 0 || amount.Minor > maxAmount:
		return nil, errors.New("acquiring: the amount is not one to twelve digits (DE 4)")
	case len(r.currency) != 3 || r.currency == "000": // which Numeric gives for a code that it does not know
		return nil, errors.New("acquiring: the currency has no numeric code (DE 49)")
	case len(r.stan) != 6 || !isDigits(r.stan):
		return nil, errors.New("acquiring: the trace number is not six digits (DE 11)")
	case len(r.rrn) != 12:
		return nil, errors.New("acquiring: the retrieval reference is not twelve characters (DE 37)")
	case trace.TransmittedAt.IsZero():
		return nil, errors.New("acquiring: the trace has no time (DE 7)")
	}
	r.amount = uint64(amount.Minor)
	return r, nil
}

// about makes r a request about an earlier one.
func (c *Connector) about(r *request, mti string, trace pci.Trace) error {
	switch mti {
	case "0100":
		r.original.mti = c.mti(authorization)
	case "", "0200":
		r.original.mti = c.mti(sale)
	default:
		return errors.New("acquiring: the original is neither 0100 nor 0200 (DE 90)")
	}
	if len(trace.STAN) != 6 || !isDigits(trace.STAN) || trace.TransmittedAt.IsZero() || len(r.acquirer) > 11 {
		return errors.New("acquiring: the original's trace is not complete (DE 90)")
	}
	r.original.trace = trace
	return nil
}

// query returns what the answer to r must agree with.
func (c *Connector) query(r *request) query {
	q := query{
		key:      key{mti: answerTo(c.mti(r.kind)), stan: r.stan},
		rrn:      r.rrn,
		amount:   fmt.Sprintf("%012d", r.amount),
		currency: r.currency,
	}
	if c.cfg.MatchTerminal {
		q.terminal = strings.TrimRight(r.merchant.TerminalID, " ")
	}
	return q
}

// lender calls use with a card, which is wiped when use returns.
type lender func(ctx context.Context, use func(*pan.Card) error) error

// fromToken lends the card behind a token.
func (c *Connector) fromToken(domain string, token pci.Token) (lender, error) {
	if c.tokens == nil {
		return nil, errors.New("acquiring: no tokenization to take cards from")
	}
	return func(ctx context.Context, use func(*pan.Card) error) error {
		return c.tokens.Lend(ctx, domain, token, use)
	}, nil
}

// ask sends r with the card that lend has, and waits for the answer. sent is false only when certainly not a byte of
// it left.
func (c *Connector) ask(ctx context.Context, r *request, lend lender) (a answer, sent bool, err error) {
	l := c.current()
	if l == nil {
		return answer{}, false, ErrOffline
	}
	a, sent, err = c.exchange(ctx, l, c.query(r), func(ctx context.Context, dst, scratch []byte) (message []byte, err error) {
		err = lend(ctx, func(card *pan.Card) error {
			message, err = c.pack(dst, scratch, r, card)
			return err
		})
		return message, err
	})
	if err != nil {
		return a, sent, fmt.Errorf("%s: %w", r.kind, err)
	}
	return a, true, nil
}

// once sends a request that must not be sent twice, and says what became of it.
func (c *Connector) once(ctx context.Context, r *request, lend lender) (pci.SaleResult, error) {
	switch a, sent, err := c.ask(ctx, r, lend); {
	case err == nil:
		return resultOf(r.kind, a)
	case sent:
		return pci.SaleResult{Outcome: pci.Unknown}, err
	default:
		return pci.SaleResult{Outcome: pci.Unsent}, err
	}
}

// pack builds the message of r in dst. dst and scratch are in locked memory, and so is the card.
func (c *Connector) pack(dst, scratch []byte, r *request, card *pan.Card) ([]byte, error) {
	w := iso8583.NewWriter(c.spec, dst, c.mti(r.kind))
	place := scratch[:nameRoom]
	private, err := c.packPrivate(scratch[nameRoom:nameRoom:len(scratch)], r, card)
	if err != nil {
		return nil, err
	}
	err = card.RevealPAN(func(digits []byte) error {
		w.Bytes(2, digits)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if c.speaks1993() {
		c.pack1993(&w, r, card.Expiry(), place, private)
	} else {
		c.pack1987(&w, r, card.Expiry(), place, private)
	}
	return w.Finish()
}

func isDigits(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return true
}
