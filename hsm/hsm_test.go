package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/finterra/finpay/hsm"
	softhsmtest "github.com/finterra/finpay/softhsm-test"
)

var (
	tokenize = hsm.Spec{Role: "tokenize", Kind: hsm.AESEncrypt, Class: hsm.Recoverable}
	kek      = hsm.Spec{Role: "kek", Kind: hsm.AESWrap, Class: hsm.Recoverable}
	ledger   = hsm.Spec{Role: "ledger", Kind: hsm.ECSign, Class: hsm.Bound}
	edwards  = hsm.Spec{Role: "ledger-ed25519", Kind: hsm.Ed25519Sign, Class: hsm.Bound}
	apikey   = hsm.Spec{Role: "apikey", Kind: hsm.HMAC, Class: hsm.Bound}
	intake   = hsm.Spec{Role: "intake", Kind: hsm.ECDerive, Class: hsm.Bound}
)

func TestKeysAreBornWithTheAttributesOfTheirClass(t *testing.T) {
	engine := softhsmtest.Open(t)
	for _, spec := range []hsm.Spec{tokenize, kek, ledger, edwards, apikey, intake} {
		birth, err := engine.Generate(t.Context(), hsm.Key{Role: spec.Role, Version: 1}, spec)
		if err != nil {
			t.Fatal(err)
		}
		recoverable := spec.Class == hsm.Recoverable
		if !birth.Local || !birth.Sensitive || !birth.AlwaysSensitive {
			t.Errorf("%s: %+v", spec.Role, birth)
		}
		if birth.Extractable != recoverable || birth.NeverExtractable == recoverable || birth.WrapWithTrusted != recoverable {
			t.Errorf("%s is %s, but %+v", spec.Role, spec.Class, birth)
		}
		if len(birth.CheckValue) < 6 {
			t.Errorf("%s: check value %q", spec.Role, birth.CheckValue)
		}
		if _, err := engine.Generate(t.Context(), hsm.Key{Role: spec.Role, Version: 1}, spec); err == nil {
			t.Errorf("%s was generated twice", spec.Role)
		}
	}
	if _, err := engine.PublicKey(t.Context(), hsm.Key{Role: "ledger", Version: 2}); !errors.Is(err, hsm.ErrNoKey) {
		t.Errorf("a key that is not there: %v", err)
	}
}

func TestAnIndependentClientVerifiesOurSignatures(t *testing.T) {
	cfg := softhsmtest.Token(t)
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	key := softhsmtest.Key(t, engine, ledger)
	signer, err := engine.Signer(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("checkpoint"))
	signature, err := signer.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Close(); err != nil { // crypto11 wants to initialize the module itself
		t.Fatal(err)
	}
	other, err := crypto11.Configure(&crypto11.Config{Path: cfg.Module, TokenLabel: cfg.Label, Pin: cfg.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	found, err := other.FindKeyPair(key.ID(), []byte(key.Label()))
	if err != nil || found == nil {
		t.Fatalf("crypto11 does not find the key: %v", err)
	}
	public := found.Public().(*ecdsa.PublicKey)
	if !public.Equal(signer.Public()) {
		t.Error("crypto11 reads another public key")
	}
	if !ecdsa.VerifyASN1(public, digest[:], signature) {
		t.Error("signature does not verify under crypto11's public key")
	}
	if ecdsa.VerifyASN1(public, bytes.Repeat([]byte{1}, 32), signature) {
		t.Error("signature verifies for another digest")
	}
}

func TestEd25519SignsTheMessageItself(t *testing.T) {
	engine := softhsmtest.Open(t)
	signer, err := engine.Signer(t.Context(), softhsmtest.Key(t, engine, edwards))
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("a note of any length")
	signature, err := signer.Sign(nil, message, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(signer.Public().(ed25519.PublicKey), message, signature) {
		t.Error("signature does not verify")
	}
}

func TestSignerRefusesWhatIsNotADigest(t *testing.T) {
	engine := softhsmtest.Open(t)
	signer, err := engine.Signer(t.Context(), softhsmtest.Key(t, engine, ledger))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.Sign(nil, []byte("a whole message"), crypto.SHA256); err == nil {
		t.Error("15 bytes were signed as a SHA-256 digest")
	}
}

func TestTinkEnvelopeUnderTheHSMsKey(t *testing.T) {
	engine := softhsmtest.Open(t)
	remote := engine.AEAD(softhsmtest.Key(t, engine, kek))
	var _ tink.AEAD = remote
	envelope := aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), remote)
	sealed, err := envelope.Encrypt([]byte("whsec_secret"), []byte("merchant m1"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := envelope.Decrypt(sealed, []byte("merchant m1"))
	if err != nil || string(plain) != "whsec_secret" {
		t.Fatalf("%q, %v", plain, err)
	}
	data, err := remote.Encrypt([]byte("data key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	for range 5 { // a wrong tag is the caller's fault and must not look like a lost device
		if _, err := remote.Decrypt(data, nil); err == nil {
			t.Fatal("a forged ciphertext was accepted")
		}
	}
	if !engine.Health().Up || engine.Health().Restarts != 0 {
		t.Errorf("forged ciphertexts restarted the engine: %+v", engine.Health())
	}
}

// blockCipher returns a cipher under a fresh key.
func blockCipher(t testing.TB, engine *hsm.Engine) *hsm.BlockCipher {
	t.Helper()
	blocks, err := engine.BlockCipher(t.Context(), softhsmtest.Key(t, engine, tokenize))
	if err != nil {
		t.Fatal(err)
	}
	return blocks
}

func TestBlocksAreEncryptedEachOnItsOwnAndInPlace(t *testing.T) {
	engine := softhsmtest.Open(t)
	blocks := blockCipher(t, engine)
	src := make([]byte, 16*1024)
	_, _ = rand.Read(src[:16*512])
	copy(src[16*512:], src[:16*512])
	dst := make([]byte, len(src))
	if err := blocks.EncryptBlocks(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dst[:16*512], dst[16*512:]) || bytes.Equal(dst[:16], dst[16:32]) {
		t.Error("not an electronic code book")
	}
	one := bytes.Clone(src[:16])
	if err := blocks.EncryptBlocks(t.Context(), one, one); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, dst[:16]) {
		t.Error("a block alone differs from the same block among others")
	}
	for _, n := range []int{0, 1, 15, 17} {
		if err := blocks.EncryptBlocks(t.Context(), dst[:n], src[:n]); err == nil {
			t.Errorf("%d bytes were accepted", n)
		}
	}
}

func TestBlockPathAllocatesNothing(t *testing.T) {
	engine := softhsmtest.Open(t)
	blocks := blockCipher(t, engine)
	buf := make([]byte, 16*64)
	if n := testing.AllocsPerRun(100, func() {
		if err := blocks.EncryptBlocks(context.Background(), buf, buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per call", n)
	}
}

func TestObjectsLiveUntilTheyAreDestroyed(t *testing.T) {
	engine := softhsmtest.Open(t)
	objects := engine.NewObjects()
	a, err := objects.Create(t.Context(), []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := objects.Create(t.Context(), []byte("second"))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := objects.Read(t.Context(), b, buf)
	if err != nil || string(buf[:n]) != "second" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if err := objects.Destroy(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Read(t.Context(), b, buf); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("a destroyed object was read: %v", err)
	}
	if n, err = objects.Read(t.Context(), a, buf); err != nil || string(buf[:n]) != "first" {
		t.Errorf("the neighbour is gone: %v", err)
	}
	if _, err := objects.Read(t.Context(), a, buf[:2]); err == nil {
		t.Error("a buffer that is too small was accepted")
	}
}

func TestObjectsThatDiedWithTheirSessionAreNeverMistakenForNewOnes(t *testing.T) {
	engine := softhsmtest.Open(t)
	objects := engine.NewObjects()
	create := func(value string) uint64 {
		id, err := objects.Create(t.Context(), []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first, second := create("first"), create("second")
	if err := objects.EndSession(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if _, err := objects.Read(t.Context(), first, buf); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("an object of a closed session: %v, want ErrLost", err)
	}
	third := create("third") // on a new session of the same login
	if n, err := objects.Read(t.Context(), second, buf); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("an object of the session before: %q, %v, want ErrLost", buf[:n], err)
	}
	if n, err := objects.Read(t.Context(), third, buf); err != nil || string(buf[:n]) != "third" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if objects.Live() != 1 {
		t.Errorf("the keeper knows %d objects, want the living one", objects.Live())
	}
}

func TestWrongPINIsTriedOnce(t *testing.T) {
	cfg := softhsmtest.Token(t)
	cfg.PIN = "000000"
	if _, err := hsm.Open(cfg); !errors.Is(err, hsm.ErrPIN) {
		t.Fatalf("%v", err)
	}
	cfg.PIN = softhsmtest.PIN
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = engine.Close()
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	cfg := softhsmtest.Token(t)
	cfg.Label = "production"
	if _, err := hsm.Open(cfg); err == nil || !bytes.Contains([]byte(err.Error()), []byte(`"test"`)) {
		t.Errorf("the labels that are there are not named: %v", err)
	}
	cfg.Label = "pkcs11:slot-id=1"
	if _, err := hsm.Open(cfg); err == nil || !strings.Contains(err.Error(), "slot-id") {
		t.Errorf("%v", err)
	}
	cfg.Label = "test"
	cfg.Environment = map[string]string{"SOFTHSM2_CONF": "/nonexistent.conf"}
	if _, err := hsm.Open(cfg); err == nil || !strings.Contains(err.Error(), "SOFTHSM2_CONF names /nonexistent.conf") {
		t.Errorf("%v", err)
	}
	cfg.Module = "/nonexistent.so"
	if _, err := hsm.Open(cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// SoftHSM2 does not say that its token directory has become unreadable: its keys are not found any more, in any session.
func TestServiceResumesAfterTheKeysWereOutOfReach(t *testing.T) {
	cfg := softhsmtest.Token(t)
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	mac := engine.MAC(softhsmtest.Key(t, engine, apikey))
	before, err := mac.Sum(t.Context(), []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}

	tokens := filepath.Join(filepath.Dir(cfg.Environment["SOFTHSM2_CONF"]), "tokens")
	if err := os.Rename(tokens, tokens+".away"); err != nil {
		t.Fatal(err)
	}
	if err := engine.Ping(t.Context()); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("an HSM without its keys answers %v to a ping, want ErrUnavailable", err)
	}
	if _, err := mac.Sum(t.Context(), []byte("message")); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("a key that was there a moment ago: %v, want ErrUnavailable", err)
	}
	if err := os.Rename(tokens+".away", tokens); err != nil {
		t.Fatal(err)
	}
	var after []byte
	deadline, tick := time.After(20*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for after, err = mac.Sum(t.Context(), []byte("message")); err != nil; after, err = mac.Sum(t.Context(), []byte("message")) {
		select {
		case <-tick.C:
			continue
		case <-deadline:
		}
		break
	}
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("after the keys came back: %v", err)
	}
}

func TestServiceResumesAfterTheModuleWasFinalizedUnderLoad(t *testing.T) {
	cfg := softhsmtest.Token(t)
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	mac := engine.MAC(softhsmtest.Key(t, engine, apikey))
	blocks := blockCipher(t, engine)
	objects := engine.NewObjects()
	held, err := objects.Create(t.Context(), []byte("card"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := mac.Sum(t.Context(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}

	finalize(t, cfg.Module) // as if the vendor's library had lost the device

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				got, err := mac.Sum(ctx, []byte("x"))
				if err == nil {
					if !bytes.Equal(got, want) {
						t.Error("a wrong answer")
					}
					return
				}
			}
			t.Error("no answer within five seconds")
		})
	}
	wg.Wait()
	buf := make([]byte, 16)
	if err := blocks.EncryptBlocks(ctx, buf, buf); err != nil {
		t.Errorf("block path: %v", err)
	}
	if _, err := objects.Read(ctx, held, make([]byte, 16)); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("an object of the lost session: %v", err)
	}
	if _, err := objects.Create(ctx, []byte("card")); err != nil {
		t.Errorf("a new object: %v", err)
	}
}

// finalize ends the module behind the engine's back: the same library, loaded again, is the same instance.
func finalize(t *testing.T, module string) {
	t.Helper()
	behind := pkcs11.New(module)
	if err := behind.Finalize(); err != nil {
		t.Fatal(err)
	}
}

func TestTwoHSMTokensOfOneLabelAreToldApartByTheirSerialNumbers(t *testing.T) {
	cfg := softhsmtest.Token(t)
	if err := hsm.Provision(cfg, "87654321"); err == nil {
		t.Error("a label that is taken was given again")
	}
	module := pkcs11.New(cfg.Module) // as another program would
	if err := module.Initialize(); err != nil {
		t.Fatal(err)
	}
	slots, err := module.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	first, err := module.GetTokenInfo(slots[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := module.InitToken(slots[len(slots)-1], "87654321", cfg.Label); err != nil {
		t.Fatal(err)
	}
	if err := module.Finalize(); err != nil {
		t.Fatal(err)
	}
	if _, err := hsm.Open(cfg); err == nil || !strings.Contains(err.Error(), "serial=") {
		t.Errorf("one of two was taken: %v", err)
	}
	if _, err := hsm.Provisioned(cfg); err == nil {
		t.Error("two tokens count as none, or as one")
	}
	cfg.Label = "pkcs11:token=" + cfg.Label + ";serial=" + strings.TrimRight(first.SerialNumber, " \x00")
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	about, err := engine.Describe(t.Context())
	if err != nil || about.Serial != strings.TrimRight(first.SerialNumber, " \x00") {
		t.Errorf("%+v, %v", about, err)
	}
}
