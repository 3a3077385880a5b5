package softhsmtest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/ledger"
)

const auditorsName = "Ada Lovelace"

// link makes a link for an auditor.
func (s *system) link() (address, auditor string) {
	s.t.Helper()
	out := s.command("auditor", "link", "--name", auditorsName, "--for", "1h")
	address = regexp.MustCompile(`https://\S+/audit/open/\S+`).FindString(out)
	auditor = regexp.MustCompile(`aud_\w+`).FindString(s.command("auditor", "list"))
	if address == "" || auditor == "" {
		s.t.Fatalf("%q", out)
	}
	return address, auditor
}

// browses answers as a browser without a script does, with cookies.
func (s *system) browses() *http.Client {
	s.t.Helper()
	client := s.newClient()
	client.CheckRedirect = nil
	var err error
	if client.Jar, err = cookiejar.New(nil); err != nil {
		s.t.Fatal(err)
	}
	return client
}

func (s *system) page(client *http.Client, method, address string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, address, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	response, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, body.String()
}

// audit asks the API with an auditor's key.
func (s *system) audit(key, path string) []byte {
	s.t.Helper()
	status, body := s.call("GET", path, "", "Authorization", "Bearer "+key)
	if status != http.StatusOK {
		s.t.Fatalf("%s: %d %s", path, status, body)
	}
	return body
}

func TestAnAuditorFindsAPaymentAndProvesIt(t *testing.T) {
	s := newSystem(t)
	key := regexp.MustCompile(`fp_test_\S+`).FindString(s.command("api-key", "create", "--scopes", "audit"))
	id := s.pay("4111111111111111").ID
	vkey := strings.TrimSpace(s.command("ledger", "key"))

	var seen []string
	for path := "/v1/audit/entries?order=oldest&limit=2&resource=" + id; ; {
		list := decode[api.AuditList](t, s.audit(key, path))
		for _, e := range list.Entries {
			var entry ledger.Entry
			if err := json.Unmarshal([]byte(e.Entry), &entry); err != nil || entry.Resource != id || entry.Sequence != e.Index {
				t.Fatalf("%+v: %v", e, err)
			}
			seen = append(seen, entry.Type)
			proven := decode[api.ProvenEntry](t, s.audit(key, fmt.Sprint("/v1/audit/entries/", e.Index)))
			if err := logproof.Verify(e.Index, []byte(e.Entry), []byte(proven.Proof), s.cfg.Ledger.Origin, vkey); err != nil || proven.AuditEntry != e {
				t.Errorf("entry %d: %v", e.Index, err)
			}
		}
		if list.NextCursor == "" {
			break
		}
		path = "/v1/audit/entries?order=oldest&limit=2&resource=" + id + "&cursor=" + list.NextCursor
	}
	if !slices.Contains(seen, "payment.created") || !slices.Contains(seen, "payment.captured") {
		t.Errorf("the payment's entries are %v", seen)
	}
	list := decode[api.AuditList](t, s.audit(key, "/v1/audit/entries?type=payment.&outcome=success&card="+url.QueryEscape("411111******1111")))
	if len(list.Entries) == 0 || !strings.Contains(list.Entries[0].Entry, id) {
		t.Errorf("%+v", list)
	}
	if n := s.entriesOfType("audit.viewed"); n < len(seen)+2 {
		t.Errorf("%d looks were entered", n)
	}
	s.exports(key)
	bundle := s.exported()
	if v, code := verifies(t, bundle, "--key", vkey); code != 0 {
		t.Errorf("exit %d, %+v", code, v)
	}
}

// exports holds what the API exports against what the command does.
func (s *system) exports(key string) {
	s.t.Helper()
	for _, format := range []string{"ocsf", "syslog"} {
		byAPI := s.audit(key, "/v1/audit/export?format="+format)
		size := bytes.Count(byAPI, []byte("\n"))
		path := filepath.Join(s.t.TempDir(), format)
		s.command("ledger", "export", "--format", format, "-o", path, "--to", fmt.Sprint(size))
		byCommand, err := os.ReadFile(path)
		if err != nil || size < 10 || !bytes.Equal(byAPI, byCommand) {
			s.t.Errorf("%s: the API gives %d bytes, the command %d: %v", format, len(byAPI), len(byCommand), err)
		}
		if digits := regexp.MustCompile(`4111111111111111`); digits.Match(byAPI) {
			s.t.Error("the export has a card number")
		}
	}
}

func TestAnAuditorsLinkOpensOnce(t *testing.T) {
	s := newSystem(t)
	link, auditor := s.link()
	ada, other := s.browses(), s.browses()
	if status, _ := s.page(ada, "GET", link); status != http.StatusOK {
		t.Errorf("the link leads to %d", status)
	}
	if status, page := s.page(ada, "POST", link); status != http.StatusOK || !strings.Contains(page, auditorsName) || !strings.Contains(page, "auditor.link_opened") {
		t.Errorf("%d %s", status, page)
	}
	if status, _ := s.page(other, "POST", link); status != http.StatusUnauthorized {
		t.Errorf("a second time: %d", status)
	}
	if status, _ := s.page(other, "GET", s.cfg.PublicURL+"/audit"); status != http.StatusUnauthorized {
		t.Errorf("without a session: %d", status)
	}
	if status, page := s.page(ada, "GET", s.cfg.PublicURL+"/audit/entries/0"); status != http.StatusOK || !strings.Contains(page, "tlog-proof") {
		t.Errorf("%d %s", status, page)
	}
	if status, page := s.page(ada, "GET", s.cfg.PublicURL+"/audit/log"); status != http.StatusOK || !strings.Contains(page, s.cfg.Ledger.Origin) {
		t.Errorf("%d %s", status, page)
	}
	s.command("auditor", "end", auditor, "--forget")
	if status, _ := s.page(ada, "GET", s.cfg.PublicURL+"/audit"); status != http.StatusUnauthorized {
		t.Errorf("after it was ended: %d", status)
	}
	for kind, want := range map[string]int{"auditor.link_created": 1, "auditor.link_opened": 1, "auditor.ended": 1, "auditor.forgotten": 1, "login.failed": 1} {
		if n := s.entriesOfType(kind); n != want {
			t.Errorf("%d entries of %s", n, kind)
		}
	}
	if out := s.command("auditor", "list"); strings.Contains(out, auditorsName) || !strings.Contains(out, auditor) {
		t.Errorf("%s", out)
	}
	path := filepath.Join(t.TempDir(), "all")
	s.command("ledger", "export", "--format", "ocsf", "-o", path)
	if all, err := os.ReadFile(path); err != nil || bytes.Contains(all, []byte(auditorsName)) || !bytes.Contains(all, []byte(auditor)) {
		t.Errorf("the log has the name, or not the id (%v)", err)
	}
}

// herCertificate makes a self-signed certificate, and writes it to a file.
func herCertificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: auditorsName}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ada.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, path
}

func TestARegisteredCertificateOpensTheLog(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	s := newSystem(t, setting{"audit:\n  listen: \"\"", "audit:\n  listen: 127.0.0.1:" + port})
	hers, path := herCertificate(t)
	strangers, _ := herCertificate(t)
	with := func(certificates ...tls.Certificate) *http.Client {
		client := s.browses()
		client.Transport.(*http.Transport).TLSClientConfig.Certificates = certificates
		return client
	}
	address := "https://localhost:" + port + "/audit"
	s.command("auditor", "certificate", "--name", auditorsName, "--certificate", path, "--for", "1h")
	if status, page := s.page(with(hers), "GET", address); status != http.StatusOK || !strings.Contains(page, auditorsName) || strings.Contains(page, "/audit/leave") {
		t.Errorf("%d %s", status, page)
	}
	if status, _ := s.page(with(strangers), "GET", address); status != http.StatusUnauthorized {
		t.Errorf("a stranger's: %d", status)
	}
	if response, err := with().Get(address); err == nil {
		_ = response.Body.Close()
		t.Error("without a certificate")
	}
	s.command("auditor", "end", regexp.MustCompile(`aud_\w+`).FindString(s.command("auditor", "list")))
	if status, _ := s.page(with(hers), "GET", address); status != http.StatusUnauthorized {
		t.Errorf("after it was ended: %d", status)
	}
}
