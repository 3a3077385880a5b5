package softhsmtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/simulator"
	"github.com/finterra/finpay/pci"
)

// approvedCards are approved, and some make trouble later.
var approvedCards = []string{approvedCard, approvedCard, "5555555555554444", captureLostCard, "4539121212121210", refundDeniedCard, refundSilentCard}

// The load: so many people at once, each of whom gives up on one thing after so long.
const (
	people       = 16
	loadPatience = 8 * time.Second
)

// crowd are shoppers and their merchant, who go on whatever happens to the appliance.
type crowd struct {
	*system

	closing chan struct{}
	all     sync.WaitGroup
	deeds   atomic.Int64

	mu    sync.Mutex
	known []api.Payment // as they were last seen; the newest hundred
}

// gather lets people begin. They finish what they have begun when they are sent home.
func (s *system) gather() *crowd {
	c := &crowd{system: s, closing: make(chan struct{})}
	for range people {
		c.all.Go(func() {
			for c.open() {
				c.deed()
				c.deeds.Add(1)
			}
		})
	}
	return c
}

func (c *crowd) open() bool {
	select {
	case <-c.closing:
		return false
	default:
		return true
	}
}

func (c *crowd) home() {
	close(c.closing)
	c.all.Wait()
}

// deed is one thing that somebody does. It fails, or not: that is the point.
func (c *crowd) deed() {
	ctx, cancel := context.WithTimeout(c.t.Context(), loadPatience)
	defer cancel()
	p, ok := c.some()
	switch n := rand.IntN(10); {
	case n < 4 || !ok:
		c.shops(ctx, "")
	case n < 5:
		c.shops(ctx, `,"capture":"manual"`)
	case n < 6 && p.Token != "":
		c.shops(ctx, fmt.Sprintf(`,"token":%q`, p.Token))
	case n < 7 && p.Token != "" && p.Captured > 0 && p.Initiator != pci.ByMerchant:
		c.create(ctx, fmt.Sprintf(`{"amount":%d,"currency":%q,"reference":"own","token":%q,"initiator":"merchant","original":%q}`,
			anotherAmount(), p.Currency, p.Token, p.ID))
	default:
		c.changes(ctx, p)
	}
}

// some returns a payment that somebody knows of.
func (c *crowd) some() (api.Payment, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) == 0 {
		return api.Payment{}, false
	}
	return c.known[rand.IntN(len(c.known))], true
}

func (c *crowd) learn(p api.Payment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, earlier := range c.known {
		if earlier.ID == p.ID {
			c.known[i] = p
			return
		}
	}
	if len(c.known) >= 100 {
		c.known = c.known[1:]
	}
	c.known = append(c.known, p)
}

// create asks for a payment until there is an answer, under one idempotency key: there is one payment whatever happens.
func (c *crowd) create(ctx context.Context, body string) (p api.Payment, ok bool) {
	key := fmt.Sprintf("%016x", rand.Uint64())
	for ctx.Err() == nil {
		status, answer, err := c.asks(ctx, "/v1/payments", body, key)
		if err == nil && status == http.StatusCreated && json.Unmarshal(answer, &p) == nil {
			c.learn(p)
			return p, true
		}
		if err == nil && status < http.StatusInternalServerError && status != http.StatusConflict {
			return p, false
		}
		pause(ctx, 50*time.Millisecond)
	}
	return p, false
}

// asks is a merchant's request, under an idempotency key.
func (c *crowd) asks(ctx context.Context, path, body, key string) (int, []byte, error) {
	return c.do(ctx, http.MethodPost, path, body, "Idempotency-Key", key)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// shops makes a payment, and pays it with a card, often with one that makes trouble, or with the stored one.
func (c *crowd) shops(ctx context.Context, rest string) {
	currency := []string{"EUR", "MYR"}[rand.IntN(2)]
	p, ok := c.create(ctx, c.order(anotherAmount(), currency, rest))
	if !ok {
		return
	}
	switch number := simulator.Cards[rand.IntN(len(simulator.Cards))].Number; {
	case rand.IntN(8) == 0: // the merchant thinks better of it
		_, _, _ = c.do(ctx, http.MethodPost, "/v1/payments/"+p.ID+"/void", "")
	case p.Token != "":
		_, _, _ = c.shop.PayStored(ctx, p.CheckoutURL)
	case rand.IntN(2) == 0 || p.Capture == "manual": // what can be captured, voided or refunded, or nearly
		_, _, _ = c.shop.Pay(ctx, p.CheckoutURL, typed(approvedCards[rand.IntN(len(approvedCards))]))
	case rand.IntN(8) == 0: // one who leaves where the issuer asks, or somebody waits
		_, _ = c.shop.Enter(ctx, p.CheckoutURL, typed(number))
	default:
		_, _, _ = c.shop.Pay(ctx, p.CheckoutURL, typed(number))
	}
	c.looks(ctx, p.ID)
}

// looks is how people learn what became of a payment.
func (c *crowd) looks(ctx context.Context, id string) {
	status, body, err := c.do(ctx, http.MethodGet, "/v1/payments/"+id, "")
	var p api.Payment
	if err == nil && status == http.StatusOK && json.Unmarshal(body, &p) == nil {
		c.learn(p)
	}
}

// changes captures, voids or refunds what can be, in part or as a whole, and sometimes what cannot.
func (c *crowd) changes(ctx context.Context, p api.Payment) {
	what, body := "refunds", "{}"
	if p.Status == api.StatusAuthorized || rand.IntN(8) == 0 {
		what = []string{"capture", "capture", "void"}[rand.IntN(3)]
	}
	switch {
	case what == "void":
		body = ""
	case rand.IntN(2) == 0:
		body = fmt.Sprintf(`{"amount":%d}`, 1+rand.Int64N(p.Amount))
	}
	key := fmt.Sprintf("%016x", rand.Uint64())
	for range 2 { // the second time as one who has had no answer
		if _, _, err := c.asks(ctx, "/v1/payments/"+p.ID+"/"+what, body, key); err == nil {
			break
		}
		pause(ctx, 50*time.Millisecond)
	}
	c.looks(ctx, p.ID)
}

// weather changes what goes wrong outside, until ctx ends; then nothing does.
func (s *system) weather(ctx context.Context) {
	fair := simulator.Fault("")
	at := map[string][]simulator.Fault{
		"/acquirer": {fair, fair, fair, fair, fair, simulator.Slow, simulator.Mute, simulator.Deaf, simulator.HalfFrame, simulator.GarbledLength,
			simulator.AnswersTwice, simulator.OtherSTAN, simulator.Refusing},
		"/ds":  {fair, fair, fair, simulator.Truncated, simulator.Dropped},
		"/acs": {fair, fair, simulator.ResultTwice, simulator.ResultNever},
	}
	for ctx.Err() == nil {
		for who, faults := range at {
			s.behave(who, faults[rand.IntN(len(faults))])
		}
		pause(ctx, time.Duration(200+rand.IntN(600))*time.Millisecond)
	}
	for who := range at {
		s.behave(who, fair)
	}
}
