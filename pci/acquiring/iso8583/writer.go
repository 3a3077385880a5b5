package iso8583

import "fmt"

// Writer packs one message, field after field in ascending order, into a buffer that the caller owns. It allocates
// nothing and never grows the buffer. The first fault ends it: later fields are not written, and
// [Writer.Finish] returns the fault.
//
// After a fault the buffer holds the fields before it; wiping the buffer is its owner's duty in any case.
//
// Text and Bytes are not inlined: in another package the compiler would see their generic callee without knowing
// that it keeps nothing, and move the Writer to the heap.
type Writer struct {
	spec      *Spec
	buf       []byte
	bitmapAt  int
	bits      [2]uint64
	secondary bool
	last      int
	err       error
}

// NewWriter starts a message of type mti (four digits) after the bytes that dst already has, such as room for a
// frame header, and within its capacity.
func NewWriter(spec *Spec, dst []byte, mti string) Writer {
	w := Writer{spec: spec, buf: dst, last: 1}
	if err := checkMTI(spec, mti); err != nil {
		w.err = err
		return w
	}
	at := len(w.buf)
	if !w.grow(spec.mtiLength() + spec.bitmapLength()) {
		w.err = partError("message", "no room for type and bitmap")
		return w
	}
	w.bitmapAt = at + spec.mtiLength()
	if spec.MTI == BCD {
		putBCD(w.buf[at:w.bitmapAt], mti)
	} else {
		copy(w.buf[at:], mti)
	}
	return w
}

func checkMTI[T text](spec *Spec, mti T) error {
	if len(mti) != 4 || !fits(N, mti) {
		return partError("MTI", "not four digits")
	}
	if mti[0] != spec.Version {
		return partError("MTI", "not of the edition that %s describes", spec.Name)
	}
	return nil
}

// Text writes a field. Shorter values of fixed fields of kinds a, an and ans are filled with spaces on the right;
// all other fixed fields need their exact length. In kind B each byte of value is a byte of content.
//
//go:noinline
func (w *Writer) Text(de int, value string) { put(w, de, value) }

// Bytes writes a field as [Writer.Text] does, without turning value into a string first.
//
//go:noinline
func (w *Writer) Bytes(de int, value []byte) { put(w, de, value) }

// Uint writes a field of kind n, with leading zeros where it is fixed.
func (w *Writer) Uint(de int, value uint64) {
	var digits [20]byte
	at := len(digits)
	for {
		at--
		digits[at] = byte('0' + value%10)
		if value /= 10; value == 0 {
			break
		}
	}
	if de > 1 && de <= MaxField {
		if f := w.spec.Fields[de]; f.Kind == N && f.Format == Fixed {
			for ; at > 0 && len(digits)-at < f.Max; at-- {
				digits[at-1] = '0'
			}
		}
	}
	put(w, de, digits[at:])
}

// Extend gives the message a secondary bitmap even if no field beyond DE 64 follows. Such a field does so by itself.
func (w *Writer) Extend() {
	if w.err != nil || w.secondary {
		return
	}
	n := w.spec.bitmapLength()
	end := len(w.buf)
	if !w.grow(n) {
		w.err = partError("bitmap", "no room for the secondary one")
		return
	}
	after := w.bitmapAt + n
	copy(w.buf[after+n:], w.buf[after:end])
	w.secondary = true
	w.bits[0] |= 1 << 63
}

// Finish completes the bitmaps and returns the buffer from its beginning, or the first fault.
func (w *Writer) Finish() ([]byte, error) {
	if w.err != nil {
		return nil, w.err
	}
	n := w.spec.bitmapLength()
	putBitmap(w.buf[w.bitmapAt:w.bitmapAt+n], w.spec.Bitmap, w.bits[0])
	if w.secondary {
		putBitmap(w.buf[w.bitmapAt+n:w.bitmapAt+2*n], w.spec.Bitmap, w.bits[1])
	}
	return w.buf, nil
}

// Format implements [fmt.Formatter]: a message in the making shows nothing of its content.
func (w Writer) Format(s fmt.State, _ rune) { _, _ = fmt.Fprint(s, "iso8583 message in the making") }

// grow makes room for n more bytes within the capacity.
func (w *Writer) grow(n int) bool {
	if cap(w.buf)-len(w.buf) < n {
		return false
	}
	w.buf = w.buf[:len(w.buf)+n]
	return true
}

func put[T text](w *Writer, de int, value T) {
	if w.err != nil {
		return
	}
	if err := checkValue(w, de, value); err != nil {
		w.err = err
		return
	}
	if de > 64 {
		if w.Extend(); w.err != nil {
			return
		}
	}
	f := &w.spec.Fields[de]
	at := len(w.buf)
	if f.Format == Fixed {
		if !w.grow(w.spec.wireLength(f.Kind, f.Max)) {
			w.err = fieldError(de, "no room for it in the buffer")
			return
		}
	} else {
		prefix := w.spec.prefixLength(f.Format)
		if !w.grow(prefix + w.spec.wireLength(f.Kind, len(value))) {
			w.err = fieldError(de, "no room for it in the buffer")
			return
		}
		putNumber(w.buf[at:at+prefix], w.spec.Length, len(value))
		at += prefix
	}
	putContent(w.spec, f.Kind, w.buf[at:], value)
	w.bits[uint(de-1)/64] |= 1 << (63 - uint(de-1)%64)
	w.last = de
}

// checkValue reports what forbids to write value as the next field.
func checkValue[T text](w *Writer, de int, value T) error {
	if de < 2 || de > MaxField || w.spec.Fields[de].Kind == Undefined {
		return fieldError(de, "not defined in %s", w.spec.Name)
	}
	if de <= w.last {
		return fieldError(de, "written after DE %d", w.last)
	}
	f := &w.spec.Fields[de]
	switch {
	case len(value) > f.Max:
		return fieldError(de, "length %d exceeds %d", len(value), f.Max)
	case f.Format == Fixed && len(value) < f.Max && f.Kind != A && f.Kind != AN && f.Kind != ANS:
		return fieldError(de, "length %d is not %d", len(value), f.Max)
	case !fits(f.Kind, value):
		return fieldError(de, "a character is not of kind %s", f.Kind)
	}
	return nil
}

// putContent fills dst with value and, where value is shorter, with spaces.
func putContent[T text](spec *Spec, k Kind, dst []byte, value T) {
	switch enc := spec.encoding(k); {
	case enc == BCD:
		putBCD(dst, value)
	case k == B && enc == ASCII:
		putHex(dst, value)
	default:
		for i := copy(dst, value); i < len(dst); i++ {
			dst[i] = ' '
		}
	}
}
