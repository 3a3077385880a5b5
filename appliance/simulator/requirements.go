package simulator

import (
	"regexp"
	"slices"
	"strings"
)

// requirement is a required data element and its form.
type requirement struct {
	element string
	form    *regexp.Regexp
}

func form(s string) *regexp.Regexp { return regexp.MustCompile("^(?s:" + s + ")$") }

var (
	anyText = form(`.+`)
	uuidish = form(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)
	webURL  = form(`https?://.+`)
	version = form(`2\.2\.0|2\.3\.1`)
)

var preqElements = []requirement{
	{"messageVersion", version},
	{"threeDSServerRefNumber", form(`.{1,32}`)},
	{"threeDSServerTransID", uuidish},
}

// areqElements are those that table B.1 requires for deviceChannel 02 and messageCategory 01.
var areqElements = []requirement{
	{"messageVersion", version},
	{"deviceChannel", form(`02`)},
	{"messageCategory", form(`01`)},
	{"threeDSCompInd", form(`[YNU]`)},
	{"threeDSRequestorAuthenticationInd", form(`0[1-7]`)},
	{"threeDSRequestorID", form(`.{1,35}`)},
	{"threeDSRequestorName", form(`.{1,40}`)},
	{"threeDSRequestorURL", webURL},
	{"threeDSServerRefNumber", form(`.{1,32}`)},
	{"threeDSServerTransID", uuidish},
	{"threeDSServerURL", form(`https://.+`)},
	{"acctNumber", form(`[0-9]{13,19}`)},
	{"cardExpiryDate", form(`[0-9]{2}(0[1-9]|1[0-2])`)},
	{"acquirerBIN", form(`.{1,11}`)},
	{"acquirerMerchantID", form(`.{1,35}`)},
	{"mcc", form(`[0-9]{4}`)},
	{"merchantCountryCode", form(`[0-9]{3}`)},
	{"merchantName", form(`.{1,40}`)},
	{"notificationURL", webURL},
	{"purchaseAmount", form(`[0-9]{1,48}`)},
	{"purchaseCurrency", form(`[0-9]{3}`)},
	{"purchaseExponent", form(`[0-9]`)},
	{"purchaseDate", form(`[0-9]{14}`)},
	{"browserAcceptHeader", anyText},
	{"browserLanguage", form(`.{1,8}`)},
	{"browserUserAgent", anyText},
}

// withScript are required as well once browserJavascriptEnabled is true.
var withScript = []requirement{
	{"browserColorDepth", form(`1|4|8|15|16|24|32|48`)},
	{"browserScreenHeight", form(`[0-9]{1,6}`)},
	{"browserScreenWidth", form(`[0-9]{1,6}`)},
	{"browserTZ", form(`[+-]?[0-9]{1,4}`)},
}

// check returns an Erro for what is missing (201) or malformed (203), nil when nothing is.
func (m elements) check(required []requirement) elements {
	var missing, malformed []string
	if slices.ContainsFunc(required, func(r requirement) bool { return r.element == "browserAcceptHeader" }) {
		script, ok := m["browserJavascriptEnabled"].(bool)
		if !ok {
			missing = append(missing, "browserJavascriptEnabled")
		}
		if script {
			required = slices.Concat(required, withScript)
			if _, ok := m["browserJavaEnabled"].(bool); !ok {
				missing = append(missing, "browserJavaEnabled")
			}
		}
	}
	for _, r := range required {
		switch value := m.text(r.element); {
		case value == "":
			missing = append(missing, r.element)
		case !r.form.MatchString(value):
			malformed = append(malformed, r.element)
		}
	}
	switch {
	case missing != nil:
		return m.erro("201", strings.Join(missing, ","))
	case slices.Equal(malformed, []string{"messageVersion"}):
		return m.erro("102", "messageVersion")
	case malformed != nil:
		return m.erro("203", strings.Join(malformed, ","))
	}
	return nil
}
