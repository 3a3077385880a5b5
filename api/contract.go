// Package api is the contract: what the outside sees of the appliance.
//
// openapi.yaml is its source; the types of this file follow it. The package owns every handler (authentication,
// limits, strict reading, problem documents, the checkout page) and knows no implementation: it calls the
// interfaces below. A body that carries a card is handed on unread, to [Cards].
//
// # What is promised
//
// Every error is a problem document (RFC 9457) with a stable code, or a message beside the form field. Neither
// they nor the logs carry card data or a secret.
package api

import (
	"context"
	"net/http"
	"time"

	"github.com/finterra/finpay/pci"
)

// Scope is a permission of an API key.
type Scope string

// The scopes.
const (
	ScopePayments   Scope = "payments"
	ScopeTokens     Scope = "tokens"
	ScopeDetokenize Scope = "detokenize"
	ScopeAudit      Scope = "audit"
	ScopeAdmin      Scope = "admin"
)

// Caller is whose API key a request carries.
type Caller struct {
	KeyID      string
	MerchantID string
	Domain     string // the merchant's token space
	Scopes     []Scope
	Origin     string // the client's IP address
}

// Keys recognises API keys.
type Keys interface {
	// Caller returns whose key it is. An unknown or revoked key is [ErrUnauthorized]; the refusal is recorded.
	Caller(ctx context.Context, key, origin string) (Caller, error)
}

// Payments creates and shows payments. Its errors are [*Problem] or those of package pci.
type Payments interface {
	// Create makes a payment. The same idempotency key with the same request returns the first payment; with
	// another request it is a problem. An empty key makes a new payment each time.
	Create(ctx context.Context, caller Caller, request CreatePayment, idempotencyKey string) (Payment, error)
	Get(ctx context.Context, caller Caller, id string) (Payment, error)
	List(ctx context.Context, caller Caller, query ListPayments) (PaymentList, error)
	Receipt(ctx context.Context, caller Caller, id string) (Receipt, error)
	// Capture moves an authorized amount, or a part of it; Void gives the authorization up. They return when the acquirer has
	// answered, or after some seconds with the payment as it stands: the rest follows by itself. What has no place where the
	// payment is is [ErrNotPossible]; too large an amount is [ErrAmount]. Idempotency keys are as with Create.
	Capture(ctx context.Context, caller Caller, id string, request ModifyPayment, idempotencyKey string) (Payment, error)
	Void(ctx context.Context, caller Caller, id, idempotencyKey string) (Payment, error)
	// Refund gives captured money back, or a part of it, in the same manner.
	Refund(ctx context.Context, caller Caller, id string, request ModifyPayment, idempotencyKey string) (Modification, error)
	Refunds(ctx context.Context, caller Caller, id string) (RefundList, error)
	// ForgetCustomer deletes what was told of a payment's customer. Where nothing was, nothing is wrong.
	ForgetCustomer(ctx context.Context, caller Caller, id string) error
}

// Checkout is what the shopper's page does. A session is the secret part of a checkout URL; one that is unknown
// is [ErrNoSession].
type Checkout interface {
	// View says where the payment of a session stands.
	View(ctx context.Context, session string) (CheckoutView, error)
	// Pay tries a card that [Cards] has taken with the view's PaymentID as its binding, and returns when the
	// payment is decided, waits for a challenge, or ctx ends. It owns the card from now on. A second submit of the
	// same form pays nothing more: it waits for the first and returns the same view. A card that cannot be
	// tokenized is a [*pci.CardError].
	Pay(ctx context.Context, session string, card pci.CardRef, entered pci.Entered, browser pci.Browser) (CheckoutView, error)
	// PayStored tries the stored card that the payment is for. form tells one showing of the page from the next.
	PayStored(ctx context.Context, session, form string, browser pci.Browser) (CheckoutView, error)
	// Await returns when the payment of a session is no longer in [CheckoutProcessing], or ctx ends. The shopper who
	// comes back from a challenge waits here for the result that travels from the issuer to the appliance.
	Await(ctx context.Context, session string) (CheckoutView, error)
	// MethodOver ends the wait for the 3DS Method of a session: data is the threeDSMethodData that the issuer has posted back,
	// empty where it did not in time. Data of another one is ignored.
	MethodOver(ctx context.Context, session, data string) error
}

// Cards takes a card from a request's unread body. The errors are [pci.CardErrors] (beside the fields),
// [pci.ErrMalformed], [pci.ErrTooLarge], [pci.ErrFull] and [pci.ErrUnavailable].
type Cards interface {
	// Take reads what a browser has posted for a payment, open or sealed under aad.
	Take(r *http.Request, payment string, aad []byte) (pci.CardRef, pci.Entered, error)
	// TakesOpen reports whether a card may come open, which is how a browser without a script sends one.
	TakesOpen() bool
}

// Tokens issues tokens, shows them and ends them. A token lives in a domain; an empty domain means that of the caller's
// merchant, and one that the merchant does not use is [ErrNoDomain]. Bodies that carry cards are handed on unread.
type Tokens interface {
	// Issue takes one card from the body of r. issued is false where the card had its token already. A repeat under the
	// same idempotency key, empty for none, gets the first answer; for another card it is [ErrIdempotency].
	Issue(r *http.Request, caller Caller, domain, idempotencyKey string) (token Token, issued bool, err error)
	// IssueAll takes cards from the body of r, one JSON object a line, and calls answer with what became of them: in
	// order, and not before it is committed. What is wrong with one card is that card's result. It ends with the body,
	// or with the first error of answer.
	IssueAll(r *http.Request, caller Caller, domain string, answer func([]TokenResult) error) error
	Get(ctx context.Context, caller Caller, domain string, token pci.Token) (Token, error)
	// Deactivate ends a token's use until its card is tokenized again. One that is inactive already stays so.
	Deactivate(ctx context.Context, caller Caller, domain string, token pci.Token) (Token, error)
	List(ctx context.Context, caller Caller, domain string, page TokenPage) (TokenList, error)
	// Detokenize seals the card behind a token to the recipient that is registered for the caller's key. Each call is
	// entered, and counts against the key's quota.
	Detokenize(ctx context.Context, caller Caller, domain string, token pci.Token, reason DetokenizeReason) (SealedCard, error)
	// Changes tells by which tokens tokens of a domain were replaced, under a newer version of the tokenization key.
	Changes(ctx context.Context, caller Caller, domain string, page ChangePage) (TokenChanges, error)
	// AcknowledgeChanges says that the domain uses its new tokens, through a change. It never goes back.
	AcknowledgeChanges(ctx context.Context, caller Caller, domain string, through int64) (TokenChanges, error)
	// Domains are those of the caller's merchant.
	Domains(ctx context.Context, caller Caller) ([]Domain, error)
}

// IntakeKeys shows the key that cards are sealed to. Where the HSM has none it is [ErrNotFound].
type IntakeKeys interface {
	IntakeKey(ctx context.Context) (IntakeKey, error)
	// SealingKey is what a page needs of the key; ok is false where the HSM takes no sealed cards.
	SealingKey() (key SealingKey, ok bool)
}

// SealingKey is a key that cards are sealed to.
type SealingKey struct {
	Name      string // goes with what is sealed
	PublicKey string // uncompressed point on P-256 (SEC 1), base64url without padding
}

// Log is the signed log as it is read from outside. What does not exist, or not yet, is [ErrNotFound].
type Log interface {
	// Checkpoint returns the newest signed checkpoint (C2SP tlog-checkpoint).
	Checkpoint(ctx context.Context) ([]byte, error)
	// Cosigned returns the newest checkpoint that witnesses have signed too (C2SP tlog-cosignature).
	Cosigned(ctx context.Context) ([]byte, error)
	// VerifierKey returns the public key that checkpoints are signed under (C2SP signed-note).
	VerifierKey() string
	// Tile returns hashes, or entries, of the log (C2SP tlog-tiles).
	Tile(ctx context.Context, tile Tile) ([]byte, error)
	// Consistency returns the proof that the log of size to begins with that of size from, in the form in which
	// C2SP tlog-witness sends one, with the checkpoint of size to. 0 is the newest one's.
	Consistency(ctx context.Context, from, to int64) ([]byte, error)
}

// CreatePayment is the body of POST /v1/payments.
type CreatePayment struct {
	Amount    int64        `json:"amount"`   // minor units, 1 to 999,999,999,999 (ISO 8583 DE 4)
	Currency  pci.Currency `json:"currency"` // ISO 4217
	Reference string       `json:"reference"`
	ReturnURL string       `json:"return_url,omitempty"` // empty where no shopper is there
	Capture   string       `json:"capture,omitempty"`    // "automatic" or "manual"
	// Token is of a stored card that pays. Its security code is not known any more, and not sent.
	Token     pci.Token     `json:"token,omitempty"`
	Initiator pci.Initiator `json:"initiator,omitempty"` // of a payment with a token; the customer unless it says otherwise
	// Original is the payment by which the customer agreed to what the merchant does on their own: with [pci.ByMerchant] only.
	Original string    `json:"original,omitempty"`
	Customer *Customer `json:"customer,omitempty"`

	Authentication *Authentication `json:"authentication,omitempty"`
	Setup          pci.Setup       `json:"setup,omitempty"`
	Recurring      *Agreement      `json:"recurring,omitempty"`
}

// ModifyPayment is the body of a capture or refund. An amount of 0, or none, stands for all that there is.
type ModifyPayment struct {
	Amount int64 `json:"amount,omitempty"` // minor units
}

// Customer is what a merchant may tell of the person, for 3-D Secure.
type Customer struct {
	Name    string   `json:"name,omitempty"`
	Email   string   `json:"email,omitempty"`
	Phone   string   `json:"phone,omitempty"` // E.164 with a space or dash after the country code: "+60 123456789"
	Billing *Address `json:"billing,omitempty"`
}

// Address is a postal one, in the parts that EMV 3-D Secure has for it (billAddr…).
type Address struct {
	Line1      string `json:"line1,omitempty"`
	Line2      string `json:"line2,omitempty"`
	Line3      string `json:"line3,omitempty"`
	City       string `json:"city,omitempty"`
	State      string `json:"state,omitempty"` // ISO 3166-2 without the country, at most 3 characters
	PostalCode string `json:"postal_code,omitempty"`
	Country    string `json:"country,omitempty"` // ISO 3166-1 alpha-2
}

// Status is where a payment stands.
type Status string

// The statuses of a payment.
const (
	StatusCreated           Status = "created"
	StatusAuthenticating    Status = "authenticating"
	StatusAuthorizing       Status = "authorizing"
	StatusAuthorized        Status = "authorized" // its merchant captures or voids it
	StatusCaptured          Status = "captured"
	StatusVoided            Status = "voided"
	StatusPartiallyRefunded Status = "partially_refunded"
	StatusRefunded          Status = "refunded"
	StatusDeclined          Status = "declined" // another card may be tried until the session ends
	StatusFailed            Status = "failed"
	StatusExpired           Status = "expired"
	StatusIndeterminate     Status = "indeterminate" // a request left for the acquirer and no answer is known yet
)

// Payment is one payment as its merchant sees it.
type Payment struct {
	ID             string          `json:"id"`
	Status         Status          `json:"status"`
	Amount         int64           `json:"amount"`
	Currency       pci.Currency    `json:"currency"`
	Reference      string          `json:"reference"`
	ReturnURL      string          `json:"return_url,omitempty"`
	Capture        string          `json:"capture"`
	Initiator      pci.Initiator   `json:"initiator,omitempty"`    // of a payment with a stored card
	Original       string          `json:"original,omitempty"`     // the payment that a merchant's own one stands on
	Captured       int64           `json:"captured"`               // minor units that the acquirer has booked
	Refunded       int64           `json:"refunded"`               // of them
	CheckoutURL    string          `json:"checkout_url,omitempty"` // while a card can be entered
	Card           *Card           `json:"card,omitempty"`         // of the last attempt
	Token          pci.Token       `json:"token,omitempty"`
	Result         *Result         `json:"result,omitempty"`
	Attempts       int             `json:"attempts"`
	Authentication *Authentication `json:"authentication,omitempty"` // where something was asked for
	Setup          pci.Setup       `json:"setup,omitempty"`
	Recurring      *Agreement      `json:"recurring,omitempty"`
	Captures       []Modification  `json:"captures,omitempty"` // oldest first
	Void           *Modification   `json:"void,omitempty"`
	CreatedAt      time.Time       `json:"created_at"`
	ExpiresAt      time.Time       `json:"expires_at"`
	UpdatedAt      time.Time       `json:"updated_at"`
}

// Modification is what a merchant does with a payment after its authorization. One at a time of a payment is pending.
type Modification struct {
	ID           string             `json:"id"`
	Payment      string             `json:"payment"`
	Status       ModificationStatus `json:"status"`
	Amount       int64              `json:"amount"`
	Currency     pci.Currency       `json:"currency"`
	Reason       ModificationReason `json:"reason,omitempty"`
	ResponseCode string             `json:"response_code,omitempty"` // of the acquirer, ISO 8583 DE 39
	CreatedAt    time.Time          `json:"created_at"`
	UpdatedAt    time.Time          `json:"updated_at"`
}

// ModificationStatus is where a modification stands.
type ModificationStatus string

// The statuses of a modification.
const (
	ModificationPending   ModificationStatus = "pending" // no answer of the acquirer is known yet; the appliance goes on by itself
	ModificationSucceeded ModificationStatus = "succeeded"
	ModificationFailed    ModificationStatus = "failed" // nothing moved; another may be tried
)

// ModificationReason is why a modification has failed.
type ModificationReason string

// The reasons.
const (
	ModificationRefused ModificationReason = "refused"         // by the acquirer
	ModificationUnsent  ModificationReason = "not_sent"        // nothing left the appliance
	ModificationUnknown ModificationReason = "unknown_outcome" // the acquirer did not answer; reversed, or about to be
)

// RefundList are all refunds of a payment, oldest first.
type RefundList struct {
	Refunds []Modification `json:"refunds"`
}

// Card is what may be known of a card.
type Card struct {
	Brand     pci.Brand     `json:"brand"`
	Truncated pci.Truncated `json:"truncated"`
	Expiry    string        `json:"expiry"` // YYYY-MM
}

// Result is how the last attempt ended.
type Result struct {
	Reason       Reason `json:"reason,omitempty"`         // empty when it was approved
	ResponseCode string `json:"response_code,omitempty"`  // of the acquirer, ISO 8583 DE 39
	ApprovalCode string `json:"approval_code,omitempty"`  // DE 38
	ThreeDS      string `json:"three_d_secure,omitempty"` // transStatus
	ECI          string `json:"eci,omitempty"`
	NetworkID    string `json:"network_transaction_id,omitempty"` // the scheme's, where the acquirer tells it
}

// Reason is why an attempt was not paid: a stable code, for which the checkout page has a sentence.
type Reason string

// The reasons.
const (
	ReasonInsufficientFunds Reason = "insufficient_funds"
	ReasonDoNotHonour       Reason = "do_not_honour"
	ReasonExpiredCard       Reason = "expired_card"
	ReasonWrongSecurityCode Reason = "wrong_security_code"
	ReasonLimitExceeded     Reason = "limit_exceeded"
	ReasonCardRefused       Reason = "card_refused" // everything that the shopper can do nothing about
	ReasonNotAuthenticated  Reason = "not_authenticated"
	ReasonChallengeTimedOut Reason = "challenge_timed_out"
	ReasonNoConnector       Reason = "no_connector"    // no connector serves this card and payment; nothing was sent
	ReasonTryAgain          Reason = "try_again"       // the appliance lost the card or could not reach anybody; nothing was charged
	ReasonUnknownOutcome    Reason = "unknown_outcome" // the acquirer did not answer; reversed, or about to be
)

// ListPayments narrows GET /v1/payments. Zero fields do not.
type ListPayments struct {
	Status    Status
	Reference string
	From, To  time.Time
	Cursor    string
	Limit     int // 1 to 100
}

// PaymentList is one page of payments, newest first.
type PaymentList struct {
	Payments   []Payment `json:"payments"`
	NextCursor string    `json:"next_cursor,omitempty"` // of the next page; empty on the last one
}

// Receipt is everything the signed log holds of a payment.
type Receipt struct {
	Payment     string         `json:"payment"`
	Origin      string         `json:"origin"`
	VerifierKey string         `json:"verifier_key"` // C2SP signed-note; pin it, do not take it from here each time
	Entries     []ReceiptEntry `json:"entries"`
}

// ReceiptEntry is one entry with its proof.
type ReceiptEntry struct {
	Index int64  `json:"index"`
	Entry string `json:"entry"` // canonical JSON (RFC 8785); the leaf is its RFC 6962 hash
	Proof string `json:"proof"` // C2SP tlog-proof, with the signed checkpoint
	// VerifierKey is that of the entry's log, where it is an earlier one than the receipt's.
	VerifierKey string `json:"verifier_key,omitempty"`
}

// CheckoutState is what the shopper can do next.
type CheckoutState string

// The states of a checkout.
const (
	CheckoutPayable    CheckoutState = "payable"    // enter a card; Decline says why the last one was not taken
	CheckoutMethod     CheckoutState = "method"     // let the issuer see the browser, in a hidden frame
	CheckoutChallenge  CheckoutState = "challenge"  // go to the issuer
	CheckoutProcessing CheckoutState = "processing" // wait
	CheckoutPaid       CheckoutState = "paid"       // go back to the shop
	CheckoutUncertain  CheckoutState = "uncertain"  // the acquirer did not answer; go back to the shop, do not pay again
	CheckoutFailed     CheckoutState = "failed"     // nothing was charged; go back to the shop
	CheckoutExpired    CheckoutState = "expired"    // go back to the shop
)

// CheckoutView is what the shopper's page shows.
type CheckoutView struct {
	PaymentID    string
	State        CheckoutState
	Amount       pci.Amount
	MerchantID   string
	MerchantName string
	Reference    string
	Decline      Reason         // why the last attempt was not paid, for CheckoutPayable
	Stored       *pci.Card      // for CheckoutPayable: the stored card that the payment is for; the shopper may enter another
	Challenge    *pci.Challenge // for CheckoutChallenge
	Method       *pci.Method    // for CheckoutMethod
	ReturnURL    string         // signed; set from the first decision on
	ReturnOrigin string         // scheme://host[:port] of the shop, always set: browsers follow a form's redirect to announced origins only
	ExpiresAt    time.Time
}

// TokenStatus is whether a token can be used.
type TokenStatus string

// The statuses of a token.
const (
	TokenActive   TokenStatus = "active"
	TokenInactive TokenStatus = "inactive" // deactivated; tokenizing its card again makes it active
	TokenReplaced TokenStatus = "replaced" // its card has another token; it works until the domain has acknowledged and the window is over
)

// Token is one issued token.
type Token struct {
	Token      pci.Token       `json:"token"`
	Domain     string          `json:"domain"`
	Format     pci.TokenFormat `json:"format"`
	Status     TokenStatus     `json:"status"`
	ReplacedBy pci.Token       `json:"replaced_by,omitempty"`
	Card       Card            `json:"card"`
	CreatedAt  time.Time       `json:"created_at"`
}

// TokenResult is what became of one card of a batch: a token, or an error of the contract.
type TokenResult struct {
	Token  pci.Token
	Issued bool // just now; else the card had it already
	Card   pci.Card
	Err    error
}

// TokenPage is where a page of a list of tokens begins, and its length.
type TokenPage struct {
	Cursor string
	Limit  int // 1 to 100
}

// TokenList is one page of a domain's tokens, in their own order.
type TokenList struct {
	Tokens     []Token `json:"tokens"`
	NextCursor string  `json:"next_cursor,omitempty"`
}

// ChangePage is where a page of changes begins, and its length.
type ChangePage struct {
	After *int64 // nil: after the newest acknowledged one
	Limit int    // 1 to 1000
}

// TokenChanges is one page of a domain's changes, in order, and how far it has acknowledged them.
type TokenChanges struct {
	Domain       string        `json:"domain"`
	Changes      []TokenChange `json:"changes"`
	Acknowledged int64         `json:"acknowledged"` // number of the newest acknowledged change; 0 for none
	Newest       int64         `json:"newest"`       // number of the newest change; 0 for none
}

// TokenChange tells that a token was replaced by another one of the same card.
type TokenChange struct {
	Seq int64     `json:"seq"` // rises; the numbers between belong to other domains
	Old pci.Token `json:"old"`
	New pci.Token `json:"new"`
	At  time.Time `json:"at"`
}

// Domain is a token space: the same card has unrelated tokens in two of them.
type Domain struct {
	ID      string          `json:"id"`
	Format  pci.TokenFormat `json:"format"`
	Lengths []DomainLength  `json:"lengths"`
}

// DomainLength says how PANs of one length are served in a domain.
type DomainLength struct {
	Digits  int             `json:"digits"`
	Format  pci.TokenFormat `json:"format,omitempty"`  // empty where they are refused
	Refused string          `json:"refused,omitempty"` // why
}

// DetokenizeReason is why a card is asked for.
type DetokenizeReason string

// DetokenizeReasons are all there are.
var DetokenizeReasons = []DetokenizeReason{"chargeback", "fraud", "legal", "migration", "processor", "test"}

// SealedCard is a card that only its recipient can open: HPKE (RFC 9180) in the suite of [IntakeKey], under the info
// "finpay detokenized v1", domain and API key id, each after a NUL. The plaintext is {"number": "…", "expiry": "YYYY-MM"}.
type SealedCard struct {
	Token  pci.Token `json:"token"`
	Domain string    `json:"domain"`
	Key    string    `json:"key"` // base64url of the first 8 bytes of the SHA-256 of the recipient's public key
	Enc    string    `json:"enc"` // base64url, as is ct
	CT     string    `json:"ct"`
}

// IntakeKey is the public half of the key that cards are sealed to, with what the signed log says of it.
type IntakeKey struct {
	Key        string         `json:"key"` // its name, sent back with each sealed card
	KEM        string         `json:"kem"`
	KDF        string         `json:"kdf"`
	AEAD       string         `json:"aead"`
	PublicKey  string         `json:"public_key"`  // base64url of the uncompressed point
	CheckValue string         `json:"check_value"` // first 8 bytes of the SHA-256 of the public key (SubjectPublicKeyInfo), in hex, as in the entry
	CreatedAt  time.Time      `json:"created_at"`
	ReplacedAt *time.Time     `json:"replaced_at,omitempty"` // when another key takes its place; absent where no time is set
	ExpiresAt  *time.Time     `json:"expires_at,omitempty"`  // when what is sealed to it does not open any more
	Receipt    []ReceiptEntry `json:"receipt"`               // the key's entries: its birth says its check value
}
