package payment

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// Create implements [api.Payments].
func (s *Service) Create(ctx context.Context, caller api.Caller, request api.CreatePayment, idempotencyKey string) (api.Payment, error) {
	m, err := s.cfg.Store.Read(ctx).Merchant(caller.MerchantID)
	if err != nil {
		return api.Payment{}, translate(err)
	}
	if err := s.accept(m, request); err != nil {
		return api.Payment{}, err
	}
	first := store.Idempotent{MerchantID: m.ID, Key: idempotencyKey, CreatedAt: s.cfg.Now()}
	if idempotencyKey != "" {
		if first.RequestMAC, err = s.requestMAC(ctx, request); err != nil {
			return api.Payment{}, translate(err)
		}
		if answer, done, err := s.repeat(ctx, first); done {
			return s.getOr(ctx, caller, answer, err)
		}
	}
	p, err := s.newPayment(ctx, m, request)
	if err != nil {
		return api.Payment{}, translate(err)
	}
	customer, err := customerOf(request.Customer)
	if err != nil {
		return api.Payment{}, err
	}
	first.Answer = p.ID
	var own *store.Attempt // of a payment that the merchant makes on their own
	failpoint.Here("before payment.created")
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) (err error) {
		if err := once(tx, first); err != nil {
			return err
		}
		if own, err = s.putNew(tx, &p, m, party{"key:" + caller.KeyID, caller.Origin}); err != nil || request.Customer == nil {
			return err
		}
		return tx.PutCustomer(p.ID, customer)
	})
	if errors.Is(err, errRepeat) {
		answer, _, err := s.repeat(ctx, first)
		return s.getOr(ctx, caller, answer, err)
	}
	if err != nil {
		return api.Payment{}, translate(err)
	}
	failpoint.Here("after payment.created")
	if own != nil {
		s.collect(ctx, p, *own)
	}
	return s.Get(ctx, caller, p.ID)
}

// accept refuses a payment that cannot be made, whatever the card.
func (s *Service) accept(m store.Merchant, request api.CreatePayment) error {
	if request.ReturnURL != "" {
		if err := checkReturnHost(m, request.ReturnURL); err != nil {
			return err
		}
	}
	if err := checkLimits(m, request); err != nil {
		return err
	}
	return s.checkServed(m, request)
}

// newPayment is the row of a payment that is not entered yet.
func (s *Service) newPayment(ctx context.Context, m store.Merchant, request api.CreatePayment) (store.Payment, error) {
	id := store.NewID("pay")
	_, hash, err := s.cfg.Merchants.Session(ctx, id)
	now := s.cfg.Now()
	return store.Payment{ID: id, MerchantID: m.ID, SessionHash: hash, Amount: pci.Amount{Minor: request.Amount, Currency: request.Currency},
		Reference: request.Reference, ReturnURL: request.ReturnURL, Capture: request.Capture, Wishes: wishesOf(request),
		Token: request.Token, Initiator: request.Initiator, Original: request.Original, CreatedAt: now, ExpiresAt: now.Add(s.cfg.Session), UpdatedAt: now}, err
}

// putNew writes a payment and its entry, and the attempt of one that the merchant makes on their own.
func (s *Service) putNew(tx *ledger.Tx, p *store.Payment, m store.Merchant, by party) (own *store.Attempt, err error) {
	var card store.Token
	if p.Token != "" {
		if card, err = s.storedCard(tx.Queries, m, p.Token); err != nil {
			return nil, err
		}
	}
	if p.Initiator == pci.ByMerchant {
		if err := agreement(tx.Queries, m, p.Original, card); err != nil {
			return nil, err
		}
	}
	if err := putPayment(tx, p, "payment.created"); err != nil {
		return nil, err
	}
	entry := entryOf("payment.created", by.actor, by.origin, ledger.Success, *p, nil)
	tellWishes(entry.Data, p.Wishes)
	tx.Record(entry)
	if p.Initiator != pci.ByMerchant {
		return nil, nil //nolint:nilnil // the shopper makes the attempts
	}
	a, err := s.putStored(tx, p, card, store.NewID("form"), by.actor, by.origin)
	return &a, err
}

// errRepeat means that another request with the same idempotency key committed first.
var errRepeat = errors.New("payment: the idempotency key was used in the meantime")

// repeat finds what the first request under an idempotency key is answered from.
func (s *Service) repeat(ctx context.Context, request store.Idempotent) (answer string, done bool, err error) {
	first, err := s.cfg.Store.Read(ctx).Idempotent(request.MerchantID, request.Key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "", false, nil
	case err != nil:
		return "", true, translate(err)
	case string(first.RequestMAC) != string(request.RequestMAC):
		return "", true, api.ErrIdempotency
	}
	return first.Answer, true, nil
}

// getOr shows a payment, unless there is an error already.
func (s *Service) getOr(ctx context.Context, caller api.Caller, id string, err error) (api.Payment, error) {
	if err != nil {
		return api.Payment{}, err
	}
	return s.Get(ctx, caller, id)
}

func (s *Service) requestMAC(ctx context.Context, request any) ([]byte, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	return s.cfg.Merchants.RequestMAC(ctx, text)
}

func checkReturnHost(m store.Merchant, returnURL string) error {
	u, err := url.Parse(returnURL)
	if err != nil {
		return api.ErrInvalid.At("/return_url")
	}
	if len(m.ReturnHosts) > 0 && !slices.Contains(m.ReturnHosts, u.Hostname()) {
		return api.ErrInvalid.With("The merchant's profile allows return URLs on %s only.", strings.Join(m.ReturnHosts, ", ")).At("/return_url")
	}
	return nil
}
