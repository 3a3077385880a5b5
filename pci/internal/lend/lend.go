// Package lend is how the packages of pci borrow a card from each other.
//
// Whoever keeps cards (pci/custody, pci/tokenization) must hand digits to whoever sends them (pci/threeds,
// pci/acquiring), but no exported signature of pci may name a type that carries them: by type inference even a
// package that cannot import the type could then receive one. So the keepers register an adapter here, in an
// init function, and the borrowers ask for it by the keeper's exported, digit-free type.
package lend

import (
	"context"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// Custody keeps cards between requests.
type Custody interface {
	// Hold moves card into the HSM, bound to binding, until the store's deadline. The caller still releases card.
	Hold(ctx context.Context, card *pan.Card, binding string) (pci.CardRef, error)
	// Lend calls use with the card behind ref. The card is wiped when use returns. A reference that is unknown,
	// past its deadline or bound to something else is [pci.ErrGone].
	Lend(ctx context.Context, ref pci.CardRef, binding string, use func(*pan.Card) error) error
}

// Tokens turns tokens back into cards.
type Tokens interface {
	// Lend calls use with the card that token stands for in domain, without a CVV. The card is wiped when use
	// returns. A token that was not issued is [pci.ErrNotIssued].
	Lend(ctx context.Context, domain string, token pci.Token, use func(*pan.Card) error) error
}

// Batches is tokenization of many cards at once.
type Batches interface {
	// TokenizeAll fills issues, one for each place of cards. What is wrong with one card is in its own place; an error
	// is of the HSM or the registry, and means that no place has a result. Equal cards get the same token. No
	// token is issued until the caller has entered it in the registry.
	TokenizeAll(ctx context.Context, domain string, cards *pan.Batch, issues []pci.Tokenized) error
}

// OfCustody returns the lender behind a *custody.Store.
var OfCustody func(store any) Custody

// OfTokens returns the lender behind a *tokenization.Service.
var OfTokens func(service any) Tokens

// OfBatches returns the batches behind a *tokenization.Service.
var OfBatches func(service any) Batches
