package simulator

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// DefaultLateAfter is three seconds more than the appliance waits for an acquirer unless it is configured otherwise.
const DefaultLateAfter = 18 * time.Second

// lostReversals is how many reversals of a [NoAnswer] card get lost before one is answered.
const lostReversals = 2

// AcquirerOptions says how a simulated acquirer speaks.
type AcquirerOptions struct {
	Spec      *iso8583.Spec  // nil means [iso8583.ASCII1987]
	Header    iso8583.Header // empty means [iso8583.Binary2]
	LateAfter time.Duration  // when [Late] cards are answered; 0 means [DefaultLateAfter]
}

// AcquirerHost is an acquirer's ISO 8583 host, in either edition. It answers authorizations (0100), sales and refunds
// (0200), capture advices (0220, 0221), reversals (0400, 0401), reversal advices (0420, 0421), reconciliations (0500) and
// network management (0800), as [Cards] says of the card, and keeps books: a request that comes again is answered as the
// first time and never booked again. In the edition of 1993 the types begin with 1, and network management is 1804.
//
// Other types of messages and functions are answered with response code 12, messages that lack a field with 30; what
// is no message closes the connection. Logs carry nothing of a message's content.
type AcquirerHost struct {
	options   AcquirerOptions
	books     books
	behaviour behaviour
}

// NewAcquirerHost returns a host with empty books.
func NewAcquirerHost(options AcquirerOptions) *AcquirerHost {
	if options.Spec == nil {
		options.Spec = iso8583.ASCII1987
	}
	if options.Header == "" {
		options.Header = iso8583.Binary2
	}
	if options.LateAfter == 0 {
		options.LateAfter = DefaultLateAfter
	}
	return &AcquirerHost{options: options, books: newBooks(), behaviour: behaviour{faults: acquirerFaults}}
}

// Serve accepts connections until ctx ends, then closes the listener and all connections, and returns nil when every
// goroutine has ended. If the listener fails before, its error is returned. While it is [Refusing] the listener is closed; then
// another one takes its address.
func (h *AcquirerHost) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		err := h.accept(ctx, listener, &wg)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			listener, err = h.reopen(ctx, listener.Addr().String())
		}
		if err != nil {
			return fmt.Errorf("acquirer host: %w", err)
		}
	}
}

// accept takes connections until ctx ends or the host is [Refusing], which is no error. Then listener and connections are closed.
func (h *AcquirerHost) accept(ctx context.Context, listener net.Listener, wg *sync.WaitGroup) error {
	open, shut := context.WithCancel(ctx)
	defer shut()
	wg.Go(func() {
		defer shut()
		h.behaviour.await(open, func(f Fault) bool { return f == Refusing })
	})
	stop := context.AfterFunc(open, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		switch {
		case open.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			_ = listener.Close()
			h.behaviour.struck(Refusing)
			return nil
		case err != nil:
			_ = listener.Close()
			return err
		}
		wg.Go(func() { h.talk(open, conn) })
	}
}

// talk serves one connection, and waits for the answers that are still to be sent on it.
func (h *AcquirerHost) talk(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	p := &acquirerPeer{host: h, conn: conn}
	defer p.late.Wait()
	defer cancel()
	defer func() { _ = conn.Close() }() // it may be closed already
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	buf := make([]byte, iso8583.MaxFrame)
	for {
		message, err := h.options.Header.ReadFrame(conn, buf)
		if err == nil && len(message) > 0 {
			err = p.take(ctx, message)
		}
		switch {
		case err == nil:
		case ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, errHangUp):
			return
		default:
			slog.WarnContext(ctx, "simulated acquirer closes a connection", "error", err)
			return
		}
	}
}

// acquirerPeer is one connection of the host.
type acquirerPeer struct {
	host    *AcquirerHost
	conn    net.Conn
	writing sync.Mutex
	late    sync.WaitGroup // answers that are sent later
}

// errHangUp closes a connection because the card says so.
var errHangUp = errors.New("simulator: hang up")

// reply is what becomes of a request: an answer with a response code, and when and how often it is sent.
type reply struct {
	code       string
	approval   string        // DE 38
	networkID  string        // the scheme's identifier of the transaction, in DE 48
	settlement string        // DE 66 of a reconciliation
	totals     pci.Totals    // of a reconciliation
	times      int           // 0 sends nothing
	after      time.Duration // sent that much later
	hangUp     bool          // the connection is closed instead

	instead map[int]string                                                         // fields that are not as asked
	mangle  func(header iso8583.Header, frame []byte) (mangled []byte, whole bool) // what leaves instead of the frame; not whole: and then nothing more
}

// answered is the usual reply.
func answered(code string) reply { return reply{code: code, times: 1} }

// take handles one message.
func (p *acquirerPeer) take(ctx context.Context, message []byte) error {
	request, err := iso8583.Parse(p.host.options.Spec, message)
	if err != nil {
		return err
	}
	if (request.MTI()[2]-'0')%2 == 1 {
		return nil // an answer to nothing that was asked
	}
	lost, spoil := p.host.struckBy(request)
	if lost {
		return nil
	}
	r := p.host.decide(request)
	if spoil != nil {
		spoil(&r)
	}
	if r.hangUp {
		return errHangUp
	}
	if r.times == 0 {
		return nil
	}
	frame, err := p.host.answer(request, r)
	if err != nil {
		return err
	}
	if r.mangle != nil {
		var whole bool
		if frame, whole = r.mangle(p.host.options.Header, frame); !whole {
			return errors.Join(p.send(frame, 1), errHangUp)
		}
	}
	if r.after == 0 {
		return p.send(frame, r.times)
	}
	p.late.Go(func() {
		timer := time.NewTimer(r.after)
		defer timer.Stop()
		select {
		case <-timer.C:
			_ = p.send(frame, r.times) // nobody may be there any more, which is what being late is about
		case <-ctx.Done():
		}
	})
	return nil
}

func (p *acquirerPeer) send(frame []byte, times int) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	for range times {
		if _, err := p.conn.Write(frame); err != nil {
			return err
		}
	}
	return nil
}

// decide books a request and says how it is answered.
func (h *AcquirerHost) decide(request *iso8583.Message) reply {
	switch request.MTI() {
	case "0800", "1804":
		return manage(request)
	case "0100", "1100", "0200", "1200":
		return h.charge(request)
	case "0220", "0221", "1220", "1221":
		return h.capture(request)
	case "0400", "0401", "0420", "0421", "1420", "1421":
		return h.reversal(request)
	case "0500", "1500":
		return h.reconcile(request)
	}
	return answered("12")
}

// manage agrees to sign-on, sign-off and echo test, by DE 70 in the edition of 1987 and DE 24 in that of 1993.
func manage(request *iso8583.Message) reply {
	function := request.Text(70)
	if of1993(request) {
		function = request.Text(24)
	}
	switch function {
	case "001", "002", "301", "801", "802", "831":
		return answered("00")
	}
	return answered("12")
}

// charge treats an authorization, a sale or a refund as its card says.
func (h *AcquirerHost) charge(request *iso8583.Message) reply {
	entry, ok := entryOf(request)
	if !ok || !request.Has(2) {
		return answered("30")
	}
	number := string(request.AppendTo(nil, 2))
	entry.Card, entry.behaviour = truncated(number), behaviourOf(number).Acquirer
	entry.kind = authorized
	if request.MTI()[1] == '2' {
		entry.kind = sold
	}
	switch code := request.Text(3); {
	case len(code) == 6 && code[:2] == "00":
		if entry.behaviour == SoftDecline {
			entry.behaviour = softly(request)
		}
		return h.sale(entry)
	case len(code) == 6 && code[:2] == "20" && entry.kind == sold:
		return h.refund(request, entry)
	}
	return answered("12") // neither purchase nor refund
}

// softly is how a [SoftDecline] card's issuer answers: it approves what its challenge has authenticated, as the CAVV says.
func softly(request *iso8583.Message) Acquirer {
	proof, err := base64.StdEncoding.DecodeString(subelement(string(request.AppendTo(nil, 48)), "43"))
	switch {
	case err == nil && len(proof) == 20 && proof[0] == 1:
		return Approve
	case of1993(request):
		return "65" // which has an action code
	}
	return "1A"
}

// subelement returns the value of a tag of additional data (DE 48), empty where it is not there.
func subelement(text, tag string) string {
	for len(text) >= 4 {
		n, err := strconv.Atoi(text[2:4])
		if err != nil || n < 0 || len(text) < 4+n {
			return ""
		}
		if text[:2] == tag {
			return text[4 : 4+n]
		}
		text = text[4+n:]
	}
	return ""
}

func (h *AcquirerHost) sale(entry bookEntry) reply {
	entry.code = string(Approve)
	if len(entry.behaviour) == 2 {
		entry.code = string(entry.behaviour)
	}
	first := h.books.book(entry)
	r := answered(first.code)
	r.approval = first.approval
	if first.State == BookedApproved {
		r.networkID = "SIM" + first.RRN
	}
	switch first.behaviour {
	case Silent, NoAnswer:
		r.times = 0
	case Twice:
		r.times = 2
	case Late:
		r.after = h.options.LateAfter
	case HangUp:
		r.hangUp = true
	}
	return r
}

// refund gives back what DE 90 or 56 names.
func (h *AcquirerHost) refund(request *iso8583.Message, entry bookEntry) reply {
	original, ok := originalOf(request)
	if !ok {
		return answered("30")
	}
	entry.kind = refunded
	first := h.books.refund(entry, original)
	r := answered(first.code)
	r.approval = first.approval
	if first.behaviour == RefundSilent {
		r.times = 0
	}
	return r
}

// capture takes the advice that moves what was authorized before.
func (h *AcquirerHost) capture(request *iso8583.Message) reply {
	entry, ok := entryOf(request)
	if !ok {
		return answered("30")
	}
	original, _ := originalOf(request) // DE 37 finds it too
	code, answers := h.books.capture(entry, original)
	if !answers {
		return reply{}
	}
	return answered(code)
}

// reversal takes back the original that DE 37, 41 and 90 (or 56) name.
func (h *AcquirerHost) reversal(request *iso8583.Message) reply {
	entry, ok := entryOf(request)
	original, named := originalOf(request)
	if !ok || !named {
		return answered("30")
	}
	entry.STAN = original.stan
	code, answers := h.books.reverse(entry)
	if !answers {
		return reply{}
	}
	return answered(code)
}

// of1993 reports whether a message is of the edition of 1993.
func of1993(m *iso8583.Message) bool { return m.MTI()[0] == '1' }

// answer builds the frame of an answer: what a host echoes, and the response code. The PAN is echoed, as many hosts do.
func (h *AcquirerHost) answer(request *iso8583.Message, r reply) ([]byte, error) {
	mti := []byte(request.MTI())
	mti[2]++ // 0200 -> 0210
	if mti[3] == '1' {
		mti[3] = '0' // repeats are answered as the first one
	}
	code, settlement := r.code, r.settlement
	if of1993(request) {
		code, settlement = action(string(mti), r), ""
	}
	header := h.options.Header
	w := iso8583.NewWriter(h.options.Spec, make([]byte, header.Size(), iso8583.MaxFrame), string(mti))
	totals := totalsByField(r)
	for de := range iso8583.MaxField + 1 {
		switch de {
		case 2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49, 50, 56, 70, 90:
			switch other, ok := r.instead[de]; {
			case ok && request.Has(de):
				w.Text(de, other)
			case request.Has(de):
				w.Bytes(de, request.AppendTo(nil, de))
			}
		case 38:
			if r.approval != "" {
				w.Text(de, r.approval)
			}
		case 39:
			w.Text(de, code)
		case 48:
			if r.networkID != "" {
				w.Text(de, fmt.Sprintf("63%02d%s", len(r.networkID), r.networkID))
			}
		case 66:
			if settlement != "" {
				w.Text(de, settlement)
			}
		default:
			if n, ok := totals[de]; ok {
				w.Uint(de, uint64(n))
			}
		}
	}
	frame, err := w.Finish()
	if err != nil {
		return nil, err
	}
	return frame, header.Put(frame)
}
