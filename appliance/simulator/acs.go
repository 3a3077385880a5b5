package simulator

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/bojanz/currency"
)

// challengeLife is how long a challenge waits for the shopper.
const challengeLife = 10 * time.Minute

// ACS is the access control server of a simulated bank. Browsers post a creq to it and are asked for a password;
// the verdict goes to the 3DS Server as an RReq, and then the browser goes back to notificationURL with a cres.
//
// The RReq takes the short way: a real ACS sends it through the directory server.
type ACS struct {
	// Client posts RReqs: mutual TLS, with the certificate of the simulated directory server.
	Client *http.Client
	Log    *slog.Logger // nil means [slog.Default]

	behaviour behaviour

	mu      sync.Mutex
	pending map[string]*challenge // by acsTransID
}

// BehaveHandler changes what becomes of results: GET and POST of a [Behaviour], from this machine alone.
func (a *ACS) BehaveHandler() http.Handler {
	a.behaviour.faults = issuerFaults
	return &a.behaviour
}

// challenge is one that the directory server announced.
type challenge struct {
	serverTransID, dsTransID, acsTransID string
	version                              string

	resultsURL, notificationURL string
	number, merchant, amount    string
	expires                     time.Time

	mu     sync.Mutex
	result elements // the RReq, once the shopper has decided; repeats are the same
}

// expect prepares for the shopper of an AReq that was answered with a challenge.
func (a *ACS) expect(areq elements, dsTransID, acsTransID string) {
	c := &challenge{
		version: areq.version(), serverTransID: areq.text("threeDSServerTransID"), dsTransID: dsTransID, acsTransID: acsTransID,
		resultsURL: areq.text("threeDSServerURL"), notificationURL: areq.text("notificationURL"),
		number: areq.text("acctNumber"), merchant: areq.text("merchantName"), expires: time.Now().Add(challengeLife),
	}
	c.amount = displayAmount(areq.text("purchaseAmount"), areq.text("purchaseCurrency"), areq.text("purchaseExponent"))
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pending == nil {
		a.pending = make(map[string]*challenge)
	}
	for id, old := range a.pending {
		if time.Now().After(old.expires) {
			delete(a.pending, id)
		}
	}
	a.pending[acsTransID] = c
}

func (a *ACS) find(acsTransID string) *challenge {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.pending[acsTransID]; c != nil && time.Now().Before(c.expires) {
		return c
	}
	return nil
}

// displayAmount writes minor units of a numeric currency for people.
func displayAmount(minor, numeric, exponent string) string {
	digits, _ := strconv.Atoi(exponent)
	for len(minor) <= digits {
		minor = "0" + minor
	}
	if digits > 0 {
		minor = minor[:len(minor)-digits] + "." + minor[len(minor)-digits:]
	}
	for _, code := range currency.GetCurrencyCodes() {
		if n, _ := currency.GetNumericCode(code); n == numeric {
			return code + " " + minor
		}
	}
	return minor
}

// ServeHTTP implements [http.Handler]: one URL takes the creq and then the shopper's decision.
func (a *ACS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "only POST", http.StatusMethodNotAllowed)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxMessage)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the form cannot be read", http.StatusBadRequest)
		return
	}
	if r.PostForm.Has("creq") {
		a.begin(w, r)
		return
	}
	a.finish(w, r)
}

// acsPage is what the challenge page shows.
type acsPage struct {
	Merchant, Amount, Card string
	ACSTransID             string
	SessionData            string
	Failed                 bool // the last try to deliver the result failed
}

func (a *ACS) begin(w http.ResponseWriter, r *http.Request) {
	creq, err := readCReq(r.PostForm.Get("creq"))
	if err != nil {
		showError(w, http.StatusBadRequest, "Your bank did not understand the request.")
		return
	}
	c := a.find(creq.ACSTransID)
	if c == nil || c.serverTransID != creq.ThreeDSServerTransID || c.version != creq.MessageVersion {
		showError(w, http.StatusNotFound, "Your bank does not know this payment, or it took too long.")
		return
	}
	a.show(w, http.StatusOK, c, r.PostForm.Get("threeDSSessionData"), false)
}

func (a *ACS) show(w http.ResponseWriter, status int, c *challenge, sessionData string, failed bool) {
	render(w, status, "challenge.html", "form-action 'self'", acsPage{
		Merchant: c.merchant, Amount: c.amount, Card: "•••• " + c.number[len(c.number)-4:],
		ACSTransID: c.acsTransID, SessionData: sessionData, Failed: failed,
	})
}

type creq struct {
	ThreeDSServerTransID string `json:"threeDSServerTransID"`
	ACSTransID           string `json:"acsTransID"`
	MessageType          string `json:"messageType"`
	MessageVersion       string `json:"messageVersion"`
	ChallengeWindowSize  string `json:"challengeWindowSize"`
}

func readCReq(field string) (creq, error) {
	raw, err := base64.RawURLEncoding.DecodeString(field)
	if err != nil {
		return creq{}, err
	}
	var c creq
	if err := json.Unmarshal(raw, &c); err != nil {
		return creq{}, err
	}
	if c.MessageType != "CReq" || !version.MatchString(c.MessageVersion) || c.ChallengeWindowSize == "" {
		return creq{}, errors.New("not a CReq")
	}
	return c, nil
}

func (a *ACS) finish(w http.ResponseWriter, r *http.Request) {
	c := a.find(r.PostForm.Get("acsTransID"))
	if c == nil {
		showError(w, http.StatusNotFound, "Your bank does not know this payment, or it took too long.")
		return
	}
	rreq := c.decide(r.PostForm.Get("password"), r.PostForm.Get("action") == "cancel")
	sessionData := r.PostForm.Get("threeDSSessionData")
	if err := a.deliverAsTold(r.Context(), c.resultsURL, rreq); err != nil {
		logger(a.Log).ErrorContext(r.Context(), "ACS: the result could not be delivered", "error", err)
		a.show(w, http.StatusBadGateway, c, sessionData, true)
		return
	}
	a.sendBack(w, c, rreq.text("transStatus"), sessionData)
}

// decide keeps the first decision: what was sent once is sent again.
func (c *challenge) decide(password string, cancel bool) elements {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.result != nil {
		return c.result
	}
	transStatus := "N"
	if password == ChallengePassword && !cancel {
		transStatus = "Y"
	}
	c.result = elements{
		"messageType": "RReq", "messageVersion": c.version, "messageCategory": "01",
		"threeDSServerTransID": c.serverTransID, "dsTransID": c.dsTransID, "acsTransID": c.acsTransID,
		"authenticationType": "01", "authenticationMethod": "01", "interactionCounter": "01",
		"transStatus": transStatus, "eci": eciOf(c.number, transStatus),
	}
	if c.version == version231 {
		delete(c.result, "authenticationType")
		c.result["authenticationMethod"] = []string{"01"}
	}
	switch {
	case transStatus == "Y":
		c.result["authenticationValue"] = newCAVV(true)
	case cancel:
		c.result["challengeCancel"], c.result["transStatusReason"] = "01", "01"
		c.result["interactionCounter"] = "00"
	default:
		c.result["transStatusReason"] = "19" // exceeded ACS maximum challenges
	}
	return c.result
}

// deliverAsTold delivers the result as often as was told, once where nothing was.
func (a *ACS) deliverAsTold(ctx context.Context, resultsURL string, rreq elements) error {
	switch a.behaviour.struck(issuerFaults...).Fault {
	case ResultNever:
		return nil
	case ResultTwice:
		if err := a.deliver(ctx, resultsURL, rreq); err != nil {
			return err
		}
	}
	return a.deliver(ctx, resultsURL, rreq)
}

// deliver posts the RReq and returns once the 3DS Server has answered with an RRes.
func (a *ACS) deliver(ctx context.Context, resultsURL string, rreq elements) error {
	raw, err := json.Marshal(rreq)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, resultsURL, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	resp, err := a.Client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer elements
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxMessage)).Decode(&answer); err != nil {
		return fmt.Errorf("HTTP status %d without a message", resp.StatusCode)
	}
	if answer.text("messageType") != "RRes" || answer.text("acsTransID") != rreq.text("acsTransID") {
		return fmt.Errorf("answered with %s %s: %s", answer.text("messageType"), answer.text("errorCode"), answer.text("errorDetail"))
	}
	return nil
}

// sendBack has the browser post the CRes to notificationURL.
func (a *ACS) sendBack(w http.ResponseWriter, c *challenge, transStatus, sessionData string) {
	raw, _ := json.Marshal(elements{ // strings only: cannot fail
		"messageType": "CRes", "messageVersion": c.version, "transStatus": transStatus,
		"threeDSServerTransID": c.serverTransID, "acsTransID": c.acsTransID,
	})
	target, err := url.Parse(c.notificationURL)
	if err != nil || target.Host == "" {
		showError(w, http.StatusBadRequest, "The shop left no way back.")
		return
	}
	// The post may be redirected, to the shop in the end, and browsers hold redirects to the same directive.
	render(w, http.StatusOK, "return.html", "form-action "+target.Scheme+"://"+target.Host+" "+anyShop, struct {
		NotificationURL, CRes, SessionData string
		OK                                 bool
	}{c.notificationURL, base64.RawURLEncoding.EncodeToString(raw), sessionData, transStatus == "Y"})
}
