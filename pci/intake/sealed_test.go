package intake

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
)

// vault has one intake key.
type vault struct {
	private *ecdh.PrivateKey
	away    bool
}

func newVault(t testing.TB) *vault {
	t.Helper()
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &vault{private: private}
}

func (v *vault) IntakeKey(name string) ecdh.KeyExchanger {
	if name != "intake v1" {
		return nil
	}
	return exchanger{v}
}

type exchanger struct{ v *vault }

func (e exchanger) PublicKey() *ecdh.PublicKey { return e.v.private.PublicKey() }
func (e exchanger) Curve() ecdh.Curve          { return ecdh.P256() }
func (e exchanger) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if e.v.away {
		return nil, errors.New("away")
	}
	return e.v.private.ECDH(peer)
}

// sealer returns the base64url of an encapsulated key and of what is sealed under it.
func (v *vault) sealer(t testing.TB, info string) (enc string, seal func(plain string) string) {
	t.Helper()
	public, err := hpke.NewDHKEMPublicKey(v.private.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	kdf, aead := pci.SealingSuite()
	raw, sender, err := hpke.NewSender(public, kdf, aead, []byte(info))
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), func(plain string) string {
		ct, err := sender.Seal(nil, []byte(plain))
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(ct)
	}
}

func envelope(key, enc, ct string) string {
	return fmt.Sprintf(`{"key":%q,"enc":%q,"ct":%q}`, key, enc, ct)
}

func TestASealedCardIsTakenUnderItsInfoOnly(t *testing.T) {
	v := newVault(t)
	post := func(body string) (pci.Tokenized, error) {
		return newTokens(&forge{}, v, true).One(httptest.NewRequest("POST", "/", strings.NewReader(body)), "d", []byte("info"))
	}
	enc, seal := v.sealer(t, "info")
	good := envelope("intake v1", enc, seal(line(number(1))))
	if got, err := post(good); err != nil || got.Token.Card.Brand != pci.Visa {
		t.Fatalf("%+v, %v", got, err)
	}
	otherEnc, otherSeal := v.sealer(t, "other info")
	nextEnc, nextSeal := v.sealer(t, "info")
	off := base64.RawURLEncoding.EncodeToString(append([]byte{4}, make([]byte, 64)...)) // no point of the curve
	for name, c := range map[string]struct {
		body string
		want error
	}{
		"sealed for another request": {envelope("intake v1", otherEnc, otherSeal(line(number(1)))), pci.ErrMalformed},
		"another key":                {envelope("intake v2", enc, "AA"), pci.ErrIntakeKey},
		"another encapsulated key":   {envelope("intake v1", otherEnc, nextSeal(line(number(1)))), pci.ErrMalformed},
		"out of its order":           {envelope("intake v1", nextEnc, nextSeal(line(number(1)))), pci.ErrMalformed},
		"an invalid point":           {envelope("intake v1", off, "AA"), pci.ErrMalformed},
		"no point":                   {envelope("intake v1", "AA", "AA"), pci.ErrMalformed},
		"trailing bytes":             {strings.Replace(good, `"}`, `AAAA"}`, 1), pci.ErrMalformed},
		"a truncated ciphertext":     {envelope("intake v1", enc, "AAAA"), pci.ErrMalformed},
		"padding":                    {envelope("intake v1", enc+"==", "AAAA"), pci.ErrMalformed},
		"no ciphertext":              {`{"key":"intake v1","enc":"` + enc + `"}`, pci.ErrMalformed},
		"an open card beside it":     {strings.Replace(good, `{`, `{"number":"4111111111111111",`, 1), pci.ErrMalformed},
		"too large":                  {envelope("intake v1", enc, strings.Repeat("A", 1<<20)), pci.ErrTooLarge},
	} {
		if _, err := post(c.body); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	badEnc, badSeal := v.sealer(t, "info")
	if _, err := post(envelope("intake v1", badEnc, badSeal(`{"number":"4111111111111112","expiry":"2031-12"}`))); err == nil || err.Error() != "card number: wrong_checksum" {
		t.Errorf("a sealed card that is wrong: %v", err)
	}
	v.away = true
	if _, err := post(good); !errors.Is(err, pci.ErrUnavailable) {
		t.Errorf("without the HSM: %v", err)
	}
}

func (v *vault) stream(t *testing.T, lines ...string) ([]pci.Tokenized, error) {
	t.Helper()
	var all []pci.Tokenized
	err := newTokens(&forge{}, v, true).Stream(t.Context(), readCloser{strings.NewReader(strings.Join(lines, "\n"))}, "d", []byte("info"), func(pci.Envelope) error { return nil },
		func(batch []pci.Tokenized) error { all = append(all, batch...); return nil })
	return all, err
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func TestASealedStreamIsOneContext(t *testing.T) {
	v := newVault(t)
	enc, seal := v.sealer(t, "info")
	text := []string{fmt.Sprintf(`{"key":"intake v1","enc":%q}`, enc)}
	for i := range 100 {
		text = append(text, fmt.Sprintf(`{"ct":%q}`, seal(line(number(i)))))
	}
	got, err := v.stream(t, text...)
	if err != nil || len(got) != 100 {
		t.Fatalf("%d results, %v", len(got), err)
	}
	for i, r := range got {
		if want := number(i)[12:]; r.Err != nil || string(r.Token.Token) != "t"+want {
			t.Errorf("line %d: %+v", i, r)
		}
	}
	// A line left out, and one sent twice: neither it nor what follows opens.
	for name, changed := range map[string][]string{"left out": append(text[:50:50], text[51:]...), "sent twice": append(text[:51:51], text[50:]...)} {
		got, err := v.stream(t, changed...)
		if err != nil || got[48].Err != nil || !errors.Is(got[len(got)-1].Err, pci.ErrMalformed) && name == "left out" || !errors.Is(got[50].Err, pci.ErrMalformed) {
			t.Errorf("%s: %v, %v", name, got[48:52], err)
		}
	}
	// An open card has no place in a sealed stream.
	got, err = v.stream(t, text[0], line(number(3)), text[1])
	if err != nil || !errors.Is(got[0].Err, pci.ErrMalformed) || got[1].Err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := v.stream(t, `{"key":"intake v9","enc":"AA"}`, text[1]); !errors.Is(err, pci.ErrIntakeKey) || len(got) != 0 {
		t.Errorf("an unknown key: %+v, %v", got, err)
	}
	// What is neither a card nor the beginning of a sealed stream is a line like the others.
	got, err = v.stream(t, `{"n\u0075mber":"\u0034111111111111112","expiry":"2031-12"}`, line(number(3)))
	if err != nil || len(got) != 2 || got[0].Err == nil || got[0].Err.Error() != "card number: wrong_checksum" || got[1].Err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzSealedCard(f *testing.F) {
	v := newVault(f)
	enc, seal := v.sealer(f, "info")
	f.Add(envelope("intake v1", enc, seal(line(number(1)))))
	f.Add(envelope("intake v1", enc, "AA"))
	f.Add(`{"ct":"AA"}`)
	f.Fuzz(func(t *testing.T, body string) {
		_, err := newTokens(&forge{}, v, true).One(httptest.NewRequest("POST", "/", strings.NewReader(body)), "d", []byte("info"))
		if err != nil && !errors.Is(err, pci.ErrMalformed) && !errors.Is(err, pci.ErrTooLarge) && !errors.Is(err, pci.ErrIntakeKey) && !isCardErrors(err) {
			t.Errorf("%q: %v", body, err)
		}
	})
}
