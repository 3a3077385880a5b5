package tokenization

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/ff1"
	"github.com/finterra/finpay/pci/internal/pan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// all tokenizes many cards at once; an empty number is an empty place.
func (b bench) all(t rapid.TB, domain string, numbers ...string) []pci.Tokenized {
	t.Helper()
	batch, err := pan.NewBatch(len(numbers))
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Release()
	for i, number := range numbers {
		if number == "" {
			batch.Empty(i)
		} else if err := batch.Put(i, []byte(number), expiry); err != nil {
			t.Fatal(err)
		}
	}
	issues := make([]pci.Tokenized, len(numbers))
	if err := b.batches.TokenizeAll(context.Background(), domain, batch, issues); err != nil {
		t.Fatal(err)
	}
	return issues
}

// resolveAll is the numbers behind tokens.
func (b bench) resolveAll(t rapid.TB, domain string, tokens ...pci.Token) (numbers []string, errs []error) {
	t.Helper()
	if err := b.lendAll(context.Background(), b.keys.current, domain, tokens, func(cards *pan.Batch, failed []error) error {
		errs = append(errs, failed...)
		return cards.RevealPANs(func(_ int, digits []byte) error { numbers = append(numbers, string(digits)); return nil })
	}); err != nil {
		t.Fatal(err)
	}
	return numbers, errs
}

// The whole of one first six and last four, in both formats that show the last four.
func TestTokenIsABijectionOverOneBIN(t *testing.T) {
	b := newBench(t, oneKey(t), Domain{ID: "last4", Format: pci.TokenLast4}, Domain{ID: "bin", Format: pci.TokenBIN6Last4})
	var numbers []string
	number := []byte("4111110000001111")
	for middle := range 1_000_000 {
		copy(number[6:12], fmt.Sprintf("%06d", middle))
		if pan.CheckPAN(number) == nil {
			numbers = append(numbers, string(number))
		}
	}
	if len(numbers) != 100_000 {
		t.Fatalf("%d cards, want 100,000", len(numbers))
	}
	for _, domain := range []string{"last4", "bin"} {
		tokens := make(map[pci.Token]bool, len(numbers))
		for from := 0; from < len(numbers); from += 10_000 {
			part := numbers[from : from+10_000]
			var made []pci.Token
			for i, issue := range b.all(t, domain, part...) {
				token := issue.Token.Token
				if issue.Err != nil || tokens[token] {
					t.Fatalf("%s has %s, which is another card's too (%v)", part[i], token, issue.Err)
				}
				if domain == "bin" && pan.CheckPAN([]byte(token)) == nil {
					t.Fatalf("%s is a valid PAN", token)
				}
				tokens[token] = true
				made = append(made, token)
				b.registry.issue(issue.Token)
			}
			back, errs := b.resolveAll(t, domain, made...)
			for i := range part {
				if back[i] != part[i] {
					t.Fatalf("%s leads back to %s, want %s (%v)", made[i], back[i], part[i], errs[i])
				}
			}
		}
	}
}

func TestEveryFormatRoundTripsAtEveryLength(t *testing.T) {
	b := newBench(t, oneKey(t), Domain{ID: "last4", Format: pci.TokenLast4, Fallback: pci.TokenOpaque},
		Domain{ID: "bin", Format: pci.TokenBIN6Last4, Fallback: pci.TokenLast4}, Domain{ID: "opaque", Format: pci.TokenOpaque})
	opaque := regexp.MustCompile(`^tok_[a-z2-7]{26}$`)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(pan.MinLength, pan.MaxLength).Draw(t, "length")
		number := rapid.StringMatching(fmt.Sprintf("[0-9]{%d}", n-1)).Draw(t, "digits")
		number += string(pan.Missing([]byte(number + "0")))
		domain := rapid.SampledFrom([]string{"last4", "bin", "opaque"}).Draw(t, "domain")
		want := map[string]pci.TokenFormat{"last4": pci.TokenLast4, "bin": pci.TokenBIN6Last4, "opaque": pci.TokenOpaque}[domain]
		switch {
		case domain == "last4" && number[0] == '9':
			want = pci.TokenOpaque
		case domain == "bin" && n < 16 && number[0] == '9':
			if e, ok := errors.AsType[*pci.CardError](b.all(t, domain, number)[0].Err); !ok || e.Reason != pci.ReasonUnsupported {
				t.Fatalf("%v, want the number to be unsupported", e)
			}
			return
		case domain == "bin" && n < 16:
			want = pci.TokenLast4
		}
		clear(b.registry)
		issue := b.all(t, domain, number)[0]
		issued, token := issue.Token, string(issue.Token.Token)
		if issue.Err != nil || issue.Known || issued.Format != want {
			t.Fatalf("%+v, want format %s", issue, want)
		}
		switch want {
		case pci.TokenLast4:
			if len(token) != n || token[0] != '9' || token[n-4:] != number[n-4:] {
				t.Fatalf("%s is the token of %s", token, number)
			}
		case pci.TokenBIN6Last4:
			luhn := (10 - int(pan.Missing([]byte(token))-'0')) % 10
			if len(token) != n || token[:6] != number[:6] || token[n-4:] != number[n-4:] || luhn != 1 {
				t.Fatalf("%s, of Luhn sum %d, is the token of %s", token, luhn, number)
			}
		case pci.TokenOpaque:
			if !opaque.MatchString(token) || len(issued.Image) != n-1 || string(issued.Image) == number[:n-1] {
				t.Fatalf("%s with image %s is the token of %s", token, issued.Image, number)
			}
		}
		b.registry.issue(issued)
		if got, err := b.resolve(domain, issued.Token); err != nil || got != number {
			t.Fatalf("%s leads back to %s, want %s (%v)", token, got, number, err)
		}
		if again := b.all(t, domain, number)[0]; !again.Known || again.Token != issued {
			t.Fatalf("the second time: %+v, want %+v", again, issued)
		}
	})
}

// Tokens of earlier releases lead back for ever: the permutation of last4 is written down here a second time.
func TestTokensOfEarlierReleasesAreTheSame(t *testing.T) {
	b := newBench(t, oneKey(t))
	sum := sha256.Sum256([]byte("finpay ff1 v1\x00shop\x00last4\x0016"))
	lane := ff1.Lane{Digits: []byte("41111111111"), Tweak: append(sum[:8], 0x11, 0x11)}
	if err := b.keys.current.list[0].cipher.Encrypt(t.Context(), []ff1.Lane{lane}); err != nil {
		t.Fatal(err)
	}
	issued, err := b.tokenize("shop", "4111111111111111")
	if want := "9" + string(lane.Digits) + "1111"; err != nil || string(issued.Token) != want {
		t.Errorf("%s, want %s (%v)", issued.Token, want, err)
	}
}

func TestOneCardsErrorIsItsOwn(t *testing.T) {
	b := newBench(t, oneKey(t))
	troy := "979200000000000"
	troy += string(pan.Missing([]byte(troy + "0")))
	issues := b.all(t, "shop", "4111111111111111", troy, "", "5555555555554444", "4111111111111111")
	for i, want := range []pci.CardReason{"", pci.ReasonUnsupported, pci.ReasonMissing, "", ""} {
		e, refused := errors.AsType[*pci.CardError](issues[i].Err)
		if refused != (want != "") || refused && e.Reason != want {
			t.Errorf("card %d: %v, want %q", i, issues[i].Err, want)
		}
	}
	if issues[0] != issues[4] || issues[0].Token.Token == issues[3].Token.Token {
		t.Errorf("two equal cards have %+v and %+v", issues[0], issues[4])
	}
}

func TestEqualCardsOfABatchShareAnOpaqueToken(t *testing.T) {
	b := newBench(t, oneKey(t), Domain{ID: "shop", Format: pci.TokenOpaque})
	issues := b.all(t, "shop", "4111111111111111", "5555555555554444", "4111111111111111")
	if issues[0] != issues[2] || issues[0].Err != nil || issues[0].Token.Token == issues[1].Token.Token {
		t.Errorf("%+v", issues)
	}
}

func TestABatchKnowsWhatIsNotIssued(t *testing.T) {
	b := newBench(t, oneKey(t))
	issue := b.all(t, "shop", "4111111111111111")[0]
	b.registry.issue(issue.Token)
	wrong := issue.Token
	wrong.Token, wrong.KeyVersion = "9000000000001111", 7
	b.registry.issue(wrong)
	numbers, errs := b.resolveAll(t, "shop", "9999999999991111", issue.Token.Token, wrong.Token)
	if numbers[0] != "" || numbers[1] != "4111111111111111" || numbers[2] != "" {
		t.Errorf("%q", numbers)
	}
	if !errors.Is(errs[0], pci.ErrNotIssued) || errs[1] != nil || !errors.Is(errs[2], pci.ErrUnavailable) {
		t.Errorf("%v", errs)
	}
}

// A registry that is away, and an HSM that is, leave no tokens behind.
func TestABatchFailsAsAWhole(t *testing.T) {
	b := newBench(t, Keys{Active: 1, Versions: map[uint32]Key{1: {AES: away{}}}})
	batch, err := pan.NewBatch(1)
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Release()
	if err := batch.Add([]byte("4111111111111111"), expiry); err != nil {
		t.Fatal(err)
	}
	issues := make([]pci.Tokenized, 1)
	if err := b.batches.TokenizeAll(t.Context(), "shop", batch, issues); !errors.Is(err, pci.ErrUnavailable) || issues[0] != (pci.Tokenized{}) {
		t.Errorf("%+v, %v, want pci.ErrUnavailable", issues, err)
	}
	if err := b.batches.TokenizeAll(t.Context(), "shop", batch, nil); err == nil {
		t.Error("a batch without a place for its tokens was served")
	}
	if len(b.registry) != 0 {
		t.Error("something was issued")
	}
}
