package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/finterra/finpay/api"
	"github.com/finterra/finpay/api/logproof"
	"github.com/finterra/finpay/appliance/ledger"
	"github.com/finterra/finpay/appliance/simulator"
)

// demonstrator drives shop and shopper, and asks for evidence of each step.
type demonstrator struct {
	t       *trial
	client  *http.Client
	shopper *simulator.Shopper
	apiKey  string
	vkey    string
}

func newDemonstrator(t *trial) (*demonstrator, error) {
	client, err := t.client()
	if err != nil {
		return nil, err
	}
	settings, err := simulatorConfig(t.cfg)
	if err != nil {
		return nil, err
	}
	vkey, err := os.ReadFile(filepath.Join(t.cfg.State(), verifierKeyFile))
	if err != nil {
		return nil, err
	}
	return &demonstrator{t, client, &simulator.Shopper{Client: client}, settings.APIKey, strings.TrimSpace(string(vkey))}, nil
}

// evidence is what the demo collects of a payment, from four sides: the API, the signed log, the acquirer's books
// and the shop.
type evidence struct {
	noKeyStatus int
	link        string
	challenged  bool
	payment     api.Payment
	entries     map[string]entryFound
	origin      string
	booking     string
	shopReturn  string
	shopWebhook string
}

// entryFound is an entry of the receipt whose proof and signature hold.
type entryFound struct {
	index int64
	data  map[string]any
	rows  int
}

func (d *demonstrator) play(ctx context.Context, s scenario) (demoPayment, error) {
	var e evidence
	var err error
	if e.noKeyStatus, err = d.api(ctx, "/v1/payments", "", nil); err != nil {
		return demoPayment{}, err
	}
	if e.link, err = d.shopper.Buy(ctx, d.t.shopURL()); err != nil {
		return demoPayment{}, err
	}
	last, challenged, err := d.shopper.Pay(ctx, e.link, simulator.Typed{
		Number: s.number, Expiry: fmt.Sprintf("12/%02d", (time.Now().Year()+3)%100), CVV: s.cvv, Name: "Aisyah Tan"})
	if err != nil {
		return demoPayment{}, err
	}
	e.challenged = challenged
	id := last.URL.Query().Get("payment_id")
	if _, err := d.api(ctx, "/v1/payments/"+url.PathEscape(id), d.apiKey, &e.payment); err != nil {
		return demoPayment{}, err
	}
	if err := d.collect(ctx, &e); err != nil {
		return demoPayment{ID: id, Status: string(e.payment.Status)}, err
	}
	p := demoPayment{ID: id, Status: string(e.payment.Status), Token: string(e.payment.Token), Webhook: e.shopWebhook, Return: e.shopReturn, Steps: steps(s, e)}
	if e.payment.Card != nil {
		p.Card = string(e.payment.Card.Truncated)
	}
	var failed []error
	for _, step := range p.Steps {
		if !step.OK {
			failed = append(failed, fmt.Errorf("step %d did not hold: %s", step.N, step.Name))
		}
	}
	return p, errors.Join(failed...)
}

// api asks the appliance's API as the shop would.
func (d *demonstrator) api(ctx context.Context, path, apiKey string, into any) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.t.cfg.PublicURL+path, nil)
	if err != nil {
		return 0, err
	}
	if apiKey != "" {
		request.Header.Set("Authorization", "Bearer "+apiKey)
	}
	return d.do(request, into)
}

func (d *demonstrator) do(request *http.Request, into any) (status int, err error) {
	response, err := d.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	if into == nil {
		return response.StatusCode, nil
	}
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, fmt.Errorf("%s: HTTP %d", request.URL.Path, response.StatusCode)
	}
	return response.StatusCode, json.NewDecoder(response.Body).Decode(into)
}

// collect asks log, acquirer and shop; the shop is asked until the webhook is there.
func (d *demonstrator) collect(ctx context.Context, e *evidence) error {
	if err := d.receipt(ctx, e); err != nil {
		return err
	}
	if err := d.books(ctx, e); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		done, err := d.shop(ctx, e)
		if err != nil || done {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("no webhook with a valid signature has reached the shop")
		}
	}
}

// receipt verifies every entry of the payment: its proof of inclusion, and the checkpoint's signature under the key
// that was pinned when the appliance was set up.
func (d *demonstrator) receipt(ctx context.Context, e *evidence) error {
	var receipt api.Receipt
	if _, err := d.api(ctx, "/v1/payments/"+e.payment.ID+"/receipt", d.apiKey, &receipt); err != nil {
		return err
	}
	e.entries, e.origin = make(map[string]entryFound), receipt.Origin
	for _, r := range receipt.Entries {
		if err := logproof.Verify(r.Index, []byte(r.Entry), []byte(r.Proof), receipt.Origin, d.vkey); err != nil {
			return fmt.Errorf("receipt, entry %d: %w", r.Index, err)
		}
		var entry ledger.Entry
		if err := json.Unmarshal([]byte(r.Entry), &entry); err != nil {
			return err
		}
		e.entries[entry.Type] = entryFound{r.Index, entry.Data, len(entry.Rows)}
	}
	return nil
}

// books asks the acquirer what it has booked under the sale's retrieval reference.
func (d *demonstrator) books(ctx context.Context, e *evidence) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.t.shopURL()+"/acquirer/books", nil)
	if err != nil {
		return err
	}
	var books struct {
		Bookings []struct {
			RRN   string `json:"rrn"`
			State string `json:"state"`
		} `json:"bookings"`
	}
	if _, err := d.do(request, &books); err != nil {
		return err
	}
	for _, b := range books.Bookings {
		if b.RRN != "" && b.RRN == e.entries["payment.authorizing"].data["rrn"] {
			e.booking = b.State
		}
	}
	return nil
}

// shop asks what the shop has verified of the payment.
func (d *demonstrator) shop(ctx context.Context, e *evidence) (done bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.t.shopURL()+"/orders", nil)
	if err != nil {
		return false, err
	}
	var answer struct {
		Orders []struct {
			PaymentID string `json:"payment_id"`
			Return    *struct {
				Status   string `json:"status"`
				Verified bool   `json:"verified"`
			} `json:"return"`
			Webhooks []struct {
				Type     string `json:"type"`
				Verified bool   `json:"verified"`
			} `json:"webhooks"`
		} `json:"orders"`
	}
	if _, err := d.do(request, &answer); err != nil {
		return false, err
	}
	for _, o := range answer.Orders {
		if o.PaymentID != e.payment.ID {
			continue
		}
		if o.Return != nil && o.Return.Verified {
			e.shopReturn = o.Return.Status
		}
		for _, w := range o.Webhooks {
			if w.Verified {
				e.shopWebhook = w.Type
			}
		}
	}
	return e.shopWebhook != "", nil
}

// steps holds the evidence against the twelve steps of the flow.
func steps(s scenario, e evidence) []demoStep {
	created, entered, sale := e.entries["payment.created"], e.entries["payment.card_entered"], e.entries["payment.authorizing"]
	end, ended := e.entries["payment."+string(s.status)]
	_, challenged := e.entries["payment.challenged"]
	card := ""
	if e.payment.Card != nil {
		card = string(e.payment.Card.Truncated)
	}
	status, _ := sale.data["trans_status"].(string)
	booked := map[api.Status]string{api.StatusCaptured: "approved", api.StatusDeclined: "declined"}[s.status]
	answer := "-"
	if e.payment.Result != nil {
		answer = e.payment.Result.ResponseCode
	}
	challenge := "the issuer was content: no challenge"
	if challenged {
		challenge = "the shopper answered the issuer; the result came from the directory server (RReq)"
	}
	return []demoStep{
		{1, "merchant's request filtered", e.noKeyStatus == http.StatusUnauthorized && e.payment.ID != "",
			fmt.Sprintf("shop → appliance  POST /v1/payments; without a key: %d", e.noKeyStatus)},
		{2, "card entered over HTTPS", card != "" && e.payment.Attempts == 1,
			"shopper → appliance  form post; the card goes into an HSM session object"},
		{3, "truncated card and details stored and signed", entered.data["card"] == card && entered.rows >= 3,
			fmt.Sprintf("appliance → database and log  %s, %s; rows and entry in one commit", card, e.payment.Token)},
		{4, "stored without card data, with a receipt", entered.index > created.index && e.origin != "",
			fmt.Sprintf("log → appliance  entry %d, inclusion proof, checkpoint signed in the HSM", entered.index)},
		{5, "3-D Secure enrolment asked", status != "", "appliance → directory server  card range, then AReq"},
		{6, "3-D Secure enrolment answered", status != "", "directory server → appliance  ARes, transStatus " + status},
		{7, "issuer's page", challenged == s.challenge && e.challenged == s.challenge, challenge},
		{8, "issuer's answer", status == "Y", "transStatus " + status + "; no CVV in any 3-D Secure message"},
		{9, "authorization sent", sale.data["stan"] != nil && sale.index > entered.index,
			fmt.Sprintf("appliance → acquirer  0200, signed as entry %d before it left; card from the HSM", sale.index)},
		{10, "authorization answered", e.booking == booked,
			fmt.Sprintf("acquirer → appliance  0210, response code %s; its books say %s; the card is destroyed", answer, e.booking)},
		{11, "status stored and signed", ended && e.payment.Status == s.status && end.index > sale.index,
			fmt.Sprintf("appliance → database and log  %s, entry %d", e.payment.Status, end.index)},
		{12, "shopper returned, shop notified", e.shopReturn == string(s.status) && e.shopWebhook == "payment."+string(s.status),
			fmt.Sprintf("appliance → shop  signed return (%s) and signed webhook (%s), both verified", e.shopReturn, e.shopWebhook)},
	}
}
