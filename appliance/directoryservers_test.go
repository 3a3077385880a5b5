package main

import (
	"testing"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/threeds"
)

func TestACardIsAuthenticatedByItsSchemeInItsMode(t *testing.T) {
	visa, rest, trial := &threeds.Server{}, &threeds.Server{}, &threeds.Server{}
	all := directoryServers{
		{config.DirectoryServer{Name: "visa", Brands: []string{"visa"}}, visa},
		{config.DirectoryServer{Name: "rest", Brands: []string{"mastercard", "jcb"}}, rest},
		{config.DirectoryServer{Name: "trial", Sandbox: true}, trial},
	}
	for _, c := range []struct {
		sandbox bool
		brand   pci.Brand
		want    *threeds.Server
	}{{false, pci.Visa, visa}, {false, pci.JCB, rest}, {false, pci.Amex, nil}, {true, pci.Visa, trial}, {true, pci.Amex, trial}} {
		request := pci.AuthenticationRequest{Brand: c.brand, Merchant: pci.Merchant{Sandbox: c.sandbox}}
		if got := all.of(request); got != c.want {
			t.Errorf("sandbox %v, %s: another one", c.sandbox, c.brand)
		}
		if c.want != nil {
			continue
		}
		method, err := all.Method(t.Context(), request, "https://pay.example/x")
		auth, authErr := all.Authenticate(t.Context(), request)
		if method != nil || err != nil || authErr != nil || auth.Outcome != pci.AuthenticationDown {
			t.Errorf("where nobody can be asked: %v, %v, %+v, %v", method, err, auth, authErr)
		}
	}
}
