package acquiring

import (
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

// FuzzAnswer reads what a host may send as a connector does.
func FuzzAnswer(f *testing.F) {
	specs := []*iso8583.Spec{iso8583.ASCII1987, iso8583.Binary1987, iso8583.ASCII1993, iso8583.Binary1993}
	for i, spec := range specs {
		for _, mti := range []string{"210", "110", "230", "410", "430", "510", "810", "814", "800", "804"} {
			w := iso8583.NewWriter(spec, make([]byte, 0, 500), string(spec.Version)+mti)
			w.Text(2, testPAN)
			w.Text(4, "000000001042")
			w.Text(11, "000001")
			if spec.Version == '1' {
				w.Text(24, "821")
				w.Text(39, "000")
			} else {
				w.Text(39, "00")
			}
			w.Text(48, "9203"+testCVV+"6312"+"MCC123456789")
			w.Text(50, "978")
			w.Text(76, "0000000001")
			message, err := w.Finish()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), message)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, message []byte) {
		c := &Connector{spec: specs[int(which)%len(specs)], flights: newFlights()}
		m := new(iso8583.Message)
		if m.Parse(c.spec, message) != nil {
			return
		}
		c.functionOf(m.Text(c.functionField()))
		a := layout{field: 48, networkTag: "63"}.answerOf(m)
		if len(a.networkID) > pci.MaxNetworkID || pci.LooksLikePAN(a.networkID) {
			t.Fatalf("network id %q", a.networkID)
		}
		if len(a.mti) != 4 || len(a.code) > 2 {
			t.Fatalf("type %q, code %q", a.mti, a.code)
		}
		for de := range m.Fields() {
			if iso8583.IsCardData(de) {
				t.Fatalf("DE %d is still there", de)
			}
		}
		for _, f := range totalFields(&a.totals) {
			if *f.value < 0 {
				t.Fatalf("DE %d is %d", f.de, *f.value)
			}
		}
		c.flights.settle(a, true)
		_, _ = resultOf(sale, a)
	})
}
