package hsm

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/miekg/pkcs11"
)

// tokenScheme begins a URI of RFC 7512.
const tokenScheme = "pkcs11:"

// tokenName says which hsm token is meant: by its label, or by a URI of RFC 7512 where labels are not unique. Empty parts
// match anything.
type tokenName struct{ label, serial, manufacturer, model string }

// parseToken reads a label, or a URI such as
//
//	pkcs11:token=finpay;serial=c75e87098a58245d
//
// Of the URI's path attributes (RFC 7512, section 2.3) those of a token are taken. Slot numbers change from start to start,
// and library and PIN have settings of their own, so slot-…, library-… and the query part are refused.
func parseToken(text string) (tokenName, error) {
	path, ok := strings.CutPrefix(text, tokenScheme)
	if !ok {
		return tokenName{label: text}, nil
	}
	refused := func(format string, args ...any) error {
		return fmt.Errorf("hsm: the hsm token's URI %q: %s; token, serial, manufacturer and model are taken", text, fmt.Sprintf(format, args...))
	}
	if strings.Contains(path, "?") {
		return tokenName{}, refused("it has a query part")
	}
	var name tokenName
	parts := map[string]*string{"token": &name.label, "serial": &name.serial, "manufacturer": &name.manufacturer, "model": &name.model}
	for attribute := range strings.SplitSeq(path, ";") {
		key, encoded, _ := strings.Cut(attribute, "=")
		part, known := parts[key]
		if !known {
			return tokenName{}, refused("the attribute %q is not one of a token", key)
		}
		value, err := url.PathUnescape(encoded)
		if err != nil || value == "" {
			return tokenName{}, refused("%s has no value that can be read", key)
		}
		if *part != "" {
			return tokenName{}, refused("%s stands there twice", key)
		}
		*part = value
	}
	return name, nil
}

func (n tokenName) matches(info pkcs11.TokenInfo) bool {
	for _, pair := range [][2]string{{n.label, info.Label}, {n.serial, info.SerialNumber}, {n.manufacturer, info.ManufacturerID}, {n.model, info.Model}} {
		if pair[0] != "" && pair[0] != padded(pair[1]) {
			return false
		}
	}
	return true
}

// padded takes the padding from a field of CK_TOKEN_INFO.
func padded(field string) string { return strings.TrimRight(field, " \x00") }
