package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/finterra/finpay/appliance/store/runs"
	"github.com/finterra/finpay/pci"
)

// Key spaces of the registry's records.
const (
	keyOfToken = 't' // domain and token, to all that a row says
	keyOfImage = 'i' // domain and an opaque token's image, to the token
)

// errRecord means that a record cannot be read.
var errRecord = fmt.Errorf("%w: a record", runs.ErrDamaged)

// maxText bounds the texts of a row, in bytes.
const maxText = 255

// tokenKey puts tokens of a domain in this order: those of digits by length and then by value, and after them the others
// by their bytes.
func tokenKey(space byte, domain uint32, text string) []byte {
	return appendKey(make([]byte, 0, 14), space, domain, text)
}

func appendKey(key []byte, space byte, domain uint32, text string) []byte {
	key = append(key, space)
	key = binary.BigEndian.AppendUint32(key, domain)
	if n, ok := number(text); ok {
		return binary.BigEndian.AppendUint64(append(key, byte(len(text))), n)
	}
	return append(append(key, 0xff), text...)
}

// number returns the value of up to 19 digits, which always fit.
func number(text string) (uint64, bool) {
	if len(text) == 0 || len(text) > 19 {
		return 0, false
	}
	n := uint64(0)
	for i := range len(text) {
		digit := text[i] - '0'
		if digit > 9 {
			return 0, false
		}
		n = n*10 + uint64(digit)
	}
	return n, true
}

// cutKey is the reverse of tokenKey.
func cutKey(key []byte) (domain uint32, text string, err error) {
	if len(key) < 7 {
		return 0, "", errRecord
	}
	domain, length, rest := binary.BigEndian.Uint32(key[1:]), key[5], key[6:]
	if length == 0xff {
		return domain, string(rest), nil
	}
	if len(rest) != 8 {
		return 0, "", errRecord
	}
	return domain, fmt.Sprintf("%0*d", int(length), binary.BigEndian.Uint64(rest)), nil
}

// The lists give a number to what nearly every row has; 0 stands for a text that follows.
var (
	formats = []pci.TokenFormat{"", pci.TokenLast4, pci.TokenBIN6Last4, pci.TokenOpaque}
	brands  = []pci.Brand{"", pci.Visa, pci.Mastercard, pci.Amex, pci.Discover, pci.Diners, pci.JCB, pci.UnionPay, pci.Maestro, pci.Other}
)

// Forms of a truncation in a record: most follow from the BIN and the token.
const (
	truncatedText   = 0
	truncatedByBIN  = 1 // first six follow, length and last four are the token's
	truncatedByEnds = 2 // first six, length and last four follow
)

// noBIN stands for a truncation that shows only the last four digits.
const noBIN = 1<<24 - 1

// appendTokenRecord encodes what the key does not say, in about 20 bytes.
func appendTokenRecord(b []byte, t *Token) []byte {
	format, brand := max(0, slices.Index(formats, t.Format)), max(0, slices.Index(brands, t.Card.Brand))
	bin, ends, form := packTruncated(t)
	b = append(b, byte(form<<6|format<<4|brand))
	if format == 0 {
		b = appendText(b, string(t.Format))
	}
	if brand == 0 {
		b = appendText(b, string(t.Card.Brand))
	}
	switch form {
	case truncatedText:
		b = appendText(b, string(t.Card.Truncated))
	case truncatedByEnds:
		b = append(b, byte(len(t.Card.Truncated)))
		b = binary.BigEndian.AppendUint16(b, ends)
		fallthrough
	case truncatedByBIN:
		b = append(b, byte(bin>>16), byte(bin>>8), byte(bin))
	}
	b = binary.AppendUvarint(b, uint64(t.KeyVersion))
	b = binary.AppendUvarint(b, uint64(t.Steps))
	b = binary.AppendVarint(b, int64(t.Card.Expiry.Year-2030)*16+int64(t.Card.Expiry.Month))
	b = binary.AppendUvarint(b, uint64(t.Batch))
	b = binary.AppendVarint(b, t.CreatedAt.UnixMilli())
	if t.Image != "" {
		b = appendText(b, string(t.Image))
	}
	return b
}

// packTruncated finds the shortest form that gives the same text back.
func packTruncated(t *Token) (bin uint32, ends uint16, form int) {
	text := string(t.Card.Truncated)
	if len(text) < 10 || len(text) > maxText {
		return 0, 0, truncatedText
	}
	middle, end := text[6:len(text)-4], text[len(text)-4:]
	last, ok := number(end)
	if !ok || strings.Trim(middle, "*") != "" {
		return 0, 0, truncatedText
	}
	first, ok := number(text[:6])
	if text[:6] == "******" {
		first, ok = noBIN, true
	}
	if !ok {
		return 0, 0, truncatedText
	}
	if token := string(t.Token); len(token) == len(text) && strings.HasSuffix(token, end) {
		return uint32(first), 0, truncatedByBIN
	}
	return uint32(first), uint16(last), truncatedByEnds
}

func unpackTruncated(bin uint32, last uint16, length int) pci.Truncated {
	if bin == noBIN {
		return pci.Truncated(fmt.Sprintf("%s%04d", strings.Repeat("*", length-4), last))
	}
	return pci.Truncated(fmt.Sprintf("%06d%s%04d", bin, strings.Repeat("*", length-10), last))
}

func appendText(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

// recordReader takes fields off a record; after a failure it gives zeros.
type recordReader struct {
	b   []byte
	bad bool
}

func (r *recordReader) bytes(n int) []byte {
	if n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *recordReader) text() string { return string(r.bytes(int(r.bytes(1)[0]))) }

func (r *recordReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *recordReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// parseTokenRecord reads a record into t, whose domain and token are set.
func parseTokenRecord(value []byte, t *Token) error {
	r := recordReader{b: value}
	kinds := r.bytes(1)[0]
	form, format, brand := kinds>>6, kinds>>4&3, kinds&15
	if int(brand) >= len(brands) {
		return errRecord
	}
	t.Format, t.Card.Brand, t.Status = formats[format], brands[brand], TokenActive
	if format == 0 {
		t.Format = pci.TokenFormat(r.text())
	}
	if brand == 0 {
		t.Card.Brand = pci.Brand(r.text())
	}
	if err := r.truncated(form, t); err != nil {
		return err
	}
	t.KeyVersion, t.Steps = uint32(r.uvarint()), uint16(r.uvarint())
	month := r.varint() + 2030*16
	t.Card.Expiry = pci.Expiry{Year: int(month >> 4), Month: int(month & 15)}
	t.Batch = int64(r.uvarint())
	t.CreatedAt = time.UnixMilli(r.varint()).UTC()
	if len(r.b) > 0 {
		t.Image = pci.TokenImage(r.text())
	}
	if r.bad || len(r.b) > 0 {
		return errRecord
	}
	return nil
}

func (r *recordReader) truncated(form byte, t *Token) error {
	length, last := len(t.Token), uint16(0)
	switch form {
	case truncatedText:
		t.Card.Truncated = pci.Truncated(r.text())
		return nil
	case truncatedByBIN:
		if length < 10 {
			return errRecord
		}
		n, ok := number(string(t.Token[length-4:]))
		if !ok {
			return errRecord
		}
		last = uint16(n)
	case truncatedByEnds:
		length = int(r.bytes(1)[0])
		last = binary.BigEndian.Uint16(r.bytes(2))
	default:
		return errRecord
	}
	b := r.bytes(3)
	if length < 10 {
		return errRecord
	}
	t.Card.Truncated = unpackTruncated(uint32(b[0])<<16|uint32(b[1])<<8|uint32(b[2]), last, length)
	return nil
}

// Canonical returns the row's canonical form, which its hash is made of, so that an auditor's tool can make it again from an
// export: the text "finpay token v1", then domain, token, format, image, brand, truncation and expiry ("2030-01") as texts,
// each behind its length in one byte, then key version (4 bytes), steps (2 bytes) and the time of issue in milliseconds since
// 1970 (8 bytes), all big-endian. The expiry is that of the issue; what changes later is in other rows.
func (t Token) Canonical() []byte { return appendCanonical(nil, &t) }

func appendCanonical(b []byte, t *Token) []byte {
	b = append(b, "finpay token v1"...)
	b = appendText(b, t.Domain)
	b = appendText(b, string(t.Token))
	b = appendText(b, string(t.Format))
	b = appendText(b, string(t.Image))
	b = appendText(b, string(t.Card.Brand))
	b = appendText(b, string(t.Card.Truncated))
	b = append(b, 7)
	b = appendExpiry(b, t.Card.Expiry)
	b = binary.BigEndian.AppendUint32(b, t.KeyVersion)
	b = binary.BigEndian.AppendUint16(b, t.Steps)
	return binary.BigEndian.AppendUint64(b, uint64(t.CreatedAt.UnixMilli()))
}

// appendExpiry writes [pci.Expiry.String], which would make garbage for every row of a batch.
func appendExpiry(b []byte, e pci.Expiry) []byte {
	digit := func(n int) byte { return '0' + byte(n%10) }
	return append(b, digit(e.Year/1000), digit(e.Year/100), digit(e.Year/10), digit(e.Year), '-', digit(e.Month/10), digit(e.Month))
}

// Hash returns the row as a leaf of its batch: SHA-256(0x00 ‖ canonical form), as RFC 6962, section 2.1, has it.
func (t Token) Hash() [32]byte { return sha256.Sum256(appendCanonical([]byte{0}, &t)) }

// checkToken refuses a row that a record cannot hold. It never tells a value.
func checkToken(t *Token) error {
	switch {
	case t.Token == "" || len(t.Domain) > maxText || len(t.Token) > maxText-1 || len(t.Image) > maxText:
		return errors.New("store: a token or its domain is empty or too long")
	case len(t.Format) > maxText || len(t.Card.Brand) > maxText || len(t.Card.Truncated) > maxText:
		return errors.New("store: a token's format, brand or truncation is too long")
	case t.Status != TokenActive:
		return errors.New("store: a token is active when it is issued")
	case t.Card.Expiry.Year < 0 || t.Card.Expiry.Year > 9999 || t.Card.Expiry.Month < 0 || t.Card.Expiry.Month > 12:
		return errors.New("store: a token's expiry is not a month")
	case (t.Format == pci.TokenOpaque) != (t.Image != ""):
		return errors.New("store: an opaque token has an image, and no other has one")
	}
	return nil
}
