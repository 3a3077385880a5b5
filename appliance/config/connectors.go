package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
)

// The types of connectors.
const (
	ISO8583Connector = "iso8583"
	StripeConnector  = "stripe"
)

// Connector is one way to sell, and when it is used.
type Connector struct {
	Name       string   `yaml:"name"`
	Type       string   `yaml:"type"`
	Sandbox    bool     `yaml:"sandbox"`
	Brands     []string `yaml:"brands"`
	Currencies []string `yaml:"currencies"`
	MinAmount  Amount   `yaml:"min_amount"`
	MaxAmount  Amount   `yaml:"max_amount"`
	Merchants  []string `yaml:"merchants"`

	// The block of its type; the others are nil.
	ISO8583 *ISO8583 `yaml:"iso8583"`
	Stripe  *Stripe  `yaml:"stripe"`
}

// Amount is a sum in the currency's minor unit; zero for none.
type Amount struct {
	Minor    int64  `yaml:"minor"`
	Currency string `yaml:"currency"`
}

// ISO8583 is a line to an acquirer.
type ISO8583 struct {
	Address       string        `yaml:"address"`
	TLS           bool          `yaml:"tls"`
	CA            string        `yaml:"ca"`
	Spec          string        `yaml:"spec"`
	Header        string        `yaml:"header"`
	AcquirerID    string        `yaml:"acquirer_id"`
	SignOn        bool          `yaml:"sign_on"`
	MatchTerminal bool          `yaml:"match_terminal"`
	AnswerTimeout time.Duration `yaml:"answer_timeout"`
	EchoInterval  time.Duration `yaml:"echo_interval"`
	// EntryMode and StoredEntryMode are DE 22 of a card that was entered and of a stored one; empty for the spec's usual ones.
	EntryMode       string     `yaml:"entry_mode"`
	StoredEntryMode string     `yaml:"stored_entry_mode"`
	SoftDeclines    []string   `yaml:"soft_declines"` // DE 39 of an issuer that wants a challenge; nil for [DefaultSoftDeclines]
	Additional      Additional `yaml:"additional"`
	// SettleAt is the time of day in UTC, as 03:00, at which books are compared; empty for on demand, and when the acquirer has
	// closed its day.
	SettleAt string `yaml:"settle_at"`
}

// SettlementTime is the time after midnight, UTC, at which books are compared; negative for no time of their own.
func (i *ISO8583) SettlementTime() time.Duration {
	at, err := time.Parse("15:04", i.SettleAt)
	if err != nil {
		return -1
	}
	return time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute
}

// DefaultSoftDeclines are Visa's 1A and Mastercard's 65. The edition of 1993 has no action codes of its own for them; 123, which
// means what 65 did before, is told as 65.
var DefaultSoftDeclines = []string{"1A", "65"}

// Additional says where a sale carries what has no data element of its own.
type Additional struct {
	Field     int    `yaml:"field"`
	ECI       string `yaml:"eci"`
	CAVV      string `yaml:"cavv"`
	CVV       string `yaml:"cvv"`
	Initiator string `yaml:"initiator"`
	Customer  string `yaml:"customer"`
	Merchant  string `yaml:"merchant"`
	NetworkID string `yaml:"network_id"`
	Earlier   string `yaml:"earlier"`
	Exemption string `yaml:"exemption"`
	// Exemptions are the values that say why there was no authentication.
	Exemptions map[string]string `yaml:"exemptions"`
	Record     string            `yaml:"record"`
}

// Stripe is an account at Stripe.
type Stripe struct {
	URL           string        `yaml:"url"`
	KeyFile       string        `yaml:"key_file"`
	CA            string        `yaml:"ca"`
	AnswerTimeout time.Duration `yaml:"answer_timeout"`
}

// connectorName is what stands in the log, in attempts and in metrics.
var connectorName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)

// brands are those that can be a condition.
var brands = []string{string(pci.Visa), string(pci.Mastercard), string(pci.Amex), string(pci.Discover), string(pci.Diners), string(pci.JCB),
	string(pci.UnionPay), string(pci.Maestro), string(pci.Other)}

func (c *Connector) resolve(state string) {
	var paths []*string
	if c.ISO8583 != nil {
		paths = append(paths, &c.ISO8583.CA)
	}
	if c.Stripe != nil {
		paths = append(paths, &c.Stripe.KeyFile, &c.Stripe.CA)
	}
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(state, *path)
		}
	}
}

func validateConnectors(connectors []Connector) (wrong []error) {
	if len(connectors) == 0 {
		return []error{fmt.Errorf("connectors: at least one is wanted")}
	}
	seen := make(map[string]bool)
	for i, c := range connectors {
		at := fmt.Sprintf("connectors[%d]", i)
		if c.Name != "" {
			at = fmt.Sprintf("connectors[%d] (%s)", i, c.Name)
		}
		if seen[c.Name] {
			wrong = append(wrong, fmt.Errorf("%s.name: another connector has it", at))
		}
		seen[c.Name] = true
		for _, what := range c.validate() {
			wrong = append(wrong, fmt.Errorf("%s.%s", at, what))
		}
	}
	return wrong
}

// validate says what is wrong with one connector, in a setting's name and a sentence each.
func (c *Connector) validate() (wrong []string) {
	want := func(ok bool, what string) {
		if !ok {
			wrong = append(wrong, what)
		}
	}
	want(connectorName.MatchString(c.Name), "name: 1 to 40 lower case letters, digits and dashes are wanted, a letter first")
	for _, brand := range c.Brands {
		want(slices.Contains(brands, brand), fmt.Sprintf("brands: %q is not one of %s", brand, strings.Join(brands, ", ")))
	}
	for _, currency := range c.Currencies {
		_, err := pci.ParseCurrency(currency)
		want(err == nil, fmt.Sprintf("currencies: %v", err))
	}
	for _, merchant := range c.Merchants {
		want(strings.HasPrefix(merchant, "mer_"), fmt.Sprintf("merchants: %q is no merchant's id (mer_…)", merchant))
	}
	wrong = append(wrong, c.validateAmounts()...)
	want((c.ISO8583 != nil) == (c.Type == ISO8583Connector) && (c.Stripe != nil) == (c.Type == StripeConnector),
		fmt.Sprintf("%s: the block of this type, and of no other, is wanted", c.Type))
	switch {
	case c.Type == ISO8583Connector && c.ISO8583 != nil:
		_, port, err := net.SplitHostPort(c.ISO8583.Address)
		want(err == nil && port != "", fmt.Sprintf("iso8583.address: %q is not host:port", c.ISO8583.Address))
		want(c.ISO8583.SettleAt == "" || c.ISO8583.SettlementTime() >= 0, "iso8583.settle_at: a time of day such as 03:00, or nothing, is wanted")
		for _, code := range c.ISO8583.SoftDeclines {
			want(declineCode.MatchString(code), fmt.Sprintf("iso8583.soft_declines: %q is neither a response code of two characters nor an action code of three digits", code))
		}
		want(c.ISO8583.AnswerTimeout > 0, "iso8583.answer_timeout: more than 0 is wanted")
	case c.Type == StripeConnector && c.Stripe != nil:
		u, err := url.Parse(c.Stripe.URL)
		want(err == nil && u.Scheme == "https" && u.Host != "" && u.Path == "" && u.User == nil && u.RawQuery == "" && u.Fragment == "",
			"stripe.url: an https URL of a host alone is wanted")
		want(c.Stripe.KeyFile != "", "stripe.key_file: missing")
		want(c.Stripe.AnswerTimeout >= time.Second && c.Stripe.AnswerTimeout <= 20*time.Second, "stripe.answer_timeout: 1s to 20s are allowed: a shopper waits for up to two of them")
	case c.Type != ISO8583Connector && c.Type != StripeConnector:
		wrong = append(wrong, fmt.Sprintf("type: %q is not one of %s, %s", c.Type, ISO8583Connector, StripeConnector))
	}
	return wrong
}

func (c *Connector) validateAmounts() (wrong []string) {
	for _, a := range []struct {
		setting string
		amount  Amount
	}{{"min_amount", c.MinAmount}, {"max_amount", c.MaxAmount}} {
		if a.amount == (Amount{}) {
			continue
		}
		if _, err := pci.ParseCurrency(a.amount.Currency); err != nil || a.amount.Minor <= 0 {
			wrong = append(wrong, a.setting+": minor units of more than 0, and their currency, are wanted")
		} else if len(c.Currencies) > 0 && !slices.Contains(c.Currencies, a.amount.Currency) {
			wrong = append(wrong, a.setting+": its currency is not among currencies")
		}
	}
	if c.MinAmount != (Amount{}) && c.MaxAmount != (Amount{}) && (c.MinAmount.Currency != c.MaxAmount.Currency || c.MinAmount.Minor > c.MaxAmount.Minor) {
		wrong = append(wrong, "max_amount: the currency of min_amount, and at least as much, are wanted")
	}
	return wrong
}

// SimulatedAcquirer returns the ISO 8583 line whose dialect the simulated acquirer speaks: the one to its address, or else the
// first; nil where there is none.
func (c *Config) SimulatedAcquirer() *ISO8583 {
	var first *ISO8583
	for _, connector := range c.Connectors {
		switch line := connector.ISO8583; {
		case line == nil:
		case line.Address == c.Simulator.Acquirer:
			return line
		case first == nil:
			first = line
		}
	}
	return first
}
