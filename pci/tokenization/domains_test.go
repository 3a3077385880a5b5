package tokenization

import (
	"errors"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/pan"
)

func TestWhatADomainCannotServeIsRefusedWithTheArithmetic(t *testing.T) {
	troy := []Range{{First: "9792", Lengths: []int{16}}}
	amex := []Range{{First: "34", Lengths: []int{15}}, {First: "37", Lengths: []int{15}}}
	for name, c := range map[string]struct {
		domain Domain
		want   string
	}{
		"Amex in bin6-last4": {Domain{Format: pci.TokenBIN6Last4, Accept: amex}, "15-digit PAN: 5 free digits give 10^5 values, and SP 800-38G asks for 10^6"},
		"Troy in last4":      {Domain{Format: pci.TokenLast4, Accept: troy}, "16-digit PAN that begins with 9: so do all of its tokens, and among 10^11 values"},
		"Humo in last4":      {Domain{Format: pci.TokenLast4, Accept: []Range{{First: "9860"}}}, "16-digit PAN that begins with 9"},
		"a range up to 9":    {Domain{Format: pci.TokenLast4, Accept: []Range{{First: "8", Last: "9"}}}, "begins with 9"},
		"a fallback that cannot": {Domain{Format: pci.TokenLast4, Fallback: pci.TokenBIN6Last4, Accept: []Range{{First: "9792", Lengths: []int{15}}}},
			"15-digit PAN that begins with 9"},
	} {
		c.domain.ID = "shop"
		_, err := Compile([]Domain{c.domain})
		if _, ok := errors.AsType[*DomainError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestAFallbackServesTheRest(t *testing.T) {
	for _, c := range []struct {
		domain Domain
		number string
		want   pci.TokenFormat
	}{
		{Domain{Format: pci.TokenBIN6Last4, Fallback: pci.TokenLast4, Accept: []Range{{First: "37", Lengths: []int{15}}}}, "378282246310005", pci.TokenLast4},
		{Domain{Format: pci.TokenLast4, Fallback: pci.TokenBIN6Last4, Accept: []Range{{First: "9792", Lengths: []int{16}}}}, "979200000000000", pci.TokenBIN6Last4},
		{Domain{Format: pci.TokenLast4, Fallback: pci.TokenOpaque, Accept: []Range{{First: "9792"}, {First: "4"}}}, "979200000000000", pci.TokenOpaque},
	} {
		if len(c.number) == 15 && c.number[0] == '9' {
			c.number += string(pan.Missing([]byte(c.number + "0")))
		}
		c.domain.ID = "shop"
		b := newBench(t, oneKey(t), c.domain)
		if issue := b.all(t, "shop", c.number)[0]; issue.Err != nil || issue.Token.Format != c.want {
			t.Errorf("%+v, want %s", issue, c.want)
		}
	}
}

func TestOnlyAcceptedCardsAreServed(t *testing.T) {
	b := newBench(t, oneKey(t), Domain{ID: "shop", Format: pci.TokenLast4, Accept: []Range{{First: "51", Last: "55"}, {First: "411111", Lengths: []int{16}}}})
	issues := b.all(t, "shop", "5555555555554444", "4111111111111111", "4012888888881881", "6304000000000000")
	for i, accepted := range []bool{true, true, false, false} {
		if e, refused := errors.AsType[*pci.CardError](issues[i].Err); refused == accepted || refused && *e != (pci.CardError{Field: pci.FieldNumber, Reason: pci.ReasonUnsupported}) {
			t.Errorf("card %d: %v", i, issues[i].Err)
		}
	}
}

func TestADomainTellsWhatItRefuses(t *testing.T) {
	d, err := Compile([]Domain{{ID: "bin", Format: pci.TokenBIN6Last4}, {ID: "all", Format: pci.TokenOpaque}, {ID: "last4", Format: pci.TokenLast4}})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]int{"bin": 4, "all": 0, "last4": 8} {
		refused, err := d.Refused(id)
		if err != nil || len(refused) != want {
			t.Errorf("%s refuses %v (%v), want %d", id, refused, err, want)
		}
	}
	if _, err := d.Refused("nobody"); !errors.Is(err, ErrNoDomain) {
		t.Errorf("%v, want ErrNoDomain", err)
	}
}

func TestWhatIsNoDomain(t *testing.T) {
	good := Domain{ID: "shop", Format: pci.TokenLast4}
	with := func(change func(*Domain)) []Domain {
		d := good
		change(&d)
		return []Domain{d}
	}
	for name, domains := range map[string][]Domain{
		"no id":               with(func(d *Domain) { d.ID = "" }),
		"a capital":           with(func(d *Domain) { d.ID = "Shop" }),
		"a NUL":               with(func(d *Domain) { d.ID = "shop\x00last4" }),
		"a line's end":        with(func(d *Domain) { d.ID = "shop\n" }),
		"65 characters":       with(func(d *Domain) { d.ID = strings.Repeat("a", 65) }),
		"twice":               {good, good},
		"an asterisk":         with(func(d *Domain) { d.ID = "*" }),
		"no format":           with(func(d *Domain) { d.Format = "" }),
		"another format":      with(func(d *Domain) { d.Format = "last5" }),
		"itself as fallback":  with(func(d *Domain) { d.Fallback = pci.TokenLast4 }),
		"another fallback":    with(func(d *Domain) { d.Fallback = "last5" }),
		"a range of letters":  with(func(d *Domain) { d.Accept = []Range{{First: "4a"}} }),
		"an empty range":      with(func(d *Domain) { d.Accept = []Range{{}} }),
		"a range backwards":   with(func(d *Domain) { d.Accept = []Range{{First: "55", Last: "51"}} }),
		"ends of two lengths": with(func(d *Domain) { d.Accept = []Range{{First: "51", Last: "559"}} }),
		"a range of seven":    with(func(d *Domain) { d.Accept = []Range{{First: "4111111"}} }),
		"a PAN of 20 digits":  with(func(d *Domain) { d.Accept = []Range{{First: "4", Lengths: []int{20}}} }),
	} {
		if _, err := Compile(domains); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := Compile([]Domain{good, {ID: strings.Repeat("a-1", 21), Format: pci.TokenOpaque}}); err != nil {
		t.Error(err)
	}
}

func TestDomainsThatAreNotListed(t *testing.T) {
	listed := newBench(t, oneKey(t), Domain{ID: "shop", Format: pci.TokenLast4})
	if _, err := listed.tokenize("other", "4111111111111111"); !errors.Is(err, ErrNoDomain) {
		t.Errorf("%v, want ErrNoDomain", err)
	}
}
