package pci

import "testing"

func TestWhatAConnectorLacksIsNamed(t *testing.T) {
	full := Capabilities{External3DS: true, ManualCapture: true, PartialCapture: true, Void: true, Refund: true, PartialRefund: true, MOTO: true,
		Brands: []Brand{Visa}, Currencies: []Currency{"EUR"}, MaxMinor: 100}
	all := Need{Brand: Visa, Amount: Amount{100, "EUR"}, External3DS: true, ManualCapture: true, PartialCapture: true, Void: true, Refund: true, PartialRefund: true, MOTO: true}
	if lacks := full.Lacks(all); lacks != "" {
		t.Errorf("it lacks %s", lacks)
	}
	if lacks := (Capabilities{}).Lacks(Need{Brand: JCB, Amount: Amount{1 << 60, "JPY"}}); lacks != "" {
		t.Errorf("without limits it lacks %s", lacks)
	}
	for want, need := range map[string]Need{
		"brand": {Brand: Amex}, "currency": {Amount: Amount{1, "USD"}}, "amount": {Amount: Amount{101, "EUR"}},
	} {
		if lacks := full.Lacks(need); lacks != want {
			t.Errorf("%+v: it lacks %q, want %q", need, lacks, want)
		}
	}
	for want, need := range map[string]Need{
		"external_3ds": {External3DS: true}, "manual_capture": {ManualCapture: true}, "partial_capture": {PartialCapture: true}, "void": {Void: true},
		"refund": {Refund: true}, "partial_refund": {PartialRefund: true}, "moto": {MOTO: true},
	} {
		if lacks := (Capabilities{}).Lacks(need); lacks != want {
			t.Errorf("%+v: it lacks %q, want %q", need, lacks, want)
		}
	}
}
