package stripe

// Response codes (ISO 8583:1987, annex A, DE 39; 1A, N7 and R0 as the card schemes have added them).
const (
	doNotHonour = "05"
	softDecline = "1A" // additional customer authentication required
)

// declines are Stripe's decline codes and the error codes that card errors have without one, each with the response code that
// says the same (https://docs.stripe.com/declines/codes, https://docs.stripe.com/error-codes).
var declines = map[string]string{
	"approve_with_id":                   "01", // refer to card issuer
	"call_issuer":                       "01",
	"authentication_required":           softDecline,
	"authentication_not_handled":        softDecline,
	"card_not_supported":                "57", // transaction not permitted to cardholder
	"card_velocity_exceeded":            "65", // exceeds withdrawal frequency limit
	"currency_not_supported":            "57",
	"do_not_honor":                      doNotHonour,
	"do_not_try_again":                  doNotHonour,
	"duplicate_transaction":             "94", // duplicate transmission
	"expired_card":                      "54",
	"fraudulent":                        "59", // suspected fraud
	"generic_decline":                   doNotHonour,
	"incorrect_address":                 doNotHonour,
	"incorrect_cvc":                     "N7", // CVV2 failure
	"incorrect_number":                  "14", // invalid card number
	"incorrect_pin":                     "55",
	"incorrect_zip":                     doNotHonour,
	"insufficient_funds":                "51",
	"invalid_account":                   "14",
	"invalid_amount":                    "13",
	"invalid_cvc":                       "N7",
	"invalid_expiry_month":              "54",
	"invalid_expiry_year":               "54",
	"invalid_number":                    "14",
	"invalid_pin":                       "55",
	"issuer_not_available":              "91",
	"lost_card":                         "41",
	"merchant_blacklist":                "59",
	"new_account_information_available": "14",
	"no_action_taken":                   doNotHonour,
	"not_permitted":                     "57",
	"offline_pin_required":              "55",
	"online_or_offline_pin_required":    "55",
	"pickup_card":                       "04",
	"pin_try_exceeded":                  "75",
	"processing_error":                  "96",
	"reenter_transaction":               "19",
	"restricted_card":                   "62",
	"revocation_of_all_authorizations":  "R1",
	"revocation_of_authorization":       "R0",
	"security_violation":                "63",
	"service_not_allowed":               "57",
	"stolen_card":                       "43",
	"stop_payment_order":                "R0",
	"testmode_decline":                  doNotHonour,
	"transaction_not_allowed":           "57",
	"try_again_later":                   doNotHonour,
	"withdrawal_count_limit_exceeded":   "65",
}

// responseCode returns the response code of a card error. The decline code says more, where there is one.
func responseCode(code, declineCode string) string {
	for _, c := range []string{declineCode, code} {
		if response, ok := declines[c]; ok {
			return response
		}
	}
	return doNotHonour
}
