package threeds

import (
	"strconv"
	"strings"
	"time"

	"github.com/finterra/finpay/pci"
)

// Values of threeDSRequestorAuthenticationInd (table A.1).
const (
	singlePayment     = "01"
	recurringPayment  = "02"
	instalmentPayment = "03"
	billingAgreement  = "07" // since 2.3.1
)

// dateLayout is that of dates in messages.
const dateLayout = "20060102"

// agree puts an agreement into the elements that all versions have.
func (a *areq) agree(agreed pci.Agreement) {
	a.ThreeDSRequestorAuthenticationInd = singlePayment
	switch agreed.Setup {
	case pci.Recurring:
		a.ThreeDSRequestorAuthenticationInd = recurringPayment
	case pci.Instalments:
		a.ThreeDSRequestorAuthenticationInd = instalmentPayment
		if agreed.Instalments > 1 && agreed.Instalments < 1000 {
			a.PurchaseInstalData = strconv.Itoa(agreed.Instalments)
		}
	default:
		return
	}
	if !agreed.Expiry.IsZero() {
		a.RecurringExpiry = agreed.Expiry.UTC().Format(dateLayout)
	}
	if agreed.Days > 0 && agreed.Days < 10_000 {
		a.RecurringFrequency = strconv.Itoa(agreed.Days)
	}
}

// speak sets the version and what depends on it.
func (a *areq) speak(v version, req pci.AuthenticationRequest, acquirerCountry string, now time.Time) {
	a.MessageVersion = v.String()
	wish := challengeInd(v, req)
	if v == v220 {
		if wish != "" {
			a.ThreeDSRequestorChallengeInd = wish
		}
		return
	}
	if wish != "" {
		a.ThreeDSRequestorChallengeInd = []string{wish}
	}
	a.AcceptLanguage = acceptLanguage(req.Browser)
	if acquirerCountry != "" {
		a.AcquirerCountryCode, a.AcquirerCountryCodeSource = acquirerCountry, "01" // the 3DS Server says so
	}
	switch req.Agreement.Setup {
	case pci.Unscheduled:
		a.ThreeDSRequestorAuthenticationInd = billingAgreement
	case pci.Recurring, pci.Instalments:
		// How often is known; that every amount is the same is not, so that none is sent.
		a.RecurringInd = &recurringInd{AmountInd: "02", FrequencyInd: "01"}
		a.RecurringDate = now.UTC().AddDate(0, 0, req.Agreement.Days).Format(dateLayout)
	}
}

// challengeInd is threeDSRequestorChallengeInd, empty for no preference. Version 2.2.0 has no value for two of the exemptions:
// there the issuer is only told that no challenge is wanted.
func challengeInd(v version, req pci.AuthenticationRequest) string {
	switch req.Exemption {
	case pci.TransactionRiskAnalysis:
		return "05"
	case pci.Delegated:
		return "07"
	case pci.TrustedBeneficiary:
		return "08"
	case pci.LowValue, pci.SecureCorporate:
		switch {
		case v == v220:
			return "02"
		case req.Exemption == pci.LowValue:
			return "10"
		}
		return "11"
	}
	switch req.Preference {
	case pci.NoChallenge:
		return "02"
	case pci.ChallengePreferred:
		return "03"
	case pci.ChallengeMandated:
		return "04"
	}
	return ""
}

// maxLanguages bounds acceptLanguage. The standard allows 99; browsers send a few.
const maxLanguages = 10

// acceptLanguage lists the language tags of the header of that name, in its order. A browser without the header has the one of
// browserLanguage: the element is required.
func acceptLanguage(b pci.Browser) (tags []string) {
	for part := range strings.SplitSeq(b.AcceptLanguage, ",") {
		tag, _, _ := strings.Cut(part, ";")
		if tag = strings.TrimSpace(tag); isLanguageTag(tag) {
			tags = append(tags, tag)
		}
		if len(tags) == maxLanguages {
			break
		}
	}
	if tags == nil {
		tags = []string{language(b.Language)}
	}
	return tags
}

// isLanguageTag reports whether s has the characters of a tag (RFC 5646), within 35 of them.
func isLanguageTag(s string) bool {
	if !between(s, 1, 35) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '-' {
			return false
		}
	}
	return true
}
