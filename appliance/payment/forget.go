package payment

import (
	"context"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
)

// ForgetCustomer implements [api.Payments].
func (s *Service) ForgetCustomer(ctx context.Context, caller api.Caller, id string) error {
	p, err := s.own(ctx, caller, id)
	if err != nil {
		return err
	}
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		there, err := tx.DeleteCustomer(id)
		if err != nil || !there {
			return err
		}
		tx.Record(ledger.Entry{Type: "customer.forgotten", Actor: "key:" + caller.KeyID, Origin: caller.Origin, Outcome: ledger.Success, Resource: id,
			Data: map[string]any{"merchant": p.MerchantID}})
		return nil
	})
	return translate(err)
}
