package merchant

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/tink"
	"go.uber.org/goleak"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

var operator = ledger.Operator{Origin: "uid:0"}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shop = "mer_1"

// keyPrefix is that of keys in mode [Test].
const keyPrefix = "fp_test_"

// hsm is keys in memory that can be away.
type hsm struct {
	*ecdsa.PrivateKey

	kek    tink.AEAD
	away   atomic.Bool // for MACs and sealing
	silent atomic.Bool // for signatures
}

func (h *hsm) Sign(_ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if h.silent.Load() {
		return nil, errors.New("the HSM is away")
	}
	return h.PrivateKey.Sign(rand.Reader, digest, o)
}

func (h *hsm) Encrypt(plain, context []byte) ([]byte, error) {
	if h.away.Load() {
		return nil, fmt.Errorf("%w: away", pci.ErrUnavailable)
	}
	return h.kek.Encrypt(plain, context)
}

func (h *hsm) Decrypt(sealed, context []byte) ([]byte, error) {
	if h.away.Load() {
		return nil, fmt.Errorf("%w: away", pci.ErrUnavailable)
	}
	return h.kek.Decrypt(sealed, context)
}

type mac struct {
	*hsm
	key string
}

func (m mac) Sum(_ context.Context, message []byte) ([]byte, error) {
	if m.away.Load() {
		return nil, fmt.Errorf("%w: away", pci.ErrUnavailable)
	}
	h := hmac.New(sha256.New, []byte(m.key))
	_, _ = h.Write(message)
	return h.Sum(nil), nil
}

// bench is a service over a database and a log.
type bench struct {
	*Service

	t   *testing.T
	dir string
	hsm *hsm
	now time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	kek, err := subtle.NewAESGCM(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: t.TempDir(), hsm: &hsm{PrivateKey: private, kek: kek}, now: time.Now()}
	s, err := store.Open(t.Context(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: "finpay.test/node/2026", Node: "node", Signer: b.hsm})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	b.Service = New(Config{Store: s, Ledger: l, APIKey: mac{b.hsm, "apikey"}, Return: mac{b.hsm, "return"},
		KEK: aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), b.hsm), Now: func() time.Time { return b.now }})
	if _, err := b.Enter(t.Context(), ledger.Operator{Origin: "local"}, store.Merchant{ID: shop, Profile: pci.Merchant{Name: "Pelangi Tea", Sandbox: true}}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) key(scopes ...api.Scope) string {
	b.t.Helper()
	key, err := b.CreateKey(b.t.Context(), operator, shop, KeyTerms{Scopes: scopes})
	if err != nil {
		b.t.Fatal(err)
	}
	return key
}

// entries returns the log's entries of a type.
func (b *bench) entries(kind string) (list []ledger.Entry) {
	b.t.Helper()
	rows, err := b.cfg.Store.Read(b.t.Context()).LedgerEntries(0, 100_000)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, row := range rows {
		var e ledger.Entry
		if err := json.Unmarshal(row.Entry, &e); err != nil {
			b.t.Fatal(err)
		}
		if e.Type == kind {
			list = append(list, e)
		}
	}
	return list
}

func TestAKeyNamesItsMerchantAndScopes(t *testing.T) {
	b := newBench(t)
	key := b.key(api.ScopePayments, api.ScopeAudit)
	caller, err := b.Caller(t.Context(), key, "192.0.2.1")
	if err != nil || caller.MerchantID != shop || caller.Origin != "192.0.2.1" || fmt.Sprint(caller.Scopes) != "[payments audit]" || !strings.Contains(key, caller.KeyID) {
		t.Errorf("%+v, %v", caller, err)
	}
	if caller, err := b.Caller(t.Context(), b.key(), "192.0.2.1"); err != nil || len(caller.Scopes) != 0 {
		t.Errorf("a key without scopes: %+v, %v", caller, err)
	}
	if n := len(b.entries("login.failed")); n > 0 {
		t.Errorf("%d failed logins", n)
	}
}

func TestWhatIsNotAKeyOpensNothing(t *testing.T) {
	b := newBench(t)
	key, other := b.key(api.ScopePayments), b.key(api.ScopePayments)
	const secretAt = len(keyPrefix) + 16 + 1
	flip := func(key string, at int) string {
		to := byte('a')
		if key[at] == to {
			to = 'b'
		}
		return key[:at] + string(to) + key[at+1:]
	}
	revoked := b.key(api.ScopePayments)
	if err := b.RevokeKey(t.Context(), operator, revoked); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{
		"wrong secret":        flip(key, secretAt+5),
		"wrong id":            flip(key, len(keyPrefix)+3),
		"another's secret":    key[:secretAt] + other[secretAt:],
		"revoked":             revoked,
		"empty":               "",
		"the prefix alone":    keyPrefix,
		"no prefix":           strings.TrimPrefix(key, keyPrefix),
		"another prefix":      "fp_live_" + strings.TrimPrefix(key, keyPrefix),
		"no secret":           key[:secretAt-1],
		"an empty secret":     key[:secretAt],
		"too short":           key[:len(key)-1],
		"too long":            key + "a",
		"the id in capitals":  keyPrefix + strings.ToUpper(key[len(keyPrefix):secretAt]) + key[secretAt:],
		"a space in front":    " " + key,
		"a zero byte":         key[:len(key)-1] + "\x00",
		"an id of wildcards":  keyPrefix + strings.Repeat("%", 16) + key[secretAt-1:],
		"an id that is SQL":   keyPrefix + "' OR '1'='1' -- " + key[secretAt-1:],
		"invalid UTF-8":       keyPrefix + strings.Repeat("\xff", 16) + key[secretAt-1:],
		"very long":           keyPrefix + strings.Repeat("a", 1<<20),
		"underscores only":    strings.Repeat("_", len(key)),
		"the row's own parts": keyPrefix + key[len(keyPrefix):secretAt] + base64.RawURLEncoding.EncodeToString(make([]byte, 32)),
	} {
		if caller, err := b.Caller(t.Context(), key, name); !errors.Is(err, api.ErrUnauthorized) || caller.MerchantID != "" {
			t.Errorf("%s: %+v, %v", name, caller, err)
		}
	}
	if _, err := b.Caller(t.Context(), key, "192.0.2.1"); err != nil {
		t.Errorf("the right key: %v", err)
	}
}

// A key that was recognised is not looked up for a while, and a revoked one is refused at once all the same.
func TestAKeyIsRememberedForAWhileAndForgottenWhenRevoked(t *testing.T) {
	b := newBench(t)
	key := b.key(api.ScopeTokens)
	if _, err := b.Caller(t.Context(), key, "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	b.hsm.away.Store(true)
	caller, err := b.Caller(t.Context(), key, "192.0.2.2")
	if err != nil || caller.Origin != "192.0.2.2" || caller.MerchantID != shop {
		t.Errorf("a known key: %+v, %v", caller, err)
	}
	b.now = b.now.Add(knownFor)
	if _, err := b.Caller(t.Context(), key, "192.0.2.1"); !errors.Is(err, pci.ErrUnavailable) {
		t.Errorf("after a while, without the HSM: %v", err)
	}
	b.hsm.away.Store(false)
	if _, err := b.Caller(t.Context(), key, "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	if err := b.RevokeKey(t.Context(), operator, key); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Caller(t.Context(), key, "192.0.2.1"); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("a revoked key: %v", err)
	}
	stale, epoch, _ := b.known.get(key, b.now)
	b.known.forget()
	b.known.put(key, stale, epoch, b.now)
	if _, _, ok := b.known.get(key, b.now); ok {
		t.Error("what was looked up before a revocation is remembered after it")
	}
}

func TestRevokingIsKnownByIdOrKeyAndEnteredOnce(t *testing.T) {
	b := newBench(t)
	whole, id := b.key(), b.key()
	if err := b.RevokeKey(t.Context(), operator, whole); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := b.RevokeKey(t.Context(), operator, id[len(keyPrefix):len(keyPrefix)+16]); err != nil {
			t.Error(err)
		}
	}
	for _, key := range []string{whole, id} {
		if _, err := b.Caller(t.Context(), key, "x"); !errors.Is(err, api.ErrUnauthorized) {
			t.Errorf("%v", err)
		}
	}
	if n := len(b.entries("api_key.revoked")); n != 2 {
		t.Errorf("%d entries", n)
	}
	if err := b.RevokeKey(t.Context(), operator, "aaaaaaaaaaaaaaaa"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an unknown key: %v", err)
	}
}

func TestFailedLoginsAreEnteredOnceAMinuteAndAddress(t *testing.T) {
	b := newBench(t)
	key := b.key()
	fail := func(origin string) {
		t.Helper()
		if _, err := b.Caller(t.Context(), key[:len(key)-2]+"zz", origin); !errors.Is(err, api.ErrUnauthorized) {
			t.Errorf("%v", err)
		}
	}
	want := func(n int) {
		t.Helper()
		if got := len(b.entries("login.failed")); got != n {
			t.Errorf("%d entries, want %d", got, n)
		}
	}
	for range 10 {
		fail("192.0.2.1")
	}
	want(1)
	fail("192.0.2.2")
	want(2)
	b.now = b.now.Add(59 * time.Second)
	fail("192.0.2.1")
	want(2)
	b.now = b.now.Add(time.Second)
	fail("192.0.2.1")
	want(3)
	first := b.entries("login.failed")[0]
	if first.Origin != "192.0.2.1" || first.Outcome != ledger.Failure || first.Resource != "key:"+key[len(keyPrefix):len(keyPrefix)+16] {
		t.Errorf("%+v", first)
	}
}

func TestStrangersCannotMakeTheLogGrow(t *testing.T) {
	b := newBench(t)
	for i := range maxRefused + 100 {
		if _, err := b.Caller(t.Context(), "x", fmt.Sprint(i)); !errors.Is(err, api.ErrUnauthorized) {
			t.Fatal(err)
		}
	}
	if n := len(b.entries("login.failed")); n != maxRefused {
		t.Errorf("%d entries", n)
	}
}

func TestAFailedLoginThatCouldNotBeEnteredIsEnteredTheNextTime(t *testing.T) {
	b := newBench(t)
	b.hsm.silent.Store(true)
	if _, err := b.Caller(t.Context(), "x", "192.0.2.1"); !errors.Is(err, pci.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	b.hsm.silent.Store(false)
	if _, err := b.Caller(t.Context(), "x", "192.0.2.1"); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("%v", err)
	}
	if n := len(b.entries("login.failed")); n != 1 {
		t.Errorf("%d entries", n)
	}
}

func TestSecretsAreTheSameEachTimeAndEachMerchantsOwn(t *testing.T) {
	b := newBench(t)
	if _, err := b.Enter(t.Context(), ledger.Operator{Origin: "local"}, store.Merchant{ID: "mer_2"}); err != nil {
		t.Fatal(err)
	}
	first, err := b.Secrets(t.Context(), shop)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Secrets(t.Context(), shop)
	if err != nil || again != first {
		t.Errorf("%v", err)
	}
	other, err := b.Secrets(t.Context(), "mer_2")
	if err != nil || other.Return == first.Return {
		t.Errorf("two merchants share a secret (%v)", err)
	}
	text, ok := strings.CutPrefix(first.Return, "rsec_")
	if raw, err := base64.RawURLEncoding.DecodeString(text); !ok || err != nil || len(raw) != 32 {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
	if _, err := b.Secrets(t.Context(), "mer_gone"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestWithoutTheHSMEverythingIsUnavailable(t *testing.T) {
	b := newBench(t)
	key := b.key()
	b.hsm.away.Store(true)
	ctx := t.Context()
	_, key2 := b.CreateKey(ctx, operator, shop, KeyTerms{})
	_, caller := b.Caller(ctx, key, "x")
	_, secrets := b.Secrets(ctx, shop)
	_, _, session := b.Session(ctx, "pay_1")
	_, sign := b.SignReturn(ctx, shop, "https://shop.example", "pay_1", "captured")
	_, request := b.RequestMAC(ctx, []byte("x"))
	_, _, webhook := b.NewWebhookSecret(hook)
	for name, err := range map[string]error{"webhook secret": webhook, "create key": key2, "caller": caller,
		"secrets": secrets, "session": session, "return": sign, "request": request} {
		if !errors.Is(err, pci.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.hsm.away.Store(false)
	if _, err := b.Caller(ctx, key, "x"); err != nil {
		t.Errorf("back again: %v", err)
	}
	if n := len(b.entries("login.failed")); n > 0 {
		t.Errorf("%d failed logins were entered for an HSM that was away", n)
	}
}

func TestACopyOfTheDatabaseGrantsNothing(t *testing.T) {
	b := newBench(t)
	key := b.key(api.ScopePayments)
	secrets, err := b.Secrets(t.Context(), shop)
	if err != nil {
		t.Fatal(err)
	}
	session, hash, err := b.Session(t.Context(), "pay_1")
	if err != nil {
		t.Fatal(err)
	}
	webhook, sealed, err := b.NewWebhookSecret(hook)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.cfg.Ledger.Commit(t.Context(), func(tx *ledger.Tx) error {
		p := store.Payment{ID: "pay_1", MerchantID: shop, SessionHash: hash, Status: "created", ReturnURL: "https://shop.example"}
		if err := tx.PutPayment(p); err != nil {
			return err
		}
		endpoint := hook
		endpoint.Secret = sealed
		if err := tx.PutEndpoint(endpoint); err != nil {
			return err
		}
		tx.Record(ledger.Entry{Type: "payment.created", Resource: p.ID})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	_, _ = b.Caller(t.Context(), key, "192.0.2.1")
	_, _ = b.Caller(t.Context(), key[:len(key)-2]+"zz", "192.0.2.1")

	forms := map[string][]byte{}
	add := func(name, text string, encodings ...*base64.Encoding) {
		forms[name] = []byte(text)
		for _, e := range encodings {
			if raw, err := e.DecodeString(text); err == nil {
				forms[name+", raw"] = raw
			} else {
				t.Error(err)
			}
		}
	}
	add("key's secret", key[len(keyPrefix)+17:], base64.RawURLEncoding)
	add("session", session, base64.RawURLEncoding)
	add("return secret", strings.TrimPrefix(secrets.Return, "rsec_"), base64.RawURLEncoding)
	add("webhook secret", strings.TrimPrefix(webhook, "whsec_"), base64.StdEncoding)
	files, err := filepath.Glob(filepath.Join(b.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	all := []byte{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	for name, secret := range forms {
		if bytes.Contains(all, secret) {
			t.Errorf("the database holds the %s", name)
		}
	}
	if !bytes.Contains(all, hash) {
		t.Error("the search does not find what is there")
	}
}

func TestSignReturnRefusesNoAddress(t *testing.T) {
	b := newBench(t)
	if _, err := b.SignReturn(t.Context(), shop, "https://%zz/", "pay_1", "captured"); err == nil {
		t.Error("signed")
	}
	for _, address := range []string{"https://shop.example", "https://shop.example/a?b=c#part", "https://shop.example/?x=%E2%82%AC"} {
		signed, err := b.SignReturn(t.Context(), shop, address, "pay_1", "captured")
		if err != nil {
			t.Fatal(err)
		}
		before, _ := url.Parse(address)
		after, err := url.Parse(signed)
		if err != nil || after.Host != before.Host || after.Path != before.Path || after.Fragment != before.Fragment {
			t.Errorf("%s became %s", address, signed)
		}
		for name := range before.Query() {
			if after.Query().Get(name) != before.Query().Get(name) {
				t.Errorf("%s became %s", address, signed)
			}
		}
	}
}
