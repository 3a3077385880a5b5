//go:build bench

package payments_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/pci"
)

const (
	merchant = "mer_first" // that init makes
	minor    = 1250
	euro     = "EUR"
	returns  = "https://localhost/thanks"
	patience = time.Minute
)

// client is one kept connection, with no more around it than the protocol needs: what the driver spends, the appliance
// has not on the same cores. It is the shop's and the shopper's at once.
type client struct {
	s    *system
	conn *tls.Conn
	from *bufio.Reader
	body bytes.Buffer
	head []byte
}

func (s *system) dial(ctx context.Context) (*client, error) {
	u, err := url.Parse(s.cfg.PublicURL)
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS13}}
	conn, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	return &client{s: s, conn: conn.(*tls.Conn), from: bufio.NewReaderSize(conn, 32<<10)}, nil
}

// do sends a request and reads the whole answer. The body is valid until the next call.
func (c *client) do(method, path, header string, body string) (status int, location string, answer []byte, err error) {
	c.head = fmt.Appendf(c.head[:0], "%s %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Mozilla/5.0\r\nAccept: text/html\r\nAccept-Language: en\r\n%s", method, path, header)
	if method == http.MethodPost {
		c.head = fmt.Appendf(c.head, "Content-Length: %d\r\n", len(body))
	}
	c.head = append(append(c.head, "\r\n"...), body...)
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, "", nil, err
	}
	if _, err := c.conn.Write(c.head); err != nil {
		return 0, "", nil, err
	}
	response, err := http.ReadResponse(c.from, nil)
	if err != nil {
		return 0, "", nil, err
	}
	defer func() { _ = response.Body.Close() }()
	c.body.Reset()
	_, err = io.Copy(&c.body, response.Body)
	if response.Close {
		err = fmt.Errorf("%s %s: %d, and the connection is not kept", method, path, response.StatusCode)
	}
	return response.StatusCode, response.Header.Get("Location"), c.body.Bytes(), err
}

// sealer is the half of a sealing that knows nothing of the payment yet. The shopper's own machine does it, so all are made before
// the clock runs.
type sealer struct {
	encapsulated string
	sender       *hpke.Sender
}

func (s *system) sealers(n int) ([]sealer, error) {
	raw, err := base64.RawURLEncoding.DecodeString(s.intake.PublicKey)
	if err != nil {
		return nil, err
	}
	point, err := ecdh.P256().NewPublicKey(raw)
	if err != nil {
		return nil, err
	}
	public, err := hpke.NewDHKEMPublicKey(point)
	if err != nil {
		return nil, err
	}
	kdf, aead := pci.SealingSuite()
	all := make([]sealer, n)
	for i := range all {
		enc, sender, err := hpke.NewSender(public, kdf, aead, pci.SealedCheckoutInfo())
		if err != nil {
			return nil, err
		}
		all[i] = sealer{base64.RawURLEncoding.EncodeToString(enc), sender}
	}
	return all, nil
}

const formHeader = "Content-Type: application/x-www-form-urlencoded\r\n"

// pay takes a payment through all of its steps, and returns when the shopper is back at the shop and the shop was told. scripted
// means that the card form says what a browser with a script says of itself, and that the issuer's 3DS Method runs.
func (c *client) pay(n int, sealed sealer, scripted bool) error {
	status, _, answer, err := c.do(http.MethodPost, "/v1/payments", "Authorization: Bearer "+c.s.key+"\r\nContent-Type: application/json\r\nIdempotency-Key: "+
		strconv.Itoa(n)+"\r\n", `{"amount":1250,"currency":"EUR","reference":"order-`+strconv.Itoa(n)+`","return_url":"`+returns+
		`","customer":{"name":"Siti Aminah","email":"siti.aminah@example.com"}}`)
	if err != nil || status != http.StatusCreated {
		return fmt.Errorf("create: %d %s %w", status, answer, err)
	}
	var p api.Payment
	if err := json.Unmarshal(answer, &p); err != nil {
		return err
	}
	told := c.s.shop.await(p.ID)
	page := "/checkout/" + path.Base(p.CheckoutURL)
	status, _, answer, err = c.do(http.MethodGet, page, "", "")
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("page: %d %w", status, err)
	}
	form, err := field(answer, "form")
	if err != nil {
		return err
	}
	typed := "number=" + card(n) + "&expiry=12%2F31&cvv=123&name=Siti+Aminah&form=" + form
	if scripted {
		typed += "&browser_width=1920&browser_height=1080&browser_depth=24&browser_tz=-480&browser_language=en-GB"
	}
	ct, err := sealed.sender.Seal([]byte(pci.SealedCheckoutAAD(path.Base(page), merchant, pci.Amount{Minor: minor, Currency: euro})), []byte(typed))
	if err != nil {
		return err
	}
	status, location, answer, err := c.do(http.MethodPost, page, formHeader,
		"key="+url.QueryEscape(c.s.intake.Key)+"&enc="+sealed.encapsulated+"&ct="+base64.RawURLEncoding.EncodeToString(ct))
	if err == nil && scripted {
		status, location, answer, err = c.method(page, status, location)
	}
	if err != nil || status != http.StatusSeeOther || !strings.HasPrefix(location, returns) {
		return fmt.Errorf("card: %d %s %.300s %w", status, location, answer, err)
	}
	if err := c.s.shop.returned(location, p.ID); err != nil {
		return err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-told:
		return nil
	case <-timer.C:
		return fmt.Errorf("payment %s: no webhook", p.ID)
	}
}

// method lets the issuer look at the browser: its page comes into a frame and goes back to the appliance.
func (c *client) method(page string, status int, location string) (int, string, []byte, error) {
	if status != http.StatusSeeOther || !strings.HasPrefix(location, page) {
		return status, location, nil, fmt.Errorf("no 3DS Method")
	}
	status, _, answer, err := c.do(http.MethodGet, location, "", "")
	if err != nil || status != http.StatusOK {
		return status, "", answer, err
	}
	data, err := field(answer, "threeDSMethodData")
	if err != nil {
		return status, "", answer, err
	}
	if status, location, answer, err = c.do(http.MethodPost, page+"/method", formHeader+"Sec-Fetch-Dest: iframe\r\n", "threeDSMethodData="+url.QueryEscape(data)); err != nil || status != http.StatusOK {
		return status, location, answer, err
	}
	return c.do(http.MethodPost, page+"/method", formHeader, "")
}

// field returns the value of a form's hidden input.
func field(page []byte, name string) (string, error) {
	_, rest, ok := bytes.Cut(page, []byte(`name="`+name+`" value="`))
	value, _, closed := bytes.Cut(rest, []byte(`"`))
	if !ok || !closed {
		return "", fmt.Errorf("the page has no %s", name)
	}
	return html.UnescapeString(string(value)), nil
}

// card returns the n-th of cards, each another one, all of a range in 3-D Secure.
func card(n int) string {
	digits := fmt.Appendf(nil, "4%05d%09d0", 10_000+n%40_000, n/40_000*7919+n)
	sum := 0
	for i, c := range digits {
		d := int(c - '0')
		if i%2 == 0 { // of sixteen digits, those are doubled
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	digits[15] = byte('0' + (10-sum%10)%10)
	return string(digits)
}
