package payment

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/store"
	"github.com/finterra/finpay/pci"
)

var (
	statuses = []api.Status{"", api.StatusCreated, api.StatusAuthenticating, api.StatusAuthorizing, api.StatusCaptured, api.StatusDeclined,
		api.StatusFailed, api.StatusExpired, api.StatusIndeterminate}
	events = []string{"payment.created", "payment.card_entered", "payment.challenged", "payment.authorizing", "payment.captured", "payment.declined",
		"payment.card_lost", "payment.not_sent", "payment.indeterminate", "payment.reversed", "payment.expired"}
)

func TestAPaymentMovesOnlyAsListed(t *testing.T) {
	legal := map[string]api.Status{ // written down a second time, by hand
		" payment.created":                   api.StatusCreated,
		"created payment.card_entered":       api.StatusAuthenticating,
		"created payment.expired":            api.StatusExpired,
		"declined payment.card_entered":      api.StatusAuthenticating,
		"authenticating payment.challenged":  api.StatusAuthenticating,
		"authenticating payment.authorizing": api.StatusAuthorizing,
		"authenticating payment.declined":    api.StatusDeclined,
		"authenticating payment.card_lost":   api.StatusCreated,
		"authorizing payment.captured":       api.StatusCaptured,
		"authorizing payment.declined":       api.StatusDeclined,
		"authorizing payment.not_sent":       api.StatusCreated,
		"authorizing payment.indeterminate":  api.StatusIndeterminate,
		"indeterminate payment.reversed":     api.StatusFailed,
	}
	for _, from := range statuses {
		for _, event := range events {
			p := store.Payment{ID: "pay_1", Status: string(from)}
			err := move(&p, event)
			to, ok := legal[string(from)+" "+event]
			if ok != (err == nil) || ok && p.Status != string(to) || !ok && p.Status != string(from) {
				t.Errorf("%s in %q: %q, %v", event, from, p.Status, err)
			}
			delete(legal, string(from)+" "+event)
		}
	}
	if len(legal) > 0 {
		t.Errorf("not tried: %v", legal)
	}
}

func TestHowACardEnds(t *testing.T) {
	for name, test := range map[string]struct {
		card   card
		refuse bool // unavailable: refuse
		want   api.Status
		reason api.Reason
		sales  int
	}{
		"approved":                         {card: card{}, want: api.StatusCaptured, sales: 1},
		"attempted":                        {card: card{issuer: pci.AuthenticationTried}, want: api.StatusCaptured, sales: 1},
		"not enrolled":                     {card: card{issuer: pci.NotEnrolled}, want: api.StatusCaptured, sales: 1},
		"not authenticated":                {card: card{issuer: pci.AuthenticationNo}, want: api.StatusDeclined, reason: api.ReasonNotAuthenticated},
		"an outcome nobody knows":          {card: card{issuer: "new"}, want: api.StatusDeclined, reason: api.ReasonNotAuthenticated},
		"issuer away, proceed":             {card: card{issuer: pci.AuthenticationDown}, want: api.StatusCaptured, sales: 1},
		"issuer away, refuse":              {card: card{issuer: pci.AuthenticationDown}, refuse: true, want: api.StatusDeclined, reason: api.ReasonNotAuthenticated},
		"refused although issuer was away": {card: card{issuer: pci.AuthenticationNo}, refuse: true, want: api.StatusDeclined, reason: api.ReasonNotAuthenticated},
		"nothing reached the issuer":       {card: card{down: true}, want: api.StatusCreated, reason: api.ReasonTryAgain},
		"declined":                         {card: card{acquirer: pci.Refused, code: "51"}, want: api.StatusDeclined, reason: "insufficient_funds", sales: 1},
		"declined for a new reason":        {card: card{acquirer: pci.Refused, code: "Z9"}, want: api.StatusDeclined, reason: api.ReasonCardRefused, sales: 1},
		"stolen":                           {card: card{acquirer: pci.Refused, code: "43"}, want: api.StatusDeclined, reason: api.ReasonCardRefused, sales: 1},
		"not sent":                         {card: card{acquirer: pci.Unsent}, want: api.StatusCreated, reason: api.ReasonTryAgain},
		"not answered":                     {card: card{acquirer: pci.Unknown}, want: api.StatusIndeterminate, reason: api.ReasonUnknownOutcome, sales: 1},
		"an answer nobody knows":           {card: card{acquirer: "new"}, want: api.StatusIndeterminate, reason: api.ReasonUnknownOutcome, sales: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := in(t, func(c *Config) { c.UnavailableRefuse = test.refuse })
			id, secret := w.create()
			w.paid(secret, test.card)
			w.wantStatus(id, test.want)
			if got := api.Reason(w.attempt(id, 1).Reason); got != test.reason {
				t.Errorf("reason %q, want %q", got, test.reason)
			}
			if n := len(w.acquirer.sales(id)); n != test.sales {
				t.Errorf("%d sales left, want %d", n, test.sales)
			}
			w.agree(id)
		})
	}
}

func TestAChallengeIsDecidedByTheIssuerAlone(t *testing.T) {
	for name, test := range map[string]struct {
		result pci.Authentication
		want   api.Status
	}{
		"yes":               {yes, api.StatusCaptured},
		"no":                {no, api.StatusDeclined},
		"another challenge": {pci.Authentication{Outcome: pci.ChallengeRequired, TransStatus: "C", ServerTransID: "server"}, api.StatusDeclined},
	} {
		t.Run(name, func(t *testing.T) {
			w := in(t, nil)
			id, secret := w.create()
			if v := w.paid(secret, card{issuer: pci.ChallengeRequired}); v.State != api.CheckoutChallenge || v.Challenge == nil || v.Challenge.CReq == "" {
				t.Fatalf("%+v", v)
			}
			// A second card during the challenge is not taken, and the shopper is shown the challenge again.
			if v := w.paid(secret, card{}); v.State != api.CheckoutChallenge {
				t.Errorf("a second card: %s", v.State)
			}
			if err := w.service.ChallengeDone(t.Context(), id, test.result); err != nil {
				t.Fatal(err)
			}
			if err := w.service.ChallengeDone(t.Context(), id, yes); !errors.Is(err, pci.ErrGone) {
				t.Errorf("a second result: %v", err)
			}
			if _, err := w.service.Await(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
			w.wantStatus(id, test.want)
			w.agree(id)
		})
	}
}

func TestAResultForNoChallengeIsRefused(t *testing.T) {
	w := in(t, nil)
	id, _ := w.create()
	for _, id := range []string{id, "pay_of_nobody", ""} {
		if err := w.service.ChallengeDone(t.Context(), id, yes); !errors.Is(err, pci.ErrGone) {
			t.Errorf("%q: %v", id, err)
		}
	}
	w.wantStatus(id, api.StatusCreated)
}

// The issuer of a card whose attempt is over may tell its result while another card's challenge is open.
func TestAResultOfAnotherChallengeDecidesNothing(t *testing.T) {
	w := in(t, nil)
	id, secret := w.create()
	w.paid(secret, card{issuer: pci.ChallengeRequired})
	for _, earlier := range []pci.Authentication{yes, no} {
		earlier.ServerTransID = "earlier"
		if err := w.service.ChallengeDone(t.Context(), id, earlier); !errors.Is(err, pci.ErrGone) {
			t.Errorf("%s: %v", earlier.TransStatus, err)
		}
	}
	if v, err := w.service.View(t.Context(), secret); err != nil || v.State != api.CheckoutChallenge {
		t.Errorf("%s, %v", v.State, err)
	}
	if err := w.service.ChallengeDone(t.Context(), id, yes); err != nil {
		t.Fatal(err)
	}
	if _, err := w.service.Await(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	w.wantStatus(id, api.StatusCaptured)
	w.agree(id)
}

func TestAShopperWhoNeverComesBackFromTheIssuerIsNotCharged(t *testing.T) {
	w := in(t, func(c *Config) { c.Challenge = time.Millisecond })
	id, secret := w.create()
	w.paid(secret, card{issuer: pci.ChallengeRequired})
	w.until("the challenge is over", func() bool { return w.payment(id).Status == string(api.StatusDeclined) })
	if got := api.Reason(w.attempt(id, 1).Reason); got != api.ReasonChallengeTimedOut {
		t.Errorf("reason %q", got)
	}
	if err := w.service.ChallengeDone(t.Context(), id, yes); !errors.Is(err, pci.ErrGone) {
		t.Errorf("a late result: %v", err)
	}
	if w.acquirer.charged(id) != 0 {
		t.Error("charged")
	}
	if v := w.paid(secret, card{}); v.State != api.CheckoutPaid { // another card may be tried
		t.Errorf("another card: %s", v.State)
	}
	w.agree(id)
}

func TestTheShopCanTrustTheReturn(t *testing.T) {
	w := in(t, nil)
	id, secret := w.create()
	v := w.paid(secret, card{})
	secrets, err := w.merchants.Secrets(t.Context(), ownShop)
	if err != nil {
		t.Fatal(err)
	}
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(secrets.Return, "rsec_"))
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(v.ReturnURL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%s.%s", q.Get("payment_id"), q.Get("status"), q.Get("timestamp"))
	if want := "v1," + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)); q.Get("signature") != want {
		t.Errorf("signature %s, want %s", q.Get("signature"), want)
	}
	if q.Get("payment_id") != id || q.Get("status") != "captured" || q.Get("timestamp") != fmt.Sprint(w.clock.Now().Unix()) {
		t.Errorf("%v", q)
	}
	if u.Host != "shop.example" || u.Path != "/thanks" || q.Get("cart") != "7" || q.Get("note") != "a b" {
		t.Errorf("the shop's own part was changed: %s", u)
	}
	if v.ReturnOrigin != "https://shop.example" {
		t.Errorf("origin %s", v.ReturnOrigin)
	}
}

func TestAReturnOverridesWhatItsAddressClaims(t *testing.T) {
	w := in(t, nil)
	request := order()
	request.ReturnURL = "https://shop.example/thanks?status=captured&signature=v1,x&payment_id=pay_x"
	p, err := w.service.Create(t.Context(), own, request, "")
	if err != nil {
		t.Fatal(err)
	}
	v := w.paid(w.session(p.ID), card{acquirer: pci.Refused})
	u, err := url.Parse(v.ReturnURL)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range u.Query() {
		if len(values) != 1 {
			t.Errorf("%s comes %d times", name, len(values))
		}
	}
	if got := u.Query().Get("status"); got != "declined" {
		t.Errorf("status %s", got)
	}
}

func TestReturnHosts(t *testing.T) {
	w := in(t, nil)
	m, err := w.store.Read(t.Context()).Merchant(ownShop)
	if err != nil {
		t.Fatal(err)
	}
	m.ReturnHosts = []string{"shop.example"}
	if _, err := w.merchants.Enter(t.Context(), ledger.Operator{Origin: "local"}, m); err != nil {
		t.Fatal(err)
	}
	for address, ok := range map[string]bool{
		"https://shop.example/x": true, "https://shop.example:8443/x": true, "https://evil.example/x": false,
		"https://shop.example.evil.example/": false, "https://shop.example@evil.example/": false, "https://%zz/": false,
	} {
		request := order()
		request.ReturnURL = address
		if _, err := w.service.Create(t.Context(), own, request, ""); ok != (err == nil) || !ok && !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestTheSameIdempotencyKeyMakesOnePayment(t *testing.T) {
	w := in(t, nil)
	first, err := w.service.Create(t.Context(), own, order(), "key-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.service.Create(t.Context(), own, order(), "key-1")
	if err != nil || again.ID != first.ID || again.CheckoutURL != first.CheckoutURL {
		t.Errorf("%+v, %v", again, err)
	}
	other := order()
	other.Amount++
	if _, err := w.service.Create(t.Context(), own, other, "key-1"); !errors.Is(err, api.ErrIdempotency) {
		t.Errorf("another request: %v", err)
	}
	customer := order()
	customer.Customer = &api.Customer{Name: "Aisyah Tan"}
	if _, err := w.service.Create(t.Context(), own, customer, "key-1"); !errors.Is(err, api.ErrIdempotency) {
		t.Errorf("a request with a customer: %v", err)
	}
	theirs, err := w.service.Create(t.Context(), api.Caller{MerchantID: otherShop}, order(), "key-1")
	if err != nil || theirs.ID == first.ID {
		t.Errorf("another merchant's key: %+v, %v", theirs, err)
	}
	for range 2 { // no key: a payment each
		if p, err := w.service.Create(t.Context(), own, order(), ""); err != nil || p.ID == first.ID {
			t.Errorf("%+v, %v", p, err)
		}
	}
	w.restart()
	if again, err := w.service.Create(t.Context(), own, order(), "key-1"); err != nil || again.ID != first.ID {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
}

func TestTheSameIdempotencyKeyAtOnceMakesOnePayment(t *testing.T) {
	w := in(t, nil)
	var mu sync.Mutex
	ids := make(map[string]int)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			request := order()
			if i%4 == 3 {
				request.Amount++
			}
			p, err := w.service.Create(context.Background(), own, request, "key-1")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				ids[p.ID]++
			case !errors.Is(err, api.ErrIdempotency):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(ids) != 1 {
		t.Errorf("%d payments: %v", len(ids), ids)
	}
}

func TestListsComeByPageAndFilter(t *testing.T) {
	w := in(t, nil)
	var ids []string // oldest first
	for i := range 7 {
		request := order()
		request.Reference = fmt.Sprintf("order-%d", i%2)
		p, err := w.service.Create(t.Context(), own, request, "")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.ID)
		w.clock.advance(time.Minute)
	}
	if _, err := w.service.Create(t.Context(), api.Caller{MerchantID: otherShop}, order(), ""); err != nil {
		t.Fatal(err)
	}
	w.paid(w.session(ids[2]), card{})
	begin := w.payment(ids[0]).CreatedAt
	list := func(q api.ListPayments) (got []string, pages int) {
		t.Helper()
		for pages = 1; ; pages++ {
			page, err := w.service.List(t.Context(), own, q)
			if err != nil || len(page.Payments) > q.Limit {
				t.Fatalf("%d payments, %v", len(page.Payments), err)
			}
			for _, p := range page.Payments {
				got = append(got, p.ID)
			}
			if q.Cursor = page.NextCursor; q.Cursor == "" {
				return got, pages
			}
		}
	}
	sorted := func(indexes ...int) string {
		var want []string
		for _, i := range indexes {
			want = append(want, ids[i])
		}
		return fmt.Sprint(want)
	}
	descending := func(some ...int) string { // ids of one millisecond have no order in time: the list's is that of ids
		out := make([]string, 0, len(some))
		for _, i := range some {
			out = append(out, ids[i])
		}
		for i := range out {
			for j := range out[:i] {
				if out[i] > out[j] {
					out[i], out[j] = out[j], out[i]
				}
			}
		}
		return fmt.Sprint(out)
	}
	for name, test := range map[string]struct {
		query api.ListPayments
		want  string
		pages int
	}{
		"all in one":    {api.ListPayments{Limit: 100}, descending(0, 1, 2, 3, 4, 5, 6), 1},
		"exactly one":   {api.ListPayments{Limit: 7}, descending(0, 1, 2, 3, 4, 5, 6), 1},
		"by three":      {api.ListPayments{Limit: 3}, descending(0, 1, 2, 3, 4, 5, 6), 3},
		"one by one":    {api.ListPayments{Limit: 1}, descending(0, 1, 2, 3, 4, 5, 6), 7},
		"captured":      {api.ListPayments{Limit: 3, Status: api.StatusCaptured}, sorted(2), 1},
		"reference":     {api.ListPayments{Limit: 2, Reference: "order-1"}, descending(1, 3, 5), 2},
		"from":          {api.ListPayments{Limit: 9, From: begin.Add(5 * time.Minute)}, descending(5, 6), 1},
		"to":            {api.ListPayments{Limit: 9, To: begin.Add(time.Minute)}, sorted(0), 1},
		"both":          {api.ListPayments{Limit: 1, From: begin.Add(time.Minute), To: begin.Add(3 * time.Minute)}, descending(1, 2), 2},
		"nothing":       {api.ListPayments{Limit: 9, Reference: "order-9"}, "[]", 1},
		"not a pattern": {api.ListPayments{Limit: 9, Reference: "order-%"}, "[]", 1},
	} {
		if got, pages := list(test.query); fmt.Sprint(got) != test.want || pages != test.pages {
			t.Errorf("%s: %v in %d pages, want %s", name, got, pages, test.want)
		}
	}
}

func TestAnotherMerchantsPaymentIsNotThere(t *testing.T) {
	w := in(t, nil)
	id, _ := w.create()
	for name, caller := range map[string]api.Caller{"another": {MerchantID: otherShop}, "nobody": {}} {
		if _, err := w.service.Get(t.Context(), caller, id); !errors.Is(err, api.ErrNotFound) {
			t.Errorf("%s: get: %v", name, err)
		}
		if _, err := w.service.Receipt(t.Context(), caller, id); !errors.Is(err, api.ErrNotFound) {
			t.Errorf("%s: receipt: %v", name, err)
		}
	}
	if _, err := w.service.Get(t.Context(), own, "pay_of_nobody"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
	if _, err := w.service.Create(t.Context(), api.Caller{MerchantID: "mer_gone"}, order(), ""); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("an unknown merchant: %v", err)
	}
}

func TestAReceiptHasEveryEntryAndNoPerson(t *testing.T) {
	w := in(t, nil)
	request := order()
	request.Customer = &api.Customer{Name: "Siti Aminah", Email: "siti@example.com", Phone: "+60 12-345 6789"}
	p, err := w.service.Create(t.Context(), own, request, "")
	if err != nil {
		t.Fatal(err)
	}
	w.paid(w.session(p.ID), card{})
	receipt, err := w.service.Receipt(t.Context(), own, p.ID)
	if err != nil || len(receipt.Entries) != 4 || receipt.VerifierKey != w.ledger.VerifierKey() {
		t.Fatalf("%+v, %v", receipt, err)
	}
	for _, e := range receipt.Entries {
		for _, person := range []string{"Siti", "siti@", "345 6789", "123456789", "Aisyah", "198.51.100.7"} {
			if strings.Contains(e.Entry, person) {
				t.Errorf("an entry names a person (%s): %s", person, e.Entry)
			}
		}
	}
	asked := w.issuer.requests()[0]
	if asked.Cardholder != (pci.Cardholder{Name: "Aisyah Tan", Email: "siti@example.com", Phone: pci.Phone{CountryCode: "60", Subscriber: "123456789"}}) {
		t.Errorf("the issuer is told %+v", asked.Cardholder)
	}
	if asked.NotificationURL != publicURL+"/checkout/"+w.session(p.ID)+"/3ds" {
		t.Errorf("the way back is %s", asked.NotificationURL)
	}
}

func TestPhoneNumbers(t *testing.T) {
	for text, want := range map[string]pci.Phone{
		"+60 123456789":   {CountryCode: "60", Subscriber: "123456789"},
		"+60-12-345 6789": {CountryCode: "60", Subscriber: "123456789"},
		"+60123456789":    {},
		"0123456789":      {},
		"":                {},
	} {
		if got := parsePhone(text); got != want {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestCardsAreTriedOnlySoOften(t *testing.T) {
	for name, c := range map[string]card{"declined": {acquirer: pci.Refused, code: "51"}, "lost": {down: true}, "not sent": {acquirer: pci.Unsent}} {
		t.Run(name, func(t *testing.T) {
			w := in(t, nil)
			id, secret := w.create()
			for i := range maxTries - 1 {
				if v := w.paid(secret, c); v.State != api.CheckoutPayable || v.Decline == "" {
					t.Errorf("after card %d: %s, %q", i+1, v.State, v.Decline)
				}
			}
			for range 2 { // the last one, and one too many
				v := w.paid(secret, c)
				if v.State != api.CheckoutFailed || v.Challenge != nil {
					t.Errorf("%+v", v)
				}
				if u, err := url.Parse(v.ReturnURL); err != nil || u.Query().Get("signature") == "" || u.Query().Get("status") == "created" {
					t.Errorf("the shopper's way back is %q", v.ReturnURL)
				}
			}
			if p := w.payment(id); p.Attempts != maxTries {
				t.Errorf("%d attempts", p.Attempts)
			}
			if got, err := w.service.Get(t.Context(), own, id); err != nil || got.CheckoutURL != "" {
				t.Errorf("%+v, %v", got, err)
			}
			w.agree(id)
		})
	}
}

func TestACardThatIsNotWantedIsDestroyed(t *testing.T) {
	w := in(t, nil)
	t.Run("unknown session", func(t *testing.T) {
		if _, err := w.pay("no-such-session", card{}); !errors.Is(err, api.ErrNoSession) {
			t.Errorf("%v", err)
		}
	})
	t.Run("expired session", func(t *testing.T) {
		id, secret := w.create()
		w.clock.advance(session)
		if v := w.paid(secret, card{}); v.State != api.CheckoutExpired || !strings.Contains(v.ReturnURL, "status=expired") {
			t.Errorf("%+v", v)
		}
		if got, err := w.service.Get(t.Context(), own, id); err != nil || got.CheckoutURL != "" || got.Attempts != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("paid before", func(t *testing.T) {
		id, secret := w.create()
		w.paid(secret, card{})
		if v := w.paid(secret, card{}); v.State != api.CheckoutPaid || w.acquirer.charged(id) != 1 {
			t.Errorf("%s, charged %d times", v.State, w.acquirer.charged(id))
		}
	})
	t.Run("the HSM makes no token", func(t *testing.T) {
		id, secret := w.create()
		w.cards.fail = pci.ErrUnavailable
		defer func() { w.cards.fail = nil }()
		if _, err := w.pay(secret, card{}); !errors.Is(err, pci.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		w.wantStatus(id, api.StatusCreated)
	})
	t.Run("the HSM signs nothing", func(t *testing.T) {
		id, secret := w.create()
		w.key.fail(1)
		if _, err := w.pay(secret, card{}); !errors.Is(err, api.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		w.wantStatus(id, api.StatusCreated)
		if v := w.paid(secret, card{}); v.State != api.CheckoutPaid {
			t.Errorf("a moment later: %s", v.State)
		}
	})
	if n := w.cards.left(); n > 0 {
		t.Errorf("%d cards are left", n)
	}
}

func TestOneFormSubmittedTwiceIsOneAttempt(t *testing.T) {
	w := in(t, nil)
	id, secret := w.create()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			v, err := w.service.Pay(context.Background(), secret, w.cards.hold(card{acquirer: pci.Refused, code: "51"}), entered("form-1"), pci.Browser{})
			if err != nil || v.State != api.CheckoutPayable || v.Decline != "insufficient_funds" {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	wg.Wait()
	if p := w.payment(id); p.Attempts != 1 || len(w.acquirer.sales(id)) != 1 {
		t.Errorf("%d attempts, %d sales", p.Attempts, len(w.acquirer.sales(id)))
	}
	// Once it is declined another card is wanted, but not from that form.
	if v, err := w.service.Pay(t.Context(), secret, w.cards.hold(card{}), entered("form-1"), pci.Browser{}); err != nil || v.State != api.CheckoutPayable {
		t.Errorf("%+v, %v", v, err)
	}
	w.wantStatus(id, api.StatusDeclined)
	if _, err := w.service.Pay(t.Context(), secret, w.cards.hold(card{}), entered("form-2"), pci.Browser{}); err != nil {
		t.Fatal(err)
	}
	w.wantStatus(id, api.StatusCaptured)
}

func TestAnOutcomeIsEnteredOnceTheHSMIsBackAndTheCardIsGoneMeanwhile(t *testing.T) {
	w := in(t, nil)
	id, secret := w.create()
	ref := w.cards.hold(card{hold: true})
	done := make(chan api.CheckoutView, 1)
	go func() {
		v, err := w.service.Pay(context.Background(), secret, ref, entered(""), pci.Browser{})
		if err != nil {
			t.Error(err)
		}
		done <- v
	}()
	w.until("the sale waits for its answer", func() bool { return w.acquirer.holds(id) })
	w.key.fail(2)
	w.acquirer.release()
	w.until("the card is gone", func() bool { return !w.cards.has(ref) })
	if v := <-done; v.State != api.CheckoutPaid {
		t.Errorf("%s", v.State)
	}
	w.agree(id)
}

// errorCount counts what is logged as an error.
type errorCount struct {
	slog.Handler
	n *atomic.Int64
}

func (c errorCount) Enabled(context.Context, slog.Level) bool { return true }

func (c errorCount) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		c.n.Add(1)
	}
	return nil
}

func TestAnOutcomeIsEnteredOnceTheDiskHasRoomAgain(t *testing.T) {
	var failures atomic.Int64
	w := in(t, func(c *Config) { c.Log = slog.New(errorCount{slog.DiscardHandler, &failures}) })
	id, secret := w.create()
	done := make(chan error, 1)
	go func() {
		_, err := w.pay(secret, card{hold: true})
		done <- err
	}()
	w.until("the sale waits for its answer", func() bool { return w.acquirer.holds(id) })
	limit := func(pages int) { // the smallest that SQLite takes is what the database has
		if _, err := w.ledger.Commit(t.Context(), func(tx *ledger.Tx) error { return tx.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages)) }); err != nil {
			t.Fatal(err)
		}
	}
	limit(1)
	full := func() error {
		request := order()
		request.Reference = strings.Repeat("x", 30_000)
		_, err := w.service.Create(t.Context(), own, request, "")
		return err
	}
	w.until("the disk is full", func() bool { return full() != nil })
	if err := full(); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("a merchant is told %v", err)
	}
	fill := order()
	fill.Reference = "x"
	w.until("the disk has not a page left", func() bool { _, err := w.service.Create(t.Context(), own, fill, ""); return err != nil })
	w.acquirer.release()
	w.until("the outcome could not be entered", func() bool { return failures.Load() > 0 })
	limit(1 << 20)
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.wantStatus(id, api.StatusCaptured)
	w.agree(id)
}

func TestStoppingWaitsForASaleAndGivesUpChallenges(t *testing.T) {
	w := in(t, nil)
	challenged, secret := w.create()
	w.paid(secret, card{issuer: pci.ChallengeRequired})
	selling, other := w.create()
	sold := make(chan api.CheckoutView, 1)
	go func() {
		v, err := w.pay(other, card{hold: true})
		if err != nil {
			t.Error(err)
		}
		sold <- v
	}()
	w.until("the sale waits for its answer", func() bool { return w.acquirer.holds(selling) })

	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.service.Run(ctx)
	}()
	stop()
	w.until("the challenge is given up", func() bool { return w.payment(challenged).Status == string(api.StatusCreated) })
	if got := api.Reason(w.attempt(challenged, 1).Reason); got != api.ReasonTryAgain {
		t.Errorf("reason %q", got)
	}
	select {
	case <-stopped:
		t.Fatal("stopped while a sale was on its way")
	default:
	}
	if _, err := w.pay(secret, card{}); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("a card while stopping: %v", err)
	}
	w.acquirer.release()
	<-stopped
	if v := <-sold; v.State != api.CheckoutPaid {
		t.Errorf("the sale under way ends as %s", v.State)
	}
	if n := w.cards.left(); n > 0 {
		t.Errorf("%d cards are left", n)
	}
	w.restart() // what came while stopping
	w.wantStatus(challenged, api.StatusCreated)
	if v := w.paid(secret, card{}); v.State != api.CheckoutPaid {
		t.Errorf("the next process: %s", v.State)
	}
	w.agree(challenged)
	w.agree(selling)
}

func TestAStopThatTakesTooLongCutsTheSaleOffAndTheNextProcessReversesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		id, secret := w.create()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = w.pay(secret, card{hold: true})
		}()
		w.until("the sale waits for its answer", func() bool { return w.acquirer.holds(id) })
		began := time.Now()
		w.service.close()
		if took := time.Since(began); took < closeTimeout || took > closeTimeout+time.Second {
			t.Errorf("stopped after %v", took)
		}
		<-done
		w.wantStatus(id, api.StatusIndeterminate)
		w.restart()
		w.acquirer.ack = true
		if w.service.reverseOnce(t.Context(), map[string]bool{}) != 0 || w.acquirer.charged(id) != 0 {
			t.Error("not reversed")
		}
		w.wantStatus(id, api.StatusFailed)
		w.end()
	})
}

func TestTraceNumbersBeginAgainAfterTheLast(t *testing.T) {
	w := in(t, nil)
	if _, err := w.ledger.Commit(t.Context(), func(tx *ledger.Tx) error {
		return tx.Exec("INSERT INTO sequences (name, value) VALUES (?, ?)", "stan/"+terminal, 999_997)
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"999998", "999999", "000001", "000002"} {
		id, secret := w.create()
		w.paid(secret, card{})
		trace := w.acquirer.sales(id)[0]
		if trace.STAN != want || trace.RRN != "632701"+want {
			t.Errorf("STAN %s, RRN %s, want %s", trace.STAN, trace.RRN, want) // 6: 2026, 327: 23 November, 01: the hour in UTC
		}
	}
}

func TestAReversalIsRepeatedUntilItIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.acquirer.reject = errors.New("the line is down")
		ctx, stop := context.WithCancel(context.Background())
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			w.service.Run(ctx)
		}()
		id, secret := w.create()
		if v := w.paid(secret, card{acquirer: pci.Unknown, booked: true}); v.State != api.CheckoutUncertain {
			t.Errorf("%s", v.State)
		}
		if n, err := w.service.Pending(t.Context()); err != nil || n != 1 {
			t.Errorf("%d pending, %v", n, err)
		}
		sent := func() []pci.ReversalRequest {
			w.acquirer.mu.Lock()
			defer w.acquirer.mu.Unlock()
			return append([]pci.ReversalRequest(nil), w.acquirer.reversals...)
		}
		w.until("four reversals", func() bool { return len(sent()) == 4 })
		w.acquirer.set(func(a *acquirer) { a.ack, a.reject = true, nil })
		w.until("it is acknowledged", func() bool { return w.payment(id).Status == string(api.StatusFailed) })
		sale := w.acquirer.sales(id)[0]
		for i, r := range sent() {
			if r.Original != sale || r.Trace != sent()[0].Trace || r.Trace.STAN == sale.STAN || r.Repeat != (i > 0) {
				t.Errorf("reversal %d of %+v: %+v", i+1, sale, r)
			}
		}
		if w.acquirer.charged(id) != 0 {
			t.Error("charged")
		}
		if v := w.paid(secret, card{}); v.State != api.CheckoutFailed || len(w.acquirer.sales(id)) != 1 {
			t.Errorf("a second card after an unknown outcome: %s", v.State)
		}
		w.agree(id)
		stop()
		<-stopped
		w.end()
	})
}

func TestPaymentsEndAtTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		unpaid, secret := w.create()
		paid, other := w.create()
		w.paid(other, card{})
		declined, third := w.create()
		w.paid(third, card{acquirer: pci.Refused})
		ctx, stop := context.WithCancel(context.Background())
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			w.service.Run(ctx)
		}()
		w.clock.advance(session + time.Second)
		w.until("it is expired", func() bool { return w.payment(unpaid).Status == string(api.StatusExpired) })
		w.wantStatus(paid, api.StatusCaptured)
		w.wantStatus(declined, api.StatusDeclined)
		if got := w.events(unpaid); got["payment.expired"] != 1 {
			t.Errorf("the merchant is told %v", got)
		}
		if v := w.paid(secret, card{}); v.State != api.CheckoutExpired {
			t.Errorf("%s", v.State)
		}
		w.agree(unpaid)
		stop()
		<-stopped
		w.end()
	})
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	w := in(t, nil)
	id, secret := w.create()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = w.pay(secret, card{hold: true})
	}()
	w.until("the sale waits for its answer", func() bool { return w.acquirer.holds(id) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.service.Await(ctx, secret); err == nil {
		t.Error("a view without a context to read it in")
	}
	bounded, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if v, err := w.service.Await(bounded, secret); err != nil || v.State != api.CheckoutProcessing {
		t.Errorf("%+v, %v", v, err)
	}
	w.acquirer.release()
	<-done
}

func TestWhatAMerchantIsTold(t *testing.T) {
	w := in(t, nil)
	id, secret := w.create()
	w.paid(secret, card{acquirer: pci.Refused, code: "51"})
	w.paid(secret, card{})
	told, err := w.store.Read(t.Context()).Events(store.EventFilter{MerchantID: w.payment(id).MerchantID, Limit: 10})
	if err != nil || len(told) != 2 {
		t.Fatalf("%d events, %v", len(told), err)
	}
	for _, e := range told {
		var body struct {
			Type string
			Data api.Payment
		}
		if err := json.Unmarshal(e.Body, &body); err != nil {
			t.Fatal(err)
		}
		if body.Type != e.Type || body.Data.ID != id || "payment."+string(body.Data.Status) != body.Type || body.Data.CheckoutURL != "" {
			t.Errorf("%s: %s", e.Type, e.Body)
		}
		if strings.Contains(string(e.Body), secret) {
			t.Error("an event carries the checkout session")
		}
	}
}
