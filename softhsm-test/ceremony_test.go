package softhsmtest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/hsm"
)

// table is where a ceremony is held: the plans, and the custodians' media.
type table struct {
	s   *system
	dir string
}

func newTable(s *system) *table {
	s.t.Helper()
	t := &table{s, s.t.TempDir()}
	for _, medium := range []string{"key-custodian-a", "key-custodian-b", "key-custodian-c", "backup"} {
		if err := os.Mkdir(filepath.Join(t.dir, medium), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	return t
}

// documented lays one of the plans of firmware-config on the table, with media of this test.
func (t *table) documented(name string) string {
	t.s.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "firmware-config", "ceremonies", name))
	if err != nil {
		t.s.t.Fatal(err)
	}
	return t.plan(name, strings.ReplaceAll(string(text), "/media/", t.dir+"/"))
}

func (t *table) plan(name, text string) string {
	t.s.t.Helper()
	path := filepath.Join(t.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.s.t.Fatal(err)
	}
	return path
}

// steps is a plan of two custodians.
func (t *table) steps(name string, steps ...string) string {
	t.s.t.Helper()
	return t.plan(name, "title: "+name+"\ncustodians:\n  - name: key-custodian-a\n  - name: key-custodian-b\nsteps:\n  - "+strings.Join(steps, "\n  - ")+"\n")
}

func (t *table) transcript(plan string) string {
	return strings.TrimSuffix(plan, ".yaml") + ".transcript.json"
}

var named = regexp.MustCompile(`name: ([a-z-]+)`)

// consents is what the plan's custodians type.
func (t *table) consents(plan string) string {
	t.s.t.Helper()
	text, err := os.ReadFile(plan)
	if err != nil {
		t.s.t.Fatal(err)
	}
	var typed strings.Builder
	for _, name := range named.FindAllStringSubmatch(string(text), -1) {
		fmt.Fprintf(&typed, "%s %.4x\n", name[1], sha256.Sum256(text))
	}
	return typed.String()
}

// hold runs a ceremony to which everybody consents.
func (t *table) hold(plan string, env ...string) (string, error) {
	t.s.t.Helper()
	return t.answer(plan, t.consents(plan), env...)
}

func (t *table) answer(plan, typed string, env ...string) (string, error) {
	t.s.t.Helper()
	ctx, cancel := context.WithTimeout(t.s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, finpay, "ceremony", plan, "--state", t.s.cfg.State())
	cmd.Env = append(append([]string{}, t.s.env...), env...)
	cmd.Stdin = strings.NewReader(typed)
	out, err := cmd.CombinedOutput()
	t.holdsNoSecret(out)
	return string(out), err
}

// mustHold is a ceremony that goes well; its transcript verifies.
func (t *table) mustHold(plan string) string {
	t.s.t.Helper()
	out, err := t.hold(plan)
	if err != nil {
		t.s.t.Fatalf("%v\n%s", err, out)
	}
	told := t.s.command("ceremony", "--verify", t.transcript(plan))
	if !strings.Contains(told, "The transcript verifies") {
		t.s.t.Errorf("%s", told)
	}
	text, err := os.ReadFile(t.transcript(plan))
	if err != nil {
		t.s.t.Fatal(err)
	}
	t.holdsNoSecret(text)
	kept, err := filepath.Glob(filepath.Join(t.s.cfg.State(), "finpay.db*"))
	if err != nil || len(kept) == 0 {
		t.s.t.Fatal(kept, err)
	}
	for _, path := range kept {
		t.holdsNoSecret([]byte(t.read(path)))
	}
	return out
}

// holdsNoSecret looks for PINs and shares.
func (t *table) holdsNoSecret(text []byte) {
	t.s.t.Helper()
	for _, file := range []string{"pin", "so-pin"} {
		pin, err := os.ReadFile(filepath.Join(t.s.cfg.State(), "hsm", file))
		if err != nil {
			t.s.t.Fatal(err)
		}
		if bytes.Contains(text, bytes.TrimSpace(pin)) {
			t.s.t.Errorf("the %s is shown", file)
		}
	}
	_ = filepath.WalkDir(t.dir, func(path string, _ fs.DirEntry, _ error) error {
		if filepath.Ext(path) != ".share" {
			return nil
		}
		share, err := os.ReadFile(path)
		if err != nil {
			t.s.t.Fatal(err)
		}
		for _, line := range regexp.MustCompile(`(?m)^Value .: (.*?)  `).FindAllSubmatch(share, -1) {
			for _, secret := range [][]byte{line[1], bytes.ReplaceAll(line[1], []byte(" "), nil)} {
				if bytes.Contains(text, secret) {
					t.s.t.Errorf("a share of %s is shown", path)
				}
			}
		}
		return nil
	})
}

// keyList is what `finpay keys --json` says.
type keyList struct {
	Keys []struct {
		Key        string     `json:"key"`
		State      string     `json:"state"`
		CheckValue string     `json:"check_value"`
		Origin     string     `json:"origin"`
		HSM        *hsm.Birth `json:"hsm"`
		Problem    string     `json:"problem"`
	} `json:"keys"`
	Strays  []hsm.Stray `json:"strays"`
	Missing []string    `json:"missing_roles"`
}

func (s *system) keys() (list keyList, exit int) {
	s.t.Helper()
	cmd := exec.Command(finpay, "keys", "--json", "--state", s.cfg.State())
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil && out.Len() == 0 {
		s.t.Fatalf("%v: %s", err, &problems)
	}
	return decode[keyList](s.t, out.Bytes()), cmd.ProcessState.ExitCode()
}

// state returns a key's state in the books; books and HSM agree.
func (s *system) states() map[string]string {
	s.t.Helper()
	list, exit := s.keys()
	if exit != 0 {
		s.t.Errorf("books and HSM disagree: %+v", list)
	}
	states := make(map[string]string)
	for _, k := range list.Keys {
		states[k.Key] = k.State
	}
	return states
}

// types are the log's entries about a resource.
func (s *system) types(resource string) (types []string) {
	s.t.Helper()
	db, err := store.OpenReadOnly(s.cfg.State())
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	entries, err := db.Read(s.t.Context()).LedgerEntriesOf(resource)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		types = append(types, decode[struct {
			Type string `json:"type"`
		}](s.t, e.Entry).Type)
	}
	return types
}

// engine opens the hsm token as another program of the user would.
func (s *system) engine(use func(*hsm.Engine)) {
	s.t.Helper()
	pin, err := os.ReadFile(s.cfg.HSM.PINFile)
	if err != nil {
		s.t.Fatal(err)
	}
	engine, err := hsm.Open(hsm.Config{Module: s.cfg.HSM.Module, Label: s.cfg.HSM.Token, PIN: strings.TrimSpace(string(pin)), Environment: s.cfg.HSM.Environment})
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := engine.Close(); err != nil {
			s.t.Error(err)
		}
	}()
	use(engine)
}

// pay buys something and pays it by card.
func (s *system) pay(number string) api.Payment {
	s.t.Helper()
	id, link := s.buy()
	if _, _, err := s.shop.Pay(s.t.Context(), link, typed(number)); err != nil {
		s.t.Fatal(err)
	}
	return s.settled(id)
}

func TestRotatedKeysServeAndOldOnesStillOpen(t *testing.T) {
	s := prepare(t)
	shop := s.up()
	before := s.pay("4111111111111111")
	s.serve.stop()
	shop.stop()

	table := newTable(s)
	out := table.mustHold(table.documented("rotate.yaml"))
	if !strings.Contains(out, "tls v2 (found by id and label, signs, check value") {
		t.Errorf("nothing of the independent client in\n%s", out)
	}
	plan := table.steps("tokens.yaml", "rotate: {role: tokenize}", "rotate: {role: intake}")
	table.mustHold(plan)
	states := s.states()
	for key, want := range map[string]string{"kek v1": "retired", "kek v2": "active", "tls v1": "retired", "tls v2": "active", "origin v1": "destroyed",
		"origin v2": "active", "tokenize v1": "retired", "tokenize v2": "active", "intake v2": "active", "ledger v1": "active"} {
		if states[key] != want {
			t.Errorf("%s is %q, want %q", key, states[key], want)
		}
	}

	s.up() // with the certificate of tls v2, which the client trusts; the webhook secret is sealed under kek v1
	after, another := s.pay("4111111111111111"), s.pay("5200828282828210")
	if after.Status != api.StatusCaptured || after.Token != before.Token || another.Status != api.StatusCaptured {
		t.Errorf("%s, token %s, want the one that the card had under the key before, %s; another card: %s", after.Status, after.Token, before.Token, another.Status)
	}
	s.until("the shop has its webhook", func() bool { return s.shopHeard(after.ID) && s.shopHeard(another.ID) })
	if booked := s.books().Net["EUR"]; booked != after.Amount+another.Amount { // a new simulator has new books
		t.Errorf("the acquirer has booked %d, want %d", booked, after.Amount+another.Amount)
	}
	s.serve.stop()
	for step, want := range map[string]string{
		"destroy: {role: tokenize, version: 1}": "1 issued tokens lead back to their cards under tokenize v1 only",
		"destroy: {role: kek, version: 1}":      "1 sealed secrets open under kek v1 only",
		"destroy: {role: kek, version: 2}":      "kek v2 is active",
		"destroy: {role: origin, version: 1}":   "destroyed already",
	} {
		if out, err := table.hold(table.steps("refused.yaml", step)); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, want %q in\n%s", step, err, want, out)
		}
	}
	table.mustHold(table.steps("end-of-kek.yaml", "reseal: {role: kek}"))
	table.mustHold(table.steps("end-of-kek-too.yaml", "destroy: {role: kek, version: 1}"))
	table.mustHold(table.steps("end-of-tls.yaml", "destroy: {role: tls, version: 1}", "destroy: {role: intake, version: 1}", "retire: {role: intake, version: 2}"))
	if states := s.states(); states["tls v1"] != "destroyed" || states["intake v2"] != "retired" || states["kek v1"] != "destroyed" {
		t.Errorf("%v", states)
	}
	s.up() // without an intake key, and with the webhook secret sealed anew
	last := s.pay("5555555555554444")
	s.until("the shop has its webhook", func() bool { return s.shopHeard(last.ID) })
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

// A certificate of an authority cannot be made by a ceremony: the listener goes on with the old key until the answer to the
// request is there.
func TestACertificateOfAnAuthorityIsServedUntilItsSuccessorIsInstalled(t *testing.T) {
	s := prepare(t)
	authority := newAuthority(t)
	roots := x509.NewCertPool()
	roots.AddCert(authority.certificate)
	issue := func(public any) {
		if err := os.WriteFile(s.cfg.TLS.Certificate, authority.issue(t, public), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	presented := func() any {
		t.Helper()
		s.serve = s.start("serve")
		defer s.serve.stop()
		var public any
		s.until("a handshake", func() bool {
			conn, err := tls.Dial("tcp", s.cfg.Listen, &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13})
			if err != nil {
				return false
			}
			defer func() { _ = conn.Close() }()
			public = conn.ConnectionState().PeerCertificates[0].PublicKey
			return true
		})
		return public
	}
	old := readPEM(t, s.cfg.TLS.Certificate, x509.ParseCertificate).PublicKey
	issue(old)
	table := newTable(s)
	out := table.mustHold(table.steps("rotate-tls.yaml", "rotate: {role: tls}"))
	if got := presented(); !old.(*ecdsa.PublicKey).Equal(got) {
		t.Error("the listener has another key than its certificate's")
	}
	if out, err := table.hold(table.steps("too-early.yaml", "destroy: {role: tls, version: 1}")); err == nil || !strings.Contains(out, "is for tls v1: install one for the active version first") {
		t.Errorf("%v\n%s", err, out)
	}
	request := readPEM(t, filepath.Join(s.cfg.State(), "tls", "server.v2.csr"), x509.ParseCertificateRequest)
	if err := request.CheckSignature(); err != nil || len(request.DNSNames) != 1 || old.(*ecdsa.PublicKey).Equal(request.PublicKey) {
		t.Errorf("the request: %v, for %v\n%s", err, request.DNSNames, out)
	}
	issue(request.PublicKey)
	if got := presented(); !request.PublicKey.(*ecdsa.PublicKey).Equal(got) {
		t.Error("the new certificate is not served")
	}
	table.mustHold(table.steps("end.yaml", "destroy: {role: tls, version: 1}"))
}

type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, certificate: &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}}
	der, err := x509.CreateCertificate(rand.Reader, a.certificate, a.certificate, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(t *testing.T, public any) []byte {
	t.Helper()
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.certificate, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func readPEM[T any](t *testing.T, path string, parse func([]byte) (T, error)) T {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s is not PEM", path)
	}
	v, err := parse(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// shopHeard reports whether the shop has a webhook about a payment whose signature it has verified.
func (s *system) shopHeard(id string) bool {
	s.t.Helper()
	response, err := s.client.Get(s.shopURL() + "/orders")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Orders []struct {
			PaymentID string `json:"payment_id"`
			Webhooks  []struct {
				Verified bool `json:"verified"`
			} `json:"webhooks"`
		} `json:"orders"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		s.t.Fatal(err)
	}
	for _, o := range answer.Orders {
		for _, w := range o.Webhooks {
			if o.PaymentID == id && w.Verified {
				return true
			}
		}
	}
	return false
}

func TestKeysAreRestoredOnAnotherHSMAndMakeTheSameTokens(t *testing.T) {
	first := prepare(t)
	shop := first.up()
	token := first.pay("4111111111111111").Token
	first.serve.stop()
	shop.stop()
	media := newTable(first)
	media.mustHold(media.documented("first-backup.yaml"))

	second := configured(t)
	second.command("init", "--await-restore")
	if list, exit := second.keys(); exit != 1 || len(list.Missing) != 2 {
		t.Errorf("before the restore: exit %d, missing %v", exit, list.Missing)
	}
	media.s = second
	media.mustHold(media.documented("restore.yaml"))
	list, exit := second.keys()
	if exit != 0 {
		t.Errorf("%+v", list)
	}
	for _, k := range list.Keys {
		restored := k.Key == "tokenize v1" || k.Key == "kek v1"
		if (k.Origin == "restored") != restored || k.HSM == nil || k.HSM.Local == restored {
			t.Errorf("%+v %+v", k, k.HSM)
		}
	}
	if types := second.types("hsm:tokenize v1"); len(types) != 1 || types[0] != "key.restored" {
		t.Errorf("the log says %v of tokenize v1", types)
	}
	again := newTable(second)
	again.mustHold(again.documented("first-backup.yaml")) // a restored key is recoverable as before
	second.setUp()                                        // the rest of init
	second.up()
	if got := second.pay("4111111111111111"); got.Token != token || got.Status != api.StatusCaptured {
		t.Errorf("%s with token %s; the first appliance made %s", got.Status, got.Token, token)
	}
}

// A sale is announced with its token, and the process dies. Then the tokenization key is lost. The reversal after the
// restore needs the card behind that token.
func TestTokensIssuedBeforeTheLossResolveAfterTheRestore(t *testing.T) {
	s := prepare(t)
	s.up()
	s.serve.stop()
	s.serve = s.start("serve", "FINPAY_FAILPOINT=after sale")
	s.awaitReady()
	id, link := s.buy()
	_, _, _ = s.shop.Pay(t.Context(), link, typed("4111111111111111"))
	<-s.serve.done
	s.client.CloseIdleConnections()
	if booked := s.books().Net["EUR"]; booked == 0 {
		t.Fatal("the sale was not booked")
	}
	media := newTable(s)
	media.mustHold(media.documented("first-backup.yaml"))

	s.engine(func(engine *hsm.Engine) {
		if err := engine.Destroy(t.Context(), hsm.Key{Role: "tokenize", Version: 1}, hsm.AESEncrypt); err != nil {
			t.Fatal(err)
		}
	})
	if list, exit := s.keys(); exit != 1 || !strings.Contains(fmt.Sprint(list.Keys), "restore it from its backup") {
		t.Errorf("the loss is not seen: exit %d, %+v", exit, list)
	}
	for _, command := range [][]string{{"serve"}, {"init"}, {"api-key", "create"}} {
		out, err := exec.Command(finpay, append(command, "--state", s.cfg.State())...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "tokenize v1 is in the books and not on the hsm token") {
			t.Errorf("%v without the key: %v\n%s", command, err, out)
		}
	}
	text, err := os.ReadFile(media.documented("restore.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	both := media.plan("restore-both.yaml", string(text))
	if out, err := media.hold(both); err == nil || !strings.Contains(out, "kek v1 is on the hsm token: a key is never overwritten") {
		t.Errorf("a key that is there: %v\n%s", err, out)
	}
	media.mustHold(media.plan("restore-one.yaml", strings.Replace(string(text), "backup.json}", "backup.json, roles: [tokenize]}", 1)))
	media.mustHold(media.steps("rotate-tokenize.yaml", "rotate: {role: tokenize}")) // the restored version only turns back now
	s.serve = s.start("serve")
	s.awaitReady()
	if got := s.settled(id); got.Status != api.StatusFailed {
		t.Errorf("the payment is %s, want failed: reversed", got.Status)
	}
	if booked := s.books().Net["EUR"]; booked != 0 {
		t.Errorf("the acquirer still has %d booked: the reversal has not named the card", booked)
	}
}

func TestSharesThatDoNotBelongAreRefused(t *testing.T) {
	s := prepare(t)
	media := newTable(s)
	media.mustHold(media.documented("first-backup.yaml"))
	s.engine(func(engine *hsm.Engine) {
		for role, kind := range map[hsm.Role]hsm.Kind{"tokenize": hsm.AESEncrypt, "kek": hsm.AESWrap} {
			if err := engine.Destroy(t.Context(), hsm.Key{Role: role, Version: 1}, kind); err != nil {
				t.Fatal(err)
			}
		}
	})
	plan := media.documented("restore.yaml")
	restore, err := os.ReadFile(plan)
	if err != nil {
		t.Fatal(err)
	}
	share := func(custodian string) string {
		return filepath.Join(media.dir, custodian, "finpay-1.share")
	}
	read := func(custodian string) []byte {
		text, err := os.ReadFile(share(custodian))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	a, b, c := read("key-custodian-a"), read("key-custodian-b"), read("key-custodian-c")
	for name, test := range map[string]struct {
		change func()
		want   string
	}{
		"missing":  {func() { _ = os.Remove(share("key-custodian-c")) }, "no such file"},
		"mixed up": {func() { _ = os.WriteFile(share("key-custodian-c"), b, 0o600) }, "is that of key-custodian-b"},
		"the same": {func() { _ = os.WriteFile(share("key-custodian-c"), a, 0o600) }, "is that of key-custodian-a"},
		"altered":  {func() { _ = os.WriteFile(share("key-custodian-c"), flipped(c, "Value 2: "), 0o600) }, "line 2 of the value has an error"},
		"forged":   {func() { _ = os.WriteFile(share("key-custodian-c"), forged(t, c), 0o600) }, "at least one share is wrong; nothing was done"},
		"backup altered": {func() {
			path := filepath.Join(media.dir, "backup", "finpay-1.backup.json")
			text, _ := os.ReadFile(path)
			_ = os.WriteFile(path, bytes.Replace(text, []byte(`"state": "active"`), []byte(`"state": "retired"`), 1), 0o600)
		}, "another backup, or the backup was altered"},
	} {
		backup, err := os.ReadFile(filepath.Join(media.dir, "backup", "finpay-1.backup.json"))
		if err != nil {
			t.Fatal(err)
		}
		test.change()
		if out, err := media.hold(plan); err == nil || !strings.Contains(out, test.want) || !strings.Contains(out, "nothing was done") {
			t.Errorf("%s: %v, want %q in\n%s", name, err, test.want, out)
		}
		for path, text := range map[string][]byte{share("key-custodian-c"): c, plan: restore, filepath.Join(media.dir, "backup", "finpay-1.backup.json"): backup} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, _ := s.keys()
	for _, k := range list.Keys {
		if strings.HasPrefix(k.Key, "tokenize") && k.HSM != nil {
			t.Error("a refused restore has left a key behind")
		}
	}
	media.mustHold(plan) // and with the right ones it works
}

// forged is a share with another value, whose checksums hold.
func forged(t *testing.T, share []byte) []byte {
	t.Helper()
	lines := strings.SplitAfter(string(flipped(share, "Value 1: ")), "\n")
	digits := strings.ReplaceAll(lines[5][len("Value 1: "):len("Value 1: ")+19], " ", "")
	value, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(append([]byte{1}, value...))
	lines[5] = lines[5][:len("Value 1: ")+19] + fmt.Sprintf("  %x\n", sum[:2])
	text := strings.Join(lines[:9], "")
	sum = sha256.Sum256([]byte(text))
	return fmt.Appendf([]byte(text), "Checksum: %x %x\n", sum[:2], sum[2:4])
}

func TestFewerSharesThanTheQuorumAreRefused(t *testing.T) {
	s := prepare(t)
	media := newTable(s)
	all := strings.Replace(media.read(media.documented("first-backup.yaml")), "quorum: 2", "quorum: 3", 1)
	media.mustHold(media.plan("all-three.yaml", all))
	s.engine(func(engine *hsm.Engine) {
		if err := engine.Destroy(t.Context(), hsm.Key{Role: "kek", Version: 1}, hsm.AESWrap); err != nil {
			t.Fatal(err)
		}
	})
	two := strings.Replace(media.read(media.documented("restore.yaml")), "backup.json}", "backup.json, roles: [kek]}", 1)
	if out, err := media.hold(media.plan("two.yaml", two)); err == nil || !strings.Contains(out, "3 of the shares of key-custodian-a, key-custodian-b, key-custodian-c are needed") {
		t.Errorf("%v\n%s", err, out)
	}
	three := strings.Replace(two, "steps:", "  - name: key-custodian-b\n    share: "+media.dir+"/key-custodian-b/finpay-1.share\nsteps:", 1)
	media.mustHold(media.plan("three.yaml", three))
	s.states()
}

// flipped changes one digit after a mark.
func flipped(text []byte, mark string) []byte {
	text = bytes.Clone(text)
	at := bytes.Index(text, []byte(mark)) + len(mark)
	if text[at] == '0' {
		text[at] = '1'
	} else {
		text[at] = '0'
	}
	return text
}

func TestAPlanThatCannotBeDoneIsRefusedAsAWhole(t *testing.T) {
	s := prepare(t)
	table := newTable(s)
	size := s.logSize()
	for step, want := range map[string]string{
		"rotate: {role: kekk}":                `"kekk" is no role`,
		"rotate: {role: ledger}":              "auditors have pinned the log's public key",
		"rotate: {role: ledger-ed25519}":      "witnesses know the log",
		"rotate: {role: apikey}":              "Revoke and make API keys one by one",
		"rotate: {role: return}":              "return secret",
		"generate: {role: kek}":               "kek v1 is active: rotate the role",
		"retire: {role: kek, version: 1}":     "does not run without an active kek key",
		"destroy: {role: kek, version: 1}":    "kek v1 is active",
		"destroy: {role: kek, version: 7}":    "there is no kek v7",
		"retire: {role: nothing, version: 1}": `"nothing" is no role`,
		"reseal: {role: tls}":                 "nothing is sealed under tls",
		"rotate: {rolle: tls}":                "line 7",
		"rotate: {role: tls}":                 "steps 1 and 2 are the same",
	} {
		plan := table.steps("refused.yaml", "rotate: {role: tls}", step)
		out, err := table.hold(plan)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, want %q in\n%s", step, err, want, out)
		}
	}
	bound := strings.Replace(table.read(table.documented("first-backup.yaml")), "[tokenize, kek]", "[tokenize, tls]", 1)
	if out, err := table.hold(table.plan("bound.yaml", bound)); err == nil || !strings.Contains(out, "tls is bound to its HSM") {
		t.Errorf("a backup of a bound key: %v\n%s", err, out)
	}
	away := strings.Replace(table.read(table.documented("first-backup.yaml")), "key-custodian-b/", "key-custodian-b-away/", 1)
	if out, err := table.hold(table.plan("away.yaml", away)); err == nil || !strings.Contains(out, "is the medium in its drive?") {
		t.Errorf("a medium that is away: %v\n%s", err, out)
	}
	inTheWay := regexp.MustCompile(`to: \S+\.json`).ReplaceAllString(table.read(table.documented("first-backup.yaml")), "to: inway.transcript.json")
	if out, err := table.hold(table.plan("inway.yaml", inTheWay)); err == nil || !strings.Contains(out, "where the transcript will be written") {
		t.Errorf("a backup in the transcript's place: %v\n%s", err, out)
	}
	if got := s.logSize(); got != size {
		t.Errorf("refused plans left %d entries", got-size)
	}
	if s.states()["tls v1"] != "active" {
		t.Error("a refused plan has done its first step")
	}
}

func (t *table) read(path string) string {
	t.s.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.s.t.Fatal(err)
	}
	return string(text)
}

func (s *system) logSize() int64 {
	s.t.Helper()
	db, err := store.OpenReadOnly(s.cfg.State())
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	size, err := db.Read(s.t.Context()).LedgerSize()
	if err != nil {
		s.t.Fatal(err)
	}
	return size
}

func TestNothingIsDoneWithoutEveryCustodiansConsent(t *testing.T) {
	s := prepare(t)
	table := newTable(s)
	plan := table.documented("first-backup.yaml")
	size, consents := s.logSize(), strings.SplitAfter(table.consents(plan), "\n")
	for name, typed := range map[string]string{
		"nobody":       "",
		"one refuses":  consents[0] + "no\n" + consents[2],
		"the last one": consents[0] + consents[1],
		"a stranger":   consents[0] + consents[0] + consents[2],
		"another plan": consents[0] + "key-custodian-b 00000000\n" + consents[2],
	} {
		out, err := table.answer(plan, typed)
		if err == nil || !strings.Contains(out, "did not consent: nothing was done") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if out := s.command("ceremony", "--check", plan); !strings.Contains(out, "wrap tokenize v1, kek v1") || !strings.Contains(out, "Nothing was touched.") {
		t.Errorf("%s", out)
	}
	officer := filepath.Join(table.dir, "wrong-pin")
	if err := os.WriteFile(officer, []byte("00000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := table.plan("wrong-officer.yaml", strings.Replace(table.read(plan), "${STATE}/hsm/so-pin", officer, 1))
	if out, err := table.hold(wrong); err == nil || !strings.Contains(out, "that of the security officer") {
		t.Errorf("a wrong PIN of the officer: %v\n%s", err, out)
	}
	if err := os.Remove(officer); err != nil {
		t.Fatal(err)
	}
	if got := s.logSize(); got != size {
		t.Errorf("%d entries without consent", got-size)
	}
	if left, _ := filepath.Glob(filepath.Join(table.dir, "*", "*")); len(left) > 0 {
		t.Errorf("files without consent: %v", left)
	}
	table.mustHold(plan)
	if out, err := table.hold(plan); err == nil || !strings.Contains(out, "carried out already") {
		t.Errorf("a second time: %v\n%s", err, out)
	}
	transcript := table.transcript(plan)
	text := table.read(transcript)
	for name, altered := range map[string]string{
		"a check value": strings.Replace(text, "check_value", "check_valve", 1),
		"the plan":      strings.Replace(text, "First backup", "Other backup", 1),
		"cut":           text[:len(text)-2],
	} {
		if err := os.WriteFile(transcript+".altered", []byte(altered), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(finpay, "ceremony", "--verify", transcript+".altered", "--key", filepath.Join(s.cfg.State(), "ledger.vkey"))
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%s altered: exit code %d\n%s", name, cmd.ProcessState.ExitCode(), out)
		}
	}
	if err := os.Remove(transcript); err != nil { // lost before anybody has read it: the log has it all
		t.Fatal(err)
	}
	if out := s.command("ceremony", plan); !strings.Contains(out, "nothing is done but writing its transcript") || table.read(transcript) != text {
		t.Errorf("%s", out)
	}
}

// killed are the places at which a ceremony dies, and what a second run of the same plan makes of it.
func TestAKilledCeremonyGoesOn(t *testing.T) {
	s := prepare(t)
	table := newTable(s)
	version := 1
	for _, place := range []string{"before ceremony step 1", "within ceremony step 1", "after ceremony step 1", "within ceremony step 2",
		"within ceremony step 3", "after ceremony step 3", "before ceremony end", "after ceremony end"} {
		t.Run(place, func(t *testing.T) {
			s.t = t
			plan := table.steps(strings.ReplaceAll(place, " ", "-")+".yaml", "rotate: {role: origin}", "rotate: {role: tls}",
				fmt.Sprintf("destroy: {role: origin, version: %d}", version))
			if out, err := table.hold(plan, "FINPAY_FAILPOINT="+place); err == nil {
				t.Fatalf("it never came to this place:\n%s", out)
			}
			out, err := table.hold(plan)
			if err != nil {
				t.Fatalf("the second run: %v\n%s", err, out)
			}
			told := s.command("ceremony", "--verify", table.transcript(plan))
			if resumed := strings.Contains(told, "ceremony.resumed"); resumed != (place != "after ceremony end") {
				t.Errorf("resumed: %v\n%s", resumed, told)
			}
			version++
			states := s.states()
			for key, want := range map[string]string{
				fmt.Sprintf("origin v%d", version-1): "destroyed", fmt.Sprintf("origin v%d", version): "active",
				fmt.Sprintf("tls v%d", version-1): "retired", fmt.Sprintf("tls v%d", version): "active"} {
				if states[key] != want {
					t.Errorf("%s is %q, want %q", key, states[key], want)
				}
			}
			if types := s.types(fmt.Sprintf("hsm:tls v%d", version)); len(types) != 1 || types[0] != "key.created" {
				t.Errorf("entries about the new key: %v", types)
			}
		})
	}
	s.t = t
	s.verifyLog()
}

func TestAKilledBackupLeavesNothingThatCounts(t *testing.T) {
	s := prepare(t)
	media := newTable(s)
	plan := media.documented("first-backup.yaml")
	if out, err := media.hold(plan, "FINPAY_FAILPOINT=within ceremony step 1"); err == nil {
		t.Fatalf("%s", out)
	}
	if types := s.types("hsm:kek v1"); len(types) != 1 {
		t.Errorf("a backup that is not entered: %v", types)
	}
	out, err := media.hold(plan)
	if err == nil || !strings.Contains(out, "it belongs to no recorded backup") {
		t.Errorf("%v\n%s", err, out)
	}
	left, _ := filepath.Glob(filepath.Join(media.dir, "*", "finpay-1.*"))
	if len(left) != 4 {
		t.Errorf("%v", left)
	}
	for _, path := range left {
		if !strings.Contains(out, path) {
			t.Errorf("%s is not named in\n%s", path, out)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	media.mustHold(plan)

	s.engine(func(engine *hsm.Engine) {
		if err := engine.Destroy(t.Context(), hsm.Key{Role: "kek", Version: 1}, hsm.AESWrap); err != nil {
			t.Fatal(err)
		}
	})
	restore := media.plan("restore-kek.yaml", strings.Replace(media.read(media.documented("restore.yaml")), "backup.json}", "backup.json, roles: [kek]}", 1))
	if out, err := media.hold(restore, "FINPAY_FAILPOINT=within ceremony step 1"); err == nil {
		t.Fatalf("%s", out)
	}
	if list, exit := s.keys(); exit != 1 {
		t.Errorf("a key is on the hsm token as restored, and the books do not say so: %+v", list)
	}
	if out, err := media.hold(restore); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.states()
}

func TestKeysThatNobodyEnteredAreFound(t *testing.T) {
	s := prepare(t)
	table := newTable(s)
	s.engine(func(engine *hsm.Engine) {
		if _, err := engine.Generate(t.Context(), hsm.Key{Role: "tls", Version: 2}, hsm.Spec{Role: "tls", Kind: hsm.ECSign, Class: hsm.Bound}); err != nil {
			t.Fatal(err)
		}
	})
	list, exit := s.keys()
	if exit != 1 || len(list.Strays) != 1 || list.Strays[0].Label != "tls v2" {
		t.Errorf("exit %d, %+v", exit, list.Strays)
	}
	if out, err := table.hold(table.steps("rotate-tls.yaml", "rotate: {role: tls}")); err == nil || !strings.Contains(out, "tls v2 is on the hsm token and in no books") {
		t.Errorf("a key of strangers was taken: %v\n%s", err, out)
	}
}

// query changes the database as somebody with the disk could.
func (s *system) query(statements ...string) {
	s.t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(s.cfg.State(), store.FileName))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, statement := range statements {
		if _, err := db.ExecContext(s.t.Context(), statement); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestChangedBooksAreNotServed(t *testing.T) {
	s := prepare(t)
	s.query("UPDATE keys SET check_value = '000000' WHERE role = 'tokenize'")
	out, err := exec.Command(finpay, "serve", "--state", s.cfg.State()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "tokenize v1 is not in the books as the log has signed it") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAnotherKeyInTheSamePlaceIsNotServed(t *testing.T) {
	s := prepare(t)
	s.engine(func(engine *hsm.Engine) {
		key, spec := hsm.Key{Role: "tokenize", Version: 1}, hsm.Spec{Role: "tokenize", Kind: hsm.AESEncrypt, Class: hsm.Recoverable}
		if err := engine.Destroy(t.Context(), key, spec.Kind); err != nil {
			t.Fatal(err)
		}
		if _, err := engine.Generate(t.Context(), key, spec); err != nil {
			t.Fatal(err)
		}
	})
	out, err := exec.Command(finpay, "serve", "--state", s.cfg.State()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "it is another key") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A state directory of the time before the books: they are filled from the log, and held against the HSM.
func TestBooksAreFilledFromTheLog(t *testing.T) {
	s := prepare(t)
	want := s.states()
	s.query("DROP TABLE keys", "DELETE FROM goose_db_version WHERE version_id = 2")
	s.up()
	s.serve.stop()
	got := s.states()
	if len(got) != len(want) || got["tokenize v1"] != "active" {
		t.Errorf("%v, want %v", got, want)
	}
	if types := s.types("hsm:tokenize v1"); len(types) != 2 || types[1] != "key.listed" {
		t.Errorf("%v", types)
	}
}
