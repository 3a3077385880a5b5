package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
)

// objects is an HSM's session objects, in memory.
type objects struct {
	mu     sync.Mutex
	values [][]byte
	fault  error
}

func (o *objects) Create(_ context.Context, value []byte, _ string) (uint64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.values = append(o.values, bytes.Clone(value))
	return uint64(len(o.values) - 1), o.fault
}

func (o *objects) Read(_ context.Context, handle uint64, dst []byte, _ string) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return copy(dst, o.values[handle]), nil
}

func (o *objects) Destroy(context.Context, uint64) error { return nil }

// today is when these tests happen.
var today = time.Date(2026, time.November, 23, 9, 0, 0, 0, time.UTC)

type bench struct {
	*Forms
	store *custody.Store
	hsm   *objects
}

func newBench() bench {
	hsm := &objects{}
	store := custody.New(hsm, custody.Config{Deadline: time.Hour, Capacity: 1 << 20})
	return bench{New(store, nil, true, func() time.Time { return today }), store, hsm}
}

// post hands a body to the intake.
func (b bench) post(body string) (pci.CardRef, pci.Entered, error) {
	return b.Take(request(strings.NewReader(body)), "pay_1", nil)
}

func request(body io.Reader) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/checkout/x", body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// held returns what is in custody behind ref.
func (b bench) held(t *testing.T, ref pci.CardRef) (number, cvv string, expiry pci.Expiry) {
	t.Helper()
	err := lend.OfCustody(b.store).Lend(t.Context(), ref, "pay_1", func(c *pan.Card) error {
		expiry = c.Expiry()
		return errors.Join(
			c.RevealPAN(func(d []byte) error { number = string(d); return nil }),
			c.RevealCVV(func(d []byte) error { cvv = string(d); return nil }))
	})
	if err != nil {
		t.Fatal(err)
	}
	return number, cvv, expiry
}

// with returns a good form with some fields replaced; a value of "-" leaves a field out.
func with(fields ...string) string {
	form := url.Values{"number": {"4111 1111 1111 1111"}, "expiry": {"07/30"}, "cvv": {"738"}, "name": {"Zoë O’Neill-Łukasz"}}
	for i := 0; i < len(fields); i += 2 {
		if form.Set(fields[i], fields[i+1]); fields[i+1] == "-" {
			form.Del(fields[i])
		}
	}
	return form.Encode()
}

func TestAGoodForm(t *testing.T) {
	for _, c := range []struct {
		body, number, cvv, name, form string
		brand                         pci.Brand
		truncated                     pci.Truncated
	}{
		{with(), "4111111111111111", "738", "Zoë O’Neill-Łukasz", "", pci.Visa, "411111******1111"},
		{with("number", "4111-1111-1111-1111"), "4111111111111111", "738", "Zoë O’Neill-Łukasz", "", pci.Visa, "411111******1111"},
		{with("number", "3782 822463 10005", "cvv", " 7382 "), "378282246310005", "7382", "Zoë O’Neill-Łukasz", "", pci.Amex, "378282*****0005"},
		{with("number", "30569309025904", "name", "-"), "30569309025904", "738", "", "", pci.Diners, "**********5904"},
		{with("form", "00112233445566778899aabbccddeeff", "name", "  李 小龙 "), "4111111111111111", "738", "李 小龙", "00112233445566778899aabbccddeeff", pci.Visa, "411111******1111"},
		{"&number=%34111+1111+1111+1111&&expiry=2030-07&cvv=738&", "4111111111111111", "738", "", "", pci.Visa, "411111******1111"},
	} {
		b := newBench()
		ref, entered, err := b.post(c.body)
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		want := pci.Entered{
			Card: pci.Card{Brand: c.brand, Truncated: c.truncated, Expiry: pci.Expiry{Year: 2030, Month: 7}},
			Name: c.name, Form: c.form,
		}
		if entered != want {
			t.Errorf("entered %+v, want %+v", entered, want)
		}
		number, cvv, expiry := b.held(t, ref)
		if number != c.number || cvv != c.cvv || expiry != want.Card.Expiry {
			t.Errorf("held %s %s %s, want %s %s", number, cvv, expiry, c.number, c.cvv)
		}
	}
}

// fullWidth and arabicIndic write digits in ways that look like digits and are not ASCII.
func fullWidth(s string) string   { return shift(s, '\uff10') }
func arabicIndic(s string) string { return shift(s, '\u0660') }

func shift(s string, zero rune) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return r
		}
		return zero + r - '0'
	}, s)
}

func TestWhatIsWrongWithACardIsSaidAllAtOnce(t *testing.T) {
	const number, expiry, cvv, name = pci.FieldNumber, pci.FieldExpiry, pci.FieldCVV, pci.FieldName
	type wrong = map[pci.CardField]pci.CardReason
	for _, c := range []struct {
		body string
		want wrong
	}{
		{"", wrong{number: pci.ReasonMissing, expiry: pci.ReasonMissing, cvv: pci.ReasonMissing}},
		{"number=&expiry=&cvv=&name=", wrong{number: pci.ReasonMissing, expiry: pci.ReasonMissing, cvv: pci.ReasonMissing}},
		{"number&expiry&cvv&name", wrong{number: pci.ReasonMissing, expiry: pci.ReasonMissing, cvv: pci.ReasonMissing}},
		{with("number", "-"), wrong{number: pci.ReasonMissing}},
		{with("number", " - "), wrong{number: pci.ReasonMissing}},
		{with("cvv", "-"), wrong{cvv: pci.ReasonMissing}},
		{with("expiry", "-"), wrong{expiry: pci.ReasonMissing}},
		{with("number", "4111 1111 1111 1112"), wrong{number: pci.ReasonChecksum}},
		{with("number", "4111 1111 1111 111O"), wrong{number: pci.ReasonNotDigits}},
		{with("number", "4111 1111"), wrong{number: pci.ReasonLength}},
		{with("number", "41111111111111111111"), wrong{number: pci.ReasonLength}},
		{with("number", fullWidth("4111111111111111")), wrong{number: pci.ReasonNotDigits}},
		{with("number", arabicIndic("4111111111111111")), wrong{number: pci.ReasonNotDigits}},
		{with("number", "4111.1111.1111.1111"), wrong{number: pci.ReasonNotDigits}},
		{with("cvv", "73"), wrong{cvv: pci.ReasonLength}},
		{with("cvv", "7382"), wrong{cvv: pci.ReasonLength}},
		{with("cvv", "73a"), wrong{cvv: pci.ReasonNotDigits}},
		{with("cvv", fullWidth("738")), wrong{cvv: pci.ReasonNotDigits}},
		{with("number", "378282246310005"), wrong{cvv: pci.ReasonLength}},
		{with("expiry", "10/26"), wrong{expiry: pci.ReasonExpired}},
		{with("expiry", "13/30"), wrong{expiry: pci.ReasonFormat}},
		{with("expiry", fullWidth("07/30")), wrong{expiry: pci.ReasonFormat}},
		{with("name", "4111 1111 1111 1111"), wrong{name: pci.ReasonFormat}},
		{with("name", "Zoe 7"), wrong{name: pci.ReasonFormat}},
		{with("name", fullWidth("4111111111111111")), wrong{name: pci.ReasonFormat}},
		{with("name", arabicIndic("4111111111111111")), wrong{name: pci.ReasonFormat}},
		{with("name", "Louis ⅩⅣ"), wrong{name: pci.ReasonFormat}},   // Nl
		{with("name", "④①①①①①"), wrong{name: pci.ReasonFormat}},     // No
		{with("name", "x²"), wrong{name: pci.ReasonFormat}},         // No
		{with("name", "𝟺𝟷𝟷𝟷"), wrong{name: pci.ReasonFormat}},       // Nd beyond the BMP
		{with("name", "Zoe\u0085Y"), wrong{name: pci.ReasonFormat}}, // a C1 control
		{with("name", "Zoe\ufffd"), wrong{name: pci.ReasonFormat}},
		{with("name", "<b>Zoe"), wrong{name: pci.ReasonFormat}},
		{with("name", "Z"), wrong{name: pci.ReasonFormat}},
		{with("name", strings.Repeat("é", 46)), wrong{name: pci.ReasonTooLong}},
		{
			with("number", "4111111111111112", "expiry", "01/20", "cvv", "abc", "name", "4"),
			wrong{number: pci.ReasonChecksum, expiry: pci.ReasonExpired, cvv: pci.ReasonNotDigits, name: pci.ReasonFormat},
		},
		{with("number", "4", "cvv", "12345", "expiry", "x"), wrong{number: pci.ReasonLength, cvv: pci.ReasonLength, expiry: pci.ReasonFormat}},
	} {
		b := newBench()
		ref, entered, err := b.post(c.body)
		list, ok := errors.AsType[pci.CardErrors](err)
		if !ok {
			t.Errorf("%s: %v, want %v", c.body, err, c.want)
			continue
		}
		got := wrong{}
		for _, e := range list {
			if _, twice := got[e.Field]; twice {
				t.Errorf("%s: %s stands in the answer twice", c.body, e.Field)
			}
			got[e.Field] = e.Reason
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.body, got, c.want)
		}
		if _, bad := c.want[name]; bad && entered.Name != "" {
			t.Errorf("%s: the refused name %q is handed on", c.body, entered.Name)
		}
		if !ref.IsZero() || entered.Card != (pci.Card{}) || b.store.Stats().Held != 0 {
			t.Errorf("%s: a refused card is held, or described as %+v", c.body, entered.Card)
		}
	}
}

func TestBodiesThatAreNoForm(t *testing.T) {
	utf16 := "n\x00u\x00m\x00b\x00e\x00r\x00=\x004\x001\x00"
	for name, body := range map[string]string{
		"unknown field":           with() + "&amount=1",
		"field in capitals":       strings.Replace(with(), "number=", "Number=", 1),
		"encoded field name":      strings.Replace(with(), "number=", "num%62er=", 1),
		"field twice":             with() + "&number=4111111111111111",
		"field twice, once empty": with() + "&cvv",
		"JSON":                    `{"number":"4111111111111111"}`,
		"digits alone":            "4111111111111111",
		"digits as a field":       "4111111111111111=number",
		"cut-off escape":          "number=41%",
		"cut-off escape, one":     "number=41%3",
		"bad escape":              "number=41%3x",
		"double sign":             "number=41%%31",
		"NUL":                     "number=4111\x001111",
		"encoded NUL":             "number=4111%001111",
		"line end":                "name=Zoe%0d%0aX-Header",
		"delete":                  "name=Zo%7fe",
		"UTF-16":                  utf16,
		"UTF-16 with its mark":    "\xff\xfe" + utf16,
		"UTF-8 with a mark":       "\xef\xbb\xbf" + with(),
		"not UTF-8":               "name=Zo%eb",
		"overlong UTF-8":          "name=%c0%80",
		"surrogate":               "name=%ed%a0%80",
	} {
		b := newBench()
		if _, entered, err := b.post(body); !errors.Is(err, pci.ErrMalformed) || entered != (pci.Entered{}) {
			t.Errorf("%s: %+v, %v, want pci.ErrMalformed", name, entered, err)
		}
		if b.store.Stats().Held != 0 {
			t.Errorf("%s: a card is held", name)
		}
	}
}

func isCardErrors(err error) bool {
	_, ok := errors.AsType[pci.CardErrors](err)
	return ok
}

func TestContentTypes(t *testing.T) {
	for contentType, ok := range map[string]bool{
		"application/x-www-form-urlencoded":                true,
		"application/x-www-form-urlencoded; charset=UTF-8": true,
		"Application/X-WWW-Form-Urlencoded":                true,
		"":                                                 false,
		"text/plain":                                       false,
		"application/json":                                 false,
		"multipart/form-data; boundary=x":                  false,
		"application/x-www-form-urlencoded; =":             false,
	} {
		r := request(strings.NewReader(with()))
		r.Header.Set("Content-Type", contentType)
		_, _, err := newBench().Take(r, "pay_1", nil)
		if ok && err != nil || !ok && !errors.Is(err, pci.ErrMalformed) {
			t.Errorf("%q: %v, want it to be accepted: %v", contentType, err, ok)
		}
	}
}

func TestBodiesThatAreTooLarge(t *testing.T) {
	padded := func(n int) string { return with() + strings.Repeat("&", n-len(with())) }
	if _, _, err := newBench().post(padded(4095)); err != nil {
		t.Errorf("4,095 bytes: %v", err)
	}
	for _, n := range []int{4096, 4097, 1 << 20} {
		if _, _, err := newBench().post(padded(n)); !errors.Is(err, pci.ErrTooLarge) {
			t.Errorf("%d bytes: %v, want pci.ErrTooLarge", n, err)
		}
	}
	endless := iotest.DataErrReader(neverEnding('4'))
	if _, _, err := newBench().Take(request(endless), "pay_1", nil); !errors.Is(err, pci.ErrTooLarge) {
		t.Errorf("endless: %v, want pci.ErrTooLarge", err)
	}
	r := request(nil)
	r.Body = http.MaxBytesReader(httptest.NewRecorder(), io.NopCloser(strings.NewReader(padded(100))), 50)
	if _, _, err := newBench().Take(r, "pay_1", nil); !errors.Is(err, pci.ErrTooLarge) {
		t.Errorf("past the server's own limit: %v, want pci.ErrTooLarge", err)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func TestBodiesInPieces(t *testing.T) {
	for name, body := range map[string]io.Reader{
		"byte by byte":      iotest.OneByteReader(strings.NewReader(with())),
		"halves":            iotest.HalfReader(strings.NewReader(with())),
		"end with the data": iotest.DataErrReader(strings.NewReader(with())),
	} {
		if _, _, err := newBench().Take(request(body), "pay_1", nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestABodyThatEndsEarly(t *testing.T) {
	for _, end := range []error{io.ErrUnexpectedEOF, context.Canceled, errors.New("4111111111111111")} {
		body := io.MultiReader(strings.NewReader(with()), iotest.ErrReader(end))
		_, _, err := newBench().Take(request(body), "pay_1", nil)
		if !errors.Is(err, pci.ErrMalformed) || strings.Contains(err.Error(), "4111") {
			t.Errorf("%v: %v, want pci.ErrMalformed and nothing of the cause", end, err)
		}
	}
}

func TestExpiryForms(t *testing.T) {
	good := pci.Expiry{Year: 2030, Month: 7}
	for in, want := range map[string]pci.Expiry{
		"07/30": good, "07 / 30": good, "0730": good, "07/2030": good, "072030": good, "2030-07": good,
		" 07/30 ": good, "07-30": good, "07 30": good,
		"00/30": {}, "13/30": {}, "7/30": {}, "7/2030": {}, "07/3": {}, "07/300": {}, "07/20301": {}, "0": {}, "/": {}, "/0730": {},
		"2030-13": {}, "2030-00": {}, "2030-7": {}, "2030/07": {}, "1930-07": {}, "2100-07": {}, "07/1930": {}, "07/2100": {},
		"20x0-07": {}, "2030-0x": {}, "ab/cd": {}, "07.30": {}, "-07/30": {}, "٠٧/٣٠": {},
	} {
		got, err := parseExpiry([]byte(in))
		if got != want || (err == nil) != (want != pci.Expiry{}) {
			t.Errorf("%q: %s, %v, want %s", in, got, err, want)
		}
	}
}

// A number that autofill or a script put into the hidden field must not be kept.
func TestTheFormsIdIsNoNumber(t *testing.T) {
	for id, kept := range map[string]bool{
		"00112233445566778899aabbccddeeff":  true,
		"4111111111111111":                  false,
		"41111111111111110730738":           false,
		"4111 1111 1111 1111":               false,
		"form_1":                            false,
		strings.Repeat("a", 64):             true,
		strings.Repeat("a", 65):             false,
		"":                                  false,
		"00112233445566778899aabbccddeeff'": false,
	} {
		_, entered, err := newBench().post(with("form", id))
		if err != nil || (entered.Form == id && id != "") != kept || !kept && entered.Form != "" {
			t.Errorf("%q is kept as %q, %v", id, entered.Form, err)
		}
	}
}

func TestFaultsOfCustodyComeBack(t *testing.T) {
	b := newBench()
	b.hsm.fault = pci.ErrUnavailable
	if _, entered, err := b.post(with()); !errors.Is(err, pci.ErrUnavailable) || isCardErrors(err) {
		t.Errorf("%+v, %v, want pci.ErrUnavailable", entered, err)
	}
	full := New(custody.New(&objects{}, custody.Config{Deadline: time.Hour, Now: time.Now}), nil, true, nil)
	if _, _, err := full.Take(request(strings.NewReader(with("expiry", "07/90"))), "pay_1", nil); !errors.Is(err, pci.ErrFull) {
		t.Errorf("%v, want pci.ErrFull", err)
	}
}

// spy keeps the buffers into which it was read, as a careless layer below could.
type spy struct {
	io.Reader
	buffers [][]byte
}

func (s *spy) Read(p []byte) (int, error) {
	s.buffers = append(s.buffers, p)
	return s.Reader.Read(p)
}

func TestNothingOfABodyIsLeft(t *testing.T) {
	for name, body := range map[string]string{
		"good":      with(),
		"refused":   with("cvv", "1"),
		"malformed": with() + "&x=1",
		"too large": with() + strings.Repeat("4", 5000),
	} {
		s := &spy{Reader: strings.NewReader(body)}
		_, _, _ = newBench().Take(request(s), "pay_1", nil)
		if len(s.buffers) == 0 {
			t.Fatalf("%s: nothing was read", name)
		}
		for _, buffer := range s.buffers {
			if slices.ContainsFunc(buffer, func(b byte) bool { return b != 0 }) {
				t.Errorf("%s: %.60q is left in locked memory", name, buffer)
			}
		}
	}
}

// FuzzForm wants no panic, no error that quotes, and no digits in what is handed on.
func FuzzForm(f *testing.F) {
	for _, body := range []string{
		with(), with("form", "00112233445566778899aabbccddeeff"), with("number", "4"), with("name", "4111111111111111"),
		"", "&", "=", "number=%", "number=%zz&cvv=7", "4111111111111111=", "number=4111111111111112&expiry=7/30",
		with("browser_width", "1920", "browser_height", "1080", "browser_depth", "24", "browser_tz", "-480", "browser_language", "en-MY"),
		with("browser_language", "de-41111111-11111111", "browser_tz", "41111"),
		"form=4111111111111111", "name=" + url.QueryEscape(fullWidth("4111111111111111")),
	} {
		f.Add([]byte(body))
	}
	b := newBench()
	f.Fuzz(func(t *testing.T, body []byte) {
		ref, entered, err := b.Take(request(bytes.NewReader(body)), "pay_1", nil)
		if err != nil {
			known := errors.Is(err, pci.ErrMalformed) || errors.Is(err, pci.ErrTooLarge) || isCardErrors(err)
			if !known {
				t.Errorf("an error of no known kind: %v", err)
			}
			if !ref.IsZero() || entered.Card != (pci.Card{}) {
				t.Error("a refused card is held or described")
			}
			if hasRun(err.Error()) {
				t.Errorf("the error quotes: %v", err)
			}
		} else if ref.IsZero() {
			t.Error("no error and no card")
		}
		if pci.LooksLikePAN(entered.Name) || entered.Form != "" && !strings.ContainsAny(entered.Form, "abcdefABCDEF") {
			t.Errorf("a number is handed on: %+v", entered)
		}
		if b := entered.Browser; pci.LooksLikePAN(b.ScreenWidth + " " + b.ScreenHeight + " " + b.ColorDepth + " " + b.TZ + " " + b.Language) {
			t.Errorf("a number is handed on as the browser's: %+v", b)
		}
	})
}

// hasRun reports whether s has four digits in a row: no error of intake has any of its own.
func hasRun(s string) bool {
	run := 0
	for _, r := range s {
		if run++; r < '0' || r > '9' {
			run = 0
		}
		if run == 4 {
			return true
		}
	}
	return false
}
