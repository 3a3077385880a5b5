package iso8583_test

import (
	"testing"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

func TestActionCodesMeanWhatResponseCodesDo(t *testing.T) {
	for _, tt := range []struct{ mti, action, response string }{
		{"1210", "000", "00"}, {"1110", "000", "00"}, {"1430", "400", "00"}, {"1510", "500", "00"}, {"1510", "501", "00"}, {"1814", "800", "00"},
		{"1230", "900", "00"}, {"1230", "901", "00"}, {"1430", "900", "00"}, {"1230", "000", "00"},
		{"1210", "116", "51"}, {"1210", "101", "54"}, {"1430", "914", "25"}, {"1210", "913", "94"}, {"1210", "911", "68"},
		{"1210", "001", "08"}, {"1210", "002", "10"},
		{"1210", "199", "05"}, {"1210", "299", "05"}, // denials that are not known
		// An acceptance of something else is none.
		{"1210", "400", "09"}, {"1210", "800", "09"}, {"1210", "900", "09"}, {"1210", "500", "09"}, {"1430", "000", "09"},
		{"1210", "999", "09"}, {"1210", "599", "09"}, {"1210", "", "09"}, {"1210", "00", "09"}, {"", "000", "09"},
	} {
		if got := iso8583.ResponseCode(tt.mti, tt.action); got != tt.response {
			t.Errorf("%s in %s means %s, want %s", tt.action, tt.mti, got, tt.response)
		}
	}
}

func TestResponseCodesSurviveTheOtherEdition(t *testing.T) {
	for _, mti := range []string{"1110", "1210", "1230", "1430", "1510", "1814"} {
		for _, response := range []string{"00", "05", "09", "12", "13", "14", "25", "30", "40", "51", "54", "68", "91", "94", "96"} {
			if got := iso8583.ResponseCode(mti, iso8583.ActionCode(mti, response)); got != response {
				t.Errorf("%s comes back as %s in %s", response, got, mti)
			}
		}
	}
	if got := iso8583.ActionCode("1210", "N7"); got != "100" {
		t.Errorf("a code of no equivalent is %s", got)
	}
}
