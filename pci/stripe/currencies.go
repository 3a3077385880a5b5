package stripe

import "github.com/finterra/finpay/pci"

// currencies are those that Stripe charges cards in (https://docs.stripe.com/currencies) and counts as ISO 4217 does. Left out
// are those whose minor unit is another one there: of three digits of which the last must be 0 (BHD, JOD, KWD, OMR, TND), of two
// digits where ISO has none (ISK, UGX), and of none where ISO has two (MGA). An amount in one of them would be a hundred times
// what was meant.
var currencies = []pci.Currency{
	"AED", "AMD", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BIF", "BMD", "BND", "BOB", "BRL", "BSD", "BWP", "BYN", "BZD", "CAD",
	"CDF", "CHF", "CLP", "CNY", "COP", "CRC", "CVE", "CZK", "DJF", "DKK", "DOP", "DZD", "EGP", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL",
	"GIP", "GMD", "GNF", "GTQ", "GYD", "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "JMD", "JPY", "KES", "KGS", "KHR", "KMF", "KRW",
	"KYD", "KZT", "LBP", "LKR", "LRD", "LSL", "MAD", "MDL", "MKD", "MNT", "MOP", "MUR", "MVR", "MWK", "MXN", "MYR", "MZN", "NAD", "NGN",
	"NIO", "NOK", "NPR", "NZD", "PAB", "PEN", "PGK", "PHP", "PKR", "PLN", "PYG", "QAR", "RON", "RWF", "SAR", "SBD", "SCR", "SEK", "SGD",
	"SHP", "SRD", "SZL", "THB", "TJS", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "USD", "UYU", "UZS", "VND", "VUV", "WST", "XAF", "XCD",
	"XOF", "XPF", "ZAR", "ZMW",
}
