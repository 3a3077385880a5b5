// Package tokenization turns cards into tokens and back, by format-preserving encryption under keys that stay in
// the HSM.
//
// # Formats
//
// L is the PAN's length, d1 … dL its digits, FF1 the permutation of package ff1.
//
//	last4       9 ‖ FF1(d1 … d(L−5)) ‖ last four: d(L−4) is left out, since the Luhn sum restores it
//	bin6-last4  first six ‖ m ‖ last four, of a Luhn sum ≡ 1 (mod 10), so never a PAN. L = 16: FF1 over the six middle
//	            digits, within those that make a valid PAN, then one more (mod 10) in the last of them. L ≥ 17: FF1 over
//	            all middle digits but the last, which is chosen for the sum
//	opaque      tok_ and 128 random bits. The registry keeps FF1(d1 … d(L−1)), the image, which leads back to the card
//
// [Compile] works out which format serves which cards of a domain.
//
// # What is promised
//
// Within one key version a card has exactly one value in a domain and format, and back. Over all versions a token is one
// card's and a card has one token, as far as the [Registry] knows: a card's values under every version are looked up
// before it gets a new one, and a value that is another card's is encrypted once more, up to [MaxSteps] times. The
// same card has unrelated tokens in two domains.
//
// A version can be replaced while the service runs: [Service.Rotate] makes a newer one active, [Service.Retokenize] gives the
// cards of an older one tokens under it, and [Service.Drop] ends the older one when nothing needs it.
//
// Nothing from which a PAN follows without the HSM leaves this package: no hash of a PAN, no part of it beyond
// its truncation. Only tokens that the registry knows are turned back, and only if they lead to the truncation that
// it has.
//
// # What is not
//
// A token is issued when its caller has entered it in the registry, which has to refuse a second row of one domain and
// token, or of one domain, key version and image: two callers at once may be given the same. A row is never taken out,
// for the steps of other cards lead past it.
package tokenization

import (
	"context"
	"fmt"
	"sync"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
)

// MaxSteps is how many values that are other cards' a card may have before it is refused.
const MaxSteps = 1000

// ErrContended means that a card's value is about to become the token of another card of the same batch. Enter the
// batch, and give this card another try.
var ErrContended = fmt.Errorf("tokenization: another card of the batch is about to have this value: %w", pci.ErrUnavailable)

// Issued is what the registry keeps of a token, and gives back unchanged.
type Issued = pci.IssuedToken

// Registry knows the tokens that were issued.
type Registry interface {
	// Find returns a live token of a domain, or an error that is [pci.ErrNotIssued].
	Find(ctx context.Context, domain string, token pci.Token) (Issued, error)
	// Lookup calls row with each of the tokens that has a row in a domain, live or not, and its place.
	Lookup(ctx context.Context, domain string, tokens []pci.Token, row func(i int, t Issued)) error
	// LookupImages is Lookup by the images of opaque tokens. One image may be of two cards, under two key versions.
	LookupImages(ctx context.Context, domain string, images []pci.TokenImage, row func(i int, t Issued)) error
}

// Service makes tokens and resolves them. It is safe for concurrent use.
type Service struct {
	keys     keyring
	domains  *Domains
	cards    lend.Custody
	registry Registry
	works    sync.Pool // of *work
}

// New returns a service over cards in custody. The caller ends it with [Service.Close].
func New(keys Keys, domains *Domains, cards *custody.Store, registry Registry) (*Service, error) {
	s := &Service{domains: domains, cards: lend.OfCustody(cards), registry: registry}
	if err := s.keys.fill(keys); err != nil {
		return nil, err
	}
	s.works.New = func() any { return &work{} }
	return s, nil
}

// Close ends the service. What is under way fails.
func (s *Service) Close() { s.keys.close() }

func init() {
	lend.OfTokens = func(service any) lend.Tokens { return lender{service.(*Service)} }
	lend.OfBatches = func(service any) lend.Batches { return lender{service.(*Service)} }
}

// Tokenize returns the token of a card in custody, and whether the registry knows it already. One that it does not
// know is not issued until the caller has entered it, in the same commit as what it is for. The token's Card is
// the card as it was entered now; the registered expiry of a known token may differ. A card that no format of the domain
// serves is a [*pci.CardError].
func (s *Service) Tokenize(ctx context.Context, domain string, ref pci.CardRef, binding string) (issued Issued, known bool, err error) {
	var issue [1]pci.Tokenized
	err = s.cards.Lend(ctx, ref, binding, func(card *pan.Card) error {
		return s.tokenizeAll(ctx, domain, single{card}, issue[:])
	})
	if err == nil {
		err = issue[0].Err
	}
	if err != nil {
		return Issued{}, false, fmt.Errorf("tokenize: %w", err)
	}
	return issue[0].Token, issue[0].Known, nil
}

// tokenizeAll looks for the cards' tokens under every version.
func (s *Service) tokenizeAll(ctx context.Context, domain string, cards source, issues []pci.Tokenized) error {
	versions := s.keys.borrow()
	defer versions.giveBack()
	return s.tokenize(ctx, domain, cards, versions.list, issues)
}

// lender shows the service to the packages of pci; see package lend.
type lender struct{ s *Service }

func (l lender) Lend(ctx context.Context, domain string, token pci.Token, use func(*pan.Card) error) error {
	return l.s.lend(ctx, domain, token, use)
}

func (l lender) TokenizeAll(ctx context.Context, domain string, cards *pan.Batch, issues []pci.Tokenized) error {
	return l.s.tokenizeAll(ctx, domain, cards, issues)
}
