package webhook

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"go.uber.org/goleak"

	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/merchant"
	"github.com/finterra/finpay/appliance/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	origin    = "finpay.test/node/2026"
	shop      = "mer_1"
	hook      = "whe_1"
	pathToken = "token-in-the-path" // many endpoints are guarded by nothing but their address
	patience  = 20 * time.Second
)

// bench is a sender with a database, a log and a clock.
type bench struct {
	t         *testing.T
	dir       string
	key       *signer
	now       atomic.Int64 // Unix nanoseconds
	log       strings.Builder
	logMu     sync.Mutex
	store     *store.Store
	ledger    *ledger.Ledger
	merchants *merchant.Service
	register  *Register
	sender    *Sender
	cfg       Config
}

type signer struct {
	*ecdsa.PrivateKey
	away atomic.Bool
}

func (s *signer) Sign(_ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if s.away.Load() {
		return nil, errors.New("the HSM is away")
	}
	return s.PrivateKey.Sign(rand.Reader, digest, o)
}

// newBench makes a merchant with an endpoint at url, or with none.
func newBench(t *testing.T, url string, change func(*Config)) *bench {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: t.TempDir(), key: &signer{PrivateKey: private}, cfg: Config{AllowPrivate: true, Timeout: 10 * time.Second}}
	if change != nil {
		change(&b.cfg)
	}
	b.now.Store(time.Now().UnixNano()) // signatures are checked against the real clock
	b.open()
	t.Cleanup(b.close)
	if _, err := b.merchants.Enter(t.Context(), ledger.Operator{Origin: "local"}, store.Merchant{ID: shop}); err != nil {
		t.Fatal(err)
	}
	if url != "" {
		b.put(store.Endpoint{ID: hook, URL: url})
	}
	return b
}

// put writes an endpoint, whatever its address is like.
func (b *bench) put(e store.Endpoint) {
	b.t.Helper()
	e.MerchantID, e.Status, e.CreatedAt, e.UpdatedAt = shop, store.EndpointEnabled, b.clock(), b.clock()
	var err error
	if _, e.Secret, err = b.merchants.NewWebhookSecret(e); err != nil {
		b.t.Fatal(err)
	}
	b.commit(func(tx *ledger.Tx) error {
		defer tx.Record(ledger.Entry{Type: "webhook_endpoint.created", Resource: e.ID})
		return tx.PutEndpoint(e)
	})
}

func (b *bench) commit(f func(tx *ledger.Tx) error) {
	b.t.Helper()
	if _, err := b.ledger.Commit(b.t.Context(), f); err != nil {
		b.t.Fatal(err)
	}
}

// verifier checks what is signed under the secret that an endpoint has now.
func (b *bench) verifier(id string) *standardwebhooks.Webhook {
	b.t.Helper()
	e, err := b.store.Read(b.t.Context()).Endpoint(id)
	if err != nil {
		b.t.Fatal(err)
	}
	secrets, err := b.merchants.WebhookSecrets(e, b.clock())
	if err != nil {
		b.t.Fatal(err)
	}
	return verifierOf(b.t, secrets[0])
}

func verifierOf(t *testing.T, secret string) *standardwebhooks.Webhook {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	return verifier
}

func (b *bench) clock() time.Time { return time.Unix(0, b.now.Load()) }

func (b *bench) advance(d time.Duration) { b.now.Add(int64(d)) }

func (b *bench) open() {
	b.t.Helper()
	var err error
	if b.store, err = store.Open(context.Background(), b.dir); err != nil {
		b.t.Fatal(err)
	}
	if b.ledger, err = ledger.Open(context.Background(), b.store, ledger.Config{Origin: origin, Node: "node", Signer: b.key}); err != nil {
		b.t.Fatal(err)
	}
	kek, err := subtle.NewAESGCM(make([]byte, 32))
	if err != nil {
		b.t.Fatal(err)
	}
	b.merchants = merchant.New(merchant.Config{Store: b.store, Ledger: b.ledger, KEK: kek, Return: mac{}})
	cfg := b.cfg
	cfg.Store, cfg.Ledger, cfg.Secrets, cfg.Now, cfg.Log = b.store, b.ledger, b.merchants, b.clock, slog.New(slog.NewTextHandler(b, nil))
	b.sender = New(cfg)
	b.register = NewRegister(RegisterConfig{Store: b.store, Ledger: b.ledger, Merchants: b.merchants, AllowPrivate: cfg.AllowPrivate,
		Wake: b.sender.Wake, Now: b.clock})
}

// mac stands for a key of the HSM.
type mac struct{}

func (mac) Sum(_ context.Context, message []byte) ([]byte, error) {
	h := hmac.New(sha256.New, []byte("return"))
	_, _ = h.Write(message)
	return h.Sum(nil), nil
}

func (b *bench) close() {
	b.sender.client.CloseIdleConnections()
	b.ledger.Close()
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
}

// Write takes the log.
func (b *bench) Write(line []byte) (int, error) {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	return b.log.Write(line)
}

func (b *bench) logged() string {
	b.logMu.Lock()
	defer b.logMu.Unlock()
	return b.log.String()
}

// happen puts an event into the outbox, as a payment would.
func (b *bench) happen(id string) {
	b.t.Helper()
	b.commit(func(tx *ledger.Tx) error { return happen(tx, shop, id, "payment.captured", b.clock()) })
}

func happen(tx *ledger.Tx, merchant, id, kind string, at time.Time) error {
	defer tx.Record(ledger.Entry{Type: kind, Actor: "system", Origin: "local", Outcome: ledger.Success, Resource: "pay_1"})
	return tx.PutEvent(store.Event{ID: id, MerchantID: merchant, PaymentID: "pay_1", Type: kind, CreatedAt: at,
		Body: []byte(`{"type":"` + kind + `","timestamp":"2030-01-02T03:04:05Z","data":{"id":"pay_1"}}`)})
}

// deliver tries all that is due, and returns how long to wait for the next.
func (b *bench) deliver() time.Duration {
	b.t.Helper()
	for {
		next, err := b.sender.begin(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
		b.sender.tries.Wait()
		select {
		case <-b.sender.wake: // a try has ended: another one may have its room
		default:
			return next
		}
	}
}

// lastTry is a row of delivery_tries.
type lastTry struct {
	n, code int
	text    string
}

func (b *bench) read(query string, args []any, into ...any) (rows int) {
	b.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(b.dir, store.FileName)+"?mode=ro")
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	found, err := db.QueryContext(b.t.Context(), query, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = found.Close() }()
	for ; found.Next(); rows++ {
		if err := found.Scan(into...); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := found.Err(); err != nil {
		b.t.Fatal(err)
	}
	return rows
}

// last returns where an event stands at an endpoint, and its last try.
func (b *bench) last(id, endpoint string) (status string, last lastTry) {
	b.t.Helper()
	if b.read("SELECT status, tries FROM deliveries WHERE event_id = ? AND endpoint_id = ?", []any{id, endpoint}, &status, &last.n) != 1 {
		b.t.Fatalf("no event %s for %s", id, endpoint)
	}
	if n := b.read("SELECT code, error FROM delivery_tries WHERE event_id = ? AND endpoint_id = ? ORDER BY n", []any{id, endpoint}, &last.code, &last.text); n != last.n {
		b.t.Errorf("%d tries are counted, %d are kept", last.n, n)
	}
	return status, last
}

// want is about the endpoint that a bench begins with.
func (b *bench) want(id, status string, tries, code int, text string) {
	b.t.Helper()
	b.wantAt(id, hook, status, tries, code, text)
}

func (b *bench) wantAt(id, endpoint, status string, tries, code int, text string) {
	b.t.Helper()
	if got, last := b.last(id, endpoint); got != status || last.n != tries || last.code != code || !strings.Contains(last.text, text) {
		b.t.Errorf("%s at %s is %s after try %d (%d, %q), want %s after %d (%d, %q)", id, endpoint, got, last.n, last.code, last.text, status, tries, code, text)
	}
}

// entered counts entries of a type.
func (b *bench) entered(kind string) int {
	b.t.Helper()
	var n int
	b.read("SELECT count(*) FROM ledger_entries WHERE entry ->> '$.type' = ?", []any{kind}, &n)
	return n
}

// endpoint is a merchant's, with a certificate of its own.
func endpoint(t *testing.T, h http.HandlerFunc) (*httptest.Server, func(*Config)) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return server, func(c *Config) { c.Roots = roots }
}

func TestAnEventArrivesSigned(t *testing.T) {
	type arrival struct {
		header http.Header
		body   []byte
	}
	arrived := make(chan arrival, 1)
	server, trust := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		arrived <- arrival{r.Header, body}
		w.WriteHeader(http.StatusAccepted)
	})
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	if next := b.deliver(); next != idleRecheck {
		t.Errorf("with nothing left, the next look is in %v", next)
	}
	got := <-arrived
	verifier := b.verifier(hook)
	if err := verifier.Verify(got.body, got.header); err != nil {
		t.Errorf("the signature: %v", err)
	}
	if err := verifier.Verify(append(got.body, ' '), got.header); err == nil {
		t.Error("another body has the same signature")
	}
	if got.header.Get("webhook-id") != "evt_1" || got.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(string(got.body), `{"sequence":1,"type":"payment.captured",`) {
		t.Errorf("%v %s", got.header, got.body)
	}
	b.want("evt_1", store.DeliveryDelivered, 1, http.StatusAccepted, "")
	if n := b.entered("webhook.delivered"); n != 1 {
		t.Errorf("%d entries", n)
	}
	b.advance(100 * time.Hour)
	b.deliver()
	b.want("evt_1", store.DeliveryDelivered, 1, http.StatusAccepted, "")
}

func TestRetriesFollowTheSchedule(t *testing.T) {
	server, trust := endpoint(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	waits := []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}
	for i, wait := range waits {
		b.deliver()
		b.want("evt_1", store.DeliveryPending, i+1, 500, "answered 500")
		d, err := b.store.Read(t.Context()).Delivery("evt_1", hook)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.NextAt.Sub(b.clock()); got < wait || got > wait+wait/10 {
			t.Errorf("after try %d the next is in %v, want %v and at most a tenth more", i+1, got, wait)
		}
		b.advance(wait - time.Millisecond)
		b.deliver()
		b.want("evt_1", store.DeliveryPending, i+1, 500, "") // not before its time
		b.advance(wait/10 + 2*time.Millisecond)
	}
	b.deliver()
	b.want("evt_1", store.DeliveryFailed, 10, 500, "answered 500")
	if n := b.entered("webhook.failed"); n != 1 {
		t.Errorf("%d entries", n)
	}
	b.advance(1000 * time.Hour)
	b.deliver()
	b.want("evt_1", store.DeliveryFailed, 10, 500, "")
}

func TestAnEndpointThatIsGoneIsSwitchedOff(t *testing.T) {
	var calls atomic.Int64
	server, trust := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusGone)
	})
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	b.deliver()
	b.want("evt_1", store.DeliveryFailed, 1, http.StatusGone, "answered 410")
	b.happen("evt_2") // is not for it any more
	b.deliver()
	if n := b.read("SELECT event_id FROM deliveries WHERE event_id = 'evt_2'", nil, new(string)); n > 0 {
		t.Error("what happened since is to be delivered")
	}
	if e, err := b.register.Endpoint(t.Context(), caller, hook); err != nil || e.Enabled || e.DisabledReason != "gone" {
		t.Errorf("%+v, %v", e, err)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the endpoint was called %d times", n)
	}
	if n := b.entered("webhook.switched_off"); n != 1 {
		t.Errorf("%d entries tell of it", n)
	}
}

func TestARedirectIsAFailureAndNotFollowed(t *testing.T) {
	var calls atomic.Int64
	server, trust := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	b.deliver()
	b.want("evt_1", store.DeliveryPending, 1, http.StatusTemporaryRedirect, "answered 307")
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls", n)
	}
}

func TestAnEndpointThatHangsCostsItsTimeOnly(t *testing.T) {
	release := make(chan struct{})
	server, trust := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	for path, test := range map[string]struct {
		timeout time.Duration
		want    string
	}{"/": {200 * time.Millisecond, store.DeliveryPending}, "/body": {2 * time.Second, store.DeliveryDelivered}} { // 200 was said: it has taken it
		b := newBench(t, server.URL+path, func(c *Config) { trust(c); c.Timeout = test.timeout })
		b.happen("evt_1")
		began := time.Now()
		b.deliver()
		if took := time.Since(began); took > patience {
			t.Errorf("%s took %v", path, took)
		}
		if status, _ := b.last("evt_1", hook); status != test.want {
			t.Errorf("%s: %s, want %s", path, status, test.want)
		}
	}
}

func TestAnEndpointThatAnswersAGigabyteIsNotReadToItsEnd(t *testing.T) {
	var sent atomic.Int64
	server, trust := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for range 1 << 10 {
			n, err := w.Write(chunk)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	b.deliver()
	b.want("evt_1", store.DeliveryDelivered, 1, http.StatusOK, "")
	server.Close() // waits for the handler
	if n := sent.Load(); n > 64<<20 {
		t.Errorf("%d bytes were sent", n)
	}
}

func TestNothingSecretIsKeptOfAFailure(t *testing.T) {
	secretInAnswer := "sk_live_from_the_endpoint"
	raw := func(answer string) string { // a server that speaks plain TCP
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		t.Cleanup(func() {
			_ = listener.Close()
			<-done
		})
		go func() {
			defer close(done)
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 64<<10))
				_, _ = io.WriteString(conn, answer)
				_ = conn.Close()
			}
		}()
		return listener.Addr().String()
	}
	trusted, trust := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "https://"+secretInAnswer+":x@%zz/")
		w.WriteHeader(http.StatusFound)
	})
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = refused.Close()
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	for name, test := range map[string]struct {
		address string
		trust   func(*Config)
		code    int
		text    string
	}{
		"a redirect to nowhere":    {trusted.URL, trust, 0, "did not answer as HTTP wants it"},
		"an unknown certificate":   {untrusted.URL, nil, 0, "is not trusted"},
		"no TLS":                   {"https://" + raw("HTTP/1.1 400 "+secretInAnswer+"\r\n\r\n"), nil, 0, "webhook: "},
		"no HTTP":                  {"http://" + raw(secretInAnswer+strings.Repeat("x", 30_000)+"\r\n\r\n"), nil, 0, "did not answer as HTTP wants it"},
		"a header without an end":  {"http://" + raw("HTTP/1.1 200 OK\r\nX: "+secretInAnswer+strings.Repeat("x", 10<<20)), nil, 0, "did not answer as HTTP wants it"},
		"nobody listens":           {"https://" + refused.Addr().String(), nil, 0, "connection refused"},
		"a name that is none":      {"https://nobody.invalid", nil, 0, "cannot be resolved"},
		"an address that is none":  {"https://%zz", nil, 0, "address is not usable"},
		"private, and not allowed": {trusted.URL, func(c *Config) { trust(c); c.AllowPrivate = false }, 0, "address is private"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, strings.Replace(test.address, "://", "://user:"+pathToken+"@", 1)+"/hook/"+pathToken+"?key="+pathToken, test.trust)
			b.happen("evt_1")
			b.deliver()
			b.want("evt_1", store.DeliveryPending, 1, test.code, test.text)
			_, last := b.last("evt_1", hook)
			for _, text := range []string{last.text, b.logged()} {
				for _, secret := range []string{pathToken, secretInAnswer, "whsec_"} {
					if strings.Contains(text, secret) {
						t.Errorf("%q holds %q", text, secret)
					}
				}
			}
			if len(last.text) > 200 {
				t.Errorf("%d bytes are kept", len(last.text))
			}
		})
	}
}

func TestPrivateAddressesAreRefusedWhenConnecting(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1:443", "127.8.9.1:443", "[::1]:443", "[::ffff:127.0.0.1]:443", "[::ffff:10.0.0.1]:443", "10.1.2.3:443", "172.16.0.1:443",
		"172.31.255.255:443", "192.168.1.1:443", "169.254.169.254:80", "[fe80::1%eth0]:443", "[fd00:ec2::254]:80", "100.64.0.1:443",
		"100.127.255.255:443", "0.0.0.0:443", "0.1.2.3:443", "[::]:443", "224.0.0.1:443", "255.255.255.255:443", "240.0.0.1:443", "198.18.0.1:443", "100.100.100.200:80", "192.0.2.1:443", "198.51.100.7:443", "203.0.113.9:443", "192.88.99.1:443",
		"192.0.0.8:443", "[64:ff9b::7f00:1]:443", "[2002:7f00:1::]:443", "[::127.0.0.1]:443", "[fec0::1]:443", "[ff02::1]:443", "[::ffff:169.254.169.254]:80", "[::ffff:100.64.0.1]:443", "[2001:0:7f00:1::]:443", "[2001:db8::1]:443", "[100::1]:443", "[3fff::1]:443",
	} {
		if err := refusePrivate("tcp", address, nil); !errors.Is(err, ErrPrivate) {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"", "localhost:443", "127.0.0.1"} {
		if err := refusePrivate("tcp", address, nil); err == nil {
			t.Errorf("%q is taken", address)
		}
	}
	for _, address := range []string{"1.1.1.1:443", "172.32.0.1:443", "100.128.0.1:443", "192.0.1.1:443", "[2606:4700:4700::1111]:443", "[::ffff:1.1.1.1]:443"} {
		if err := refusePrivate("tcp", address, nil); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestANameThatResolvesToLoopbackIsRefused(t *testing.T) {
	var calls atomic.Int64
	server, trust := endpoint(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1", "[::ffff:127.0.0.1]"} {
		b := newBench(t, "https://"+host+":"+port, func(c *Config) { trust(c); c.AllowPrivate = false })
		b.happen("evt_1")
		b.deliver()
		b.want("evt_1", store.DeliveryPending, 1, 0, "address is private")
	}
	if n := calls.Load(); n > 0 {
		t.Errorf("%d calls", n)
	}
}

func TestARestartLosesNothing(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	var mu sync.Mutex
	arrived := make(map[string]int)
	server, trust := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		arrived[r.Header.Get("webhook-id")]++
	})
	b := newBench(t, server.URL, trust)
	for i := range 100 { // more than one batch
		b.happen(fmt.Sprintf("evt_%03d", i))
	}
	b.deliver()
	b.close()
	b.open()
	down.Store(false)
	b.happen("evt_new")
	b.advance(6 * time.Second)

	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.sender.Run(ctx)
	}()
	deadline := time.After(patience)
	for n := 0; n < 101; {
		select {
		case <-deadline:
			t.Fatalf("%d events have arrived", n)
		case <-time.After(5 * time.Millisecond):
		}
		b.read("SELECT count(*) FROM deliveries WHERE status = 'delivered'", nil, &n)
	}
	b.happen("evt_last")
	b.sender.Wake()
	for status := ""; status != store.DeliveryDelivered; {
		select {
		case <-deadline:
			t.Fatal("an event that came later has not arrived")
		case <-time.After(5 * time.Millisecond):
		}
		b.read("SELECT status FROM deliveries WHERE event_id = 'evt_last'", nil, &status)
	}
	stop()
	<-stopped
	mu.Lock()
	defer mu.Unlock()
	if len(arrived) != 102 {
		t.Errorf("%d events have arrived", len(arrived))
	}
}

func TestADeliveryThatCannotBeEnteredIsMadeAgain(t *testing.T) {
	var calls atomic.Int64
	server, trust := endpoint(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	b.key.away.Store(true)
	if _, err := b.sender.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.sender.tries.Wait()
	if next, err := b.sender.begin(t.Context()); err == nil || next != time.Second {
		t.Errorf("next in %v, %v", next, err)
	}
	var status string
	b.read("SELECT status FROM deliveries", nil, &status)
	if status != store.DeliveryPending {
		t.Errorf("%s", status)
	}
	b.key.away.Store(false)
	b.deliver()
	b.want("evt_1", store.DeliveryDelivered, 1, http.StatusOK, "")
	if n := calls.Load(); n != 2 { // at least once
		t.Errorf("%d calls", n)
	}
}

func TestStoppingWaitsForTriesUnderWay(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	server, trust := endpoint(t, func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-release
	})
	b := newBench(t, server.URL, trust)
	b.happen("evt_1")
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.sender.Run(ctx)
	}()
	<-begun
	stop()
	close(release)
	<-stopped
	b.want("evt_1", store.DeliveryDelivered, 1, http.StatusOK, "")
}
