package iso8583

// text is what a field's content may be given as.
type text interface{ ~string | ~[]byte }

const hexDigits = "0123456789ABCDEF"

// classes has, for each byte, the bits of the kinds in whose fields it may stand.
var classes = func() (table [256]uint8) {
	for c := range table {
		for k := N; k <= B; k++ {
			if stands(k, byte(c)) {
				table[c] |= 1 << k
			}
		}
	}
	return table
}()

// stands reports whether c may stand in a field of kind k, in kind x + n after its first place.
func stands(k Kind, c byte) bool {
	digit := c >= '0' && c <= '9'
	letter := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
	switch k {
	case N, XN:
		return digit
	case A:
		return letter || c == ' '
	case AN:
		return digit || letter || c == ' '
	case ANS:
		return c >= ' ' && c <= '~'
	case Z:
		return c >= 0x30 && c <= 0x3F
	case B:
		return true
	}
	return false
}

// fits reports whether v has only characters of a kind. It looks at all of them, whatever the first ones are: a
// loop without a way out is the faster one.
func fits[T text](k Kind, v T) bool {
	from := 0
	if k == XN && len(v) > 0 {
		if v[0] != 'C' && v[0] != 'D' {
			return false
		}
		from = 1
	}
	all := uint8(0xFF)
	for i := from; i < len(v); i++ {
		all &= classes[v[i]]
	}
	return all>>k&1 == 1
}

// putBCD writes the low nibbles of v's characters, two in a byte, after a zero nibble when their number is odd.
// Kind Z needs no other table: the low nibble of 0x30 to 0x3F is its code.
func putBCD[T text](dst []byte, v T) {
	i := len(v) % 2
	if i == 1 {
		dst[0] = v[0] & 0x0F
		dst = dst[1:]
	}
	for at := 0; at < len(dst) && i+1 < len(v); at++ {
		dst[at] = v[i]<<4 | v[i+1]&0x0F
		i += 2
	}
}

// bcdNibble returns the i-th of n digits in src.
func bcdNibble(src []byte, n, i int) byte {
	at := i + n%2
	return src[at/2] >> (4 * (1 - at%2)) & 0x0F
}

// bcdFits reports whether src is what putBCD makes of n characters of kind k. Each nibble is one of kind Z.
func bcdFits(k Kind, src []byte, n int) bool {
	if n%2 == 1 && src[0]>>4 != 0 {
		return false
	}
	if k == Z {
		return true
	}
	for _, c := range src {
		if c > 0x99 || c&0x0F > 9 {
			return false
		}
	}
	return true
}

// putHex writes two hexadecimal characters for each byte of v.
func putHex[T text](dst []byte, v T) {
	for i := range len(v) {
		dst[2*i], dst[2*i+1] = hexDigits[v[i]>>4], hexDigits[v[i]&0x0F]
	}
}

// hexNibble returns the value of an upper-case hexadecimal character.
func hexNibble(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func hexFits(src []byte) bool {
	for _, c := range src {
		if _, ok := hexNibble(c); !ok {
			return false
		}
	}
	return true
}

// putNumber writes n in as many digits as dst has room for, in ASCII or BCD.
func putNumber(dst []byte, enc Encoding, n int) {
	for i := len(dst) - 1; i >= 0; i-- {
		if enc == BCD {
			dst[i] = byte(n/10%10<<4 | n%10)
			n /= 100
		} else {
			dst[i] = byte('0' + n%10)
			n /= 10
		}
	}
}

// number reads what putNumber writes.
func number(src []byte, enc Encoding) (n int, ok bool) {
	for _, c := range src {
		if enc == BCD {
			if c>>4 > 9 || c&0x0F > 9 {
				return 0, false
			}
			n = n*100 + int(c>>4)*10 + int(c&0x0F)
			continue
		}
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// putBitmap writes 64 bits; the first bit is the highest.
func putBitmap(dst []byte, enc Encoding, bits uint64) {
	for i := range dst {
		if enc == ASCII {
			dst[i] = hexDigits[bits>>(60-4*i)&0x0F]
		} else {
			dst[i] = byte(bits >> (56 - 8*i))
		}
	}
}

func bitmap(src []byte, enc Encoding) (bits uint64, ok bool) {
	for _, c := range src {
		if enc == ASCII {
			nibble, ok := hexNibble(c)
			if !ok {
				return 0, false
			}
			bits = bits<<4 | uint64(nibble)
		} else {
			bits = bits<<8 | uint64(c)
		}
	}
	return bits, true
}
