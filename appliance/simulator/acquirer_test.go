package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fields is a message in a test, by field number; 0 is the type.
type fields map[int]string

func (f fields) with(changes fields) fields {
	out := fields{}
	for de, value := range f {
		out[de] = value
	}
	for de, value := range changes {
		out[de] = value
	}
	return out
}

// terminal is a client of the host that does what it is told.
type terminal struct {
	t    *testing.T
	host *AcquirerHost
	conn net.Conn
}

// serve runs a host until the test ends.
func serve(t *testing.T, options AcquirerOptions) (host *AcquirerHost, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = NewAcquirerHost(options)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- host.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return host, listener.Addr().String()
}

func dial(t *testing.T, host *AcquirerHost, address string) *terminal {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &terminal{t, host, conn}
}

func newTerminal(t *testing.T, options AcquirerOptions) *terminal {
	t.Helper()
	host, address := serve(t, options)
	return dial(t, host, address)
}

func (c *terminal) send(message fields) {
	c.t.Helper()
	header := c.host.options.Header
	w := iso8583.NewWriter(c.host.options.Spec, make([]byte, header.Size(), iso8583.MaxFrame), message[0])
	for de := 2; de <= iso8583.MaxField; de++ {
		if value, ok := message[de]; ok {
			w.Text(de, value)
		}
	}
	frame, err := w.Finish()
	if err == nil {
		err = header.Put(frame)
	}
	if err == nil {
		_, err = c.conn.Write(frame)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// receive returns the next message.
func (c *terminal) receive() fields {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	frame, err := c.host.options.Header.ReadFrame(c.conn, make([]byte, iso8583.MaxFrame))
	if err != nil {
		c.t.Fatal(err)
	}
	m, err := iso8583.Parse(c.host.options.Spec, frame)
	if err != nil {
		c.t.Fatal(err)
	}
	got := fields{0: m.MTI()}
	for de := range m.Fields() {
		got[de] = strings.TrimRight(string(m.AppendTo(nil, de)), " ")
	}
	return got
}

func (c *terminal) ask(message fields) fields {
	c.t.Helper()
	c.send(message)
	return c.receive()
}

// unanswered checks that the next thing to come is the answer to an echo test sent after message.
func (c *terminal) unanswered(message fields) {
	c.t.Helper()
	c.send(message)
	if got := c.ask(echo); got[0] != "0810" {
		c.t.Fatalf("answered with %s, code %s", got[0], got[39])
	}
}

// closed checks that the host ends the connection.
func (c *terminal) closed() {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}

var echo = fields{0: "0800", 7: "0102030405", 11: "900001", 70: "301"}

func saleOf(number string) fields {
	return fields{0: "0200", 2: number, 3: "000000", 4: "000000001042", 7: "0102030405", 11: "000042", 14: "3012",
		37: "000000000042", 41: "TERM1", 42: "MERCHANT1", 48: "9203737", 49: "978"}
}

func reversalOf(sale fields) fields {
	return fields{0: "0400", 2: sale[2], 3: sale[3], 4: sale[4], 7: "0102030505", 11: "500042", 37: sale[37], 41: sale[41],
		49: sale[49], 90: "0200" + sale[11] + sale[7] + strings.Repeat("0", 22)}
}

// booked checks the state of the only booking, and the sum.
func (c *terminal) booked(state BookingState, net int64) {
	c.t.Helper()
	bookings, sums := c.host.books.list()
	if len(bookings) != 1 || bookings[0].State != state || sums["EUR"] != net {
		c.t.Errorf("books are %v, net %v; want one %s, net %d", bookings, sums, state, net)
	}
}

const goodCard = "4111111111111111"

func TestSaleIsAnsweredAsItsCardSays(t *testing.T) {
	for _, card := range Cards {
		if len(card.Acquirer) != 2 {
			continue
		}
		c := newTerminal(t, AcquirerOptions{})
		got := c.ask(saleOf(card.Number))
		approved := card.Acquirer == Approve
		if got[0] != "0210" || got[39] != string(card.Acquirer) || (len(got[38]) == 6) != approved ||
			got[4] != "000000001042" || got[11] != "000042" || got[37] != "000000000042" || got[41] != "TERM1" || got[49] != "978" {
			t.Errorf("%s: answered %v", card.What, got)
		}
		if approved {
			c.booked(BookedApproved, 1042)
		} else {
			c.booked(BookedDeclined, 0)
		}
	}
}

func numberOf(t *testing.T, behaviour Acquirer) string {
	t.Helper()
	for _, card := range Cards {
		if card.Acquirer == behaviour {
			return card.Number
		}
	}
	t.Fatalf("no card is %s", behaviour)
	return ""
}

func TestSilentSaleIsBookedAndCanBeReversed(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	sale := saleOf(numberOf(t, Silent))
	c.unanswered(sale)
	c.booked(BookedApproved, 1042)
	if got := c.ask(reversalOf(sale)); got[0] != "0410" || got[39] != "00" || got[11] != "500042" {
		t.Errorf("reversal answered %v", got)
	}
	c.booked(BookedReversed, 0)
}

func TestLateSaleIsAnsweredAfterItsReversal(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{LateAfter: 500 * time.Millisecond})
	sale := saleOf(numberOf(t, Late))
	c.send(sale)
	if got := c.ask(reversalOf(sale)); got[0] != "0410" || got[39] != "00" {
		t.Errorf("reversal answered %v", got)
	}
	if got := c.receive(); got[0] != "0210" || got[39] != "00" || got[11] != "000042" {
		t.Errorf("late answer %v", got)
	}
	c.booked(BookedReversed, 0)
}

func TestHungUpSaleIsBookedAndCanBeReversed(t *testing.T) {
	host, address := serve(t, AcquirerOptions{})
	c := dial(t, host, address)
	sale := saleOf(numberOf(t, HangUp))
	c.send(sale)
	c.closed()
	c.booked(BookedApproved, 1042)
	again := dial(t, host, address)
	if got := again.ask(reversalOf(sale)); got[39] != "00" {
		t.Errorf("reversal answered %v", got)
	}
	again.booked(BookedReversed, 0)
}

func TestSaleIsAnsweredTwiceAndBookedOnce(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	first := c.ask(saleOf(numberOf(t, Twice)))
	if second := c.receive(); first[39] != "00" || !reflect.DeepEqual(first, second) {
		t.Errorf("answered %v, then %v", first, second)
	}
	c.booked(BookedApproved, 1042)
}

func TestReversalsGetLostForAWhile(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	sale := saleOf(numberOf(t, NoAnswer))
	c.unanswered(sale)
	c.unanswered(reversalOf(sale))
	c.unanswered(reversalOf(sale).with(fields{0: "0401"}))
	c.booked(BookedApproved, 1042)
	if got := c.ask(reversalOf(sale).with(fields{0: "0401"})); got[0] != "0410" || got[39] != "00" {
		t.Errorf("third reversal answered %v", got)
	}
	c.booked(BookedReversed, 0)
}

func TestRepeatedSaleIsBookedOnce(t *testing.T) {
	for _, number := range []string{goodCard, numberOf(t, "51")} {
		c := newTerminal(t, AcquirerOptions{})
		first := c.ask(saleOf(number))
		if second := c.ask(saleOf(number)); !reflect.DeepEqual(first, second) {
			t.Errorf("answered %v, then %v", first, second)
		}
		if n := len(c.host.Books()); n != 1 {
			t.Errorf("%d bookings", n)
		}
	}
}

func TestReversalBeforeItsSaleRefusesTheSale(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	sale := saleOf(goodCard)
	for _, mti := range []string{"0400", "0401"} {
		if got := c.ask(reversalOf(sale).with(fields{0: mti})); got[39] != "25" {
			t.Errorf("%s answered %v", mti, got)
		}
	}
	if n := len(c.host.Books()); n != 0 {
		t.Errorf("%d bookings of nothing", n)
	}
	for range 2 {
		if got := c.ask(sale); got[39] != "21" || got[38] != "" {
			t.Errorf("sale answered %v", got)
		}
	}
	c.booked(BookedReversed, 0)
}

func TestReversals(t *testing.T) {
	for name, tt := range map[string]struct {
		number  string
		changes fields
		code    string
		state   BookingState
		net     int64
	}{
		"request":        {goodCard, fields{}, "00", BookedReversed, 0},
		"repeat":         {goodCard, fields{0: "0401"}, "00", BookedReversed, 0},
		"advice":         {goodCard, fields{0: "0420"}, "00", BookedReversed, 0},
		"advice again":   {goodCard, fields{0: "0421"}, "00", BookedReversed, 0},
		"of a refusal":   {numberOf(t, "51"), fields{}, "00", BookedDeclined, 0},
		"other amount":   {goodCard, fields{4: "000000000001"}, "13", BookedApproved, 1042},
		"other currency": {goodCard, fields{49: "360"}, "13", BookedApproved, 1042},
		"other terminal": {goodCard, fields{41: "TERM2"}, "25", BookedApproved, 1042},
		"other RRN":      {goodCard, fields{37: "000000000043"}, "25", BookedApproved, 1042},
		"other original": {goodCard, fields{90: "0200000043" + strings.Repeat("0", 32)}, "25", BookedApproved, 1042},
	} {
		c := newTerminal(t, AcquirerOptions{})
		c.ask(saleOf(tt.number))
		reversal := reversalOf(saleOf(tt.number)).with(tt.changes)
		want := "0410"
		if reversal[0][2] == '2' {
			want = "0430"
		}
		for range 2 {
			if got := c.ask(reversal); got[0] != want || got[39] != tt.code {
				t.Errorf("%s: answered %s with %s, want %s with %s", name, got[0], got[39], want, tt.code)
			}
		}
		c.booked(tt.state, tt.net)
	}
}

func TestAuthorizationMovesMoneyWithItsAdvice(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	if got := c.ask(saleOf(goodCard).with(fields{0: "0100"})); got[0] != "0110" || got[39] != "00" {
		t.Fatalf("authorization answered %v", got)
	}
	c.booked(BookedApproved, 0)
	advice := saleOf(goodCard).with(fields{0: "0220"})
	for _, tt := range []struct{ mti, stan, amount, code string }{
		{"0220", "000043", "000000001043", "13"}, // more than was authorized
		{"0220", "000044", "000000001000", "00"},
		{"0221", "000044", "000000001000", "00"}, // the same again
		{"0221", "000043", "000000001043", "13"},
		{"0220", "000045", "000000000043", "13"}, // more than is left
		{"0220", "000046", "000000000042", "00"},
		{"0220", "000047", "000000000001", "13"},
	} {
		if got := c.ask(advice.with(fields{0: tt.mti, 11: tt.stan, 4: tt.amount})); got[0] != "0230" || got[39] != tt.code {
			t.Errorf("advice of %s answered %v", tt.amount, got)
		}
	}
	c.booked(BookedApproved, 1042)
	if got := c.ask(advice.with(fields{11: "000048", 37: "000000000099"})); got[39] != "25" {
		t.Errorf("advice for nothing answered %v", got)
	}
}

func TestOtherMessagesAreRefused(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	sale := saleOf(goodCard)
	without := func(f fields, de int) fields {
		f = f.with(nil)
		delete(f, de)
		return f
	}
	for _, tt := range []struct {
		name    string
		message fields
		mti     string
		code    string
	}{
		{"sign-on", echo.with(fields{70: "001"}), "0810", "00"},
		{"sign-off", echo.with(fields{70: "002"}), "0810", "00"},
		{"echo", echo, "0810", "00"},
		{"key exchange", echo.with(fields{70: "101"}), "0810", "12"},
		{"file update", sale.with(fields{0: "0300"}), "0310", "12"},
		{"refund of nothing", sale.with(fields{3: "200000"}), "0210", "30"},
		{"authorized refund", sale.with(fields{0: "0100", 3: "200000"}), "0110", "12"},
		{"cash", sale.with(fields{3: "010000"}), "0210", "12"},
		{"totals of nothing", fields{0: "0500", 11: "000001", 41: "TERM1", 50: "978"}, "0510", "30"},
		{"no card", without(sale, 2), "0210", "30"},
		{"no amount", without(sale, 4), "0210", "30"},
		{"no terminal", without(sale, 41), "0210", "30"},
		{"no original", without(reversalOf(sale), 90), "0410", "30"},
		{"no reference", without(reversalOf(sale), 37), "0410", "30"},
		{"no currency", without(sale, 49).with(fields{0: "0220"}), "0230", "30"},
	} {
		if got := c.ask(tt.message); got[0] != tt.mti || got[39] != tt.code {
			t.Errorf("%s: answered %s with %s, want %s with %s", tt.name, got[0], got[39], tt.mti, tt.code)
		}
	}
	if n := len(c.host.Books()); n != 0 {
		t.Errorf("%d bookings", n)
	}
	c.unanswered(sale.with(fields{0: "0210"}))
}

func TestGarbageClosesTheConnection(t *testing.T) {
	host, address := serve(t, AcquirerOptions{})
	for _, garbage := range []string{"\xff\xff", "\x00\x07garbage"} {
		c := dial(t, host, address)
		if _, err := io.WriteString(c.conn, garbage); err != nil {
			t.Fatal(err)
		}
		c.closed()
	}
}

func TestBinaryDialect(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{Spec: iso8583.Binary1987, Header: iso8583.BCD2})
	if got := c.ask(saleOf("378282246310005")); got[39] != "00" {
		t.Errorf("answered %v", got)
	}
	c.booked(BookedApproved, 1042)
}

func TestManyTerminals(t *testing.T) {
	host, address := serve(t, AcquirerOptions{})
	var wg sync.WaitGroup
	for i := range 8 {
		c := dial(t, host, address)
		wg.Go(func() {
			sale := saleOf(goodCard).with(fields{41: "TERM" + string(rune('A'+i))})
			for range 3 {
				c.send(sale)
				c.receive()
			}
		})
	}
	wg.Wait()
	if _, net := host.books.list(); len(host.Books()) != 8 || net["EUR"] != 8*1042 {
		t.Errorf("%d bookings, net %v", len(host.Books()), net)
	}
}

func TestShutdownDoesNotWaitForLateAnswers(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{LateAfter: time.Hour})
	c.send(saleOf(numberOf(t, Late)))
	c.ask(echo)
	// The cleanup ends Serve, which must not take an hour.
}

func TestBooksAreServedWithoutTheCard(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	c.ask(saleOf(goodCard))
	c.ask(saleOf(goodCard).with(fields{11: "000043", 37: "000000000043", 49: "392"}))
	answer := httptest.NewRecorder()
	c.host.BooksHandler().ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
	const want = `{"bookings":[` +
		`{"rrn":"000000000042","stan":"000042","terminal":"TERM1","amount":1042,"captured":1042,"refunded":0,"reversed":0,"currency":"EUR","card":"411111******1111","state":"approved"},` +
		`{"rrn":"000000000043","stan":"000043","terminal":"TERM1","amount":1042,"captured":1042,"refunded":0,"reversed":0,"currency":"JPY","card":"411111******1111","state":"approved"}` +
		`],"net":{"EUR":1042,"JPY":1042}}`
	if got := strings.TrimSpace(answer.Body.String()); got != want || !json.Valid([]byte(got)) {
		t.Errorf("books are\n%s, want\n%s", got, want)
	}
	refused := httptest.NewRecorder()
	c.host.BooksHandler().ServeHTTP(refused, httptest.NewRequest("POST", "/", nil))
	if refused.Code != 405 {
		t.Errorf("POST answered %d", refused.Code)
	}
	for number, want := range map[string]string{"378282246310005": "378282*****0005", "50000000000611": "**********0611", "": ""} {
		if got := truncated(number); got != want {
			t.Errorf("%s is truncated to %s", want, got)
		}
	}
}

func TestLogsShowNoDigits(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() {
		slog.SetDefault(before)
		if !strings.Contains(log.String(), "DE 2") || strings.Contains(log.String(), goodCard[:6]) {
			t.Errorf("log is %s", log.String())
		}
	})
	c := newTerminal(t, AcquirerOptions{})
	if _, err := io.WriteString(c.conn, "\x00\x260200400000000000000016"+goodCard[:15]+"x"); err != nil {
		t.Fatal(err)
	}
	c.closed()
}
