package threeds

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

// areq is an Authentication Request (table B.1) for deviceChannel 02 and messageCategory 01. acctNumber and cardSecurityCode are
// not among its fields: [newMessage] writes them from locked memory to locked memory. Fields that depend on the version are set
// by [areq.speak], once the card's range is known.
type areq struct {
	MessageType    string `json:"messageType"`
	MessageVersion string `json:"messageVersion"`

	DeviceChannel   string `json:"deviceChannel"`
	MessageCategory string `json:"messageCategory"`

	ThreeDSCompInd                    string `json:"threeDSCompInd"`
	ThreeDSRequestorAuthenticationInd string `json:"threeDSRequestorAuthenticationInd"`
	// ThreeDSRequestorChallengeInd is a value of two digits in 2.2.0, a list of them in 2.3.1.
	ThreeDSRequestorChallengeInd any    `json:"threeDSRequestorChallengeInd,omitempty"`
	ThreeDSRequestorDecReqInd    string `json:"threeDSRequestorDecReqInd"`
	ThreeDSRequestorID           string `json:"threeDSRequestorID"`
	ThreeDSRequestorName         string `json:"threeDSRequestorName"`
	ThreeDSRequestorURL          string `json:"threeDSRequestorURL"`

	ThreeDSServerRefNumber  string `json:"threeDSServerRefNumber"`
	ThreeDSServerOperatorID string `json:"threeDSServerOperatorID,omitempty"`
	ThreeDSServerTransID    string `json:"threeDSServerTransID"`
	ThreeDSServerURL        string `json:"threeDSServerURL"`

	CardExpiryDate string `json:"cardExpiryDate"`
	CardholderName string `json:"cardholderName,omitempty"`
	Email          string `json:"email,omitempty"`
	MobilePhone    *phone `json:"mobilePhone,omitempty"`
	billingAddress

	AcquirerBIN         string `json:"acquirerBIN"`
	AcquirerMerchantID  string `json:"acquirerMerchantID"`
	MCC                 string `json:"mcc"`
	MerchantCountryCode string `json:"merchantCountryCode"`
	MerchantName        string `json:"merchantName"`
	NotificationURL     string `json:"notificationURL"`

	PurchaseAmount   string `json:"purchaseAmount"`
	PurchaseCurrency string `json:"purchaseCurrency"`
	PurchaseExponent string `json:"purchaseExponent"`
	PurchaseDate     string `json:"purchaseDate"`
	TransType        string `json:"transType"`

	PurchaseInstalData string `json:"purchaseInstalData,omitempty"`
	RecurringExpiry    string `json:"recurringExpiry,omitempty"`
	RecurringFrequency string `json:"recurringFrequency,omitempty"`

	browserInformation
	since231
}

// since231 are elements that 2.2.0 does not have.
type since231 struct {
	AcceptLanguage            []string      `json:"acceptLanguage,omitempty"`
	AcquirerCountryCode       string        `json:"acquirerCountryCode,omitempty"`
	AcquirerCountryCodeSource string        `json:"acquirerCountryCodeSource,omitempty"`
	RecurringDate             string        `json:"recurringDate,omitempty"`
	RecurringInd              *recurringInd `json:"recurringInd,omitempty"`
}

// recurringInd says what is agreed of an agreement's payments.
type recurringInd struct {
	AmountInd    string `json:"amountInd"`
	FrequencyInd string `json:"frequencyInd"`
}

// billingAddress is the cardholder's, as far as it is known.
type billingAddress struct {
	BillAddrLine1    string `json:"billAddrLine1,omitempty"`
	BillAddrLine2    string `json:"billAddrLine2,omitempty"`
	BillAddrLine3    string `json:"billAddrLine3,omitempty"`
	BillAddrCity     string `json:"billAddrCity,omitempty"`
	BillAddrState    string `json:"billAddrState,omitempty"`
	BillAddrPostCode string `json:"billAddrPostCode,omitempty"`
	BillAddrCountry  string `json:"billAddrCountry,omitempty"`
}

// phone is the object that homePhone, mobilePhone and workPhone share. One number is known here, and it goes as
// mobilePhone: that is what shoppers give.
type phone struct {
	CC         string `json:"cc"`
	Subscriber string `json:"subscriber"`
}

// browserInformation is table A.1's browser data.
type browserInformation struct {
	BrowserAcceptHeader      string `json:"browserAcceptHeader"`
	BrowserIP                string `json:"browserIP,omitempty"`
	BrowserLanguage          string `json:"browserLanguage"`
	BrowserUserAgent         string `json:"browserUserAgent"`
	BrowserJavascriptEnabled bool   `json:"browserJavascriptEnabled"`
	// The rest is there only when JavaScript is.
	BrowserJavaEnabled  *bool  `json:"browserJavaEnabled,omitempty"`
	BrowserColorDepth   string `json:"browserColorDepth,omitempty"`
	BrowserScreenHeight string `json:"browserScreenHeight,omitempty"`
	BrowserScreenWidth  string `json:"browserScreenWidth,omitempty"`
	BrowserTZ           string `json:"browserTZ,omitempty"`
}

// IncompleteError names the data elements of an AReq that the request or the merchant's profile does not provide
// in the form that table A.1 asks for.
type IncompleteError struct{ Elements []string }

func (e *IncompleteError) Error() string {
	return "threeds: an AReq cannot be made: missing or malformed: " + strings.Join(e.Elements, ", ")
}

// newAReq fills everything but what comes from the card and its range, and what depends on the version.
func (s *Server) newAReq(req pci.AuthenticationRequest) (*areq, error) {
	m := req.Merchant
	a := &areq{
		MessageType:   messageAReq,
		DeviceChannel: "02", MessageCategory: "01",
		ThreeDSRequestorDecReqInd: "N", // the shopper is waiting
		ThreeDSRequestorID:        m.RequestorID,
		ThreeDSRequestorName:      truncate(m.RequestorName, 40),
		ThreeDSRequestorURL:       m.RequestorURL,
		ThreeDSServerRefNumber:    s.cfg.ServerRefNumber,
		ThreeDSServerOperatorID:   s.cfg.OperatorID,
		ThreeDSServerTransID:      newTransID(),
		ThreeDSServerURL:          s.cfg.ResultsURL,
		CardholderName:            cardholderName(req.Cardholder.Name),
		Email:                     email(req.Cardholder.Email),
		MobilePhone:               phoneOf(req.Cardholder.Phone),
		billingAddress:            addressOf(req.Cardholder.Billing),
		AcquirerBIN:               m.AcquirerBIN,
		AcquirerMerchantID:        m.AcquirerMID,
		MCC:                       m.MCC,
		MerchantCountryCode:       m.CountryCode,
		MerchantName:              truncate(m.Name, 40),
		NotificationURL:           req.NotificationURL,
		PurchaseAmount:            strconv.FormatInt(req.Amount.Minor, 10),
		PurchaseCurrency:          req.Amount.Currency.Numeric(),
		PurchaseExponent:          strconv.Itoa(req.Amount.Currency.Exponent()),
		PurchaseDate:              s.cfg.Now().UTC().Format("20060102150405"),
		TransType:                 "01", // goods or services
		browserInformation:        browserOf(req.Browser),
	}
	a.agree(req.Agreement)
	if req.Method != nil { // the ACS knows the browser by it (section 5.8.1)
		a.ThreeDSServerTransID = req.Method.ServerTransID
	}
	return a, a.check(req.Amount.Minor)
}

// check enforces table A.1 on what callers configure; what shoppers' browsers send is trimmed instead.
func (a *areq) check(minor int64) error {
	var bad []string
	want := func(ok bool, element string) {
		if !ok {
			bad = append(bad, element)
		}
	}
	want(between(a.ThreeDSRequestorID, 1, 35), "threeDSRequestorID")
	want(a.ThreeDSRequestorName != "", "threeDSRequestorName")
	want(checkURL(a.ThreeDSRequestorURL, true) == nil, "threeDSRequestorURL")
	want(between(a.AcquirerBIN, 1, 11), "acquirerBIN")
	want(between(a.AcquirerMerchantID, 1, 35), "acquirerMerchantID")
	want(isDigits(a.MCC, 4, 4), "mcc")
	want(isDigits(a.MerchantCountryCode, 3, 3), "merchantCountryCode")
	want(a.MerchantName != "", "merchantName")
	want(checkURL(a.NotificationURL, true) == nil && len(a.NotificationURL) <= 256, "notificationURL")
	want(minor >= 0, "purchaseAmount")
	want(isDigits(a.PurchaseCurrency, 3, 3), "purchaseCurrency")
	if a.ThreeDSRequestorAuthenticationInd == recurringPayment || a.ThreeDSRequestorAuthenticationInd == instalmentPayment {
		want(a.RecurringExpiry != "", "recurringExpiry")
		want(a.RecurringFrequency != "", "recurringFrequency")
	}
	if a.ThreeDSRequestorAuthenticationInd == instalmentPayment {
		want(a.PurchaseInstalData != "", "purchaseInstalData")
	}
	if bad != nil {
		return &IncompleteError{Elements: bad}
	}
	return nil
}

// message is an AReq in locked memory.
type message struct {
	slot   *pan.Slot
	length int
	digits [2]int // where the PAN stands
	code   [2]int // where the security code stands; nowhere if equal

	// reading guards the slot: net/http may still read a request's body after it gave up on the request, and
	// by then the slot may hold another card.
	reading sync.Mutex
	wiped   bool
}

// errTooLong means that an AReq does not fit a slot, which takes URLs of more than a thousand characters.
var errTooLong = errors.New("threeds: the AReq is too long")

const (
	acctNumberMember       = `{"acctNumber":"`
	cardSecurityCodeMember = `","cardSecurityCode":"`
)

// newMessage writes a, the card's PAN and, withCode, its security code into a slot. The encoder never sees them: acctNumber and
// cardSecurityCode are put in front of what it wrote.
func newMessage(a *areq, card *pan.Card, withCode bool) (*message, error) {
	rest, err := json.Marshal(a)
	if err != nil {
		return nil, &IncompleteError{Elements: []string{"text that is not UTF-8"}}
	}
	slot, err := pan.NewSlot()
	if err != nil {
		return nil, err
	}
	buf := slot.Bytes()
	const longest = len(acctNumberMember) + pan.MaxLength + len(cardSecurityCodeMember) + len("1234") + len(`",`)
	if padded(longest+len(rest)) > len(buf) {
		slot.Release()
		return nil, errTooLong
	}
	m := &message{slot: slot}
	at := copy(buf, acctNumberMember)
	m.digits[0] = at
	_ = card.RevealPAN(func(digits []byte) error { at += copy(buf[at:], digits); return nil })
	m.digits[1] = at
	if withCode && card.HasCVV() {
		at += copy(buf[at:], cardSecurityCodeMember)
		m.code[0] = at
		_ = card.RevealCVV(func(digits []byte) error { at += copy(buf[at:], digits); return nil })
		m.code[1] = at
	}
	at += copy(buf[at:], `",`)
	at += copy(buf[at:], rest[1:])
	for m.length = padded(at); at < m.length; at++ {
		buf[at] = ' '
	}
	return m, nil
}

// padded is the length of a message with the spaces behind it. crypto/tls puts a record together in a buffer that grows with it, and
// seals it there; where the seal's 17 bytes find no room, the buffer is replaced, and the old one keeps the clear text. Buffers of
// this size have capacities in steps of 128, so that a message of 100 over such a step leaves room with the record's 5.
func padded(length int) int {
	const step, over = 128, 100
	return (length-over+step-1)/step*step + over
}

// wipe ends the message; readers of its body get an error from then on.
func (m *message) wipe() {
	m.reading.Lock()
	defer m.reading.Unlock()
	m.wiped = true
	m.slot.Release()
}

// mask overwrites each occurrence of the message's PAN in answer, and of its security code where that is a word of its own:
// three digits stand in identifiers and proofs by chance.
func (m *message) mask(answer []byte) {
	overwrite(answer, m.slot.Bytes()[m.digits[0]:m.digits[1]], func(int, int) bool { return true })
	overwrite(answer, m.slot.Bytes()[m.code[0]:m.code[1]], func(from, to int) bool {
		return (from == 0 || !isWord(answer[from-1])) && (to == len(answer) || !isWord(answer[to]))
	})
}

// isWord reports whether a byte can stand beside a digit in an identifier or in base64.
func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '+' || c == '/' || c == '='
}

// overwrite puts asterisks over each occurrence of digits that counts.
func overwrite(text, digits []byte, counts func(from, to int) bool) {
	for at := 0; len(digits) > 0; {
		i := bytes.Index(text[at:], digits)
		if i < 0 {
			return
		}
		if at += i; counts(at, at+len(digits)) {
			for j := range digits {
				text[at+j] = '*'
			}
		}
		at++
	}
}

// body lends the message to an HTTP client.
func (m *message) body() io.ReadCloser { return &messageBody{m: m} }

type messageBody struct {
	m  *message
	at int
}

// Read implements [io.Reader].
func (b *messageBody) Read(p []byte) (int, error) {
	b.m.reading.Lock()
	defer b.m.reading.Unlock()
	if b.m.wiped {
		return 0, io.ErrClosedPipe
	}
	if b.at == b.m.length {
		return 0, io.EOF
	}
	n := copy(p, b.m.slot.Bytes()[b.at:b.m.length])
	b.at += n
	return n, nil
}

// WriteTo implements [io.WriterTo], so that [Transport] hands locked memory to the connection without a copy.
func (b *messageBody) WriteTo(w io.Writer) (int64, error) {
	b.m.reading.Lock()
	defer b.m.reading.Unlock()
	if b.m.wiped {
		return 0, io.ErrClosedPipe
	}
	n, err := w.Write(b.m.slot.Bytes()[b.at:b.m.length])
	b.at += n
	return int64(n), err
}

// Close implements [io.Closer]; the message belongs to its maker.
func (b *messageBody) Close() error { return nil }
