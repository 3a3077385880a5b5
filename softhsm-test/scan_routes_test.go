package softhsmtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/client"
	"github.com/finterra/finpay/appliance/simulator"
)

// routes are all ways of a card. One more is one more line.
var routes = []route{
	{name: "API, one card, sealed", sealed: true, ride: (*ride).sealedOne},
	{name: "API, a batch, sealed", sealed: true, ride: (*ride).sealedBatch},
	{name: "detokenized", sealed: true, ride: (*ride).detokenized},
	{name: "retokenized after a rotation", sealed: true, ride: (*ride).retokenized},
	{name: "page, sealed, frictionless", sealed: true, ride: func(r *ride) { r.paysSealed(r.card(), api.StatusCaptured) }},
	{name: "page, sealed, challenge", sealed: true, ride: func(r *ride) { r.paysSealed(r.known("4539123456789017"), api.StatusCaptured) }},
	{name: "page, sealed, declined", sealed: true, ride: func(r *ride) { r.paysSealed(r.known("4539050505050507"), api.StatusDeclined) }},
	{name: "page, sealed, refused by 3-D Secure", sealed: true, ride: func(r *ride) { r.paysSealed(r.known("4539787878787872"), api.StatusDeclined) }},
	{name: "page, sealed, soft decline, challenge, second sale", sealed: true, ride: func(r *ride) { r.paysSealed(r.known("4539656565656569"), api.StatusCaptured) }},
	{name: "a stored card, by the customer and by the merchant", sealed: true, ride: (*ride).stored},
	{name: "a stored card of a known number, challenged", sealed: true, ride: (*ride).storedAndChallenged},
	{name: "captured, voided and refunded by the token", sealed: true, ride: (*ride).modified},
	{name: "page, sealed, timed out and reversed", sealed: true, ride: func(r *ride) { r.paysSealed(r.known("4539686868686864"), api.StatusFailed) }},
	{name: "page, sealed, with errors", sealed: true, ride: (*ride).sealedWithErrors},
	{name: "API, one card, open", ride: (*ride).openOne},
	{name: "API, a batch, open", ride: (*ride).openBatch},
	{name: "page, plain form, frictionless", ride: func(r *ride) { r.pays(r.card(), api.StatusCaptured) }},
	{name: "page, plain form, challenge", ride: func(r *ride) { r.pays(r.known("4539123456789017"), api.StatusCaptured) }},
	{name: "page, challenge, then declined", ride: func(r *ride) { r.pays(r.known("4539125112511255"), api.StatusDeclined) }},
	{name: "declined by the acquirer", ride: func(r *ride) { r.pays(r.known("4539515151515151"), api.StatusDeclined) }},
	{name: "refused by 3-D Secure", ride: func(r *ride) { r.pays(r.known("4539828282828280"), api.StatusDeclined) }},
	{name: "timed out and reversed", ride: func(r *ride) { r.pays(r.known("4539686868686864"), api.StatusFailed) }},
	{name: "approved too late and reversed", ride: func(r *ride) { r.pays(r.known("4539696969696969"), api.StatusFailed) }},
	{name: "approved twice", ride: func(r *ride) { r.pays(r.known("4012888888881881"), api.StatusCaptured) }},
	{name: "a form with errors", ride: (*ride).formWithErrors},
	{name: "a form for a payment that is over", ride: (*ride).formTooLate},
	{name: "malformed forms", ride: (*ride).malformedForms},
	{name: "malformed cards", ride: (*ride).malformedCards},
	{name: "a card without a right to send one", ride: (*ride).unauthorized},
	{name: "a number where none belongs", left: copiesOfMisplaced, ride: (*ride).misplaced},
	{name: "left in a challenge", ride: (*ride).leftInAChallenge},
}

// paysSealed takes a payment to its end as a browser with the page's script does.
func (r *ride) paysSealed(number string, want api.Status) {
	r.t.Helper()
	shop := *r.shop
	defer func(open *simulator.Shopper) { r.shop = open }(r.shop)
	key := r.intakeKey()
	shop.Seal = func(link string, form url.Values) (url.Values, error) {
		return r.sealForm(key, r.newest(), link, form), nil
	}
	r.shop = &shop
	r.pays(number, want)
}

// newest is the payment that was created last.
func (r *ride) newest() string { return r.payments()[0].ID }

// stored pays with a card, and then with its token: the number is made of it anew for each message.
func (r *ride) stored() {
	r.paysSealed(r.card(), api.StatusCaptured)
	r.paysAgain(false)
}

func (r *ride) storedAndChallenged() {
	r.paysSealed(r.known("4539123456789017"), api.StatusCaptured)
	r.paysAgain(true)
}

func (r *ride) paysAgain(challenge bool) {
	r.t.Helper()
	first := r.payment(r.newest())
	p := r.again(first.Token, fmt.Sprintf(`"return_url":%q`, r.shopURL()+"/return"))
	if _, challenged, err := r.shop.PayStored(r.t.Context(), p.CheckoutURL); err != nil || challenged != challenge {
		r.t.Fatal(challenged, err)
	}
	if got := r.settled(p.ID); got.Status != api.StatusCaptured {
		r.t.Errorf("by the customer: %s", got.Status)
	}
	if own := r.again(first.Token, fmt.Sprintf(`"initiator":"merchant","original":%q`, first.ID)); own.Status != api.StatusCaptured {
		r.t.Errorf("by the merchant: %s", own.Status)
	}
}

// modified has a merchant do all that follows a sale.
func (r *ride) modified() {
	r.paysSealed(r.card(), api.StatusCaptured)
	token := r.payment(r.newest()).Token
	r.modify(r.newest(), "refunds", `{"amount":100}`)
	original := r.newest()
	for _, what := range []string{"capture", "void"} {
		p := r.again(token, fmt.Sprintf(`"initiator":"merchant","original":%q,"capture":"manual"`, original))
		r.modify(p.ID, what, "{}")
	}
}

func (r *ride) sealedWithErrors() {
	id, link := r.buy()
	key := r.intakeKey()
	for _, change := range []func(*simulator.Typed){
		func(c *simulator.Typed) { c.CVV = r.cvv + "77" },
		func(c *simulator.Typed) { c.Expiry = "01/20" },
		func(c *simulator.Typed) { c.Name = c.Number },
	} {
		card := r.typed(r.card())
		change(&card)
		form := url.Values{"number": {card.Number}, "expiry": {card.Expiry}, "cvv": {card.CVV}, "name": {card.Name}}
		if status, _ := r.system.send(link, r.sealForm(key, id, link, form)); status != http.StatusUnprocessableEntity {
			r.t.Errorf("%d", status)
		}
	}
}

// formTooLate sends a card for a payment that has one, which nobody reads.
func (r *ride) formTooLate() {
	_, link := r.buy()
	if _, _, err := r.shop.Pay(r.t.Context(), link, r.typed(r.card())); err != nil {
		r.t.Fatal(err)
	}
	if status, _ := r.form(link, r.card()); status != http.StatusSeeOther {
		r.t.Errorf("%d", status)
	}
}

// unauthorized sends cards with a key that does not exist, and with none.
func (r *ride) unauthorized() {
	for _, path := range []string{"/v1/tokens", "/v1/tokens/batch", "/v1/payments"} {
		for _, key := range []string{"Bearer fp_test_0000000000000000_nothing", ""} {
			if status, _ := r.call("POST", path, aCard(r.card()), "Authorization", key); status != http.StatusUnauthorized {
				r.t.Errorf("%s: %d", path, status)
			}
		}
	}
}

// seals and sends are the API's clients, with cards sealed and open.
func (r *ride) seals() *client.Client { return r.client }

func (r *ride) sends() *client.Client {
	return r.tokens(func(cfg *client.Config) { cfg.Key, cfg.Open = r.key, true })
}

func (r *ride) tokenize(c *client.Client) api.Token {
	r.t.Helper()
	token, err := c.Tokenize(r.t.Context(), client.Card{Number: r.card(), Expiry: "2031-12"})
	if err != nil {
		r.t.Fatal(err)
	}
	return token
}

func (r *ride) batch(c *client.Client, n int) {
	r.t.Helper()
	var numbers []string
	for range n {
		numbers = append(numbers, r.card())
	}
	b, err := c.Batch(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer b.CloseSend()
		for _, number := range numbers {
			if b.Send(client.Card{Number: number, Expiry: "2031-12"}) != nil {
				return
			}
		}
	}()
	for range numbers {
		if result, err := b.Receive(); err != nil || result.Err != nil {
			r.t.Fatal(errors.Join(err, result.Err))
		}
	}
	if _, err := b.Receive(); !errors.Is(err, io.EOF) {
		r.t.Error(err)
	}
}

func (r *ride) sealedOne()   { r.tokenize(r.seals()) }
func (r *ride) sealedBatch() { r.batch(r.seals(), 50) }
func (r *ride) openOne()     { r.tokenize(r.sends()) }
func (r *ride) openBatch()   { r.batch(r.sends(), 50) }

func (r *ride) detokenized() {
	token := r.tokenize(r.seals())
	card, err := r.client.Detokenize(r.t.Context(), token.Token, "test", r.recipient)
	if err != nil || card.Number != r.cards[0].Number {
		r.t.Error(err)
	}
}

func (r *ride) retokenized() {
	r.batch(r.seals(), 20)
	r.command("key", "rotate", "tokenize")
	r.command("key", "retire", "tokenize", "1", "--window", "0s")
	r.until("all tokens are replaced", func() bool { return r.status().Left == 0 })
}

// typed is what a shopper types of a marked card.
func (r *ride) typed(number string) simulator.Typed {
	card := typed(number)
	card.CVV = r.cvv
	return card
}

// pays takes a payment to its end on the plain page.
func (r *ride) pays(number string, want api.Status) {
	r.t.Helper()
	id, link := r.buy()
	if _, _, err := r.shop.Pay(r.t.Context(), link, r.typed(number)); err != nil {
		r.t.Fatal(err)
	}
	if got := r.settled(id); got.Status != want {
		r.t.Errorf("the payment is %s, want %s", got.Status, want)
	}
}

func (r *ride) formWithErrors() {
	_, link := r.buy()
	for _, change := range []func(*simulator.Typed){
		func(c *simulator.Typed) { c.CVV = r.cvv + "77" },
		func(c *simulator.Typed) { c.Expiry = "01/20" },
		func(c *simulator.Typed) { c.Name = c.Number },
		func(c *simulator.Typed) { c.Number = c.Number[:15] + string('0'+(c.Number[15]-'0'+1)%10) },
	} {
		card := r.typed(r.card())
		change(&card)
		page, err := r.shop.Enter(r.t.Context(), link, card)
		if err != nil || page.Status != http.StatusUnprocessableEntity || strings.Contains(page.Text, card.Number) {
			r.t.Errorf("%d, %v", page.Status, err)
		}
	}
}

// post sends a body as it is and wants it refused.
func (r *ride) post(address, mediaType, body string, length int64) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Content-Type", mediaType)
	request.Header.Set("Authorization", "Bearer "+r.key)
	if length > 0 {
		request.ContentLength = length
	}
	response, err := r.system.client.Do(request)
	if err != nil {
		if length == 0 {
			r.t.Error(err)
		}
		return // a truncated body: this side noticed it first
	}
	defer func() { _ = response.Body.Close() }()
	answer, _ := io.ReadAll(response.Body)
	if response.StatusCode < 400 || response.StatusCode >= 500 {
		r.t.Errorf("%d for a malformed body", response.StatusCode)
	}
	for _, card := range r.cards {
		if bytes.Contains(answer, []byte(card.Number)) {
			r.t.Error("the answer quotes the number")
		}
	}
}

// wide16 is UTF-16 with a byte order mark.
func wide16(text string) string {
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		b.WriteByte(byte(unit))
		b.WriteByte(byte(unit >> 8))
	}
	return b.String()
}

func (r *ride) malformedForms() {
	_, link := r.buy()
	form := func() string {
		card := r.typed(r.card())
		return url.Values{"number": {card.Number}, "expiry": {card.Expiry}, "cvv": {card.CVV}}.Encode()
	}
	const plain = "application/x-www-form-urlencoded"
	whole := form()
	r.post(link, plain, whole, int64(len(whole)+100)) // cut off
	r.post(link, plain, form()+"%", 0)
	r.post(link, plain, form()+"&number=1", 0)
	r.post(link, plain, form()+"&colour=red", 0)
	r.post(link, plain, form()+"\x00", 0)
	r.post(link, plain, wide16(form()), 0)
	r.post(link, plain, form()+"&name="+strings.Repeat("x", 5000), 0)
	r.post(link, "application/json", aCard(r.card()), 0)
	r.post(link, "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=number\r\n\r\n"+r.card()+"\r\n--b--\r\n", 0)
}

func (r *ride) malformedCards() {
	for _, path := range []string{"/v1/tokens", "/v1/tokens/batch"} {
		address, mediaType := r.cfg.PublicURL+path, "application/json"
		bad := r.post
		if path == "/v1/tokens/batch" { // a bad line is its own; the batch is answered
			mediaType = "application/x-ndjson"
			bad = func(address, mediaType, body string, length int64) { r.send(address, mediaType, body, length) }
		}
		whole := aCard(r.card())
		bad(address, mediaType, whole, int64(len(whole)+100))
		bad(address, mediaType, aCard(r.card())[:30], 0)
		bad(address, mediaType, aCard(r.card())+"}", 0)
		bad(address, mediaType, `{"number":"`+r.card()+`","number":"1","expiry":"2031-12"}`, 0)
		bad(address, mediaType, `{"number":"`+r.card()+"\x00"+`","expiry":"2031-12"}`, 0)
		bad(address, mediaType, `{"number":"`+r.card()+`","expiry":"2031-12","cvv":"`+r.cvv+`"}`, 0)
		bad(address, mediaType, `{"number":`+r.card()+`,"expiry":"2031-12"}`, 0)
		bad(address, mediaType, wide16(aCard(r.card())), 0)
		bad(address, mediaType, r.card(), 0)
	}
}

// send sends a body, whatever is answered.
func (r *ride) send(address, mediaType, body string, length int64) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Content-Type", mediaType)
	request.Header.Set("Authorization", "Bearer "+r.key)
	if length > 0 {
		request.ContentLength = length
	}
	if response, err := r.system.client.Do(request); err == nil {
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
}

// misplaced puts a number into a header, a path, a query and a reference.
func (r *ride) misplaced() {
	for _, q := range []struct{ method, path, body, header, value string }{
		{"GET", "/v1/payments/" + r.card(), "", "", ""},
		{"GET", "/v1/tokens/" + r.card(), "", "", ""},
		{"GET", "/v1/payments?cursor=" + r.card(), "", "", ""},
		{"GET", "/checkout/" + r.card(), "", "", ""},
		{"GET", "/nowhere/" + r.card(), "", "", ""},
		{"POST", "/v1/payments", `{"amount":1,"currency":"EUR","reference":"` + r.card() + `","return_url":"https://shop.example/r"}`, "", ""},
		{"POST", "/v1/payments", `{"amount":1,"currency":"EUR","reference":"r","return_url":"https://shop.example/` + r.card() + `"}`, "", ""},
		{"POST", "/v1/payments", `{"amount":1,"currency":"EUR","reference":"r","return_url":"https://shop.example/r"}`, "Idempotency-Key", r.card()},
		{"GET", "/v1/payments", "", "User-Agent", r.card()},
		{"GET", "/v1/payments", "", "Authorization", "Bearer " + r.card()},
		{"GET", "/v1/payments", "", "X-Request-Id", r.card()},
	} {
		var header []string
		if q.header != "" {
			header = []string{q.header, q.value}
		}
		status, answer := r.call(q.method, q.path, q.body, header...)
		var problem struct{ Code string }
		_ = json.Unmarshal(answer, &problem)
		if accepted := q.header == "User-Agent" || q.header == "X-Request-Id"; status < 400 && !accepted || status >= 500 {
			r.t.Errorf("%s %s: %d %s", q.method, q.header, status, problem.Code)
		}
	}
}

// leftInAChallenge leaves a card in custody, to be found nowhere.
func (r *ride) leftInAChallenge() {
	_, link := r.buy()
	if _, err := r.shop.Enter(r.t.Context(), link, r.typed(r.known("5200828282828210"))); err != nil {
		r.t.Fatal(err)
	}
}
