package hsm

import (
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
)

func TestATokenIsNamedByLabelOrURI(t *testing.T) {
	info := pkcs11.TokenInfo{Label: "finpay live       ", SerialNumber: "c75e8709\x00\x00", ManufacturerID: "SoftHSM project  ", Model: "SoftHSM v2"}
	for text, want := range map[string]bool{
		"finpay live": true, "finpay": false, "pkcs11:token=finpay%20live": true, "pkcs11:serial=c75e8709": true,
		"pkcs11:token=finpay%20live;serial=c75e8709;manufacturer=SoftHSM%20project;model=SoftHSM%20v2": true,
		"pkcs11:token=finpay%20live;serial=00":                                                         false, "pkcs11:model=SoftHSM%20v3": false,
	} {
		name, err := parseToken(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if name.matches(info) != want {
			t.Errorf("%s matches: %v", text, !want)
		}
	}
	for text, what := range map[string]string{
		"pkcs11:": `"" is not one of a token`, "pkcs11:slot-id=3": "slot-id", "pkcs11:token=a;token=b": "twice", "pkcs11:token=%zz": "token has no value",
		"pkcs11:token=": "no value", "pkcs11:token=a?pin-value=1": "query", "pkcs11:object=key": "object",
	} {
		if _, err := parseToken(text); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v, want %q in it", text, err, what)
		}
	}
}

func FuzzTokenURI(f *testing.F) {
	f.Add("pkcs11:token=finpay;serial=c75e8709")
	f.Add("finpay")
	f.Fuzz(func(t *testing.T, text string) {
		name, err := parseToken(text)
		if err == nil && name == (tokenName{}) && text != "" {
			t.Errorf("%q matches every hsm token", text)
		}
	})
}
