package iso8583

import (
	"fmt"
	"iter"
	"log/slog"
	"math/bits"
	"strings"
)

// Message is a parsed message: where each field lies in the bytes that [Parse] was given. It is valid as long
// as these are.
type Message struct {
	spec *Spec
	data []byte
	mti  [4]byte
	bits [2]uint64
	at   [MaxField + 1]span
}

// span is where a field's content begins in a message, and its length in characters, digits or bytes.
type span struct{ from, units uint16 }

// Parse reads one message, which must be all of data. It keeps data and copies nothing out of it. Faults are
// [*Error].
func Parse(spec *Spec, data []byte) (*Message, error) {
	m := new(Message)
	if err := m.Parse(spec, data); err != nil {
		return nil, err
	}
	return m, nil
}

// Parse makes m the message that is all of data, as the function [Parse] does, in the place of what it was. After a
// fault, which is an [*Error], m is of no use.
func (m *Message) Parse(spec *Spec, data []byte) error {
	if len(data) > MaxFrame {
		return partError("message", "length %d exceeds %d", len(data), MaxFrame)
	}
	m.spec, m.data, m.bits = spec, data, [2]uint64{}
	next, err := m.parseHead()
	if err != nil {
		return err
	}
	for i, left := range m.bits {
		for left != 0 {
			lead := bits.LeadingZeros64(left)
			left &^= 1 << (63 - lead)
			if de := 64*i + lead + 1; de > 1 {
				if next, err = m.parseField(de, next); err != nil {
					return err
				}
			}
		}
	}
	if next != len(data) {
		return partError("message", "%d bytes after the last field", len(data)-next)
	}
	return nil
}

// parseHead reads type and bitmaps and returns where the first field begins.
func (m *Message) parseHead() (next int, err error) {
	size := m.spec.mtiLength()
	if len(m.data) < size {
		return 0, partError("MTI", "cut short")
	}
	if m.spec.MTI == BCD {
		for i := range m.mti {
			m.mti[i] = '0' + bcdNibble(m.data, 4, i)
		}
	} else {
		copy(m.mti[:], m.data)
	}
	if err := checkMTI(m.spec, m.mti[:]); err != nil {
		return 0, err
	}
	next = size
	for i := range m.bits {
		n := m.spec.bitmapLength()
		if len(m.data)-next < n {
			return 0, partError("bitmap", "cut short")
		}
		var ok bool
		if m.bits[i], ok = bitmap(m.data[next:next+n], m.spec.Bitmap); !ok {
			return 0, partError("bitmap", "not upper-case hexadecimal")
		}
		next += n
		if !m.has(1) {
			break
		}
	}
	return next, nil
}

// parseField finds a field that begins at next and returns where the following one does.
func (m *Message) parseField(de, next int) (int, error) {
	f := &m.spec.Fields[de]
	if f.Kind == Undefined {
		return 0, fieldError(de, "not defined in %s", m.spec.Name)
	}
	n := f.Max
	if f.Format != Fixed {
		prefix := m.spec.prefixLength(f.Format)
		if len(m.data)-next < prefix {
			return 0, fieldError(de, "length cut short")
		}
		var ok bool
		if n, ok = number(m.data[next:next+prefix], m.spec.Length); !ok {
			return 0, fieldError(de, "length is not a number")
		}
		if n > f.Max {
			return 0, fieldError(de, "length %d exceeds %d", n, f.Max)
		}
		next += prefix
	}
	size := m.spec.wireLength(f.Kind, n)
	if len(m.data)-next < size {
		return 0, fieldError(de, "cut short")
	}
	m.at[de] = span{uint16(next), uint16(n)}
	if !m.wellFormed(f.Kind, m.data[next:next+size], n) {
		return 0, fieldError(de, "a character is not of kind %s", f.Kind)
	}
	return next + size, nil
}

func (m *Message) wellFormed(k Kind, content []byte, n int) bool {
	switch enc := m.spec.encoding(k); {
	case n == 0:
		return true
	case enc == BCD:
		return bcdFits(k, content, n)
	case k == B && enc == ASCII:
		return hexFits(content)
	}
	return fits(k, content)
}

// MTI returns the message type indicator, four digits.
func (m *Message) MTI() string { return string(m.mti[:]) }

// Has reports whether a field is there. DE 1 is the secondary bitmap.
func (m *Message) Has(de int) bool { return de >= 1 && de <= MaxField && m.has(de) }

func (m *Message) has(de int) bool { return m.bits[uint(de-1)/64]>>(63-uint(de-1)%64)&1 == 1 }

// Fields yields the numbers of the fields that are there, ascending, without the bitmaps.
func (m *Message) Fields() iter.Seq[int] { return m.all() }

func (m *Message) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for de := 2; de <= MaxField; de++ {
			if m.has(de) && !yield(de) {
				return
			}
		}
	}
}

// AppendTo appends a field's content to dst, as characters or (kind B) bytes, with its padding. It is the only way
// to the content of fields that may carry card data ([IsCardData]). An absent field appends nothing.
func (m *Message) AppendTo(dst []byte, de int) []byte {
	if !m.Has(de) || de == 1 {
		return dst
	}
	k, n := m.spec.Fields[de].Kind, int(m.at[de].units)
	content := m.content(de)
	switch enc := m.spec.encoding(k); {
	case enc == BCD:
		for i := range n {
			dst = append(dst, '0'+bcdNibble(content, n, i))
		}
	case k == B && enc == ASCII:
		for i := range n {
			high, _ := hexNibble(content[2*i])
			low, _ := hexNibble(content[2*i+1])
			dst = append(dst, high<<4|low)
		}
	default:
		dst = append(dst, content...)
	}
	return dst
}

// Text returns a field's content as a string, without the spaces that fill it up. It is empty for an absent field
// and for one that may carry card data ([IsCardData]): a string cannot be wiped.
func (m *Message) Text(de int) string {
	if IsCardData(de) {
		return ""
	}
	return strings.TrimRight(string(m.AppendTo(nil, de)), " ")
}

// Uint returns the value of a field of kind n. An absent field, another kind, or more than 19 digits are an [*Error].
func (m *Message) Uint(de int) (uint64, error) {
	if !m.Has(de) {
		return 0, fieldError(de, "absent")
	}
	if m.spec.Fields[de].Kind != N || m.at[de].units > 19 {
		return 0, fieldError(de, "not a number of up to 19 digits")
	}
	var digits [19]byte
	defer clear(digits[:])
	var value uint64
	for _, d := range m.AppendTo(digits[:0], de) {
		value = value*10 + uint64(d-'0')
	}
	return value, nil
}

// Subelement returns the value of a subelement of a field of characters that is made of them: a tag and a length of two digits
// each, and the value. It is a part of the bytes that were parsed: the caller copies of it what it has found to be no card
// data. It is nil where there is none, or where the field before it is not so made.
func (m *Message) Subelement(de int, tag string) []byte {
	if !m.Has(de) || m.spec.Fields[de].Kind == B || m.spec.encoding(m.spec.Fields[de].Kind) != ASCII {
		return nil
	}
	for rest := m.content(de); len(rest) >= 4; {
		n, ok := number(rest[2:4], ASCII)
		if !ok || len(rest) < 4+n {
			return nil
		}
		if string(rest[:2]) == tag {
			return rest[4 : 4+n]
		}
		rest = rest[4+n:]
	}
	return nil
}

// Wipe overwrites the given fields in the bytes that were parsed, and forgets them.
func (m *Message) Wipe(fields ...int) {
	for _, de := range fields {
		if de > 1 && m.Has(de) {
			clear(m.content(de))
			m.bits[(de-1)/64] &^= 1 << (63 - (de-1)%64)
		}
	}
}

// WipeCardData wipes every field that may carry card data ([IsCardData]).
func (m *Message) WipeCardData() {
	for de := range m.all() {
		if IsCardData(de) {
			m.Wipe(de)
		}
	}
}

// content returns a field's bytes as they are on the wire.
func (m *Message) content(de int) []byte {
	from := int(m.at[de].from)
	return m.data[from : from+m.spec.wireLength(m.spec.Fields[de].Kind, int(m.at[de].units))]
}

// String returns type, trace number, retrieval reference and response code: what tells messages apart.
func (m Message) String() string {
	if m.spec == nil {
		return "(no message)"
	}
	return fmt.Sprintf("%s STAN=%s RRN=%s RC=%s", m.mti[:], m.Text(11), m.Text(37), m.Text(39))
}

// Format implements [fmt.Formatter] for every verb: %v of a struct would otherwise show the bytes.
func (m Message) Format(s fmt.State, _ rune) { _, _ = fmt.Fprint(s, m.String()) }

// LogValue implements [slog.LogValuer].
func (m Message) LogValue() slog.Value { return slog.StringValue(m.String()) }
