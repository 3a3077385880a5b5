package pci

import "time"

// Tally is how many, and how much together in minor units.
type Tally struct {
	Count int64
	Minor int64
}

// Totals are what was cleared in one currency since the last reconciliation. A debit is money of the cardholder: a sale
// or a capture. A credit is a refund.
type Totals struct {
	Debits          Tally
	DebitReversals  Tally
	Credits         Tally
	CreditReversals Tally
	Authorizations  int64 // their number; they move nothing
}

// Net returns what the cardholders owe on the whole, in minor units: debits less credits, both less their reversals.
func (t Totals) Net() int64 {
	return t.Debits.Minor - t.DebitReversals.Minor - t.Credits.Minor + t.CreditReversals.Minor
}

// ReconciliationRequest asks the acquirer to compare what it has booked for a merchant's terminal in one currency with what
// is known here.
type ReconciliationRequest struct {
	Merchant Merchant
	Currency Currency
	Date     time.Time // the day that is settled, UTC
	Totals   Totals
	Trace    Trace // of this request. Its RRN is not used
}
