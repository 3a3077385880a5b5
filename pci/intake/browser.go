package intake

import (
	"strings"

	"github.com/finterra/finpay/pci"
)

// browserFields are what the page's script adds to the form: what 3-D Secure asks of a browser that runs scripts (EMV 3DS,
// table A.1). They come beside a card, so each is bounded such that no card number fits in; what does not fit is dropped.
type browserFields struct{ width, height, depth, tz, language []byte }

// maxLanguage is RFC 5646's longest tag that need be kept (section 4.4.1).
const maxLanguage = 35

func (b *browserFields) field(name string) *[]byte {
	switch name {
	case "browser_width":
		return &b.width
	case "browser_height":
		return &b.height
	case "browser_depth":
		return &b.depth
	case "browser_tz":
		return &b.tz
	case "browser_language":
		return &b.language
	}
	return nil
}

func (b *browserFields) any() bool {
	return b.width != nil || b.height != nil || b.depth != nil || b.tz != nil || b.language != nil
}

// read returns what the fields say; a script was running where there is any.
func (b *browserFields) read() pci.Browser {
	if !b.any() {
		return pci.Browser{}
	}
	offset := strings.TrimPrefix(string(b.tz[:min(len(b.tz), 5)]), "-")
	found := pci.Browser{JavaScript: true, ScreenWidth: digits(b.width, 6), ScreenHeight: digits(b.height, 6), ColorDepth: digits(b.depth, 2)}
	if digits([]byte(offset), 4) != "" && len(b.tz) <= 5 {
		found.TZ = string(b.tz)
	}
	if isLanguage(b.language) {
		found.Language = string(b.language)
	}
	return found
}

// digits returns text if it is up to most decimal digits, else nothing.
func digits(text []byte, most int) string {
	if _, ok := decimal(text); !ok || len(text) > most {
		return ""
	}
	return string(text)
}

// isLanguage accepts the shape of a tag of RFC 5646, with no more digits than a region and a variant have.
func isLanguage(tag []byte) bool {
	figures := 0
	for i, c := range tag {
		switch {
		case c >= '0' && c <= '9':
			figures++
		case c|0x20 >= 'a' && c|0x20 <= 'z', c == '-' && i > 0:
		default:
			return false
		}
	}
	return len(tag) > 0 && len(tag) <= maxLanguage && figures <= 7
}
