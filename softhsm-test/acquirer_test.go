package softhsmtest_test

import (
	"testing"

	"github.com/finterra/finpay/api"
)

func TestPaymentsInTheEditionOf1993(t *testing.T) {
	s := newSystem(t, setting{"spec: ascii1987", "spec: binary1993"}, setting{"entry_mode: \"\" ", "entry_mode: 600010600110 "})
	for _, tt := range []struct {
		card   string
		status api.Status
		reason api.Reason
		code   string
	}{
		{"4111111111111111", api.StatusCaptured, "", "00"},
		{"4539515151515151", api.StatusDeclined, api.ReasonInsufficientFunds, "51"},
		{"4539686868686864", api.StatusFailed, api.ReasonUnknownOutcome, ""}, // silent, then reversed
	} {
		id, link := s.buy()
		if _, _, err := s.shop.Pay(t.Context(), link, typed(tt.card)); err != nil {
			t.Fatal(err)
		}
		got := s.settled(id)
		if got.Status != tt.status || got.Result == nil || got.Result.Reason != tt.reason || got.Result.ResponseCode != tt.code {
			t.Errorf("%s: %s, %+v; want %s", tt.card, got.Status, got.Result, tt.status)
		}
		s.agree()
	}
}
