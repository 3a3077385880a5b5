package acquiring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/pci/internal/pan"
)

const (
	testPAN   = "4111111111111111"
	testCVV   = "737"
	testToken = pci.Token("9999990000001111")
	patience  = 10 * time.Second
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// custodian lends one and the same card, as custody and tokenization do.
type custodian struct{ cvv string }

func (c custodian) lend(use func(*pan.Card) error) error {
	card, err := pan.New([]byte(testPAN), []byte(c.cvv), pci.Expiry{Year: 2030, Month: 12})
	if err != nil {
		return err
	}
	defer card.Release()
	return use(card)
}

func (c custodian) Hold(context.Context, *pan.Card, string) (pci.CardRef, error) {
	return pci.CardRef{}, errors.New("not here")
}

func (c custodian) Lend(_ context.Context, ref pci.CardRef, _ string, use func(*pan.Card) error) error {
	if ref.IsZero() {
		return pci.ErrGone
	}
	return c.lend(use)
}

type vault struct{ custodian }

func (v vault) Lend(_ context.Context, _ string, token pci.Token, use func(*pan.Card) error) error {
	if token != testToken {
		return pci.ErrNotIssued
	}
	return v.lend(use)
}

// host is an acquirer whose behaviour is the test's. Network management is answered unless the test does.
type host struct {
	t        testing.TB
	listener net.Listener
	spec     *iso8583.Spec
	header   iso8583.Header
	behave   func(p *peer, request *iso8583.Message)

	mu       sync.Mutex
	conns    []net.Conn
	requests []map[int]string // every field, by number; 0 is the MTI
	seen     chan string      // the MTI of each request
	wg       sync.WaitGroup
}

// peer is one connection of the host.
type peer struct {
	*host
	conn net.Conn
}

func newHost(t testing.TB, behave func(p *peer, request *iso8583.Message)) *host {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, listener: listener, spec: iso8583.ASCII1987, header: iso8583.Binary2, behave: behave,
		seen: make(chan string, 1000)}
	t.Cleanup(func() {
		_ = listener.Close()
		h.hangUp()
		h.wg.Wait()
	})
	return h
}

func (h *host) start() {
	listener := h.listener
	h.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns = append(h.conns, conn)
			h.mu.Unlock()
			h.wg.Go(func() { h.serve(&peer{h, conn}) })
		}
	})
}

func (h *host) serve(p *peer) {
	defer func() { _ = p.conn.Close() }()
	buf := make([]byte, iso8583.MaxFrame)
	for {
		frame, err := h.header.ReadFrame(p.conn, buf)
		if err != nil {
			return
		}
		m, err := iso8583.Parse(h.spec, bytes.Clone(frame))
		if err != nil {
			h.t.Errorf("the host cannot read a request: %v", err)
			return
		}
		fields := map[int]string{0: m.MTI()}
		for de := range m.Fields() {
			fields[de] = string(m.AppendTo(nil, de))
		}
		h.mu.Lock()
		h.requests = append(h.requests, fields)
		h.mu.Unlock()
		if h.behave != nil {
			h.behave(p, m)
		}
		h.seen <- m.MTI()
	}
}

// hangUp ends all connections.
func (h *host) hangUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, conn := range h.conns {
		_ = conn.Close()
	}
	h.conns = nil
}

// received returns the fields of the requests of a type.
func (h *host) received(mti string) (found []map[int]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, fields := range h.requests {
		if fields[0] == mti {
			found = append(found, fields)
		}
	}
	return found
}

// await waits until the host has seen a request of a type.
func (h *host) await(mti string) {
	h.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case got := <-h.seen:
			if got == mti {
				return
			}
		case <-deadline:
			h.t.Fatalf("the host saw no %s", mti)
		}
	}
}

// answer is what a host echoes, changed as told; an empty value leaves a field out.
func (p *peer) answer(request *iso8583.Message, code string, changes ...change) []byte {
	mti := answerTo(request.MTI())
	if p.spec.Version == '1' && code != "" {
		code = iso8583.ActionCode(mti, code)
	}
	fields := map[int]string{39: code}
	for _, de := range []int{2, 3, 4, 7, 11, 32, 37, 41, 42, 49, 50, 70} {
		if request.Has(de) {
			fields[de] = string(request.AppendTo(nil, de))
		}
	}
	if (code == "00" || code == "000") && request.Has(2) {
		fields[38] = "A1B2C3"
	}
	for _, c := range changes {
		fields[c.de] = c.value
	}
	return p.message(mti, fields)
}

type change struct {
	de    int
	value string
}

// send writes frames; a connection that the other side has closed is no fault.
func (p *peer) send(frames ...[]byte) {
	for _, frame := range frames {
		_, _ = p.conn.Write(frame)
	}
}

// agreeable answers network management with 00 and leaves the rest to sale.
func agreeable(sale func(p *peer, request *iso8583.Message)) func(p *peer, request *iso8583.Message) {
	return func(p *peer, request *iso8583.Message) {
		if mti := request.MTI(); mti == "0800" || mti == "1804" {
			p.send(p.answer(request, "00"))
			return
		}
		sale(p, request)
	}
}

func approving(p *peer, request *iso8583.Message) { p.send(p.answer(request, "00")) }

func testConfig(h *host) Config {
	return Config{
		Address: h.listener.Addr().String(), Spec: h.spec.Name, Header: string(h.header), SignOn: true, MatchTerminal: true,
		AcquirerID: "123456", AnswerTimeout: patience, EchoInterval: -1,
		ReconnectMin: 5 * time.Millisecond, ReconnectMax: 20 * time.Millisecond,
	}
}

// impatient gives the host little time to answer.
func impatient(cfg *Config) { cfg.AnswerTimeout = 100 * time.Millisecond }

// started is a connector that runs until the test ends.
type started struct {
	*Connector
	stop func() // ends Run and waits for it
}

func start(t testing.TB, h *host, changes ...func(*Config)) *started {
	t.Helper()
	cfg := testConfig(h)
	for _, change := range changes {
		change(&cfg)
	}
	h.start()
	return running(t, cfg)
}

// running is a connector of test cards that runs until the test ends.
func running(t testing.TB, cfg Config) *started {
	t.Helper()
	c, err := newConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.cards, c.tokens = custodian{testCVV}, vault{custodian{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return &started{c, stop}
}

// online is a connector whose line is up.
func online(t testing.TB, h *host, changes ...func(*Config)) *started {
	t.Helper()
	c := start(t, h, changes...)
	eventually(t, "a connection", c.Healthy)
	return c
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

var saleTime = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func saleRequest(n int) pci.SaleRequest {
	return pci.SaleRequest{
		Payment: fmt.Sprintf("pay_%d", n),
		Card:    pci.NewCardRef(),
		Amount:  pci.Amount{Minor: int64(1000 + n), Currency: "EUR"},
		Merchant: pci.Merchant{Name: "Kopi & Té", City: "Kuala Lumpur", Country: "MY", CountryCode: "458", MCC: "5812",
			AcquirerMID: "MERCHANT1", TerminalID: "TERM1"},
		Authentication: pci.Authentication{ECI: "05", CAVV: "AAABBWcSNIdjeUZThmNHAAAAAAA="},
		Trace:          pci.Trace{STAN: fmt.Sprintf("%06d", n), RRN: fmt.Sprintf("%012d", n), TransmittedAt: saleTime},
	}
}

func reversalRequest(n int) pci.ReversalRequest {
	sale := saleRequest(n)
	return pci.ReversalRequest{
		Payment: sale.Payment, Domain: "payments", Token: testToken, Amount: sale.Amount, Merchant: sale.Merchant,
		Original: sale.Trace,
		Trace:    pci.Trace{STAN: fmt.Sprintf("%06d", 500000+n), RRN: fmt.Sprintf("%012d", 500000+n), TransmittedAt: saleTime.Add(time.Minute)},
	}
}

func checkFields(t *testing.T, got map[int]string, want map[int]string) {
	t.Helper()
	for de := 0; de <= iso8583.MaxField; de++ {
		if strings.TrimRight(got[de], " ") != want[de] {
			t.Errorf("DE %d is %q, want %q", de, got[de], want[de])
		}
	}
}

// message frames a message of the host's own.
func (p *peer) message(mti string, fields map[int]string) []byte {
	w := iso8583.NewWriter(p.spec, make([]byte, p.header.Size(), iso8583.MaxFrame), mti)
	for de := 2; de <= iso8583.MaxField; de++ {
		if fields[de] != "" {
			w.Text(de, fields[de])
		}
	}
	frame, err := w.Finish()
	if err == nil {
		err = p.header.Put(frame)
	}
	if err != nil {
		p.t.Errorf("the host cannot send: %v", err)
	}
	return frame
}
