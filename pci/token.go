package pci

// Token stands for a PAN in one domain. Without the HSM it tells nothing of the card.
type Token string

// TokenFormat says what of a PAN can be seen in its token.
type TokenFormat string

// The formats.
const (
	TokenLast4     TokenFormat = "last4"      // PAN's length and last four digits, begins with 9
	TokenBIN6Last4 TokenFormat = "bin6-last4" // PAN's length, first six and last four digits, and a wrong check digit
	TokenOpaque    TokenFormat = "opaque"     // tok_ and 128 random bits
)

// TokenImage is what an opaque token's card comes to under the key: a numeral string one digit shorter than the PAN. It
// leads back to the card through the HSM only.
type TokenImage string

// IssuedToken is a token and how it came about; it is what a registry keeps.
type IssuedToken struct {
	Domain     string // the token space, a merchant's or a group's
	Token      Token
	Format     TokenFormat
	KeyVersion uint32
	// Steps is how many times more than once the card was encrypted: a value that is another card's token under another
	// version of the key is passed over.
	Steps uint16
	Image TokenImage // of an opaque token; else empty
	Card  Card
	// Replaced says that the card has another token by now, under a newer version of the key. The value stays this card's.
	Replaced bool
}

// Tokenized is what became of one card of many: its token, or why it has none.
type Tokenized struct {
	Token IssuedToken // its Card is the card as it was given; the registered expiry of a known one may differ
	Known bool        // it was in the registry already

	Envelope Envelope // what it came sealed in, alone; zero otherwise
	Err      error    // [CardErrors], [*CardError], [ErrMalformed], [ErrTooLarge], [ErrUnavailable]; then the rest means nothing
}
