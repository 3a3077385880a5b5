package softhsmtest_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/finterra/finpay/api"
)

// profile writes a merchant's profile and returns the file's name.
func (s *system) profile(id, rest string) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "merchant.yaml")
	text := fmt.Sprintf("id: %s\nname: Kedai Kopi\ncity: Ipoh\ncountry: MY\nmcc: \"5814\"\nacquirer: {bin: \"123456\", mid: \"000000000000009\", terminal: \"00000009\"}\n"+
		"requestor: {id: finpay-trial-0009, name: Kedai Kopi, url: \"https://kopi.example\"}\n%s", id, rest)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

func TestAnotherMerchantIsMadeAndServed(t *testing.T) {
	s := newSystem(t)
	made := s.command("merchant", "put", s.profile("mer_kopi", "sandbox: true\ndomain: first\nlimits: {EUR: 2000}\n"))
	if !strings.Contains(made, "mer_kopi was made (test)") || !strings.Contains(made, "rsec_") {
		t.Errorf("told:\n%s", made)
	}
	key := strings.TrimSpace(s.command("api-key", "create", "--merchant", "mer_kopi"))
	if !strings.HasPrefix(key, "fp_test_") {
		t.Fatalf("key %.8s…", key)
	}
	as := []string{"Authorization", "Bearer " + key}
	order := func(amount int, currency string) string {
		return fmt.Sprintf(`{"amount":%d,"currency":%q,"reference":"order-9","return_url":%q}`, amount, currency, s.shopURL()+"/return")
	}
	status, body := s.call("POST", "/v1/payments", order(2000, "EUR"), as...)
	if status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	p := decode[api.Payment](t, body)
	if _, err := s.shop.Enter(t.Context(), p.CheckoutURL, typed(approvedCard)); err != nil {
		t.Fatal(err)
	}
	s.until("it is captured", func() bool {
		_, body := s.call("GET", "/v1/payments/"+p.ID, "", as...)
		return decode[api.Payment](t, body).Status == api.StatusCaptured
	})
	if got := s.books().Bookings[0]; got.Terminal != "00000009" {
		t.Errorf("booked for the terminal %s", got.Terminal)
	}
	for body, pointer := range map[string]string{order(2001, "EUR"): "/amount", order(1, "MYR"): "/currency"} {
		if status, answer := s.call("POST", "/v1/payments", body, as...); status != 422 || !strings.Contains(string(answer), pointer) {
			t.Errorf("%d %s", status, answer)
		}
	}
	if status, _ := s.call("GET", "/v1/payments/"+p.ID, ""); status != http.StatusNotFound {
		t.Errorf("another merchant reads it: %d", status)
	}
	if changed := s.command("merchant", "put", s.profile("mer_kopi", "sandbox: true\ndomain: first\n")); !strings.Contains(changed, "was changed") {
		t.Errorf("told:\n%s", changed)
	}
	if status, answer := s.call("POST", "/v1/payments", order(2001, "EUR"), as...); status != http.StatusCreated {
		t.Errorf("after the limit is gone: %d %s", status, answer)
	}
	if shown := s.command("merchant", "show", "mer_kopi"); !strings.Contains(shown, "terminal: \"00000009\"") {
		t.Errorf("shown:\n%s", shown)
	}
	if list := s.command("merchant", "list"); !strings.Contains(list, "mer_first") || !strings.Contains(list, "mer_kopi") {
		t.Errorf("listed:\n%s", list)
	}
}

func TestSandboxAndLiveAreApart(t *testing.T) {
	s := newSystem(t)
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"a live merchant with tokens of the sandbox": {[]string{"merchant", "put", s.profile("mer_live", "domain: first\n")}, "sandbox setting"},
		"the sandbox's merchant made live":           {[]string{"merchant", "put", s.profile("mer_first", "domain: first\n")}, "sandbox setting"},
		"a live key of the sandbox":                  {[]string{"api-key", "create", "--live"}, "has test keys"},
		"a misspelled field":                         {[]string{"merchant", "put", s.profile("mer_x", "domain: first\nsandbox: true\nlimit: 1\n")}, "limit"},
		"a wrong field":                              {[]string{"merchant", "put", s.profile("kopi", "domain: first\nsandbox: true\n")}, "id:"},
	} {
		if told := s.refused(c.args...); !strings.Contains(told, c.says) {
			t.Errorf("%s: %s", name, told)
		}
	}
}
