package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/finterra/finpay/pci"
)

// registry is what stands behind the token routes in tests. It takes every line of a body for a card.
type registry struct {
	noSealing bool // the HSM has no key to seal to
	err       error
	known     bool
	domain    string
	page      TokenPage
	change    ChangePage
	ended     pci.Token
	breaks    int  // the batch fails after so many lines; 0 for never
	hangUp    bool // the batch is given up after its first line, while its client is silent
	lines     func(line string) TokenResult
}

var visa = pci.Card{Brand: pci.Visa, Truncated: "411111******1111", Expiry: pci.Expiry{Year: 2031, Month: 12}}

func aToken(token pci.Token) Token {
	return Token{Token: token, Domain: "first", Format: pci.TokenLast4, Status: TokenActive,
		Card: Card{Brand: visa.Brand, Truncated: visa.Truncated, Expiry: visa.Expiry.String()}, CreatedAt: day}
}

func (g *registry) Issue(r *http.Request, _ Caller, domain, _ string) (Token, bool, error) {
	g.domain = domain
	if _, err := io.ReadAll(r.Body); err != nil {
		return Token{}, false, pci.ErrTooLarge
	}
	return aToken("9688077933731111"), !g.known, g.err
}

func (g *registry) IssueAll(r *http.Request, _ Caller, domain string, answer func([]TokenResult) error) error {
	g.domain = domain
	lines := bufio.NewScanner(r.Body)
	for n := 1; g.err == nil && lines.Scan(); n++ {
		if err := answer([]TokenResult{g.lines(lines.Text())}); err != nil {
			return err
		}
		if n == g.breaks {
			return errors.New("broken off")
		}
		if g.hangUp {
			go func() { _ = r.Body.Close() }()
			_, err := r.Body.Read(make([]byte, 1))
			return err
		}
	}
	return g.err
}

func (g *registry) Get(_ context.Context, _ Caller, domain string, token pci.Token) (Token, error) {
	g.domain = domain
	return aToken(token), g.err
}

func (g *registry) Deactivate(_ context.Context, _ Caller, _ string, token pci.Token) (Token, error) {
	g.ended = token
	t := aToken(token)
	t.Status = TokenInactive
	return t, g.err
}

func (g *registry) List(_ context.Context, _ Caller, domain string, page TokenPage) (TokenList, error) {
	g.domain, g.page = domain, page
	return TokenList{Tokens: []Token{aToken("9688077933731111")}, NextCursor: "9688077933731111"}, g.err
}

func (g *registry) Changes(_ context.Context, _ Caller, domain string, page ChangePage) (TokenChanges, error) {
	g.domain, g.change = domain, page
	return TokenChanges{Domain: "first", Changes: []TokenChange{{Seq: 7, Old: "9688077933731111", New: "9111111111111111", At: day}}, Newest: 7}, g.err
}

func (g *registry) AcknowledgeChanges(_ context.Context, _ Caller, domain string, through int64) (TokenChanges, error) {
	g.domain = domain
	return TokenChanges{Domain: "first", Changes: []TokenChange{}, Acknowledged: through, Newest: 7}, g.err
}

func (g *registry) Domains(context.Context, Caller) ([]Domain, error) {
	return []Domain{{ID: "first", Format: pci.TokenBIN6Last4, Lengths: []DomainLength{{Digits: 15, Refused: "10^5 values"}, {Digits: 16, Format: pci.TokenBIN6Last4}}}}, g.err
}

func (g *registry) Detokenize(_ context.Context, caller Caller, domain string, token pci.Token, reason DetokenizeReason) (SealedCard, error) {
	g.ended = token
	return SealedCard{Token: token, Domain: domain, Key: caller.KeyID, Enc: string(reason), CT: "AA"}, g.err
}

func (g *registry) IntakeKey(context.Context) (IntakeKey, error) {
	return IntakeKey{Key: "intake v1", KEM: "DHKEM(P-256, HKDF-SHA256)", KDF: "HKDF-SHA256", AEAD: "AES-256-GCM", PublicKey: "BA", CheckValue: "774d5ebbff4f1dce",
		CreatedAt: day, Receipt: []ReceiptEntry{{Index: 1, Entry: "{}", Proof: "p"}}}, g.err
}

func (g *registry) SealingKey() (SealingKey, bool) {
	return SealingKey{Name: "intake v1", PublicKey: "BA"}, !g.noSealing
}

func tokens(method, target, body string) *http.Request {
	r := request(method, target, body)
	r.Header.Set("Authorization", "Bearer "+tokensKey)
	return r
}

const aCard = `{"number":"` + testPAN + `","expiry":"2031-12"}`

func TestACardIsTokenized(t *testing.T) {
	d := newDesk(Limits{})
	w := d.send(t, tokens(http.MethodPost, "/v1/tokens?domain=first", aCard))
	var got Token
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got != aToken("9688077933731111") || d.registry.domain != "first" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w.Code != http.StatusCreated || w.Header().Get("Location") != "/v1/tokens/9688077933731111" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	d.registry.known = true
	if w := d.send(t, tokens(http.MethodPost, "/v1/tokens", aCard)); w.Code != http.StatusOK || d.registry.domain != "" {
		t.Errorf("a card that has its token: %d %s", w.Code, w.Body)
	}
}

func TestCardsThatCannotBeTokenized(t *testing.T) {
	wrong := pci.CardErrors{{Field: pci.FieldNumber, Reason: pci.ReasonChecksum}, {Field: pci.FieldExpiry, Reason: pci.ReasonMissing}}
	for _, c := range []struct {
		err     error
		want    *Problem
		pointer string
	}{
		{wrong, ErrCard, "/number"},
		{&pci.CardError{Field: pci.FieldNumber, Reason: pci.ReasonUnsupported}, ErrCard, "/number"},
		{&pci.MalformedError{Why: "a name stands twice in it"}, ErrMalformed, ""},
		{pci.ErrTooLarge, ErrTooLarge, ""},
		{pci.ErrUnavailable, ErrUnavailable, ""},
		{pci.ErrFull, ErrUnavailable, ""},
		{ErrNoDomain, ErrNoDomain, ""},
		{ErrTokenBound, ErrTokenBound, ""},
	} {
		d := newDesk(Limits{})
		d.registry.err = c.err
		wantProblem(t, d.send(t, tokens(http.MethodPost, "/v1/tokens", aCard)), c.want, c.pointer)
		if c.want != ErrTooLarge { // of a batch a line is too large, never the body
			wantProblem(t, d.send(t, tokensNDJSON(aCard+"\n")), c.want, c.pointer)
		}
	}
	d := newDesk(Limits{})
	wantProblem(t, d.send(t, tokens(http.MethodPost, "/v1/tokens", strings.Repeat(" ", 1025)+aCard)), ErrTooLarge, "")
	wantProblem(t, d.send(t, tokens(http.MethodPost, "/v1/tokens?domain=", aCard)), ErrNoDomain, "")
	wantProblem(t, d.send(t, tokens(http.MethodPost, "/v1/tokens?number=1", aCard)), ErrUnknownField, "")
	wantProblem(t, d.send(t, request(http.MethodPost, "/v1/tokens", aCard)), ErrForbidden, "")
	r := tokens(http.MethodPost, "/v1/tokens", aCard)
	r.Header.Set("Content-Type", "text/plain")
	wantProblem(t, d.send(t, r), ErrMediaType, "")
	if d.log.Len() == 0 || strings.Contains(d.log.String(), testPAN) {
		t.Error("the log is empty, or holds a card number")
	}
}

func tokensNDJSON(body string) *http.Request {
	r := tokens(http.MethodPost, "/v1/tokens/batch", body)
	r.Header.Set("Content-Type", "application/x-ndjson")
	return r
}

func TestABatchIsAnsweredLineByLine(t *testing.T) {
	d := newDesk(Limits{})
	d.registry.lines = func(line string) TokenResult {
		switch line {
		case "known":
			return TokenResult{Token: "9688077933731111", Card: visa}
		case "new":
			return TokenResult{Token: "9688077933731112", Card: visa, Issued: true}
		default:
			return TokenResult{Err: &pci.CardError{Field: pci.FieldNumber, Reason: pci.ReasonLength}}
		}
	}
	w := d.send(t, tokensNDJSON("known\nnew\n41111111111\n"))
	want := `{"line":1,"token":"9688077933731111","issued":false,"card":{"brand":"visa","truncated":"411111******1111","expiry":"2031-12"}}
{"line":2,"token":"9688077933731112","issued":true,"card":{"brand":"visa","truncated":"411111******1111","expiry":"2031-12"}}
{"line":3,"error":{"code":"invalid_card","detail":"number: wrong_length.","pointer":"/number"}}
`
	if w.Code != http.StatusOK || w.Body.String() != want || w.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("%d %v\n%s", w.Code, w.Header(), w.Body)
	}
	if w := d.send(t, tokensNDJSON("")); w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("an empty batch: %d %s", w.Code, w.Body)
	}
	doc, _ := contract()
	for line := range strings.Lines(want) {
		var value any
		if err := json.Unmarshal([]byte(line), &value); err != nil {
			t.Fatal(err)
		}
		if err := doc.Components.Schemas["TokenResult"].Value.VisitJSON(value); err != nil {
			t.Errorf("%s is not in openapi.yaml: %v", line, err)
		}
	}
}

// Half an answer must not look like a whole one: a client that counts on the end of the body would lose lines.
func TestABatchThatBreaksOffHasNoEnd(t *testing.T) {
	d := newDesk(Limits{})
	d.registry.breaks = 1
	d.registry.lines = func(string) TokenResult { return TokenResult{Token: "9688077933731111", Card: visa} }
	server := httptest.NewServer(d.handler)
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/tokens/batch", strings.NewReader("a\nb\n"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+tokensKey)
	r.Header.Set("Content-Type", "application/x-ndjson")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil || strings.Count(string(body), "\n") != 1 {
		t.Errorf("%q, %v: want one line and a broken end", body, err)
	}
}

// A client may wait for the answer to one line before it sends the next.
func TestABatchIsAConversation(t *testing.T) {
	d := newDesk(Limits{})
	d.registry.lines = func(string) TokenResult { return TokenResult{Token: "9688077933731111", Card: visa} }
	server := httptest.NewServer(d.handler)
	defer server.Close()
	body, send := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/tokens/batch", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+tokensKey)
	r.Header.Set("Content-Type", "application/x-ndjson")
	go func() { _, _ = io.WriteString(send, "a\n") }()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answers := bufio.NewScanner(response.Body)
	for range 3 {
		if !answers.Scan() {
			t.Fatal("no answer to a line that was sent")
		}
		if _, err := io.WriteString(send, "b\n"); err != nil {
			t.Fatal(err)
		}
	}
	_ = send.Close()
	for answers.Scan() {
	}
	if err := answers.Err(); err != nil {
		t.Error(err)
	}
}

// A batch can be given up while its client neither sends nor ends: nobody is left in a read.
func TestASilentClientOfABatchIsLeft(t *testing.T) {
	d := newDesk(Limits{})
	d.registry.hangUp = true
	d.registry.lines = func(string) TokenResult { return TokenResult{Token: "9688077933731111", Card: visa} }
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		server := httptest.NewUnstartedServer(d.handler)
		server.EnableHTTP2 = http2
		server.StartTLS()
		body, send := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/tokens/batch", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+tokensKey)
		r.Header.Set("Content-Type", "application/x-ndjson")
		go func() { _, _ = io.WriteString(send, "a\n") }()
		response, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(response.Body); err == nil || strings.Count(string(answer), "\n") != 1 {
			t.Errorf("%s: %q, %v: want one line and a broken end", name, answer, err)
		}
		_, _ = response.Body.Close(), send.Close()
		server.Close()
	}
}

func TestTokensAreShownAndEnded(t *testing.T) {
	d := newDesk(Limits{})
	for _, token := range []string{"9688077933731111", "tok_abcdefghijklmnopqrstuvwxyz"} {
		if w := d.send(t, tokens(http.MethodGet, "/v1/tokens/"+token+"?domain=first", "")); w.Code != http.StatusOK || d.registry.domain != "first" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w := d.send(t, tokens(http.MethodDelete, "/v1/tokens/"+token, "")); w.Code != http.StatusOK || string(d.registry.ended) != token ||
			!strings.Contains(w.Body.String(), `"inactive"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	wantProblem(t, d.send(t, tokens(http.MethodGet, "/v1/tokens/"+testPAN, "")), ErrCardNumber, "")
	wantProblem(t, d.send(t, tokens(http.MethodDelete, "/v1/tokens/"+strings.Repeat("9", 129), "")), ErrNotFound, "")
	wantProblem(t, d.send(t, request(http.MethodGet, "/v1/tokens/9688077933731111", "")), ErrForbidden, "")
	d.registry.err = pci.ErrNotIssued
	wantProblem(t, d.send(t, tokens(http.MethodGet, "/v1/tokens/9688077933731111", "")), ErrNotFound, "")
	if strings.Contains(d.log.String(), testPAN) || strings.Contains(d.log.String(), "9688077933731111") {
		t.Error("the log holds what stands in paths")
	}
}

func TestTokensAndDomainsAreListed(t *testing.T) {
	d := newDesk(Limits{})
	w := d.send(t, tokens(http.MethodGet, "/v1/tokens?domain=first&cursor=9688077933731111&limit=7", ""))
	if w.Code != http.StatusOK || d.registry.domain != "first" || d.registry.page != (TokenPage{"9688077933731111", 7}) {
		t.Errorf("%d %s, %+v", w.Code, w.Body, d.registry.page)
	}
	if d.send(t, tokens(http.MethodGet, "/v1/tokens", "")); d.registry.page != (TokenPage{"", DefaultPage}) {
		t.Errorf("%+v", d.registry.page)
	}
	wantProblem(t, d.send(t, tokens(http.MethodGet, "/v1/tokens?limit=0", "")), ErrInvalid, "")
	wantProblem(t, d.send(t, tokens(http.MethodGet, "/v1/tokens?cursor=%20", "")), ErrInvalid, "")
	if w := d.send(t, tokens(http.MethodGet, "/v1/domains", "")); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `{"digits":15,"refused":"10^5 values"}`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	wantProblem(t, d.send(t, tokens(http.MethodGet, "/v1/domains?a=b", "")), ErrUnknownField, "")
}

func TestReplacementsAreFollowedAndAcknowledged(t *testing.T) {
	d := newDesk(Limits{})
	w := d.send(t, tokens(http.MethodGet, "/v1/tokens/changes?domain=first&after=6&limit=1000", ""))
	if want := `{"domain":"first","changes":[{"seq":7,"old":"9688077933731111","new":"9111111111111111","at":"` + day.Format(time.RFC3339) +
		`"}],"acknowledged":0,"newest":7}`; w.Code != http.StatusOK || w.Body.String() != want || d.registry.domain != "first" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if d.registry.change.Limit != 1000 || d.registry.change.After == nil || *d.registry.change.After != 6 {
		t.Errorf("%+v", d.registry.change)
	}
	if d.send(t, tokens(http.MethodGet, "/v1/tokens/changes", "")); d.registry.change != (ChangePage{Limit: DefaultPage}) {
		t.Errorf("%+v", d.registry.change)
	}
	for _, query := range []string{"limit=1001", "after=-1", "after=x", "after=", "after=9223372036854775808"} {
		wantProblem(t, d.send(t, tokens(http.MethodGet, "/v1/tokens/changes?"+query, "")), ErrInvalid, "")
	}
	w = d.send(t, tokens(http.MethodPost, "/v1/tokens/changes/acknowledge", `{"through":7}`))
	if want := `{"domain":"first","changes":[],"acknowledged":7,"newest":7}`; w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, body := range []string{`{}`, `{"through":0}`, `{"through":-7}`, `{"through":"7"}`} {
		wantProblem(t, d.send(t, tokens(http.MethodPost, "/v1/tokens/changes/acknowledge", body)), ErrInvalid, "/through")
	}
	d.registry.err = ErrInvalid.At("/through")
	wantProblem(t, d.send(t, tokens(http.MethodPost, "/v1/tokens/changes/acknowledge", `{"through":8}`)), ErrInvalid, "/through")
}

func TestACardIsDetokenizedForAReason(t *testing.T) {
	d := newDesk(Limits{})
	ask := func(body string) *httptest.ResponseRecorder {
		r := request(http.MethodPost, "/v1/tokens/9688077933731111/detokenize?domain=first", body)
		r.Header.Set("Authorization", "Bearer "+openingKey)
		return d.send(t, r)
	}
	w := ask(`{"reason":"chargeback"}`)
	if want := `{"token":"9688077933731111","domain":"first","key":"key_3","enc":"chargeback","ct":"AA"}`; w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for body, pointer := range map[string]string{`{}`: "/reason", `{"reason":"curiosity"}`: "/reason"} {
		wantProblem(t, ask(body), ErrInvalid, pointer)
	}
	wantProblem(t, ask(`{"reason":"fraud","recipient":"BA"}`), ErrUnknownField, "/recipient")
	for _, want := range []*Problem{ErrNoRecipient, ErrQuota, ErrInactive, ErrTokenReplaced, ErrNotFound, ErrUnavailable} {
		d.registry.err = want
		wantProblem(t, ask(`{"reason":"fraud"}`), want, "")
	}
	wantProblem(t, d.send(t, tokens(http.MethodPost, "/v1/tokens/9688077933731111/detokenize", `{"reason":"fraud"}`)), ErrForbidden, "")
}

func TestTheIntakeKeyIsPublic(t *testing.T) {
	d := newDesk(Limits{})
	w := d.send(t, httptest.NewRequest(http.MethodGet, "/v1/intake/key", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"key":"intake v1"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	d.registry.err = ErrNotFound
	wantProblem(t, d.send(t, httptest.NewRequest(http.MethodGet, "/v1/intake/key", nil)), ErrNotFound, "")
}
