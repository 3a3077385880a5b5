package stripe

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/pci"
)

// scripted answers payment methods well, and all else with what a fuzzer makes up.
type scripted struct {
	status int
	body   string
}

// RoundTrip implements [http.RoundTripper].
func (s scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := s.status, s.body
	if r.URL.Path == pathMethods {
		status, body = http.StatusOK, `{"object":"payment_method","id":"pm_1Made"}`
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// Whatever Stripe answers: a sale is approved only by an answer about this very sale, a reversal is acknowledged only by one, and
// nothing that was answered is quoted.
func FuzzAnswer(f *testing.F) {
	whole := `{"object":"payment_intent","id":"pi_1Made","status":"succeeded","amount":1250,"amount_received":1250,"currency":"eur","metadata":{"finpay_payment":"pay_1","finpay_trace":"` + nameOf(trace(1)) + `"}}`
	for _, seed := range []string{whole, `{"object":"list","data":[` + whole + `],"has_more":false}`, `{"error":{"type":"card_error","code":"card_declined","decline_code":"lost_card"}}`,
		`{"error":{"type":"invalid_request_error"}}`, `{"id":"pi_4242424242424242"}`, `[]`, "", "\x00", `{"object":"payment_intent","object":"list"}`} {
		for _, status := range []int{200, 302, 400, 402, 404, 409, 500} {
			f.Add(status, seed)
		}
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		c, err := newConnector(Config{URL: "https://stripe.example", Key: Key{secret}, AnswerTimeout: time.Millisecond, RepeatAfter: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		c.cards, c.transport = wallet{good, cvv}, scripted{status, body}
		r := saleRequest()
		result, err := c.Sale(t.Context(), r)
		switch result.Outcome {
		case pci.Approved:
			if err != nil || status != http.StatusOK || !strings.Contains(body, "1250") || !isID("pi", result.Reference) {
				t.Errorf("approved by %d %q, %v", status, body, err)
			}
		case pci.Refused:
			if err != nil || status != http.StatusPaymentRequired || len(result.ResponseCode) != 2 {
				t.Errorf("refused by %d %q, %+v", status, body, result)
			}
		case pci.Unsent:
			if err == nil || status < 400 || status > 404 || status == http.StatusPaymentRequired {
				t.Errorf("unsent by %d %q", status, body)
			}
		case pci.Unknown:
			if err == nil {
				t.Error("unknown, and no reason")
			}
		default:
			t.Errorf("outcome %q", result.Outcome)
		}
		if result.Reference != "" && !isID("pi", result.Reference) {
			t.Errorf("reference %q", result.Reference)
		}
		if err != nil && strings.Contains(err.Error(), good) {
			t.Error("the error quotes a number")
		}
		if done, err := c.Reverse(t.Context(), reversalOf(r, "")); done != (err == nil) || done && status != http.StatusOK {
			t.Errorf("reversed %t by %d %q, %v", done, status, body, err)
		}
	})
}
