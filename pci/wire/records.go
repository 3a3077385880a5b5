package wire

import (
	"encoding/binary"
	"errors"
	"net"
	"unsafe"
)

// recordHeader is the length of a record's header; its last two bytes are the length of what follows (RFC 8446, section 5.1).
const recordHeader = 5

// records is the connection below crypto/tls. Records are opened in place, in the memory that is given to Read; crypto/tls
// asks for more only when it has no whole record left, and all that was opened has been taken. What is then left of use is
// the beginning of a record, which lies directly before the memory that is given next.
//
// One goroutine reads at a time, as crypto/tls sees to.
type records struct {
	net.Conn

	filled [][]byte // where bytes were put since the last wipe
	header [recordHeader]byte
	part   int // bytes of the record under way that have come, its header among them
	whole  int // length of the record under way; 0 while its header is not whole
}

// Read implements [net.Conn].
func (r *records) Read(p []byte) (int, error) {
	r.wipe(p)
	n, err := r.Conn.Read(p)
	r.follow(p[:n])
	if n > 0 {
		r.filled = append(r.filled, p[:n])
	}
	if timeout, ok := errors.AsType[net.Error](err); err != nil && (!ok || !timeout.Timeout()) {
		r.end() // nobody will take more
	}
	return n, err
}

// wipe overwrites what was read before, but for the part of a record that lies before next.
func (r *records) wipe(next []byte) {
	to := address(next)
	from := to - uintptr(r.part) //nolint:gosec // counts bytes
	for _, piece := range r.filled {
		begin := address(piece)
		end := begin + uintptr(len(piece))
		clear(piece[:offset(from, begin, end)])
		clear(piece[offset(to, begin, end):])
	}
	if r.part == 0 {
		r.filled = r.filled[:0]
		return
	}
	// The part may have been moved; where it lies now is before next.
	kept := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(next)), -r.part)), r.part) //nolint:gosec // see follow
	r.filled = append(r.filled[:0], kept)
}

// end overwrites all that was read.
func (r *records) end() {
	for _, piece := range r.filled {
		clear(piece)
	}
	r.filled = nil
}

// offset returns where an address lies in a piece of memory: 0 before it, its length behind it.
func offset(at, begin, end uintptr) uintptr { return min(max(at, begin), end) - begin }

func address(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) } //nolint:gosec // for comparison alone

// follow keeps count of where records end.
func (r *records) follow(p []byte) {
	for len(p) > 0 {
		if r.whole == 0 {
			n := copy(r.header[r.part:], p)
			r.part += n
			p = p[n:]
			if r.part < recordHeader {
				return
			}
			r.whole = recordHeader + int(binary.BigEndian.Uint16(r.header[3:]))
		}
		n := min(r.whole-r.part, len(p))
		r.part += n
		p = p[n:]
		if r.part == r.whole {
			r.part, r.whole = 0, 0
		}
	}
}
