package api

import (
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gorilla/mux"

	"github.com/finterra/finpay/pci"
)

// maxCard is the longest body that carries one card, in bytes.
const maxCard = 1 << 10

// maxDomain is the longest name of a domain.
const maxDomain = 64

func (s *server) issueToken(w http.ResponseWriter, r *http.Request, caller Caller) error {
	if err := isJSON(r.Header); err != nil {
		return err
	}
	domain, err := onlyDomain(r)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxCard)
	token, issued, err := s.cfg.Tokens.Issue(r, caller, domain, key)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if issued {
		status = http.StatusCreated
		w.Header().Set("Location", "/v1/tokens/"+string(token.Token))
	}
	return writeJSON(w, status, token)
}

func (s *server) listTokens(w http.ResponseWriter, r *http.Request, caller Caller) error {
	q, err := readQuery(r, "domain", "cursor", "limit")
	if err != nil {
		return err
	}
	domain, err := domainOf(q)
	if err != nil {
		return err
	}
	page := TokenPage{Limit: DefaultPage}
	if page.Cursor, err = queryCursor(q); err != nil {
		return err
	}
	if page.Limit, err = queryLimit(q, MaxPage); err != nil {
		return err
	}
	list, err := s.cfg.Tokens.List(r.Context(), caller, domain, page)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) getToken(w http.ResponseWriter, r *http.Request, caller Caller) error {
	token, domain, err := tokenOf(r)
	if err != nil {
		return err
	}
	found, err := s.cfg.Tokens.Get(r.Context(), caller, domain, token)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, found)
}

func (s *server) deactivateToken(w http.ResponseWriter, r *http.Request, caller Caller) error {
	token, domain, err := tokenOf(r)
	if err != nil {
		return err
	}
	ended, err := s.cfg.Tokens.Deactivate(r.Context(), caller, domain, token)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, ended)
}

func (s *server) detokenize(w http.ResponseWriter, r *http.Request, caller Caller) error {
	token, domain, err := tokenOf(r)
	if err != nil {
		return err
	}
	var request struct {
		Reason DetokenizeReason `json:"reason"`
	}
	if err := s.readJSON(w, r, &request); err != nil {
		return err
	}
	if !slices.Contains(DetokenizeReasons, request.Reason) {
		return ErrInvalid.At("/reason").With("Send one of the reasons that openapi.yaml lists.")
	}
	card, err := s.cfg.Tokens.Detokenize(r.Context(), caller, domain, token, request.Reason)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, card)
}

// maxChanges is the longest page of changes.
const maxChanges = 1000

func (s *server) listTokenChanges(w http.ResponseWriter, r *http.Request, caller Caller) error {
	q, err := readQuery(r, "domain", "after", "limit")
	if err != nil {
		return err
	}
	domain, err := domainOf(q)
	if err != nil {
		return err
	}
	var page ChangePage
	if page.Limit, err = queryLimit(q, maxChanges); err != nil {
		return err
	}
	if text, ok := q["after"]; ok {
		after, err := strconv.ParseInt(text, 10, 64)
		if err != nil || after < 0 {
			return ErrInvalid.With("The query parameter after is the number of a change, or 0.")
		}
		page.After = &after
	}
	changes, err := s.cfg.Tokens.Changes(r.Context(), caller, domain, page)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, changes)
}

func (s *server) acknowledgeTokenChanges(w http.ResponseWriter, r *http.Request, caller Caller) error {
	domain, err := onlyDomain(r)
	if err != nil {
		return err
	}
	var request struct {
		Through int64 `json:"through"`
	}
	if err := s.readJSON(w, r, &request); err != nil {
		return err
	}
	if request.Through < 1 {
		return ErrInvalid.At("/through").With("Send the number of the newest change that the domain has followed.")
	}
	changes, err := s.cfg.Tokens.AcknowledgeChanges(r.Context(), caller, domain, request.Through)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, changes)
}

func (s *server) getIntakeKey(w http.ResponseWriter, r *http.Request) error {
	key, err := s.cfg.Intake.IntakeKey(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, key)
}

func (s *server) listDomains(w http.ResponseWriter, r *http.Request, caller Caller) error {
	if _, err := readQuery(r); err != nil {
		return ErrUnknownField.With("This route takes no query.")
	}
	domains, err := s.cfg.Tokens.Domains(r.Context(), caller)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		Domains []Domain `json:"domains"`
	}{domains})
}

// tokenOf returns the token in the path and the domain of the query. What cannot be a token is not looked up, and a card
// number in its place is said to be one, so that it does not stand in more places.
func tokenOf(r *http.Request) (pci.Token, string, error) {
	domain, err := onlyDomain(r)
	if err != nil {
		return "", "", err
	}
	token := mux.Vars(r)["token"]
	switch {
	case len(token) > maxID || !isName(token):
		return "", "", ErrNotFound
	case pci.LooksLikePAN(token):
		return "", "", ErrCardNumber.With("The path holds what looks like a card number, not a token. It is not in this appliance's logs; look after your own.")
	}
	return pci.Token(token), domain, nil
}

func onlyDomain(r *http.Request) (string, error) {
	q, err := readQuery(r, "domain")
	if err != nil {
		return "", err
	}
	return domainOf(q)
}

func domainOf(q map[string]string) (string, error) {
	domain, ok := q["domain"]
	if ok && (domain == "" || len(domain) > maxDomain || !isName(domain)) {
		return "", ErrNoDomain
	}
	return domain, nil
}

// streamTimeout is how long the client of a batch may neither send nor read anything.
const streamTimeout = 30 * time.Second

// issueTokens answers line by line while the body still arrives: its length has no limit, and no timeout but for a client
// that does nothing.
func (s *server) issueTokens(w http.ResponseWriter, r *http.Request, caller Caller) error {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-ndjson" || r.Header.Get("Content-Encoding") != "" {
		return ErrMediaType.With("Send application/x-ndjson: one JSON object a line, without a Content-Encoding.")
	}
	domain, err := onlyDomain(r)
	if err != nil {
		return err
	}
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/1.1 would wait for the whole body; HTTP/2 always does both
	r.Body = &patientBody{r.Body, control}
	lines := batchLines{w: w, control: control}
	err = s.cfg.Tokens.IssueAll(r, caller, domain, lines.write)
	if err != nil && lines.begun {
		s.cfg.Logger.WarnContext(r.Context(), "a batch was broken off", "request_id", exchangeOf(r).id, "lines", lines.n, "error", err)
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	if err != nil {
		return err
	}
	lines.begin()
	return nil
}

// patientBody gives a client more time with each piece that it sends.
type patientBody struct {
	body    interface{ Read([]byte) (int, error) }
	control *http.ResponseController
}

func (b *patientBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(streamTimeout)) // a server without deadlines has no timeout either
	return b.body.Read(p)
}

// Close ends a Read that waits for a client who is silent; the server closes the body itself.
func (b *patientBody) Close() error { return b.control.SetReadDeadline(time.Unix(1, 0)) }

// batchLines writes the results of a batch.
type batchLines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
	n       int
	buf     []byte
}

func (l *batchLines) begin() {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.WriteHeader(http.StatusOK)
	}
}

func (l *batchLines) write(results []TokenResult) error {
	l.begin()
	l.buf = l.buf[:0]
	for i := range results {
		l.n++
		l.append(&results[i])
	}
	_ = l.control.SetWriteDeadline(time.Now().Add(streamTimeout))
	if _, err := l.w.Write(l.buf); err != nil {
		return err
	}
	return l.control.Flush()
}

// append writes one line. Of what stands in it only an error's text may need escapes: encoding/json would take a third of
// the time that a token takes.
func (l *batchLines) append(r *TokenResult) {
	l.buf = append(l.buf, `{"line":`...)
	l.buf = strconv.AppendInt(l.buf, int64(l.n), 10)
	if r.Err != nil {
		l.appendError(ProblemOf(r.Err))
		return
	}
	l.buf = append(l.buf, `,"token":"`...)
	l.buf = append(l.buf, r.Token...)
	l.buf = append(l.buf, `","issued":`...)
	l.buf = strconv.AppendBool(l.buf, r.Issued)
	l.buf = append(l.buf, `,"card":{"brand":"`...)
	l.buf = append(l.buf, r.Card.Brand...)
	l.buf = append(l.buf, `","truncated":"`...)
	l.buf = append(l.buf, r.Card.Truncated...)
	l.buf = append(l.buf, `","expiry":"`...)
	l.buf = r.Card.Expiry.Append(l.buf)
	l.buf = append(l.buf, "\"}}\n"...)
}

func (l *batchLines) appendError(p *Problem) {
	text, err := json.Marshal(struct {
		Code    string `json:"code"`
		Detail  string `json:"detail"`
		Pointer string `json:"pointer,omitempty"`
	}{p.Code, p.Detail, p.Pointer})
	if err != nil {
		text = []byte(`{"code":"internal"}`)
	}
	l.buf = append(l.buf, `,"error":`...)
	l.buf = append(l.buf, text...)
	l.buf = append(l.buf, "}\n"...)
}
