package ff1

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// software encrypts blocks with a key in memory.
type software struct{ cipher.Block }

func (s software) EncryptBlocks(_ context.Context, dst, src []byte) error {
	for i := 0; i < len(src); i += 16 {
		s.Encrypt(dst[i:i+16], src[i:i+16])
	}
	return nil
}

func newSoftware(t testing.TB, key []byte) software {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return software{block}
}

func anyKey(t testing.TB) software { return newSoftware(t, bytes.Repeat([]byte{7}, 32)) }

func newCipher(t testing.TB, aes Encrypter) *Cipher {
	t.Helper()
	c := New(aes, 1)
	t.Cleanup(c.Close)
	return c
}

// leaving is a context that can end, so that its caller does not do the work itself.
func leaving(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), callers{}, true))
	t.Cleanup(cancel)
	return ctx
}

func drawLane(t *rapid.T) Lane {
	return Lane{
		Digits: []byte(rapid.StringMatching(`[0-9]{6,18}`).Draw(t, "digits")),
		Tweak:  rapid.SliceOfN(rapid.Byte(), 0, MaxTweak).Draw(t, "tweak"),
	}
}

func TestLanesAgreeWithTheStandardAsWritten(t *testing.T) {
	soft := anyKey(t)
	oracle := reference{soft.Block, 10}
	for _, runners := range []int{1, 3} {
		c := New(soft, runners)
		defer c.Close()
		contexts := []context.Context{context.Background(), leaving(t)}
		rapid.Check(t, func(t *rapid.T) {
			ctx := rapid.SampledFrom(contexts).Draw(t, "context")
			lanes := rapid.SliceOfN(rapid.Custom(drawLane), 1, 60).Draw(t, "lanes")
			var plain, want []string
			for _, l := range lanes {
				plain = append(plain, string(l.Digits))
				want = append(want, oracle.encrypt(l.Tweak, string(l.Digits)))
			}
			if err := c.Encrypt(ctx, lanes); err != nil {
				t.Fatal(err)
			}
			for i, l := range lanes {
				if string(l.Digits) != want[i] {
					t.Fatalf("%d digits, a tweak of %d: %s, want %s", len(l.Digits), len(l.Tweak), l.Digits, want[i])
				}
			}
			if err := c.Decrypt(ctx, lanes); err != nil {
				t.Fatal(err)
			}
			for i, l := range lanes {
				if string(l.Digits) != plain[i] {
					t.Fatalf("decrypted to %s, want %s", l.Digits, plain[i])
				}
			}
		})
	}
}

// Every length, with the smallest and the largest numbers, and every length of a tweak.
func TestEveryShapeAgreesWithTheStandard(t *testing.T) {
	soft := anyKey(t)
	c := newCipher(t, soft)
	oracle := reference{soft.Block, 10}
	for n := MinDigits; n <= MaxDigits; n++ {
		for size := 0; size <= MaxTweak; size++ {
			for _, digit := range []string{"0", "9", "5"} {
				x := bytes.Repeat([]byte(digit), n)
				lane := Lane{Digits: bytes.Clone(x), Tweak: bytes.Repeat([]byte{0xc3}, size)}
				if err := c.Encrypt(context.Background(), []Lane{lane}); err != nil {
					t.Fatal(err)
				}
				if want := oracle.encrypt(lane.Tweak, string(x)); string(lane.Digits) != want {
					t.Fatalf("%d digits, a tweak of %d: %s, want %s", n, size, lane.Digits, want)
				}
			}
		}
	}
}

func TestAReciprocalDividesExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := shapes[rapid.IntRange(MinDigits, MaxDigits).Draw(t, "n")]
		k := rapid.IntRange(0, 1).Draw(t, "half")
		m := s.modulus[k]
		y := rapid.OneOf(rapid.Uint64(), rapid.Map(rapid.Uint64Range(0, ^uint64(0)/m), func(q uint64) uint64 { return q*m - 1 })).Draw(t, "y")
		if got := reduce(y, m, s.reciprocal[k]); got != y%m {
			t.Fatalf("%d mod %d is %d, want %d", y, m, got, y%m)
		}
	})
}

// Callers of all kinds at once: small and large requests, some that leave, in both directions.
func TestManyCallersGetTheirOwnStrings(t *testing.T) {
	soft := anyKey(t)
	c := New(soft, 2)
	defer c.Close()
	plain := New(soft, 1)
	defer plain.Close()
	var callers sync.WaitGroup
	for caller := range 24 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(caller)))
			for turn := range 40 {
				ctx, cancel := context.WithCancel(context.Background())
				if caller%3 == 0 {
					ctx = context.Background()
				}
				lanes := make([]Lane, 1+random.IntN([]int{1, 10, 2500}[caller%3]))
				for i := range lanes {
					lanes[i] = Lane{Digits: fmt.Appendf(nil, "%0*d", 6+(i+turn)%13, random.Int64N(1_000_000)), Tweak: fmt.Append(nil, caller)}
				}
				before := make([]string, len(lanes))
				for i := range lanes {
					before[i] = string(lanes[i].Digits)
				}
				if caller%4 == 1 && turn%2 == 0 {
					go cancel()
				}
				switch err := c.Encrypt(ctx, lanes); {
				case errors.Is(err, context.Canceled):
				case err != nil:
					t.Error(err)
				default:
					if err := plain.Decrypt(context.Background(), lanes); err != nil {
						t.Error(err)
					}
					for i := range lanes {
						if string(lanes[i].Digits) != before[i] {
							t.Errorf("caller %d: %s, want %s", caller, lanes[i].Digits, before[i])
						}
					}
				}
				cancel()
			}
		})
	}
	callers.Wait()
}

func TestWhatIsNotServedIsRefused(t *testing.T) {
	c := newCipher(t, anyKey(t))
	good := Lane{Digits: []byte("123456789012")}
	for name, lane := range map[string]Lane{
		"no digits":                             {},
		"five digits: a domain below a million": {Digits: []byte("12345")},
		"nineteen digits":                       {Digits: []byte("1234567890123456789")},
		"a letter":                              {Digits: []byte("12345a")},
		"a slash":                               {Digits: []byte("12345/")},
		"full-width digits":                     {Digits: []byte("１２")},
		"a tweak of 17 bytes":                   {Digits: []byte("123456789012"), Tweak: make([]byte, 17)},
	} {
		before := bytes.Clone(lane.Digits)
		if err := c.Encrypt(t.Context(), []Lane{good, lane}); err == nil {
			t.Errorf("%s was accepted", name)
		} else if len(lane.Digits) > 0 && bytes.Contains([]byte(err.Error()), lane.Digits) {
			t.Errorf("%s: the error quotes the digits", name)
		}
		if !bytes.Equal(lane.Digits, before) || string(good.Digits) != "123456789012" {
			t.Errorf("%s: digits were changed", name)
		}
	}
	if err := c.Decrypt(t.Context(), nil); err == nil {
		t.Error("no strings at all were accepted")
	}
}

func TestAClosedCipherServesNobody(t *testing.T) {
	c := New(anyKey(t), 2)
	lane := Lane{Digits: []byte("0123456789")}
	if err := c.Encrypt(leaving(t), []Lane{lane}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	c.Close()
	before := string(lane.Digits)
	if err := c.Encrypt(t.Context(), []Lane{lane}); !errors.Is(err, ErrClosed) || string(lane.Digits) != before {
		t.Errorf("%v and %s, want ErrClosed and %s", err, lane.Digits, before)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	c := newCipher(t, anyKey(t))
	ctx := leaving(t)
	for _, n := range []int{1, 16, 1024, 3000} {
		lanes := make([]Lane, n)
		for i := range lanes {
			lanes[i] = Lane{Digits: fmt.Appendf(nil, "%011d", i), Tweak: []byte("ten bytes."), Target: even{}}
		}
		for name, ctx := range map[string]context.Context{"by itself": context.Background(), "by the runner": ctx} {
			if got := testing.AllocsPerRun(20, func() {
				if err := c.Encrypt(ctx, lanes); err != nil {
					t.Fatal(err)
				}
			}); got != 0 {
				t.Errorf("%d strings %s: %v allocations", n, name, got)
			}
		}
	}
}
