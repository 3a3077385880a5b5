package softhsmtest_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/client"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

const visaCard = "4111111111111111"

// luhnNumber returns the n-th PAN of a series of 16 digits that begins with prefix.
func luhnNumber(prefix string, n int) string {
	text := fmt.Appendf(nil, "%s%0*d0", prefix, 15-len(prefix), n)
	text[15] = byte('0' + (10-luhnSum(text))%10)
	return string(text)
}

// luhnSum is 0 for a PAN, of 16 digits.
func luhnSum(digits []byte) (sum int) {
	for i, c := range digits {
		d := int(c - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum % 10
}

func aCard(number string) string {
	return `{"number":"` + number + `","expiry":"2031-12"}`
}

// tokens returns a client of the appliance with its own key.
func (s *system) tokens(change func(*client.Config)) *client.Client {
	s.t.Helper()
	roots := x509.NewCertPool()
	text, err := os.ReadFile(s.cfg.TLS.Certificate)
	if err != nil || !roots.AppendCertsFromPEM(text) {
		s.t.Fatalf("%s: %v", s.cfg.TLS.Certificate, err)
	}
	cfg := client.Config{URL: s.cfg.PublicURL, Key: s.apiKey, Roots: roots}
	if change != nil {
		change(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// runBatch sends numbers as a batch and returns what became of them.
func runBatch(t *testing.T, c *client.Client, numbers []string) []client.Result {
	t.Helper()
	b, err := c.Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer b.CloseSend()
		for _, number := range numbers {
			if err := b.Send(client.Card{Number: number, Expiry: "2031-12"}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var results []client.Result
	for {
		r, err := b.Receive()
		if errors.Is(err, io.EOF) {
			return results
		}
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
}

func TestACardHasOneTokenHoweverItComes(t *testing.T) {
	s := newSystem(t)
	sealed, open := s.tokens(nil), s.tokens(func(cfg *client.Config) { cfg.Open = true })
	card := client.Card{Number: visaCard, Expiry: "2031-12"}
	first, err := sealed.Tokenize(t.Context(), card)
	if err != nil {
		t.Fatal(err)
	}
	if first.Domain != "first" || first.Format != pci.TokenLast4 || first.Status != api.TokenActive || first.Card != (api.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: "2031-12"}) ||
		len(first.Token) != 16 || first.Token[0] != '9' || first.Token[12:] != "1111" {
		t.Errorf("%+v", first)
	}
	again, err := open.Tokenize(t.Context(), card)
	if err != nil || again.Token != first.Token || !again.CreatedAt.Equal(first.CreatedAt) {
		t.Errorf("sent open: %+v, %v", again, err)
	}
	// The second card is new to the first batch alone.
	for _, sent := range []struct {
		name   string
		by     *client.Client
		issued bool
	}{{"sealed", sealed, true}, {"open", open, false}} {
		got := runBatch(t, sent.by, []string{visaCard, "5555555555554444", visaCard})
		if got[0].Token != first.Token || got[0].Issued || got[2].Token != first.Token || got[2].Issued || got[1].Token == "" || got[1].Issued != sent.issued {
			t.Errorf("%s batch: %+v", sent.name, got)
		}
	}
	// A payment with the same card has the same token.
	id, link := s.buy()
	if _, _, err := s.shop.Pay(t.Context(), link, typed(visaCard)); err != nil {
		t.Fatal(err)
	}
	if p := s.payment(id); p.Token != first.Token {
		t.Errorf("the payment's token is %s, want %s", p.Token, first.Token)
	}
	newer, err := sealed.Tokenize(t.Context(), client.Card{Number: visaCard, Expiry: "2035-01"})
	if err != nil || newer.Token != first.Token || newer.Card.Expiry != "2035-01" {
		t.Errorf("a renewed card: %+v, %v", newer, err)
	}
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

func TestTokensAreShownListedAndEnded(t *testing.T) {
	s := newSystem(t)
	c := s.tokens(nil)
	var all []string
	for i := range 5 {
		token, err := c.Tokenize(t.Context(), client.Card{Number: luhnNumber("520082", i), Expiry: "2031-12"})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(token.Token))
	}
	slices.Sort(all)
	var listed []string
	for cursor := ""; ; {
		status, body := s.call("GET", "/v1/tokens?limit=2"+cursor, "")
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		page := decode[api.TokenList](t, body)
		for _, token := range page.Tokens {
			listed = append(listed, string(token.Token))
		}
		if page.NextCursor == "" {
			break
		}
		cursor = "&cursor=" + page.NextCursor
	}
	if !slices.Equal(listed, all) {
		t.Errorf("listed %v, want %v", listed, all)
	}
	token := pci.Token(all[0])
	for range 2 {
		if ended, err := c.Deactivate(t.Context(), token); err != nil || ended.Status != api.TokenInactive {
			t.Errorf("%+v, %v", ended, err)
		}
	}
	if shown, err := c.Token(t.Context(), token); err != nil || shown.Status != api.TokenInactive {
		t.Errorf("%+v, %v", shown, err)
	}
	for i := range 5 { // its card makes it active again
		if _, err := c.Tokenize(t.Context(), client.Card{Number: luhnNumber("520082", i), Expiry: "2031-12"}); err != nil {
			t.Fatal(err)
		}
	}
	if shown, err := c.Token(t.Context(), token); err != nil || shown.Status != api.TokenActive {
		t.Errorf("%+v, %v", shown, err)
	}
	wantCode := func(what string, err error, code string) {
		t.Helper()
		if problem, ok := errors.AsType[*client.Error](err); !ok || problem.Code != code {
			t.Errorf("%s: %v, want %s", what, err, code)
		}
	}
	_, err := c.Token(t.Context(), "9000000000000000")
	wantCode("a token that was never issued", err, "not_found")
	_, err = c.Token(t.Context(), visaCard)
	wantCode("a card number for a token", err, "looks_like_card_number")
	_, err = c.Tokenize(t.Context(), client.Card{Number: string(token), Expiry: "2031-12"})
	wantCode("a token for a card number", err, "invalid_card")
	_, err = s.tokens(func(cfg *client.Config) { cfg.Domain = "second" }).Token(t.Context(), token)
	wantCode("a token of another domain", err, "no_domain")
	if status, body := s.call("GET", "/v1/domains", ""); status != http.StatusOK || !strings.Contains(string(body), `{"digits":16,"format":"last4"}`) {
		t.Errorf("%d %s", status, body)
	}
	s.serve.stop()
	s.verifyLog()
}

func TestABadLineOfABatchIsItsOwn(t *testing.T) {
	s := newSystem(t)
	lines := []struct{ line, code string }{
		{aCard(visaCard), ""},
		{aCard("4111 1111 1111 1111"), "invalid_card"},
		{aCard("-4111111111111111"), "invalid_card"},
		{aCard("41111111111"), "invalid_card"},
		{aCard("41111111111111111111"), "invalid_card"},
		{aCard("4111111111111112"), "invalid_card"},
		{aCard("４１１１１１１１１１１１１１１１"), "invalid_card"},
		{`{"number":"4111111111111111"}`, "invalid_card"},
		{`{"number":"4111111111111111","number":"4111111111111111","expiry":"2031-12"}`, "malformed"},
		{`{"number":"4111111111111111","expiry":"2031-12","cvv":"123"}`, "malformed"},
		{"\xff\xfe", "malformed"},
		{strings.Repeat("4", 1<<20), "too_large"},
		{aCard("9792123456789018"), "invalid_card"},
		{"", "malformed"},
		{aCard("5555555555554444"), ""},
	}
	var body bytes.Buffer
	for _, l := range lines {
		body.WriteString(l.line + "\n")
	}
	status, answer := s.call("POST", "/v1/tokens/batch", body.String(), "Content-Type", "application/x-ndjson")
	got := strings.Split(strings.TrimSuffix(string(answer), "\n"), "\n")
	if status != http.StatusOK || len(got) != len(lines) {
		t.Fatalf("%d, %d lines:\n%s", status, len(got), answer)
	}
	for i, l := range lines {
		var result struct {
			Line  int
			Token string
			Error struct{ Code, Detail string }
		}
		if err := json.Unmarshal([]byte(got[i]), &result); err != nil || result.Line != i+1 || result.Error.Code != l.code || (result.Token == "") != (l.code != "") {
			t.Errorf("%.60q: %s", l.line, got[i])
		}
		if strings.Contains(result.Error.Detail, "1111") {
			t.Errorf("%.60q: the error quotes it: %s", l.line, got[i])
		}
	}
	s.serve.stop()
	noCardDataIn(t, s.cfg.State())
}

// alike are numbers whose first six and last four digits are the same.
func alike(count int) (numbers []string) {
	for free := 0; len(numbers) < count; free++ {
		if number := fmt.Sprintf("411111%06d1111", free); luhnSum([]byte(number)) == 0 {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

// bounded counts results that were refused because too many cards begin and end alike; nothing else may be wrong.
func bounded(t *testing.T, results []client.Result) (n int) {
	t.Helper()
	for _, r := range results {
		if code(r.Err) == "token_bound" {
			n++
		} else if r.Err != nil {
			t.Errorf("%+v", r)
		}
	}
	return n
}

func TestASearchForACardIsStopped(t *testing.T) {
	s := newSystem(t)
	c := s.tokens(nil)
	numbers := alike(25)
	if n := bounded(t, runBatch(t, c, numbers)); n != 5 {
		t.Errorf("%d of 25 are refused, want 5", n)
	}
	_, err := c.Tokenize(t.Context(), client.Card{Number: numbers[24], Expiry: "2031-12"})
	problem, ok := errors.AsType[*client.Error](err)
	if !ok || problem.Status != http.StatusTooManyRequests || problem.Code != "token_bound" || problem.RetryAfter < time.Second || problem.RetryAfter > 24*time.Hour {
		t.Errorf("%+v", err)
	}
	if _, err := c.Tokenize(t.Context(), client.Card{Number: numbers[3], Expiry: "2031-12"}); err != nil {
		t.Errorf("a card that has its token: %v", err)
	}
	s.serve.stop()
	s.serve = s.start("serve")
	s.awaitReady()
	if n := bounded(t, runBatch(t, s.tokens(nil), numbers[20:])); n != 5 {
		t.Errorf("after a restart %d of 5 are refused", n)
	}
	if n := s.entriesOfType("token.bound_reached"); n < 1 || n > 2 {
		t.Errorf("%d entries tell of it", n)
	}
}

func TestAnImportHasItsOwnBound(t *testing.T) {
	s := newSystem(t)
	numbers := alike(300)
	if n := bounded(t, runBatch(t, s.tokens(nil), numbers[:25])); n != 5 {
		t.Errorf("%d of 25 are refused, want 5", n)
	}
	opened := s.command("import", "open", s.apiKey, "--bound", "200", "--reason", "cards of the former gateway")
	if list := s.command("import", "list"); list != opened {
		t.Errorf("%s is open, want %s", list, opened)
	}
	if n := bounded(t, runBatch(t, s.tokens(nil), numbers[20:200])); n != 0 {
		t.Errorf("%d of 180 are refused", n)
	}
	s.serve.stop()
	s.serve = s.start("serve")
	s.awaitReady()
	if n := bounded(t, runBatch(t, s.tokens(nil), numbers[200:])); n != 80 {
		t.Errorf("%d of the last 100 are refused, want 80", n)
	}
	s.command("import", "close", strings.Fields(opened)[0])
	if n := bounded(t, runBatch(t, s.tokens(nil), numbers[290:])); n != 10 {
		t.Errorf("after the import %d of 10 are refused", n)
	}
	for _, args := range [][]string{
		{"import", "open", s.apiKey, "--bound", "50001", "--reason", "r"},
		{"import", "open", s.apiKey, "--bound", "10", "--reason", " "},
		{"import", "open", s.apiKey, "--bound", "10", "--reason", "card 4111111111111111"},
		{"import", "open", s.apiKey, "--bound", "10", "--reason", "r", "--for", "745h"},
		{"import", "open", "nobody", "--bound", "10", "--reason", "r"},
		{"import", "close", "imp_x"},
	} {
		cmd := exec.Command(finpay, append(args, "--state", s.cfg.State())...)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("finpay %v: %s", args, out)
		}
	}
	s.serve.stop()
	for _, kind := range []string{"import.opened", "import.closed"} {
		if n := s.entriesOfType(kind); n != 1 {
			t.Errorf("%d entries %s", n, kind)
		}
	}
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

// entriesOfType counts entries of the log.
func (s *system) entriesOfType(kind string) (n int) {
	s.t.Helper()
	db, err := store.OpenReadOnly(s.cfg.State())
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for from := int64(0); ; {
		entries, err := db.Read(s.t.Context()).LedgerEntries(from, 1000)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(entries) == 0 {
			return n
		}
		for _, e := range entries {
			if decode[struct{ Type string }](s.t, e.Entry).Type == kind {
				n++
			}
		}
		from = entries[len(entries)-1].Index + 1
	}
}

func TestACardLeavesToItsRecipientOnly(t *testing.T) {
	s := newSystem(t, setting{"recipient_delay: 24h", "recipient_delay: 0s"})
	key := strings.TrimSpace(s.command("api-key", "create", "--scopes", "tokens,detokenize"))
	c := s.tokens(func(cfg *client.Config) { cfg.Key = key })
	token, err := c.Tokenize(t.Context(), client.Card{Number: visaCard, Expiry: "2031-12"})
	if err != nil {
		t.Fatal(err)
	}
	private, recipient := newRecipient(t)
	ask := func(reason api.DetokenizeReason, with *ecdh.PrivateKey) (client.Card, error) {
		return c.Detokenize(t.Context(), token.Token, reason, with)
	}
	if _, err := ask("chargeback", recipient); code(err) != "no_recipient" {
		t.Errorf("without a recipient: %v", err)
	}
	privateFile, publicFile := writeKeys(t, private)
	s.command("api-key", "recipient", key, "--public-key", publicFile, "--quota", "3")
	if card, err := ask("chargeback", recipient); err != nil || card != (client.Card{Number: visaCard, Expiry: "2031-12"}) {
		t.Errorf("%v, %v", card, err)
	}
	if _, err := ask("curiosity", recipient); code(err) != "invalid" {
		t.Errorf("for no reason: %v", err)
	}
	if _, err := c.Detokenize(t.Context(), "9000000000000000", "fraud", recipient); code(err) != "not_found" {
		t.Errorf("a token that was never issued: %v", err)
	}
	// The command opens it too.
	cmd := exec.Command(finpay, "detokenize", "--state", s.cfg.State(), "--reason", "migration", "--recipient-key", privateFile)
	cmd.Env = append(os.Environ(), "FINPAY_API_KEY="+key)
	cmd.Stdin = strings.NewReader(`{"token":"` + string(token.Token) + `"}` + "\n")
	if out, err := cmd.Output(); err != nil || string(out) != `{"token":"`+string(token.Token)+`","number":"`+visaCard+`","expiry":"2031-12"}`+"\n" {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := c.Deactivate(t.Context(), token.Token); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("fraud", recipient); code(err) != "token_inactive" {
		t.Errorf("an inactive token: %v", err)
	}
	if _, err := c.Tokenize(t.Context(), client.Card{Number: visaCard, Expiry: "2031-12"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("fraud", recipient); err != nil {
		t.Errorf("the third: %v", err)
	}
	if _, err := ask("fraud", recipient); code(err) != "quota_spent" {
		t.Errorf("the fourth of three: %v", err)
	}
	s.serve.stop()
	if n := s.entriesOfType("token.detokenized"); n != 3 {
		t.Errorf("%d entries tell of three cards", n)
	}
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}

// code is the stable code of a problem.
func code(err error) string {
	if problem, ok := errors.AsType[*client.Error](err); ok {
		return problem.Code
	}
	return fmt.Sprint(err)
}

// newRecipient makes the key of somebody to whom cards are detokenized.
func newRecipient(t *testing.T) (*ecdsa.PrivateKey, *ecdh.PrivateKey) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	recipient, err := private.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	return private, recipient
}

func writeKeys(t *testing.T, private *ecdsa.PrivateKey) (privateFile, publicFile string) {
	t.Helper()
	dir := t.TempDir()
	privateFile, publicFile = filepath.Join(dir, "private.pem"), filepath.Join(dir, "public.pem")
	secret, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{privateFile: {Type: "EC PRIVATE KEY", Bytes: secret}, publicFile: {Type: "PUBLIC KEY", Bytes: public}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return privateFile, publicFile
}

func TestTheCommandTokenizesStandardInput(t *testing.T) {
	s := newSystem(t)
	for _, args := range [][]string{nil, {"--open"}, {"--log-key", filepath.Join(s.cfg.State(), "ledger.vkey")}} {
		cmd := exec.Command(finpay, append([]string{"tokenize", "--state", s.cfg.State()}, args...)...)
		cmd.Env = append(os.Environ(), "FINPAY_API_KEY="+s.apiKey)
		cmd.Stdin = strings.NewReader(aCard(visaCard) + "\n" + aCard("4111111111111112") + "\n")
		var out, problems bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &problems
		err := cmd.Run()
		lines := strings.Split(out.String(), "\n")
		if err == nil || len(lines) != 3 || !strings.Contains(lines[0], `"truncated":"411111******1111"`) || !strings.Contains(lines[1], `"error":"invalid_card"`) ||
			!strings.Contains(problems.String(), "1 cards refused") {
			t.Errorf("%v: %v\n%s%s", args, err, &out, &problems)
		}
	}
}

// Whatever was answered before the process was killed is in the registry after it.
func TestAKilledBatchLosesNothingThatWasAnswered(t *testing.T) {
	s := newSystem(t)
	var mu sync.Mutex
	answered := make(map[string]pci.Token)
	var clients sync.WaitGroup
	c := s.tokens(nil)
	for series := range 3 {
		clients.Go(func() {
			b, err := c.Batch(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			go func() {
				defer b.CloseSend()
				for n := 0; b.Send(client.Card{Number: luhnNumber(fmt.Sprintf("40000%d", series), n), Expiry: "2031-12"}) == nil; n++ {
				}
			}()
			for {
				r, err := b.Receive()
				if err != nil {
					return
				}
				if r.Err == nil {
					mu.Lock()
					answered[luhnNumber(fmt.Sprintf("40000%d", series), r.Line-1)] = r.Token
					mu.Unlock()
				}
			}
		})
	}
	s.until("some thousands are answered", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(answered) > 20_000
	})
	_ = s.serve.cmd.Process.Kill()
	<-s.serve.done
	clients.Wait()
	s.serve = s.start("serve")
	s.awaitReady()
	var numbers []string
	for number := range answered {
		numbers = append(numbers, number)
	}
	for i, r := range runBatch(t, s.tokens(nil), numbers) {
		if r.Err != nil || r.Issued || r.Token != answered[numbers[i]] {
			t.Fatalf("card %d of %d: %+v, want %s", i, len(numbers), r, answered[numbers[i]])
		}
	}
	t.Logf("%d tokens had been answered", len(answered))
	s.serve.stop()
	s.verifyLog()
	noCardDataIn(t, s.cfg.State())
}
