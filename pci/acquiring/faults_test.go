package acquiring

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/finterra/finpay/appliance/simulator"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// crossing stands between a connector and a simulated acquirer, and can spoil one answer.
type crossing struct {
	t        *testing.T
	spec     *iso8583.Spec
	host     *simulator.AcquirerHost
	acquirer string // its address
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	next  func(to net.Conn, frame []byte) // what becomes of the next answer about money; nil: it passes
}

// newCrossing runs a simulated acquirer, and a way to it, until the test ends.
func newCrossing(t *testing.T, spec *iso8583.Spec) *crossing {
	t.Helper()
	x := &crossing{t: t, spec: spec, host: simulator.NewAcquirerHost(simulator.AcquirerOptions{Spec: spec}), listener: listen(t)}
	acquirer := listen(t)
	x.acquirer = acquirer.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	x.wg.Go(func() { _ = x.host.Serve(ctx, acquirer) })
	x.wg.Go(x.accept)
	t.Cleanup(func() {
		cancel()
		_ = x.listener.Close()
		x.mu.Lock()
		for _, conn := range x.conns {
			_ = conn.Close()
		}
		x.mu.Unlock()
		x.wg.Wait()
	})
	return x
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func (x *crossing) accept() {
	for {
		from, err := x.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", x.acquirer)
		if err != nil {
			_ = from.Close()
			continue
		}
		x.mu.Lock()
		x.conns = append(x.conns, from, to)
		x.mu.Unlock()
		x.wg.Go(func() {
			_, _ = io.Copy(to, from)
			_ = to.Close()
		})
		x.wg.Go(func() {
			x.bring(to, from)
			_ = from.Close()
		})
	}
}

// bring carries answers from the acquirer.
func (x *crossing) bring(acquirer, to net.Conn) {
	buf := make([]byte, iso8583.MaxFrame)
	for {
		message, err := iso8583.Binary2.ReadFrame(acquirer, buf)
		if err != nil {
			return
		}
		m, err := iso8583.Parse(x.spec, message)
		if err != nil {
			x.t.Errorf("the simulated acquirer answers %v", err)
			return
		}
		frame := append([]byte{byte(len(message) >> 8), byte(len(message))}, message...)
		x.mu.Lock()
		spoil := x.next
		if m.MTI()[1] != '8' {
			x.next = nil
		} else {
			spoil = nil
		}
		x.mu.Unlock()
		if spoil == nil {
			_, _ = to.Write(frame)
			continue
		}
		spoil(to, frame)
	}
}

func (x *crossing) spoilNext(spoil func(to net.Conn, frame []byte)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.next = spoil
}

// changed is a frame with another value in a field.
func (x *crossing) changed(frame []byte, of map[int]string) []byte {
	m, err := iso8583.Parse(x.spec, bytes.Clone(frame[2:]))
	if err != nil {
		x.t.Error(err)
		return nil
	}
	w := iso8583.NewWriter(x.spec, make([]byte, 2, iso8583.MaxFrame), m.MTI())
	for de := range m.Fields() {
		if value, ok := of[de]; ok {
			w.Text(de, value)
			continue
		}
		w.Bytes(de, m.AppendTo(nil, de))
	}
	out, err := w.Finish()
	if err == nil {
		err = iso8583.Binary2.Put(out)
	}
	if err != nil {
		x.t.Error(err)
	}
	return out
}

// fault is something that happens to an answer.
type fault struct {
	name  string
	spoil func(x *crossing, to net.Conn, frame []byte)
	// known says that the connector has seen all that there is to come; then nobody waits any longer.
	known func(Stats) bool
	err   error // nil: the request is answered all the same
	after func(Stats) bool
}

func write(to net.Conn, b []byte) { _, _ = to.Write(b) }

var faults = []fault{
	{name: "slow", spoil: func(_ *crossing, to net.Conn, frame []byte) {
		for i := range frame {
			write(to, frame[i:i+1])
		}
	}},
	{name: "silent", spoil: func(*crossing, net.Conn, []byte) {}, known: func(Stats) bool { return true }, err: ErrNoAnswer},
	{name: "closed in the middle", spoil: func(_ *crossing, to net.Conn, frame []byte) {
		write(to, frame[:len(frame)/2])
		_ = to.Close()
	}, err: ErrBroken},
	{name: "twice", spoil: func(_ *crossing, to net.Conn, frame []byte) { write(to, append(frame, frame...)) },
		after: func(s Stats) bool { return s.Duplicate == 1 }},
	{name: "another STAN", spoil: func(x *crossing, to net.Conn, frame []byte) {
		write(to, x.changed(frame, map[int]string{11: "999999"}))
	},
		known: func(s Stats) bool { return s.Unmatched == 1 }, err: ErrNoAnswer},
	{name: "garbled length", spoil: func(_ *crossing, to net.Conn, frame []byte) { write(to, append([]byte{0xFF, 0xFF}, frame[2:]...)) },
		err: ErrBroken},
	{name: "garbled message", spoil: func(_ *crossing, to net.Conn, frame []byte) {
		frame[2] = 0xFF // no digit of a message type
		write(to, frame)
	}, known: func(s Stats) bool { return s.Garbled == 1 }, err: ErrNoAnswer},
	{name: "other currency", spoil: func(x *crossing, to net.Conn, frame []byte) {
		write(to, x.changed(frame, map[int]string{49: "360", 50: "360"}))
	}, known: func(s Stats) bool { return s.Mismatched == 1 }, err: ErrNoAnswer},
}

// deed is a request, what comes before it, what follows when its outcome is not known, and the books in the end.
type deed struct {
	name   string
	before func(ctx context.Context, c *started) error
	do     func(ctx context.Context, c *started) error
	mend   func(ctx context.Context, c *started) error
	done   simulator.Booking // after do alone
	mended simulator.Booking // after do and mend
}

func booking(captured, refunded, reversed int64, state simulator.BookingState) simulator.Booking {
	return simulator.Booking{RRN: "000000000001", STAN: "000001", Terminal: "TERM1", Amount: 1001, Captured: captured, Refunded: refunded,
		Reversed: reversed, Currency: "EUR", Card: "411111******1111", State: state}
}

func deeds() []deed {
	authorize := func(ctx context.Context, c *started) error { return ended(c.Authorize(ctx, saleRequest(1))) }
	sell := func(ctx context.Context, c *started) error { return ended(c.Sale(ctx, saleRequest(1))) }
	reversing := func(change func(*pci.ReversalRequest)) func(ctx context.Context, c *started) error {
		r := reversalRequest(1)
		change(&r)
		return func(ctx context.Context, c *started) error { return acknowledged(c.Reverse(ctx, r)) }
	}
	capturing := func(repeat bool) func(ctx context.Context, c *started) error {
		r := captureRequest(1)
		r.Amount.Minor, r.Repeat = 1000, repeat
		return func(ctx context.Context, c *started) error { return acknowledged(c.Capture(ctx, r)) }
	}
	refund := refundRequest(1)
	refund.Amount.Minor = 400
	totals := reconciliationRequest(1)
	totals.Totals = pci.Totals{Debits: pci.Tally{Count: 1, Minor: 1001}}
	reconcile := func(ctx context.Context, c *started) error {
		agreed, theirs, err := c.Reconcile(ctx, totals)
		if err == nil && (!agreed || theirs != totals.Totals) {
			return errors.New("the totals differ")
		}
		return err
	}
	approved, reversed := simulator.BookedApproved, simulator.BookedReversed
	return []deed{
		{"authorization", nil, authorize, reversing(func(r *pci.ReversalRequest) { r.OriginalMTI = "0100" }),
			booking(0, 0, 0, approved), booking(0, 0, 1001, reversed)},
		{"sale", nil, sell, reversing(func(*pci.ReversalRequest) {}), booking(1001, 0, 0, approved), booking(0, 0, 1001, reversed)},
		{"capture", authorize, capturing(false), capturing(true), booking(1000, 0, 0, approved), booking(1000, 0, 0, approved)},
		{"refund", sell, func(ctx context.Context, c *started) error { return ended(c.Refund(ctx, refund)) },
			reversing(func(r *pci.ReversalRequest) { r.Original, r.Amount, r.Refund = refund.Trace, refund.Amount, true }),
			booking(1001, 400, 0, approved), booking(1001, 0, 0, approved)},
		{"reversal", sell, reversing(func(*pci.ReversalRequest) {}), reversing(func(r *pci.ReversalRequest) { r.Repeat = true }),
			booking(0, 0, 1001, reversed), booking(0, 0, 1001, reversed)},
		{"void", authorize, reversing(func(r *pci.ReversalRequest) { r.OriginalMTI, r.ApprovalCode = "0100", "A1B2C3" }),
			reversing(func(r *pci.ReversalRequest) { r.OriginalMTI, r.ApprovalCode, r.Repeat = "0100", "A1B2C3", true }),
			booking(0, 0, 1001, reversed), booking(0, 0, 1001, reversed)},
		{"reconciliation", sell, reconcile, reconcile, booking(1001, 0, 0, approved), booking(1001, 0, 0, approved)},
	}
}

func TestWhateverHappensToAnAnswerTheBooksAreRightInTheEnd(t *testing.T) {
	free := countSlots(t)
	for _, spec := range []*iso8583.Spec{iso8583.ASCII1987, iso8583.Binary1993} {
		for _, d := range deeds() {
			for _, f := range append(faults, late()) {
				t.Run(spec.Name+" "+d.name+" "+f.name, func(t *testing.T) { d.suffers(t, spec, f) })
			}
		}
	}
	if got := countSlots(t); got != free {
		t.Errorf("%d slots of locked memory are free, %d were", got, free)
	}
}

// late answers come when nobody waits for them any more.
func late() fault {
	held := make(chan func(), 1)
	return fault{name: "late",
		spoil: func(_ *crossing, to net.Conn, frame []byte) { held <- func() { write(to, frame) } },
		known: func(Stats) bool { return true }, err: ErrNoAnswer,
		after: func(s Stats) bool {
			select {
			case release := <-held:
				release()
			default:
			}
			return s.Late == 1
		}}
}

func (d deed) suffers(t *testing.T, spec *iso8583.Spec, f fault) {
	x := newCrossing(t, spec)
	cfg := testConfig(&host{listener: x.listener, spec: spec, header: iso8583.Binary2})
	c := running(t, cfg)
	eventually(t, "a connection", c.Healthy)
	if d.before != nil {
		if err := d.before(t.Context(), c); err != nil {
			t.Fatal("before: ", err)
		}
	}
	met := make(chan struct{})
	x.spoilNext(func(to net.Conn, frame []byte) {
		f.spoil(x, to, frame)
		close(met)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- d.do(ctx, c) }()
	<-met
	if f.known != nil {
		eventually(t, "the connector to have seen it", func() bool { return f.known(c.Stats()) })
		cancel()
	}
	if err := <-result; !errors.Is(err, f.err) {
		t.Fatalf("%v, want %v", err, f.err)
	}
	if f.after != nil {
		eventually(t, "what comes after", func() bool { return f.after(c.Stats()) })
	}
	want := d.done
	if f.err != nil {
		want = d.mended
		eventually(t, "a connection", c.Healthy)
		if err := d.mend(t.Context(), c); err != nil {
			t.Fatal("mending: ", err)
		}
	}
	if got := x.host.Books(); len(got) != 1 || got[0] != want {
		t.Errorf("books are %+v, want %+v", got, want)
	}
}
