package pci

import "time"

// SaleRequest asks an acquirer for an amount: to authorize it, or to authorize and clear it at once. The card is
// taken from custody or, without a security code, from its token; one of Card and Token is set.
type SaleRequest struct {
	Payment        string  // binds Card
	Card           CardRef // zero with a stored credential
	Domain         string  // of Token
	Token          Token   // a stored credential
	Initiator      Initiator
	Entered        bool // Token is of a card that was entered for this payment, and is no stored credential
	Amount         Amount
	Merchant       Merchant
	Authentication Authentication // ECI and CAVV travel in the message
	Exemption      Exemption      // claimed towards the issuer
	Trace          Trace
	NetworkID      string // the scheme's, of the transaction by which the cardholder agreed to this one; with ByMerchant only, may be empty
	Record         []byte // where this request stands in the ledger, less than 200 bytes, opaque here; may be empty
}

// Initiator says who uses a stored credential. Its zero value is for a card that was just entered.
type Initiator string

// The initiators.
const (
	ByCustomer Initiator = "customer" // the cardholder is there and chose the stored card
	ByMerchant Initiator = "merchant" // agreed on before, such as a subscription
)

// Trace identifies one request to the acquirer for ever; it is committed before the request leaves, so that the
// request can still be reversed after a crash.
type Trace struct {
	STAN          string    // systems trace audit number, 6 digits (DE 11)
	RRN           string    // retrieval reference number, 12 characters (DE 37)
	TransmittedAt time.Time // UTC, whole seconds (DE 7)
}

// SaleOutcome says what is known of a request that left.
type SaleOutcome string

// Outcomes of a sale, an authorization or a refund.
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
	ResponseCode string // DE 39, two characters as in the edition of 1987; empty without an answer
	ActionCode   string // DE 39 as the acquirer answered it, where it speaks the edition of 1993: three digits
	ApprovalCode string // DE 38, six characters
	RRN          string // as the acquirer answered it
	NetworkID    string // the scheme's identifier of the transaction, where the acquirer tells it; later ones of a series name it
	Reference    string // the processor's own name of the sale, letters, digits and underscores, at most 100; empty where it has none
	// Authenticate says that the issuer has declined for the cardholder to be authenticated, and would answer anew after that.
	Authenticate bool
}

// CaptureRequest clears an amount that was authorized before, or a part of it. The PAN comes from the token.
type CaptureRequest struct {
	Payment      string
	Domain       string
	Token        Token
	Amount       Amount // what is captured, at most Authorized
	Authorized   Amount // what was authorized
	Merchant     Merchant
	Original     Trace  // of the authorization
	Stored       bool   // the original was made with a stored card
	ApprovalCode string // of the authorization
	Reference    string // [SaleResult.Reference] of the authorization
	Trace        Trace  // of this capture; the same for its repeats. Its RRN is not used
	Repeat       bool   // true from the second try on (0221)
}

// RefundRequest gives back an amount that was sold or captured before, or a part of it. The PAN comes from the token.
type RefundRequest struct {
	Payment      string
	Domain       string
	Token        Token
	Amount       Amount
	Merchant     Merchant
	Original     Trace  // of the sale or authorization
	Stored       bool   // the original was made with a stored card
	OriginalMTI  string // "0100" or "0200"; empty means "0200"
	ApprovalCode string // of the original
	Reference    string // [SaleResult.Reference] of the original
	Trace        Trace  // of this refund; the same for its repeats
	// Repeat is true from the second try on, of a connector with [Capabilities.RepeatRefund]. The outcome is then that of all
	// tries: [Unsent] means that none of them was done, nor will be.
	Repeat bool
}

// ReversalRequest takes back a request whose outcome is not known, or an authorization that is not wanted any
// more (a void). The PAN comes from the token.
type ReversalRequest struct {
	Payment      string
	Domain       string
	Token        Token
	Amount       Amount
	Merchant     Merchant
	Original     Trace  // of what is reversed
	Stored       bool   // the original was made with a stored card
	OriginalMTI  string // "0100" or "0200"; empty means "0200"
	Refund       bool   // the original is a refund
	ApprovalCode string // of the original, where its approval is known
	Reference    string // [SaleResult.Reference] of the original, where it is known
	Trace        Trace  // of this reversal; the same for its repeats. Its RRN is not used
	Repeat       bool   // true from the second try on (0401)
}
