package simulator

import (
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// batchKey names what is reconciled together.
type batchKey struct{ terminal, currency string }

// batch returns the totals of a terminal in one currency since they last agreed. b.mu is held.
func (b *books) batch(terminal, currency string) *pci.Totals {
	key := batchKey{terminal, currency}
	if b.batches[key] == nil {
		b.batches[key] = new(pci.Totals)
	}
	return b.batches[key]
}

func add(t *pci.Tally, minor int64) {
	t.Count++
	t.Minor += minor
}

// reconcile compares a terminal's totals in one currency with the books, which begin anew when they agree.
func (h *AcquirerHost) reconcile(request *iso8583.Message) reply {
	for _, de := range []int{11, 41, 50, 74, 76, 86, 88} {
		if !request.Has(de) {
			return answered("30")
		}
	}
	var theirs pci.Totals
	for de, total := range totalFields(&theirs) {
		if n, err := request.Uint(de); err == nil {
			*total = int64(n) // sixteen digits at most
		}
	}
	return h.books.balance(request.Text(11), batchKey{request.Text(41), alphabetic(request.Text(50))}, theirs)
}

// balance answers a reconciliation; one that comes again as the first time.
//
// Balanced means that debits less their reversals, and credits less theirs, are the same in number and amount: a sale
// that was never answered and was reversed is two bookings here, and may be none for those who asked.
func (b *books) balance(stan string, key batchKey, theirs pci.Totals) reply {
	b.mu.Lock()
	defer b.mu.Unlock()
	again := bookingKey{terminal: key.terminal, stan: stan}
	if r, ok := b.balanced[again]; ok {
		return r
	}
	ours := b.batch(key.terminal, key.currency)
	r := answered("00")
	r.settlement, r.totals = "2", *ours
	if less(ours.Debits, ours.DebitReversals) == less(theirs.Debits, theirs.DebitReversals) &&
		less(ours.Credits, ours.CreditReversals) == less(theirs.Credits, theirs.CreditReversals) {
		r.settlement = "1"
		*ours = pci.Totals{}
	}
	b.balanced[again] = r
	return r
}

func less(a, b pci.Tally) pci.Tally {
	return pci.Tally{Count: a.Count - b.Count, Minor: a.Minor - b.Minor}
}

// totalFields says in which field each total travels.
func totalFields(t *pci.Totals) map[int]*int64 {
	return map[int]*int64{
		74: &t.Credits.Count, 75: &t.CreditReversals.Count, 76: &t.Debits.Count, 77: &t.DebitReversals.Count, 81: &t.Authorizations,
		86: &t.Credits.Minor, 87: &t.CreditReversals.Minor, 88: &t.Debits.Minor, 89: &t.DebitReversals.Minor,
	}
}

// totalsByField returns the totals that an answer tells, none in other answers than those to reconciliations.
func totalsByField(r reply) map[int]int64 {
	if r.settlement == "" {
		return nil
	}
	values := make(map[int]int64)
	for de, total := range totalFields(&r.totals) {
		values[de] = *total
	}
	return values
}

// action returns the action code (edition of 1993) of an answer: there, the result of a reconciliation is one.
func action(mti string, r reply) string {
	if r.settlement == "2" {
		return "501"
	}
	return iso8583.ActionCode(mti, r.code)
}
