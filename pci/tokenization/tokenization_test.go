package tokenization

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/custody"
	"github.com/finterra/finpay/pci/internal/lend"
	"github.com/finterra/finpay/pci/internal/pan"
)

var expiry = pci.Expiry{Year: 2030, Month: 7}

// blocks encrypts blocks with a key in memory.
type blocks struct{ cipher.Block }

func software(t testing.TB, key byte) Key {
	t.Helper()
	block, err := aes.NewCipher(bytes.Repeat([]byte{key}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return Key{AES: blocks{block}, Runners: 1}
}

func (s blocks) EncryptBlocks(_ context.Context, dst, src []byte) error {
	for i := 0; i < len(src); i += aes.BlockSize {
		s.Encrypt(dst[i:i+aes.BlockSize], src[i:i+aes.BlockSize])
	}
	return nil
}

// away is an HSM that does not answer.
type away struct{}

func (away) EncryptBlocks(context.Context, []byte, []byte) error { return pci.ErrUnavailable }

// objects is an HSM's session objects, in memory.
type objects struct {
	mu     sync.Mutex
	values [][]byte
}

func (o *objects) Create(_ context.Context, value []byte, _ string) (uint64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.values = append(o.values, bytes.Clone(value))
	return uint64(len(o.values) - 1), nil
}

func (o *objects) Read(_ context.Context, handle uint64, dst []byte, _ string) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return copy(dst, o.values[handle]), nil
}

func (o *objects) Destroy(context.Context, uint64) error { return nil }

// registry is the issued tokens by domain and token.
type registry map[string]Issued

func (r registry) Find(_ context.Context, domain string, token pci.Token) (Issued, error) {
	issued, ok := r[domain+"/"+string(token)]
	if !ok {
		return Issued{}, pci.ErrNotIssued
	}
	return issued, nil
}

func (r registry) Lookup(_ context.Context, domain string, tokens []pci.Token, row func(int, Issued)) error {
	for i, token := range tokens {
		if issued, ok := r[domain+"/"+string(token)]; ok {
			row(i, issued)
		}
	}
	return nil
}

func (r registry) LookupImages(_ context.Context, domain string, images []pci.TokenImage, row func(int, Issued)) error {
	for _, issued := range r {
		for i, image := range images {
			if issued.Domain == domain && issued.Image == image {
				row(i, issued)
			}
		}
	}
	return nil
}

func (r registry) issue(i Issued) { r[i.Domain+"/"+string(i.Token)] = i }

// bench is a service with all that stands around it.
type bench struct {
	*Service
	cards    lend.Custody
	tokens   lend.Tokens
	batches  lend.Batches
	registry registry
}

// newBench has a few domains in the format last4, unless domains are given.
func newBench(t testing.TB, keys Keys, domains ...Domain) bench {
	t.Helper()
	if domains == nil {
		domains = []Domain{{ID: "shop", Format: pci.TokenLast4}, {ID: "shop2", Format: pci.TokenLast4}}
	}
	compiled, err := Compile(domains)
	if err != nil {
		t.Fatal(err)
	}
	store := custody.New(&objects{}, custody.Config{Deadline: time.Hour, Capacity: 1 << 20})
	r := registry{}
	s, err := New(keys, compiled, store, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return bench{s, lend.OfCustody(store), lend.OfTokens(s), lend.OfBatches(s), r}
}

func oneKey(t testing.TB) Keys {
	return Keys{Active: 1, Versions: map[uint32]Key{1: software(t, 1)}}
}

// tokenize takes a card through custody.
func (b bench) tokenize(domain, number string) (Issued, error) {
	ctx := context.Background()
	card, err := pan.New([]byte(number), []byte(cvv(number)), expiry)
	if err != nil {
		return Issued{}, err
	}
	defer card.Release()
	ref, err := b.cards.Hold(ctx, card, "pay_1")
	if err != nil {
		return Issued{}, err
	}
	issued, _, err := b.Tokenize(ctx, domain, ref, "pay_1")
	return issued, err
}

func cvv(number string) string {
	if strings.HasPrefix(number, "34") || strings.HasPrefix(number, "37") {
		return "7382"
	}
	return "738"
}

// resolve returns the PAN behind an issued token.
func (b bench) resolve(domain string, token pci.Token) (number string, err error) {
	err = b.tokens.Lend(context.Background(), domain, token, func(card *pan.Card) error {
		if card.HasCVV() {
			return errors.New("a card from a token has a CVV")
		}
		if card.Expiry() != expiry {
			return fmt.Errorf("expiry %s", card.Expiry())
		}
		return card.RevealPAN(func(digits []byte) error { number = string(digits); return nil })
	})
	return number, err
}

// drawPAN draws a valid PAN that does not begin with 9.
func drawPAN(t *rapid.T) string {
	n := rapid.IntRange(pan.MinLength, pan.MaxLength).Draw(t, "length")
	number := rapid.StringMatching(fmt.Sprintf("[0-8][0-9]{%d}", n-2)).Draw(t, "digits")
	return number + string(pan.Missing([]byte(number+"0")))
}

func TestATokenKeepsLengthAndLastFourAndLeadsBack(t *testing.T) {
	b := newBench(t, oneKey(t))
	rapid.Check(t, func(t *rapid.T) {
		number := drawPAN(t)
		issued, err := b.tokenize("shop", number)
		if err != nil {
			t.Fatal(err)
		}
		token := string(issued.Token)
		if len(token) != len(number) || token[0] != '9' || token[len(token)-4:] != number[len(number)-4:] {
			t.Fatalf("%s is the token of %s", token, number)
		}
		if issued.Domain != "shop" || issued.Format != pci.TokenLast4 || issued.KeyVersion != 1 ||
			issued.Card.Expiry != expiry || issued.Card.Truncated.Last4() != number[len(number)-4:] {
			t.Fatalf("issued %+v", issued)
		}
		if again, err := b.tokenize("shop", number); err != nil || again != issued {
			t.Fatalf("the second time: %+v, %v", again, err)
		}
		b.registry.issue(issued)
		if got, err := b.resolve("shop", issued.Token); err != nil || got != number {
			t.Fatalf("%s leads back to %s, want %s (%v)", token, got, number, err)
		}
	})
}

func TestDomainsLengthsAndKeysAreUnrelated(t *testing.T) {
	numbers := make([]string, 0, 1000)
	for i := range cap(numbers) {
		number := fmt.Sprintf("41111100%07d", i)
		numbers = append(numbers, number+string(pan.Missing([]byte(number+"0"))))
	}
	first := newBench(t, oneKey(t))
	other := newBench(t, Keys{Active: 1, Versions: map[uint32]Key{1: software(t, 2)}})
	same := map[string]int{}
	for _, number := range numbers {
		base, err := first.tokenize("shop", number)
		if err != nil {
			t.Fatal(err)
		}
		domain, err := first.tokenize("shop2", number)
		if err != nil {
			t.Fatal(err)
		}
		key, err := other.tokenize("shop", number)
		if err != nil {
			t.Fatal(err)
		}
		for name, token := range map[string]pci.Token{"domains": domain.Token, "keys": key.Token} {
			for i := 1; i < len(number)-4; i++ {
				if base.Token[i] == token[i] {
					same[name]++
				}
			}
			if base.Token == token {
				t.Errorf("two %s give %s the token %s", name, number, token)
			}
		}
	}
	// 11,000 digits, of which one in ten agrees by chance: 1,100 with a standard deviation of 31.
	for name, n := range same {
		if n < 900 || n > 1300 {
			t.Errorf("under two %s %d of 11,000 digits agree", name, n)
		}
	}
}

func TestATokenOfAnotherDomainIsNotIssued(t *testing.T) {
	b := newBench(t, oneKey(t))
	issued, err := b.tokenize("shop", "4111111111111111")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.resolve("shop", issued.Token); !errors.Is(err, pci.ErrNotIssued) {
		t.Errorf("before it was entered in the registry: %v, want pci.ErrNotIssued", err)
	}
	b.registry.issue(issued)
	for _, c := range []struct {
		domain string
		token  pci.Token
	}{{"shop2", issued.Token}, {"", issued.Token}, {"shop", "9000000000001111"}, {"shop", ""}, {"shop", "9"}} {
		if _, err := b.resolve(c.domain, c.token); !errors.Is(err, pci.ErrNotIssued) {
			t.Errorf("%q in %q: %v, want pci.ErrNotIssued", c.token, c.domain, err)
		}
	}
}

func TestPANsThatBeginLikeATokenAreRefused(t *testing.T) {
	b := newBench(t, oneKey(t))
	_, err := b.tokenize("shop", "979200000000000"+string(pan.Missing([]byte("9792000000000000"))))
	if e, ok := errors.AsType[*pci.CardError](err); !ok || e.Field != pci.FieldNumber || e.Reason != pci.ReasonUnsupported {
		t.Errorf("%v, want the number to be unsupported", err)
	}
}

func TestOlderKeyVersionsStillLeadBack(t *testing.T) {
	before := newBench(t, oneKey(t))
	old, err := before.tokenize("shop", "5555555555554444")
	if err != nil {
		t.Fatal(err)
	}
	after := newBench(t, Keys{Active: 2, Versions: map[uint32]Key{1: software(t, 1), 2: software(t, 2)}})
	after.registry.issue(old)
	if got, err := after.resolve("shop", old.Token); err != nil || got != "5555555555554444" {
		t.Errorf("an old token leads back to %s, %v", got, err)
	}
	again, err := after.tokenize("shop", "5555555555554444")
	if err != nil || again != old {
		t.Errorf("a card with a token gets %+v, %v, want that token", again, err)
	}
	fresh, err := after.tokenize("shop", "4111111111111111")
	if err != nil || fresh.KeyVersion != 2 {
		t.Errorf("a new card: %+v, %v", fresh, err)
	}
}

func TestKeyVersionsThatAreNotThere(t *testing.T) {
	b := newBench(t, oneKey(t))
	issued, err := b.tokenize("shop", "4111111111111111")
	if err != nil {
		t.Fatal(err)
	}
	issued.KeyVersion = 7
	b.registry.issue(issued)
	if number, err := b.resolve("shop", issued.Token); !errors.Is(err, pci.ErrUnavailable) || number != "" {
		t.Errorf("version 7: %q, %v, want pci.ErrUnavailable", number, err)
	}
	if _, err := New(Keys{Active: 2, Versions: oneKey(t).Versions}, nil, custody.New(&objects{}, custody.Config{}), registry{}); err == nil {
		t.Error("a service without its active key was made")
	}
}

// A row that was written under another key than it says must not lead to some other card.
func TestATokenUnderTheWrongKeyNeverLeadsBack(t *testing.T) {
	b := newBench(t, Keys{Active: 1, Versions: map[uint32]Key{1: software(t, 1), 2: software(t, 2)}})
	issued, err := b.tokenize("shop", "4111111111111111")
	if err != nil {
		t.Fatal(err)
	}
	issued.KeyVersion = 2
	b.registry.issue(issued)
	if number, _ := b.resolve("shop", issued.Token); number != "" {
		t.Errorf("a token under the wrong key leads to the valid number of %d digits", len(number))
	}
}

func TestRowsThatAreNoTokensOfThisFormat(t *testing.T) {
	b := newBench(t, oneKey(t))
	for _, issued := range []Issued{
		{Token: "9", Format: pci.TokenLast4}, {Token: "", Format: pci.TokenLast4}, {Token: "91111", Format: pci.TokenLast4},
		{Token: "9234567890123456789012", Format: pci.TokenLast4}, {Token: "92345678901x3456", Format: pci.TokenLast4},
		{Token: "9234567890123456", Format: "bin6-last4"}, {Token: "9234567890123456"},
	} {
		issued.Domain, issued.KeyVersion, issued.Card = "shop", 1, pci.Card{Expiry: expiry}
		b.registry.issue(issued)
		if number, err := b.resolve("shop", issued.Token); err == nil {
			t.Errorf("%+v leads to a number of %d digits", issued, len(number))
		}
	}
}

func TestTheHSMIsAway(t *testing.T) {
	b := newBench(t, Keys{Active: 1, Versions: map[uint32]Key{1: {AES: away{}}}})
	if issued, err := b.tokenize("shop", "4111111111111111"); !errors.Is(err, pci.ErrUnavailable) || issued != (Issued{}) {
		t.Errorf("tokenize: %+v, %v, want pci.ErrUnavailable", issued, err)
	}
	b.registry.issue(Issued{Domain: "shop", Token: "9234567890121111", Format: pci.TokenLast4, KeyVersion: 1, Card: pci.Card{Expiry: expiry}})
	if _, err := b.resolve("shop", "9234567890121111"); !errors.Is(err, pci.ErrUnavailable) {
		t.Errorf("resolve: %v, want pci.ErrUnavailable", err)
	}
}

func TestACardThatIsNotHeldHasNoToken(t *testing.T) {
	b := newBench(t, oneKey(t))
	if _, _, err := b.Tokenize(t.Context(), "shop", pci.NewCardRef(), "pay_1"); !errors.Is(err, pci.ErrGone) {
		t.Errorf("%v, want pci.ErrGone", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	b := newBench(t, oneKey(t))
	want, err := b.tokenize("shop", "4111111111111111")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if got, err := b.tokenize("shop", "4111111111111111"); err != nil || got != want {
					t.Errorf("%+v, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}
