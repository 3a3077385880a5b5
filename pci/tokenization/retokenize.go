package tokenization

import (
	"context"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// Retokenize gives the cards behind tokens of a domain, issued under older versions of the key, tokens under the active one. What
// is wrong with one of them is in its own place; an error is of the HSM or the registry, and means that no place has a
// result. No token is issued until the caller has entered it in the registry, with the old one replaced in the same commit.
func (s *Service) Retokenize(ctx context.Context, domain string, tokens []pci.Token) ([]pci.Tokenized, error) {
	versions := s.keys.borrow()
	defer versions.giveBack()
	issues := make([]pci.Tokenized, len(tokens))
	err := s.lendAll(ctx, versions, domain, tokens, func(cards *pan.Batch, failed []error) error {
		if err := s.tokenize(ctx, domain, cards, versions.list[:1], issues); err != nil {
			return err
		}
		for i, err := range failed {
			if err != nil {
				issues[i] = pci.Tokenized{Err: err}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return issues, nil
}
