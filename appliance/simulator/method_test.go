package simulator

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestTheMethodGoesBackWithItsTransaction(t *testing.T) {
	const id = "11111111-2222-4333-8444-555555555555"
	post := func(text string) *httptest.ResponseRecorder {
		form := url.Values{"threeDSMethodData": {base64.RawURLEncoding.EncodeToString([]byte(text))}}
		r := httptest.NewRequest(http.MethodPost, "/acs/method", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		serveMethod(w, r)
		return w
	}
	w := post(`{"threeDSServerTransID":"` + id + `","threeDSMethodNotificationURL":"https://pay.example/checkout/x/method"}`)
	back := base64.RawURLEncoding.EncodeToString([]byte(`{"threeDSServerTransID":"` + id + `"}`))
	if body := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(body, back) || !strings.Contains(body, `action="https://pay.example/checkout/x/method"`) {
		t.Errorf("%d %s", w.Code, body)
	}
	if policy := w.Header().Get("Content-Security-Policy"); !strings.HasSuffix(policy, "form-action https://pay.example") {
		t.Errorf("%s", policy)
	}
	for _, text := range []string{"", "{}", `{"threeDSServerTransID":"` + id + `"}`, `{"threeDSServerTransID":"x","threeDSMethodNotificationURL":"https://pay.example/"}`,
		`{"threeDSServerTransID":"` + id + `","threeDSMethodNotificationURL":"javascript:alert(1)"}`} {
		if w := post(text); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", text, w.Code)
		}
	}
	get := httptest.NewRecorder()
	serveMethod(get, httptest.NewRequest(http.MethodGet, "/acs/method", nil))
	if get.Code != http.StatusMethodNotAllowed {
		t.Errorf("%d", get.Code)
	}
}
