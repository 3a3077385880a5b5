package threeds

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/finterra/finpay/pci"
)

// maxHeader bounds browserAcceptHeader and browserUserAgent. Table A.1 allows 2,048 characters and tells the 3DS
// Server to cut the rest; this server cuts earlier, so that every AReq fits one slot of locked memory.
const maxHeader = 512

// browserOf makes a browser's data valid rather than refuse its shopper.
func browserOf(b pci.Browser) browserInformation {
	info := browserInformation{
		BrowserAcceptHeader: printable(b.AcceptHeader, maxHeader),
		BrowserLanguage:     language(b.Language),
		BrowserUserAgent:    printable(b.UserAgent, maxHeader),
	}
	if info.BrowserAcceptHeader == "" {
		info.BrowserAcceptHeader = "*/*" // what the absence of the header means (RFC 9110, section 12.5.1)
	}
	if info.BrowserUserAgent == "" {
		info.BrowserUserAgent = "unknown" // a required element
	}
	if ip, err := netip.ParseAddr(b.IP); err == nil {
		info.BrowserIP = ip.WithZone("").Unmap().String()
	}
	depth := colorDepth(b.ColorDepth)
	if !b.JavaScript || depth == "" || !isDigits(b.ScreenHeight, 1, 6) || !isDigits(b.ScreenWidth, 1, 6) || !isTimeZone(b.TZ) {
		// All of them are required once JavaScript is true, so a script that could not read one counts as none.
		return info
	}
	info.BrowserJavascriptEnabled = true
	info.BrowserJavaEnabled = &b.JavaEnabled
	info.BrowserColorDepth = depth
	info.BrowserScreenHeight, info.BrowserScreenWidth, info.BrowserTZ = b.ScreenHeight, b.ScreenWidth, b.TZ
	return info
}

// colorDepth returns the greatest value of table A.1 that is not above s: browsers say 30, which it lacks.
func colorDepth(s string) string {
	if !isDigits(s, 1, 2) {
		return ""
	}
	depth := ""
	for _, allowed := range []string{"1", "4", "8", "15", "16", "24", "32", "48"} {
		if len(allowed) < len(s) || len(allowed) == len(s) && allowed <= s {
			depth = allowed
		}
	}
	return depth
}

// language keeps the subtags that fit browserLanguage's eight characters.
func language(s string) string {
	s = printable(s, 35)
	for len(s) > 8 {
		i := strings.LastIndexByte(s, '-')
		if i < 0 {
			return "en"
		}
		s = s[:i]
	}
	if s == "" {
		return "en" // a required element
	}
	return s
}

// isTimeZone reports whether s is minutes as getTimezoneOffset gives them, in one to five characters.
func isTimeZone(s string) bool {
	if len(s) > 5 {
		return false
	}
	s = strings.TrimPrefix(strings.TrimPrefix(s, "-"), "+")
	return isDigits(s, 1, 4)
}

// cardholderName returns name where it is made of 2 to 45 characters of the common character set (EMV Book 4,
// annex B), and nothing otherwise: the element is then left out, which the standard allows.
func cardholderName(name string) string {
	name = strings.TrimSpace(name)
	if !between(name, 2, 45) || printable(name, len(name)) != name {
		return ""
	}
	return name
}

// email returns address where it can be one, within 254 characters.
func email(address string) string {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || local == "" || domain == "" || len(address) > 254 || strings.ContainsAny(address, " \r\n\t") ||
		!utf8.ValidString(address) {
		return ""
	}
	return address
}

func phoneOf(p pci.Phone) *phone {
	if !isDigits(p.CountryCode, 1, 3) || !isDigits(p.Subscriber, 1, 15) {
		return nil
	}
	return &phone{CC: p.CountryCode, Subscriber: p.Subscriber}
}

// addressOf leaves out what has no form that the standard allows. A state needs its country (table A.1, billAddrState).
func addressOf(a pci.Address) billingAddress {
	b := billingAddress{
		BillAddrLine1: truncate(a.Lines[0], 50), BillAddrLine2: truncate(a.Lines[1], 50), BillAddrLine3: truncate(a.Lines[2], 50),
		BillAddrCity: truncate(a.City, 50), BillAddrPostCode: truncate(a.PostalCode, 16),
	}
	if isDigits(a.Country, 3, 3) {
		b.BillAddrCountry = a.Country
		if between(a.State, 1, 3) {
			b.BillAddrState = a.State
		}
	}
	return b
}

// printable drops what is not printable ASCII, and everything after max characters.
func printable(s string, max int) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < max; i++ {
		if s[i] >= ' ' && s[i] <= '~' {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// truncate keeps at most max characters.
func truncate(s string, max int) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "")
	count := 0
	for i := range s {
		if count == max {
			return s[:i]
		}
		count++
	}
	return s
}

func between(s string, low, high int) bool { return len(s) >= low && len(s) <= high }

func isDigits(s string, low, high int) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return between(s, low, high)
}

// isTransID reports whether s is a UUID in its canonical form, 36 characters.
func isTransID(s string) bool { return len(s) == 36 && uuid.Validate(s) == nil }
