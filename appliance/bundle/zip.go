package bundle

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// The parts of a ZIP as a bundle has them (PKWARE APPNOTE 6.3.10, section 4.3): files are stored, in one disk, with sizes
// known before their data, no extra fields but ZIP64's, no comments, and the first day of 1980. Nothing of it depends
// on where or when it was made.

// maxFile is the size of the largest file: a tile of the largest entries.
const maxFile = 256 * (2 + 1<<16 - 1)

// maxName is the length of the longest name.
const maxName = 64

const (
	localSignature   = 0x04034b50
	centralSignature = 0x02014b50
	localLength      = 30 // without the name
	versionStored    = 10
	versionZIP64     = 45
	madeOnUnix       = 3<<8 | versionZIP64
	firstDay         = 1<<5 | 1             // 1980-01-01
	regularFile      = 0o100644 << 16       // read by all, written by its owner
	all16, all32     = 1<<16 - 1, 1<<32 - 1 // "see ZIP64"
)

// stored is what a ZIP says of a file.
type stored struct {
	name   string
	crc    uint32
	size   uint32
	offset int64 // of its local header
}

// common is what local and central header share: flags, method, time, date, CRC-32, sizes, lengths.
func (f stored) common(b []byte, extra int) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, 0) // flags: names are ASCII
	b = le.AppendUint16(b, 0) // stored
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, firstDay)
	b = le.AppendUint32(b, f.crc)
	b = le.AppendUint32(b, f.size)
	b = le.AppendUint32(b, f.size)
	b = le.AppendUint16(b, uint16(len(f.name)))
	return le.AppendUint16(b, uint16(extra))
}

// local is the header before the file's data (4.3.7).
func (f stored) local() []byte {
	b := binary.LittleEndian.AppendUint32(nil, localSignature)
	b = binary.LittleEndian.AppendUint16(b, versionStored)
	return append(f.common(b, 0), f.name...)
}

// central is the file's header in the directory (4.3.12).
func (f stored) central() []byte {
	le := binary.LittleEndian
	version, offset, extra := uint16(versionStored), uint32(min(f.offset, all32)), []byte(nil)
	if f.offset >= all32 { // 4.5.3
		version = versionZIP64
		extra = le.AppendUint64(le.AppendUint16(le.AppendUint16(nil, 1), 8), uint64(f.offset))
	}
	b := le.AppendUint32(nil, centralSignature)
	b = le.AppendUint16(b, madeOnUnix)
	b = le.AppendUint16(b, version)
	b = f.common(b, len(extra))
	b = le.AppendUint16(b, 0) // comment
	b = le.AppendUint16(b, 0) // disk
	b = le.AppendUint16(b, 0) // internal attributes
	b = le.AppendUint32(b, regularFile)
	b = le.AppendUint32(b, offset)
	return append(append(b, f.name...), extra...)
}

// end is what follows the directory (4.3.14 to 4.3.16).
func end(files, offset, length int64) []byte {
	le := binary.LittleEndian
	var b []byte
	if files >= all16 || offset >= all32 || length >= all32 {
		b = le.AppendUint32(b, 0x06064b50)
		b = le.AppendUint64(b, 44) // of the rest of this record
		b = le.AppendUint16(b, madeOnUnix)
		b = le.AppendUint16(b, versionZIP64)
		b = le.AppendUint64(b, 0) // disks
		b = le.AppendUint64(b, uint64(files))
		b = le.AppendUint64(b, uint64(files))
		b = le.AppendUint64(b, uint64(length))
		b = le.AppendUint64(b, uint64(offset))
		b = le.AppendUint32(b, 0x07064b50)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, uint64(offset+length))
		b = le.AppendUint32(b, 1)
	}
	b = le.AppendUint32(b, 0x06054b50)
	b = le.AppendUint32(b, 0) // disks
	b = le.AppendUint16(b, uint16(min(files, all16)))
	b = le.AppendUint16(b, uint16(min(files, all16)))
	b = le.AppendUint32(b, uint32(min(length, all32)))
	b = le.AppendUint32(b, uint32(min(offset, all32)))
	return le.AppendUint16(b, 0) // comment
}

// Archive writes a ZIP as a bundle is one, from its first byte to its last.
type Archive struct {
	out       *bufio.Writer
	files     int64
	offset    int64
	directory bytes.Buffer // some 80 bytes a file
}

// NewArchive begins a ZIP.
func NewArchive(out io.Writer) *Archive { return &Archive{out: bufio.NewWriterSize(out, 1<<18)} }

// Add writes a file.
func (w *Archive) Add(name string, data []byte) error {
	if len(data) > maxFile || len(name) > maxName {
		return fmt.Errorf("bundle: %s has %d bytes; %d are the most", name, len(data), maxFile)
	}
	f := stored{name, crc32.ChecksumIEEE(data), uint32(len(data)), w.offset}
	w.directory.Write(f.central())
	w.files++
	for _, part := range [][]byte{f.local(), data} {
		n, err := w.out.Write(part)
		w.offset += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// Close writes what follows the files. It does not close what the archive is written to.
func (w *Archive) Close() error {
	length := int64(w.directory.Len())
	if _, err := w.directory.WriteTo(w.out); err != nil {
		return err
	}
	if _, err := w.out.Write(end(w.files, w.offset, length)); err != nil {
		return err
	}
	return w.out.Flush()
}

// Reader reads the files of a bundle, in their order, from a stream. It holds one of them, and trusts no length.
type Reader struct {
	in     *bufio.Reader
	files  int64
	offset int64
	data   bytes.Buffer

	directory hash.Hash // of the directory that must follow
	length    int64     // of it
	sum       uint32    // of the file's data, as its header has it
	unchecked bool      // the sum was not compared yet
}

// NewReader begins to read a bundle.
func NewReader(in io.Reader) *Reader {
	return &Reader{in: bufio.NewReaderSize(in, 1<<15), directory: sha256.New()}
}

// Peek returns the name of the next file, or an empty one where the files end.
func (r *Reader) Peek() (string, error) {
	if err := r.checked(); err != nil {
		return "", err
	}
	header, err := r.in.Peek(4)
	if err != nil {
		return "", r.cut(err)
	}
	if binary.LittleEndian.Uint32(header) == centralSignature {
		return "", nil
	}
	if header, err = r.in.Peek(localLength); err != nil {
		return "", r.cut(err)
	}
	n := int(binary.LittleEndian.Uint16(header[26:]))
	if n > maxName {
		return "", r.malformed("a name of %d bytes", n)
	}
	if header, err = r.in.Peek(localLength + n); err != nil {
		return "", r.cut(err)
	}
	return string(header[localLength:]), nil
}

// Next reads the next file, which must have this name. The data is valid until the next call. Its check sum is compared
// by the call after this one, so that a caller who knows better what is wrong with the data can say so first.
func (r *Reader) Next(name string) ([]byte, error) {
	found, err := r.Peek()
	if err != nil {
		return nil, err
	}
	if found != name {
		return nil, r.malformed("%q stands where %q should", found, name)
	}
	header := make([]byte, localLength+len(name))
	if _, err := io.ReadFull(r.in, header); err != nil {
		return nil, r.cut(err)
	}
	f := stored{name, binary.LittleEndian.Uint32(header[14:]), binary.LittleEndian.Uint32(header[18:]), r.offset}
	if !bytes.Equal(header, f.local()) {
		return nil, r.malformed("the header of %q is not that of a stored file", name)
	}
	if f.size > maxFile {
		return nil, r.malformed("%q has %d bytes; %d are the most", name, f.size, maxFile)
	}
	r.data.Reset()
	if _, err := io.CopyN(&r.data, r.in, int64(f.size)); err != nil {
		return nil, r.cut(err)
	}
	central := f.central()
	r.directory.Write(central)
	r.files, r.length, r.offset = r.files+1, r.length+int64(len(central)), r.offset+int64(len(header))+int64(f.size)
	r.sum, r.unchecked = f.crc, true
	return r.data.Bytes(), nil
}

// Close compares what follows the last file. The bundle must end there.
func (r *Reader) Close() error {
	if err := r.checked(); err != nil {
		return err
	}
	got := sha256.New()
	if _, err := io.CopyN(got, r.in, r.length); err != nil {
		return r.cut(err)
	}
	if !bytes.Equal(got.Sum(nil), r.directory.Sum(nil)) {
		return r.malformed("its directory is not that of its files")
	}
	want := end(r.files, r.offset, r.length)
	rest, err := io.ReadAll(io.LimitReader(r.in, int64(len(want))+1))
	if err != nil {
		return r.cut(err)
	}
	if !bytes.Equal(rest, want) {
		return r.malformed("it does not end as a ZIP of its files does")
	}
	return nil
}

// checked compares the check sum of the file that was read last.
func (r *Reader) checked() error {
	if r.unchecked && crc32.ChecksumIEEE(r.data.Bytes()) != r.sum {
		return r.malformed("file %d does not match its check sum", r.files)
	}
	r.unchecked = false
	return nil
}

func (r *Reader) malformed(format string, args ...any) error {
	return fmt.Errorf("%w near byte %d: %s", ErrMalformed, r.offset, fmt.Sprintf(format, args...))
}

func (r *Reader) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.malformed("it ends early")
	}
	return fmt.Errorf("read the bundle: %w", err)
}
