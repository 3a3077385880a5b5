package merchant

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/text/language"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// ErrProfile means that a merchant's profile is not acceptable; the text says why.
var ErrProfile = errors.New("merchant: the profile is not acceptable")

var (
	merchantID = regexp.MustCompile(`^mer_[a-z0-9_]{1,40}$`)
	latin      = regexp.MustCompile(`^[\x20-\x7e]*$`)
	digitsOnly = regexp.MustCompile(`^[0-9]*$`)
	hostName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
)

// CheckProfile says all that is wrong with a merchant, in the words of a profile file. It fills in the numeric code of the
// country.
func CheckProfile(m *store.Merchant) error {
	var wrong []error
	want := func(ok bool, field, what string) {
		if !ok {
			wrong = append(wrong, fmt.Errorf("%s: %s", field, what))
		}
	}
	p := &m.Profile
	p.ID = m.ID
	want(merchantID.MatchString(m.ID), "id", "mer_ and up to 40 lower case letters, digits and underscores are wanted")
	want(p.Name != "" && len(p.Name) <= 25 && latin.MatchString(p.Name), "name", "1 to 25 characters in ASCII are wanted (ISO 8583 DE 43)")
	want(p.City != "" && len(p.City) <= 13 && latin.MatchString(p.City), "city", "1 to 13 characters in ASCII are wanted (ISO 8583 DE 43)")
	want(len(p.MCC) == 4 && digitsOnly.MatchString(p.MCC), "mcc", "four digits are wanted (ISO 18245)")
	want(p.AcquirerBIN != "" && len(p.AcquirerBIN) <= 11 && digitsOnly.MatchString(p.AcquirerBIN), "acquirer bin", "up to 11 digits are wanted")
	want(p.AcquirerMID != "" && len(p.AcquirerMID) <= 15 && latin.MatchString(p.AcquirerMID), "acquirer mid", "up to 15 characters are wanted (ISO 8583 DE 42)")
	want(p.TerminalID != "" && len(p.TerminalID) <= 8 && latin.MatchString(p.TerminalID), "acquirer terminal", "up to 8 characters are wanted (ISO 8583 DE 41)")
	want(p.RequestorID != "" && len(p.RequestorID) <= 35, "requestor id", "up to 35 characters are wanted (threeDSRequestorID)")
	want(p.RequestorName != "" && len(p.RequestorName) <= 40, "requestor name", "up to 40 characters are wanted (threeDSRequestorName)")
	address, err := url.Parse(p.RequestorURL)
	want(err == nil && address.Scheme == "https" && address.Host != "" && len(p.RequestorURL) <= 2048, "requestor url", "an https URL is wanted (threeDSRequestorURL)")
	want(m.Domain != "", "domain", "a token space is wanted")
	region, err := language.ParseRegion(p.Country)
	want(err == nil && len(p.Country) == 2 && region.IsCountry() && region.String() == p.Country, "country", "two capital letters are wanted (ISO 3166-1)")
	if err == nil {
		p.CountryCode = fmt.Sprintf("%03d", region.M49())
	}
	for _, hosts := range []struct {
		field string
		names []string
	}{{"return_hosts", m.ReturnHosts}, {"webhook_hosts", m.WebhookHosts}} {
		for _, name := range hosts.names {
			want(hostName.MatchString(name), hosts.field, fmt.Sprintf("%q is no host name in lower case, without a port", name))
		}
	}
	for currency, most := range m.Limits {
		_, err := pci.ParseCurrency(string(currency))
		want(err == nil && most > 0 && most <= 999_999_999_999, "limits", fmt.Sprintf("%s: %d is no largest amount in minor units of a currency (ISO 4217)", currency, most))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w: %w", ErrProfile, errors.Join(wrong...))
	}
	return nil
}

// Enter creates a merchant, or changes the one of its id; [CheckProfile] is its caller's. Whether it is of the sandbox never changes: what was paid would be
// counted as money, or not any more.
func (s *Service) Enter(ctx context.Context, by ledger.Operator, m store.Merchant) (created bool, err error) {
	_, err = s.cfg.Ledger.Commit(ctx, func(tx *ledger.Tx) error {
		kind := "merchant.changed"
		before, err := tx.Merchant(m.ID)
		switch {
		case errors.Is(err, store.ErrNotFound):
			kind, created = "merchant.created", true
			m.CreatedAt = s.cfg.Now()
		case err != nil:
			return err
		case before.Profile.Sandbox != m.Profile.Sandbox:
			return fmt.Errorf("%w: %s is %s, and stays so: make another merchant", ErrProfile, m.ID, ModeOf(before))
		case before.Domain != m.Domain:
			return fmt.Errorf("%w: %s has its tokens in the domain %q, and keeps them there", ErrProfile, m.ID, before.Domain)
		default:
			created, m.CreatedAt = false, before.CreatedAt
		}
		if err := s.terminalIsFree(tx.Queries, m); err != nil {
			return err
		}
		if err := tx.PutMerchant(m); err != nil {
			return err
		}
		tx.Record(by.Entry(kind, m.ID, described(m)))
		return nil
	})
	return created, err
}

// terminalIsFree refuses a terminal that a merchant of another acquirer has: trace numbers are unique per terminal.
func (s *Service) terminalIsFree(read store.Queries, m store.Merchant) error {
	ids, err := read.MerchantIDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		other, err := read.Merchant(id)
		if err != nil {
			return err
		}
		if id != m.ID && m.Profile.TerminalID != "" && other.Profile.TerminalID == m.Profile.TerminalID && other.Profile.Sandbox != m.Profile.Sandbox {
			return fmt.Errorf("%w: acquirer terminal: %s has it, which is %s", ErrProfile, id, ModeOf(other))
		}
	}
	return nil
}

// ModeOf returns the mode that the keys of a merchant have.
func ModeOf(m store.Merchant) Mode {
	if m.Profile.Sandbox {
		return Test
	}
	return Live
}

// described is what an entry says of a merchant.
func described(m store.Merchant) map[string]any {
	p := m.Profile
	data := map[string]any{"name": p.Name, "city": p.City, "country": p.Country, "mcc": p.MCC, "mode": string(ModeOf(m)), "domain": m.Domain,
		"acquirer_bin": p.AcquirerBIN, "acquirer_mid": p.AcquirerMID, "terminal": p.TerminalID, "requestor_id": p.RequestorID,
		"requestor_name": p.RequestorName, "requestor_url": p.RequestorURL}
	if len(m.ReturnHosts) > 0 {
		data["return_hosts"] = strings.Join(m.ReturnHosts, " ")
	}
	if len(m.WebhookHosts) > 0 {
		data["webhook_hosts"] = strings.Join(m.WebhookHosts, " ")
	}
	for currency, most := range m.Limits {
		data["limit_"+strings.ToLower(string(currency))] = most
	}
	return data
}
