package simulator

import (
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
	"os"
	"path/filepath"
	"time"
)

// Certificates is the simulator's own certification authority, kept in a directory: ca.pem and ca-key.pem. The
// certificates it issues live as long as the process.
type Certificates struct {
	ca  *x509.Certificate
	key crypto.Signer
}

const (
	caFile         = "ca.pem"
	caKeyFile      = "ca-key.pem"
	caLife         = 10 * 365 * 24 * time.Hour
	certificateAge = 365 * 24 * time.Hour
)

// OpenCertificates reads the authority in dir, or makes one there: ECDSA P-256, the key readable by its owner only.
func OpenCertificates(dir string) (*Certificates, error) {
	keyPEM, err := os.ReadFile(filepath.Join(dir, caKeyFile))
	if errors.Is(err, os.ErrNotExist) {
		return createCertificates(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the simulator's CA: %w", err)
	}
	certPEM, err := os.ReadFile(filepath.Join(dir, caFile))
	if err != nil {
		return nil, fmt.Errorf("read the simulator's CA: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the simulator's CA: %w", err)
	}
	return &Certificates{ca: pair.Leaf, key: pair.PrivateKey.(crypto.Signer)}, nil
}

func createCertificates(dir string) (*Certificates, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the simulator's CA: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create the simulator's CA: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, caTemplate(), caTemplate(), key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create the simulator's CA: %w", err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("create the simulator's CA: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("create the simulator's CA: %w", err)
	}
	c := &Certificates{ca: ca, key: key}
	// The key comes last: where it is, the certificate is too.
	if err := c.WriteCA(filepath.Join(dir, caFile)); err != nil {
		return nil, err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := os.WriteFile(filepath.Join(dir, caKeyFile), keyPEM, 0o600); err != nil {
		return nil, fmt.Errorf("create the simulator's CA: %w", err)
	}
	return c, nil
}

func caTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "FINPay simulator CA (test only)"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// WriteCA writes the authority's certificate, for those who are to trust it.
func (c *Certificates) WriteCA(path string) error {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ca.Raw}), 0o644); err != nil {
		return fmt.Errorf("write the simulator's CA: %w", err)
	}
	return nil
}

// Pool returns the authority as the only one trusted.
func (c *Certificates) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.ca)
	return pool
}

// Server issues a server certificate for localhost, 127.0.0.1 and ::1.
func (c *Certificates) Server() (tls.Certificate, error) {
	return c.issue("FINPay simulator", x509.ExtKeyUsageServerAuth, []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback})
}

// Client issues the client certificate with which the simulated directory server posts results.
func (c *Certificates) Client() (tls.Certificate, error) {
	return c.issue("FINPay simulated directory server", x509.ExtKeyUsageClientAuth, nil, nil)
}

func (c *Certificates) issue(name string, usage x509.ExtKeyUsage, hosts []string, addresses []net.IP) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue a certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue a certificate: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: hosts, IPAddresses: addresses,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certificateAge),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}, BasicConstraintsValid: true,
	}, c.ca, key.Public(), c.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der, c.ca.Raw}, PrivateKey: key}, nil
}

// addPEM adds the certificates of a PEM file to pool.
func addPEM(pool *x509.CertPool, path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read certificates to trust: %w", err)
	}
	if !pool.AppendCertsFromPEM(raw) {
		return fmt.Errorf("%s has no certificate", path)
	}
	return nil
}
