// Package conformance runs one suite over every PKCS#11 provider at hand: SoftHSM2 and NSS softokn always, openCryptoki and
// a p11-kit socket with the build tag peers (`make peers`). What a provider lacks is in its table of capabilities, and
// then the clear refusal is what is tested.
package conformance

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/hsm"
)

// provider is a module with an hsm token that has no keys.
type provider struct {
	profile  string // of firmware-config/providers
	module   string // "" means that of the profile
	label    string
	pin      string
	wrongPIN string
	argument string            // "" means the profile's
	env      map[string]string // over the profile's
	lacks    []hsm.Role        // roles whose operation it does not have
	replaces bool              // a second object of the same CKA_ID takes the first one's place
}

// specs has a role of each kind.
var specs = []hsm.Spec{
	{Role: "tokenize", Kind: hsm.AESEncrypt, Class: hsm.Recoverable},
	{Role: "kek", Kind: hsm.AESWrap, Class: hsm.Recoverable},
	{Role: "ledger", Kind: hsm.ECSign, Class: hsm.Bound},
	{Role: "ledger-ed25519", Kind: hsm.Ed25519Sign, Class: hsm.Bound, Optional: true},
	{Role: "intake", Kind: hsm.ECDerive, Class: hsm.Bound},
	{Role: "apikey", Kind: hsm.HMAC, Class: hsm.Bound},
}

func key(role hsm.Role) hsm.Key { return hsm.Key{Role: role, Version: 1} }

func (p provider) has(role hsm.Role) bool { return !slices.Contains(p.lacks, role) }

// config is what the appliance would use.
func (p provider) config(t *testing.T) hsm.Config {
	t.Helper()
	profile, _, err := config.Provider(p.profile, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := hsm.Config{Module: p.module, Label: p.label, PIN: p.pin, InitArgument: p.argument, Environment: profile.Environment, Profile: profile}
	if cfg.Module == "" {
		cfg.Module = profile.Modules[0]
	}
	if cfg.InitArgument == "" {
		cfg.InitArgument = profile.InitArgument
	}
	for name, value := range p.env {
		cfg.Environment[name] = value
	}
	return cfg
}

func open(t *testing.T, cfg hsm.Config) *hsm.Engine {
	t.Helper()
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return engine
}

// blockCipher returns the block path of a key.
func blockCipher(t *testing.T, engine *hsm.Engine, key hsm.Key) *hsm.BlockCipher {
	t.Helper()
	blocks, err := engine.BlockCipher(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return blocks
}

// testProvider is the suite. The steps build on each other: the keys of the second are used by the rest.
func testProvider(t *testing.T, p provider) {
	cfg := p.config(t)
	t.Run("opening", func(t *testing.T) { testOpening(t, p, cfg) })
	t.Run("with one engine", func(t *testing.T) {
		engine := open(t, cfg)
		for _, step := range []struct {
			name string
			run  func(*testing.T, provider, *hsm.Engine)
		}{
			{"capabilities", testCapabilities},
			{"keys", testKeys},
			{"duplicates", testDuplicates},
			{"blocks", testBlocks},
			{"known AES key", testThrowaway},
			{"signatures", testSignatures},
			{"MAC", testMAC},
			{"AEAD", testAEAD},
			{"KMS", testKMS},
			{"key exchange", testKeyExchange},
			{"objects", testObjects},
			{"sealed values", testSealed},
			{"data", testData},
			{"concurrent use", testConcurrentUse},
			{"measurement", testMeasurement},
		} {
			if !t.Run(step.name, func(t *testing.T) { step.run(t, p, engine) }) {
				return
			}
		}
		if health := engine.Health(); !health.Up || health.Restarts != 0 {
			t.Errorf("the suite restarted the engine: %+v", health)
		}
	})
	t.Run("opened again", func(t *testing.T) { testReopening(t, p, cfg) })
}

func testOpening(t *testing.T, p provider, cfg hsm.Config) {
	other := cfg
	other.Label = "production"
	if _, err := hsm.Open(other); err == nil || !strings.Contains(err.Error(), p.label) {
		t.Errorf("a label that is not there: %v, want an error that names %q", err, p.label)
	}
	other = cfg
	other.PIN = p.wrongPIN
	if _, err := hsm.Open(other); !errors.Is(err, hsm.ErrPIN) {
		t.Errorf("a wrong PIN: %v, want ErrPIN", err)
	}
	engine, err := hsm.Open(cfg) // the wrong one was tried once, so the hsm token is not locked
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Close(); err != nil {
		t.Error(err)
	}
}

func testCapabilities(t *testing.T, p provider, engine *hsm.Engine) {
	rows, err := engine.Probe(t.Context(), specs)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(specs)+2 || rows[len(specs)].Role != hsm.RoleCustody || rows[len(specs)+1].Role != hsm.RoleHead {
		t.Fatalf("%d rows: %+v", len(rows), rows)
	}
	for _, row := range rows {
		if row.OK != p.has(row.Role) {
			t.Errorf("%s (%s): ok %v, want %v: %s", row.Role, row.Mechanism, row.OK, p.has(row.Role), row.Detail)
		}
		if row.Mechanism == "" || len(row.Detail) < 10 {
			t.Errorf("%s explains nothing: %+v", row.Role, row)
		}
	}
	for _, spec := range specs { // nothing stays behind
		if exists, err := engine.Exists(t.Context(), hsm.Key{Role: "doctor", Version: 1}, spec.Kind); exists || err != nil {
			t.Errorf("the throwaway key of kind %s is still there (%v)", spec.Kind, err)
		}
	}
}

func testKeys(t *testing.T, p provider, engine *hsm.Engine) {
	for _, spec := range specs {
		birth, err := engine.Generate(t.Context(), key(spec.Role), spec)
		if !p.has(spec.Role) && spec.Kind != hsm.ECDerive {
			if err == nil || !strings.Contains(err.Error(), string(spec.Kind)) {
				t.Errorf("%s was generated, or the refusal does not name the kind: %v", spec.Role, err)
			}
			if exists, err := engine.Exists(t.Context(), key(spec.Role), spec.Kind); exists || err != nil {
				t.Errorf("%s was refused and is there (%v)", spec.Role, err)
			}
			continue
		}
		if !p.has(spec.Role) { // the pair may be made, its use is what is missing
			if _, err := engine.KeyExchanger(t.Context(), key(spec.Role)); err == nil || !strings.Contains(err.Error(), "CKM_ECDH1_DERIVE") {
				t.Errorf("a key exchange without the mechanism: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !birth.Sensitive || !birth.AlwaysSensitive || birth.Extractable == birth.NeverExtractable || len(birth.CheckValue) < 6 {
			t.Errorf("%s: %+v", spec.Role, birth)
		}
		if birth.Extractable && !birth.WrapWithTrusted {
			t.Errorf("%s can be wrapped under any key", spec.Role)
		}
		if spec.Class == hsm.Bound && birth.Extractable {
			t.Errorf("%s is bound and extractable", spec.Role)
		}
		if !birth.Local && !slices.Contains(birth.NotReported, "CKA_LOCAL") {
			t.Errorf("%s is not local", spec.Role)
		}
		if _, err := engine.Generate(t.Context(), key(spec.Role), spec); err == nil {
			t.Errorf("%s was generated twice", spec.Role)
		}
	}
	if _, err := engine.MAC(hsm.Key{Role: "apikey", Version: 2}).Sum(t.Context(), []byte("x")); !errors.Is(err, hsm.ErrNoKey) {
		t.Errorf("a key that is not there: %v, want ErrNoKey", err)
	}
}

// another is a client of the same hsm token beside the engine, as another program of the operator would be.
func another(t *testing.T, p provider) (*pkcs11.Ctx, pkcs11.SessionHandle) {
	t.Helper()
	module := pkcs11.New(p.config(t).Module)
	if module == nil {
		t.Fatal("the module cannot be loaded")
	}
	switch err := module.Initialize(); {
	case err == nil: // an instance of its own (p11-kit)
		t.Cleanup(func() { _ = module.Finalize() })
	case !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)):
		t.Fatal(err)
	}
	slots, err := module.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		if info, err := module.GetTokenInfo(slot); err != nil || strings.TrimRight(info.Label, " \x00") != p.label {
			continue
		}
		session, err := module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = module.CloseSession(session) })
		if err := module.Login(session, pkcs11.CKU_USER, p.pin); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
			t.Fatal(err)
		}
		return module, session
	}
	t.Fatalf("no hsm token %q", p.label)
	return nil, 0
}

// plant creates a known secret key on the hsm token until the test ends.
func plant(t *testing.T, p provider, k hsm.Key, keyType uint, value []byte) {
	t.Helper()
	module, session := another(t, p)
	object, err := module.CreateObject(session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType),
		pkcs11.NewAttribute(pkcs11.CKA_ID, k.ID()),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, k.Label()),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, keyType != pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, keyType == pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE, value),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := module.DestroyObject(session, object); err != nil && (!p.replaces || !errors.Is(err, pkcs11.Error(pkcs11.CKR_OBJECT_HANDLE_INVALID))) {
			t.Error(err)
		}
	})
}

func testDuplicates(t *testing.T, p provider, engine *hsm.Engine) {
	twin := hsm.Key{Role: "twin", Version: 1}
	plant(t, p, twin, pkcs11.CKK_AES, make([]byte, 32))
	if exists, err := engine.Exists(t.Context(), twin, hsm.AESEncrypt); !exists || err != nil {
		t.Fatalf("the first: %v, %v", exists, err)
	}
	plant(t, p, twin, pkcs11.CKK_AES, bytes.Repeat([]byte{1}, 32))
	if p.replaces { // there cannot be two
		if exists, err := engine.Exists(t.Context(), twin, hsm.AESEncrypt); !exists || err != nil {
			t.Errorf("the one that took the place: %v, %v", exists, err)
		}
		return
	}
	if _, err := engine.CheckValue(t.Context(), twin, hsm.AESEncrypt); !errors.Is(err, hsm.ErrDuplicateKey) {
		t.Errorf("two keys of one name: %v, want ErrDuplicateKey", err)
	}
}

func testBlocks(t *testing.T, p provider, engine *hsm.Engine) {
	if !p.has("tokenize") {
		t.Fatal("every provider has AES-ECB")
	}
	value := bytes.Repeat([]byte{7}, 32)
	known := hsm.Key{Role: "known-aes", Version: 1}
	plant(t, p, known, pkcs11.CKK_AES, value)
	software, err := aes.NewCipher(value)
	if err != nil {
		t.Fatal(err)
	}
	src := make([]byte, 16*1024)
	_, _ = rand.Read(src)
	want := make([]byte, len(src))
	for i := 0; i < len(src); i += 16 {
		software.Encrypt(want[i:], src[i:])
	}
	blocks := blockCipher(t, engine, known)
	defer blocks.Close()
	dst := make([]byte, len(src))
	for _, n := range []int{16 * 1024, 16, 16 * 64} { // the operation stays open from call to call
		clear(dst)
		if err := blocks.EncryptBlocks(t.Context(), dst[:n], src[:n]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dst[:n], want[:n]) {
			t.Errorf("%d bytes are not what crypto/aes gives", n)
		}
	}
	if err := blocks.EncryptBlocks(t.Context(), src, src); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(src, want) {
		t.Error("in place, the result is another")
	}
}

func testThrowaway(t *testing.T, _ provider, engine *hsm.Engine) {
	for _, size := range []int{16, 24, 32} {
		value := bytes.Repeat([]byte{9}, size)
		k, err := engine.Throwaway(t.Context(), value)
		if err != nil {
			t.Fatal(err)
		}
		software, err := aes.NewCipher(value)
		if err != nil {
			t.Fatal(err)
		}
		got, want := make([]byte, 16), make([]byte, 16)
		software.Encrypt(want, want)
		if err := k.EncryptBlocks(t.Context(), got, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("AES-%d: %x, want %x (%v)", 8*size, got, want, err)
		}
		k.Close()
		if err := k.EncryptBlocks(t.Context(), got, got); err == nil {
			t.Error("the key outlived its session")
		}
	}
	if _, err := engine.Throwaway(t.Context(), make([]byte, 15)); err == nil {
		t.Error("an AES key of 15 bytes")
	}
}

func testSignatures(t *testing.T, p provider, engine *hsm.Engine) {
	message := []byte("a checkpoint")
	digest := sha256.Sum256(message)
	if signer, err := engine.Signer(t.Context(), key("ledger")); p.has("ledger") {
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // leading zeros of r and s come along
			signature, err := signer.Sign(nil, digest[:], crypto.SHA256)
			if err != nil || !ecdsa.VerifyASN1(signer.Public().(*ecdsa.PublicKey), digest[:], signature) {
				t.Fatalf("ECDSA: %x does not verify (%v)", signature, err)
			}
		}
	} else if !errors.Is(err, hsm.ErrNoKey) {
		t.Errorf("ECDSA where there is none: %v", err)
	}
	if signer, err := engine.Signer(t.Context(), key("ledger-ed25519")); p.has("ledger-ed25519") {
		if err != nil {
			t.Fatal(err)
		}
		signature, err := signer.Sign(nil, message, crypto.Hash(0))
		if err != nil || !ed25519.Verify(signer.Public().(ed25519.PublicKey), message, signature) {
			t.Errorf("Ed25519: %x does not verify (%v)", signature, err)
		}
	} else if !errors.Is(err, hsm.ErrNoKey) {
		t.Errorf("Ed25519 where there is none: %v", err)
	}
}

func testMAC(t *testing.T, p provider, engine *hsm.Engine) {
	value := bytes.Repeat([]byte{5}, 32)
	known := hsm.Key{Role: "known-hmac", Version: 1}
	plant(t, p, known, pkcs11.CKK_GENERIC_SECRET, value)
	software := hmac.New(sha256.New, value)
	software.Write([]byte("a message"))
	got, err := engine.MAC(known).Sum(t.Context(), []byte("a message"))
	if want := software.Sum(nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("HMAC %x, want %x (%v)", got, want, err)
	}
}

func testAEAD(t *testing.T, _ provider, engine *hsm.Engine) {
	remote := engine.AEAD(key("kek"))
	for _, plain := range [][]byte{nil, []byte("a"), bytes.Repeat([]byte("s"), 32), bytes.Repeat([]byte("secret"), 30)} {
		for _, header := range [][]byte{nil, []byte("merchant m1")} {
			sealed, err := remote.Encrypt(plain, header)
			if err != nil {
				t.Fatal(err)
			}
			if opened, err := remote.Decrypt(sealed, header); err != nil || !bytes.Equal(opened, plain) {
				t.Fatalf("%d bytes: %q, %v", len(plain), opened, err)
			}
			if _, err := remote.Decrypt(sealed, append(header, 'x')); err == nil {
				t.Error("opened under other associated data")
			}
		}
	}
	sealed, err := remote.Encrypt([]byte("a secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		forged := bytes.Clone(sealed)
		forged[i] ^= 1
		if _, err := remote.Decrypt(forged, nil); err == nil {
			t.Errorf("a change in byte %d of %d was not noticed", i, len(sealed))
		}
		if _, err := remote.Decrypt(sealed[:i], nil); err == nil {
			t.Errorf("%d of %d bytes were opened", i, len(sealed))
		}
	}
}

func testKMS(t *testing.T, p provider, engine *hsm.Engine) {
	client := engine.KMSClient(key("kek"))
	uri := client.URI("kek")
	for _, other := range []string{"hsm://elsewhere/kek", strings.Replace(uri, "/kek", "/tokenize", 1), uri + "/2", uri + "/01", uri + "?x=1", "gcp-kms://kek", ""} {
		if client.Supported(other) {
			t.Errorf("%q is served", other)
		}
		if _, err := client.GetAEAD(other); !errors.Is(err, hsm.ErrURI) {
			t.Errorf("%q: %v, want ErrURI", other, err)
		}
	}
	if !client.Supported(uri + "/1") {
		t.Errorf("%s/1 is not served", uri)
	}
	registry.RegisterKMSClient(client)
	defer registry.ClearKMSClients()
	template, err := aead.CreateKMSEnvelopeAEADKeyTemplate(uri, aead.AES256GCMKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	handle, err := keyset.NewHandle(template)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := aead.New(handle)
	if err != nil {
		t.Fatalf("%s: %v", p.label, err)
	}
	sealed, err := envelope.Encrypt([]byte("whsec_secret"), []byte("merchant m1"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := envelope.Decrypt(sealed, []byte("merchant m1")); err != nil || string(plain) != "whsec_secret" {
		t.Errorf("%q, %v", plain, err)
	}
	if _, err := envelope.Decrypt(sealed, []byte("merchant m2")); err == nil {
		t.Error("an envelope of another merchant was opened")
	}
}

func testKeyExchange(t *testing.T, p provider, engine *hsm.Engine) {
	if !p.has("intake") {
		if _, err := engine.KeyExchanger(t.Context(), key("intake")); err == nil || !strings.Contains(err.Error(), "CKM_ECDH1_DERIVE") {
			t.Errorf("%v, want a refusal that names the mechanism", err)
		}
		return
	}
	exchanger, err := engine.KeyExchanger(t.Context(), key("intake"))
	if err != nil {
		t.Fatal(err)
	}
	var _ ecdh.KeyExchanger = exchanger
	for range 20 {
		theirs, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		want, err := theirs.ECDH(exchanger.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := exchanger.ECDH(theirs.PublicKey()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%x, want %x (%v)", got, want, err)
		}
	}
	other, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchanger.ECDH(other.PublicKey()); err == nil {
		t.Error("a key of another curve was accepted")
	}
	if _, err := exchanger.ECDH(nil); err == nil {
		t.Error("no key was accepted")
	}
	testHPKE(t, exchanger)
}

// testHPKE seals in software as a browser does, and opens with the HSM's key: RFC 9180, base mode, DHKEM(P-256).
func testHPKE(t *testing.T, exchanger *hsm.KeyExchanger) {
	t.Helper()
	private, err := hpke.NewDHKEMPrivateKey(exchanger)
	if err != nil {
		t.Fatal(err)
	}
	public, err := hpke.NewDHKEMPublicKey(exchanger.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	enc, sender, err := hpke.NewSender(public, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("finpay intake"))
	if err != nil {
		t.Fatal(err)
	}
	if len(enc) != 65 {
		t.Errorf("an encapsulated key of %d bytes; RFC 9180, section 7.1, says 65", len(enc))
	}
	recipient, err := hpke.NewRecipient(enc, private, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("finpay intake"))
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"first", "second"} { // the nonces count
		sealed, err := sender.Seal([]byte("aad"), []byte(message))
		if err != nil {
			t.Fatal(err)
		}
		if opened, err := recipient.Open([]byte("aad"), sealed); err != nil || string(opened) != message {
			t.Errorf("%q, %v", opened, err)
		}
	}
	enc[40] ^= 1 // a point that is not on the curve
	if _, err := hpke.NewRecipient(enc, private, hpke.HKDFSHA256(), hpke.AES256GCM(), nil); err == nil {
		t.Error("a point off the curve was accepted")
	}
}

func testObjects(t *testing.T, _ provider, engine *hsm.Engine) {
	objects := engine.NewObjects()
	first, err := objects.Create(t.Context(), []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := objects.Create(t.Context(), []byte("second"))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if err := objects.Destroy(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Read(t.Context(), first, buf); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("a destroyed object: %v, want ErrLost", err)
	}
	if n, err := objects.Read(t.Context(), second, buf); err != nil || string(buf[:n]) != "second" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if _, err := objects.Read(t.Context(), second, buf[:2]); err == nil {
		t.Error("a buffer that is too small was accepted")
	}
	if err := objects.Destroy(t.Context(), second); err != nil {
		t.Error(err)
	}
}

func testSealed(t *testing.T, _ provider, engine *hsm.Engine) {
	sealed := engine.NewSealed()
	first, err := sealed.Create(t.Context(), []byte("first"), "pay_1")
	if err != nil {
		t.Fatal(err)
	}
	second, err := sealed.Create(t.Context(), []byte("second"), "pay_2")
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := sealed.Read(t.Context(), second, buf, "pay_2"); err != nil || string(buf[:n]) != "second" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if _, err := sealed.Read(t.Context(), first, buf, "pay_2"); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("for another context: %v, want ErrLost", err)
	}
	if err := sealed.Destroy(t.Context(), second); err != nil {
		t.Error(err)
	}
	if _, err := sealed.Read(t.Context(), second, buf, "pay_2"); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("a destroyed value: %v, want ErrLost", err)
	}
}

// testData keeps what outlives the process, which another client sees too.
func testData(t *testing.T, p provider, engine *hsm.Engine) {
	const label = "finpay test"
	if !p.has(hsm.RoleHead) {
		if err := engine.PutData(t.Context(), label, []byte("x")); !errors.Is(err, hsm.ErrNoDataObjects) {
			t.Errorf("kept, where there are no data objects: %v", err)
		}
		if values, err := engine.Data(t.Context(), label); len(values) != 0 || err != nil {
			t.Errorf("refused, and there: %q, %v", values, err)
		}
		return
	}
	module, session := another(t, p)
	of := func() (handles []pkcs11.ObjectHandle) {
		template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_DATA), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}
		if err := module.FindObjectsInit(session, template); err != nil {
			t.Fatal(err)
		}
		handles, _, err := module.FindObjects(session, 10)
		if err := errors.Join(err, module.FindObjectsFinal(session)); err != nil {
			t.Fatal(err)
		}
		return handles
	}
	for _, value := range [][]byte{[]byte("first"), bytes.Repeat([]byte("second, and longer "), 50), []byte("3")} {
		if err := engine.PutData(t.Context(), label, value); err != nil {
			t.Fatal(err)
		}
		if values, err := engine.Data(t.Context(), label); err != nil || len(values) != 1 || !bytes.Equal(values[0], value) {
			t.Errorf("%q, %v", values, err)
		}
		if n := len(of()); n != 1 {
			t.Errorf("another client sees %d objects", n)
		}
	}
	for _, handle := range of() {
		if err := module.DestroyObject(session, handle); err != nil {
			t.Fatal(err)
		}
	}
	if values, err := engine.Data(t.Context(), label); len(values) != 0 || err != nil {
		t.Errorf("destroyed, and there: %q, %v", values, err)
	}
}

func testConcurrentUse(t *testing.T, _ provider, engine *hsm.Engine) {
	mac, remote := engine.MAC(key("apikey")), engine.AEAD(key("kek"))
	blocks, objects := blockCipher(t, engine, key("tokenize")), engine.NewObjects()
	defer blocks.Close()
	want, err := mac.Sum(t.Context(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 64*16)
	encrypted := make([]byte, len(zeros))
	if err := blocks.EncryptBlocks(t.Context(), encrypted, zeros); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for range 20 {
				if got, err := mac.Sum(t.Context(), []byte("x")); err != nil || !bytes.Equal(got, want) {
					t.Errorf("MAC: %x, %v", got, err)
				}
				got := make([]byte, len(zeros))
				if err := blocks.EncryptBlocks(t.Context(), got, got); err != nil || !bytes.Equal(got, encrypted) {
					t.Errorf("blocks: %v", err)
				}
				card := bytes.Repeat([]byte{byte(worker)}, 19)
				id, err := objects.Create(t.Context(), card)
				if err != nil {
					t.Errorf("objects: %v", err)
					return
				}
				if n, err := objects.Read(t.Context(), id, got[:32]); err != nil || !bytes.Equal(got[:n], card) {
					t.Errorf("objects: another value (%v)", err)
				}
				if err := objects.Destroy(t.Context(), id); err != nil {
					t.Errorf("objects: %v", err)
				}
				sealed, err := remote.Encrypt(card, nil)
				if err != nil {
					t.Errorf("AEAD: %v", err)
					return
				}
				if opened, err := remote.Decrypt(sealed, nil); err != nil || !bytes.Equal(opened, card) {
					t.Errorf("AEAD: another value (%v)", err)
				}
			}
		})
	}
	all.Wait()
}

func testMeasurement(t *testing.T, _ provider, engine *hsm.Engine) {
	timing, err := engine.Measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if timing.RoundTrip <= 0 || len(timing.Batches) != 3 || timing.Batch() < 1 || timing.Batch() > hsm.MaxBatch || timing.At(64) <= 0 {
		t.Errorf("%+v: batch %d", timing, timing.Batch())
	}
}

// testReopening finds every key again, and reads what was encrypted under another construction or an older version.
func testReopening(t *testing.T, _ provider, cfg hsm.Config) {
	first := openOnly(t, cfg)
	before, err := first.MAC(key("apikey")).Sum(t.Context(), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := first.AEAD(key("kek")).Encrypt([]byte("a secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	cfg.Profile.AEAD = hsm.EAX // as after a change of the profile
	again := open(t, cfg)
	if after, err := again.MAC(key("apikey")).Sum(t.Context(), []byte("x")); err != nil || !bytes.Equal(after, before) {
		t.Errorf("%x, before it was %x (%v)", after, before, err)
	}
	second := hsm.Key{Role: "kek", Version: 2}
	if _, err := again.Generate(t.Context(), second, specs[1]); err != nil {
		t.Fatal(err)
	}
	both := again.AEAD(second, key("kek"))
	if plain, err := both.Decrypt(sealed, nil); err != nil || string(plain) != "a secret" {
		t.Errorf("an older version's ciphertext: %q, %v", plain, err)
	}
	newer, err := both.Encrypt([]byte("another"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if newer[0] != 2 || newer[4] != 2 {
		t.Errorf("header % x, want EAX under version 2", newer[:5])
	}
	if _, err := again.AEAD(key("kek")).Decrypt(newer, nil); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a version that is not in use: %v", err)
	}
	newer[4] = 1 // the version is authenticated
	if _, err := both.Decrypt(newer, nil); err == nil {
		t.Error("a ciphertext was opened under another version")
	}
}

// openOnly opens an engine that the test closes itself.
func openOnly(t *testing.T, cfg hsm.Config) *hsm.Engine {
	t.Helper()
	engine, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return engine
}
