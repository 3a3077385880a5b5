package threeds

import (
	"context"
	"errors"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// ErrCard means that a request does not name one card, or names one that this server has no way to.
var ErrCard = errors.New("threeds: one card is wanted, in custody or behind a token")

var errNoTokens = errors.Join(ErrCard, errors.New("threeds: no tokenization to take cards from"))

// lend calls use with the card of a request, which is wiped when use returns. One that comes from a token has the expiry
// that is registered for it, and no security code.
func (s *Server) lend(ctx context.Context, req pci.AuthenticationRequest, use func(*pan.Card) error) error {
	switch {
	case req.Card.IsZero() == (req.Token == ""):
		return ErrCard
	case req.Token == "":
		return s.cards.Lend(ctx, req.Card, req.Payment, use)
	case s.tokens == nil:
		return errNoTokens
	}
	return s.tokens.Lend(ctx, req.Domain, req.Token, use)
}
