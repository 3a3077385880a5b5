package acquiring

import (
	"testing"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/pci/internal/pan"
)

func TestPackingASaleAllocatesNothing(t *testing.T) {
	for _, spec := range []*iso8583.Spec{iso8583.ASCII1987, iso8583.Binary1987, iso8583.ASCII1993, iso8583.Binary1993} {
		c, err := newConnector(Config{Address: "127.0.0.1:1", Spec: spec.Name, Additional: Additional{Record: "DE126"}})
		if err != nil {
			t.Fatal(err)
		}
		r := saleRequest(1)
		q, err := c.newRequest(sale, r.Amount, r.Merchant, r.Trace)
		if err != nil {
			t.Fatal(err)
		}
		q.sells, q.results, q.record = true, r.Authentication, make([]byte, MaxRecord)
		memory, scratch := make([]byte, messageRoom), make([]byte, 1024)
		err = custodian{testCVV}.lend(func(card *pan.Card) error {
			allocations := testing.AllocsPerRun(100, func() {
				if _, err := c.pack(memory[:2], scratch, q, card); err != nil {
					t.Fatal(err)
				}
			})
			if allocations != 0 {
				t.Errorf("%s: %v allocations", spec.Name, allocations)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
