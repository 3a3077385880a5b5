package api

import (
	"regexp"
	"time"

	"github.com/finterra/finpay/pci"
)

// Authentication is what a merchant asks of 3-D Secure for a payment. An issuer decides for itself.
type Authentication struct {
	Challenge pci.Preference `json:"challenge,omitempty"` // empty for no preference
	Exemption pci.Exemption  `json:"exemption,omitempty"`
}

// noPreference is an empty [Authentication.Challenge] in a request.
const noPreference pci.Preference = "no_preference"

// Agreement is what a shopper agrees to with a payment that sets further ones up.
type Agreement struct {
	Expiry        string `json:"expiry,omitempty"`         // YYYY-MM-DD: the last day on which something is charged
	FrequencyDays int    `json:"frequency_days,omitempty"` // at least so many days between two charges
	Instalments   int    `json:"instalments,omitempty"`
}

// The limits of an agreement (EMV 3DS recurringFrequency and purchaseInstalData).
const (
	MaxFrequencyDays = 9999
	MaxInstalments   = 999
)

// normalizeAuthentication checks what is asked of 3-D Secure. Where nothing is, nothing is kept.
func (c CreatePayment) normalizeAuthentication() (CreatePayment, error) {
	if c.Authentication != nil {
		asked := *c.Authentication
		if asked.Challenge == noPreference {
			asked.Challenge = ""
		}
		if err := asked.check(); err != nil {
			return c, err
		}
		if c.Authentication = &asked; asked == (Authentication{}) {
			c.Authentication = nil
		}
	}
	switch c.Setup {
	case "", pci.Unscheduled:
		if c.Recurring != nil {
			return c, ErrInvalid.At("/recurring").With(`Leave it out, or send "recurring" or "instalments" as setup.`)
		}
		return c, nil
	case pci.Recurring, pci.Instalments:
		if c.Recurring == nil {
			return c, ErrInvalid.At("/recurring").With("Say how often and until when the card is charged.")
		}
		return c, c.Recurring.check(c.Setup)
	}
	return c, ErrInvalid.At("/setup").With(`Leave the field out, or send "recurring", "instalments" or "unscheduled".`)
}

func (a Authentication) check() error {
	switch a.Challenge {
	case "", pci.NoChallenge, pci.ChallengePreferred, pci.ChallengeMandated:
	default:
		return ErrInvalid.At("/authentication/challenge").With(`Send "no_preference", "no_challenge", "preferred" or "mandated".`)
	}
	switch a.Exemption {
	case "":
		return nil
	case pci.LowValue, pci.TransactionRiskAnalysis, pci.TrustedBeneficiary, pci.Delegated, pci.SecureCorporate:
	default:
		return ErrInvalid.At("/authentication/exemption").With("Send one of those that the contract lists, or leave the field out.")
	}
	if a.Challenge == pci.ChallengePreferred || a.Challenge == pci.ChallengeMandated {
		return ErrInvalid.At("/authentication/exemption").With("Ask for a challenge or claim an exemption from it, not both.")
	}
	return nil
}

func (a *Agreement) check(setup pci.Setup) error {
	if _, err := time.Parse(time.DateOnly, a.Expiry); err != nil {
		return ErrInvalid.At("/recurring/expiry").With("Send a date such as 2031-12-31.")
	}
	if a.FrequencyDays < 1 || a.FrequencyDays > MaxFrequencyDays {
		return ErrInvalid.At("/recurring/frequency_days").With("Send 1 to %d.", MaxFrequencyDays)
	}
	switch {
	case setup == pci.Recurring && a.Instalments != 0:
		return ErrInvalid.At("/recurring/instalments").With(`Leave it out, or send "instalments" as setup.`)
	case setup == pci.Instalments && (a.Instalments < 2 || a.Instalments > MaxInstalments):
		return ErrInvalid.At("/recurring/instalments").With("Send 2 to %d.", MaxInstalments)
	}
	return nil
}

var (
	countryPattern     = regexp.MustCompile(`^[A-Z]{2}$`)
	subdivisionPattern = regexp.MustCompile(`^[A-Z0-9]{1,3}$`)
)

func (a *Address) check(pointer string) error {
	for _, part := range []struct {
		name, value string
		most        int
	}{
		{"line1", a.Line1, MaxAddressLine}, {"line2", a.Line2, MaxAddressLine}, {"line3", a.Line3, MaxAddressLine},
		{"city", a.City, MaxAddressLine}, {"postal_code", a.PostalCode, MaxPostalCode},
	} {
		if err := checkText(pointer+"/"+part.name, part.value, 0, part.most); err != nil {
			return err
		}
	}
	if a.Country != "" && !countryPattern.MatchString(a.Country) {
		return ErrInvalid.At(pointer + "/country").With("Send two capital letters (ISO 3166-1), such as MY.")
	}
	if a.State != "" && (!subdivisionPattern.MatchString(a.State) || a.Country == "") {
		return ErrInvalid.At(pointer + "/state").With("Send the part after the country of a code of ISO 3166-2, such as 10 for MY-10, and the country with it.")
	}
	return nil
}
