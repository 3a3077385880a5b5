package stripe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/softhsm-test/fakestripe"
)

func TestTheKeyIsReadFromAFileOfItsOwnersAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	for _, c := range []struct {
		text    string
		mode    os.FileMode
		sandbox bool
		ok      bool
	}{
		{secret + "\n", 0o600, false, true},
		{"rk_test_0123456789", 0o400, true, true},
		{secret, 0o644, false, false},
		{secret, 0o640, false, false},
		{secret, 0o600, true, false},
		{"sk_test_0123456789", 0o600, false, false},
		{"pk_live_0123456789", 0o600, false, false},
		{"", 0o600, false, false},
	} {
		_ = os.Remove(file)
		if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		key, err := ReadKey(file, c.sandbox)
		if (err == nil) != c.ok || err != nil && strings.Contains(err.Error(), "0123") {
			t.Errorf("%+v: %v", c, err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			if text := fmt.Sprintf(verb, struct{ K Key }{key}); strings.Contains(text, "0123") {
				t.Errorf("%s shows the key", verb)
			}
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(file))
	_ = os.Remove(file)
	if err := os.WriteFile(file, []byte(secret), 0o440); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(file, false); err != nil {
		t.Errorf("a credential of systemd's: %v", err)
	}
	if _, err := ReadKey(filepath.Dir(file), false); err == nil {
		t.Error("a folder was read")
	}
}

func TestOnlyAnHTTPSHostIsAsked(t *testing.T) {
	for _, address := range []string{"http://api.stripe.com", "https://api.stripe.com/v2", "https://a:b@api.stripe.com", "https://", "api.stripe.com", "https://api.stripe.com?x=1"} {
		if _, err := newConnector(Config{URL: address, Key: Key{secret}}); err == nil {
			t.Errorf("%s was taken", address)
		}
	}
}

// A currency whose minor unit is another one at Stripe would be charged a hundredfold. The list of those without one is
// https://docs.stripe.com/currencies#zero-decimal.
func TestMinorUnitsAreISOs(t *testing.T) {
	none := strings.Fields("BIF CLP DJF GNF JPY KMF KRW PYG RWF VND VUV XAF XOF XPF")
	seen := make(map[pci.Currency]bool)
	for _, c := range currencies {
		if _, err := pci.ParseCurrency(string(c)); err != nil {
			t.Errorf("%v", err)
		}
		want := 2
		if slices.Contains(none, string(c)) {
			want = 0
		}
		if c.Exponent() != want || seen[c] {
			t.Errorf("%s has %d digits here, %d at Stripe", c, c.Exponent(), want)
		}
		seen[c] = true
	}
	for _, c := range []pci.Currency{"BHD", "KWD", "ISK", "UGX", "MGA"} {
		if seen[c] {
			t.Errorf("%s is served", c)
		}
	}
}

func TestRunTellsHealth(t *testing.T) {
	a := open(t, good, func(cfg *Config) { cfg.ProbeInterval = time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	until(t, "it is healthy", a.Healthy)
	a.peer.SetFault(func(fakestripe.Request) fakestripe.Fault { return fakestripe.Failed })
	until(t, "it is not", func() bool { return !a.Healthy() })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
