package acquiring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// Settlement codes (ISO 8583:1987, annex A, DE 66).
const (
	inBalance    = "1"
	outOfBalance = "2"
)

// settlementOf returns the settlement code that means what an action code does.
func settlementOf(action string) string {
	switch action {
	case "500":
		return inBalance
	case "501", // out of balance
		"502", // amount not reconciled, totals provided
		"504": // not reconciled, totals provided
		return outOfBalance
	}
	return ""
}

// Reconcile asks the acquirer to compare its books of one terminal and currency with ours (0500, answered by 0510). agreed
// is what the acquirer says: settlement code 1 (DE 66) or, in the edition of 1993, action code 500. theirs are the
// totals of its answer, zero where it sent none. An answer that says neither yes nor no is [ErrUnclear].
//
// A reconciliation moves no money: without an answer it may be sent again, with the same trace.
func (c *Connector) Reconcile(ctx context.Context, r pci.ReconciliationRequest) (agreed bool, theirs pci.Totals, err error) {
	l := c.current()
	if l == nil {
		return false, theirs, ErrOffline
	}
	if err := checkReconciliation(r); err != nil {
		return false, theirs, err
	}
	q := query{key: key{mti: answerTo(c.mti(reconciliation)), stan: r.Trace.STAN}, currency: r.Currency.Numeric()}
	if c.cfg.MatchTerminal {
		q.terminal = strings.TrimRight(r.Merchant.TerminalID, " ")
	}
	a, _, err := c.exchange(ctx, l, q, func(_ context.Context, dst, _ []byte) ([]byte, error) { return c.packReconciliation(dst, r) })
	if err != nil {
		return false, theirs, fmt.Errorf("reconciliation: %w", err)
	}
	if a.code != "00" || a.settlement != inBalance && a.settlement != outOfBalance {
		return false, a.totals, fmt.Errorf("reconciliation: %w: %s, settlement code %q", ErrUnclear, a, a.settlement)
	}
	return a.settlement == inBalance, a.totals, nil
}

func checkReconciliation(r pci.ReconciliationRequest) error {
	t := r.Totals
	for _, n := range []int64{t.Debits.Count, t.DebitReversals.Count, t.Credits.Count, t.CreditReversals.Count, t.Authorizations} {
		if n < 0 || n > 9_999_999_999 {
			return errors.New("acquiring: a count is not up to ten digits (DE 74 to 81)")
		}
	}
	for _, n := range []int64{t.Debits.Minor, t.DebitReversals.Minor, t.Credits.Minor, t.CreditReversals.Minor} {
		if n < 0 || n > 999_999_999_999_999 {
			return errors.New("acquiring: a sum is not up to fifteen digits (DE 86 to 89)")
		}
	}
	switch numeric := r.Currency.Numeric(); {
	case len(numeric) != 3 || numeric == "000":
		return errors.New("acquiring: the currency has no numeric code (DE 50)")
	case len(r.Trace.STAN) != 6 || !isDigits(r.Trace.STAN):
		return errors.New("acquiring: the trace number is not six digits (DE 11)")
	case r.Trace.TransmittedAt.IsZero() || r.Date.IsZero():
		return errors.New("acquiring: the reconciliation has no time (DE 7) or no day (DE 15)")
	}
	return nil
}

// packReconciliation builds a 0500 or 1500.
func (c *Connector) packReconciliation(dst []byte, r pci.ReconciliationRequest) ([]byte, error) {
	at, day := r.Trace.TransmittedAt.UTC(), r.Date.UTC()
	w := iso8583.NewWriter(c.spec, dst, c.mti(reconciliation))
	w.Text(7, at.Format(transmission))
	w.Text(11, r.Trace.STAN)
	if c.speaks1993() {
		w.Text(12, at.Format(local1993))
		w.Text(24, kinds[reconciliation].function)
		w.Text(28, day.Format("060102"))
	} else {
		w.Text(12, at.Format("150405"))
		w.Text(13, at.Format("0102"))
		w.Text(15, day.Format("0102"))
	}
	optional(&w, 32, cmp.Or(c.cfg.AcquirerID, r.Merchant.AcquirerBIN))
	w.Text(41, r.Merchant.TerminalID)
	w.Text(42, r.Merchant.AcquirerMID)
	w.Text(50, r.Currency.Numeric())
	var values [90]uint64 // transfers, inquiries and fees are none, and said to be
	for _, f := range totalFields(&r.Totals) {
		values[f.de] = uint64(*f.value)
	}
	for de := 74; de < len(values); de++ {
		w.Uint(de, values[de])
	}
	sign, net := "D", r.Totals.Net()
	if net < 0 {
		sign, net = "C", -net
	}
	w.Text(97, fmt.Sprintf("%s%016d", sign, net))
	return w.Finish()
}

// totalField is where a total travels.
type totalField struct {
	de    int
	value *int64
}

// totalFields are the totals of ISO 8583, the same in both editions, ascending.
func totalFields(t *pci.Totals) []totalField {
	return []totalField{
		{74, &t.Credits.Count}, {75, &t.CreditReversals.Count}, {76, &t.Debits.Count}, {77, &t.DebitReversals.Count},
		{81, &t.Authorizations},
		{86, &t.Credits.Minor}, {87, &t.CreditReversals.Minor}, {88, &t.Debits.Minor}, {89, &t.DebitReversals.Minor},
	}
}

// totalsOf reads the totals of an answer; what cannot be one, or is not there, is zero.
func totalsOf(m *iso8583.Message) (t pci.Totals) {
	for _, f := range totalFields(&t) {
		if n, err := m.Uint(f.de); err == nil && n <= 9_999_999_999_999_999 {
			*f.value = int64(n)
		}
	}
	return t
}
