package acquiring

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/pci/internal/pan"
)

// defaultAdditionalField is DE 48, additional data, private.
const defaultAdditionalField = 48

// MaxRecord is how many bytes a ledger record may have.
const MaxRecord = 199

// Additional says where a sale carries what has no data element of its own: in one private field, as subelements of a tag
// and a length of two digits each, and the value, ascending by tag. An empty tag of ECI, CAVV and CVV means the default,
// "-" that the value is not sent. Initiator, Exemption and Record are not sent without a tag.
type Additional struct {
	Field int    // default 48; another one must be private text: 60 to 63, 120 to 127, or 55 in characters
	ECI   string // default "42"
	CAVV  string // default "43", in base64
	CVV   string // default "92"

	Initiator string // tag of who uses a stored credential
	Customer  string // its value for [pci.ByCustomer]; default "C"
	Merchant  string // its value for [pci.ByMerchant]; default "M"

	// NetworkID is the tag under which an answer has the scheme's identifier of the transaction (1 to 36 letters and digits), Earlier
	// that under which a merchant's own payment names the one by which the customer agreed. Neither is used without a tag.
	NetworkID string
	Earlier   string
	// Exemption is the tag of why the cardholder was not authenticated, Exemptions are the values by exemption; default those
	// that EMV 3DS 2.3.1 has for it (threeDSRequestorChallengeInd).
	Exemption  string
	Exemptions map[string]string

	// Record is where the ledger record travels, in base64: a tag, under which it stands in as many subelements of up to 99
	// characters as it takes; or "DE" and the number of another private field, which is then its own.
	Record string
}

// element is a value that travels in the private field.
type element int

const (
	eci element = iota
	cavv
	cvv
	initiator
	earlier
	exemption
	record
)

// placement is where an element stands.
type placement struct {
	tag  string // two digits
	what element
}

// layout is an [Additional] that was checked.
type layout struct {
	field       int
	placed      []placement // ascending by tag
	recordField int         // 0 where the record has no field of its own
	networkTag  string      // of answers; empty where they have none
}

// layout returns where elements are sent.
func (a Additional) layout(spec *iso8583.Spec) (layout, error) {
	out := layout{field: cmp.Or(a.Field, defaultAdditionalField)}
	if !isPrivateText(spec, out.field) {
		return layout{}, fmt.Errorf("acquiring: DE %d is not a private field of text, and cannot carry a security code", out.field)
	}
	tag, own := a.Record, false
	if tag, own = strings.CutPrefix(tag, "DE"); own {
		n, err := strconv.Atoi(strings.TrimSpace(tag))
		if err != nil || !isPrivateText(spec, n) || n == out.field {
			return layout{}, errors.New("acquiring: the record's field is not a private field of text of its own")
		}
		out.recordField, tag = n, "-"
	}
	for _, p := range []placement{
		{cmp.Or(a.ECI, "42"), eci},
		{cmp.Or(a.CAVV, "43"), cavv},
		{cmp.Or(a.CVV, "92"), cvv},
		{cmp.Or(a.Initiator, "-"), initiator},
		{cmp.Or(a.Earlier, "-"), earlier},
		{cmp.Or(a.Exemption, "-"), exemption},
		{cmp.Or(tag, "-"), record},
	} {
		if p.tag == "-" {
			continue
		}
		if len(p.tag) != 2 || !isDigits(p.tag) {
			return layout{}, errors.New("acquiring: a tag of additional data is two digits")
		}
		out.placed = append(out.placed, p)
	}
	if tag := cmp.Or(a.NetworkID, "-"); tag != "-" {
		if len(tag) != 2 || !isDigits(tag) {
			return layout{}, errors.New("acquiring: a tag of additional data is two digits")
		}
		out.networkTag = tag
	}
	for name, value := range a.Exemptions {
		if exemptionValues[pci.Exemption(name)] == "" || value == "" || len(value) > maxElement {
			return layout{}, fmt.Errorf("acquiring: %q is no exemption, or its value has not 1 to %d characters", name, maxElement)
		}
	}
	slices.SortFunc(out.placed, func(a, b placement) int { return cmp.Compare(a.tag, b.tag) })
	for i := range out.placed[:max(len(out.placed)-1, 0)] {
		if out.placed[i].tag == out.placed[i+1].tag {
			return layout{}, errors.New("acquiring: two elements of additional data have the same tag")
		}
	}
	return out, nil
}

// networkID reads the scheme's identifier of the transaction. What could be a card number is dropped: an identifier is looked
// for where a host may as well echo what it was sent.
func (l layout) networkID(m *iso8583.Message) string {
	if l.networkTag == "" {
		return ""
	}
	value := m.Subelement(l.field, l.networkTag)
	// Looked at where it is: a copy of what is a card number after all could not be wiped.
	if !pci.IsNetworkID(unsafe.String(unsafe.SliceData(value), len(value))) { //nolint:gosec // of the slice's own length, and not kept
		return ""
	}
	return string(value)
}

// isPrivateText reports whether a field may carry whatever two parties agree on, and is wiped where it is read.
func isPrivateText(spec *iso8583.Spec, de int) bool {
	if de < 0 || de > iso8583.MaxField || !iso8583.IsCardData(de) {
		return false
	}
	f := spec.Fields[de]
	return f.Kind == iso8583.ANS && f.Format == iso8583.LLLVAR
}

// privateField is a field whose content two parties agreed on; it is not sent while it is empty.
type privateField struct {
	de      int
	content []byte
}

// privateFields are those of a request, ascending by number.
type privateFields [2]privateField

// packPrivate makes the private fields of a request in dst, which is in locked memory.
func (c *Connector) packPrivate(dst []byte, r *request, card *pan.Card) (fields privateFields, err error) {
	if len(r.record) > MaxRecord {
		return fields, fmt.Errorf("acquiring: the ledger record has %d bytes, and at most %d are sent", len(r.record), MaxRecord)
	}
	if !r.sells {
		return fields, nil
	}
	elements, err := c.appendElements(dst, r, card)
	if err != nil {
		return fields, err
	}
	fields[0] = privateField{c.additional.field, elements}
	if c.additional.recordField == 0 {
		return fields, nil
	}
	after := elements[len(elements):]
	if fields[1].content, err = appendBase64(after, r.record); err != nil {
		return fields, err
	}
	if fields[1].de = c.additional.recordField; fields[1].de < fields[0].de {
		fields[0], fields[1] = fields[1], fields[0]
	}
	return fields, nil
}

// write writes the fields between two data elements.
func (f *privateFields) write(w *iso8583.Writer, after, before int) {
	for _, field := range f {
		if len(field.content) > 0 && field.de > after && field.de < before {
			w.Bytes(field.de, field.content)
		}
	}
}

// appendElements appends the elements that have a value.
func (c *Connector) appendElements(dst []byte, r *request, card *pan.Card) ([]byte, error) {
	for _, p := range c.additional.placed {
		var err error
		switch p.what {
		case eci:
			dst, err = appendElement(dst, p.tag, r.results.ECI)
		case cavv:
			dst, err = appendElement(dst, p.tag, r.results.CAVV)
		case cvv:
			err = card.RevealCVV(func(digits []byte) (err error) {
				dst, err = appendElement(dst, p.tag, digits)
				return err
			})
		case initiator:
			dst, err = appendElement(dst, p.tag, c.indicator(r.initiator))
		case earlier:
			dst, err = appendElement(dst, p.tag, r.earlier)
		case exemption:
			dst, err = appendElement(dst, p.tag, c.claim(r.exemption))
		case record:
			dst, err = appendRecord(dst, p.tag, r.record)
		}
		if err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// indicator is how the acquirer is told who uses a stored credential.
func (c *Connector) indicator(i pci.Initiator) string {
	switch i {
	case pci.ByCustomer:
		return cmp.Or(c.cfg.Additional.Customer, "C")
	case pci.ByMerchant:
		return cmp.Or(c.cfg.Additional.Merchant, "M")
	}
	return ""
}

// exemptionValues are the defaults of [Additional.Exemptions].
var exemptionValues = map[pci.Exemption]string{
	pci.TransactionRiskAnalysis: "05",
	pci.Delegated:               "07",
	pci.TrustedBeneficiary:      "08",
	pci.LowValue:                "10",
	pci.SecureCorporate:         "11",
}

// claim is how the acquirer is told of an exemption.
func (c *Connector) claim(e pci.Exemption) string {
	return cmp.Or(c.cfg.Additional.Exemptions[string(e)], exemptionValues[e])
}

// maxElement is the longest value of a subelement.
const maxElement = 99

// appendElement appends tag, length and value, nothing for an empty value. It never leaves dst's memory.
func appendElement[T ~string | ~[]byte](dst []byte, tag string, value T) ([]byte, error) {
	n := len(value)
	if n == 0 {
		return dst, nil
	}
	if n > maxElement || cap(dst)-len(dst) < 4+n {
		return nil, fmt.Errorf("acquiring: additional data %s is too long", tag)
	}
	dst = append(dst, tag...)
	dst = append(dst, byte('0'+n/10), byte('0'+n%10))
	return append(dst, value...), nil
}

// appendRecord appends a ledger record in base64, in as many subelements as it takes.
func appendRecord(dst []byte, tag string, value []byte) (_ []byte, err error) {
	text := base64.StdEncoding.EncodeToString(value) // nothing of a card
	for part := range slices.Chunk([]byte(text), maxElement) {
		if dst, err = appendElement(dst, tag, part); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// appendBase64 appends value in base64. It never leaves dst's memory.
func appendBase64(dst, value []byte) ([]byte, error) {
	if cap(dst)-len(dst) < base64.StdEncoding.EncodedLen(len(value)) {
		return nil, errors.New("acquiring: no room for the ledger record")
	}
	return base64.StdEncoding.AppendEncode(dst, value), nil
}
