package siem

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What the header of a message says (RFC 5424, section 6.2).
const (
	facilityAudit   = 13 // log audit
	severityInfo    = 6
	severityWarning = 4
	maxHostname     = 255
	maxMessageID    = 32
	microseconds    = "2006-01-02T15:04:05.000000Z" // six digits of a second are the most (section 6.2.3)
	byteOrderMark   = "\uFEFF"                      // says that the message is UTF-8 (section 6.4)
)

// structuredID names our structured data. 32473 is the enterprise number for documentation (RFC 5612), since the product has
// none of its own.
const structuredID = "finpay@32473"

// appendSyslog appends one message: where the entry stands as structured data, and its text as the message.
func appendSyslog(b []byte, e entry) []byte {
	severity := severityInfo
	if e.failed() {
		severity = severityWarning
	}
	b = append(strconv.AppendInt(append(b, '<'), int64(facilityAudit*8+severity), 10), ">1 "...)
	b = e.time.UTC().Truncate(time.Microsecond).AppendFormat(b, microseconds)
	b = append(b, ' ')
	b = append(b, printable(e.Node, maxHostname)...)
	b = append(b, " finpay - "...)
	b = append(b, printable(e.Type, maxMessageID)...)
	b = append(b, " ["+structuredID...)
	for _, p := range [][2]string{
		{"log", e.Log}, {"index", strconv.FormatInt(e.Index, 10)}, {"leaf", base64.StdEncoding.EncodeToString(e.Leaf)}, {"type", e.Type}, {"actor", e.Actor},
		{"origin", e.Origin}, {"outcome", e.Outcome}, {"resource", e.About}, {"card", e.text("card")}, {"token", e.text("token")},
	} {
		if p[1] != "" {
			b = appendParam(b, p[0], p[1])
		}
	}
	b = append(b, "] "+byteOrderMark...)
	return append(append(b, e.Entry...), '\n')
}

// appendParam appends a parameter, with the three characters escaped that section 6.3.3 names. What would end the line, or
// is not UTF-8, becomes U+FFFD.
func appendParam(b []byte, name, value string) []byte {
	b = append(append(append(b, ' '), name...), `="`...)
	for _, c := range value {
		switch {
		case c == '"' || c == '\\' || c == ']':
			b = append(b, '\\', byte(c))
		case unicode.IsControl(c):
			b = utf8.AppendRune(b, utf8.RuneError)
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}

// printable returns a field of the header: printable ASCII without spaces, not longer than most, "-" for nothing.
func printable(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		if c <= ' ' || c > '~' {
			return '_'
		}
		return c
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}
