package pci

import "strings"

// BrowserFields are what the page's script adds to the form: what 3-D Secure asks of a browser that runs scripts (EMV 3DS,
// table A.1). They may come beside a card, so each is bounded such that no card number fits in; what does not fit is dropped.
type BrowserFields struct{ Width, Height, Depth, TZ, Language []byte }

// maxLanguage is RFC 5646's longest tag that need be kept (section 4.4.1).
const maxLanguage = 35

// Field returns where the value of a form's field goes, nil for a field that is none of these.
func (b *BrowserFields) Field(name string) *[]byte {
	switch name {
	case "browser_width":
		return &b.Width
	case "browser_height":
		return &b.Height
	case "browser_depth":
		return &b.Depth
	case "browser_tz":
		return &b.TZ
	case "browser_language":
		return &b.Language
	}
	return nil
}

// Any reports whether a script has said anything.
func (b *BrowserFields) Any() bool {
	return b.Width != nil || b.Height != nil || b.Depth != nil || b.TZ != nil || b.Language != nil
}

// Read returns what the fields say; a script was running where there is any.
func (b *BrowserFields) Read() Browser {
	if !b.Any() {
		return Browser{}
	}
	offset := strings.TrimPrefix(string(b.TZ[:min(len(b.TZ), 5)]), "-")
	found := Browser{JavaScript: true, ScreenWidth: digits(b.Width, 6), ScreenHeight: digits(b.Height, 6), ColorDepth: digits(b.Depth, 2)}
	if digits([]byte(offset), 4) != "" && len(b.TZ) <= 5 {
		found.TZ = string(b.TZ)
	}
	if isLanguage(b.Language) {
		found.Language = string(b.Language)
	}
	return found
}

// digits returns text if it is up to most decimal digits, else nothing.
func digits(text []byte, most int) string {
	for _, c := range text {
		if c < '0' || c > '9' {
			return ""
		}
	}
	if len(text) > most {
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
