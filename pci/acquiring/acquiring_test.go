package acquiring

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/internal/pan"
)

func TestSaleIsApproved(t *testing.T) {
	for _, tt := range []struct {
		spec   *iso8583.Spec
		header iso8583.Header
	}{
		{iso8583.ASCII1987, iso8583.Binary2},
		{iso8583.ASCII1987, iso8583.ASCII4},
		{iso8583.Binary1987, iso8583.BCD2},
		{iso8583.Binary1987, iso8583.Binary2},
	} {
		t.Run(tt.spec.Name+" "+string(tt.header), func(t *testing.T) {
			h := newHost(t, agreeable(approving))
			h.spec, h.header = tt.spec, tt.header
			c := online(t, h)
			got, err := c.Sale(t.Context(), saleRequest(42))
			if err != nil {
				t.Fatal(err)
			}
			want := pci.SaleResult{Outcome: pci.Approved, ResponseCode: "00", ApprovalCode: "A1B2C3", RRN: "000000000042"}
			if got != want {
				t.Fatalf("%+v, want %+v", got, want)
			}
			checkFields(t, h.received("0200")[0], map[int]string{
				0: "0200", 2: testPAN, 3: "000000", 4: "000000001042", 7: "0102030405", 11: "000042", 12: "030405", 13: "0102",
				14: "3012", 18: "5812", 22: "010", 25: "59", 32: "123456", 37: "000000000042", 41: "TERM1", 42: "MERCHANT1",
				43: "Kopi & T?                Kuala Lumpur MY",
				48: "420205" + "4328AAABBWcSNIdjeUZThmNHAAAAAAA=" + "9203737",
				49: "978",
			})
		})
	}
}

func TestSaleOverTLS(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) {
		if request.Text(11) == "000001" {
			p.send(p.answer(request, "00"))
			return
		}
		_ = p.conn.Close()
	}))
	h.listener = tls.NewListener(h.listener, certified.TLS)
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	c := online(t, h, func(cfg *Config) { cfg.TLS = &tls.Config{RootCAs: roots} })
	if got, err := c.Sale(t.Context(), saleRequest(1)); got.Outcome != pci.Approved {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.Sale(t.Context(), saleRequest(2)); got.Outcome != pci.Unknown || !errors.Is(err, ErrBroken) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestHostWithAStrangeCertificateIsNotUsed(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	h := newHost(t, nil)
	cfg := testConfig(h)
	h.listener = tls.NewListener(h.listener, certified.TLS)
	h.start()
	cfg.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	c, err := newConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.connect(t.Context()); err == nil {
		t.Fatal("connected")
	}
}

// refusing is a connection that takes the given number of bytes and then fails.
type refusing struct {
	net.Conn
	takes int
}

func (r refusing) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p[:min(r.takes, len(p))])
	return n, errors.Join(err, net.ErrClosed)
}

func TestOnlyARequestOfWhichNothingLeftIsUnsent(t *testing.T) {
	for takes, want := range map[int]pci.SaleOutcome{0: pci.Unsent, 1: pci.Unknown} {
		h := newHost(t, nil)
		cfg := testConfig(h)
		h.start()
		c, err := newConnector(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.cards = custodian{testCVV}
		tcp, err := net.Dial("tcp", cfg.Address)
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.open(t.Context(), refusing{tcp, takes})
		if err != nil {
			t.Fatal(err)
		}
		c.use(l)
		if got, err := c.Sale(t.Context(), saleRequest(1)); got.Outcome != want || !errors.Is(err, ErrBroken) {
			t.Errorf("%d bytes left: %+v, %v", takes, got, err)
		}
		<-l.done
	}
}

func TestNoLockedMemoryIsLost(t *testing.T) {
	free := countSlots(t)
	h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) {
		if request.Text(11) == "000002" {
			_ = p.conn.Close()
			return
		}
		p.send(p.answer(request, "05"))
	}))
	c := online(t, h)
	for i := range 3 {
		eventually(t, "a connection", c.Healthy)
		r := saleRequest(i)
		if i == 0 {
			r.Card = pci.CardRef{}
		}
		_, _ = c.Sale(t.Context(), r)
	}
	c.stop()
	if got := countSlots(t); got != free {
		t.Errorf("%d slots are free, %d were", got, free)
	}
}

// countSlots takes all locked memory and gives it back.
func countSlots(t *testing.T) (n int) {
	t.Helper()
	for {
		slot, err := pan.NewSlot()
		if errors.Is(err, pan.ErrMemory) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		defer slot.Release()
		n++
	}
}

func TestAnswersByResponseCode(t *testing.T) {
	for code, want := range map[string]pci.SaleOutcome{
		"00": pci.Approved, "05": pci.Refused, "51": pci.Refused, "N7": pci.Refused, "91": pci.Refused,
		"10": pci.Unknown, "68": pci.Unknown, "94": pci.Unknown,
	} {
		h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) { p.send(p.answer(request, code)) }))
		got, err := online(t, h).Sale(t.Context(), saleRequest(1))
		if got.Outcome != want || got.ResponseCode != code {
			t.Errorf("%s: %+v, want %s", code, got, want)
		}
		if (want == pci.Unknown) != errors.Is(err, ErrUnclear) {
			t.Errorf("%s: error %v", code, err)
		}
	}
}

func TestSaleWithoutAConnectionIsUnsent(t *testing.T) {
	c, err := newConnector(testConfig(newHost(t, nil)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Sale(t.Context(), saleRequest(1))
	if got.Outcome != pci.Unsent || !errors.Is(err, ErrOffline) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestSaleThatCannotBeMadeIsUnsent(t *testing.T) {
	h := newHost(t, agreeable(approving))
	c := online(t, h)
	for name, spoil := range map[string]func(*pci.SaleRequest){
		"card gone":  func(r *pci.SaleRequest) { r.Card = pci.CardRef{} },
		"no amount":  func(r *pci.SaleRequest) { r.Amount.Minor = 0 },
		"amount":     func(r *pci.SaleRequest) { r.Amount.Minor = 1e12 },
		"currency":   func(r *pci.SaleRequest) { r.Amount.Currency = "XXL" },
		"STAN":       func(r *pci.SaleRequest) { r.Trace.STAN = "1" },
		"RRN":        func(r *pci.SaleRequest) { r.Trace.RRN = "1" },
		"time":       func(r *pci.SaleRequest) { r.Trace.TransmittedAt = time.Time{} },
		"terminal":   func(r *pci.SaleRequest) { r.Merchant.TerminalID = "TERMINAL1" },
		"no MCC":     func(r *pci.SaleRequest) { r.Merchant.MCC = "" },
		"huge CAVV":  func(r *pci.SaleRequest) { r.Authentication.CAVV = strings.Repeat("A", 100) },
		"odd letter": func(r *pci.SaleRequest) { r.Merchant.AcquirerMID = "MÉRCHANT" },
	} {
		r := saleRequest(1)
		spoil(&r)
		got, err := c.Sale(t.Context(), r)
		if got.Outcome != pci.Unsent || err == nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if name == "card gone" && !errors.Is(err, pci.ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(h.received("0200")); n != 0 {
		t.Errorf("%d sales were sent", n)
	}
	if !c.Healthy() {
		t.Error("a request that could not be made broke the connection")
	}
}

// errLate stands for [ErrNoAnswer] or [ErrBroken].
var errLate = errors.New("no answer, or a broken connection")

func TestSaleWithoutAFittingAnswerIsUnknown(t *testing.T) {
	for _, tt := range []struct {
		name    string
		behave  func(p *peer, request *iso8583.Message)
		err     error
		counted func(Stats) uint64
	}{
		{"silence", func(*peer, *iso8583.Message) {}, ErrNoAnswer, nil},
		{"hang-up", func(p *peer, _ *iso8583.Message) { _ = p.conn.Close() }, ErrBroken, nil},
		{"half an answer, then hang-up", func(p *peer, request *iso8583.Message) {
			frame := p.answer(request, "00")
			p.send(frame[:len(frame)/2])
			_ = p.conn.Close()
		}, ErrBroken, nil},
		{"half an answer, then silence", func(p *peer, request *iso8583.Message) {
			frame := p.answer(request, "00")
			p.send(frame[:len(frame)/2])
		}, errLate, nil},
		{"impossible length", func(p *peer, _ *iso8583.Message) { p.send([]byte("\xff\xffgarbage")) }, ErrBroken, nil},
		{"not a message", func(p *peer, _ *iso8583.Message) { p.send([]byte("\x00\x07garbage")) }, ErrNoAnswer,
			func(s Stats) uint64 { return s.Garbled }},
		{"no response code", func(p *peer, request *iso8583.Message) { p.send(p.answer(request, "")) }, ErrNoAnswer,
			func(s Stats) uint64 { return s.Garbled }},
		{"another amount", func(p *peer, request *iso8583.Message) {
			p.send(p.answer(request, "00", change{4, "000000000001"}))
		}, ErrNoAnswer, func(s Stats) uint64 { return s.Mismatched }},
		{"another currency", func(p *peer, request *iso8583.Message) {
			p.send(p.answer(request, "00", change{49, "360"}))
		}, ErrNoAnswer, func(s Stats) uint64 { return s.Mismatched }},
		{"another reference", func(p *peer, request *iso8583.Message) {
			p.send(p.answer(request, "00", change{37, "999999999999"}))
		}, ErrNoAnswer, func(s Stats) uint64 { return s.Mismatched }},
		{"another trace number", func(p *peer, request *iso8583.Message) {
			p.send(p.answer(request, "00", change{11, "999999"}))
		}, ErrNoAnswer, func(s Stats) uint64 { return s.Unmatched }},
		{"another terminal", func(p *peer, request *iso8583.Message) {
			p.send(p.answer(request, "00", change{41, "TERM2"}))
		}, ErrNoAnswer, func(s Stats) uint64 { return s.Unmatched }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, agreeable(tt.behave))
			c := online(t, h, impatient)
			got, err := c.Sale(t.Context(), saleRequest(1))
			expected := errors.Is(err, tt.err)
			if tt.err == errLate { // the request's time ends with the message's, in either order
				expected = errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrBroken)
			}
			if got != (pci.SaleResult{Outcome: pci.Unknown}) || !expected {
				t.Fatalf("%+v, %v; want %v", got, err, tt.err)
			}
			if tt.counted != nil {
				if n := tt.counted(c.Stats()); n != 1 {
					t.Errorf("counted %d times: %+v", n, c.Stats())
				}
			}
			if n := len(h.received("0200")); n != 1 {
				t.Errorf("the sale was sent %d times", n)
			}
		})
	}
}

func TestAnswerMayLackWhatItNeedNotEcho(t *testing.T) {
	h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) {
		p.send(p.answer(request, "00", change{2, ""}, change{4, ""}, change{37, ""}, change{49, ""}))
	}))
	if got, err := online(t, h).Sale(t.Context(), saleRequest(1)); got.Outcome != pci.Approved {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestCancelledSaleIsUnknown(t *testing.T) {
	h := newHost(t, agreeable(func(*peer, *iso8583.Message) {}))
	c := online(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	type outcome struct {
		result pci.SaleResult
		err    error
	}
	ended := make(chan outcome, 1)
	go func() {
		result, err := c.Sale(ctx, saleRequest(1))
		ended <- outcome{result, err}
	}()
	h.await("0200")
	cancel()
	if got := <-ended; got.result.Outcome != pci.Unknown || !errors.Is(got.err, context.Canceled) {
		t.Fatalf("%+v", got)
	}
	if got, err := c.Sale(ctx, saleRequest(2)); got.Outcome != pci.Unsent || !errors.Is(err, context.Canceled) {
		t.Fatalf("after cancelling: %+v, %v", got, err)
	}
}

func TestLateAndRepeatedAnswersConfuseNobody(t *testing.T) {
	late := make(chan []byte, 1)
	h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) {
		switch request.Text(11) {
		case "000001":
			late <- p.answer(request, "00")
		case "000002":
			p.send(<-late, p.answer(request, "51"), p.answer(request, "00"))
		default:
			p.send(p.answer(request, "05"))
		}
	}))
	c := online(t, h, impatient)
	if got, _ := c.Sale(t.Context(), saleRequest(1)); got.Outcome != pci.Unknown {
		t.Fatalf("unanswered: %+v", got)
	}
	if got, _ := c.Sale(t.Context(), saleRequest(2)); got.ResponseCode != "51" {
		t.Fatalf("after a late answer: %+v", got)
	}
	if got, _ := c.Sale(t.Context(), saleRequest(3)); got.ResponseCode != "05" {
		t.Fatalf("after a repeated answer: %+v", got)
	}
	if s := c.Stats(); s.Late != 1 || s.Duplicate != 1 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

func TestManySalesShareOneConnection(t *testing.T) {
	const n = 64
	var mu sync.Mutex
	var answers [][]byte
	h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) {
		mu.Lock()
		defer mu.Unlock()
		// Answered when all are there, the last one first.
		answers = append([][]byte{p.answer(request, "00", change{38, request.Text(11)})}, answers...)
		if len(answers) == n {
			p.send(answers...)
		}
	}))
	c := online(t, h)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r := saleRequest(i)
			got, err := c.Sale(t.Context(), r)
			if err != nil || got.Outcome != pci.Approved || got.ApprovalCode != r.Trace.STAN || got.RRN != r.Trace.RRN {
				t.Errorf("%s: %+v, %v", r.Trace.STAN, got, err)
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.InFlight != 0 || s.Reconnects != 0 || s.Unmatched+s.Mismatched+s.Duplicate+s.Late != 0 {
		t.Errorf("%+v", s)
	}
}

func TestTerminalsMayShareTraceNumbers(t *testing.T) {
	held := make(chan []byte, 1)
	h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) {
		if request.Text(41) == "TERM1" {
			held <- p.answer(request, "00", change{38, "FIRST1"})
			return
		}
		p.send(p.answer(request, "00", change{38, "SECOND"}), <-held)
	}))
	c := online(t, h)
	first := make(chan pci.SaleResult, 1)
	go func() {
		result, _ := c.Sale(t.Context(), saleRequest(7))
		first <- result
	}()
	h.await("0200")
	if got, err := c.Sale(t.Context(), saleRequest(7)); got.Outcome != pci.Unsent || !errors.Is(err, ErrInFlight) {
		t.Errorf("the same trace twice at once: %+v, %v", got, err)
	}
	second := saleRequest(7)
	second.Merchant.TerminalID = "TERM2"
	if got, err := c.Sale(t.Context(), second); got.ApprovalCode != "SECOND" {
		t.Errorf("second terminal: %+v, %v", got, err)
	}
	if got := <-first; got.ApprovalCode != "FIRST1" {
		t.Errorf("first terminal: %+v", got)
	}
}

func TestReversalSaysWhatItReverses(t *testing.T) {
	h := newHost(t, agreeable(approving))
	c := online(t, h)
	r := reversalRequest(42)
	if ok, err := c.Reverse(t.Context(), r); !ok || err != nil {
		t.Fatal(ok, err)
	}
	r.Repeat = true
	if ok, err := c.Reverse(t.Context(), r); !ok || err != nil {
		t.Fatal(ok, err)
	}
	want := map[int]string{
		0: "0400", 2: testPAN, 3: "000000", 4: "000000001042", 7: "0102030505", 11: "500042", 12: "030405", 13: "0102",
		14: "3012", 18: "5812", 22: "010", 25: "59", 32: "123456", 37: "000000000042", 41: "TERM1", 42: "MERCHANT1",
		49: "978", 90: "0200" + "000042" + "0102030405" + "00000123456" + "00000000000",
	}
	checkFields(t, h.received("0400")[0], want)
	want[0] = "0401"
	checkFields(t, h.received("0401")[0], want)
}

func TestReversalIsAcknowledgedByCode(t *testing.T) {
	for _, tt := range []struct {
		code         string
		repeat       bool
		acknowledged bool
	}{{"00", false, true}, {"25", false, true}, {"94", false, false}, {"94", true, true}, {"96", true, false}} {
		h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) { p.send(p.answer(request, tt.code)) }))
		r := reversalRequest(1)
		r.Repeat = tt.repeat
		ok, err := online(t, h).Reverse(t.Context(), r)
		if ok != tt.acknowledged || ok != (err == nil) || !ok && !errors.Is(err, ErrUnclear) {
			t.Errorf("%+v: %v, %v", tt, ok, err)
		}
	}
}

func TestReversalWithoutAnswerIsNotAcknowledged(t *testing.T) {
	h := newHost(t, agreeable(func(*peer, *iso8583.Message) {}))
	c := online(t, h, impatient)
	if ok, err := c.Reverse(t.Context(), reversalRequest(1)); ok || !errors.Is(err, ErrNoAnswer) {
		t.Errorf("silence: %v, %v", ok, err)
	}
	r := reversalRequest(2)
	r.Token = "unknown"
	if ok, err := c.Reverse(t.Context(), r); ok || !errors.Is(err, pci.ErrNotIssued) {
		t.Errorf("unknown token: %v, %v", ok, err)
	}
	c.stop()
	if ok, err := c.Reverse(t.Context(), reversalRequest(3)); ok || !errors.Is(err, ErrOffline) {
		t.Errorf("no connection: %v, %v", ok, err)
	}
}

func TestConnectionIsMadeAgain(t *testing.T) {
	h := newHost(t, agreeable(approving))
	c := online(t, h)
	for i := range 3 {
		h.hangUp()
		eventually(t, "another connection", func() bool { return c.Healthy() && c.Stats().Reconnects == uint64(i+1) })
		if got, err := c.Sale(t.Context(), saleRequest(i)); got.Outcome != pci.Approved {
			t.Fatalf("after reconnection %d: %+v, %v", i+1, got, err)
		}
	}
}

func TestConnectorWaitsForAHostThatIsAway(t *testing.T) {
	h := newHost(t, agreeable(approving))
	address := h.listener.Addr().String()
	_ = h.listener.Close()
	c := start(t, h, func(cfg *Config) { cfg.SignOn = false })
	back, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	h.listener = back
	t.Cleanup(func() { _ = back.Close() })
	h.start()
	eventually(t, "a connection", c.Healthy)
}

func TestRefusedSignOnIsTriedAgain(t *testing.T) {
	var refusals int
	h := newHost(t, func(p *peer, request *iso8583.Message) {
		code := "00"
		if refusals++; refusals <= 2 {
			code = "91"
		}
		p.send(p.answer(request, code))
	})
	online(t, h)
	if n := len(h.received("0800")); n != 3 {
		t.Errorf("signed on %d times", n)
	}
}

func TestLineIsSignedOnTestedAndSignedOff(t *testing.T) {
	h := newHost(t, agreeable(approving))
	c := online(t, h, func(cfg *Config) { cfg.EchoInterval = 10 * time.Millisecond })
	eventually(t, "two echo tests", func() bool { return len(h.received("0800")) >= 3 })
	c.stop()
	var codes []string
	stans := map[string]bool{}
	for _, fields := range h.received("0800") {
		codes = append(codes, fields[70])
		stans[fields[11]] = true
	}
	if codes[0] != "001" || codes[1] != "301" || codes[len(codes)-1] != "002" || len(stans) != len(codes) {
		t.Errorf("network management %v with %d trace numbers", codes, len(stans))
	}
	if c.Healthy() {
		t.Error("healthy after the end")
	}
}

func TestLineThatFailsItsTestIsReplaced(t *testing.T) {
	h := newHost(t, func(p *peer, request *iso8583.Message) {
		if request.Text(70) != "301" {
			p.send(p.answer(request, "00"))
		}
	})
	c := online(t, h, impatient, func(cfg *Config) { cfg.EchoInterval = 10 * time.Millisecond })
	eventually(t, "another connection", func() bool { return c.Stats().Reconnects > 0 })
}

func TestHostMayTestTheLine(t *testing.T) {
	h := newHost(t, func(p *peer, request *iso8583.Message) {
		if request.MTI() != "0800" {
			return
		}
		w := iso8583.NewWriter(p.spec, make([]byte, 2, 200), "0800")
		w.Text(7, "0102030405")
		w.Text(11, "777777")
		w.Text(70, "301")
		frame, err := w.Finish()
		if err != nil {
			t.Error(err)
		}
		binary.BigEndian.PutUint16(frame, uint16(len(frame)-2))
		p.send(frame, []byte{0, 0}, p.answer(request, "00"))
	})
	online(t, h)
	h.await("0810")
	checkFields(t, h.received("0810")[0], map[int]string{0: "0810", 7: "0102030405", 11: "777777", 39: "00", 70: "301"})
}

func TestShutdownWaitsForSalesInFlight(t *testing.T) {
	release := make(chan struct{})
	h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) {
		<-release
		p.send(p.answer(request, "00"))
	}))
	c := online(t, h)
	ended := make(chan pci.SaleResult, 1)
	go func() {
		result, _ := c.Sale(t.Context(), saleRequest(1))
		ended <- result
	}()
	eventually(t, "the sale to be sent", func() bool { return len(h.received("0200")) == 1 })
	stopped := make(chan struct{})
	go func() {
		c.stop()
		close(stopped)
	}()
	eventually(t, "the shutdown to begin", func() bool { return !c.Healthy() })
	if got, err := c.Sale(t.Context(), saleRequest(2)); got.Outcome != pci.Unsent || !errors.Is(err, ErrOffline) {
		t.Errorf("a sale during the shutdown: %+v, %v", got, err)
	}
	close(release)
	if got := <-ended; got.Outcome != pci.Approved {
		t.Errorf("the sale in flight: %+v", got)
	}
	<-stopped
}

func TestOnlyOneRunAtATime(t *testing.T) {
	c := online(t, newHost(t, agreeable(approving)))
	if err := c.Run(t.Context()); err == nil {
		t.Error("a second Run ended without an error")
	}
}

func TestEchoedCardIsWipedBeforeTheMessageIsUsed(t *testing.T) {
	w := iso8583.NewWriter(iso8583.ASCII1987, make([]byte, 0, 500), "0210")
	w.Text(2, testPAN)
	w.Text(11, "000001")
	w.Text(39, "00")
	w.Text(48, "9203"+testCVV)
	message, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	m, err := iso8583.Parse(iso8583.ASCII1987, message)
	if err != nil {
		t.Fatal(err)
	}
	if a := (layout{}).answerOf(m); a.stan != "000001" || a.code != "00" {
		t.Errorf("%+v", a)
	}
	if bytes.Contains(message, []byte(testPAN)) || bytes.Contains(message, []byte(testCVV)) {
		t.Error("the card is still in the read buffer")
	}
}

func TestLogsAndErrorsShowNoCard(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(before)
	h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) { _ = p.conn.Close() }))
	c := online(t, h)
	_, saleErr := c.Sale(t.Context(), saleRequest(1))
	eventually(t, "another connection", c.Healthy)
	_, reversalErr := c.Reverse(t.Context(), reversalRequest(1))
	eventually(t, "another connection", c.Healthy)
	_, captureErr := c.Capture(t.Context(), captureRequest(1))
	eventually(t, "another connection", c.Healthy)
	_, refundErr := c.Refund(t.Context(), refundRequest(1))
	c.stop()
	all := log.String() + saleErr.Error() + reversalErr.Error() + captureErr.Error() + refundErr.Error()
	for _, secret := range []string{testPAN, testPAN[6:12], "9203" + testCVV} {
		if strings.Contains(all, secret) {
			t.Errorf("card data in %s", all)
		}
	}
}

func TestAdditionalDataIsPlacedAsConfigured(t *testing.T) {
	h := newHost(t, agreeable(approving))
	c := online(t, h, func(cfg *Config) { cfg.Additional = Additional{Field: 126, ECI: "90", CAVV: "-", CVV: "10"} })
	if _, err := c.Sale(t.Context(), saleRequest(1)); err != nil {
		t.Fatal(err)
	}
	got := h.received("0200")[0]
	if got[48] != "" || got[126] != "1003737900205" {
		t.Errorf("DE 48 %q, DE 126 %q", got[48], got[126])
	}
}

func TestCardWithoutCVVOrAuthenticationHasNoAdditionalData(t *testing.T) {
	h := newHost(t, agreeable(approving))
	c := online(t, h)
	c.cards = custodian{}
	r := saleRequest(1)
	r.Authentication = pci.Authentication{}
	if _, err := c.Sale(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got, ok := h.received("0200")[0][48]; ok {
		t.Errorf("DE 48 is %q", got)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	good := Config{Address: "127.0.0.1:1", Spec: "ascii1987"}
	cards := custody.New(nil, custody.Config{})
	if _, err := New(good, cards, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := New(good, nil, nil); err == nil {
		t.Error("accepted without custody")
	}
	for name, spoil := range map[string]func(*Config){
		"address":      func(c *Config) { c.Address = "" },
		"spec":         func(c *Config) { c.Spec = "" },
		"header":       func(c *Config) { c.Header = "tpdu" },
		"acquirer":     func(c *Config) { c.AcquirerID = "ABC" },
		"field":        func(c *Config) { c.Additional.Field = 43 },
		"entry mode":   func(c *Config) { c.EntryMode = "10" },
		"stored entry": func(c *Config) { c.StoredEntryMode = "10A" },
		"of 1993":      func(c *Config) { c.EntryMode = "000010100000" },
		"no field":     func(c *Config) { c.Additional.Field = 129 },
		"negative":     func(c *Config) { c.Additional.Field = -1 },
		"tag":          func(c *Config) { c.Additional.CVV = "1" },
		"the same tag": func(c *Config) { c.Additional.CVV = "42" },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := New(cfg, cards, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A header that promises more than comes would make the reader wait for ever, and take what comes next for the rest.
func TestAMessageThatNeverEndsEndsTheConnection(t *testing.T) {
	var begun atomic.Bool
	h := newHost(t, agreeable(func(p *peer, request *iso8583.Message) {
		if begun.Swap(true) {
			approving(p, request)
			return
		}
		_, _ = p.conn.Write([]byte{0x01, 0x00, '0', '2', '1', '0'})
	}))
	c := online(t, h, impatient)
	if got, err := c.Sale(t.Context(), saleRequest(1)); got.Outcome != pci.Unknown {
		t.Errorf("%+v, %v", got, err)
	}
	eventually(t, "another connection", func() bool { return c.Healthy() && c.Stats().Reconnects == 1 })
	if got, err := c.Sale(t.Context(), saleRequest(2)); got.Outcome != pci.Approved {
		t.Errorf("after it: %+v, %v", got, err)
	}
}
