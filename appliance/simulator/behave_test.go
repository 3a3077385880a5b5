package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// told tells a counterparty what to do, as a caller on this machine.
func told(t *testing.T, h http.Handler, method, body, from string) (status int, answer Behaviour) {
	t.Helper()
	r := httptest.NewRequest(method, "/behave", strings.NewReader(body))
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
	}
	return w.Code, answer
}

const here, there = "127.0.0.1:1", "192.0.2.1:1"

func (c *terminal) told(fault Fault) {
	c.t.Helper()
	if status, _ := told(c.t, c.host.BehaveHandler(), "POST", `{"fault":"`+string(fault)+`"}`, here); status != http.StatusOK {
		c.t.Fatalf("%s: HTTP %d", fault, status)
	}
}

func TestACounterpartyIsToldFromThisMachineOnly(t *testing.T) {
	h := NewAcquirerHost(AcquirerOptions{}).BehaveHandler()
	for name, tt := range map[string]struct {
		method, body, from string
		want               int
	}{
		"from elsewhere":         {"POST", `{"fault":"silent"}`, there, http.StatusForbidden},
		"a look from elsewhere":  {"GET", "", there, http.StatusForbidden},
		"no JSON":                {"POST", `silent`, here, http.StatusBadRequest},
		"no fault":               {"POST", `{"fault":"tired"}`, here, http.StatusUnprocessableEntity},
		"one of somebody else's": {"POST", `{"fault":"truncated"}`, here, http.StatusUnprocessableEntity},
		"another method":         {"DELETE", "", here, http.StatusMethodNotAllowed},
	} {
		if status, _ := told(t, h, tt.method, tt.body, tt.from); status != tt.want {
			t.Errorf("%s: HTTP %d", name, status)
		}
	}
	if _, before := told(t, h, "POST", `{"fault":"slow","after_ms":20}`, here); before != (Behaviour{}) {
		t.Errorf("before: %+v", before)
	}
	if _, now := told(t, h, "GET", "", here); now != (Behaviour{Fault: Slow, After: 20}) {
		t.Errorf("now: %+v", now)
	}
}

func TestAnAcquirerDoesWhatItIsTold(t *testing.T) {
	for fault, want := range map[Fault]func(c *terminal){
		Slow: func(c *terminal) { c.expects(c.ask(saleOf(goodCard)), "000042", "000000001042", "978") },
		AnswersTwice: func(c *terminal) {
			c.expects(c.ask(saleOf(goodCard)), "000042", "000000001042", "978")
			c.expects(c.receive(), "000042", "000000001042", "978")
		},
		OtherSTAN:   func(c *terminal) { c.expects(c.ask(saleOf(goodCard)), "999957", "000000001042", "978") },
		OtherAmount: func(c *terminal) { c.expects(c.ask(saleOf(goodCard)), "000042", "000000001043", "978") },
		OtherCurrency: func(c *terminal) {
			c.expects(c.ask(saleOf(goodCard)), "000042", "000000001042", "036")
		},
		Mute:    func(c *terminal) { c.unanswered(saleOf(goodCard)) },
		TooLate: func(c *terminal) { c.unanswered(saleOf(goodCard)) },
		HalfFrame: func(c *terminal) {
			c.send(saleOf(goodCard))
			if _, err := c.frame(); !errors.Is(err, io.ErrUnexpectedEOF) {
				c.t.Errorf("half a frame: %v", err)
			}
		},
		GarbledLength: func(c *terminal) {
			c.send(saleOf(goodCard))
			if _, err := c.frame(); !errors.Is(err, iso8583.ErrFrame) {
				c.t.Errorf("a garbled length: %v", err)
			}
		},
		WrongLength: func(c *terminal) {
			c.send(saleOf(goodCard))
			if frame, err := c.frame(); !errors.Is(err, os.ErrDeadlineExceeded) {
				c.t.Errorf("a wrong length: %d bytes, %v", len(frame), err)
			}
		},
		GarbledMessage: func(c *terminal) {
			c.send(saleOf(goodCard))
			frame, err := c.frame()
			if err == nil {
				_, err = iso8583.Parse(c.host.options.Spec, frame)
			}
			if err == nil {
				c.t.Error("a garbled message can be read")
			}
		},
	} {
		t.Run(string(fault), func(t *testing.T) {
			c := newTerminal(t, AcquirerOptions{LateAfter: time.Hour})
			c.told(fault)
			want(c)
			c.booked(BookedApproved, 1042)
			if _, now := told(t, c.host.BehaveHandler(), "GET", "", here); now.Met != 1 {
				t.Errorf("it has struck %d times", now.Met)
			}
			if fault == HalfFrame {
				return
			}
			again := dial(t, c.host, c.conn.RemoteAddr().String())
			c.told("")
			again.expects(again.ask(saleOf(goodCard)), "000042", "000000001042", "978")
		})
	}
}

func (c *terminal) expects(got fields, stan, amount, currency string) {
	c.t.Helper()
	if got[0] != "0210" || got[11] != stan || got[4] != amount || got[49] != currency {
		c.t.Errorf("answered %v", got)
	}
}

// frame returns the next frame, or why there is none.
func (c *terminal) frame() ([]byte, error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
	return c.host.options.Header.ReadFrame(c.conn, make([]byte, iso8583.MaxFrame))
}

func TestADeafAcquirerBooksNothing(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	c.told(Deaf)
	c.unanswered(saleOf(goodCard))
	if n := len(c.host.Books()); n != 0 {
		t.Errorf("%d bookings", n)
	}
	c.told("")
	if got := c.ask(reversalOf(saleOf(goodCard))); got[39] != "25" {
		t.Errorf("its reversal: %v", got)
	}
}

func TestAnEchoIsNotAnswered(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	c.told(NoEcho)
	c.send(echo)
	if got := c.ask(saleOf(goodCard)); got[0] != "0210" {
		t.Errorf("%v", got)
	}
}

func TestConnectionsAreRefusedForAWhile(t *testing.T) {
	c := newTerminal(t, AcquirerOptions{})
	c.ask(echo)
	address := c.conn.RemoteAddr().String()
	c.told(Refusing)
	c.closed()
	dials := func(what string, want error) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				_ = conn.Close()
			}
			if errors.Is(err, want) {
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	dials("a connection while they are refused", syscall.ECONNREFUSED)
	c.told("")
	dials("a connection after that", nil)
	again := dial(t, c.host, address)
	if got := again.ask(saleOf(goodCard)); got[39] != "00" {
		t.Errorf("%v", got)
	}
}

func TestADirectoryServerBreaksOffWhatItIsToldTo(t *testing.T) {
	d := newDirectory()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.ServeHTTP(w, r) }))
	defer server.Close()
	raw, err := json.Marshal(testAReq("4111111111111111"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range []Fault{Truncated, Dropped} {
		if status, _ := told(t, d.BehaveHandler(), "POST", `{"fault":"`+string(fault)+`"}`, here); status != http.StatusOK {
			t.Fatalf("%s: HTTP %d", fault, status)
		}
		response, err := server.Client().Post(server.URL, "application/json", bytes.NewReader(raw))
		if err == nil {
			_, err = io.ReadAll(response.Body)
			_ = response.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: answered", fault)
		}
	}
}

func TestAResultIsSentAsOftenAsTold(t *testing.T) {
	for fault, want := range map[Fault]int{"": 1, ResultNever: 0, ResultTwice: 2} {
		b := startBank(t)
		if status, _ := told(t, b.BehaveHandler(), "POST", `{"fault":"`+string(fault)+`"}`, here); status != http.StatusOK {
			t.Fatalf("%q: HTTP %d", fault, status)
		}
		w := submit(b, url.Values{"acsTransID": {b.acsTransID}, "password": {ChallengePassword}, "action": {"submit"}})
		if w.Code != http.StatusOK || len(b.results) != want {
			t.Errorf("%q: HTTP %d, %d results", fault, w.Code, len(b.results))
		}
	}
}
