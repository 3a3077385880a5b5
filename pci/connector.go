package pci

import "slices"

// Capabilities are what a connector to a processor of payments can do. What it cannot do is refused before anything is sent.
type Capabilities struct {
	External3DS    bool // takes the results of a 3-D Secure authentication made here
	ManualCapture  bool // authorizes first, and captures later
	PartialCapture bool // captures less than was authorized
	Void           bool // gives an authorization up
	Refund         bool
	PartialRefund  bool
	// RepeatRefund says that a refund of unknown outcome is asked for again under its trace, and answered as the first would
	// have been; without it such a refund is reversed.
	RepeatRefund   bool
	MOTO           bool // takes orders by mail and telephone
	Reconciliation bool

	Brands     []Brand    // that it takes; none: all
	Currencies []Currency // that it takes; none: all
	MaxMinor   int64      // the largest amount, in minor units; 0: any
}

// Need is what an operation asks of a connector. Its zero value asks for a sale of any card and amount.
type Need struct {
	Brand          Brand // empty: not known yet
	Amount         Amount
	External3DS    bool
	ManualCapture  bool
	PartialCapture bool
	Void           bool
	Refund         bool
	PartialRefund  bool
	MOTO           bool
}

// Lacks names what c does not have of n, in the words of a configuration; empty where it serves all of it.
func (c Capabilities) Lacks(n Need) string {
	for _, check := range []struct {
		ok   bool
		name string
	}{
		{n.Brand == "" || len(c.Brands) == 0 || slices.Contains(c.Brands, n.Brand), "brand"},
		{n.Amount.Currency == "" || len(c.Currencies) == 0 || slices.Contains(c.Currencies, n.Amount.Currency), "currency"},
		{c.MaxMinor == 0 || n.Amount.Minor <= c.MaxMinor, "amount"},
		{c.External3DS || !n.External3DS, "external_3ds"},
		{c.ManualCapture || !n.ManualCapture, "manual_capture"},
		{c.PartialCapture || !n.PartialCapture, "partial_capture"},
		{c.Void || !n.Void, "void"},
		{c.Refund || !n.Refund, "refund"},
		{c.PartialRefund || !n.PartialRefund, "partial_refund"},
		{c.MOTO || !n.MOTO, "moto"},
	} {
		if !check.ok {
			return check.name
		}
	}
	return ""
}
