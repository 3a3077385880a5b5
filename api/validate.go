package api

import (
	"cmp"
	"net/http"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/finterra/finpay/pci"
)

// The limits of fields, in characters unless said otherwise.
const (
	MaxAmount         = 999_999_999_999 // minor units; ISO 8583 DE 4 has 12 digits
	MaxReference      = 64
	MaxReturnURL      = 2048
	MaxCustomerName   = 45  // EMV 3DS cardholderName
	MaxCustomerEmail  = 254 // EMV 3DS email; RFC 5321 path
	MaxAddressLine    = 50  // EMV 3DS billAddrLine1 and billAddrCity
	MaxPostalCode     = 16
	MaxIdempotencyKey = 255
	MaxCursor         = 512
	MaxPage           = 100 // payments of one page of a list
	DefaultPage       = 20
)

// normalize checks a request and returns it with its defaults filled in. Errors are [*Problem] with the pointer of
// the first field at fault.
func (c CreatePayment) normalize() (CreatePayment, error) {
	if c.Amount < 1 || c.Amount > MaxAmount {
		return c, ErrInvalid.At("/amount").With("Send an integer from 1 to %d, in the currency's minor unit.", int64(MaxAmount))
	}
	if _, err := pci.ParseCurrency(string(c.Currency)); err != nil || len(c.Currency) != 3 {
		return c, ErrInvalid.At("/currency").With("Send an ISO 4217 code in upper case, such as EUR.")
	}
	if err := checkText("/reference", c.Reference, 1, MaxReference); err != nil {
		return c, err
	}
	if err := c.normalizeStored(); err != nil {
		return c, err
	}
	switch c.Capture {
	case "":
		c.Capture = "automatic"
	case "automatic", "manual":
	default:
		return c, ErrInvalid.At("/capture").With(`Leave the field out, or send "automatic" or "manual".`)
	}
	if c.Customer != nil {
		if err := c.Customer.check(); err != nil {
			return c, err
		}
	}
	return c.normalizeAuthentication()
}

// normalizeStored checks what a payment says of a stored card, and where its shopper goes afterwards.
func (c *CreatePayment) normalizeStored() error {
	if c.Token != "" {
		c.Initiator = cmp.Or(c.Initiator, pci.ByCustomer)
	}
	switch c.Initiator {
	case "":
	case pci.ByCustomer, pci.ByMerchant:
		if c.Token == "" {
			return ErrInvalid.At("/initiator").With("Leave the field out, or send a token: it says who uses a stored card.")
		}
	default:
		return ErrInvalid.At("/initiator").With(`Send "customer" or "merchant".`)
	}
	switch {
	case pci.LooksLikePAN(string(c.Token)):
		return ErrCardNumber.At("/token")
	case len(c.Token) > maxID || c.Token != "" && !isName(string(c.Token)):
		return ErrInvalid.At("/token").With("Send a token as it was issued.")
	}
	if c.Initiator != pci.ByMerchant {
		if c.Original != "" {
			return ErrInvalid.At("/original").With(`Leave the field out: it belongs to payments with "initiator": "merchant".`)
		}
		return checkReturnURL("/return_url", c.ReturnURL)
	}
	if !isID(c.Original) {
		return ErrInvalid.At("/original").With("Send the id of the payment by which the customer agreed to this one.")
	}
	if c.ReturnURL != "" {
		return ErrInvalid.At("/return_url").With("Leave the field out: no shopper is there.")
	}
	return nil
}

func (m ModifyPayment) check() error {
	if m.Amount < 0 || m.Amount > MaxAmount {
		return ErrInvalid.At("/amount").With("Send an integer from 1 to %d, in the currency's minor unit, or leave it out for all that there is.", int64(MaxAmount))
	}
	return nil
}

func (c *Customer) check() error {
	if err := checkText("/customer/name", c.Name, 0, MaxCustomerName); err != nil {
		return err
	}
	if err := checkText("/customer/email", c.Email, 0, MaxCustomerEmail); err != nil {
		return err
	}
	if address, err := mail.ParseAddress(c.Email); c.Email != "" && (err != nil || address.Address != c.Email) {
		return ErrInvalid.At("/customer/email").With("Send an address such as name@example.com.")
	}
	if err := checkPhone("/customer/phone", c.Phone); err != nil {
		return err
	}
	if c.Billing != nil {
		return c.Billing.check("/customer/billing")
	}
	return nil
}

// checkText accepts least to most printable characters that are not all spaces and hold no card number.
func checkText(pointer, s string, least, most int) error {
	if pci.LooksLikePAN(s) {
		return ErrCardNumber.At(pointer)
	}
	n := utf8.RuneCountInString(s)
	printable := !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
	if n < least || n > most || !printable || n > 0 && strings.TrimSpace(s) == "" {
		return ErrInvalid.At(pointer).With("Send %d to %d printable characters.", max(least, 1), most)
	}
	return nil
}

var phonePattern = regexp.MustCompile(`^\+[1-9][0-9]{0,2}[ -][0-9]+([ -][0-9]+)*$`)

// checkPhone accepts E.164 with a separator after the country code, which no rule could find otherwise. A number of 13 digits is
// never taken for a card number: telephone numbers of that length are common, cards are not.
func checkPhone(pointer, s string) error {
	if s == "" {
		return nil
	}
	digits := 0
	for _, c := range s {
		if c >= '0' && c <= '9' {
			digits++
		}
	}
	if digits != 13 && pci.LooksLikePAN(s) {
		return ErrCardNumber.At(pointer)
	}
	if !phonePattern.MatchString(s) || digits < 5 || digits > 15 || len(s) > 24 {
		return ErrInvalid.At(pointer).With(`Send + and the country code, a space, and the number, such as "+60 123456789".`)
	}
	return nil
}

// checkReturnURL accepts absolute https URLs; plain http only to this machine, for trials. User information could
// disguise where the shopper goes, and a fragment would swallow the query that the appliance adds.
func checkReturnURL(pointer, s string) error {
	decoded, err := s, error(nil)
	for range 3 { // as sent, escaped, and escaped again
		if pci.LooksLikePAN(decoded) {
			return ErrCardNumber.At(pointer)
		}
		if decoded, err = url.QueryUnescape(decoded); err != nil {
			break
		}
	}
	wrong := ErrInvalid.At(pointer).With("Send an absolute https URL of at most %d characters, without user information or fragment.", MaxReturnURL)
	if len(s) > MaxReturnURL || strings.Contains(s, "#") || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return wrong
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil || !isHost(u.Hostname()) {
		return wrong
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && isLoopback(u.Hostname()):
	case u.Scheme == "http":
		return ErrInvalid.At(pointer).With("Plain http is for localhost only. Send an https URL.")
	default:
		return wrong
	}
	return nil
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?$`)

// isHost accepts host names and addresses; Go's parser lets through characters that could end a directive of a
// Content-Security-Policy, where the host is repeated.
func isHost(host string) bool {
	if len(host) > 253 {
		return false
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Zone() == ""
	}
	return hostPattern.MatchString(host)
}

func isLoopback(host string) bool {
	return host == "localhost" || host == "127.0.0.1" || host == "::1"
}

// siteOf returns scheme://host[:port] of an http or https URL, or nothing.
func siteOf(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || !isHost(u.Hostname()) {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// idempotencyKey returns the request's Idempotency-Key, empty when it has none.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	wrong := ErrInvalid.With("Send one Idempotency-Key of 1 to %d printable ASCII characters.", MaxIdempotencyKey)
	if len(values) > 1 || values[0] == "" || len(values[0]) > MaxIdempotencyKey {
		return "", wrong
	}
	for _, c := range []byte(values[0]) {
		if c < ' ' || c > '~' {
			return "", wrong
		}
	}
	if pci.LooksLikePAN(values[0]) {
		return "", ErrCardNumber.With("The Idempotency-Key holds what looks like a card number. Use a random one.")
	}
	return values[0], nil
}

// statuses are those that a list can be narrowed to.
var statuses = map[Status]bool{
	StatusCreated: true, StatusAuthenticating: true, StatusAuthorizing: true, StatusAuthorized: true,
	StatusCaptured: true, StatusVoided: true, StatusPartiallyRefunded: true, StatusRefunded: true, StatusDeclined: true, StatusFailed: true, StatusExpired: true, StatusIndeterminate: true,
}

// listQuery reads the query of GET /v1/payments.
func listQuery(r *http.Request) (ListPayments, error) {
	var list ListPayments
	q, err := readQuery(r, "status", "reference", "from", "to", "cursor", "limit")
	if err != nil {
		return list, err
	}
	if s, ok := q["status"]; ok {
		if list.Status = Status(s); !statuses[list.Status] {
			return list, ErrInvalid.With("The query parameter status is not one of those that openapi.yaml lists.")
		}
	}
	if s, ok := q["reference"]; ok {
		if p := checkText("", s, 1, MaxReference); p != nil {
			return list, p
		}
		list.Reference = s
	}
	if list.From, err = queryTime(q, "from"); err != nil {
		return list, err
	}
	if list.To, err = queryTime(q, "to"); err != nil {
		return list, err
	}
	if list.Cursor, err = queryCursor(q); err != nil {
		return list, err
	}
	list.Limit, err = queryLimit(q, MaxPage)
	return list, err
}

func queryCursor(q map[string]string) (string, error) {
	s, ok := q["cursor"]
	if ok && (s == "" || len(s) > MaxCursor || !isName(s)) {
		return "", ErrInvalid.With("Send as cursor what next_cursor of the page before said.")
	}
	if pci.LooksLikePAN(s) {
		return "", ErrCardNumber.With("The cursor holds what looks like a card number. Send what next_cursor of the page before said.")
	}
	return s, nil
}

func queryLimit(q map[string]string, most int) (int, error) {
	s, ok := q["limit"]
	if !ok {
		return DefaultPage, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n < 1 || n > uint64(most) {
		return 0, ErrInvalid.With("The query parameter limit is an integer from 1 to %d.", most)
	}
	return int(n), nil
}

func queryTime(q map[string]string, name string) (time.Time, error) {
	s, ok := q[name]
	if !ok {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if t = t.UTC(); err != nil || t.Year() < 0 || t.Year() > 9999 { // an offset can lead out of the years with four digits
		return time.Time{}, ErrInvalid.With("The query parameter %s is a time of RFC 3339, such as 2030-01-02T03:04:05Z, with + as %%2B.", name)
	}
	return t, nil
}

// isName accepts the characters of ids, sessions and cursors: base64url, and the padding and dot that a cursor may have.
func isName(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '-', c == '.', c == '=':
		default:
			return false
		}
	}
	return s != ""
}
