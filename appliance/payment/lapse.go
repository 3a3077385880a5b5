package payment

import (
	"context"
	"errors"
	"fmt"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/failpoint"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
)

// withdraw ends a payment that nobody has paid yet: there is nothing at the acquirer to give up.
func (s *Service) withdraw(ctx context.Context, caller api.Caller, id string, first store.Idempotent) error {
	first.Answer = id
	failpoint.Here("before payment.withdrawn")
	_, err := s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		if err := once(tx, first); err != nil {
			return err
		}
		p, a, err := subject(tx.Queries, id)
		if err != nil {
			return err
		}
		if !unpaid(p) {
			return errBegun
		}
		now := s.cfg.Now()
		p.UpdatedAt = now
		if err := putPayment(tx, &p, "payment.withdrawn"); err != nil {
			return err
		}
		if err := putEvent(tx, "payment.withdrawn", p, a, now); err != nil {
			return err
		}
		tx.Record(entryOf("payment.withdrawn", "key:"+caller.KeyID, caller.Origin, ledger.Success, p, a))
		return nil
	})
	if err == nil {
		failpoint.Here("after payment.withdrawn")
		s.notify(id)
	}
	return err
}

// errBegun means that a shopper has entered a card, or the payment has ended, before it could be withdrawn.
var errBegun = errors.New("payment: it is not unpaid any more")

// unpaid reports whether nothing was authorized, and no card is on its way.
func unpaid(p store.Payment) bool {
	return p.Status == string(api.StatusCreated) || p.Status == string(api.StatusDeclined)
}

// lapse voids authorizations that nobody has captured in time: their amounts would stay blocked on the cardholders' accounts.
func (s *Service) lapse(ctx context.Context) error {
	if s.cfg.Authorization == 0 {
		return nil
	}
	old, err := s.cfg.Store.Read(ctx).PaymentsInStatus(string(api.StatusAuthorized), s.cfg.Now().Add(-s.cfg.Authorization), expiryBatch)
	if err != nil {
		return err
	}
	for _, p := range old {
		_, err := s.begin(ctx, party{"system", "local"}, change{store.ModificationVoid, p.ID, 0}, store.Idempotent{})
		if err != nil && !errors.Is(err, api.ErrNotPossible) { // a capture may be under way
			return fmt.Errorf("payment %s: %w", p.ID, err)
		}
	}
	return nil
}
