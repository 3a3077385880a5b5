package acquiring

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/acquiring/iso8583"
	"github.com/finterra/finpay/pci/internal/pan"
)

// defaultAdditionalField is DE 48, additional data, private.
const defaultAdditionalField = 48

// element is a value that travels in the private field.
type element int

const (
	eci element = iota
	cavv
	cvv
)

// placement is where an element stands.
type placement struct {
	tag  string // two digits
	what element
}

// placements returns the elements that are sent, ascending by tag.
func (a Additional) placements(spec *iso8583.Spec) ([]placement, error) {
	field := cmp.Or(a.Field, defaultAdditionalField)
	if f := spec.Fields[min(max(field, 0), iso8583.MaxField)]; field > iso8583.MaxField || !iso8583.IsCardData(field) ||
		f.Kind != iso8583.ANS || f.Format != iso8583.LLLVAR {
		return nil, fmt.Errorf("acquiring: DE %d is not a private field of text, and cannot carry a security code", field)
	}
	var placed []placement
	for _, p := range []placement{
		{cmp.Or(a.ECI, "42"), eci},
		{cmp.Or(a.CAVV, "43"), cavv},
		{cmp.Or(a.CVV, "92"), cvv},
	} {
		if p.tag == "-" {
			continue
		}
		if len(p.tag) != 2 || !isDigits(p.tag) {
			return nil, errors.New("acquiring: a tag of additional data is two digits")
		}
		placed = append(placed, p)
	}
	slices.SortFunc(placed, func(a, b placement) int { return cmp.Compare(a.tag, b.tag) })
	for i := range placed[:max(len(placed)-1, 0)] {
		if placed[i].tag == placed[i+1].tag {
			return nil, errors.New("acquiring: two elements of additional data have the same tag")
		}
	}
	return placed, nil
}

func (c *Connector) additionalField() int {
	return cmp.Or(c.cfg.Additional.Field, defaultAdditionalField)
}

// packAdditional appends the elements that have a value to dst, which is in locked memory and has room for them.
func (c *Connector) packAdditional(dst []byte, card *pan.Card, auth pci.Authentication) ([]byte, error) {
	for _, p := range c.placed {
		var err error
		switch p.what {
		case eci:
			dst, err = appendElement(dst, p.tag, auth.ECI)
		case cavv:
			dst, err = appendElement(dst, p.tag, auth.CAVV)
		case cvv:
			err = card.RevealCVV(func(digits []byte) (err error) {
				dst, err = appendElement(dst, p.tag, digits)
				return err
			})
		}
		if err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// appendElement appends tag, length and value, nothing for an empty value. It never leaves dst's memory.
func appendElement[T ~string | ~[]byte](dst []byte, tag string, value T) ([]byte, error) {
	n := len(value)
	if n == 0 {
		return dst, nil
	}
	if n > 99 || cap(dst)-len(dst) < 4+n {
		return nil, fmt.Errorf("acquiring: additional data %s is too long", tag)
	}
	dst = append(dst, tag...)
	dst = append(dst, byte('0'+n/10), byte('0'+n%10))
	return append(dst, value...), nil
}
