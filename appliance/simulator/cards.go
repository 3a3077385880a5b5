// Package simulator stands for the outside world in trials and tests: an acquirer's ISO 8583 host, a 3-D Secure
// directory server with an issuer's challenge page, and a shop.
//
// It runs as a process of its own, since it sees PANs by design. Nothing here is part of the appliance's card
// data environment, and nothing here may be reachable from a production network. How a counterparty behaves is
// chosen by the card: see [Cards]. What no card can say is told to it while it runs: see [Behaviour].
package simulator

// Card is a published test card and what it makes the counterparties do.
type Card struct {
	Number   string // PAN; belongs to nobody
	ThreeDS  ThreeDS
	Acquirer Acquirer
	What     string // one line for people
}

// ThreeDS is how directory server and issuer treat a card.
type ThreeDS string

// What directory server and issuer do, by the transStatus of their ARes.
const (
	Frictionless ThreeDS = "Y"
	Attempted    ThreeDS = "A"
	Challenge    ThreeDS = "C"
	NotAuthentic ThreeDS = "N"
	Rejected     ThreeDS = "R"
	Unavailable  ThreeDS = "U"
	NotEnrolled  ThreeDS = "" // the card is in no range of the directory server

	Informational       ThreeDS = "I"
	Decoupled           ThreeDS = "D" // though nobody asked for it
	PaymentConfirmation ThreeDS = "S" // nor for this
	UnknownStatus       ThreeDS = "X"
)

// What the directory server does instead of answering.
const (
	DSFails     ThreeDS = "http-500"
	DSSlow      ThreeDS = "slow"      // keeps the request until the caller has given up, for at most [slowAfter]
	DSMalformed ThreeDS = "malformed" // answers with what is no JSON
	DSWrongID   ThreeDS = "wrong-id"  // answers about another authentication
	DSErro      ThreeDS = "erro"      // answers with an error message
)

// Acquirer is how the acquirer answers a request: an ISO 8583 response code (DE 39), or one of the words below.
type Acquirer string

// What the acquirer does.
const (
	Approve  Acquirer = "00"
	Silent   Acquirer = "silent"    // never answers a sale or an authorization; answers its reversal
	Late     Acquirer = "late"      // approves after the appliance has given up
	HangUp   Acquirer = "hang-up"   // closes the connection instead of answering
	Twice    Acquirer = "twice"     // approves, two times
	NoAnswer Acquirer = "no-answer" // never answers anything about this card, reversals included, for a while

	CaptureLost    Acquirer = "capture-lost"    // approves; books the first capture advice and does not answer it
	CaptureRefused Acquirer = "capture-refused" // approves; declines capture advices (12)
	RefundRefused  Acquirer = "refund-refused"  // approves; declines refunds (05)
	RefundSilent   Acquirer = "refund-silent"   // approves; books refunds and never answers them; answers their reversal

	SoftDecline Acquirer = "soft-decline" // declines what the issuer's challenge has not authenticated
)

// Cards are the test cards. A challenge that is mandated is had for each that is authenticated without friction. Every other valid number is authenticated without friction and approved. Any expiry
// in the future and any CVV will do (four digits for American Express).
var Cards = []Card{
	{"4111111111111111", Frictionless, Approve, "Visa: authenticated without friction, approved"},
	{"5555555555554444", Frictionless, Approve, "Mastercard: authenticated without friction, approved"},
	{"378282246310005", Attempted, Approve, "American Express: authentication attempted, approved"},
	{"6011111111111117", NotEnrolled, Approve, "Discover: not enrolled in 3-D Secure, approved"},
	{"4539123456789017", Challenge, Approve, "Visa: the issuer asks the shopper (password 1234), approved"},
	{"5200828282828210", Challenge, Approve, "Mastercard: the issuer asks the shopper (password 1234), approved"},
	{"4539125112511255", Challenge, "51", "Visa: the issuer asks the shopper, then declined: insufficient funds"},
	{"4539050505050507", Frictionless, "05", "declined: do not honour"},
	{"4539515151515151", Frictionless, "51", "declined: insufficient funds"},
	{"4539545454545456", Frictionless, "54", "declined: expired card"},
	{"4539979797979793", Frictionless, "N7", "declined: wrong security code"},
	{"4539787878787872", NotAuthentic, Approve, "3-D Secure: not authenticated, never sent to the acquirer"},
	{"4539828282828280", Rejected, Approve, "3-D Secure: rejected by the issuer, never sent to the acquirer"},
	{"4539858585858585", Unavailable, Approve, "3-D Secure: not available at the issuer"},
	{"4539686868686864", Frictionless, Silent, "the acquirer never answers: reversed"},
	{"4539696969696969", Frictionless, Late, "the acquirer approves too late: reversed"},
	{"4242424242424242", Frictionless, HangUp, "the acquirer hangs up: reversed"},
	{"4012888888881881", Frictionless, Twice, "the acquirer approves twice: one payment"},
	{"4539919191919193", Frictionless, NoAnswer, "the acquirer answers neither sale nor reversal for a while"},
	{"5105105105105100", Frictionless, CaptureLost, "approved; the acquirer does not answer the first capture: it is repeated"},
	{"4539121212121210", Frictionless, CaptureRefused, "approved; captures are declined"},
	{"5454545454545454", Frictionless, RefundRefused, "approved; refunds are declined"},
	{"4444333322221111", Frictionless, RefundSilent, "approved; refunds are never answered: reversed"},
	{"4573111111111112", Frictionless, Approve, "3-D Secure 2.3.1: authenticated without friction, approved"},
	{"4573123456789014", Challenge, Approve, "3-D Secure 2.3.1: the issuer asks the shopper (password 1234), approved"},
	{"4573191919191912", PaymentConfirmation, Approve, "3-D Secure 2.3.1: the issuer answers with what was not asked for (S): refused"},
	{"4539737373737377", Informational, Approve, "3-D Secure: for information only (I); approved without liability shift"},
	{"4539131313131315", Decoupled, Approve, "3-D Secure: decoupled (D), which was not asked for: refused"},
	{"4539242424242428", UnknownStatus, Approve, "3-D Secure: a status that does not exist: refused"},
	{"4539656565656569", Frictionless, SoftDecline, "the issuer declines (1A) until it has asked the shopper (password 1234), then approves"},
	{"4539500050005009", DSFails, Approve, "the directory server fails (HTTP 500)"},
	{"4539404040404044", DSSlow, Approve, "the directory server answers too late"},
	{"4539202020202028", DSMalformed, Approve, "the directory server answers with what is no JSON"},
	{"4539303030303036", DSWrongID, Approve, "the directory server answers about another authentication"},
	{"4539101010101010", DSErro, Approve, "the directory server answers with an error message"},
}

// ChallengePassword is what the issuer's page accepts; anything else fails the challenge.
const ChallengePassword = "1234"

// behaviourOf returns what a PAN makes the counterparties do.
func behaviourOf(number string) Card {
	for _, card := range Cards {
		if card.Number == number {
			return card
		}
	}
	return Card{Number: number, ThreeDS: Frictionless, Acquirer: Approve}
}
