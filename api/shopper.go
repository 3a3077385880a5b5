package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/finterra/finpay/api/checkout"
	"github.com/finterra/finpay/pci"
)

// patience is how long a shopper's browser is kept waiting before it is shown the page that waits.
const patience = 25 * time.Second

// maxBrowserField bounds what a browser says of itself (EMV 3DS browserAcceptHeader and browserUserAgent), in bytes.
const maxBrowserField = 2048

func (s *server) showCheckout(w http.ResponseWriter, r *http.Request) error {
	view, err := s.view(r)
	if err != nil {
		return err
	}
	if view.State == CheckoutProcessing && r.URL.Query().Get("wait") == "1" { // the page's script is patient
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		after, err := s.cfg.Checkout.Await(ctx, session(r))
		switch {
		case err == nil:
			view = after
		case ctx.Err() == nil:
			return err
		}
	}
	return s.showView(w, r, view)
}

// payCheckout takes a card. The body is read by [Cards] alone, and only where a card can be used: in any other state
// the shopper is shown where the payment stands.
func (s *server) payCheckout(w http.ResponseWriter, r *http.Request) error {
	forgetForm(w)
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" {
		return ErrMediaType
	}
	view, err := s.view(r)
	if err != nil {
		return err
	}
	if view.State != CheckoutPayable {
		s.leaveUnread(w, r)
		return s.moveOn(w, r, view)
	}
	card, entered, err := s.cfg.Cards.Take(r, view.PaymentID, []byte(pci.SealedCheckoutAAD(session(r), view.MerchantID, view.Amount)))
	if err != nil {
		return s.askAgain(w, r, view, err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	after, err := s.cfg.Checkout.Pay(ctx, session(r), card, entered, browserOf(r, entered.Browser))
	if err != nil && ctx.Err() == nil {
		return s.askAgain(w, r, view, err)
	}
	if err != nil {
		after = CheckoutView{State: CheckoutProcessing}
	}
	return s.moveOn(w, r, after)
}

// maxStoredForm is the longest form that pays with a stored card.
const maxStoredForm = 4 << 10

// payStored pays with the stored card that the payment is for: there is no card in the body.
func (s *server) payStored(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.view(r); err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxStoredForm)
	if err := r.ParseForm(); err != nil {
		return ErrMalformed
	}
	var fields pci.BrowserFields
	for name, values := range r.PostForm {
		if field := fields.Field(name); field != nil && values[0] != "" {
			*field = []byte(values[0])
		}
	}
	form := r.PostForm.Get("form")
	if !isID(form) {
		return ErrMalformed
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	after, err := s.cfg.Checkout.PayStored(ctx, session(r), form, browserOf(r, fields.Read()))
	if err != nil && ctx.Err() == nil {
		return err
	}
	if err != nil {
		after = CheckoutView{State: CheckoutProcessing}
	}
	return s.moveOn(w, r, after)
}

// askAgain shows the form with what is wrong beside its fields, or with why a sealed one has to be filled in again. Any other
// error passes.
func (s *server) askAgain(w http.ResponseWriter, r *http.Request, view CheckoutView, err error) error {
	wrong, ok := errors.AsType[pci.CardErrors](err)
	if one, is := errors.AsType[*pci.CardError](err); is && !ok { // found when the card was tokenized
		wrong, ok = pci.CardErrors{one}, true
	}
	page := s.pageOf(r, view)
	page.Errors = wrong
	switch {
	case ok:
		return page.Write(w, http.StatusUnprocessableEntity)
	case errors.Is(err, pci.ErrIntakeKey):
		page.Again = checkout.NewKey
		return page.Write(w, ErrIntakeKey.Status)
	case errors.Is(err, pci.ErrReplayed):
		return s.sentTwice(w, r)
	}
	return err
}

// sentTwice shows where the payment stands now: the first of the two has likely moved it on.
func (s *server) sentTwice(w http.ResponseWriter, r *http.Request) error {
	view, err := s.view(r)
	if err != nil {
		return err
	}
	if view.State != CheckoutPayable {
		return s.moveOn(w, r, view)
	}
	page := s.pageOf(r, view)
	page.Again = checkout.Twice
	return page.Write(w, ErrReplayed.Status)
}

// forgetForm makes the browser drop the page that the shopper leaves: the card form, or that of a method which is over. Chromium keeps even a no-store page in memory,
// typed card and all, and shows it when the shopper goes back, unless one of the site's cookies has changed since. The
// cookie means nothing and is never read.
func forgetForm(w http.ResponseWriter) {
	http.SetCookie(w, &http.Cookie{Name: "__Host-left", Value: rand.Text(), Path: "/", MaxAge: 60, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
}

// returnFromChallenge takes the shopper back from the issuer. The cres that the browser brings is not read: anyone
// could write one. What counts is the result that the issuer sends to the appliance.
func (s *server) returnFromChallenge(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.view(r); err != nil {
		return err
	}
	if !inFrame(r) {
		return s.await(w, r)
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	if _, err := s.cfg.Checkout.Await(ctx, session(r)); err != nil && ctx.Err() == nil {
		return err
	}
	return s.leaveFrame(w, r)
}

// await leads the shopper to what the payment has come to, or to the page that waits.
func (s *server) await(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	view, err := s.cfg.Checkout.Await(ctx, session(r))
	if err != nil && ctx.Err() == nil {
		return err
	}
	if err != nil {
		view = CheckoutView{State: CheckoutProcessing}
	}
	return s.moveOn(w, r, view)
}

// inFrame reports whether the browser says that the answer goes into a frame (Fetch Metadata). Where it does not say, the
// page's script has opened none.
func inFrame(r *http.Request) bool { return r.Header.Get("Sec-Fetch-Dest") == "iframe" }

// leaveFrame answers with the page that has the one around it go on. It says nothing of the payment, and is the only one that
// may stand in a frame.
func (s *server) leaveFrame(w http.ResponseWriter, r *http.Request) error {
	return checkout.Page{Kind: checkout.Returned, Language: checkout.Choose(r), Path: pathOf(r)}.Write(w, http.StatusOK)
}

// maxMethodForm is the longest form that comes back from a 3DS Method.
const maxMethodForm = 4 << 10

// returnFromMethod takes the browser back from the issuer's look at it (3DS Method). The issuer's page in the frame posts
// threeDSMethodData, which says that it was there; then, or when that took too long, the page around it posts a form of its own.
func (s *server) returnFromMethod(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.view(r); err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxMethodForm)
	if err := r.ParseForm(); err != nil {
		return ErrMalformed
	}
	data := r.PostForm.Get("threeDSMethodData")
	if err := s.cfg.Checkout.MethodOver(r.Context(), session(r), data); err != nil {
		return err
	}
	if inFrame(r) {
		return s.leaveFrame(w, r)
	}
	forgetForm(w)
	return s.await(w, r)
}

// view returns the payment of the session in the path.
func (s *server) view(r *http.Request) (CheckoutView, error) {
	secret := session(r)
	if secret == "" {
		return CheckoutView{}, ErrNoSession
	}
	return s.cfg.Checkout.View(r.Context(), secret)
}

// session returns that of the path, empty where it cannot be one: such a path, with a card number in it perhaps, is neither
// looked up nor repeated.
func session(r *http.Request) string {
	secret := mux.Vars(r)["session"]
	if len(secret) > maxID || !isName(secret) || pci.LooksLikePAN(secret) {
		return ""
	}
	return secret
}

// pathOf returns the path of the shopper's page, empty where the request's path holds no session.
func pathOf(r *http.Request) string {
	if secret := session(r); secret != "" {
		return "/checkout/" + secret
	}
	return ""
}

// moveOn answers a POST, so that no reload repeats it: to the shop when the payment is paid, else to the page.
func (s *server) moveOn(w http.ResponseWriter, r *http.Request, view CheckoutView) error {
	if target, ok := leaveFor(view); ok {
		return seeOther(w, target)
	}
	target := pathOf(r)
	if lang := checkout.Asked(r); lang != "" {
		target += "?lang=" + lang
	}
	return seeOther(w, target)
}

// showView answers a GET.
func (s *server) showView(w http.ResponseWriter, r *http.Request, view CheckoutView) error {
	if target, ok := leaveFor(view); ok {
		return seeOther(w, target)
	}
	page := s.pageOf(r, view)
	switch {
	case page.Kind == checkout.Challenge && page.ACSSite == "", page.Kind == checkout.Method && page.MethodSite == "":
		return errors.New("a page of the issuer without an address to go to")
	case page.Kind == checkout.Payable && page.Sealing == nil && !page.Open:
		return fmt.Errorf("%w: cards are taken sealed only, and the HSM has no key to seal them to", ErrUnavailable)
	}
	status := http.StatusOK
	if page.Kind == checkout.Expired {
		status = http.StatusGone
	}
	return page.Write(w, status)
}

// leaveFor returns the shop's address for a payment that is paid. Without ReturnOrigin the page before could not
// allow the redirect, and the browser would stop it; then the shopper takes the page's link.
func leaveFor(view CheckoutView) (string, bool) {
	if view.State != CheckoutPaid || view.ReturnOrigin == "" || siteOf(view.ReturnURL) == "" {
		return "", false
	}
	return view.ReturnURL, true
}

// seeOther redirects a browser with GET, without a body that would repeat the address.
func seeOther(w http.ResponseWriter, target string) error {
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// kinds are the pages of the states.
var kinds = map[CheckoutState]checkout.Kind{
	CheckoutPayable: checkout.Payable, CheckoutMethod: checkout.Method, CheckoutChallenge: checkout.Challenge, CheckoutProcessing: checkout.Processing,
	CheckoutPaid: checkout.Paid, CheckoutUncertain: checkout.Uncertain, CheckoutFailed: checkout.Failed, CheckoutExpired: checkout.Expired,
}

func (s *server) pageOf(r *http.Request, view CheckoutView) checkout.Page {
	page := checkout.Page{
		Kind: kinds[view.State], Language: checkout.Choose(r), Path: pathOf(r), Merchant: view.MerchantName, Reference: view.Reference,
		Amount: view.Amount, Decline: string(view.Decline), ReturnSite: siteOf(view.ReturnOrigin),
	}
	if site := siteOf(view.ReturnURL); site != "" {
		page.ReturnURL = view.ReturnURL
		if page.ReturnSite == "" {
			page.ReturnSite = site
		}
	}
	if view.Stored != nil && page.Kind == checkout.Payable && r.Method != http.MethodPost && r.URL.Query().Get("card") != "another" {
		page.Kind, page.Stored = checkout.Stored, *view.Stored
		page.Now, page.ExpiresAt = s.cfg.Now(), view.ExpiresAt
	}
	if page.Kind == checkout.Payable {
		page.Now, page.ExpiresAt = s.cfg.Now(), view.ExpiresAt
		page.Open = s.cfg.Cards.TakesOpen()
		if key, ok := s.cfg.Intake.SealingKey(); ok {
			page.Sealing = &checkout.Sealing{Key: key.Name, PublicKey: key.PublicKey, Info: string(pci.SealedCheckoutInfo()),
				AAD: pci.SealedCheckoutAAD(session(r), view.MerchantID, view.Amount)}
		}
	}
	if view.Method != nil {
		page.MethodURL, page.MethodSite, page.MethodData = view.Method.URL, siteOf(view.Method.URL), view.Method.Data
		page.Next = pathOf(r) + "/method?lang=" + page.Language.Code
	}
	if view.Challenge != nil {
		page.ACSURL, page.ACSSite, page.CReq = view.Challenge.ACSURL, siteOf(view.Challenge.ACSURL), view.Challenge.CReq
	}
	return page
}

// troubles are the pages of problems; what is not here is [checkout.Broken].
var troubles = map[string]checkout.Kind{
	ErrNoSession.Code: checkout.Unknown, ErrNotFound.Code: checkout.Unknown, ErrUnavailable.Code: checkout.Busy,
	ErrRateLimit.Code: checkout.Busy, ErrMalformed.Code: checkout.Unreadable, ErrTooLarge.Code: checkout.Unreadable,
	ErrMediaType.Code: checkout.Unreadable, ErrMethod.Code: checkout.Unreadable, ErrOpenCard.Code: checkout.Script,
}

// refuseShopper shows a problem as a page.
func (s *server) refuseShopper(w http.ResponseWriter, r *http.Request, p *Problem) {
	kind, ok := troubles[p.Code]
	if !ok {
		kind = checkout.Broken
	}
	p.setRetryAfter(w.Header())
	page := checkout.Page{Kind: kind, Language: checkout.Choose(r), Path: pathOf(r)}
	if err := page.Write(w, p.Status); err != nil {
		s.cfg.Logger.ErrorContext(r.Context(), "no page", "request_id", exchangeOf(r).id, "error", err)
		WriteProblem(w, p)
	}
}

// browserOf is what the headers tell of the browser, and the page's script where one ran.
func browserOf(r *http.Request, scripted pci.Browser) pci.Browser {
	browser := scripted
	browser.AcceptLanguage = head(r.Header.Get("Accept-Language"))
	browser.AcceptHeader, browser.UserAgent, browser.IP = head(r.Header.Get("Accept")), head(r.UserAgent()), originOf(r)
	if browser.Language == "" {
		browser.Language = languageOf(r)
	}
	return browser
}

// languageOf is the first language of Accept-Language, empty where it is none.
func languageOf(r *http.Request) string {
	language, _, _ := strings.Cut(r.Header.Get("Accept-Language"), ",")
	language, _, _ = strings.Cut(language, ";")
	if language = strings.TrimSpace(language); language == "*" || !isName(language) || len(language) > 35 { // RFC 5646 section 4.4.1
		return ""
	}
	return language
}

// head cuts what a browser says of itself to what EMV 3DS takes: its first 2048 bytes, all printable ASCII.
func head(s string) string {
	s = s[:min(len(s), maxBrowserField)]
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, s)
}
