package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/finterra/finpay/appliance/config"
	"github.com/finterra/finpay/hsm"
)

// makeCertificates makes self-signed certificates for keys in the HSM.
func makeCertificates(ctx context.Context, cfg config.Config, keys keyring, report *setUpReport) (err error) {
	public, err := url.Parse(cfg.PublicURL)
	if err != nil {
		return err
	}
	engine, err := openHSM(cfg, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	listener, err := listenerKey(ctx, cfg, engine, keys, report)
	if err != nil {
		return err
	}
	outgoing, err := engine.Signer(ctx, keys.key(roleTLSClient))
	if err != nil {
		return err
	}
	for _, c := range []struct {
		path  string
		key   crypto.Signer
		name  string
		usage x509.ExtKeyUsage
	}{
		{cfg.TLS.Certificate, listener, public.Hostname(), x509.ExtKeyUsageServerAuth},
		{cfg.TLS.ClientCert, outgoing, cfg.Node, x509.ExtKeyUsageClientAuth},
	} {
		made, err := writeCertificate(c.path, c.key, c.name, c.usage)
		if err != nil {
			return fmt.Errorf("certificate %s: %w", c.path, err)
		}
		if made {
			report.add("certificate", fmt.Sprintf("%s, self-signed, for %s", relative(cfg, c.path), c.name))
		}
	}
	return nil
}

func relative(cfg config.Config, path string) string {
	if rel, err := filepath.Rel(cfg.State(), path); err == nil {
		return rel
	}
	return path
}

// listenerKey returns the key of the API's listener: in the HSM, or in a file that is made if it is missing.
func listenerKey(ctx context.Context, cfg config.Config, engine *hsm.Engine, keys keyring, report *setUpReport) (crypto.Signer, error) {
	if cfg.TLS.Key == "hsm" {
		return engine.Signer(ctx, keys.key(roleTLS))
	}
	if _, err := os.Stat(cfg.TLS.KeyFile); errors.Is(err, os.ErrNotExist) {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			return nil, err
		}
		if _, err := writeNew(cfg.TLS.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			return nil, err
		}
		report.add("listener's key", relative(cfg, cfg.TLS.KeyFile))
	}
	return readKey(cfg.TLS.KeyFile)
}

func readKey(path string) (crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", path)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s holds no signing key", path)
	}
	return signer, nil
}

// certificateLife is the longest that browsers accept.
const certificateLife = 397 * 24 * time.Hour

func writeCertificate(path string, signer crypto.Signer, name string, usage x509.ExtKeyUsage) (made bool, err error) {
	if _, err := os.Stat(path); err == nil {
		return false, nil
	}
	text, err := selfSigned(signer, name, usage)
	if err != nil {
		return false, err
	}
	return writeNew(path, text, 0o644)
}

// trialOrganization marks certificates of our own making.
const trialOrganization = "FINPay appliance"

func selfSigned(signer crypto.Signer, name string, usage x509.ExtKeyUsage) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name, Organization: []string{trialOrganization}},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(certificateLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage},
		BasicConstraintsValid: true,
	}
	if usage == x509.ExtKeyUsageServerAuth {
		template.DNSNames = []string{name}
		if ip := net.ParseIP(name); ip != nil {
			template.DNSNames, template.IPAddresses = nil, []net.IP{ip}
		}
		if name == "localhost" {
			template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

func certificate(path string, signer crypto.Signer) (tls.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return tls.Certificate{}, err
	}
	chain := tls.Certificate{PrivateKey: signer}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			chain.Certificate = append(chain.Certificate, block.Bytes)
		}
	}
	if len(chain.Certificate) == 0 {
		return chain, fmt.Errorf("%s holds no certificate", path)
	}
	if chain.Leaf, err = x509.ParseCertificate(chain.Certificate[0]); err != nil {
		return chain, fmt.Errorf("%s: %w", path, err)
	}
	public, ok := chain.Leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(signer.Public()) {
		return chain, fmt.Errorf("%s is for another key", path)
	}
	return chain, nil
}

func pool(p *x509.CertPool, path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !p.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return p, nil
}

func systemRootsAnd(ca string) (*x509.CertPool, error) {
	if ca == "" {
		return nil, nil //nolint:nilnil // nil means the system's authorities
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	return pool(roots, ca)
}
