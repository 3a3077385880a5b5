package simulator

import (
	"fmt"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// refundOf gives an amount of a sale back.
func refundOf(sale fields, stan string, amount int) fields {
	return fields{0: "0200", 2: sale[2], 3: "200000", 4: fmt.Sprintf("%012d", amount), 7: "0102030605", 11: stan, 37: "000000" + stan, 41: sale[41],
		42: sale[42], 49: sale[49], 90: sale[0] + sale[11] + sale[7] + strings.Repeat("0", 22)}
}

func TestRefundsGiveBackAtMostWhatWasCaptured(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	sale := saleOf(goodCard)
	c.ask(sale)
	for _, tt := range []struct {
		name   string
		refund fields
		code   string
		net    int64
	}{
		{"too much", refundOf(sale, "000050", 1043), "13", 1042},
		{"a part", refundOf(sale, "000051", 1000), "00", 42},
		{"the same again", refundOf(sale, "000051", 1000), "00", 42},
		{"more than is left", refundOf(sale, "000052", 43), "13", 42},
		{"other currency", refundOf(sale, "000053", 1).with(fields{49: "360"}), "13", 42},
		{"other card", refundOf(sale, "000054", 1).with(fields{2: "5555555555554444"}), "14", 42},
		{"other original", refundOf(sale, "000055", 1).with(fields{90: "0200000099" + strings.Repeat("0", 32)}), "25", 42},
		{"the rest", refundOf(sale, "000056", 42), "00", 0},
	} {
		got := c.ask(tt.refund)
		if got[0] != "0210" || got[39] != tt.code || (len(got[38]) == 6) != (tt.code == "00") {
			t.Errorf("%s: answered %v, want %s", tt.name, got, tt.code)
		}
		c.booked(BookedApproved, tt.net)
	}
	if got := c.ask(reversalOf(sale)); got[39] != "12" {
		t.Errorf("the sale was reversed after its refunds: %v", got)
	}
}

func TestRefundIsReversed(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	sale := saleOf(numberOf(t, RefundSilent))
	c.ask(sale)
	refund := refundOf(sale, "000050", 42)
	c.unanswered(refund)
	c.booked(BookedApproved, 1000)
	for range 2 {
		if got := c.ask(reversalOf(refund)); got[39] != "00" {
			t.Errorf("answered %v", got)
		}
		c.booked(BookedApproved, 1042)
	}
	early := refundOf(sale, "000051", 42)
	if got := c.ask(reversalOf(early)); got[39] != "25" {
		t.Errorf("reversal of a refund that never came answered %v", got)
	}
	if got := c.ask(early); got[39] != "21" {
		t.Errorf("refund after its reversal answered %v", got)
	}
	c.booked(BookedApproved, 1042)
}

func TestRefundIsDeclinedForItsCard(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	sale := saleOf(numberOf(t, RefundRefused))
	c.ask(sale)
	if got := c.ask(refundOf(sale, "000050", 42)); got[39] != "05" {
		t.Errorf("answered %v", got)
	}
	c.booked(BookedApproved, 1042)
}

func TestAnswerToTheFirstCaptureGetsLost(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	authorization := saleOf(numberOf(t, CaptureLost)).with(fields{0: "0100"})
	c.ask(authorization)
	advice := authorization.with(fields{0: "0220", 11: "000043"})
	c.unanswered(advice)
	c.booked(BookedApproved, 1042)
	if got := c.ask(advice.with(fields{0: "0221"})); got[0] != "0230" || got[39] != "00" {
		t.Errorf("answered %v", got)
	}
	c.booked(BookedApproved, 1042)
}

func TestAuthorizationsAreAnsweredAsTheirCardSays(t *testing.T) {
	for _, card := range Cards {
		if len(card.Acquirer) != 2 {
			continue
		}
		c := newTerminal(t, AcquirerOptions{})
		if got := c.ask(saleOf(card.Number).with(fields{0: "0100"})); got[0] != "0110" || got[39] != string(card.Acquirer) {
			t.Errorf("%s: answered %v", card.What, got)
		}
	}
	c := newTerminal(t, AcquirerOptions{})
	authorization := saleOf(numberOf(t, Silent)).with(fields{0: "0100"})
	c.unanswered(authorization)
	if got := c.ask(reversalOf(authorization)); got[39] != "00" {
		t.Errorf("reversal answered %v", got)
	}
	c.booked(BookedReversed, 0)
}

func TestVoidEndsAnAuthorizationUntilItsCapture(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	authorization := saleOf(goodCard).with(fields{0: "0100"})
	advice := authorization.with(fields{0: "0220", 11: "000043"})
	c.ask(authorization)
	if got := c.ask(reversalOf(authorization)); got[39] != "00" {
		t.Errorf("void answered %v", got)
	}
	if got := c.ask(advice); got[39] != "12" {
		t.Errorf("capture after the void answered %v", got)
	}
	c.booked(BookedReversed, 0)

	c = newTerminal(t, AcquirerOptions{})
	c.ask(authorization)
	c.ask(advice)
	if got := c.ask(reversalOf(authorization)); got[39] != "12" {
		t.Errorf("void after the capture answered %v", got)
	}
	c.booked(BookedApproved, 1042)
}

func totalsOf(stan string, debits, debitReversals, credits [2]int) fields {
	f := fields{0: "0500", 7: "0102235900", 11: stan, 41: "TERM1", 50: "978"}
	for de, total := range map[int][2]int{74: credits, 76: debits, 77: debitReversals} {
		f[de] = fmt.Sprintf("%010d", total[0])
		f[de+12] = fmt.Sprintf("%016d", total[1])
	}
	return f
}

func TestTotalsAreComparedWithTheBooks(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	sale := saleOf(goodCard)
	c.ask(sale)
	c.ask(refundOf(sale, "000050", 42))
	second := sale.with(fields{11: "000043", 37: "000000000043"})
	c.ask(second)
	c.ask(reversalOf(second))
	c.ask(sale.with(fields{0: "0100", 11: "000044", 37: "000000000044"}))
	for _, tt := range []struct {
		name    string
		message fields
		code    string
	}{
		{"a sale too few", totalsOf("000001", [2]int{0, 0}, [2]int{0, 0}, [2]int{1, 42}), "2"},
		{"another sum", totalsOf("000002", [2]int{1, 1043}, [2]int{0, 0}, [2]int{1, 42}), "2"},
		{"no refund", totalsOf("000003", [2]int{1, 1042}, [2]int{0, 0}, [2]int{0, 0}), "2"},
		{"without what never was", totalsOf("000004", [2]int{1, 1042}, [2]int{0, 0}, [2]int{1, 42}), "1"},
		{"the same again", totalsOf("000004", [2]int{1, 1042}, [2]int{0, 0}, [2]int{1, 42}), "1"},
		{"the next day", totalsOf("000005", [2]int{1, 1042}, [2]int{0, 0}, [2]int{1, 42}), "2"},
		{"nothing on the next day", totalsOf("000006", [2]int{0, 0}, [2]int{0, 0}, [2]int{0, 0}), "1"},
	} {
		got := c.ask(tt.message)
		if got[0] != "0510" || got[39] != "00" || got[66] != tt.code {
			t.Errorf("%s: answered %v, want %s", tt.name, got, tt.code)
		}
		if tt.message[11] <= "000004" && (got[76] != "0000000002" || got[88] != "0000000000002084" || got[77] != "0000000001" ||
			got[89] != "0000000000001042" || got[74] != "0000000001" || got[86] != "0000000000000042" || got[81] != "0000000001") {
			t.Errorf("%s: totals %v", tt.name, got)
		}
	}
}

func TestEditionOf1993(t *testing.T) {
	for _, spec := range []*iso8583.Spec{iso8583.ASCII1993, iso8583.Binary1993} {
		c := newTerminal(t, AcquirerOptions{Spec: spec})
		sale := fields{0: "1200", 2: goodCard, 3: "000000", 4: "000000001042", 7: "0102030405", 11: "000042", 12: "300102030405", 14: "3012", 24: "200",
			37: "000000000042", 41: "TERM1", 49: "978"}
		original := func(mti string) string { return mti + "000042" + "300102030405" + "06123456" }
		refund := sale.with(fields{3: "200000", 4: "000000000042", 11: "000043", 12: "300102040405", 37: "000000000043", 56: original("1200")})
		totals := fields{0: "1500", 7: "0102235900", 11: "000001", 12: "300102235900", 24: "500", 41: "TERM1", 50: "978", 74: "0000000001",
			76: "0000000001", 86: "0000000000000042", 88: "0000000000001042"}
		for _, tt := range []struct {
			name    string
			message fields
			mti     string
			code    string
		}{
			{"sign-on", fields{0: "1804", 7: "0102030405", 11: "900001", 12: "300102030405", 24: "801"}, "1814", "800"},
			{"unknown function", fields{0: "1804", 7: "0102030405", 11: "900001", 12: "300102030405", 24: "899"}, "1814", "902"},
			{"sale", sale, "1210", "000"},
			{"declined sale", sale.with(fields{2: numberOf(t, "51"), 11: "000052", 37: "000000000052"}), "1210", "116"},
			{"refund", refund, "1210", "000"},
			{"out of balance", totals.with(fields{88: "0000000000001043"}), "1510", "501"},
			{"in balance", totals.with(fields{11: "000002"}), "1510", "500"},
			{"authorization", sale.with(fields{0: "1100", 11: "000044", 37: "000000000044"}), "1110", "000"},
			{"capture", sale.with(fields{0: "1220", 11: "000045", 37: "000000000044", 56: "1100000044" + "300102030405"}), "1230", "000"},
			{"capture again", sale.with(fields{0: "1221", 11: "000045", 37: "000000000044", 56: "1100000044" + "300102030405"}), "1230", "000"},
			{"reversal of the refund", refund.with(fields{0: "1420", 11: "000046", 24: "400", 56: "1200000043" + "300102040405"}), "1430", "400"},
			{"reversal of nothing", sale.with(fields{0: "1421", 11: "000047", 24: "400", 56: "1200000099" + "300102030405"}), "1430", "914"},
			{"no original", sale.with(fields{0: "1420", 11: "000048", 24: "400"}), "1430", "904"},
		} {
			if got := c.ask(tt.message); got[0] != tt.mti || got[39] != tt.code {
				t.Errorf("%s, %s: answered %s with %s, want %s with %s", spec.Name, tt.name, got[0], got[39], tt.mti, tt.code)
			}
		}
		if _, net := c.host.books.list(); net["EUR"] != 2*1042 {
			t.Errorf("%s: net %v", spec.Name, net)
		}
	}
}
