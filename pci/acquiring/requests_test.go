package acquiring

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

func captureRequest(n int) pci.CaptureRequest {
	sale := saleRequest(n)
	return pci.CaptureRequest{
		Payment: sale.Payment, Domain: "payments", Token: testToken, Amount: sale.Amount, Authorized: sale.Amount, Merchant: sale.Merchant,
		Original: sale.Trace, ApprovalCode: "A1B2C3", Trace: traceOf(600000 + n),
	}
}

func refundRequest(n int) pci.RefundRequest {
	sale := saleRequest(n)
	return pci.RefundRequest{
		Payment: sale.Payment, Domain: "payments", Token: testToken, Amount: sale.Amount, Merchant: sale.Merchant,
		Original: sale.Trace, ApprovalCode: "A1B2C3", Trace: traceOf(700000 + n),
	}
}

func reconciliationRequest(n int) pci.ReconciliationRequest {
	return pci.ReconciliationRequest{
		Merchant: saleRequest(n).Merchant, Currency: "EUR", Date: saleTime, Trace: traceOf(800000 + n),
		Totals: pci.Totals{Debits: pci.Tally{Count: 3, Minor: 3000}, DebitReversals: pci.Tally{Count: 1, Minor: 500},
			Credits: pci.Tally{Count: 2, Minor: 2700}, CreditReversals: pci.Tally{Count: 1, Minor: 100}, Authorizations: 4},
	}
}

func traceOf(n int) pci.Trace {
	return pci.Trace{STAN: fmt.Sprintf("%06d", n), RRN: fmt.Sprintf("%012d", n), TransmittedAt: saleTime.Add(time.Minute)}
}

// in1993 makes a host speak the edition of 1993.
func in1993(h *host) *host {
	h.spec = iso8583.ASCII1993
	return h
}

func with(fields map[int]string, changes ...change) map[int]string {
	fields = maps.Clone(fields)
	for _, c := range changes {
		if fields[c.de] = c.value; c.value == "" {
			delete(fields, c.de)
		}
	}
	return fields
}

// What is the same in all messages about sale 42.
var (
	about42 = map[int]string{2: testPAN, 3: "000000", 4: "000000001042", 7: "0102030505", 12: "030405", 13: "0102", 14: "3012", 18: "5812",
		22: "010", 25: "59", 32: "123456", 37: "000000000042", 41: "TERM1", 42: "MERCHANT1", 49: "978"}
	about42In1993 = map[int]string{2: testPAN, 3: "000000", 4: "000000001042", 7: "0102030505", 12: "300102030405", 14: "3012", 22: keyEntered1993,
		26: "5812", 32: "123456", 37: "000000000042", 41: "TERM1", 42: "MERCHANT1", 49: "978"}
)

const private42 = "420205" + "4328AAABBWcSNIdjeUZThmNHAAAAAAA=" + "9203737"

func TestWhatIsSentInEachEdition(t *testing.T) {
	partial := captureRequest(42)
	partial.Amount.Minor = 1000
	again := partial
	again.Repeat = true
	void := reversalRequest(42)
	void.OriginalMTI, void.ApprovalCode = "0100", "A1B2C3"
	ofRefund := reversalRequest(42)
	ofRefund.Refund, ofRefund.Repeat = true, true
	refundOfCaptured := refundRequest(42)
	refundOfCaptured.OriginalMTI = "0100"
	elements := func(mti string) string { return mti + "000042" + "0102030405" + "00000123456" + "00000000000" }
	elements1993 := func(mti string) string { return mti + "000042" + "300102030405" + "06123456" }
	shop := change{43, "Kopi & T?                Kuala Lumpur MY"}
	shop1993 := change{43, `Kopi & T?\\Kuala Lumpur\             458`}
	for _, tt := range []struct {
		name   string
		ask    func(*started) error
		of1987 map[int]string
		of1993 map[int]string
	}{
		{"authorization", func(c *started) error { return ended(c.Authorize(t.Context(), saleRequest(42))) },
			with(about42, change{0, "0100"}, change{7, "0102030405"}, change{11, "000042"}, shop, change{48, private42}),
			with(about42In1993, change{0, "1100"}, change{7, "0102030405"}, change{11, "000042"}, change{24, "100"}, shop1993, change{48, private42})},
		{"sale", func(c *started) error { return ended(c.Sale(t.Context(), saleRequest(42))) },
			with(about42, change{0, "0200"}, change{7, "0102030405"}, change{11, "000042"}, shop, change{48, private42}),
			with(about42In1993, change{0, "1200"}, change{7, "0102030405"}, change{11, "000042"}, change{24, "200"}, shop1993, change{48, private42})},
		{"capture", func(c *started) error { return acknowledged(c.Capture(t.Context(), captureRequest(42))) },
			with(about42, change{0, "0220"}, change{11, "600042"}, change{38, "A1B2C3"}, change{90, elements("0100")}),
			with(about42In1993, change{0, "1220"}, change{11, "600042"}, change{24, "201"}, change{38, "A1B2C3"}, change{56, elements1993("1100")})},
		{"part", func(c *started) error { return acknowledged(c.Capture(t.Context(), partial)) },
			with(about42, change{0, "0220"}, change{4, "000000001000"}, change{11, "600042"}, change{38, "A1B2C3"}, change{90, elements("0100")}),
			with(about42In1993, change{0, "1220"}, change{4, "000000001000"}, change{11, "600042"}, change{24, "202"},
				change{30, "000000001042000000000000"}, change{38, "A1B2C3"}, change{56, elements1993("1100")})},
		{"part again", func(c *started) error { return acknowledged(c.Capture(t.Context(), again)) },
			with(about42, change{0, "0221"}, change{4, "000000001000"}, change{11, "600042"}, change{38, "A1B2C3"}, change{90, elements("0100")}),
			with(about42In1993, change{0, "1221"}, change{4, "000000001000"}, change{11, "600042"}, change{24, "202"},
				change{30, "000000001042000000000000"}, change{38, "A1B2C3"}, change{56, elements1993("1100")})},
		{"refund", func(c *started) error { return ended(c.Refund(t.Context(), refundRequest(42))) },
			with(about42, change{0, "0200"}, change{3, "200000"}, change{11, "700042"}, change{12, "030505"}, change{37, "000000700042"},
				change{38, "A1B2C3"}, change{90, elements("0200")}),
			with(about42In1993, change{0, "1200"}, change{3, "200000"}, change{11, "700042"}, change{12, "300102030505"}, change{24, "200"},
				change{37, "000000700042"}, change{38, "A1B2C3"}, change{56, elements1993("1200")})},
		{"refund of a capture", func(c *started) error { return ended(c.Refund(t.Context(), refundOfCaptured)) },
			with(about42, change{0, "0200"}, change{3, "200000"}, change{11, "700042"}, change{12, "030505"}, change{37, "000000700042"},
				change{38, "A1B2C3"}, change{90, elements("0100")}),
			with(about42In1993, change{0, "1200"}, change{3, "200000"}, change{11, "700042"}, change{12, "300102030505"}, change{24, "200"},
				change{37, "000000700042"}, change{38, "A1B2C3"}, change{56, elements1993("1100")})},
		{"reversal", func(c *started) error { return acknowledged(c.Reverse(t.Context(), reversalRequest(42))) },
			with(about42, change{0, "0400"}, change{11, "500042"}, change{90, elements("0200")}),
			with(about42In1993, change{0, "1420"}, change{11, "500042"}, change{24, "400"}, change{25, timeOut}, change{56, elements1993("1200")})},
		{"void", func(c *started) error { return acknowledged(c.Reverse(t.Context(), void)) },
			with(about42, change{0, "0400"}, change{11, "500042"}, change{38, "A1B2C3"}, change{90, elements("0100")}),
			with(about42In1993, change{0, "1420"}, change{11, "500042"}, change{24, "400"}, change{25, customerCancellation}, change{38, "A1B2C3"},
				change{56, elements1993("1100")})},
		{"reversal of a refund, again", func(c *started) error { return acknowledged(c.Reverse(t.Context(), ofRefund)) },
			with(about42, change{0, "0401"}, change{3, "200000"}, change{11, "500042"}, change{90, elements("0200")}),
			with(about42In1993, change{0, "1421"}, change{3, "200000"}, change{11, "500042"}, change{24, "400"}, change{25, timeOut},
				change{56, elements1993("1200")})},
	} {
		for edition, want := range map[string]map[int]string{"1987": tt.of1987, "1993": tt.of1993} {
			t.Run(tt.name+" "+edition, func(t *testing.T) {
				h := newHost(t, agreeable(approving))
				if edition == "1993" {
					in1993(h)
				}
				if err := tt.ask(online(t, h)); err != nil {
					t.Fatal(err)
				}
				got := h.received(want[0])
				if len(got) != 1 {
					t.Fatalf("%d messages %s", len(got), want[0])
				}
				checkFields(t, got[0], want)
			})
		}
	}
}

func ended(result pci.SaleResult, err error) error {
	if err == nil && result.Outcome != pci.Approved {
		return fmt.Errorf("%+v", result)
	}
	return err
}

func acknowledged(ok bool, err error) error {
	if err == nil && !ok {
		return errors.New("neither acknowledged nor refused")
	}
	return err
}

func TestBinaryDialectOf1993(t *testing.T) {
	h := newHost(t, agreeable(approving))
	h.spec, h.header = iso8583.Binary1993, iso8583.BCD2
	got, err := online(t, h).Sale(t.Context(), saleRequest(42))
	want := pci.SaleResult{Outcome: pci.Approved, ResponseCode: "00", ActionCode: "000", ApprovalCode: "A1B2C3", RRN: "000000000042"}
	if got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOutcomesByActionCode(t *testing.T) {
	for action, want := range map[string]pci.SaleOutcome{
		"000": pci.Approved, "100": pci.Refused, "116": pci.Refused, "199": pci.Refused, "909": pci.Refused,
		"002": pci.Unknown, "007": pci.Unknown, "911": pci.Unknown, "913": pci.Unknown, "400": pci.Unknown, "900": pci.Unknown, "999": pci.Unknown,
	} {
		h := in1993(newHost(t, agreeable(func(p *peer, request *iso8583.Message) { p.send(p.answer(request, "00", change{39, action})) })))
		got, err := online(t, h).Sale(t.Context(), saleRequest(1))
		if got.Outcome != want || got.ActionCode != action || (want == pci.Unknown) != errors.Is(err, ErrUnclear) {
			t.Errorf("%s: %+v, %v; want %s", action, got, err, want)
		}
	}
}

func TestCaptureIsAcknowledgedByCode(t *testing.T) {
	for _, tt := range []struct {
		code   string
		repeat bool
		err    error
	}{
		{"00", false, nil}, {"94", true, nil}, {"94", false, pci.ErrRefused}, {"91", true, ErrUnclear}, {"96", false, ErrUnclear},
		{"13", false, pci.ErrRefused}, {"25", true, pci.ErrRefused}, {"12", false, pci.ErrRefused},
	} {
		h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) { p.send(p.answer(request, tt.code)) }))
		r := captureRequest(1)
		r.Repeat = tt.repeat
		ok, err := online(t, h).Capture(t.Context(), r)
		if ok != (tt.err == nil) || !errors.Is(err, tt.err) {
			t.Errorf("%+v: %v, %v", tt, ok, err)
		}
	}
}

func TestRequestsThatCannotBeMadeAreNotSent(t *testing.T) {
	h := newHost(t, agreeable(approving))
	c := online(t, h)
	captures := map[string]func(*pci.CaptureRequest){
		"more than authorized": func(r *pci.CaptureRequest) { r.Amount.Minor++ },
		"other currency":       func(r *pci.CaptureRequest) { r.Amount.Currency = "USD" },
		"nothing":              func(r *pci.CaptureRequest) { r.Amount.Minor = 0 },
		"no original":          func(r *pci.CaptureRequest) { r.Original = pci.Trace{RRN: r.Original.RRN} },
		"no reference":         func(r *pci.CaptureRequest) { r.Original.RRN = "" },
		"unknown token":        func(r *pci.CaptureRequest) { r.Token = "unknown" },
		"approval code":        func(r *pci.CaptureRequest) { r.ApprovalCode = "A1B2C3D" },
	}
	for name, spoil := range captures {
		r := captureRequest(1)
		spoil(&r)
		if ok, err := c.Capture(t.Context(), r); ok || err == nil || errors.Is(err, pci.ErrRefused) {
			t.Errorf("capture, %s: %v, %v", name, ok, err)
		}
	}
	for name, spoil := range map[string]func(*pci.RefundRequest){
		"original":      func(r *pci.RefundRequest) { r.OriginalMTI = "0400" },
		"trace":         func(r *pci.RefundRequest) { r.Trace.STAN = "12345x" },
		"unknown token": func(r *pci.RefundRequest) { r.Token = "unknown" },
	} {
		r := refundRequest(1)
		spoil(&r)
		if got, err := c.Refund(t.Context(), r); got.Outcome != pci.Unsent || err == nil {
			t.Errorf("refund, %s: %+v, %v", name, got, err)
		}
	}
	for name, spoil := range map[string]func(*pci.SaleRequest){
		"card and token":         func(r *pci.SaleRequest) { r.Token, r.Initiator = testToken, pci.ByCustomer },
		"token, no initiator":    func(r *pci.SaleRequest) { r.Card, r.Token = pci.CardRef{}, testToken },
		"unknown initiator":      func(r *pci.SaleRequest) { r.Card, r.Token, r.Initiator = pci.CardRef{}, testToken, "issuer" },
		"card with an initiator": func(r *pci.SaleRequest) { r.Initiator = pci.ByMerchant },
		"an earlier transaction, by the customer": func(r *pci.SaleRequest) {
			r.Card, r.Token, r.Initiator, r.NetworkID = pci.CardRef{}, testToken, pci.ByCustomer, "ABC"
		},
		"an earlier transaction that is a card": func(r *pci.SaleRequest) {
			r.Card, r.Token, r.Initiator, r.NetworkID = pci.CardRef{}, testToken, pci.ByMerchant, testPAN
		},
		"record": func(r *pci.SaleRequest) { r.Record = make([]byte, MaxRecord+1) },
	} {
		r := saleRequest(1)
		spoil(&r)
		if got, err := c.Authorize(t.Context(), r); got.Outcome != pci.Unsent || err == nil {
			t.Errorf("authorization, %s: %+v, %v", name, got, err)
		}
	}
	r := reversalRequest(1)
	r.Refund, r.OriginalMTI = true, "0100"
	if ok, err := c.Reverse(t.Context(), r); ok || err == nil {
		t.Errorf("reversal of a refund that was authorized: %v, %v", ok, err)
	}
	for name, spoil := range map[string]func(*pci.ReconciliationRequest){
		"currency": func(r *pci.ReconciliationRequest) { r.Currency = "" },
		"trace":    func(r *pci.ReconciliationRequest) { r.Trace = pci.Trace{} },
		"day":      func(r *pci.ReconciliationRequest) { r.Date = time.Time{} },
		"count":    func(r *pci.ReconciliationRequest) { r.Totals.Debits.Count = -1 },
		"sum":      func(r *pci.ReconciliationRequest) { r.Totals.Credits.Minor = 1e15 },
	} {
		r := reconciliationRequest(1)
		spoil(&r)
		if _, _, err := c.Reconcile(t.Context(), r); err == nil {
			t.Errorf("reconciliation, %s: sent", name)
		}
	}
	c.stop()
	for _, mti := range []string{"0100", "0200", "0220", "0400", "0500"} {
		if n := len(h.received(mti)); n != 0 {
			t.Errorf("%d messages %s were sent", n, mti)
		}
	}
}

func TestStoredCredentialIsChargedByItsToken(t *testing.T) {
	for initiator, want := range map[pci.Initiator]string{pci.ByCustomer: "17011", pci.ByMerchant: "1701M"} {
		h := newHost(t, agreeable(approving))
		c := online(t, h, func(cfg *Config) { cfg.Additional.Initiator, cfg.Additional.Customer = "17", "1" })
		r := saleRequest(1)
		r.Card, r.Domain, r.Token, r.Initiator, r.Authentication = pci.CardRef{}, "payments", testToken, initiator, pci.Authentication{}
		if got, err := c.Sale(t.Context(), r); got.Outcome != pci.Approved {
			t.Fatalf("%+v, %v", got, err)
		}
		if got := h.received("0200")[0]; got[2] != testPAN || got[22] != "100" || got[48] != want {
			t.Errorf("%s: DE 22 %s, DE 48 %s", initiator, got[22], got[48])
		}
	}
	h := newHost(t, agreeable(approving))
	c := online(t, h, func(cfg *Config) { cfg.EntryMode, cfg.StoredEntryMode = "812", "102" })
	r := saleRequest(1)
	_, _ = c.Sale(t.Context(), r)
	r.Card, r.Token, r.Initiator, r.Trace.STAN = pci.CardRef{}, testToken, pci.ByMerchant, "000002"
	_, _ = c.Sale(t.Context(), r)
	if got := h.received("0200"); len(got) != 2 || got[0][22] != "812" || got[1][22] != "102" || strings.Contains(got[1][48], testCVV) {
		t.Errorf("%v", got)
	}
}

func TestWhatFollowsAStoredCardSaysSo(t *testing.T) {
	for stored, want := range map[bool]string{true: "100", false: "010"} {
		h := newHost(t, agreeable(approving))
		c := online(t, h)
		capture, refund, reversal := captureRequest(1), refundRequest(2), reversalRequest(3)
		capture.Stored, refund.Stored, reversal.Stored = stored, stored, stored
		if done, err := c.Capture(t.Context(), capture); !done || err != nil {
			t.Error(done, err)
		}
		if got, err := c.Refund(t.Context(), refund); got.Outcome != pci.Approved || err != nil {
			t.Error(got, err)
		}
		if done, err := c.Reverse(t.Context(), reversal); !done || err != nil {
			t.Error(done, err)
		}
		for _, mti := range []string{"0220", "0200", "0400"} {
			if got := h.received(mti); len(got) != 1 || got[0][22] != want {
				t.Errorf("%s of a stored card %v: DE 22 %v", mti, stored, got)
			}
		}
		c.stop()
	}
}

func TestASeriesNamesTheTransactionOfTheCustomer(t *testing.T) {
	for told, want := range map[string]string{
		"6312MCC123456789":               "MCC123456789",
		"4205abcde6306" + "ABC123":       "ABC123",
		"":                               "",
		"6300":                           "",
		"6316" + testPAN:                 "", // an echo of the card
		"6319" + "x" + testPAN + "yz":    "",
		"6304A-12":                       "",
		"6337" + strings.Repeat("A", 37): "",
		"63" + "99ABC":                   "", // shorter than it says
		"4299" + "6306ABC123":            "",
		"6315" + "123456789012345":       "123456789012345",
	} {
		h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) { p.send(p.answer(request, "00", change{48, told})) }))
		c := online(t, h, func(cfg *Config) { cfg.Additional.NetworkID, cfg.Additional.Earlier = "63", "64" })
		got, err := c.Sale(t.Context(), saleRequest(1))
		if err != nil || got.Outcome != pci.Approved || got.NetworkID != want {
			t.Errorf("%q: %+v, %v", told, got, err)
		}
		r := saleRequest(2)
		r.Card, r.Domain, r.Token, r.Initiator, r.NetworkID, r.Authentication = pci.CardRef{}, "payments", testToken, pci.ByMerchant, want, pci.Authentication{}
		if _, err := c.Sale(t.Context(), r); err != nil {
			t.Errorf("%q: %v", told, err)
		}
		named := ""
		if want != "" {
			named = fmt.Sprintf("64%02d%s", len(want), want)
		}
		if sent := h.received("0200"); sent[1][48] != named || strings.HasPrefix(sent[0][48], "64") {
			t.Errorf("%q: sent %q, then %q", told, sent[0][48], sent[1][48])
		}
		c.stop()
	}
}

func TestACardThatWasEnteredIsSoldAgainByItsToken(t *testing.T) {
	h := newHost(t, agreeable(approving))
	c := online(t, h, func(cfg *Config) { cfg.Additional.Initiator = "17" })
	r := saleRequest(1)
	r.Card, r.Domain, r.Token, r.Entered = pci.CardRef{}, "payments", testToken, true
	if got, err := c.Sale(t.Context(), r); got.Outcome != pci.Approved {
		t.Fatalf("%+v, %v", got, err)
	}
	if got := h.received("0200")[0]; got[2] != testPAN || got[22] != "010" || got[48]+"9203"+testCVV != private42 {
		t.Errorf("DE 22 %s, DE 48 %s", got[22], got[48])
	}
	for name, spoil := range map[string]func(*pci.SaleRequest){
		"a card in custody": func(r *pci.SaleRequest) { r.Card, r.Token = pci.NewCardRef(), "" },
		"both":              func(r *pci.SaleRequest) { r.Card = pci.NewCardRef() },
		"an initiator":      func(r *pci.SaleRequest) { r.Initiator = pci.ByCustomer },
	} {
		r := r
		r.Trace.STAN = "000009"
		spoil(&r)
		if got, err := c.Sale(t.Context(), r); got.Outcome != pci.Unsent || err == nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestAnExemptionTravelsWhereItIsConfigured(t *testing.T) {
	for _, tt := range []struct {
		change func(*Config)
		claim  pci.Exemption
		want   string
	}{
		{func(*Config) {}, pci.LowValue, ""},
		{func(c *Config) { c.Additional.Exemption = "18" }, pci.LowValue, "180210"},
		{func(c *Config) { c.Additional.Exemption = "18" }, "", ""},
		{func(c *Config) {
			c.Additional.Exemption, c.Additional.Exemptions = "18", map[string]string{"secure_corporate": "SCP"}
		}, pci.SecureCorporate, "1803SCP"},
	} {
		h := newHost(t, agreeable(approving))
		c := online(t, h, tt.change)
		r := saleRequest(1)
		r.Exemption = tt.claim
		if got, err := c.Sale(t.Context(), r); got.Outcome != pci.Approved {
			t.Fatalf("%+v, %v", got, err)
		}
		if got := h.received("0200")[0][48]; got != tt.want+private42 {
			t.Errorf("%q: DE 48 %s", tt.claim, got)
		}
	}
	for name, spoil := range map[string]func(*Config){
		"an unknown exemption": func(c *Config) { c.Additional.Exemptions = map[string]string{"friend": "1"} },
		"a tag of another":     func(c *Config) { c.Additional.Exemption = "42" },
		"an approval":          func(c *Config) { c.SoftDeclines = []string{"00"} },
		"an open outcome":      func(c *Config) { c.SoftDeclines = []string{"68"} },
		"an acceptance":        func(c *Config) { c.SoftDeclines = []string{"400"} },
	} {
		cfg := Config{Address: "127.0.0.1:1", Spec: "ascii1987"}
		spoil(&cfg)
		if _, err := newConnector(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestASoftDeclineIsOneThatTheConfigurationNames(t *testing.T) {
	for code, want := range map[string]bool{"1A": true, "65": true, "05": false, "00": false} {
		h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) { p.send(p.answer(request, code)) }))
		c := online(t, h, func(cfg *Config) { cfg.SoftDeclines = []string{"1A", "65"} })
		if got, err := c.Sale(t.Context(), saleRequest(1)); err != nil || got.Authenticate != want {
			t.Errorf("%s: %+v, %v", code, got, err)
		}
	}
	for action, want := range map[string]bool{"123": true, "182": true, "100": false} {
		h := in1993(newHost(t, agreeable(func(p *peer, request *iso8583.Message) { p.send(p.answer(request, "00", change{39, action})) })))
		c := online(t, h, func(cfg *Config) { cfg.SoftDeclines = []string{"65", "182"} })
		if got, err := c.Sale(t.Context(), saleRequest(1)); err != nil || got.Authenticate != want {
			t.Errorf("%s: %+v, %v", action, got, err)
		}
	}
}

func TestLedgerRecordTravelsWhereItIsConfigured(t *testing.T) {
	full := bytes.Repeat([]byte{0xA5, 1, 2}, 66)
	text := base64.StdEncoding.EncodeToString(full)
	for _, tt := range []struct {
		name  string
		place string
		want  map[int]string
	}{
		{"nowhere", "", map[int]string{48: private42}},
		{"off", "-", map[int]string{48: private42}},
		{"before the currency and after", "DE63", map[int]string{48: private42, 63: text}},
		{"beyond the secondary bitmap", "DE126", map[int]string{48: private42, 126: text}},
		{"under a tag, in pieces", "57", map[int]string{48: private42[:38] + "5799" + text[:99] + "5799" + text[99:198] + "5766" + text[198:] + private42[38:]}},
	} {
		h := newHost(t, agreeable(approving))
		c := online(t, h, func(cfg *Config) { cfg.Additional.Record = tt.place })
		r := saleRequest(1)
		r.Record = full
		if got, err := c.Authorize(t.Context(), r); got.Outcome != pci.Approved {
			t.Fatalf("%s: %+v, %v", tt.name, got, err)
		}
		got := h.received("0100")[0]
		for _, de := range []int{48, 60, 61, 62, 63, 126} {
			if got[de] != tt.want[de] {
				t.Errorf("%s: DE %d is %q, want %q", tt.name, de, got[de], tt.want[de])
			}
		}
	}
	for _, place := range []string{"DE48", "DE43", "DE55x", "DE", "DE129", "5", "42"} {
		cfg := testConfig(newHost(t, nil))
		cfg.Additional.Record = place
		if _, err := newConnector(cfg); err == nil {
			t.Errorf("%s: accepted", place)
		}
	}
}

func TestTotalsAreCompared(t *testing.T) {
	for _, spec := range []*iso8583.Spec{iso8583.ASCII1987, iso8583.Binary1993} {
		theirs := []change{{74, "0000000002"}, {76, "0000000003"}, {86, "0000000000002700"}, {88, "0000000000003001"}}
		verdict := func(codes map[string]string) change {
			if spec.Version == '1' {
				return change{39, codes["1993"]}
			}
			return change{66, codes["1987"]}
		}
		for _, tt := range []struct {
			codes  map[string]string
			agreed bool
			err    error
		}{
			{map[string]string{"1987": "1", "1993": "500"}, true, nil},
			{map[string]string{"1987": "2", "1993": "501"}, false, nil},
			{map[string]string{"1987": "3", "1993": "503"}, false, ErrUnclear},
			{map[string]string{"1987": "", "1993": "909"}, false, ErrUnclear},
		} {
			h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) {
				p.send(p.answer(request, "00", append(theirs, verdict(tt.codes))...))
			}))
			h.spec = spec
			c := online(t, h)
			agreed, got, err := c.Reconcile(t.Context(), reconciliationRequest(1))
			want := pci.Totals{Credits: pci.Tally{Count: 2, Minor: 2700}, Debits: pci.Tally{Count: 3, Minor: 3001}}
			if agreed != tt.agreed || got != want || !errors.Is(err, tt.err) {
				t.Errorf("%s, %v: %v, %+v, %v", spec.Name, tt.codes, agreed, got, err)
			}
		}
	}
}

func TestReconciliationSaysWhatWasCleared(t *testing.T) {
	totals := map[int]string{32: "123456", 41: "TERM1", 42: "MERCHANT1", 50: "978", 74: "0000000002", 75: "0000000001", 76: "0000000003",
		77: "0000000001", 78: "0000000000", 79: "0000000000", 80: "0000000000", 81: "0000000004", 86: "0000000000002700", 87: "0000000000000100", 88: "0000000000003000", 89: "0000000000000500",
		97: "C0000000000000100", 7: "0102030505", 11: "800042"}
	for spec, want := range map[*iso8583.Spec]map[int]string{
		iso8583.ASCII1987: with(totals, change{0, "0500"}, change{12, "030505"}, change{13, "0102"}, change{15, "0102"},
			change{82, "000000000000"}, change{83, "000000000000"}, change{84, "000000000000"}, change{85, "000000000000"}),
		iso8583.ASCII1993: with(totals, change{82, "0000000000"}, change{83, "0000000000"}, change{84, "0000000000"}, change{85, "0000000000"}, change{0, "1500"}, change{12, "300102030505"}, change{24, "500"}, change{28, "300102"}),
	} {
		h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) {
			if spec.Version == '1' {
				p.send(p.answer(request, "00"))
				return
			}
			p.send(p.answer(request, "00", change{66, "1"}))
		}))
		h.spec = spec
		if agreed, _, err := online(t, h).Reconcile(t.Context(), reconciliationRequest(42)); !agreed || err != nil {
			t.Fatal(agreed, err)
		}
		checkFields(t, h.received(want[0])[0], want)
	}
}

func TestHostsOwnRequestsAreAnswered(t *testing.T) {
	for _, tt := range []struct {
		spec                *iso8583.Spec
		request, answer     string
		function            int
		code, want, day, of string
		event               EventKind
	}{
		{iso8583.ASCII1987, "0800", "0810", 70, "001", "00", "", "", ""},
		{iso8583.ASCII1987, "0800", "0810", 70, "201", "00", "0103", "0103", Cutover},
		{iso8583.ASCII1987, "0800", "0810", 70, "101", "40", "", "", KeyChangeRefused},
		{iso8583.ASCII1987, "0800", "0810", 70, "161", "40", "", "", KeyChangeRefused},
		{iso8583.ASCII1987, "0800", "0810", 70, "999", "40", "", "", ""},
		{iso8583.ASCII1987, "0800", "0810", 70, "", "40", "", "", ""},
		{iso8583.ASCII1993, "1804", "1814", 24, "831", "800", "", "", ""},
		{iso8583.ASCII1993, "1804", "1814", 24, "821", "800", "300103", "300103", Cutover},
		{iso8583.ASCII1993, "1804", "1814", 24, "811", "115", "", "", KeyChangeRefused},
		{iso8583.ASCII1993, "1804", "1814", 24, "813", "115", "", "", KeyChangeRefused},
	} {
		t.Run(tt.spec.Name+" "+tt.code, func(t *testing.T) {
			events := make(chan Event, 10)
			h := newHost(t, func(p *peer, request *iso8583.Message) {
				if request.MTI() != tt.request {
					return
				}
				fields := map[int]string{7: "0102030405", 11: "777777", tt.function: tt.code}
				if tt.spec.Version == '1' {
					fields[12], fields[28] = "300102030405", tt.day
				} else {
					fields[15] = tt.day
				}
				p.send(p.message(tt.request, fields), p.answer(request, "00"))
			})
			h.spec = tt.spec
			online(t, h, func(cfg *Config) { cfg.Events = func(e Event) { events <- e } })
			h.await(tt.answer)
			if got := h.received(tt.answer)[0]; got[39] != tt.want || got[11] != "777777" || got[tt.function] != tt.code {
				t.Errorf("answered %v, want %s", got, tt.want)
			}
			if tt.event != "" {
				if got := <-events; got != (Event{tt.event, tt.of}) {
					t.Errorf("event %+v", got)
				}
			} else if len(events) != 0 {
				t.Errorf("an event of nothing: %+v", <-events)
			}
		})
	}
}
