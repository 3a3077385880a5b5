package tokenization

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/ff1"
	"github.com/finterra/finpay/pci/internal/pan"
)

func keys(t testing.TB, active uint32, versions ...uint32) Keys {
	k := Keys{Active: active, Versions: make(map[uint32]Key)}
	for _, v := range versions {
		k.Versions[v] = software(t, byte(v))
	}
	return k
}

// behind is the card that a value would be of under a version, whether or not it was issued.
func (b bench) behind(t *testing.T, like Issued, token pci.Token, version uint32) (number string) {
	t.Helper()
	like.Token, like.KeyVersion, like.Steps = token, version, 0
	failed := make([]error, 1)
	err := b.restore(context.Background(), b.keys.current, like.Domain, []Issued{like}, failed, func(_ int, digits []byte) error {
		number = string(digits)
		return nil
	})
	if err != nil || failed[0] != nil {
		t.Fatal(err, failed)
	}
	return number
}

func clashing() []Domain {
	return []Domain{{ID: "last4", Format: pci.TokenLast4}, {ID: "bin", Format: pci.TokenBIN6Last4}}
}

// Under the second version a card comes to the token that another has from the first.
func TestACardPassesOverAnotherCardsToken(t *testing.T) {
	for _, domain := range []string{"last4", "bin"} {
		for _, number := range []string{"4111111111111111", "6304000000000000000"[:16], "63040000000000003" + string(pan.Missing([]byte("630400000000000030")))} {
			if pan.CheckPAN([]byte(number)) != nil {
				number = number[:15] + string(pan.Missing([]byte(number[:15]+"0")))
			}
			b := newBench(t, keys(t, 2, 1, 2), clashing()...)
			value := b.all(t, domain, number)[0].Token
			other := b.behind(t, value, value.Token, 1)
			if other == number {
				t.Fatal("both versions lead to the same card")
			}
			before := newBench(t, keys(t, 1, 1), clashing()...)
			first := before.all(t, domain, other)[0].Token
			if first.Token != value.Token {
				t.Fatalf("%s has the token %s, want the clash %s", other, first.Token, value.Token)
			}
			b.registry.issue(first)

			second := b.all(t, domain, number)[0]
			if second.Err != nil || second.Known || second.Token.Steps != 1 || second.Token.Token == first.Token || second.Token.KeyVersion != 2 {
				t.Fatalf("%+v, want one step past %s", second, first.Token)
			}
			b.registry.issue(second.Token)
			for _, c := range []struct {
				number string
				token  Issued
			}{{number, second.Token}, {other, first}} {
				if got, err := b.resolve(domain, c.token.Token); err != nil || got != c.number {
					t.Errorf("%s leads back to %s, want %s (%v)", c.token.Token, got, c.number, err)
				}
				if again := b.all(t, domain, c.number)[0]; !again.Known || again.Token != c.token {
					t.Errorf("the second time %s gets %+v, want %+v", c.number, again, c.token)
				}
			}
			// The step is found under a later version too.
			later := newBench(t, keys(t, 3, 1, 2, 3), clashing()...)
			later.registry.issue(first)
			later.registry.issue(second.Token)
			if again := later.all(t, domain, number)[0]; !again.Known || again.Token != second.Token {
				t.Errorf("under a later version: %+v, want %+v", again, second.Token)
			}
		}
	}
}

// A card that would pass over a token of its own batch waits until that is entered: should the batch fail, a step that
// leads past nothing would be left.
func TestACardDoesNotPassOverWhatIsNotEnteredYet(t *testing.T) {
	b := newBench(t, keys(t, 2, 1, 2), clashing()...)
	const number = "4111111111111111"
	value := b.all(t, "last4", number)[0].Token
	planted := value
	planted.KeyVersion = 1
	b.registry.issue(planted)
	step := b.all(t, "last4", number)[0].Token
	rival := b.behind(t, step, step.Token, 2)

	issues := b.all(t, "last4", number, rival)
	if !errors.Is(issues[0].Err, ErrContended) || issues[1].Err != nil || issues[1].Token.Token != step.Token || issues[1].Token.Steps != 0 {
		t.Fatalf("%+v", issues)
	}
	b.registry.issue(issues[1].Token)
	if again := b.all(t, "last4", number)[0]; again.Err != nil || again.Token.Steps != 2 {
		t.Errorf("afterwards: %+v, want two steps", again)
	}
}

// everything is a registry where each token is another card's.
type everything struct {
	registry
	asked int
}

func (e *everything) Lookup(_ context.Context, domain string, tokens []pci.Token, row func(int, Issued)) error {
	e.asked++
	for i, token := range tokens {
		row(i, Issued{Domain: domain, Token: token, Format: pci.TokenLast4, KeyVersion: 99})
	}
	return nil
}

func TestAfterAThousandStepsACardIsRefused(t *testing.T) {
	b := newBench(t, keys(t, 2, 1, 2))
	full := &everything{}
	b.Service.registry = full
	issue := b.all(t, "shop", "4111111111111111")[0]
	if e, ok := errors.AsType[*pci.CardError](issue.Err); !ok || e.Reason != pci.ReasonUnsupported || issue.Token != (Issued{}) {
		t.Errorf("%+v, want the card to be refused", issue)
	}
	if full.asked != MaxSteps+1 {
		t.Errorf("the registry was asked %d times, want %d", full.asked, MaxSteps+1)
	}
}

func TestACardKeepsItsTokenAcrossVersions(t *testing.T) {
	for _, format := range formats {
		domain := Domain{ID: "shop", Format: format}
		old := newBench(t, keys(t, 1, 1), domain).all(t, "shop", "4111111111111111")[0].Token
		b := newBench(t, keys(t, 3, 1, 2, 3), domain)
		b.registry.issue(old)
		issues := b.all(t, "shop", "4111111111111111", "5555555555554444")
		if !issues[0].Known || issues[0].Token != old || issues[1].Known || issues[1].Token.KeyVersion != 3 {
			t.Errorf("%s: %+v", format, issues)
		}
		if got, err := b.resolve("shop", old.Token); err != nil || got != "4111111111111111" {
			t.Errorf("%s: leads back to %s (%v)", format, got, err)
		}
	}
}

// A change of keys gives each card a token under the new one, though it has an old one.
func TestRetokenizingTakesTheActiveVersion(t *testing.T) {
	for _, format := range formats {
		domain := Domain{ID: "shop", Format: format}
		old := newBench(t, keys(t, 1, 1), domain).all(t, "shop", "4111111111111111")[0].Token
		b := newBench(t, keys(t, 2, 1, 2), domain)
		b.registry.issue(old)
		issues, err := b.Retokenize(t.Context(), "shop", []pci.Token{old.Token, "9000000000001111"})
		if err != nil || !errors.Is(issues[1].Err, pci.ErrNotIssued) {
			t.Fatalf("%s: %+v, %v", format, issues, err)
		}
		fresh := issues[0].Token
		if issues[0].Err != nil || issues[0].Known || fresh.KeyVersion != 2 || fresh.Token == old.Token || fresh.Card != old.Card {
			t.Fatalf("%s: %+v", format, issues[0])
		}
		b.registry.issue(fresh)
		old.Replaced = true
		b.registry.issue(old)
		if again := b.all(t, "shop", "4111111111111111")[0]; !again.Known || again.Token != fresh {
			t.Errorf("%s: afterwards the card has %+v, want %+v", format, again, fresh)
		}
		if got, err := b.resolve("shop", fresh.Token); err != nil || got != "4111111111111111" {
			t.Errorf("%s: leads back to %s (%v)", format, got, err)
		}
	}
}

// A value that was replaced is passed over by other cards, though its own card no longer has it.
func TestAReplacedTokenStaysReserved(t *testing.T) {
	b := newBench(t, keys(t, 2, 1, 2), clashing()...)
	value := b.all(t, "last4", "4111111111111111")[0].Token
	other := newBench(t, keys(t, 1, 1), clashing()...).all(t, "last4", b.behind(t, value, value.Token, 1))[0].Token
	other.Replaced = true
	b.registry.issue(other)
	if next := b.all(t, "last4", "4111111111111111")[0]; next.Err != nil || next.Known || next.Token.Steps != 1 || next.Token.Token == other.Token {
		t.Errorf("%+v, want one step past %s", next, other.Token)
	}
}

func TestAVersionIsReplacedWhileTheServiceRuns(t *testing.T) {
	b := newBench(t, keys(t, 1, 1))
	old := b.all(t, "shop", "4111111111111111")[0].Token
	b.registry.issue(old)
	if err := b.Rotate(2, software(t, 2)); err != nil {
		t.Fatal(err)
	}
	if b.Active() != 2 || b.Rotate(2, software(t, 2)) == nil || b.Drop(t.Context(), 2) == nil {
		t.Error("the new version is not the active one, or was added or dropped again")
	}
	if issues := b.all(t, "shop", "4111111111111111", "5555555555554444"); issues[0].Token != old || issues[1].Token.KeyVersion != 2 {
		t.Errorf("after the rotation: %+v", issues)
	}
	if err := errors.Join(b.Drop(t.Context(), 1), b.Drop(t.Context(), 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.resolve("shop", old.Token); !errors.Is(err, pci.ErrUnavailable) {
		t.Errorf("under a version that was dropped: %v", err)
	}
}

// A call that has begun ends under the versions that it began with.
func TestDroppingAVersionWaitsForItsUsers(t *testing.T) {
	b := newBench(t, keys(t, 2, 1, 2))
	mine := b.keys.borrow()
	dropped := make(chan error)
	go func() { dropped <- b.Drop(t.Context(), 1) }()
	for b.keys.count() != 1 { // until the new state is in place
		runtime.Gosched()
	}
	if _, ok := mine.version(1); !ok {
		t.Fatal("the version is gone")
	}
	number := []byte("41111111111")
	if err := mine.list[1].encrypt(t.Context(), []ff1.Lane{{Digits: number}}); err != nil {
		t.Errorf("under the version that is about to end: %v", err)
	}
	select {
	case err := <-dropped:
		t.Fatalf("it was dropped under a call's hands: %v", err)
	default:
	}
	mine.giveBack()
	if err := <-dropped; err != nil {
		t.Error(err)
	}
	if mine.list[1].encrypt(t.Context(), []ff1.Lane{{Digits: number}}) == nil {
		t.Error("a version that was dropped encrypts")
	}
}

// count is how many versions the current state has.
func (k *keyring) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.current.list)
}
