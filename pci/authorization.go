package pci

import "time"

// SaleRequest asks an acquirer to authorize and clear an amount at once. The card is taken from custody.
type SaleRequest struct {
	Payment        string // binds Card
	Card           CardRef
	Amount         Amount
	Merchant       Merchant
	Authentication Authentication // ECI and CAVV travel in the message
	Trace          Trace
}

// Trace identifies one request to the acquirer for ever; it is committed before the request leaves, so that the
// request can still be reversed after a crash.
type Trace struct {
	STAN          string    // systems trace audit number, 6 digits (DE 11)
	RRN           string    // retrieval reference number, 12 characters (DE 37)
	TransmittedAt time.Time // UTC, whole seconds (DE 7)
}

// SaleOutcome says what is known of a request that left.
type SaleOutcome string

// Outcomes of a sale.
const (
	Approved SaleOutcome = "approved"
	Refused  SaleOutcome = "declined"
	// Unsent means that the request certainly never left this machine: nothing to reverse.
	Unsent SaleOutcome = "unsent"
	// Unknown means that the request left, or may have, and that no answer is known. It must be reversed.
	Unknown SaleOutcome = "unknown"
)

// SaleResult is the acquirer's answer, without digits.
type SaleResult struct {
	Outcome      SaleOutcome
	ResponseCode string // DE 39, two characters; empty without an answer
	ApprovalCode string // DE 38, six characters
	RRN          string // as the acquirer answered it
}

// ReversalRequest takes a sale back whose outcome is not known. The PAN comes from the token.
type ReversalRequest struct {
	Payment  string
	Domain   string
	Token    Token
	Amount   Amount
	Merchant Merchant
	Original Trace // of the sale
	Trace    Trace // of this reversal; the same for its repeats
	Repeat   bool  // true from the second try on (0401)
}
