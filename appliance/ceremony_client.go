package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ThalesGroup/crypto11"

	"github.com/finterra/finpay/appliance/ceremony"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

// clientCheck is what the independent client says of a new key.
type clientCheck struct {
	Key    string `json:"key"`
	Client string `json:"client"`
	Result string `json:"result"`
}

const independentClient = "crypto11"

// ckmSHA256HMAC is CKM_SHA256_HMAC of PKCS#11.
const ckmSHA256HMAC = 0x251

// newKeys are the keys that the ceremony has brought onto the hsm token and that may be used.
func (r *rite) newKeys(ctx context.Context, n *node) ([]store.Key, error) {
	entries, err := n.store.Read(ctx).LedgerEntriesOf(ceremony.Resource(r.plan.Digest()))
	if err != nil {
		return nil, err
	}
	var made []string
	for _, e := range entries {
		names, err := stepKeys(e.Entry, "made")
		if err != nil {
			return nil, err
		}
		made = append(made, names...)
	}
	var rows []store.Key
	for _, row := range n.keys {
		if row.State != store.KeyDestroyed && slices.Contains(made, row.Name()) {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// confirm lets another PKCS#11 client than ours find and use each new key, and then makes the certificates that new keys
// ask for.
func (r *rite) confirm(ctx context.Context) (checks []clientCheck, certificates []string, err error) {
	var rows []store.Key
	var about hsm.Description
	err = r.withBooks(ctx, func(ctx context.Context, n *node) (err error) {
		if about, err = n.engine.Describe(ctx); err != nil {
			return err
		}
		rows, err = r.newKeys(ctx, n)
		return err
	})
	if err != nil || len(rows) == 0 {
		return []clientCheck{}, []string{}, err
	}
	if checks, err = r.askIndependentClient(rows, about.Serial); err != nil {
		return nil, nil, err
	}
	certificates = []string{}
	err = r.withBooks(ctx, func(ctx context.Context, n *node) error {
		for _, row := range rows {
			made, err := r.recertify(ctx, n.engine, row)
			if err != nil {
				return fmt.Errorf("certificate for %s: %w", row.Name(), err)
			}
			if made != "" {
				certificates = append(certificates, made)
			}
		}
		return nil
	})
	return checks, certificates, err
}

// askIndependentClient is called while no engine is open: that client initializes the module itself, and can hand it no
// argument, which some providers do not start without.
func (r *rite) askIndependentClient(rows []store.Key, serial string) (checks []clientCheck, err error) {
	settings, err := hsmConfig(r.cfg, nil)
	if err != nil {
		return nil, err
	}
	if settings.InitArgument != "" {
		for _, row := range rows {
			checks = append(checks, clientCheck{row.Name(), independentClient, "not asked: it passes no argument to C_Initialize, and this HSM's profile has one"})
		}
		return checks, nil
	}
	asked := &crypto11.Config{Path: settings.Module, TokenSerial: serial, Pin: settings.PIN, UserType: int(settings.Profile.UserType)}
	if serial == "" {
		asked.TokenLabel = settings.Label
	}
	client, err := crypto11.Configure(asked)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", independentClient, err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	for _, row := range rows {
		result, err := exercise(client, row)
		if err != nil {
			return nil, fmt.Errorf("the independent client (%s) does not confirm %s: %w; run the plan again when the reason is found", independentClient, row.Name(), err)
		}
		checks = append(checks, clientCheck{row.Name(), independentClient, result})
	}
	return checks, nil
}

// exercise finds a key by id and label, uses it, and computes its check value anew.
func exercise(client *crypto11.Context, row store.Key) (string, error) {
	switch kind := hsm.Kind(row.Kind); kind {
	case hsm.AESEncrypt, hsm.AESWrap, hsm.HMAC:
		return exerciseSecret(client, row, kind)
	case hsm.Ed25519Sign:
		return "not exercised: this client has no Ed25519", nil
	default:
		return exercisePair(client, row, kind)
	}
}

func exerciseSecret(client *crypto11.Context, row store.Key, kind hsm.Kind) (string, error) {
	found, err := client.FindKeys(keyOf(row).ID(), []byte(row.Name()))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("it finds %d such keys", len(found))
	}
	var sum []byte
	use := "encrypts"
	if kind == hsm.HMAC {
		use = "computes a MAC"
		mac, err := found[0].NewHMAC(ckmSHA256HMAC, 0)
		if err != nil {
			return "", err
		}
		if _, err := mac.Write(make([]byte, 16)); err != nil {
			return "", err
		}
		sum = mac.Sum(nil)
	} else if sum, err = cmacOfZeros(found[0]); err != nil {
		return "", err
	}
	return agrees(row, hex.EncodeToString(sum[:3]), use)
}

// cmacOfZeros is AES-CMAC (NIST SP 800-38B) over a block of zeros, by CBC with an IV of zeros: one block of it is the
// block cipher itself.
func cmacOfZeros(key *crypto11.SecretKey) ([]byte, error) {
	encrypt := func(block []byte) error {
		cbc, err := key.NewCBCEncrypterCloser(make([]byte, 16))
		if err != nil {
			return err
		}
		defer cbc.Close()
		cbc.CryptBlocks(block, block)
		return nil
	}
	k := make([]byte, 16)
	if err := encrypt(k); err != nil {
		return nil, err
	}
	carry := k[0] >> 7
	for i := range 15 {
		k[i] = k[i]<<1 | k[i+1]>>7
	}
	k[15] = k[15]<<1 ^ byte(subtle.ConstantTimeSelect(int(carry), 0x87, 0))
	return k, encrypt(k)
}

func exercisePair(client *crypto11.Context, row store.Key, kind hsm.Kind) (string, error) {
	pair, err := findKeyPair(client, keyOf(row))
	if err != nil {
		return "", err
	}
	use := "finds the pair"
	if kind == hsm.ECSign {
		use = "signs"
		digest := sha256.Sum256([]byte("a key ceremony's proof of use, signed for nobody"))
		signature, err := pair.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return "", err
		}
		public, ok := pair.Public().(*ecdsa.PublicKey)
		if !ok || !ecdsa.VerifyASN1(public, digest[:], signature) {
			return "", errors.New("its signature does not verify")
		}
	}
	spki, err := x509.MarshalPKIXPublicKey(pair.Public())
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(spki)
	return agrees(row, hex.EncodeToString(sum[:8]), use)
}

func findKeyPair(client *crypto11.Context, key hsm.Key) (crypto11.Signer, error) {
	found, err := client.FindKeyPair(key.ID(), []byte(key.Label()))
	if err == nil && found == nil {
		err = hsm.ErrNoKey
	}
	if err != nil {
		return nil, fmt.Errorf("crypto11 does not find the key %s: %w", key.Label(), err)
	}
	return found, nil
}

func agrees(row store.Key, checkValue, use string) (string, error) {
	if checkValue != row.CheckValue {
		return "", fmt.Errorf("it computes the check value %s, and the books say %s", checkValue, row.CheckValue)
	}
	return "found by id and label, " + use + ", check value " + checkValue, nil
}

// recertify makes what the TLS roles need for a new key: a certificate of a trial, which signs itself, is issued anew; for
// any other a request is written, and the listener serves with the old key until its answer is installed.
func (r *rite) recertify(ctx context.Context, engine *hsm.Engine, row store.Key) (made string, err error) {
	path, name, usage := r.cfg.TLS.ClientCert, r.cfg.Node, x509.ExtKeyUsageClientAuth
	switch hsm.Role(row.Role) {
	case roleTLSClient:
	case roleTLS:
		if r.cfg.TLS.Key != "hsm" {
			return "", nil
		}
		public, err := url.Parse(r.cfg.PublicURL)
		if err != nil {
			return "", err
		}
		path, name, usage = r.cfg.TLS.Certificate, public.Hostname(), x509.ExtKeyUsageServerAuth
	default:
		return "", nil
	}
	if row.State != store.KeyActive {
		return "", nil
	}
	signer, err := engine.Signer(ctx, keyOf(row))
	if err != nil {
		return "", err
	}
	if _, err := certificate(path, signer); err == nil {
		return relative(r.cfg, path) + ", made before", nil
	}
	if trial, err := isTrial(path); err != nil || !trial {
		if err != nil {
			return "", err
		}
		return r.requestCertificate(path, name, signer, row.Version)
	}
	text, err := selfSigned(signer, name, usage)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, self-signed, for %s", relative(r.cfg, path), name), replace(path, text)
}

func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return x509.ParseCertificate(block.Bytes)
}

// isTrial reports whether a certificate is one of our own making.
func isTrial(path string) (bool, error) {
	leaf, err := readCertificate(path)
	if err != nil {
		return false, err
	}
	// CheckSignatureFrom would ask for an authority, which a certificate of a trial is not.
	return slices.Equal(leaf.Subject.Organization, []string{trialOrganization}) && string(leaf.RawIssuer) == string(leaf.RawSubject) &&
		leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil, nil
}

func (r *rite) requestCertificate(path, name string, signer crypto.Signer, version uint32) (string, error) {
	old, err := readCertificate(path)
	if err != nil {
		return "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: old.RawSubject, DNSNames: old.DNSNames, IPAddresses: old.IPAddresses}, signer)
	if err != nil {
		return "", err
	}
	to := fmt.Sprintf("%s.v%d.csr", strings.TrimSuffix(path, filepath.Ext(path)), version)
	if _, err := writeNew(to, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), 0o644); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, a request for %s: install its answer as %s", relative(r.cfg, to), name, relative(r.cfg, path)), nil
}

// replace puts new content in a file's place, whole or not at all.
func replace(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(content)
	if err := errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
