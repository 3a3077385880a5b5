package payment

import (
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/text/language"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

// wishesOf is what a merchant asks of 3-D Secure for a payment.
func wishesOf(request api.CreatePayment) store.Wishes {
	w := store.Wishes{Setup: request.Setup}
	if a := request.Authentication; a != nil {
		w.Challenge, w.Exemption = a.Challenge, a.Exemption
	}
	if r := request.Recurring; r != nil {
		w.RecurringExpiry, w.RecurringDays, w.Instalments = r.Expiry, r.FrequencyDays, r.Instalments
	}
	return w
}

// shownWishes is what its merchant sees of them.
func shownWishes(w store.Wishes) (a *api.Authentication, setup pci.Setup, r *api.Agreement) {
	if w.Challenge != "" || w.Exemption != "" {
		a = &api.Authentication{Challenge: w.Challenge, Exemption: w.Exemption}
	}
	if w.RecurringExpiry != "" {
		r = &api.Agreement{Expiry: w.RecurringExpiry, FrequencyDays: w.RecurringDays, Instalments: w.Instalments}
	}
	return a, w.Setup, r
}

// tellWishes puts them into the data of an entry.
func tellWishes(data map[string]any, w store.Wishes) {
	for name, value := range map[string]string{"challenge": string(w.Challenge), "exemption": string(w.Exemption), "setup": string(w.Setup),
		"recurring_expiry": w.RecurringExpiry} {
		if value != "" {
			data[name] = value
		}
	}
	for name, value := range map[string]int{"recurring_days": w.RecurringDays, "instalments": w.Instalments} {
		if value != 0 {
			data[name] = value
		}
	}
}

// customerOf is what is kept of a person; its address is JSON.
func customerOf(c *api.Customer) (store.Customer, error) {
	if c == nil {
		return store.Customer{}, nil
	}
	kept := store.Customer{Name: c.Name, Email: c.Email, Phone: c.Phone}
	if c.Billing != nil {
		text, err := json.Marshal(c.Billing)
		if err != nil {
			return kept, fmt.Errorf("billing address: %w", err)
		}
		kept.Billing = string(text)
	}
	return kept, nil
}

// authenticationRequest is what 3-D Secure is asked with, but for the card. page is the address of the shopper's page.
func authenticationRequest(p store.Payment, a store.Attempt, m store.Merchant, customer store.Customer, entered pci.Entered, browser pci.Browser, page string) pci.AuthenticationRequest {
	r := pci.AuthenticationRequest{Payment: p.ID, Brand: a.Card.Brand, Amount: p.Amount, Merchant: m.Profile, Browser: browser, NotificationURL: page + "/3ds",
		Cardholder: pci.Cardholder{Name: entered.Name, Email: customer.Email, Phone: parsePhone(customer.Phone), Billing: billing(customer.Billing)},
		Preference: p.Wishes.Challenge, Exemption: p.Wishes.Exemption,
		Agreement: pci.Agreement{Setup: p.Wishes.Setup, Days: p.Wishes.RecurringDays, Instalments: p.Wishes.Instalments}}
	if r.Cardholder.Name == "" {
		r.Cardholder.Name = customer.Name
	}
	if end, err := time.Parse(time.DateOnly, p.Wishes.RecurringExpiry); err == nil {
		r.Agreement.Expiry = end
	}
	return r
}

// billing reads what [customerOf] has written. What cannot be read is not sent: a payment needs no address.
func billing(text string) (b pci.Address) {
	var a api.Address
	if text == "" || json.Unmarshal([]byte(text), &a) != nil {
		return b
	}
	b = pci.Address{Lines: [3]string{a.Line1, a.Line2, a.Line3}, City: a.City, State: a.State, PostalCode: a.PostalCode}
	if region, err := language.ParseRegion(a.Country); err == nil {
		b.Country = fmt.Sprintf("%03d", region.M49()) // UN M.49 numbers countries as ISO 3166-1 does
	}
	return b
}
