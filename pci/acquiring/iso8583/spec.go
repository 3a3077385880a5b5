package iso8583

import (
	"fmt"
	"strings"
)

// MaxField is the number of the last data element.
const MaxField = 128

// Spec says how messages are written. It is read only once it is in use.
type Spec struct {
	Name    string
	Version byte     // first digit of the MTI: '0' for the 1987 edition, '1' for that of 1993
	MTI     Encoding // ASCII: 4 characters; BCD: 2 bytes
	Bitmap  Encoding // ASCII: 16 hexadecimal characters; Binary: 8 bytes
	Length  Encoding // of LLVAR and LLLVAR. ASCII: 2 or 3 characters; BCD: 1 or 2 bytes
	Digits  Encoding // of kinds N and Z. ASCII: a character each; BCD: two in a byte, see below
	Bits    Encoding // of kind B. ASCII: two hexadecimal characters for a byte; Binary: bytes

	// Fields by number. An odd number of BCD digits is preceded by a zero nibble, in fixed and in variable
	// fields; a length counts digits, not bytes, and bytes in kind B.
	Fields [MaxField + 1]Field
}

// Field describes one data element. Its zero value is a field that the spec does not have.
type Field struct {
	Name   string
	Kind   Kind
	Format Format
	Max    int // characters, digits or (kind B) bytes; the exact length of a fixed field
}

// Encoding is how characters become bytes.
type Encoding uint8

// The encodings. Which of them a part of a message may have stands in [Spec]. Hexadecimal digits are upper case.
const (
	ASCII Encoding = iota
	BCD
	Binary
)

// Kind is the class of a field's characters, in the standard's notation (ISO 8583:1987, 4.3).
type Kind uint8

// The kinds of fields.
const (
	Undefined Kind = iota
	N              // n: digits
	XN             // x + n: C or D (credit, debit), then digits; always in characters
	A              // a: letters and spaces
	AN             // an: letters, digits and spaces
	ANS            // ans: printable ASCII
	Z              // z: the code set of tracks 2 and 3 (ISO/IEC 7811), 0x30 to 0x3F
	B              // b: bytes
)

func (k Kind) String() string {
	return [...]string{"undefined", "n", "x+n", "a", "an", "ans", "z", "b"}[k]
}

// Format is how a field's length is known.
type Format uint8

// The formats. A prefix of two or three digits precedes the variable ones.
const (
	Fixed  Format = 0
	LLVAR  Format = 2
	LLLVAR Format = 3
)

// SpecNamed returns the spec with that name: "ascii1987", "binary1987", "ascii1993" or "binary1993".
func SpecNamed(name string) (*Spec, error) {
	var names []string
	for _, spec := range []*Spec{ASCII1987, Binary1987, ASCII1993, Binary1993} {
		if spec.Name == name {
			return spec, nil
		}
		names = append(names, spec.Name)
	}
	return nil, fmt.Errorf("iso8583: no spec is named %q; there are %s", name, strings.Join(names, ", "))
}

// IsCardData reports whether a field may carry what must not be kept or shown: the PAN and its expiry, track data,
// the PIN block, chip data, and the private fields, in which acquirers have the security code travel.
func IsCardData(de int) bool {
	switch de {
	case 2, 14, 34, 35, 36, 45, 48, 52, 55:
		return true
	}
	return de >= 60 && de <= 63 || de >= 120 && de <= 127
}

// encoding returns how the contents of a kind are written.
func (s *Spec) encoding(k Kind) Encoding {
	switch k {
	case N, Z:
		return s.Digits
	case B:
		return s.Bits
	}
	return ASCII
}

// wireLength returns how many bytes n units of a kind take.
func (s *Spec) wireLength(k Kind, n int) int {
	switch enc := s.encoding(k); {
	case k == B && enc == ASCII:
		return 2 * n
	case enc == BCD:
		return (n + 1) / 2
	}
	return n
}

// prefixLength returns how many bytes a field's length takes.
func (s *Spec) prefixLength(f Format) int {
	if s.Length == BCD {
		return (int(f) + 1) / 2
	}
	return int(f)
}

func (s *Spec) bitmapLength() int {
	if s.Bitmap == ASCII {
		return 16
	}
	return 8
}

func (s *Spec) mtiLength() int {
	if s.MTI == BCD {
		return 2
	}
	return 4
}
