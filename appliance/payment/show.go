package payment

import (
	"context"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// Get implements [api.Payments].
func (s *Service) Get(ctx context.Context, caller api.Caller, id string) (api.Payment, error) {
	p, err := s.own(ctx, caller, id)
	if err != nil {
		return api.Payment{}, err
	}
	return s.show(ctx, p)
}

// own returns a payment of the caller's merchant; another merchant's is not there.
func (s *Service) own(ctx context.Context, caller api.Caller, id string) (store.Payment, error) {
	p, err := s.cfg.Store.Read(ctx).Payment(id)
	if err == nil && p.MerchantID != caller.MerchantID {
		err = store.ErrNotFound
	}
	return p, translate(err)
}

// List implements [api.Payments].
func (s *Service) List(ctx context.Context, caller api.Caller, query api.ListPayments) (api.PaymentList, error) {
	rows, err := s.cfg.Store.Read(ctx).Payments(store.PaymentFilter{MerchantID: caller.MerchantID, Status: string(query.Status),
		Reference: query.Reference, From: query.From, To: query.To, Before: query.Cursor, Limit: query.Limit + 1})
	if err != nil {
		return api.PaymentList{}, translate(err)
	}
	list := api.PaymentList{Payments: []api.Payment{}}
	if len(rows) > query.Limit {
		rows = rows[:query.Limit]
		list.NextCursor = rows[query.Limit-1].ID
	}
	for _, p := range rows {
		shown, err := s.show(ctx, p)
		if err != nil {
			return api.PaymentList{}, err
		}
		list.Payments = append(list.Payments, shown)
	}
	return list, nil
}

// Receipt implements [api.Payments].
func (s *Service) Receipt(ctx context.Context, caller api.Caller, id string) (api.Receipt, error) {
	p, err := s.own(ctx, caller, id)
	if err != nil {
		return api.Receipt{}, err
	}
	proven, err := s.cfg.Ledger.EntriesOf(ctx, p.ID)
	if err != nil {
		return api.Receipt{}, translate(err)
	}
	receipt := api.Receipt{Payment: p.ID, Origin: s.cfg.Ledger.Origin(), VerifierKey: s.cfg.Ledger.VerifierKey(), Entries: []api.ReceiptEntry{}}
	for _, e := range proven {
		receipt.Entries = append(receipt.Entries, api.ReceiptEntry{Index: e.Index, Entry: string(e.Entry), Proof: string(e.Proof), VerifierKey: e.Key})
	}
	return receipt, nil
}

// show returns a payment as its merchant sees it.
func (s *Service) show(ctx context.Context, p store.Payment) (api.Payment, error) {
	var a *store.Attempt
	var modifications []store.Modification
	err := s.cfg.Store.Snapshot(ctx, func(read store.Queries) (err error) { // or a capture has succeeded of what is not captured
		if p, err = read.Payment(p.ID); err != nil {
			return err
		}
		if a, err = s.lastAttempt(read, p); err != nil {
			return err
		}
		modifications, err = read.Modifications(p.ID)
		return err
	})
	if err != nil {
		return api.Payment{}, translate(err)
	}
	out := shown(p, a, modifications)
	if s.payable(p) {
		session, _, err := s.cfg.Merchants.Session(ctx, p.ID)
		if err != nil {
			return api.Payment{}, translate(err)
		}
		out.CheckoutURL = s.checkoutURL(session)
	}
	return out, nil
}

func (s *Service) checkoutURL(session string) string { return s.cfg.PublicURL + "/checkout/" + session }

// shown is the part of a payment that needs no secret; events carry it too.
func shown(p store.Payment, a *store.Attempt, modifications []store.Modification) api.Payment {
	out := api.Payment{ID: p.ID, Status: api.Status(p.Status), Amount: p.Amount.Minor, Currency: p.Amount.Currency, Reference: p.Reference,
		ReturnURL: p.ReturnURL, Capture: p.Capture, Initiator: p.Initiator, Original: p.Original, Captured: p.Captured, Refunded: p.Refunded, Attempts: p.Attempts, CreatedAt: p.CreatedAt, ExpiresAt: p.ExpiresAt, UpdatedAt: p.UpdatedAt}
	out.Token = p.Token
	out.Authentication, out.Setup, out.Recurring = shownWishes(p.Wishes)
	if a != nil {
		out.Card = &api.Card{Brand: a.Card.Brand, Truncated: a.Card.Truncated, Expiry: a.Card.Expiry.String()}
		out.Token = a.Token
		if a.Status != attemptAuthenticating && a.Status != attemptAuthorizing {
			out.Result = &api.Result{Reason: api.Reason(a.Reason), ResponseCode: a.ResponseCode, ApprovalCode: a.ApprovalCode, ThreeDS: a.TransStatus, ECI: a.ECI, NetworkID: a.NetworkID}
		}
	}
	for _, m := range modifications {
		switch m.Kind {
		case store.ModificationCapture:
			out.Captures = append(out.Captures, shownModification(m))
		case store.ModificationVoid:
			v := shownModification(m)
			out.Void = &v
		}
	}
	return out
}

func (s *Service) lastAttempt(read store.Queries, p store.Payment) (*store.Attempt, error) {
	if p.Attempts == 0 {
		return nil, nil //nolint:nilnil // no attempt is no error
	}
	a, err := read.Attempt(p.ID, p.Attempts)
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// payable reports whether a card can be entered now.
func (s *Service) payable(p store.Payment) bool {
	open := p.Status == string(api.StatusCreated) || p.Status == string(api.StatusDeclined)
	return open && p.Initiator != pci.ByMerchant && p.Attempts < s.cfg.Attempts && s.cfg.Now().Before(p.ExpiresAt)
}
