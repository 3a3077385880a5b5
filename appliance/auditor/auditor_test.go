package auditor

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/audit"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/appliance/store/postings"
	"github.com/finterra/finpay/pci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var begin = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// bench is a service over a database, a log and an index, with a clock that stands until it is moved.
type bench struct {
	*Service

	t       testing.TB
	dir     string
	key     *ecdsa.PrivateKey
	mu      sync.Mutex
	now     time.Time
	refused []string // resources of refused logins
}

func (b *bench) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func (b *bench) Refused(_ context.Context, resource, _ string) error {
	b.refused = append(b.refused, resource)
	return api.ErrUnauthorized
}

func newBench(t testing.TB) *bench {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: t.TempDir(), key: private, now: begin}
	s, err := store.Open(t.Context(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), s, ledger.Config{Origin: "finpay.test/node/2030", Node: "node", Signer: private, Now: b.clock})
	if err != nil {
		t.Fatal(err)
	}
	x, err := postings.Open(t.Context(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		if err := errors.Join(x.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	b.Service = New(Config{Store: s, Ledger: l, Index: x, Logins: b, Now: b.clock})
	return b
}

// enter commits entries, each a second after the one before.
func (b *bench) enter(entries ...ledger.Entry) {
	b.t.Helper()
	for _, e := range entries {
		b.pass(time.Second)
		if err := b.record(b.t.Context(), e); err != nil {
			b.t.Fatal(err)
		}
	}
}

// log returns all entries.
func (b *bench) log() (all []ledger.Entry) {
	b.t.Helper()
	rows, err := b.cfg.Store.Read(b.t.Context()).LedgerEntries(0, 1<<20)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, row := range rows {
		e, err := readEntry(row)
		if err != nil {
			b.t.Fatal(err)
		}
		all = append(all, e.Entry)
	}
	return all
}

func (b *bench) last() ledger.Entry {
	all := b.log()
	return all[len(all)-1]
}

var someone = api.Viewer{Actor: "aud_1", Origin: "192.0.2.1"}

func payment(kind, id, outcome, card string) ledger.Entry {
	e := ledger.Entry{Type: kind, Actor: "system", Origin: "local", Outcome: outcome, Resource: id, Data: map[string]any{"amount": 1250}}
	if card != "" {
		e.Data["card"] = card
	}
	return e
}

// A search finds what a look at each entry finds, page by page, in either direction, whatever was entered meanwhile.
func TestASearchFindsWhatALookAtEachEntryFinds(t *testing.T) {
	b := newBench(t)
	kinds := []string{"payment.created", "payment.captured", "payment.declined", "token.issued", "payments.odd"}
	cards := []string{"", "411111******1111", "555555******4444"}
	for i := range 400 {
		b.enter(payment(kinds[i*i%5], fmt.Sprintf("pay_%d", i%23), []string{ledger.Success, ledger.Failure}[i%7/6], cards[i%3]))
	}
	all := b.log()
	b.pass(time.Hour) // what follows is of another time
	rapid.Check(t, func(r *rapid.T) {
		q := api.AuditQuery{Type: rapid.SampledFrom(append([]string{"", "", "payment.", "token.", "pay."}, kinds...)).Draw(r, "type"),
			Resource: rapid.SampledFrom([]string{"", "", "pay_3", "pay_22", "pay_"}).Draw(r, "resource"), Card: rapid.SampledFrom(cards).Draw(r, "card"),
			Outcome: rapid.SampledFrom([]string{"", ledger.Success, ledger.Failure}).Draw(r, "outcome"), Actor: rapid.SampledFrom([]string{"", "system", "key:x"}).Draw(r, "actor"),
			OldestFirst: rapid.Bool().Draw(r, "oldest first"), Limit: rapid.SampledFrom([]int{7, 40, 100}).Draw(r, "limit"), To: begin.Add(time.Hour)}
		if rapid.Bool().Draw(r, "from") {
			q.From = begin.Add(time.Duration(rapid.IntRange(-10, 410).Draw(r, "second")) * time.Second)
		}
		var want, got []int64
		for i, e := range all {
			at, _ := time.Parse(time.RFC3339Nano, e.Time)
			if (matcher{q}).fits(entry{Entry: e, at: at}) {
				want = append(want, int64(i))
			}
		}
		if !q.OldestFirst {
			slices.Reverse(want)
		}
		for pages := 0; ; pages++ {
			list, err := b.Search(t.Context(), someone, q)
			if err != nil || len(list.Entries) > q.Limit || pages > 1000 {
				r.Fatalf("%d entries: %v", len(list.Entries), err)
			}
			for _, e := range list.Entries {
				got = append(got, e.Index)
			}
			if q.Cursor = list.NextCursor; q.Cursor == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			r.Fatalf("%d entries, and not %d: %v", len(got), len(want), got[:min(len(got), 50)])
		}
	})
}

func TestEveryLookIsAnEntry(t *testing.T) {
	b := newBench(t)
	b.enter(payment("payment.captured", "pay_1", ledger.Success, "411111******1111"))
	q := api.AuditQuery{Type: "payment.", Resource: "pay_1", Card: "411111******1111", Actor: "system", Outcome: ledger.Success, From: begin, Limit: 5}
	if list, err := b.Search(t.Context(), someone, q); err != nil || len(list.Entries) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	e := b.last()
	want := `{"asked":{"actor":"system","card":"411111******1111","from":"2030-01-02T03:04:05Z","outcome":"success","resource":"pay_1","type":"payment."},"entries":1,"from":0,"to":0,"what":"search"}`
	if text, _ := json.Marshal(e.Data); e.Type != "audit.viewed" || e.Actor != "aud_1" || e.Origin != "192.0.2.1" || string(text) != want {
		t.Errorf("%+v: %s", e, text)
	}
	// What the log does not know may be anything.
	q = api.AuditQuery{Resource: "Ada Lovelace", Actor: "ada.lovelace", Type: "ada.lovelace", Limit: 5}
	if _, err := b.Search(t.Context(), someone, q); err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(b.last()); strings.Contains(strings.ToLower(string(text)), "lovelace") || !strings.Contains(string(text), unheard) {
		t.Errorf("the log now has a name: %s", text)
	}
	if _, err := b.Entry(t.Context(), someone, 0); err != nil || b.last().Resource != "entry:0" {
		t.Errorf("%v %+v", err, b.last())
	}
	if _, err := b.State(t.Context(), someone); err != nil || b.last().Resource != "log" {
		t.Errorf("%v %+v", err, b.last())
	}
	if err := b.Export(t.Context(), someone, api.AuditExport{Format: "ocsf"}, &bytes.Buffer{}); err != nil || b.last().Type != "audit.exported" {
		t.Errorf("%v %+v", err, b.last())
	}
}

func TestReadingTilesIsAnEntryAMinute(t *testing.T) {
	b := newBench(t)
	for range 100 {
		for _, who := range []api.Viewer{someone, {Actor: "key:a", Origin: "192.0.2.2"}} {
			if err := b.Tiles(t.Context(), who); err != nil {
				t.Fatal(err)
			}
		}
		b.pass(time.Second)
	}
	if n := len(b.log()); n != 4 {
		t.Errorf("%d entries in 100 seconds by two readers", n)
	}
}

func TestNothingIsShownWhereTheLookCannotBeEntered(t *testing.T) {
	b := newBench(t)
	b.enter(payment("payment.captured", "pay_1", ledger.Success, ""))
	b.cfg.Ledger.Close()
	var out bytes.Buffer
	list, err := b.Search(t.Context(), someone, api.AuditQuery{Limit: 5})
	_, entryErr := b.Entry(t.Context(), someone, 0)
	for name, err := range map[string]error{"search": err, "entry": entryErr, "export": b.Export(t.Context(), someone, api.AuditExport{Format: "syslog"}, &out), "tiles": b.Tiles(t.Context(), someone)} {
		if !errors.Is(err, pci.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_ = list // handlers answer with the error alone
	if out.Len() > 0 {
		t.Errorf("%d bytes were exported", out.Len())
	}
}

func TestAnEntryComesWithAProofThatHolds(t *testing.T) {
	b := newBench(t)
	for i := range 300 {
		b.enter(payment("payment.created", fmt.Sprint("pay_", i), ledger.Success, ""))
	}
	for _, index := range []int64{0, 7, 255, 256, 299} {
		e, err := b.Entry(t.Context(), someone, index)
		if err != nil {
			t.Fatal(err)
		}
		if err := logproof.Verify(index, []byte(e.Entry), []byte(e.Proof), b.cfg.Ledger.Origin(), b.cfg.Ledger.VerifierKey()); err != nil {
			t.Errorf("entry %d: %v", index, err)
		}
	}
	size := int64(len(b.log()))
	if _, err := b.Entry(t.Context(), someone, size); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("entry %d: %v", size, err)
	}
}

func TestAnExportHasEachEntryOfItsTimeOnce(t *testing.T) {
	b := newBench(t)
	for i := range 600 {
		b.enter(payment("payment.created", fmt.Sprint("pay_", i), ledger.Success, ""))
	}
	for _, format := range []string{"ocsf", "syslog"} {
		var out bytes.Buffer
		q := api.AuditExport{Format: format, From: begin.Add(101 * time.Second), To: begin.Add(501 * time.Second)}
		if err := b.Export(t.Context(), someone, q, &out); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 400 || !strings.Contains(lines[0], "pay_100") || !strings.Contains(lines[399], "pay_499") {
			t.Errorf("%s: %d lines, from %s", format, len(lines), lines[0])
		}
	}
}

func TestAnIndexOfAnotherLogIsMadeAgain(t *testing.T) {
	old, b := newBench(t), newBench(t)
	for i := range 5 {
		old.enter(payment("payment.old", fmt.Sprint("pay_old", i), ledger.Success, ""))
	}
	if _, err := old.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.cfg.Index = old.cfg.Index
	b.enter(payment("payment.created", "pay_1", ledger.Success, ""))
	for kind, want := range map[string]int{"payment.old": 0, "payment.created": 1} {
		if list, err := b.Search(t.Context(), someone, api.AuditQuery{Type: kind, Limit: 9}); err != nil || len(list.Entries) != want {
			t.Errorf("%s: %v %v", kind, list, err)
		}
	}
}

func TestAnEntryThatDoesNotMatchItsLeafIsNotShown(t *testing.T) {
	row := store.LedgerEntry{Index: 3, Leaf: make([]byte, 32), Entry: []byte(`{"time":"2030-01-02T03:04:05Z"}`)}
	if _, err := checked(row); !errors.Is(err, ledger.ErrDamaged) {
		t.Error(err)
	}
}

func TestALinkOpensOnceInItsTime(t *testing.T) {
	b := newBench(t)
	by := ledger.Operator{Origin: "uid:0"}
	link := func() (string, store.AuditorGrant) {
		secret, g, err := b.Link(t.Context(), by, " Ada Lovelace ", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return secret, g
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, api.ErrUnauthorized) || len(b.refused) != 1 || b.refused[0] != "audit" {
			t.Errorf("%s: %v, recorded %v", what, err, b.refused)
		}
		b.refused = nil
	}
	open := func(secret string) (string, error) {
		session, _, err := b.Open(t.Context(), secret, "192.0.2.9")
		return session, err
	}
	secret, granted := link()
	session, err := open(secret)
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Session(t.Context(), session, "192.0.2.9")
	if err != nil || p.Actor != granted.AuditorID || p.Name != "Ada Lovelace" || !p.Until.Equal(begin.Add(time.Hour)) {
		t.Errorf("%+v %v", p, err)
	}
	_, err = open(secret)
	refused("a second time", err)
	_, err = open("guessed")
	refused("a guess", err)
	_, err = b.Session(t.Context(), secret, "")
	refused("the link's secret as a session", err)
	_, err = b.Session(t.Context(), "", "")
	refused("no session", err)
	late, again := link()
	if again.AuditorID != granted.AuditorID {
		t.Errorf("one person is %s and %s", granted.AuditorID, again.AuditorID)
	}
	b.pass(time.Hour)
	_, err = open(late)
	refused("too late", err)
	_, err = b.Session(t.Context(), session, "")
	refused("a session that is over", err)

	secret, _ = link()
	if session, err = open(secret); err != nil {
		t.Fatal(err)
	}
	if err := b.Leave(t.Context(), session, "192.0.2.9"); err != nil || b.last().Type != "auditor.left" {
		t.Errorf("%v %+v", err, b.last())
	}
	_, err = b.Session(t.Context(), session, "")
	refused("a session that was left", err)
	secret, _ = link()
	unopened, _ := link()
	if session, err = open(secret); err != nil {
		t.Fatal(err)
	}
	if err := b.End(t.Context(), by, granted.AuditorID, true); err != nil {
		t.Fatal(err)
	}
	_, err = b.Session(t.Context(), session, "")
	refused("a session that was ended", err)
	_, err = open(unopened)
	refused("a link that was ended", err)
	b.holdsNo("Ada Lovelace", secret, session)
}

// holdsNo checks that the log has no text, and that the database has none either.
func (b *bench) holdsNo(texts ...string) {
	b.t.Helper()
	list, err := b.List(b.t.Context())
	if err != nil || len(list) == 0 || list[0].Name != "" {
		b.t.Errorf("%+v %v", list, err)
	}
	files, err := filepath.Glob(filepath.Join(b.dir, "*.db*"))
	if err != nil || len(files) == 0 {
		b.t.Fatal(files, err)
	}
	all, err := json.Marshal(b.log())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, text := range texts {
		if bytes.Contains(all, []byte(text)) {
			b.t.Errorf("the log has %q", text)
		}
		if strings.Contains(text, " ") {
			continue // a name is deleted from its table; the write-ahead log has it until it is overwritten
		}
		for _, file := range files {
			if content, err := os.ReadFile(file); err != nil || bytes.Contains(content, []byte(text)) {
				b.t.Errorf("%s has a secret (%v)", file, err)
			}
		}
	}
}

// Who writes a grant into the database by hand is found out.
func TestGrantsAreCoveredByEntries(t *testing.T) {
	b := newBench(t)
	secret, g, err := b.Link(t.Context(), ledger.Operator{Origin: "uid:0"}, "Ada Lovelace", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Open(t.Context(), secret, "192.0.2.9"); err != nil {
		t.Fatal(err)
	}
	check := func() audit.Rows {
		found, err := audit.Check(t.Context(), b.cfg.Store, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := check(); found.Wrong != 0 || found.Rows != 1 {
		t.Errorf("%+v", found)
	}
	db, err := sql.Open("sqlite3", filepath.Join(b.dir, store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), "UPDATE auditor_grants SET expires_at = '2040-01-01T00:00:00.000000000Z'"); err != nil {
		t.Fatal(err)
	}
	if found := check(); found.Wrong != 1 || found.Findings[0].Row != "auditor_grants/"+g.ID {
		t.Errorf("%+v", found)
	}
}

// However many open a link at the same moment, one gets in.
func TestALinkOpensForOneOfMany(t *testing.T) {
	b := newBench(t)
	secret, _, err := b.Link(t.Context(), ledger.Operator{Origin: "uid:0"}, "Ada Lovelace", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b.cfg.Logins = refusals{}
	opened := make(chan error, 20)
	for range cap(opened) {
		go func() {
			_, _, err := b.Open(t.Context(), secret, "192.0.2.9")
			opened <- err
		}()
	}
	good := 0
	for range cap(opened) {
		if err := <-opened; err == nil {
			good++
		} else if !errors.Is(err, api.ErrUnauthorized) {
			t.Error(err)
		}
	}
	if good != 1 {
		t.Errorf("%d opened it", good)
	}
}

type refusals struct{}

func (refusals) Refused(context.Context, string, string) error { return api.ErrUnauthorized }

func TestARegisteredCertificateIsKnownByItsKey(t *testing.T) {
	b := newBench(t)
	c := &x509.Certificate{RawSubjectPublicKeyInfo: []byte("her key"), NotBefore: begin.Add(-time.Hour), NotAfter: begin.Add(24 * time.Hour)}
	if _, err := b.Certified(t.Context(), c, ""); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("before it was registered: %v", err)
	}
	g, err := b.Certificate(t.Context(), ledger.Operator{Origin: "uid:0"}, "Ada Lovelace", c, 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := b.Certified(t.Context(), c, "192.0.2.1"); err != nil || p.Actor != g.AuditorID || p.Name != "Ada Lovelace" {
		t.Errorf("%+v %v", p, err)
	}
	if _, err := b.Certificate(t.Context(), ledger.Operator{Origin: "uid:0"}, "Another", c, time.Hour); err == nil {
		t.Error("one key is two people's")
	}
	other := *c
	other.RawSubjectPublicKeyInfo = []byte("another key")
	if _, err := b.Certified(t.Context(), &other, ""); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("another key: %v", err)
	}
	b.pass(25 * time.Hour)
	if _, err := b.Certified(t.Context(), c, ""); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("a certificate that has run out: %v", err)
	}
}

func TestGrantsAreForNamedPeopleAndForSomeTime(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name string
		d    time.Duration
	}{
		{"", time.Hour}, {"   ", time.Hour}, {"a\nb", time.Hour}, {strings.Repeat("x", 101), time.Hour}, {"4111111111111111", time.Hour},
		{"Ada", 0}, {"Ada", -time.Hour}, {"Ada", time.Second}, {"Ada", MaxLink + 1},
	} {
		if _, _, err := b.Link(t.Context(), ledger.Operator{Origin: "uid:0"}, c.name, c.d); err == nil {
			t.Errorf("%q for %s", c.name, c.d)
		}
	}
	if err := b.End(t.Context(), ledger.Operator{Origin: "uid:0"}, "aud_none", false); err == nil {
		t.Error("nobody was ended")
	}
	if n := len(b.log()); n != 0 {
		t.Errorf("%d entries", n)
	}
}
