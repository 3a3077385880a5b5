package routing

import (
	"context"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci"
)

// peer is a connector that does nothing.
type peer struct {
	can  pci.Capabilities
	down bool
	says pci.SaleOutcome
}

func (p *peer) Capabilities() pci.Capabilities { return p.can }
func (p *peer) Healthy() bool                  { return !p.down }
func (p *peer) Sale(context.Context, pci.SaleRequest) (pci.SaleResult, error) {
	return pci.SaleResult{Outcome: p.says}, nil
}
func (p *peer) Authorize(context.Context, pci.SaleRequest) (pci.SaleResult, error) {
	return pci.SaleResult{Outcome: p.says}, nil
}
func (p *peer) Capture(context.Context, pci.CaptureRequest) (bool, error) { return true, nil }
func (p *peer) Refund(context.Context, pci.RefundRequest) (pci.SaleResult, error) {
	return pci.SaleResult{Outcome: p.says}, nil
}
func (p *peer) Reverse(context.Context, pci.ReversalRequest) (bool, error) { return true, nil }

func names(routes []*Route) (list []string) {
	for _, r := range routes {
		list = append(list, r.Name)
	}
	return list
}

func newRouter(t rapid.TB, routes ...Route) *Router {
	t.Helper()
	r, err := New(routes...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAPaymentGoesWhereConditionsAndHealthLetIt(t *testing.T) {
	sick := &peer{down: true, can: pci.Capabilities{ManualCapture: true}}
	r := newRouter(t,
		Route{Name: "play", Sandbox: true, Connector: &peer{}},
		Route{Name: "small", Max: pci.Amount{Minor: 500, Currency: "EUR"}, Connector: &peer{}},
		Route{Name: "visa", Brands: []pci.Brand{pci.Visa}, Currencies: []pci.Currency{"EUR"}, Connector: &peer{}},
		Route{Name: "hers", Merchants: []string{"mer_1"}, Connector: &peer{can: pci.Capabilities{MaxMinor: 1000}}},
		Route{Name: "big", Min: pci.Amount{Minor: 501, Currency: "EUR"}, Connector: sick},
	)
	for _, c := range []struct {
		what    string
		request Request
		want    []string
		lacks   string
	}{
		{"all that may, in order, but for the sick one", Request{Merchant: "mer_1", Need: pci.Need{Brand: pci.Visa, Amount: pci.Amount{Minor: 500, Currency: "EUR"}}}, []string{"small", "visa", "hers"}, ""},
		{"the bounds are included", Request{Merchant: "mer_2", Need: pci.Need{Brand: pci.Amex, Amount: pci.Amount{Minor: 501, Currency: "EUR"}}}, []string{"big"}, ""},
		{"another currency is within no bounds", Request{Merchant: "mer_1", Need: pci.Need{Brand: pci.Visa, Amount: pci.Amount{Minor: 500, Currency: "USD"}}}, []string{"hers"}, ""},
		{"no connector has both", Request{Merchant: "mer_2", Need: pci.Need{Brand: pci.Visa, Amount: pci.Amount{Minor: 500, Currency: "USD"}}}, nil, "amount"},
		{"sandbox is for sandbox", Request{Merchant: "mer_1", Sandbox: true, Need: pci.Need{Brand: pci.Visa, Amount: pci.Amount{Minor: 1, Currency: "EUR"}}}, []string{"play"}, ""},
		{"the capability counts, and the sick is better than none", Request{Merchant: "mer_1", Need: pci.Need{Brand: pci.Visa, Amount: pci.Amount{Minor: 700, Currency: "EUR"}, ManualCapture: true}}, []string{"big"}, ""},
		{"what is lacking last is named", Request{Merchant: "mer_1", Need: pci.Need{Brand: pci.Visa, Amount: pci.Amount{Minor: 400, Currency: "EUR"}, ManualCapture: true}}, nil, "manual_capture"},
	} {
		got, err := r.Candidates(c.request)
		if !slices.Equal(names(got), c.want) {
			t.Errorf("%s: %v, want %v", c.what, names(got), c.want)
		}
		not, refused := errors.AsType[*NotServedError](err)
		if refused != (c.lacks != "") || refused && not.Lacks != c.lacks {
			t.Errorf("%s: %v, want it to lack %q", c.what, err, c.lacks)
		}
		if served := r.Serves(c.request); (served == nil) != (err == nil) {
			t.Errorf("%s: candidates say %v, Serves %v", c.what, err, served)
		}
	}
	if got, err := r.Named("big"); err != nil || got.Name != "big" {
		t.Errorf("a sick connector is not found by its name: %v", err)
	}
	if _, err := r.Named("gone"); !errors.Is(err, ErrNotConfigured) {
		t.Errorf("%v, want %v", err, ErrNotConfigured)
	}
}

// Whatever is configured: candidates serve the request, stand in order, and none is sick unless all are.
func TestCandidatesAreRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		brands, currencies := []pci.Brand{pci.Visa, pci.Amex}, []pci.Currency{"EUR", "JPY"}
		var routes []Route
		for i := range rapid.IntRange(0, 4).Draw(t, "routes") {
			p := &peer{down: rapid.Bool().Draw(t, "down"), can: pci.Capabilities{ManualCapture: rapid.Bool().Draw(t, "manual")}}
			routes = append(routes, Route{Name: string(rune('a' + i)), Sandbox: rapid.Bool().Draw(t, "sandbox"), Connector: p,
				Brands:     rapid.SliceOfDistinct(rapid.SampledFrom(brands), func(b pci.Brand) pci.Brand { return b }).Draw(t, "brands"),
				Currencies: rapid.SliceOfDistinct(rapid.SampledFrom(currencies), func(c pci.Currency) pci.Currency { return c }).Draw(t, "currencies")})
		}
		request := Request{Sandbox: rapid.Bool().Draw(t, "in sandbox"), Need: pci.Need{Brand: rapid.SampledFrom(brands).Draw(t, "brand"),
			Amount: pci.Amount{Minor: 1, Currency: rapid.SampledFrom(currencies).Draw(t, "currency")}, ManualCapture: rapid.Bool().Draw(t, "wants manual")}}
		var serve, up []string
		for _, r := range routes {
			p := r.Connector.(*peer)
			if r.Sandbox != request.Sandbox || len(r.Brands) > 0 && !slices.Contains(r.Brands, request.Need.Brand) ||
				len(r.Currencies) > 0 && !slices.Contains(r.Currencies, request.Need.Amount.Currency) || request.Need.ManualCapture && !p.can.ManualCapture {
				continue
			}
			serve = append(serve, r.Name)
			if !p.down {
				up = append(up, r.Name)
			}
		}
		want := up
		if len(up) == 0 && len(serve) > 0 {
			want = serve[:1]
		}
		got, err := newRouter(t, routes...).Candidates(request)
		if !slices.Equal(names(got), want) || (err == nil) != (len(serve) > 0) {
			t.Fatalf("%v, %v, want %v", names(got), err, want)
		}
	})
}

func TestTwoConnectorsOfOneNameAreRefused(t *testing.T) {
	if _, err := New(Route{Name: "a", Connector: &peer{}}, Route{Name: "a", Connector: &peer{}}); err == nil {
		t.Error("they were taken")
	}
	if _, err := New(Route{Connector: &peer{}}); err == nil {
		t.Error("one without a name was taken")
	}
}

func TestOutcomesAreCounted(t *testing.T) {
	p := &peer{}
	r := newRouter(t, Route{Name: "a", Connector: p})
	a, err := r.Named("a")
	if err != nil {
		t.Fatal(err)
	}
	for i, outcome := range []pci.SaleOutcome{pci.Approved, pci.Refused, pci.Unsent, pci.Unknown} {
		p.says = outcome
		for range i + 1 {
			if _, err := a.Sale(t.Context(), pci.SaleRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = a.Authorize(t.Context(), pci.SaleRequest{})
		if n := a.Outcomes()[outcome]; n != uint64(i+2) {
			t.Errorf("%s: %d", outcome, n)
		}
	}
}
