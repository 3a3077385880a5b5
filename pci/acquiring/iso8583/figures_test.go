//go:build bench

package iso8583_test

import (
	"testing"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/softhsm-test/figures"
)

// TestFigures is what `make bench` runs.
func TestFigures(t *testing.T) {
	memory := make([]byte, 0, iso8583.MaxFrame)
	number := []byte("4111111111111111")
	var table []figures.Figure
	for _, spec := range specs {
		wire, err := packSale(spec, make([]byte, 0, iso8583.MaxFrame), number)
		if err != nil {
			t.Fatal(err)
		}
		m := new(iso8583.Message)
		pack := func() error { _, err := packSale(spec, memory, number); return err }
		parse := func() error { return m.Parse(spec, wire) }
		rates := figures.Turns(t, figures.Times(pack), figures.Times(parse))
		table = append(table,
			figures.Alone("pack a sale, one core, "+spec.Name, rates[0], "messages/s", ">= 1000000"),
			figures.Alone("unpack a sale, one core, "+spec.Name, rates[1], "messages/s", ">= 1000000"),
			figures.Alone("pack a sale, "+spec.Name+": heap", testing.AllocsPerRun(100, func() { _ = pack() }), "allocations", "<= 0"),
			figures.Alone("unpack a sale, "+spec.Name+": heap", testing.AllocsPerRun(100, func() { _ = parse() }), "allocations", "<= 0"))
	}
	figures.Report(t, table...)
}

// packSale packs what a connector sends: 18 fields, with the results of 3-D Secure and a security code.
func packSale(spec *iso8583.Spec, memory, number []byte) ([]byte, error) {
	of1993 := spec.Version == '1'
	w := iso8583.NewWriter(spec, memory, string(spec.Version)+"200")
	w.Bytes(2, number)
	w.Text(3, "000000")
	w.Uint(4, 12345)
	w.Text(7, "0102030405")
	w.Text(11, "000042")
	if of1993 {
		w.Text(12, "300102030405")
		w.Text(14, "3012")
		w.Text(22, "000010100000")
		w.Text(24, "200")
		w.Text(26, "5812")
	} else {
		w.Text(12, "030405")
		w.Text(13, "0102")
		w.Text(14, "3012")
		w.Text(18, "5812")
		w.Text(22, "010")
		w.Text(25, "59")
	}
	w.Text(32, "123456")
	w.Text(37, "000000000042")
	w.Text(41, "TERM1")
	w.Text(42, "MERCHANT1")
	w.Text(43, "Kopi                     Kuala Lumpur MY")
	w.Text(48, "420205"+"4328AAABBWcSNIdjeUZThmNHAAAAAAA="+"9203737")
	w.Text(49, "978")
	return w.Finish()
}
