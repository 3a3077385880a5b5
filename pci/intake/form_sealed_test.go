package intake

import (
	"crypto/hpke"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/finterra/finpay/pci"
	"github.com/finterra/finpay/pci/custody"
)

var checkoutAAD = []byte(pci.SealedCheckoutAAD("s3cr3t", "mer_1", pci.Amount{Minor: 1250, Currency: "EUR"}))

// sealForm is what a browser's script does to a form.
func (v *vault) sealForm(t testing.TB, plain string, info, aad []byte) url.Values {
	t.Helper()
	public, err := hpke.NewDHKEMPublicKey(v.private.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	kdf, aead := pci.SealingSuite()
	enc, sender, err := hpke.NewSender(public, kdf, aead, info)
	if err != nil {
		t.Fatal(err)
	}
	ct, err := sender.Seal(aad, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return url.Values{"key": {"intake v1"}, "enc": {base64.RawURLEncoding.EncodeToString(enc)}, "ct": {base64.RawURLEncoding.EncodeToString(ct)}}
}

// sealedBench takes sealed forms; open ones where it says so.
func sealedBench(t testing.TB, v *vault, open bool) bench {
	t.Helper()
	b := newBench()
	b.Forms = New(b.store, v, open, b.now)
	return b
}

func (b bench) postUnder(body string, aad []byte) (pci.CardRef, pci.Entered, error) {
	return b.Take(request(strings.NewReader(body)), "pay_1", aad)
}

func TestASealedFormIsTheFormInIt(t *testing.T) {
	v := newVault(t)
	b := sealedBench(t, v, false)
	sealed := v.sealForm(t, with("form", "00112233445566778899aabbccddeeff"), pci.SealedCheckoutInfo(), checkoutAAD)
	ref, entered, err := b.postUnder(sealed.Encode(), checkoutAAD)
	if err != nil {
		t.Fatal(err)
	}
	if number, cvv, _ := b.held(t, ref); number != "4111111111111111" || cvv != "738" {
		t.Errorf("held %s %s", number, cvv)
	}
	if entered.Form != "00112233445566778899aabbccddeeff" || entered.Envelope.Key != "intake v1" || entered.Envelope.Hash == [32]byte{} {
		t.Errorf("%+v", entered)
	}
	again, _, err := b.postUnder(sealed.Encode(), checkoutAAD) // whether that may be is its caller's to say
	if err != nil || again == ref {
		t.Error(err)
	}
	_, other, err := b.postUnder(v.sealForm(t, with(), pci.SealedCheckoutInfo(), checkoutAAD).Encode(), checkoutAAD)
	if err != nil || other.Envelope == entered.Envelope {
		t.Errorf("%+v, %v", other, err)
	}
	// What is wrong inside is told as for an open form.
	_, _, err = b.postUnder(v.sealForm(t, with("number", "4111 1111 1111 1112"), pci.SealedCheckoutInfo(), checkoutAAD).Encode(), checkoutAAD)
	if wrong, ok := errors.AsType[pci.CardErrors](err); !ok || len(wrong) != 1 || wrong[0].Reason != pci.ReasonChecksum {
		t.Error(err)
	}
}

func TestASealedFormOpensWhereItBelongsOnly(t *testing.T) {
	v := newVault(t)
	b := sealedBench(t, v, false)
	info := pci.SealedCheckoutInfo()
	good := v.sealForm(t, with(), info, checkoutAAD)
	change := func(field string, value func(string) string) string {
		changed := url.Values{"key": good["key"], "enc": good["enc"], "ct": good["ct"]}
		changed.Set(field, value(good.Get(field)))
		return changed.Encode()
	}
	other := func(session, merchant string, minor int64, currency pci.Currency) string {
		return v.sealForm(t, with(), info, []byte(pci.SealedCheckoutAAD(session, merchant, pci.Amount{Minor: minor, Currency: currency}))).Encode()
	}
	off := base64.RawURLEncoding.EncodeToString(append([]byte{4}, make([]byte, 64)...))
	infinity := base64.RawURLEncoding.EncodeToString([]byte{0})
	random := make([]byte, 65)
	_, _ = rand.Read(random)
	wide := strings.Map(func(r rune) rune { return r }, "\x00"+strings.Join(strings.Split(with(), ""), "\x00"))
	for name, c := range map[string]struct {
		body string
		want error
	}{
		"an open form":                 {with(), pci.ErrOpenCard},
		"sealed to another session":    {other("0ther", "mer_1", 1250, "EUR"), pci.ErrMalformed},
		"sealed for another merchant":  {other("s3cr3t", "mer_2", 1250, "EUR"), pci.ErrMalformed},
		"sealed for another amount":    {other("s3cr3t", "mer_1", 1, "EUR"), pci.ErrMalformed},
		"sealed for another currency":  {other("s3cr3t", "mer_1", 1250, "USD"), pci.ErrMalformed},
		"sealed for the token API":     {v.sealForm(t, with(), pci.SealedCardInfo("", "k"), nil).Encode(), pci.ErrMalformed},
		"without additional data":      {v.sealForm(t, with(), info, nil).Encode(), pci.ErrMalformed},
		"an unknown key":               {change("key", func(string) string { return "intake v9" }), pci.ErrIntakeKey},
		"a truncated ciphertext":       {change("ct", func(s string) string { return s[:len(s)-4] }), pci.ErrMalformed},
		"a ciphertext of a tag alone":  {change("ct", func(s string) string { return s[:22] }), pci.ErrMalformed},
		"a ciphertext of three bytes":  {change("ct", func(s string) string { return s[:4] }), pci.ErrMalformed},
		"trailing bytes":               {change("ct", func(s string) string { return s + "AAAA" }), pci.ErrMalformed},
		"trailing bytes after the enc": {change("enc", func(s string) string { return s + "AAAA" }), pci.ErrMalformed},
		"padding":                      {change("ct", func(s string) string { return s + "=" }), pci.ErrMalformed},
		"a point off the curve":        {change("enc", func(string) string { return off }), pci.ErrMalformed},
		"the point at infinity":        {change("enc", func(string) string { return infinity }), pci.ErrMalformed},
		"no point":                     {change("enc", func(string) string { return base64.RawURLEncoding.EncodeToString(random) }), pci.ErrMalformed},
		"no ciphertext":                {change("ct", func(string) string { return "" }), pci.ErrMalformed},
		"no key's name":                {change("key", func(string) string { return "" }), pci.ErrIntakeKey},
		"the ciphertext twice":         {good.Encode() + "&ct=AAAA", pci.ErrMalformed},
		"an open number beside it":     {good.Encode() + "&number=4111111111111111", pci.ErrMalformed},
		"an open form id beside it":    {good.Encode() + "&form=00aa", pci.ErrMalformed},
		"a megabyte":                   {change("ct", func(string) string { return strings.Repeat("A", 1<<20) }), pci.ErrTooLarge},
		"sealed twice":                 {v.sealForm(t, good.Encode(), info, checkoutAAD).Encode(), pci.ErrMalformed},
		"nothing sealed":               {v.sealForm(t, "", info, checkoutAAD).Encode(), nil},
		"another form inside":          {v.sealForm(t, "a=b", info, checkoutAAD).Encode(), pci.ErrMalformed},
		"fields twice inside":          {v.sealForm(t, with()+"&cvv=123", info, checkoutAAD).Encode(), pci.ErrMalformed},
		"NULs inside":                  {v.sealForm(t, with("name", "a\x00b"), info, checkoutAAD).Encode(), pci.ErrMalformed},
		"UTF-16 inside":                {v.sealForm(t, wide, info, checkoutAAD).Encode(), pci.ErrMalformed},
		"not UTF-8 inside":             {v.sealForm(t, with("name", "\xff\xfe"), info, checkoutAAD).Encode(), pci.ErrMalformed},
	} {
		ref, _, err := b.postUnder(c.body, checkoutAAD)
		if c.want == nil {
			if !isCardErrors(err) {
				t.Errorf("%s: %v, want what is missing", name, err)
			}
			continue
		}
		if !errors.Is(err, c.want) || !ref.IsZero() {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if n := b.store.Stats().Held; n != 0 {
		t.Errorf("%d cards are held", n)
	}
	v.away = true
	if _, _, err := b.postUnder(good.Encode(), checkoutAAD); !errors.Is(err, pci.ErrUnavailable) {
		t.Errorf("without the HSM: %v", err)
	}
	full := New(custody.New(&objects{}, custody.Config{Deadline: 1}), v, false, b.now)
	v.away = false
	if _, _, err := full.Take(request(strings.NewReader(good.Encode())), "pay_1", checkoutAAD); !errors.Is(err, pci.ErrFull) {
		t.Errorf("custody is full: %v", err)
	}
}

func FuzzSealedForm(f *testing.F) {
	v := newVault(f)
	good := v.sealForm(f, with(), pci.SealedCheckoutInfo(), checkoutAAD)
	f.Add(good.Encode(), with())
	f.Add("key=intake+v1&enc="+good.Get("enc")+"&ct=AA", "")
	f.Add("ct=AA&ct=AA", "number=4111111111111111")
	f.Fuzz(func(t *testing.T, body, inside string) {
		b := sealedBench(t, v, false)
		for _, text := range []string{body, v.sealForm(t, inside, pci.SealedCheckoutInfo(), checkoutAAD).Encode()} {
			_, _, err := b.postUnder(text, checkoutAAD)
			if err == nil || isCardErrors(err) {
				continue
			}
			for _, expected := range []error{pci.ErrMalformed, pci.ErrTooLarge, pci.ErrIntakeKey, pci.ErrOpenCard} {
				if errors.Is(err, expected) {
					err = nil
					break
				}
			}
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}
