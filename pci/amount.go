package pci

import (
	"fmt"

	"github.com/bojanz/currency"
)

// Amount is a sum of money in the currency's minor unit (cents for EUR, yen for JPY).
type Amount struct {
	Minor    int64
	Currency Currency
}

// Currency is an ISO 4217 alphabetic code.
type Currency string

// ParseCurrency accepts the upper-case alphabetic codes in use.
func ParseCurrency(s string) (Currency, error) {
	if len(s) != 3 || !currency.IsValid(s) { // the library takes the empty code for one
		return "", fmt.Errorf("%q is not an ISO 4217 currency code", s)
	}
	return Currency(s), nil
}

// Numeric returns the three-digit ISO 4217 code (ISO 8583 DE 49, EMV 3DS purchaseCurrency).
func (c Currency) Numeric() string {
	n, _ := currency.GetNumericCode(string(c))
	return n
}

// Exponent returns the number of digits of the minor unit: 2 for EUR, 0 for JPY, 3 for BHD.
func (c Currency) Exponent() int {
	d, _ := currency.GetDigits(string(c))
	return int(d)
}

// Format returns the amount for people, in the manner of a locale such as "en" or "ar".
func (a Amount) Format(locale string) string {
	amount, err := currency.NewAmountFromInt64(a.Minor, string(a.Currency))
	if err != nil {
		return fmt.Sprintf("%d %s", a.Minor, a.Currency)
	}
	return currency.NewFormatter(currency.NewLocale(locale)).Format(amount)
}
