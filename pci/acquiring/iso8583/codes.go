package iso8583

// actions says which response code (ISO 8583:1987, annex A, DE 39) has the meaning of an action code (ISO 8583:1993,
// annex A, DE 39). Of several actions with one response code, the first is what [ActionCode] makes of it.
var actions = []struct{ action, response string }{
	{"000", "00"}, // approved
	{"001", "08"}, // honour with identification
	{"002", "10"}, // approved for a partial amount
	{"003", "11"}, // approved, VIP
	{"004", "16"}, // approved, update track 3
	{"005", "11"}, // approved, account type chosen by the issuer
	{"006", "10"}, // approved for a partial amount, account type chosen by the issuer
	{"007", "16"}, // approved, update the chip
	{"100", "05"}, // do not honour
	{"101", "54"}, // expired card
	{"102", "59"}, // suspected fraud
	{"103", "60"}, // card acceptor contact acquirer
	{"104", "62"}, // restricted card
	{"105", "66"}, // card acceptor call acquirer's security department
	{"106", "75"}, // allowable number of PIN tries exceeded
	{"107", "01"}, // refer to card issuer
	{"108", "02"}, // refer to card issuer's special conditions
	{"109", "03"}, // invalid merchant
	{"110", "13"}, // invalid amount
	{"111", "14"}, // invalid card number
	{"113", "23"}, // unacceptable fee
	{"114", "39"}, // no account of the type requested
	{"115", "40"}, // requested function not supported
	{"116", "51"}, // not sufficient funds
	{"117", "55"}, // incorrect PIN
	{"118", "56"}, // no card record
	{"119", "57"}, // transaction not permitted to cardholder
	{"120", "58"}, // transaction not permitted to terminal
	{"121", "61"}, // exceeds withdrawal amount limit
	{"122", "63"}, // security violation
	{"123", "65"}, // exceeds withdrawal frequency limit
	{"124", "93"}, // violation of law
	{"208", "41"}, // lost card
	{"209", "43"}, // stolen card
	{"200", "04"}, // pick-up: do not honour
	{"201", "33"}, // pick-up: expired card
	{"202", "34"}, // pick-up: suspected fraud
	{"400", "00"}, // reversal accepted
	{"500", "00"}, // reconciled, in balance
	{"501", "00"}, // reconciled, out of balance
	{"502", "00"}, // amount not reconciled, totals provided
	{"504", "00"}, // not reconciled, totals provided
	{"800", "00"}, // network management accepted
	{"900", "00"}, // advice acknowledged, no financial liability accepted
	{"901", "00"}, // advice acknowledged, financial liability accepted
	{"902", "12"}, // invalid transaction
	{"903", "19"}, // re-enter transaction
	{"904", "30"}, // format error
	{"905", "31"}, // acquirer not supported by switch
	{"906", "90"}, // cutover in process
	{"907", "91"}, // card issuer or switch inoperative
	{"908", "92"}, // destination cannot be found for routing
	{"909", "96"}, // system malfunction
	{"911", "68"}, // card issuer timed out: it may have booked
	{"913", "94"}, // duplicate transmission
	{"914", "25"}, // not able to trace back to the original
	{"923", "09"}, // request in progress
}

// accepted is the action code that says yes, by the message class (the second digit of the MTI, ISO 8583:1993, 4.1):
// what is one response code in 1987 differs here.
var accepted = map[byte]string{'1': "000", '2': "000", '4': "400", '5': "500", '8': "800"}

// ResponseCode returns the response code of the edition of 1987 that means what an action code does in an answer of
// type mti, four digits. An acceptance of another class of messages, such as 800 for a sale, and a code that is not
// known leave the outcome open, which is 09; a denial that is not known (1xx, 2xx) is 05, do not honour.
func ResponseCode(mti, action string) string {
	if len(action) != 3 || len(mti) != 4 {
		return "09"
	}
	for _, a := range actions {
		if a.action != action {
			continue
		}
		if a.response == "00" && !accepts(mti, action) {
			return "09"
		}
		return a.response
	}
	if action[0] == '1' || action[0] == '2' {
		return "05"
	}
	return "09"
}

// accepts reports whether an accepting action code belongs to answers of a type. Reconciliations and advices have
// more than one.
func accepts(mti, action string) bool {
	switch advice := mti[2] == '3'; {
	case mti[1] == '5':
		return action[0] == '5'
	case advice && (action == "900" || action == "901"):
		return true
	}
	return action == accepted[mti[1]]
}

// ActionCode returns the action code that means what a response code of the edition of 1987 does in an answer of
// type mti. One that has no equivalent is 100, do not honour.
func ActionCode(mti, response string) string {
	if response == "00" && len(mti) == 4 {
		return accepted[mti[1]]
	}
	for _, a := range actions {
		if a.response == response {
			return a.action
		}
	}
	return "100"
}
