package iso8583_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

func TestFrames(t *testing.T) {
	tests := []struct {
		name   string
		header iso8583.Header
		stream string
		want   string
		err    error
	}{
		{"binary", iso8583.Binary2, "\x00\x03abcREST", "abc", nil},
		{"characters", iso8583.ASCII4, "0003abcREST", "abc", nil},
		{"BCD", iso8583.BCD2, "\x00\x12" + strings.Repeat("x", 12) + "REST", strings.Repeat("x", 12), nil},
		{"keep-alive", iso8583.Binary2, "\x00\x00REST", "", nil},
		{"end", iso8583.Binary2, "", "", io.EOF},
		{"half a header", iso8583.Binary2, "\x00", "", io.ErrUnexpectedEOF},
		{"no message", iso8583.Binary2, "\x00\x03", "", io.ErrUnexpectedEOF},
		{"half a message", iso8583.Binary2, "\x00\x03ab", "", io.ErrUnexpectedEOF},
		{"too long", iso8583.Binary2, "\xff\xff", "", iso8583.ErrFrame},
		{"characters that are no number", iso8583.ASCII4, "12x4", "", iso8583.ErrFrame},
		{"nibbles that are no number", iso8583.BCD2, "\x0f\x00", "", iso8583.ErrFrame},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := strings.NewReader(tt.stream)
			got, err := tt.header.ReadFrame(iotest.OneByteReader(r), make([]byte, 100))
			if !errors.Is(err, tt.err) || string(got) != tt.want {
				t.Fatalf("%q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
			if tt.err == nil && r.Len() != len("REST") {
				t.Errorf("%d bytes are left, want 4", r.Len())
			}
		})
	}
}

func TestFrameIsWrittenAsItIsRead(t *testing.T) {
	for _, h := range []iso8583.Header{iso8583.Binary2, iso8583.ASCII4, iso8583.BCD2} {
		for _, n := range []int{0, 1, 99, 255, 256, 4096, iso8583.MaxFrame} {
			frame := make([]byte, h.Size()+n)
			if err := h.Put(frame); err != nil {
				t.Fatal(err)
			}
			got, err := h.ReadFrame(bytes.NewReader(frame), make([]byte, iso8583.MaxFrame))
			if err != nil || len(got) != n {
				t.Errorf("%s: %d bytes, %v; want %d", h, len(got), err, n)
			}
		}
		if err := h.Put(make([]byte, h.Size()+iso8583.MaxFrame+1)); !errors.Is(err, iso8583.ErrFrame) {
			t.Errorf("%s: a frame beyond the maximum: %v", h, err)
		}
		if err := h.Put(nil); !errors.Is(err, iso8583.ErrFrame) {
			t.Errorf("%s: a frame without its header: %v", h, err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add("binary2", []byte("\x00\x03abc"))
	f.Add("ascii4", []byte("0003abc"))
	f.Add("bcd2", []byte("\x00\x03abc"))
	f.Add("binary2", []byte("\xff\xffabc"))
	f.Add("ascii4", []byte("-001"))
	f.Fuzz(func(t *testing.T, name string, stream []byte) {
		h, err := iso8583.HeaderNamed(name)
		if err != nil {
			return
		}
		message, err := h.ReadFrame(bytes.NewReader(stream), make([]byte, 4096))
		if err != nil {
			return
		}
		frame := append(make([]byte, h.Size()), message...)
		if err := h.Put(frame); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(stream, frame) {
			t.Fatalf("read %x as %x", stream, frame)
		}
	})
}
