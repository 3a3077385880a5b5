package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
)

// forge makes tokens of cards as a test can tell them: "t" and the last four digits.
type forge struct {
	lend.Batches
	fail    error
	batches []int
}

func (f *forge) TokenizeAll(_ context.Context, domain string, cards *pan.Batch, out []pci.Tokenized) error {
	f.batches = append(f.batches, cards.Len())
	if f.fail != nil {
		return f.fail
	}
	return cards.RevealPANs(func(i int, digits []byte) error {
		if len(digits) > 0 {
			out[i] = pci.Tokenized{Token: pci.IssuedToken{Domain: domain, Token: pci.Token("t" + string(digits[len(digits)-4:])), Card: cards.Describe(i)}}
		}
		return nil
	})
}

// number returns the n-th PAN of a series.
func number(n int) string {
	text := fmt.Appendf(nil, "411111%09d0", n)
	text[15] = pan.Missing(text)
	return string(text)
}

func line(number string) string { return `{"number":"` + number + `","expiry":"2031-12"}` }

// stream returns what became of each line.
func stream(t *testing.T, f *forge, body io.Reader) ([]pci.Tokenized, error) {
	t.Helper()
	var all []pci.Tokenized
	err := newTokens(f, nil, true).Stream(t.Context(), io.NopCloser(body), "d", nil, func(batch []pci.Tokenized) error {
		all = append(all, batch...)
		return nil
	})
	return all, err
}

func TestEveryLineOfAStreamHasItsResultInOrder(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const n = 10_000
	var body strings.Builder
	for i := range n {
		body.WriteString(line(number(i)) + "\n")
	}
	whole := strings.TrimSuffix(body.String(), "\n") // the last line needs no newline
	for name, reader := range map[string]io.Reader{"at once": strings.NewReader(whole), "in halves": iotest.HalfReader(strings.NewReader(whole)),
		"byte by byte": iotest.OneByteReader(strings.NewReader(whole))} {
		f := &forge{}
		got, err := stream(t, f, reader)
		if err != nil || len(got) != n {
			t.Fatalf("%s: %d results, %v", name, len(got), err)
		}
		for i, r := range got {
			if want := number(i); r.Err != nil || string(r.Token.Token) != "t"+want[12:] || string(r.Token.Card.Truncated) != want[:6]+"******"+want[12:] || r.Token.Domain != "d" {
				t.Fatalf("%s: line %d: %+v", name, i+1, r)
			}
		}
		if most := slices.Max(f.batches); most > maxLines {
			t.Errorf("%s: %d lines in one piece", name, most)
		}
	}
}

func TestALinesErrorIsThatLinesResult(t *testing.T) {
	good := line(number(7))
	lines := []string{
		good,
		strings.Repeat(" ", maxLine-len(good)) + good,
		strings.Repeat(" ", maxLine-len(good)+1) + good,
		`{"number":"` + strings.Repeat("4", 1<<20) + `"}`,
		"",
		`{"number":"4111111111111112","expiry":"2031-12"}`,
		"\xff",
		good + "\r",
		line("9792123456789018"),
	}
	want := []error{nil, nil, pci.ErrTooLarge, pci.ErrTooLarge, pci.ErrMalformed, pci.CardErrors{}, pci.ErrMalformed, nil, nil}
	for _, end := range []string{"", "\n"} {
		got, err := stream(t, &forge{}, strings.NewReader(strings.Join(lines, "\n")+end))
		if err != nil || len(got) != len(lines) {
			t.Fatalf("%d results, %v", len(got), err)
		}
		for i, r := range got {
			_, isCard := errors.AsType[pci.CardErrors](r.Err)
			_, wantCard := want[i].(pci.CardErrors) //nolint:errorlint // the table has the type itself
			if !errors.Is(r.Err, want[i]) && (!isCard || !wantCard) {
				t.Errorf("line %d: %v, want %v", i+1, r.Err, want[i])
			}
			if r.Err != nil && r.Token.Token != "" {
				t.Errorf("line %d has an error and a token", i+1)
			}
		}
	}
}

func TestAStreamOutlivesTheHSMsFaults(t *testing.T) {
	got, err := stream(t, &forge{fail: pci.ErrUnavailable}, strings.NewReader(line(number(1))+"\nno card\n"))
	if err != nil || len(got) != 2 || !errors.Is(got[0].Err, pci.ErrUnavailable) || !errors.Is(got[1].Err, pci.ErrMalformed) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestABrokenStreamAnswersNoHalfLine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	body := io.MultiReader(strings.NewReader(line(number(1))+"\n"+line(number(2))), iotest.ErrReader(io.ErrUnexpectedEOF))
	got, err := stream(t, &forge{}, body)
	if !errors.Is(err, pci.ErrMalformed) || len(got) != 1 || got[0].Err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// Whoever answers may fail while the client still sends, or has stopped sending: nobody is left waiting.
func TestAStreamEndsWithItsAnswers(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	gone := errors.New("the client is gone")
	for name, more := range map[string]io.Reader{"sends on": endless{}, "is silent": silent(t)} {
		body := io.MultiReader(strings.NewReader(line(number(1))+"\n"), more)
		closer, _ := more.(io.Closer)
		err := newTokens(&forge{}, nil, true).Stream(t.Context(), struct {
			io.Reader
			io.Closer
		}{body, closer}, "d", nil, func([]pci.Tokenized) error { return gone })
		if !errors.Is(err, gone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, line(number(3))+"\n"), nil }
func (endless) Close() error               { return nil }

func silent(t *testing.T) io.ReadCloser {
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	return r
}

// A single line is answered while its sender waits with the next.
func TestALineIsNotKeptForOthers(t *testing.T) {
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	answered := make(chan int)
	done := make(chan error)
	go func() {
		done <- newTokens(&forge{}, nil, true).Stream(t.Context(), r, "d", nil, func(batch []pci.Tokenized) error {
			answered <- len(batch)
			return nil
		})
	}()
	for range 3 {
		if _, err := io.WriteString(w, line(number(1))+"\n"); err != nil {
			t.Fatal(err)
		}
		if n := <-answered; n != 1 {
			t.Errorf("%d answers", n)
		}
	}
	_ = w.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNoDigitIsLeftInTheMemoryOfAStream(t *testing.T) {
	l, err := newLines(true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.readFrom(strings.NewReader(line(number(5)) + "\n")); err != nil {
		t.Fatal(err)
	}
	first := l.take()
	if !bytes.Contains(l.buf.Bytes(), []byte(number(5))) || first.cards.Len() != 1 {
		t.Fatal("the test looks in the wrong place")
	}
	l.end()
	l.take()
	first.cards.Reset()
	if got := first.cards.Len(); got != 0 {
		t.Errorf("%d cards are left", got)
	}
	l.release()
}

func TestOneCardOfABody(t *testing.T) {
	post := func(body string) (pci.Tokenized, error) {
		return newTokens(&forge{}, nil, true).One(httptest.NewRequest("POST", "/", strings.NewReader(body)), "d", nil)
	}
	if got, err := post(line(number(9))); err != nil || got.Token.Card.Brand != pci.Visa || got.Token.Token == "" {
		t.Errorf("%+v, %v", got, err)
	}
	for body, want := range map[string]error{strings.Repeat(" ", maxLine) + line(number(9)): pci.ErrTooLarge, line(number(9)) + line(number(9)): pci.ErrMalformed, "": pci.ErrMalformed} {
		if _, err := post(body); !errors.Is(err, want) {
			t.Errorf("%.20q…: %v, want %v", body, err, want)
		}
	}
}
