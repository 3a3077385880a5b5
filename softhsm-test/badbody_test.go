package softhsmtest_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
)

// raw opens a TLS connection to the appliance on which a test can send what no client would.
func (s *system) raw() *tls.Conn {
	s.t.Helper()
	settings := s.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	settings.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", s.cfg.Listen, settings)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// post writes the head of a form's request, and what is sent of its body.
func post(conn io.Writer, path, length, body string) error {
	_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n%s\r\n\r\n%s", path, length, body)
	return err
}

// statuses are those of all answers until the connection ends.
func statuses(t *testing.T, conn *tls.Conn) (all []int) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	from := bufio.NewReader(conn)
	for {
		response, err := http.ReadResponse(from, nil)
		if err != nil {
			return all
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		all = append(all, response.StatusCode)
	}
}

// What says one length and is another, or takes for ever, pays nothing and keeps nobody else waiting.
func TestABodyThatIsNotWhatItSays(t *testing.T) {
	s := newSystem(t, setting{"request_time: 30s", "request_time: 2s"})
	id, link := s.buy()
	path := strings.TrimPrefix(link, s.cfg.PublicURL)
	form := url.Values{"number": {visaCard}, "expiry": {typed(visaCard).Expiry}, "cvv": {"123"}}.Encode()

	slow := make([]*tls.Conn, 8) // more than one payment may have at once
	for i := range slow {
		slow[i] = s.raw()
		if err := post(slow[i], path, fmt.Sprintf("Content-Length: %d", len(form)), form[:1+i]); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	other, otherLink := s.buy()
	if _, _, err := s.shop.Pay(t.Context(), otherLink, typed(visaCard)); err != nil {
		t.Fatal(err)
	}
	if p := s.payment(other); p.Status != api.StatusCaptured {
		t.Errorf("%+v", p)
	}
	for name, c := range map[string]struct {
		length, body string
		status       int
	}{
		"longer than it says":   {fmt.Sprintf("Content-Length: %d", len(form)-3), form, http.StatusUnprocessableEntity},
		"two lengths":           {"Content-Length: 5\r\nContent-Length: 6", form, http.StatusBadRequest},
		"length and chunks":     {"Content-Length: 5\r\nTransfer-Encoding: chunked", form, http.StatusBadRequest},
		"a length of no number": {"Content-Length: x", form, http.StatusBadRequest},
		"a bad chunk":           {"Transfer-Encoding: chunked", "zz\r\n" + form, http.StatusBadRequest},
		"more than any form":    {"Content-Length: 1048576", strings.Repeat("a", 1<<20), http.StatusRequestEntityTooLarge},
	} {
		conn := s.raw()
		_ = post(conn, path, c.length, c.body) // the appliance may have hung up
		_ = conn.CloseWrite()
		if got := statuses(t, conn); len(got) == 0 || got[0] != c.status {
			t.Errorf("%s: %v, want %d", name, got, c.status)
		}
	}
	short := s.raw()
	if err := post(short, path, fmt.Sprintf("Content-Length: %d", len(form)+10), form); err != nil {
		t.Fatal(err)
	}
	if err := short.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := statuses(t, short); len(got) == 1 && got[0] < 400 || len(got) > 1 {
		t.Errorf("shorter than it says: %v", got)
	}
	for _, conn := range slow {
		if got := statuses(t, conn); len(got) > 0 && got[0] < 400 {
			t.Errorf("a body that never comes: %v", got)
		}
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("bodies that never come were waited for %s", took)
	}
	if p := s.payment(id); p.Attempts != 0 || p.Status != api.StatusCreated {
		t.Errorf("%+v", p)
	}
	if status, _ := s.send(link, url.Values{"number": {visaCard}, "expiry": {typed(visaCard).Expiry}, "cvv": {"123"}}); status != http.StatusSeeOther {
		t.Errorf("%d", status)
	}
	if p := s.payment(id); p.Status != api.StatusCaptured {
		t.Errorf("%+v", p)
	}
	s.serve.stop()
	noCardDataIn(t, s.cfg.State())
}
