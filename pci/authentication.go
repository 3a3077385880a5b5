package pci

import "time"

// AuthenticationRequest asks for EMV 3-D Secure before an authorization. The card is named by reference: only
// pci reads its digits. It is taken from custody or, with the expiry that is registered, from its token; one of
// Card and Token is set.
type AuthenticationRequest struct {
	Payment         string  // binds Card; also the key by which a result finds its payment
	Card            CardRef // zero with a stored credential
	Domain          string  // of Token
	Token           Token   // a stored credential
	Brand           Brand
	Amount          Amount
	Merchant        Merchant
	Cardholder      Cardholder
	Browser         Browser
	NotificationURL string // where the ACS sends the shopper back (notificationURL)

	Method     *Method // that the browser was shown, nil for none
	MethodDone bool    // the ACS says that it has run

	Preference Preference
	Exemption  Exemption // an issuer may go without a challenge for it; only where none is preferred
	Agreement  Agreement
}

// Preference is what the merchant says of a challenge (threeDSRequestorChallengeInd). The zero value is none.
type Preference string

// The preferences.
const (
	NoChallenge        Preference = "no_challenge"
	ChallengePreferred Preference = "preferred"
	ChallengeMandated  Preference = "mandated" // by law or by the issuer
)

// Exemption is why no strong customer authentication is asked for (Commission Delegated Regulation (EU) 2018/389, chapter III).
// Who claims one bears the fraud.
type Exemption string

// The exemptions that EMV 3DS has a value for.
const (
	LowValue                Exemption = "low_value"
	TransactionRiskAnalysis Exemption = "transaction_risk_analysis"
	TrustedBeneficiary      Exemption = "trusted_beneficiary"
	Delegated               Exemption = "delegated_authentication" // the shop has authenticated its customer on the issuer's behalf
	SecureCorporate         Exemption = "secure_corporate"
)

// Exempt reports whether the request asks that there be no challenge.
func (r *AuthenticationRequest) Exempt() bool {
	return r.Exemption != "" || r.Preference == NoChallenge
}

// Setup says what further payments the cardholder agrees to with this one. The zero value is none.
type Setup string

// The kinds of agreements.
const (
	Recurring   Setup = "recurring"   // the same or another amount, in turn
	Instalments Setup = "instalments" // one purchase, paid in parts
	Unscheduled Setup = "unscheduled" // whenever something is due
)

// Agreement is what the cardholder agrees to. Fields that the setup does not use are zero.
type Agreement struct {
	Setup       Setup
	Expiry      time.Time // after which nothing is charged any more; its date counts (recurringExpiry)
	Days        int       // at least so many between two charges (recurringFrequency)
	Instalments int       // at least 2 (purchaseInstalData)
}

// Method is the 3DS Method of a card's range: what the browser posts, in a hidden frame, before the authentication is asked
// for. The issuer's ACS runs a script there, and says so at the notification URL.
type Method struct {
	URL           string // threeDSMethodURL
	Data          string // threeDSMethodData: base64url without padding
	ServerTransID string // threeDSServerTransID, of the authentication too
}

// Cardholder is what 3-D Secure wants to know of the person; empty fields are left out of messages.
type Cardholder struct {
	Name    string // as on the card
	Email   string
	Phone   Phone
	Billing Address
}

// Address is a postal address in the parts of EMV 3DS (billAddr…).
type Address struct {
	Lines      [3]string
	City       string
	State      string // ISO 3166-2 without the country
	PostalCode string
	Country    string // ISO 3166-1 numeric, 3 digits
}

// Phone is a telephone number in the two parts of EMV 3DS (cc and subscriber, digits only).
type Phone struct{ CountryCode, Subscriber string }

// Browser is the shopper's browser as EMV 3DS wants it (browserInformation). The fields below JavaScript are
// meaningful only when a script could read them.
type Browser struct {
	AcceptHeader   string
	AcceptLanguage string // the header of that name
	IP             string
	UserAgent      string
	Language       string // BCP 47
	JavaScript     bool
	JavaEnabled    bool
	ColorDepth     string
	ScreenHeight   string
	ScreenWidth    string
	TZ             string // offset in minutes, as getTimezoneOffset gives it
}

// AuthenticationOutcome says what may follow.
type AuthenticationOutcome string

// Outcomes of 3-D Secure, by transStatus.
const (
	Authenticated       AuthenticationOutcome = "authenticated" // Y
	AuthenticationTried AuthenticationOutcome = "attempted"     // A: not verified, but proof of the attempt
	NotChallenged       AuthenticationOutcome = "exempt"        // I, as it was asked for: no proof, and no shift of liability
	ChallengeRequired   AuthenticationOutcome = "challenge"     // C
	AuthenticationNo    AuthenticationOutcome = "refused"       // N, R and anything not understood or not asked for
	AuthenticationDown  AuthenticationOutcome = "unavailable"   // U, or the directory server gave no usable answer
	NotEnrolled         AuthenticationOutcome = "not_enrolled"  // the card is in no range of the directory server
)

// Authentication is the outcome of an AReq/ARes exchange or of a challenge.
type Authentication struct {
	Outcome       AuthenticationOutcome
	TransStatus   string // one letter, empty when there was no ARes
	Reason        string // transStatusReason, two digits
	Version       string // messageVersion, "2.2.0" or "2.3.1"
	ECI           string // two digits
	CAVV          string // authenticationValue, base64 of 20 bytes
	ServerTransID string // threeDSServerTransID
	DSTransID     string
	ACSTransID    string
	Challenge     *Challenge // set when Outcome is ChallengeRequired
}

// Challenge is what the shopper's browser needs to reach the issuer: an HTML form post of CReq to ACSURL.
type Challenge struct {
	ACSURL string
	CReq   string // base64url without padding
}
