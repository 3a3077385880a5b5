package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// once is by what a request with one card is known when it comes a second time: as a repeat, which gets the first answer, or
// as a copy of what was sealed, which gets none.
type once struct {
	envelope pci.Envelope
	request  store.Idempotent // without a key: not repeatable
}

func (o once) isNothing() bool { return o.envelope.IsZero() && o.request.Key == "" }

// errRepeat means that another request with the same idempotency key committed first.
var errRepeat = errors.New("tokens: the idempotency key was used in the meantime")

// request is what is kept of a request: its candidate token stands for its card, since a plain hash of the body would be an
// unkeyed hash of the number, and a card that is sealed again differs in every byte.
func (s *Service) request(ctx context.Context, caller api.Caller, domain, key string, card pci.Tokenized) (store.Idempotent, error) {
	text, err := json.Marshal([]string{"POST /v1/tokens", domain, string(card.Token.Token), card.Token.Card.Expiry.String()})
	if err != nil {
		return store.Idempotent{}, err
	}
	mac, err := s.cfg.Requests.RequestMAC(ctx, text)
	return store.Idempotent{MerchantID: caller.MerchantID, Key: key, RequestMAC: mac, CreatedAt: s.cfg.Now()}, err
}

// The two kinds of first answers, before the token.
const (
	answerIssued = "issued "
	answerKnown  = "known "
)

// repeat answers a request whose idempotency key was used before. done is false where it was not.
func (s *Service) repeat(ctx context.Context, caller api.Caller, named string, request store.Idempotent) (token api.Token, issued, done bool, err error) {
	first, err := s.cfg.Store.Read(ctx).Idempotent(request.MerchantID, request.Key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return token, false, false, nil
	case err != nil:
		return token, false, true, translate(err)
	case string(first.RequestMAC) != string(request.RequestMAC):
		return token, false, true, api.ErrIdempotency
	}
	of, issued := strings.CutPrefix(first.Answer, answerIssued)
	token, err = s.Get(ctx, caller, named, pci.Token(strings.TrimPrefix(of, answerKnown)))
	return token, issued, true, err
}

// takeOnce is the part of a commit that can happen once only.
func (s *Service) takeOnce(tx *ledger.Tx, p *piece) error {
	if request := p.once.request; request.Key != "" {
		if _, err := tx.Idempotent(request.MerchantID, request.Key); err == nil {
			return errRepeat
		}
		if result := p.results[0]; result.Err == nil { // a refusal is no first answer
			request.Answer = answerKnown + string(result.Token)
			if result.Issued {
				request.Answer = answerIssued + string(result.Token)
			}
			if err := tx.PutIdempotent(request); err != nil {
				return err
			}
		}
	}
	return tx.TakeEnvelope(p.once.envelope)
}
