package pan

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci"
)

var expiry = pci.Expiry{Year: 2030, Month: 7}

func newCard(t testing.TB, number, cvv string) *Card {
	t.Helper()
	c, err := New([]byte(number), []byte(cvv), expiry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Release)
	return c
}

// digits seeks what an error must not quote: the PAN's middle and the CVV.
var digits = regexp.MustCompile(`22463|7382`)

const (
	amex, amexCVV = "378282246310005", "7382"
	// twin has the same truncation, brand and length, and is a valid number too.
	twin, twinCVV = "378282951280005", "9146"
)

// printed is value in every way in which Go prints, encodes or logs things, by the way's name.
func printed(value any) map[string]string {
	ways := make(map[string]string)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%c", "%o", "%U", "%08b", "%T", "%p"} {
		ways[verb] = fmt.Sprintf(verb, value)
	}
	ways["Print"] = fmt.Sprint(value) + fmt.Sprintln(value)
	ways["an error"] = fmt.Errorf("card %v: %w", value, pci.ErrGone).Error()
	if text, err := json.Marshal(value); err == nil {
		ways["JSON"] = string(text)
	}
	for name, log := range handlers() {
		log.Info("card", "card", value, slog.Group("g", "card", value))
		log.With("card", value).Info("card", "text", fmt.Sprint(value))
		ways["slog, "+name] = log.text.String()
	}
	return ways
}

// showing returns the ways of printing value whose result depends on which of two cards stands in the slot. Addresses
// are printed too, and any digits may stand in one by chance; but they do not change with the card.
func showing(t *testing.T, slot *Slot, value any) (ways []string) {
	t.Helper()
	one := bytes.Clone(slot.Bytes())
	first := printed(value)
	other := newCard(t, twin, twinCVV)
	copy(slot.Bytes(), other.Record())
	second := printed(value)
	copy(slot.Bytes(), one)
	for way, text := range first {
		if second[way] != text {
			ways = append(ways, fmt.Sprintf("%s: %.200s", way, text))
		}
	}
	return ways
}

func TestACardIsNeverPrinted(t *testing.T) {
	card := newCard(t, amex, amexCVV)
	type box struct {
		Card   *Card
		Slot   *Slot
		inner  *Card
		hidden Card
		slot   Slot
	}
	inside := box{Card: card, Slot: card.slot, inner: card, hidden: *card, slot: *card.slot}
	for _, value := range []any{
		card, *card, &card, card.slot, *card.slot, &card.slot, inside, &inside,
		[]*Card{card}, []Card{*card}, []any{card, *card.slot}, map[string]*Card{"card": card}, []*Slot{card.slot},
		[]Slot{*card.slot}, []box{inside}, [1]box{inside}, struct{ any }{*card.slot},
	} {
		for _, way := range showing(t, card.slot, value) {
			t.Errorf("%T shows digits by %s", value, way)
		}
	}
	if got, want := fmt.Sprintf("%v|%x|%d", card, card, card), strings.Repeat("|378282*****0005", 3)[1:]; got != want {
		t.Errorf("printed as %s, want %s", got, want)
	}
}

func TestASlotOfAMessageIsNeverPrinted(t *testing.T) {
	slot, err := NewSlot()
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Release()
	copy(slot.Bytes(), amex)
	for _, value := range []any{slot, *slot, struct{ s Slot }{*slot}, struct{ s *Slot }{slot}} {
		for _, way := range showing(t, slot, value) {
			t.Errorf("%T shows digits by %s", value, way)
		}
	}
}

// What the two tests above find nothing with does find something.
func TestAPrintedDigitIsFound(t *testing.T) {
	card := newCard(t, amex, amexCVV)
	type open struct{ memory *[slotSize]byte }
	for _, value := range []any{
		card.slot.Bytes()[:RecordSize], struct{ pan []byte }{card.pan()}, struct{ cvv []byte }{card.cvv()}, &open{*card.slot.mem},
	} {
		if len(showing(t, card.slot, value)) == 0 {
			t.Errorf("%T: not found", value)
		}
	}
}

type logger struct {
	*slog.Logger
	text *bytes.Buffer
}

// timeless leaves out what changes from line to line.
var timeless = &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}}

func handlers() map[string]logger {
	text, js := new(bytes.Buffer), new(bytes.Buffer)
	return map[string]logger{
		"text": {slog.New(slog.NewTextHandler(text, timeless)), text},
		"JSON": {slog.New(slog.NewJSONHandler(js, timeless)), js},
	}
}

func TestReleaseWipes(t *testing.T) {
	card, err := New([]byte(amex), []byte(amexCVV), expiry)
	if err != nil {
		t.Fatal(err)
	}
	mem := *card.slot.mem
	if !bytes.Contains(mem[:], []byte(amex)) {
		t.Fatal("the card is not where the test looks for it")
	}
	card.Release()
	if *mem != [slotSize]byte{} {
		t.Error("bytes are left after Release")
	}
	card.Release()
	if got := fmt.Sprint(card); got != "(no card)" {
		t.Errorf("a released card prints as %q", got)
	}
}

func TestAReleasedSlotIsGivenOutOnce(t *testing.T) {
	slot, err := NewSlot()
	if err != nil {
		t.Fatal(err)
	}
	slot.Release()
	slot.Release()
	slots := takeAll(t)
	seen := make(map[**[slotSize]byte]bool)
	for _, s := range slots {
		if seen[s.mem] {
			t.Fatal("one piece of memory was given out twice")
		}
		seen[s.mem] = true
	}
}

// takeAll holds all locked memory until the test ends.
func takeAll(t *testing.T) (slots []*Slot) {
	t.Helper()
	for {
		slot, err := NewSlot()
		if errors.Is(err, ErrMemory) {
			return slots
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(slot.Release)
		if slots = append(slots, slot); len(slots) > defaultSlots {
			t.Fatalf("%d slots and no end", len(slots))
		}
	}
}

func TestNoMemoryIsNoRoom(t *testing.T) {
	slots := takeAll(t)
	if len(slots) != defaultSlots {
		t.Errorf("%d slots, want %d", len(slots), defaultSlots)
	}
	if _, err := New([]byte(amex), []byte(amexCVV), expiry); !errors.Is(err, pci.ErrFull) {
		t.Errorf("a card without memory: %v, want pci.ErrFull", err)
	}
	slots[0].Release()
	newCard(t, amex, amexCVV).Release()
}

func TestRefusedCardsTakeNoMemory(t *testing.T) {
	for range 2 * defaultSlots {
		if _, err := New([]byte("4111111111111112"), nil, expiry); err == nil {
			t.Fatal("accepted")
		}
		slot, err := NewSlot()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := FromRecord(slot); err == nil {
			t.Fatal("accepted")
		}
	}
}

func TestSlotsAreSafeForConcurrentUse(t *testing.T) {
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for range 200 {
				slot, err := NewSlot()
				if err != nil {
					t.Error(err)
					return
				}
				binary.BigEndian.PutUint64(slot.Bytes(), uint64(worker)+1)
				if got := binary.BigEndian.Uint64(slot.Bytes()); got != uint64(worker)+1 {
					t.Errorf("slot of worker %d has %d", worker, got)
				}
				slot.Release()
			}
		})
	}
	wg.Wait()
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := drawPAN(t)
		cvv := rapid.SampledFrom([]string{"", "123"}).Draw(t, "cvv")
		if brandOf([]byte(number)) == pci.Amex && cvv != "" {
			cvv = "1234"
		}
		want := pci.Expiry{Year: rapid.IntRange(2000, 2099).Draw(t, "year"), Month: rapid.IntRange(1, 12).Draw(t, "month")}
		card, err := New([]byte(number), []byte(cvv), want)
		if err != nil {
			t.Fatal(err)
		}
		defer card.Release()
		slot, err := NewSlot()
		if err != nil {
			t.Fatal(err)
		}
		if n := copy(slot.Bytes(), card.Record()); n != RecordSize {
			t.Fatalf("a record of %d bytes", n)
		}
		again, err := FromRecord(slot)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Release()
		if got := reveal(t, again.RevealPAN); got != number {
			t.Fatalf("PAN %s, want %s", got, number)
		}
		if got := reveal(t, again.RevealCVV); got != cvv || again.HasCVV() != (cvv != "") {
			t.Fatalf("CVV %q, want %q", got, cvv)
		}
		if again.Expiry() != want || again.Length() != len(number) || again.Describe() != card.Describe() {
			t.Fatalf("%+v, want %+v", again.Describe(), card.Describe())
		}
	})
}

func reveal(t rapid.TB, lend func(func([]byte) error) error) (out string) {
	if err := lend(func(digits []byte) error { out = string(digits); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// drawPAN draws any valid PAN.
func drawPAN(t *rapid.T) string {
	n := rapid.IntRange(MinLength, MaxLength).Draw(t, "length")
	number := rapid.StringOfN(rapid.RuneFrom([]rune("0123456789")), n-1, n-1, -1).Draw(t, "digits")
	return number + string(Missing([]byte(number+"0")))
}

// FuzzFromRecord wants every record either refused or understood to the last byte.
func FuzzFromRecord(f *testing.F) {
	for _, c := range []struct{ number, cvv string }{{amex, amexCVV}, {"4111111111111111", ""}, {"6304000000000000", "123"}} {
		card, err := New([]byte(c.number), []byte(c.cvv), expiry)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(card.Record()))
		card.Release()
	}
	f.Add(make([]byte, RecordSize))
	f.Add(bytes.Repeat([]byte{0xff}, RecordSize))
	f.Fuzz(func(t *testing.T, record []byte) {
		slot, err := NewSlot()
		if err != nil {
			t.Fatal(err)
		}
		copy(slot.Bytes(), record)
		card, err := FromRecord(slot)
		if err != nil {
			if digits.MatchString(err.Error()) {
				t.Errorf("the refusal shows digits: %v", err)
			}
			return
		}
		defer card.Release()
		again, err := New([]byte(reveal(t, card.RevealPAN)), []byte(reveal(t, card.RevealCVV)), card.Expiry())
		if err != nil {
			t.Fatalf("a record was taken that no card has: %v", err)
		}
		again.Release()
	})
}

func TestDamagedRecordsAreRefused(t *testing.T) {
	for name, damage := range map[string]func(record []byte){
		"version":     func(r []byte) { r[offVersion] = 2 },
		"all zero":    func(r []byte) { clear(r) },
		"month 0":     func(r []byte) { r[offMonth] = 0 },
		"month 13":    func(r []byte) { r[offMonth] = 13 },
		"year 2100":   func(r []byte) { r[offYear] = 100 },
		"PAN length":  func(r []byte) { r[offPANLen]-- },
		"PAN too big": func(r []byte) { r[offPANLen] = 255 },
		"PAN digit":   func(r []byte) { r[offPAN+3] ^= 1 },
		"PAN letter":  func(r []byte) { r[offPAN+3] = 'a' },
		"CVV too big": func(r []byte) { r[offCVVLen] = 255 },
		"CVV length":  func(r []byte) { r[offCVVLen] = 3 },
		"CVV letter":  func(r []byte) { r[offCVV] = 'a' },
	} {
		t.Run(name, func(t *testing.T) {
			card := newCard(t, amex, amexCVV)
			slot, err := NewSlot()
			if err != nil {
				t.Fatal(err)
			}
			copy(slot.Bytes(), card.Record())
			damage(slot.Bytes()[:RecordSize])
			mem := *slot.mem
			if _, err := FromRecord(slot); err == nil {
				t.Error("accepted")
			}
			if *mem != [slotSize]byte{} {
				t.Error("a refused record is left in memory")
			}
		})
	}
}

func TestOneWrongDigitIsAlwaysCaught(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := []byte(drawPAN(t))
		if err := CheckPAN(number); err != nil {
			t.Fatal(err)
		}
		at := rapid.IntRange(0, len(number)-1).Draw(t, "position")
		number[at] = '0' + (number[at]-'0'+byte(rapid.IntRange(1, 9).Draw(t, "shift")))%10
		if e, ok := errors.AsType[*pci.CardError](CheckPAN(number)); !ok || e.Reason != pci.ReasonChecksum {
			t.Fatalf("%s passed", number)
		}
	})
}

func TestMissingDigitIsRestored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := []byte(drawPAN(t))
		at := len(number) - 1 - 2*rapid.IntRange(0, (len(number)-1)/2).Draw(t, "place")
		want := number[at]
		number[at] = '0'
		if got := Missing(number); got != want {
			t.Fatalf("%c, want %c", got, want)
		}
	})
}

func TestWhatIsNoPAN(t *testing.T) {
	for number, want := range map[string]pci.CardReason{
		"":                            pci.ReasonMissing,
		"4111111111111112":            pci.ReasonChecksum,
		"00000000000":                 pci.ReasonLength,
		"00000000000000000000":        pci.ReasonLength,
		"4111 1111 1111 1111":         pci.ReasonNotDigits,
		"411111111111111a":            pci.ReasonNotDigits,
		fullWidth("4111111111111111"): pci.ReasonNotDigits,
		"٤١١١١١١١١١١١١١١١":            pci.ReasonNotDigits,
	} {
		if e, ok := errors.AsType[*pci.CardError](CheckPAN([]byte(number))); !ok || e.Field != pci.FieldNumber || e.Reason != want {
			t.Errorf("%q: %v, want %s", number, e, want)
		}
	}
}

// fullWidth writes digits as U+FF10 and following, which look alike.
func fullWidth(s string) string {
	return strings.Map(func(r rune) rune { return r - '0' + '\uff10' }, s)
}

func TestSecurityCodes(t *testing.T) {
	for _, c := range []struct {
		number, cvv string
		want        pci.CardReason
	}{
		{"4111111111111111", "123", ""},
		{"4111111111111111", "1234", pci.ReasonLength},
		{"4111111111111111", "12", pci.ReasonLength},
		{"4111111111111111", "", pci.ReasonMissing},
		{"4111111111111111", "12a", pci.ReasonNotDigits},
		{"4111111111111111", fullWidth("123"), pci.ReasonNotDigits},
		{amex, "1234", ""},
		{amex, "123", pci.ReasonLength},
	} {
		e, refused := errors.AsType[*pci.CardError](CheckCVV([]byte(c.number), []byte(c.cvv)))
		if refused != (c.want != "") || refused && (e.Reason != c.want || e.Field != pci.FieldCVV) {
			t.Errorf("%s with %q: %v, want %q", c.number, c.cvv, e, c.want)
		}
	}
}

func TestExpiriesOutOfRangeAreRefused(t *testing.T) {
	for _, e := range []pci.Expiry{{}, {Year: 1999, Month: 1}, {Year: 2100, Month: 1}, {Year: 2030, Month: 0}, {Year: 2030, Month: 13}, {Year: 30, Month: 1}} {
		if _, err := New([]byte(amex), nil, e); err == nil {
			t.Errorf("%s was accepted", e)
		}
	}
}

func TestTruncation(t *testing.T) {
	for number, want := range map[string]pci.Truncated{
		"123456789012":        "********9012",
		"1234567890123":       "*********0123",
		"12345678901234":      "**********1234",
		"123456789012345":     "123456*****2345",
		"1234567890123456":    "123456******3456",
		"12345678901234567":   "123456*******4567",
		"123456789012345678":  "123456********5678",
		"1234567890123456789": "123456*********6789",
	} {
		if got := truncate([]byte(number)); got != want {
			t.Errorf("%d digits: %s, want %s", len(number), got, want)
		}
	}
}

func TestBrands(t *testing.T) {
	for _, c := range []struct {
		from, to string // first six digits
		want     pci.Brand
	}{
		{"400000", "499999", pci.Visa},
		{"222100", "272099", pci.Mastercard},
		{"510000", "559999", pci.Mastercard},
		{"340000", "349999", pci.Amex},
		{"370000", "379999", pci.Amex},
		{"300000", "305999", pci.Diners},
		{"309500", "309599", pci.Diners},
		{"360000", "369999", pci.Diners},
		{"380000", "399999", pci.Diners},
		{"352800", "358999", pci.JCB},
		{"601100", "601199", pci.Discover},
		{"644000", "659999", pci.Discover},
		{"620000", "629999", pci.UnionPay},
		{"810000", "817199", pci.UnionPay},
		{"500000", "509999", pci.Maestro},
		{"560000", "589999", pci.Maestro},
		{"600000", "601099", pci.Maestro},
		{"601200", "619999", pci.Maestro},
		{"630000", "643999", pci.Maestro},
		{"660000", "699999", pci.Maestro},
		// in no range
		{"000000", "222099", pci.Other},
		{"272100", "299999", pci.Other},
		{"306000", "309499", pci.Other},
		{"309600", "339999", pci.Other},
		{"350000", "352799", pci.Other},
		{"359000", "359999", pci.Other},
		{"590000", "599999", pci.Other},
		{"700000", "809999", pci.Other},
		{"817200", "999999", pci.Other},
	} {
		for _, edge := range []string{c.from, c.to} {
			if got := brandOf([]byte(edge + "0000000000")); got != c.want {
				t.Errorf("%s is %s, want %s", edge, got, c.want)
			}
		}
	}
}

func TestNothingHereCanBeCompared(t *testing.T) {
	for _, kind := range []reflect.Type{reflect.TypeFor[Card](), reflect.TypeFor[Slot](), reflect.TypeFor[Area](), reflect.TypeFor[Batch]()} {
		if kind.Comparable() {
			t.Errorf("%s can be compared", kind)
		}
	}
}
