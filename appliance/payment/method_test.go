package payment

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/pci"
)

// scripted pays with a browser that has a script.
func (w *world) scripted(secret string, c card) api.CheckoutView {
	w.t.Helper()
	v, err := w.service.Pay(context.Background(), secret, w.cards.hold(c), entered(""), pci.Browser{IP: "198.51.100.7", JavaScript: true})
	if err != nil {
		w.t.Fatalf("pay: %v", err)
	}
	return v
}

func TestTheMethodIsShownBeforeTheIssuerIsAsked(t *testing.T) {
	for name, test := range map[string]struct {
		data []string
		done bool
	}{
		"it has run":                       {[]string{"method"}, true},
		"it has not, after ten seconds":    {[]string{""}, false},
		"another one's end is not its own": {[]string{"another", "method"}, true},
		"only its first end counts":        {[]string{"", "method"}, false},
	} {
		w := in(t, func(c *Config) { c.Method = time.Hour })
		id, secret := w.create()
		v := w.scripted(secret, card{method: true})
		if v.State != api.CheckoutMethod || v.Method == nil || v.Method.URL == "" || !strings.HasSuffix(v.Method.Data, "/checkout/"+secret+"/method") {
			t.Fatalf("%s: %+v", name, v)
		}
		if n := len(w.issuer.requests()); n != 0 {
			t.Errorf("%s: the issuer was asked %d times", name, n)
		}
		if again := w.scripted(secret, card{}); again.State != api.CheckoutMethod { // a second press of the button
			t.Errorf("%s: %s", name, again.State)
		}
		for _, data := range test.data {
			if err := w.service.MethodOver(t.Context(), secret, data); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.service.Await(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		w.wantStatus(id, api.StatusCaptured)
		if asked := w.issuer.requests(); len(asked) != 1 || asked[0].Method == nil || asked[0].MethodDone != test.done {
			t.Errorf("%s: %+v", name, asked)
		}
		w.agree(id)
	}
}

func TestAMethodThatNeverEndsIsLeftOut(t *testing.T) {
	w := in(t, func(c *Config) { c.Method = time.Millisecond })
	id, secret := w.create()
	w.scripted(secret, card{method: true})
	w.until("it is paid", func() bool { return w.payment(id).Status == string(api.StatusCaptured) })
	if asked := w.issuer.requests(); len(asked) != 1 || asked[0].Method == nil || asked[0].MethodDone {
		t.Errorf("%+v", asked)
	}
	if err := w.service.MethodOver(t.Context(), secret, "method"); err != nil { // too late
		t.Error(err)
	}
}

func TestABrowserWithoutAScriptIsShownNoMethod(t *testing.T) {
	w := in(t, nil)
	id, secret := w.create()
	if v := w.paid(secret, card{method: true}); v.State != api.CheckoutPaid {
		t.Errorf("%s", v.State)
	}
	if asked := w.issuer.requests(); len(asked) != 1 || asked[0].Method != nil || asked[0].MethodDone {
		t.Errorf("%+v", asked)
	}
	w.wantStatus(id, api.StatusCaptured)
}

func TestStoppingGivesAMethodUp(t *testing.T) {
	w := in(t, func(c *Config) { c.Method = time.Hour })
	_, secret := w.create()
	if v := w.scripted(secret, card{method: true}); v.State != api.CheckoutMethod {
		t.Errorf("%s", v.State)
	}
	w.stop() // returns
}
