package iso8583_test

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci/acquiring/iso8583"
)

var characters = map[iso8583.Kind][]rune{
	iso8583.N:   []rune("0123456789"),
	iso8583.A:   []rune("ABCXYZabcxyz "),
	iso8583.AN:  []rune("ABCXYZabcxyz 0189"),
	iso8583.ANS: []rune(" !~^=+/09AZaz"),
	iso8583.Z:   []rune("0123456789:;<=>?"),
}

// value draws the content of a field; a fixed one has its full length.
func value(t *rapid.T, f iso8583.Field) string {
	least := 0
	if f.Format == iso8583.Fixed {
		least = f.Max
	}
	switch f.Kind {
	case iso8583.B:
		return string(rapid.SliceOfN(rapid.Byte(), least, f.Max).Draw(t, f.Name))
	case iso8583.XN:
		return rapid.SampledFrom([]string{"C", "D"}).Draw(t, "sign") +
			rapid.StringOfN(rapid.RuneFrom(characters[iso8583.N]), f.Max-1, f.Max-1, -1).Draw(t, f.Name)
	}
	return rapid.StringOfN(rapid.RuneFrom(characters[f.Kind]), least, f.Max, -1).Draw(t, f.Name)
}

func TestEveryMessageParsesToWhatWasPacked(t *testing.T) {
	for _, spec := range specs {
		t.Run(spec.Name, rapid.MakeCheck(func(t *rapid.T) {
			chosen := rapid.SliceOfNDistinct(rapid.IntRange(2, iso8583.MaxField), 0, 12, rapid.ID[int]).Draw(t, "fields")
			want := map[int]string{}
			w := iso8583.NewWriter(spec, make([]byte, 0, 32<<10), string(spec.Version)+"200")
			for de := 2; de <= iso8583.MaxField; de++ {
				if f := spec.Fields[de]; f.Kind != iso8583.Undefined && slices.Contains(chosen, de) {
					want[de] = value(t, f)
					w.Text(de, want[de])
				}
			}
			wire, err := w.Finish()
			if err != nil {
				t.Fatal(err)
			}
			if len(wire) > iso8583.MaxFrame {
				t.Skip("longer than a frame")
			}
			m, err := iso8583.Parse(spec, wire)
			if err != nil {
				t.Fatal(err)
			}
			for de := range m.Fields() {
				if got := string(m.AppendTo(nil, de)); got != want[de] {
					t.Fatalf("DE %d is %q, want %q", de, got, want[de])
				}
				delete(want, de)
			}
			if len(want) != 0 {
				t.Fatalf("fields are lost: %v", want)
			}
			again, err := repack(spec, m)
			if err != nil || !bytes.Equal(again, wire) {
				t.Fatalf("packs again to %x, %v; want %x", again, err, wire)
			}
		}))
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range messages {
		wire, err := pack(tt.spec, tt.mti, tt.fields)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(slices.Index(specs, tt.spec)), wire)
	}
	f.Add(uint8(0), []byte("0200"+"4000000000000000"+"99"))
	f.Add(uint8(0), []byte("0800"+"8000000000000000"+"0000000000000000"))
	f.Fuzz(func(t *testing.T, which uint8, wire []byte) {
		spec := specs[int(which)%len(specs)]
		before := bytes.Clone(wire)
		m, err := iso8583.Parse(spec, wire)
		if !bytes.Equal(before, wire) {
			t.Fatal("parsing changed the message")
		}
		if err != nil {
			return
		}
		again, err := repack(spec, m)
		if err != nil {
			t.Fatalf("accepted, but cannot be packed: %v", err)
		}
		if !bytes.Equal(again, wire) {
			t.Fatalf("accepted %x, packs to %x", wire, again)
		}
		m.WipeCardData()
		_ = m.String()
	})
}
