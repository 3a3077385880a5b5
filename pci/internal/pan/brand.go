package pan

import "github.com/finterra/finpay/pci"

// brandRange is a range of issuer identification numbers, by their first six digits.
type brandRange struct {
	low, high int
	brand     pci.Brand
}

// brandRanges follows the schemes' published ranges. The first match counts, so narrow ranges come first.
var brandRanges = []brandRange{
	{300000, 305999, pci.Diners},
	{309500, 309599, pci.Diners},
	{360000, 369999, pci.Diners},
	{380000, 399999, pci.Diners},
	{340000, 349999, pci.Amex},
	{370000, 379999, pci.Amex},
	{352800, 358999, pci.JCB},
	{400000, 499999, pci.Visa},
	{222100, 272099, pci.Mastercard},
	{510000, 559999, pci.Mastercard},
	{601100, 601199, pci.Discover},
	{644000, 659999, pci.Discover},
	{620000, 629999, pci.UnionPay},
	{810000, 817199, pci.UnionPay},
	{500000, 509999, pci.Maestro},
	{560000, 589999, pci.Maestro},
	{600000, 699999, pci.Maestro},
}

func brandOf(pan []byte) pci.Brand {
	iin := 0
	for _, d := range pan[:6] {
		iin = iin*10 + int(d-'0')
	}
	for _, r := range brandRanges {
		if iin >= r.low && iin <= r.high {
			return r.brand
		}
	}
	return pci.Other
}
